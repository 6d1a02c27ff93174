/* The passes: every rule on a small graph, sharing between branches, and random graphs that must keep their values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "codegen/graph.h"
#include "codegen/ir.h"
#include "runtime/cpu/session.h"

static mk_graph *from_script(const char *script) {
  char path[] = "/tmp/mk-passes-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, script, strlen(script)), strlen(script));
  close(fd);
  mk_status st = {0};
  mk_graph *g = mk_graph_from_script(&(mk_script_options){.path = path}, &st);
  unlink(path);
  assert_string_equal(st.message, "");
  g->name = "g";
  return g;
}

static char *printed(const mk_graph *g) { /* without positions; caller frees */
  for (int i = 0; i < g->count; i++) g->nodes[i].where = NULL;
  mk_text out = {0};
  mk_graph_print(g, &out);
  return out.data;
}

static void expect_optimized(const char *script, const char *want) {
  mk_graph *g = from_script(script);
  mk_status st = {0};
  assert_true(mk_optimize(g, &st));
  char *text = printed(g);
  assert_string_equal(text, want);
  free(text);
  mk_graph_free(g);
}

#define X "local x = input{name='x', shape={2, 3}}\n"
#define X_LINE "graph g\n%0 f32 [2,3] step  input \"x\"\n"

static void folds_constants(void **state) {
  (void)state;
  expect_optimized(X "local c = (const({1, 4}, {2, 1}):sqrt() + const({1, 2, 3}, {3})) * 2 output('y', x * c)", X_LINE
                   "%1 f32 [2,3] load  const {4 6 8 6 8 10}\n%2 f32 [2,3] step  mul %0 %1\n"
                   "entry step\n  output \"y\" %2\n");
  /* a rounding cast is part of the value */
  expect_optimized(X "output('y', x * const(1.001953125):cast 'bf16':cast 'f32' + const(1/3):cast 'f16':neg())",
                   X_LINE "%1 f32 [] load  const {-0.333251953}\n%2 f32 [2,3] step  add %0 %1\nentry step\n  output \"y\" %2\n");
  /* NaN is left to happen where it would; large constants are not copied through operations */
  expect_optimized(X "output('y', x * (const(1/0) - const(1/0)))", X_LINE
                   "%1 f32 [] load  const {inf}\n%2 f32 [] load  sub %1 %1\n%3 f32 [2,3] step  mul %0 %2\n"
                   "entry step\n  output \"y\" %3\n");
  expect_optimized("output('y', const({0, 1}, {1, 2}):expand{10000, 2}:exp():sum())",
                   "graph g\n%0 f32 [1,2] load  const {0 1}\n%1 f32 [10000,2] load  expand %0\n%2 f32 [10000,2] load  exp %1\n"
                   "%3 f32 [10000,1] load  sum %2\nentry step\n  output \"y\" %3\n");
  expect_optimized("output('y', const({1, 2, 3, 4, 5, 6}, {2, 3}, 'i32'):permute{2, 1}:slice(1, 1, 2):reshape{4})",
                   "graph g\n%0 i32 [4] load  const {2 5 3 6}\nentry step\n  output \"y\" %0\n");
}

static void removes_identities(void **state) {
  (void)state;
  const char same[] = X_LINE "entry step\n  output \"y\" %0\n";
  expect_optimized(X "output('y', 1 * ((x + 0) * 1 - 0) / 1 + const({0, 0, 0}, {1, 3}))", same);
  expect_optimized(X "output('y', -(-x))", same);
  expect_optimized(X "output('y', x:reshape{6}:reshape{3, 2}:reshape{2, 3}:permute{1, 2}:expand{2, 3}:slice(1, 0, 2))", same);
  expect_optimized(X "output('y', x:permute{2, 1}:permute{2, 1})", same);
  expect_optimized(X "output('y', concat({concat({x:slice(2, 0, 1), x:slice(2, 1, 1)}, 2), x:slice(2, 2, 1)}, 2))", same);
  expect_optimized(X "local c = concat({-x, x, x:exp()}, 1) output('y', c:slice(1, 1, 5):slice(1, 1, 2))", same);
  expect_optimized(X "output('y', x:reshape{6, 1}:sum():reshape{2, 3})", same);
  /* one that enlarges is no identity */
  expect_optimized("local x = input{name='x', shape={3}} output('y', x + const({0, 0, 0, 0, 0, 0}, {2, 3}))",
                   "graph g\n%0 f32 [3] step  input \"x\"\n%1 f32 [2,3] load  const {0 0 0 0 0 0}\n%2 f32 [2,3] step  add %0 %1\n"
                   "entry step\n  output \"y\" %2\n");
  expect_optimized(X "output('y', 1 / x - x)", X_LINE
                   "%1 f32 [] load  const {1}\n%2 f32 [2,3] step  div %1 %0\n%3 f32 [2,3] step  sub %2 %0\n"
                   "entry step\n  output \"y\" %3\n");
}

static void merges_movement(void **state) {
  (void)state;
  expect_optimized("local x = input{name='x', shape={2, 3, 4}} output('y', x:permute{2, 3, 1}:permute{2, 1, 3})",
                   "graph g\n%0 f32 [2,3,4] step  input \"x\"\n%1 f32 [4,3,2] step  permute %0 perm=[2,1,0]\n"
                   "entry step\n  output \"y\" %1\n");
  expect_optimized("local x = input{name='x', shape={2, 1, 4}} output('y', x:permute{2, 1, 3}:reshape{8})",
                   "graph g\n%0 f32 [2,1,4] step  input \"x\"\n%1 f32 [8] step  reshape %0\nentry step\n  output \"y\" %1\n");
  expect_optimized(
      "local x = input{name='x', shape={1, 3}} output('y', x:expand{4, 3}:slice(1, 1, 2):slice(2, 2, 1))",
      "graph g\n%0 f32 [1,3] step  input \"x\"\n%1 f32 [1,1] step  slice %0 start=[0,2]\n%2 f32 [2,1] step  expand %1\n"
      "entry step\n  output \"y\" %2\n");
  expect_optimized(X "local w = input{name='w', shape={3}} output('y', x * w:reshape{1, 3}:expand{2, 3})",
                   X_LINE "%1 f32 [3] step  input \"w\"\n%2 f32 [2,3] step  mul %0 %1\nentry step\n  output \"y\" %2\n");
  /* without the expansion the result would be smaller */
  expect_optimized("local w = input{name='w', shape={1, 3}} output('y', w:expand{2, 3} * w:expand{2, 3})",
                   "graph g\n%0 f32 [1,3] step  input \"w\"\n%1 f32 [2,3] step  expand %0\n%2 f32 [2,3] step  mul %0 %1\n"
                   "entry step\n  output \"y\" %2\n");
  /* across a border between pieces nothing changes */
  expect_optimized(X "output('y', concat({x, -x}, 1):slice(1, 1, 2))", X_LINE
                   "%1 f32 [2,3] step  neg %0\n%2 f32 [4,3] step  concat %0 %1 axis=0\n"
                   "%3 f32 [2,3] step  slice %2 start=[1,0]\nentry step\n  output \"y\" %3\n");
}

static void merges_exact_casts_only(void **state) {
  (void)state;
  expect_optimized(
      "local x = input{name='x', shape={2}, dtype='bf16'}\n"
      "output('same', x:cast 'f32':cast 'bf16') output('f16', x:cast 'f32':cast 'f16') output('sum', x:cast 'f32' + 1)",
      "graph g\n%0 bf16 [2] step  input \"x\"\n%1 f16 [2] step  cast %0\n%2 f32 [] load  const {1}\n"
      "%3 f32 [2] step  add %0 %2\nentry step\n  output \"same\" %0\n  output \"f16\" %1\n  output \"sum\" %3\n");
  expect_optimized(X "output('y', x:cast 'bf16':cast 'f32')",
                   X_LINE "%1 bf16 [2,3] step  cast %0\n%2 f32 [2,3] step  cast %1\nentry step\n  output \"y\" %2\n");
  expect_optimized(X "output('y', x:cast 'f16':cast 'bf16')",
                   X_LINE "%1 f16 [2,3] step  cast %0\n%2 bf16 [2,3] step  cast %1\nentry step\n  output \"y\" %2\n");
}

static int count_ops(const mk_graph *g, mk_op op) {
  int n = 0;
  for (int i = 0; i < g->count; i++) n += g->nodes[i].op == op;
  return n;
}

static void shares_branches(void **state) {
  (void)state;
  mk_graph *g = from_script(
      "local x = input{name='x', shape={8, 6}}\n"
      "local text = {input{name='cond', shape={4, 6}, rate='prompt'}, input{name='uncond', shape={4, 6}, rate='prompt'}}\n"
      "local scale = input{name='scale', shape={}}\n"
      "local function heads(y) return y:reshape{-1, 2, 3} end\n"
      "local function norm(y) local c = y - y:mean() return c * ((c * c):mean() + 1e-6):rsqrt() end\n"
      "local function branch(context)\n"
      "  local h = x\n"
      "  for i = 1, 2 do\n"
      "    local n = norm(h) * (1 + weight('s' .. i, {6}))\n"
      "    local q = heads(matmul(n, weight('q' .. i, {6, 6})))\n"
      "    h = h + attention(q, q, q):reshape{8, 6}\n"
      "    local k = heads(matmul(context, weight('k' .. i, {6, 6})))\n"
      "    h = h + attention(heads(h), k, k):reshape{8, 6}\n"
      "  end\n"
      "  return h\n"
      "end\n"
      "local c, u = branch(text[1]), branch(text[2])\n"
      "output('y', u + scale * (c - u))\n");
  mk_status st = {0};
  assert_int_equal(count_ops(g, MK_OP_ATTENTION), 8);
  assert_true(mk_optimize(g, &st));
  assert_int_equal(count_ops(g, MK_OP_ATTENTION), 7); /* self-attention of block 1 is one */
  assert_int_equal(count_ops(g, MK_OP_MATMUL), 1 + 2 + 4);
  assert_int_equal(count_ops(g, MK_OP_RSQRT), 3);
  for (int i = 0; i < g->count; i++) /* keys and values of the text leave the step */
    if (g->nodes[i].op == MK_OP_MATMUL && g->nodes[g->nodes[i].args[0]].op == MK_OP_INPUT)
      assert_int_equal(g->nodes[i].rate, MK_RATE_PROMPT);
  mk_graph_free(g);
}

static void tells_apart(void **state) {
  (void)state;
  /* a + b is b + a; a - b is not b - a; attributes and constant data count; unused inputs stay, unused weights go */
  expect_optimized(X
                   "local z = input{name='z', shape={2, 3}}\nlocal w = weight('w', {3, 3})\n"
                   "output('y', (x + z) * (z + x)) output('d', (x - z) * (z - x))\n"
                   "output('c', const({1, 2}, {2}) / const({2, 2}, {2}):sum() + const({1, 2}, {2}):sum())",
                   X_LINE
                   "%1 f32 [2,3] step  input \"z\"\n%2 f32 [2,3] step  add %0 %1\n%3 f32 [2,3] step  mul %2 %2\n"
                   "%4 f32 [2,3] step  sub %0 %1\n%5 f32 [2,3] step  sub %1 %0\n%6 f32 [2,3] step  mul %4 %5\n"
                   "%7 f32 [2] load  const {1 2}\n%8 f32 [2] load  const {2 2}\n%9 f32 [1] load  sum %8\n"
                   "%10 f32 [2] load  div %7 %9\n%11 f32 [1] load  sum %7\n%12 f32 [2] load  add %10 %11\n"
                   "entry step\n  output \"y\" %3\n  output \"d\" %6\n  output \"c\" %12\n");
  expect_optimized(X
                   "input{name='unused', shape={1}} local w = weight('w', {3, 3})\n"
                   "output('y', matmul(x, w) + matmul(x, w, {tf32=true}) + x:slice(1, 0, 1) + x:slice(1, 1, 1))",
                   X_LINE
                   "%1 f32 [1] step  input \"unused\"\n%2 f32 [3,3] load  input \"w\"\n%3 f32 [2,3] step  matmul %0 %2\n"
                   "%4 f32 [2,3] step  matmul %0 %2 tf32\n%5 f32 [2,3] step  add %3 %4\n"
                   "%6 f32 [1,3] step  slice %0 start=[0,0]\n%7 f32 [2,3] step  add %5 %6\n"
                   "%8 f32 [1,3] step  slice %0 start=[1,0]\n%9 f32 [2,3] step  add %7 %8\n"
                   "entry step\n  output \"y\" %9\n");
}

static void tells_attributes_apart(void **state) {
  (void)state;
  mk_graph *g = from_script(
      "local x = input{name='x', shape={2, 2, 2}}\nlocal v = input{name='v', shape={4, 4, 4, 2}}\n"
      "local w = weight('w', {2, 3, 1, 1, 2})\n"
      "local all = {x:permute{2, 1, 3}, x:permute{1, 3, 2}, x:permute{3, 1, 2}, attention(x, x, x),\n"
      "  attention(x, x, x, {scale=2}), attention(x, x, x, {causal=true}),\n"
      "  conv(v, w, {t={2, 0}}), conv(v, w, {t={0, 2}}), conv(v, w, {t={1, 1}}), conv(v, w, {t={2, 0}, tf32=true}),\n"
      "  x:cast 'bf16', x:cast 'f16', concat({x, -x}, 1):reshape{16}, concat({x, -x}, 2):reshape{16}}\n"
      "for i, y in ipairs(all) do output('y' .. i, y) end");
  mk_status st = {0};
  assert_true(mk_optimize(g, &st));
  for (int i = 0; i < g->noutputs; i++)
    for (int k = 0; k < i; k++) assert_int_not_equal(g->outputs[i].node, g->outputs[k].node);
  mk_graph_free(g);
}

static void scales(void **state) {
  (void)state;
  mk_graph *g = from_script(
      "local x = input{name='x', shape={4}}\nlocal a, b = x, x\n"
      "for i = 1, 30000 do a = (a + i):sin() b = (i + b):sin() end\noutput('y', a - b)");
  assert_true(g->count > 150000);
  mk_status st = {0};
  assert_true(mk_optimize(g, &st));
  assert_int_equal(g->count, 1 + 30000 * 3 + 1);
  mk_graph_free(g);
}

/* ---- random graphs */

static uint32_t draw(uint64_t *seed, uint32_t below) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*seed >> 33) % below;
}

static int random_leaf(mk_graph *g, uint64_t *seed) {
  char name[16];
  int64_t dims[4];
  int rank = 1 + (int)draw(seed, 4);
  for (int i = 0; i < rank; i++) dims[i] = 1 + (int64_t)draw(seed, 3) * (draw(seed, 3) > 0);
  mk_status st = {0};
  snprintf(name, sizeof name, "x%d", g->count);
  mk_dtype t = draw(seed, 3) ? MK_F32 : MK_BF16;
  if (draw(seed, 3))
    return mk_build(g, MK_OP_INPUT, NULL, 0, t, dims, rank, &(mk_attr){.rate = 1 + draw(seed, 2)}, name, NULL, &st);
  float data[81];
  for (int i = 0; i < 81; i++) data[i] = draw(seed, 4) ? (float)draw(seed, 2) : (float)draw(seed, 100) * 0.01f;
  return mk_build(g, MK_OP_CONST, NULL, 0, MK_F32, dims, rank, &(mk_attr){.data = data}, NULL, NULL, &st);
}

/* One node of a random operation on random nodes, which often does not fit: then nothing must change. */
static void random_node(mk_graph *g, uint64_t *seed) {
  static const mk_op ops[] = {
      MK_OP_CAST,  MK_OP_CAST,  MK_OP_NEG,     MK_OP_ABS,     MK_OP_SIN,     MK_OP_COS,     MK_OP_TANH,     MK_OP_SIGMOID,
      MK_OP_SILU,  MK_OP_GELU,  MK_OP_ADD,     MK_OP_SUB,     MK_OP_MUL,     MK_OP_MAX,     MK_OP_MIN,      MK_OP_SUM,
      MK_OP_MEAN,  MK_OP_AMAX,  MK_OP_RESHAPE, MK_OP_RESHAPE, MK_OP_PERMUTE, MK_OP_PERMUTE, MK_OP_EXPAND,   MK_OP_EXPAND,
      MK_OP_SLICE, MK_OP_SLICE, MK_OP_SLICE,   MK_OP_CONCAT,  MK_OP_CONCAT,  MK_OP_CONCAT,  MK_OP_UPSAMPLE, MK_OP_MATMUL};
  mk_op op = ops[draw(seed, sizeof ops / sizeof *ops)];
  int args[3], nargs = mk_op_arity(op) >= 0 ? mk_op_arity(op) : 1 + (int)draw(seed, 3);
  for (int i = 0; i < 3; i++) args[i] = (int)draw(seed, (uint32_t)g->count);
  const mk_node *x = &g->nodes[args[0]];
  int64_t dims[MK_MAX_RANK];
  int rank = x->rank;
  memcpy(dims, x->dims, sizeof dims);
  mk_attr attr = {0};
  for (int i = 0; i < rank; i++) attr.perm[i] = (int8_t)i;
  for (int i = 0; i < rank; i++) {
    int k = (int)draw(seed, (uint32_t)rank);
    int8_t swap = attr.perm[i];
    attr.perm[i] = attr.perm[k];
    attr.perm[k] = swap;
    if (op == MK_OP_RESHAPE) { /* one axis' extent moves over to another */
      int64_t moved = dims[i];
      dims[i] = 1;
      dims[k] *= moved;
    }
    if (op == MK_OP_EXPAND && dims[i] == 1) dims[i] = 1 + draw(seed, 3);
    if (op == MK_OP_SLICE) {
      attr.start[i] = draw(seed, (uint32_t)dims[i]);
      dims[i] = 1 + draw(seed, (uint32_t)(dims[i] - attr.start[i]));
    }
  }
  if (op == MK_OP_RESHAPE && rank < 5 && draw(seed, 2)) dims[rank++] = 1;
  attr.axis = rank ? (int8_t)draw(seed, (uint32_t)rank) : 0;
  mk_dtype to = (mk_dtype[]){MK_F32, MK_F32, MK_BF16, MK_F16}[draw(seed, 4)];
  mk_status st = {0};
  int before = g->count;
  int id = mk_build(g, op, args, nargs, to, dims, rank, &attr, NULL, NULL, &st);
  assert_int_equal(g->count, before + (id >= 0));
  assert_int_equal(id >= 0, !mk_failed(&st));
  if (id >= 0 && mk_node_count(&g->nodes[id]) > 4096) g->count--; /* stay small */
}

static mk_graph *random_graph(uint64_t seed) {
  mk_graph *g = mk_graph_new("random");
  for (int i = 0; i < 6; i++) random_leaf(g, &seed);
  while (g->count < 60) random_node(g, &seed);
  for (int i = 0; i < 4; i++) {
    char name[16];
    snprintf(name, sizeof name, "y%d", i);
    mk_graph_output(g, i < 2 ? "step" : "other", name, g->count - 1 - (int)draw(&seed, 20));
  }
  return g;
}

static void ok(bool result, const mk_status *st) {
  assert_string_equal(st->message, "");
  assert_true(result);
}

/* Runs both entries; the outputs' values follow each other in out. */
static int evaluate(const mk_graph *g, float *out, int room) {
  mk_status st = {0};
  mk_session *s = mk_cpu_session_open(g, &st);
  assert_non_null(s);
  ok(s->ops->load(s, NULL, NULL, NULL, &st), &st);
  for (int i = 0; i < g->count; i++) {
    const mk_node *n = &g->nodes[i];
    if (n->op != MK_OP_INPUT) continue;
    float data[81];
    uint64_t seed = (uint64_t)n->name[1] * 100 + (uint64_t)n->name[2];
    for (int k = 0; k < 81; k++) data[k] = (float)draw(&seed, 1000) * 0.004f - 2.0f;
    mk_tensor t = {.name = n->name, .dtype = MK_F32, .rank = n->rank, .data = data, .bytes = 4 * (size_t)mk_node_count(n)};
    memcpy(t.dims, n->dims, sizeof t.dims);
    if (n->dtype == MK_BF16) /* the host's rounding is not the matter here */
      for (int k = 0; k < 81; k++) data[k] = mk_bf16_to_f32(mk_f32_to_bf16(data[k]));
    ok(s->ops->write(s, &t, &st), &st);
  }
  ok(s->ops->run(s, "prompt", &st), &st);
  for (int e = 0; e < g->nentries; e++) ok(s->ops->run(s, g->entries[e], &st), &st);
  int used = 0;
  for (int i = 0; i < g->noutputs; i++) {
    int count = (int)mk_node_count(&g->nodes[g->outputs[i].node]);
    assert_true(used + count <= room);
    ok(s->ops->read(s, g->outputs[i].name, out + used, 4 * (size_t)count, &st), &st);
    used += count;
  }
  s->ops->close(s);
  return used;
}

static void random_graphs_keep_their_values(void **state) {
  (void)state;
  enum { GRAPHS = 400, ROOM = 4 * 4096 };
  float *before = calloc(ROOM, sizeof *before), *after = calloc(ROOM, sizeof *after);
  int fewer = 0;
  for (uint64_t seed = 0; seed < GRAPHS; seed++) {
    mk_graph *g = random_graph(seed), *h = random_graph(seed);
    mk_status st = {0};
    ok(mk_verify(g, &st), &st);
    int n = evaluate(g, before, ROOM), built = g->count;
    ok(mk_optimize(g, &st), &st);
    ok(mk_optimize(h, &st), &st);
    char *a = printed(g), *b = printed(h);
    assert_string_equal(a, b); /* two runs, one result */
    free(b);
    assert_int_equal(evaluate(g, after, ROOM), n);
    for (int i = 0; i < n; i++) {
      bool close = fabsf(before[i] - after[i]) <= 0.02f * fmaxf(1, fabsf(before[i]));
      if (!close) fail_msg("seed %d: value %d was %g and became %g\n%s", (int)seed, i, (double)before[i], (double)after[i], a);
    }
    ok(mk_optimize(h, &st), &st);
    assert_true(h->count <= g->count);
    fewer += g->count < built;
    free(a);
    mk_graph_free(g);
    mk_graph_free(h);
  }
  assert_int_equal(fewer, GRAPHS); /* there was something to do */
  free(before);
  free(after);
}

static void tells_graphs_apart(void **state) {
  (void)state;
  static const char base[] = X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 3}, {3})\n"
      "output('y', (x * c + weight('w', {3})):sum())\nupdate(s, x:silu())";
  static const char *const others[] = {
      X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 4}, {3})\n"
      "output('y', (x * c + weight('w', {3})):sum())\nupdate(s, x:silu())",
      X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 3}, {3})\n"
      "output('y', (x * c + weight('v', {3})):sum())\nupdate(s, x:silu())",
      X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 3}, {3})\n"
      "output('z', (x * c + weight('w', {3})):sum())\nupdate(s, x:silu())",
      X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 3}, {3})\n"
      "output('y', (x * c + weight('w', {3})):mean())\nupdate(s, x:silu())",
      X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 3}, {3})\n"
      "output('y', (c * x + weight('w', {3})):sum())\nupdate(s, x:silu())",
      X
      "local s = state{name='s', shape={2, 3}}\nlocal c = const({1, 2, 3}, {3})\n"
      "output('y', (x * c + weight('w', {3})):sum())\nentry 'b' update(s, x:silu())",
      "local x = input{name='x', shape={2, 3}, rate='prompt'}\nlocal s = state{name='s', shape={2, 3}}\n"
      "local c = const({1, 2, 3}, {3})\noutput('y', (x * c + weight('w', {3})):sum())\nupdate(s, x:silu())",
  };
  mk_graph *g = from_script(base), *again = from_script(base);
  assert_true(mk_graph_same(g, again));
  again->nodes[again->count - 1].name = "a label";
  assert_true(mk_graph_same(g, again));
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    mk_graph *other = from_script(others[i]);
    if (mk_graph_same(g, other)) fail_msg("no difference seen: %s", others[i]);
    mk_graph_free(other);
  }
  mk_graph_free(g);
  mk_graph_free(again);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(tells_graphs_apart),
                                     cmocka_unit_test(folds_constants),
                                     cmocka_unit_test(removes_identities),
                                     cmocka_unit_test(merges_movement),
                                     cmocka_unit_test(merges_exact_casts_only),
                                     cmocka_unit_test(shares_branches),
                                     cmocka_unit_test(tells_apart),
                                     cmocka_unit_test(tells_attributes_apart),
                                     cmocka_unit_test(scales),
                                     cmocka_unit_test(random_graphs_keep_their_values)};
  return cmocka_run_group_tests_name("passes", tests, NULL, NULL);
}

/* Views, flow and grouping. tests/golden/block.lua holds the groups expected of it; GOLDEN_UPDATE=1 rewrites. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/group.h"
#include "runtime/base/file.h"
#include "tests/host/script.h"
#include "tests/unit/golden.h"

/* ---- views against an index tensor that is really moved */

enum { MAX_ELEMENTS = 4096 };

typedef struct tensor {
  mk_node n; /* dims and rank */
  int64_t at[MAX_ELEMENTS];
} tensor;

static uint64_t seed = 1;
static int pick(int n) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (int)((seed >> 33) % (uint64_t)n);
}

static void coordinates(const mk_node *n, int64_t i, int64_t *c) {
  for (int d = n->rank - 1; d >= 0; d--) {
    c[d] = i % n->dims[d];
    i /= n->dims[d];
  }
}

static int64_t index_of(const mk_node *n, const int64_t *c) {
  int64_t i = 0;
  for (int d = 0; d < n->rank; d++) i = i * n->dims[d] + c[d];
  return i;
}

static int64_t view_element(const mk_view *v, const mk_node *n, int64_t i) {
  int64_t c[MK_MAX_RANK], at = v->offset;
  coordinates(n, i, c);
  for (int d = 0; d < v->rank; d++)
    for (int k = v->first[d + 1] - 1; k >= v->first[d]; k--) {
      at += c[d] % v->digit[k].extent * v->digit[k].stride;
      c[d] /= v->digit[k].extent;
    }
  return at;
}

/* A random movement of x; false if the pick makes no sense here. */
static bool random_move(const tensor *x, mk_node *m) {
  static const mk_op ops[] = {MK_OP_RESHAPE, MK_OP_PERMUTE, MK_OP_SLICE, MK_OP_EXPAND, MK_OP_UPSAMPLE};
  *m = (mk_node){.op = ops[pick(5)], .rank = x->n.rank};
  memcpy(m->dims, x->n.dims, sizeof m->dims);
  int a = pick(m->rank), b = pick(m->rank);
  switch (m->op) {
    case MK_OP_PERMUTE:
      for (int i = 0; i < m->rank; i++) m->attr.perm[i] = (int8_t)i;
      m->attr.perm[a] = (int8_t)b;
      m->attr.perm[b] = (int8_t)a;
      for (int i = 0; i < m->rank; i++) m->dims[i] = x->n.dims[m->attr.perm[i]];
      return true;
    case MK_OP_SLICE:
      m->dims[a] = 1 + pick((int)x->n.dims[a]);
      m->attr.start[a] = pick((int)(x->n.dims[a] - m->dims[a]) + 1);
      return true;
    case MK_OP_EXPAND: m->dims[a] = 3; return x->n.dims[a] == 1 && mk_node_count(m) <= MAX_ELEMENTS;
    case MK_OP_UPSAMPLE:
      if (m->rank != 4) return false;
      m->dims[1] *= 2;
      m->dims[2] *= 2;
      return mk_node_count(m) <= MAX_ELEMENTS;
    default: break;
  }
  if (pick(2) && m->rank > 1) { /* join two dims, or split one */
    m->dims[a ? a - 1 : 0] *= m->dims[a ? a : 1];
    for (int i = a ? a : 1; i < m->rank - 1; i++) m->dims[i] = m->dims[i + 1];
    m->dims[--m->rank] = 0;
    return true;
  }
  int f = 2 + pick(3);
  if (m->rank == MK_MAX_RANK || m->dims[a] % f) return false;
  for (int i = m->rank++; i > a; i--) m->dims[i] = m->dims[i - 1];
  m->dims[a] /= f;
  m->dims[a + 1] = f;
  return true;
}

static void apply(const tensor *x, const mk_node *m, tensor *out) {
  out->n = *m;
  for (int64_t i = 0; i < mk_node_count(m); i++) {
    int64_t c[MK_MAX_RANK], s[MK_MAX_RANK] = {0};
    coordinates(m, i, c);
    for (int d = 0; d < m->rank; d++) {
      if (m->op == MK_OP_PERMUTE) s[m->attr.perm[d]] = c[d];
      if (m->op == MK_OP_SLICE) s[d] = c[d] + m->attr.start[d];
      if (m->op == MK_OP_EXPAND) s[d] = x->n.dims[d] == 1 ? 0 : c[d];
      if (m->op == MK_OP_UPSAMPLE) s[d] = d == 1 || d == 2 ? c[d] / 2 : c[d];
    }
    out->at[i] = x->at[m->op == MK_OP_RESHAPE ? i : index_of(&x->n, s)];
  }
}

static void views_move_as_tensors_do(void **state) {
  (void)state;
  static tensor x, y;
  int moved = 0, refused = 0;
  for (int round = 0; round < 3000; round++) {
    int64_t dims[4] = {1 + pick(4), 1 + pick(6), 1 + pick(6), 1 + pick(8)};
    x.n = (mk_node){.rank = 4};
    memcpy(x.n.dims, dims, sizeof dims);
    for (int i = 0; i < mk_node_count(&x.n); i++) x.at[i] = i;
    mk_view v = mk_view_dense(7, x.n.dims, 4);
    for (int step = 0; step < 6; step++) {
      mk_node m;
      if (!random_move(&x, &m)) continue;
      mk_view w = v;
      if (!mk_view_move(&w, &m, x.n.dims)) {
        refused++;
        continue;
      }
      apply(&x, &m, &y);
      for (int64_t i = 0; i < mk_node_count(&m); i++) assert_int_equal(view_element(&w, &m, i), y.at[i]);
      assert_int_equal(w.source, 7);
      bool run = true;
      for (int64_t i = 1; i < mk_node_count(&m); i++) run &= y.at[i] == y.at[0] + i;
      assert_int_equal(mk_view_contiguous(&w), run);
      x = y;
      v = w;
      moved++;
    }
  }
  assert_true(moved > 5000 && refused > 50);
}

/* ---- groups */

static char *groups_text(mk_graph *g) {
  mk_status st = {0};
  mk_text t = {0};
  mk_plan_options options = options_for(90);
  mk_groups_print(g, &options, &t, &st);
  assert_string_equal(st.message, "");
  mk_graph_free(g);
  return t.data;
}

static char *groups_of(const char *lua) {
  mk_status st = {0};
  mk_graph *g = graph_of(lua, &st);
  if (!g) fail_msg("%s", st.message);
  return groups_text(g);
}

static int count(const char *text, const char *word) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, word)); at += strlen(word)) n++;
  return n;
}

static void transformer_block(void **state) {
  (void)state;
  static const char path[] = "tests/golden/block.lua";
  mk_status st = {0};
  mk_graph *g = graph_of_file(path, NULL, &st);
  if (!g) fail_msg("%s", st.message);
  char *have = groups_text(g);
  compare_golden(path, have);
  assert_non_null(strstr(have, "program step: 10 groups"));
  free(have);
}

static const char linear[] =
    "local x = input{name='x', shape={64, 128}}\nlocal r = input{name='r', shape={64, 96}}\n"
    "local y = matmul(x, weight('w', {96, 128})) + weight('b', {96})\n";

static char *with_linear(const char *rest) {
  char lua[2048];
  snprintf(lua, sizeof lua, "%s%s", linear, rest);
  return groups_of(lua);
}

/* The residual belongs to the matmul, unless a norm follows: then it is better read once by the norm's program. */
static void residual_goes_where_it_is_cheaper(void **state) {
  (void)state;
  char *t = with_linear("output('y', r + y)");
  assert_non_null(strstr(t, "program step: 1 groups"));
  free(t);
  t = with_linear("local z = r + y:cast'bf16' * 2\noutput('z', z)\noutput('n', z * (z * z):mean():rsqrt())");
  assert_non_null(strstr(t, "program step: 2 groups"));
  assert_non_null(strstr(t, "cast %5  stored")); /* at 16 bits, not behind the product */
  free(t);
}

static void values_used_twice_are_written_once(void **state) {
  (void)state;
  char *t = with_linear("local s = y:silu()\noutput('y', y)\noutput('s', s)");
  assert_non_null(strstr(t, "program step: 2 groups")); /* y has two readers: the matmul stores it */
  assert_int_equal(count(t, "stored"), 2);
  free(t);
}

static void no_cycles(void **state) {
  (void)state;
  /* Both row programs use the matmul's operand and result: joined around it they would wait for each other. */
  char *t = groups_of(
      "local x = input{name='x', shape={64, 96}}\nlocal a = x * (x * x):mean():rsqrt()\n"
      "local y = matmul(a, weight('w', {96, 96}))\noutput('z', (y * a):exp() + a * (y * y):mean())");
  assert_non_null(strstr(t, "program step: 3 groups"));
  free(t);
}

static void rates_are_kept_apart(void **state) {
  (void)state;
  char *t = groups_of(
      "local c = input{name='c', shape={64, 96}, rate='prompt'}\nlocal x = input{name='x', shape={64, 96}}\n"
      "output('y', x + c:exp() * weight('w', {96}):exp())");
  assert_non_null(strstr(t, "program load: 1 groups"));
  assert_non_null(strstr(t, "program prompt: 1 groups"));
  assert_non_null(strstr(t, "program step: 1 groups"));
  free(t);
}

static void short_expressions_are_inlined(void **state) {
  (void)state;
  char *t = groups_of(
      "local x = input{name='x', shape={64, 96}}\nlocal m = input{name='m', shape={6, 96}}\n"
      "local s = input{name='s', shape={2}}\nlocal r = s:slice(1, 0, 1) / s:slice(1, 1, 1)\n"
      "output('a', x * (m:slice(1, 1, 1) + 1) * r)\noutput('b', x:exp() * r)");
  assert_non_null(strstr(t, "program step: 2 groups"));
  assert_null(strstr(t, "div"));
  free(t);
}

static void sibling_chains_join(void **state) {
  (void)state; /* a sampler's update: many inputs, one kernel, results in place */
  char *t = groups_of(
      "local a, b = state{name='a', shape={4, 50}}, state{name='b', shape={4, 50}}\n"
      "local v, c = input{name='v', shape={4, 50}}, input{name='c', shape={4}}\nlocal function k(i) return c:slice(1, i, 1) end\n"
      "local m = a - v * k(0)\nlocal n = a * k(1) + b * k(2) + m * k(3)\nupdate(a, n)\nupdate(b, m)\noutput('n', n)");
  assert_non_null(strstr(t, "program step: 1 groups"));
  assert_int_equal(count(t, " update "), 2);
  free(t);
}

static void convolution_takes_the_norm(void **state) {
  (void)state;
  char *t = groups_of(
      "local x = input{name='x', shape={2, 9, 7, 32}, dtype='bf16'}\nlocal w = weight('w', {96, 3, 3, 3, 32}):cast'bf16'\n"
      "local y = conv(x, w, {t={2,0}, h={1,1}, w={1,1}}) + weight('b', {96}) + input{name='r', shape={2, 9, 7, 96}}\n"
      "output('y', y)\noutput('n', (y * ((y * y):sum() + 1e-12):rsqrt()):silu():cast'bf16')");
  assert_non_null(strstr(t, "program step: 1 groups"));
  assert_int_equal(count(t, "stored"), 3); /* the residual stream, its norm, and the weight's cast */
  free(t);
}

/* A whole row of 384 channels in a tile leaves a small image with too few tiles for the card. */
static void small_wide_convolution_leaves_the_norm(void **state) {
  (void)state;
  static const char text[] =
      "local x = input{name='x', shape={3, %d, 104, 384}, dtype='bf16'}\nlocal w = weight('w', {384, 3, 3, 3, 384}):cast'bf16'\n"
      "local y = conv(x, w, {h={1,1}, w={1,1}})\noutput('n', (y * ((y * y):sum() + 1e-12):rsqrt()):silu():cast'bf16')";
  char small[512], large[512];
  snprintf(small, sizeof small, text, 60);
  snprintf(large, sizeof large, text, 960);
  char *t = groups_of(small);
  assert_non_null(strstr(t, "program step: 2 groups"));
  free(t);
  t = groups_of(large);
  assert_non_null(strstr(t, "program step: 1 groups"));
  free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(views_move_as_tensors_do),
                                     cmocka_unit_test(transformer_block),
                                     cmocka_unit_test(residual_goes_where_it_is_cheaper),
                                     cmocka_unit_test(values_used_twice_are_written_once),
                                     cmocka_unit_test(no_cycles),
                                     cmocka_unit_test(rates_are_kept_apart),
                                     cmocka_unit_test(short_expressions_are_inlined),
                                     cmocka_unit_test(sibling_chains_join),
                                     cmocka_unit_test(convolution_takes_the_norm),
                                     cmocka_unit_test(small_wide_convolution_leaves_the_norm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

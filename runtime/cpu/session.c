/* The reference backend's executor: programs of nodes by rate, values freed after their last use. */
#include "runtime/cpu/session.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/cpu/kernels.h"

typedef struct buffer { /* a value's memory; views share it */
  int refs;
  _Alignas(64) char data[];
} buffer;

typedef struct program {
  const char *name;
  mk_rate rate;
  int *nodes, count;
  int *uses; /* per node of the graph: how often this program reads it; kept values have one more */
} program;

typedef struct cpu_session {
  mk_session base;
  const mk_graph *g;
  mk_arena arena;
  buffer **values;  /* per node: current value or NULL */
  buffer **outputs; /* per graph output: its value after the last run of its entry */
  program *programs;
  int nprograms;
  bool loaded;
} cpu_session;

static buffer *buffer_new(size_t bytes, mk_status *st) {
  buffer *b = aligned_alloc(64, (sizeof *b + bytes + 63) & ~(size_t)63);
  if (!b) {
    mk_fail(st, MK_ENOMEM, "out of host memory: a tensor of %zu MiB does not fit", bytes >> 20);
    return NULL;
  }
  b->refs = 1;
  return b;
}

static buffer *buffer_share(buffer *b) {
  if (b) b->refs++;
  return b;
}

static void buffer_drop(buffer **slot) {
  buffer *b = *slot;
  *slot = NULL;
  if (b && --b->refs == 0) free(b);
}

static size_t value_bytes(const mk_node *n) { return (size_t)mk_node_count(n) * 4; }

/* ---- programs */

static void mark(const mk_graph *g, int id, bool *wanted) {
  if (wanted[id]) return;
  wanted[id] = true;
  for (int a = 0; a < g->nodes[id].nargs; a++) mark(g, g->nodes[id].args[a], wanted);
}

/* Which nodes of its rate the program runs, and how often it reads each value. Values of lower rates, states and values that a
 * higher rate reads get one more use, so they outlive the program. */
static void program_init(cpu_session *s, program *p, const char *name, mk_rate rate) {
  const mk_graph *g = s->g;
  bool *wanted = MK_NEW_ARRAY(&s->arena, bool, g->count);
  for (int i = 0; i < g->noutputs; i++)
    if (rate < MK_RATE_STEP || !strcmp(g->outputs[i].entry, name)) mark(g, g->outputs[i].node, wanted);
  for (int i = 0; i < g->nupdates; i++)
    if (rate < MK_RATE_STEP || !strcmp(g->updates[i].entry, name)) mark(g, g->updates[i].node, wanted);
  p->name = name;
  p->rate = rate;
  p->nodes = MK_NEW_ARRAY(&s->arena, int, g->count);
  p->uses = MK_NEW_ARRAY(&s->arena, int, g->count);
  for (int id = 0; id < g->count; id++) {
    const mk_node *n = &g->nodes[id];
    for (int a = 0; a < n->nargs; a++) {
      const mk_node *arg = &g->nodes[n->args[a]];
      if (n->rate > arg->rate) p->uses[n->args[a]]++; /* kept for the higher rate */
      if (wanted[id] && n->rate == rate) p->uses[n->args[a]]++;
    }
    if (n->op == MK_OP_STATE || (n->op == MK_OP_INPUT && n->rate > MK_RATE_LOAD)) p->uses[id]++;
    if (wanted[id] && n->rate == rate && mk_op_class_of(n->op) != MK_CLASS_LEAF) p->nodes[p->count++] = id;
    if (wanted[id] && n->rate == rate && (n->op == MK_OP_CONST || (n->op == MK_OP_INPUT && rate == MK_RATE_LOAD)))
      p->nodes[p->count++] = id;
  }
  for (int i = 0; i < g->noutputs; i++) p->uses[g->outputs[i].node]++;
  for (int i = 0; i < g->nupdates; i++) p->uses[g->updates[i].node]++;
}

static const program *find_program(const cpu_session *s, const char *name) {
  for (int i = 0; i < s->nprograms; i++)
    if (!strcmp(s->programs[i].name, name)) return &s->programs[i];
  return NULL;
}

/* ---- evaluation */

static buffer *fetch_weight(const mk_node *n, const mk_source *weights, mk_status *st) {
  mk_tensor t;
  if (!weights) {
    mk_fail(st, MK_EINPUT, "the graph reads weight '%s', and no weights were given", n->name);
    return NULL;
  }
  if (!weights->fetch(weights->self, n->name, &t, st)) return NULL;
  if (!t.data) {
    mk_fail(st, MK_EUNSUPPORTED, "weight '%s': the CPU backend makes no synthetic weights; use --backend cuda", n->name);
    return NULL;
  }
  if (t.rank != n->rank || memcmp(t.dims, n->dims, sizeof *t.dims * (size_t)t.rank) || t.dtype != n->dtype) {
    mk_fail(st, MK_EINPUT, "%s: tensor '%s' changed its shape or dtype since the graph was built", t.where ? t.where : "?",
            n->name);
    return NULL;
  }
  buffer *b = buffer_new(value_bytes(n), st);
  if (b) mk_convert(b->data, t.dtype == MK_I32 ? MK_I32 : MK_F32, t.data, t.dtype, (size_t)mk_node_count(n));
  return b;
}

static bool compute(cpu_session *s, const mk_node *n, buffer *out, mk_status *st) {
  const float *in[64];
  const float **args = n->nargs <= 64 ? in : malloc(sizeof *args * (size_t)n->nargs);
  if (!args) {
    mk_fail(st, MK_ENOMEM, "out of host memory");
    return false;
  }
  for (int a = 0; a < n->nargs; a++) args[a] = (const float *)(const void *)s->values[n->args[a]]->data;
  mk_cpu_call c = {s->g, n, args, (float *)(void *)out->data};
  bool ok = true;
  switch (n->op) {
    case MK_OP_ROPE: mk_cpu_rope(&c); break;
    case MK_OP_PERMUTE: mk_cpu_permute(&c); break;
    case MK_OP_EXPAND: mk_cpu_expand(&c); break;
    case MK_OP_SLICE: mk_cpu_slice(&c); break;
    case MK_OP_CONCAT: mk_cpu_concat(&c); break;
    case MK_OP_UPSAMPLE: mk_cpu_upsample(&c); break;
    case MK_OP_GATHER: ok = mk_cpu_gather(&c, st); break;
    case MK_OP_MATMUL: mk_cpu_matmul(&c); break;
    case MK_OP_ATTENTION: ok = mk_cpu_attention(&c, st); break;
    case MK_OP_CONV: ok = mk_cpu_conv(&c, st); break;
    default:
      switch (mk_op_class_of(n->op)) {
        case MK_CLASS_UNARY: mk_cpu_unary(&c); break;
        case MK_CLASS_BINARY: mk_cpu_binary(&c); break;
        case MK_CLASS_REDUCE: mk_cpu_reduce(&c); break;
        default: mk_fail(st, MK_EINTERNAL, "the CPU backend has no operation '%s'", mk_op_name(n->op)); ok = false;
      }
  }
  if (args != in) free(args);
  return ok;
}

static buffer *evaluate(cpu_session *s, const mk_node *n, const mk_source *weights, mk_status *st) {
  if (n->op == MK_OP_RESHAPE) return buffer_share(s->values[n->args[0]]);
  if (n->op == MK_OP_INPUT) return fetch_weight(n, weights, st);
  buffer *b = buffer_new(value_bytes(n), st);
  if (!b) return NULL;
  if (n->op == MK_OP_CONST)
    memcpy(b->data, n->attr.data, value_bytes(n));
  else if (!compute(s, n, b, st))
    buffer_drop(&b);
  return b;
}

static bool run_program(cpu_session *s, const program *p, const mk_source *weights, mk_progress_fn progress, void *user,
                        mk_status *st) {
  const mk_graph *g = s->g;
  int *left = malloc(sizeof *left * (size_t)(g->count + 1));
  bool ok = left != NULL;
  if (!ok) mk_fail(st, MK_ENOMEM, "out of host memory");
  if (ok) memcpy(left, p->uses, sizeof *left * (size_t)g->count);
  for (int i = 0; ok && i < p->count; i++) {
    int id = p->nodes[i];
    const mk_node *n = &g->nodes[id];
    buffer *b = evaluate(s, n, weights, st);
    ok = b != NULL;
    if (!ok) break;
    buffer_drop(&s->values[id]);
    s->values[id] = b;
    for (int a = 0; a < n->nargs; a++) {
      int arg = n->args[a];
      if (--left[arg] == 0 && g->nodes[arg].rate == p->rate) buffer_drop(&s->values[arg]);
    }
    if (progress && !progress(user, n->name ? n->name : mk_op_name(n->op), i + 1, p->count)) {
      mk_fail(st, MK_EINTERRUPTED, "stopped on request");
      ok = false;
    }
  }
  free(left);
  return ok;
}

/* Outputs first, then all states at once from the values just computed. */
static bool publish(cpu_session *s, const char *entry, mk_status *st) {
  const mk_graph *g = s->g;
  for (int i = 0; i < g->noutputs; i++) {
    if (strcmp(g->outputs[i].entry, entry)) continue;
    buffer_drop(&s->outputs[i]);
    s->outputs[i] = buffer_share(s->values[g->outputs[i].node]);
  }
  buffer **next = calloc((size_t)g->nupdates + 1, sizeof *next);
  if (!next) {
    mk_fail(st, MK_ENOMEM, "out of host memory");
    return false;
  }
  for (int i = 0; i < g->nupdates; i++)
    if (!strcmp(g->updates[i].entry, entry)) next[i] = buffer_share(s->values[g->updates[i].node]);
  for (int i = 0; i < g->nupdates; i++)
    if (next[i]) {
      buffer_drop(&s->values[g->updates[i].state]);
      s->values[g->updates[i].state] = next[i];
    }
  free(next);
  for (int id = 0; id < g->count; id++) /* values kept only for what was just published */
    if (g->nodes[id].rate == MK_RATE_STEP && mk_op_class_of(g->nodes[id].op) != MK_CLASS_LEAF) buffer_drop(&s->values[id]);
  return true;
}

/* ---- the session table */

static bool cpu_load(mk_session *base, const mk_source *weights, mk_progress_fn progress, void *user, mk_status *st) {
  cpu_session *s = (cpu_session *)base;
  s->loaded = run_program(s, find_program(s, "load"), weights, progress, user, st);
  return s->loaded;
}

/* The INPUT above load rate, or the STATE, of that name; -1 if there is none. */
static int find_writable(const mk_graph *g, const char *name) {
  for (int id = 0; id < g->count; id++) {
    const mk_node *n = &g->nodes[id];
    bool border = n->op == MK_OP_STATE || (n->op == MK_OP_INPUT && n->rate > MK_RATE_LOAD);
    if (border && !strcmp(n->name, name)) return id;
  }
  return -1;
}

static bool cpu_write(mk_session *base, const mk_tensor *value, mk_status *st) {
  cpu_session *s = (cpu_session *)base;
  int id = find_writable(s->g, value->name);
  char want[96], have[96];
  if (id < 0) return mk_fail(st, MK_EINPUT, "graph %s has no input or state '%s'", s->g->name, value->name), false;
  const mk_node *n = &s->g->nodes[id];
  if (value->rank != n->rank || memcmp(value->dims, n->dims, sizeof *n->dims * (size_t)n->rank) ||
      (value->dtype == MK_I32) != (n->dtype == MK_I32)) {
    mk_fail(st, MK_EINPUT, "input '%s' is %s %s; the graph wants %s %s", value->name, mk_dtype_name(value->dtype),
            mk_dims_str(value->dims, value->rank, have, sizeof have), mk_dtype_name(n->dtype),
            mk_dims_str(n->dims, n->rank, want, sizeof want));
    return false;
  }
  buffer *b = buffer_new(value_bytes(n), st);
  if (!b) return false;
  size_t count = (size_t)mk_node_count(n);
  mk_convert(b->data, n->dtype == MK_I32 ? MK_I32 : MK_F32, value->data, value->dtype, count);
  if (n->dtype == MK_BF16 || n->dtype == MK_F16) { /* the graph says the input is stored in 16 bits */
    float *f = (float *)(void *)b->data;
    for (size_t i = 0; i < count; i++)
      f[i] = n->dtype == MK_BF16 ? mk_bf16_to_f32(mk_f32_to_bf16(f[i])) : mk_f16_to_f32(mk_f32_to_f16(f[i]));
  }
  buffer_drop(&s->values[id]);
  s->values[id] = b;
  return true;
}

static bool cpu_run(mk_session *base, const char *name, mk_status *st) {
  cpu_session *s = (cpu_session *)base;
  const program *p = find_program(s, name);
  if (!p || p->rate == MK_RATE_LOAD) return mk_fail(st, MK_EINPUT, "graph %s has no program '%s'", s->g->name, name), false;
  if (!s->loaded) return mk_fail(st, MK_EINTERNAL, "graph %s: '%s' was run before load", s->g->name, name), false;
  for (int id = 0; id < s->g->count; id++) {
    const mk_node *n = &s->g->nodes[id];
    if (n->op == MK_OP_INPUT && n->rate > MK_RATE_LOAD && n->rate <= p->rate && !s->values[id] && p->uses[id] > 1)
      return mk_fail(st, MK_EINPUT, "graph %s: input '%s' was not given", s->g->name, n->name), false;
  }
  if (!run_program(s, p, NULL, NULL, NULL, st)) return false;
  return p->rate < MK_RATE_STEP || publish(s, name, st);
}

static bool describe_node(const mk_node *n, const char *name, mk_tensor *out) {
  *out = (mk_tensor){.name = name, .dtype = n->dtype, .rank = n->rank, .bytes = (size_t)mk_node_bytes(n)};
  memcpy(out->dims, n->dims, sizeof out->dims);
  return true;
}

static bool cpu_describe(mk_session *base, const char *name, mk_tensor *out) {
  cpu_session *s = (cpu_session *)base;
  int id = find_writable(s->g, name);
  if (id >= 0) return describe_node(&s->g->nodes[id], name, out);
  for (int i = 0; i < s->g->noutputs; i++)
    if (!strcmp(s->g->outputs[i].name, name)) return describe_node(&s->g->nodes[s->g->outputs[i].node], name, out);
  return false;
}

static bool cpu_read(mk_session *base, const char *name, void *out, size_t bytes, mk_status *st) {
  cpu_session *s = (cpu_session *)base;
  const mk_graph *g = s->g;
  buffer *b = NULL;
  const mk_node *n = NULL;
  for (int i = 0; i < g->noutputs && !n; i++)
    if (!strcmp(g->outputs[i].name, name)) {
      b = s->outputs[i];
      n = &g->nodes[g->outputs[i].node];
    }
  int id = find_writable(g, name);
  if (!b && id >= 0) {
    b = s->values[id];
    n = &g->nodes[id];
  }
  if (!n) return mk_fail(st, MK_EINPUT, "graph %s has no output or state '%s'", g->name, name), false;
  if (!b) return mk_fail(st, MK_EINTERNAL, "graph %s: '%s' was read before it was computed", g->name, name), false;
  if (bytes != value_bytes(n))
    return mk_fail(st, MK_EINTERNAL, "'%s' holds %zu bytes, %zu were asked for", name, value_bytes(n), bytes), false;
  memcpy(out, b->data, bytes);
  return true;
}

static bool cpu_reset(mk_session *base, mk_status *st) {
  cpu_session *s = (cpu_session *)base;
  for (int id = 0; id < s->g->count; id++) {
    const mk_node *n = &s->g->nodes[id];
    if (n->op != MK_OP_STATE) continue;
    buffer *b = buffer_new(value_bytes(n), st);
    if (!b) return false;
    memset(b->data, 0, value_bytes(n));
    buffer_drop(&s->values[id]);
    s->values[id] = b;
  }
  return true;
}

static bool nothing_to_do(mk_session *s, mk_status *st) { return (void)s, (void)st, true; }

static void cpu_close(mk_session *base) {
  cpu_session *s = (cpu_session *)base;
  if (!s) return;
  for (int i = 0; s->values && i < s->g->count; i++) buffer_drop(&s->values[i]);
  for (int i = 0; s->outputs && i < s->g->noutputs; i++) buffer_drop(&s->outputs[i]);
  mk_arena_free(&s->arena);
  free(s);
}

static const mk_session_ops cpu_ops = {.load = cpu_load,
                                       .write = cpu_write,
                                       .run = cpu_run,
                                       .wait = nothing_to_do,
                                       .describe = cpu_describe,
                                       .read = cpu_read,
                                       .reset = cpu_reset,
                                       .park = nothing_to_do,
                                       .unpark = nothing_to_do,
                                       .close = cpu_close};

mk_session *mk_cpu_session_open(const mk_graph *g, mk_status *st) {
  cpu_session *s = calloc(1, sizeof *s);
  if (!s) return mk_fail(st, MK_ENOMEM, "out of host memory"), NULL;
  s->base = (mk_session){&cpu_ops, "cpu"};
  s->g = g;
  s->values = MK_NEW_ARRAY(&s->arena, buffer *, g->count + 1);
  s->outputs = MK_NEW_ARRAY(&s->arena, buffer *, g->noutputs + 1);
  s->nprograms = 2 + g->nentries;
  s->programs = MK_NEW_ARRAY(&s->arena, program, s->nprograms);
  program_init(s, &s->programs[0], "load", MK_RATE_LOAD);
  program_init(s, &s->programs[1], "prompt", MK_RATE_PROMPT);
  for (int e = 0; e < g->nentries; e++) program_init(s, &s->programs[2 + e], g->entries[e], MK_RATE_STEP);
  if (!cpu_reset(&s->base, st)) {
    cpu_close(&s->base);
    return NULL;
  }
  return &s->base;
}

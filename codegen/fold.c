/* Arithmetic and movement on constants, at compile time. */
#include <math.h>
#include <string.h>

#include "codegen/rewrite.h"

enum { FOLD_LIMIT = 16384 }; /* elements: beyond that, computing once at load rate is cheaper than carrying the values */

static float round_to(mk_dtype t, float v) {
  if (t == MK_BF16) return mk_bf16_to_f32(mk_f32_to_bf16(v));
  return t == MK_F16 ? mk_f16_to_f32(mk_f32_to_f16(v)) : v;
}

bool mk_is_known(const mk_graph *g, int id) {
  const mk_node *n = &g->nodes[id];
  if (n->op == MK_OP_CAST) n = &g->nodes[n->args[0]];
  return n->op == MK_OP_CONST && n->dtype == MK_F32;
}

float mk_known_at(const mk_graph *g, int id, int64_t i) {
  const mk_node *n = &g->nodes[id];
  if (n->op == MK_OP_CAST) return round_to(n->dtype, ((const float *)g->nodes[n->args[0]].attr.data)[i]);
  return ((const float *)n->attr.data)[i];
}

static bool within_limits(const mk_graph *g, int64_t count) { return count <= FOLD_LIMIT && g->arena.used <= MK_MAX_GRAPH_BYTES; }

static double apply(mk_op op, double a, double b) {
  switch (op) {
    case MK_OP_CAST: return a;
    case MK_OP_NEG: return -a;
    case MK_OP_ABS: return fabs(a);
    case MK_OP_EXP: return exp(a);
    case MK_OP_LOG: return log(a);
    case MK_OP_SQRT: return sqrt(a);
    case MK_OP_RSQRT: return 1 / sqrt(a);
    case MK_OP_RECIP: return 1 / a;
    case MK_OP_SIN: return sin(a);
    case MK_OP_COS: return cos(a);
    case MK_OP_TANH: return tanh(a);
    case MK_OP_SIGMOID: return 1 / (1 + exp(-a));
    case MK_OP_SILU: return a / (1 + exp(-a));
    case MK_OP_GELU: return 0.5 * a * (1 + tanh(sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
    case MK_OP_ADD: return a + b;
    case MK_OP_SUB: return a - b;
    case MK_OP_MUL: return a * b;
    case MK_OP_DIV: return a / b;
    case MK_OP_MAX: return fmax(a, b);
    case MK_OP_MIN: return fmin(a, b);
    default: return NAN;
  }
}

/* Strides of x over the axes of n, which it broadcasts to: 0 where its extent is 1. */
static void broadcast_strides(const mk_node *x, const mk_node *n, int64_t *strides) {
  int64_t s = 1;
  for (int o = n->rank - 1, i = x->rank - 1; o >= 0; o--, i--) {
    strides[o] = i < 0 || x->dims[i] == 1 ? 0 : s;
    if (i >= 0) s *= x->dims[i];
  }
}

/* Offset by strides of the flat-th element of n. */
static int64_t offset_of(const mk_node *n, int64_t flat, const int64_t *strides) {
  int64_t offset = 0;
  for (int i = n->rank - 1; i >= 0; i--) {
    offset += flat % n->dims[i] * strides[i];
    flat /= n->dims[i];
  }
  return offset;
}

const float *mk_fold(mk_graph *g, const mk_node *n) {
  int64_t count = mk_node_count(n), strides[2][MK_MAX_RANK] = {{0}};
  if (n->dtype != MK_F32 || n->nargs > 2 || !within_limits(g, count)) return NULL;
  for (int i = 0; i < n->nargs; i++) {
    if (!mk_is_known(g, n->args[i])) return NULL;
    broadcast_strides(&g->nodes[n->args[i]], n, strides[i]);
  }
  float *y = MK_NEW_ARRAY(&g->arena, float, count);
  for (int64_t i = 0; i < count; i++) {
    float x[2] = {0};
    for (int k = 0; k < n->nargs; k++) x[k] = mk_known_at(g, n->args[k], offset_of(n, i, strides[k]));
    y[i] = (float)apply(n->op, x[0], x[1]);
    if (isnan(y[i])) return NULL;
  }
  return y;
}

const void *mk_fold_move(mk_graph *g, const mk_node *n) {
  const mk_node *x = &g->nodes[n->args[0]];
  int64_t count = mk_node_count(n), strides[MK_MAX_RANK], by_axis[MK_MAX_RANK], first = 0, s = 1;
  if (x->op != MK_OP_CONST || !within_limits(g, count)) return NULL;
  for (int i = x->rank - 1; i >= 0; s *= x->dims[i--]) {
    by_axis[i] = s;
    if (n->op == MK_OP_SLICE) first += n->attr.start[i] * s;
  }
  for (int i = 0; i < n->rank; i++) strides[i] = by_axis[n->op == MK_OP_PERMUTE ? n->attr.perm[i] : i];
  const uint32_t *from = x->attr.data;
  uint32_t *to = MK_NEW_ARRAY(&g->arena, uint32_t, count);
  for (int64_t i = 0; i < count; i++) to[i] = from[first + offset_of(n, i, strides)];
  return to;
}

#include "codegen/pattern.h"

static const mk_node *node_of(const mk_graph *g, int id) { return &g->nodes[id]; }

static bool one_a_column(const mk_graph *g, int id, int64_t cols) {
  const mk_node *n = node_of(g, id);
  return mk_is_scalar_const(g, id) || (n->rank > 0 && n->dims[n->rank - 1] == cols && mk_node_count(n) == cols);
}

/* One value for each row of `full`, with its rank, so that it broadcasts over the columns. */
static bool one_a_row(const mk_graph *g, int id, const mk_node *full) {
  const mk_node *n = node_of(g, id);
  if (n->rank != full->rank || n->dims[n->rank - 1] != 1) return false;
  for (int i = 0; i < n->rank - 1; i++)
    if (n->dims[i] != full->dims[i]) return false;
  return true;
}

static bool is_full(const mk_graph *g, int id, const mk_node *full) {
  const mk_node *n = node_of(g, id);
  if (n->rank != full->rank) return false;
  for (int i = 0; i < n->rank; i++)
    if (n->dims[i] != full->dims[i]) return false;
  return true;
}

/* The operand of a binary node that is as large as its result, and the other one. False if the operation does not commute and
 * they stand the other way round. */
static bool take_apart(const mk_graph *g, const mk_node *n, int *chain, int *other) {
  bool swaps = n->op == MK_OP_MUL || n->op == MK_OP_ADD;
  if (!swaps && n->op != MK_OP_SUB && n->op != MK_OP_DIV) return false;
  for (int k = 0; k < (swaps ? 2 : 1); k++) {
    *chain = n->args[k];
    *other = n->args[1 - k];
    if (is_full(g, *chain, n) && !is_full(g, *other, n)) return true;
  }
  return false;
}

bool mk_match_normed(const mk_graph *g, int value, mk_normed *out) {
  const mk_node *n = node_of(g, value), *full = n;
  *out = (mk_normed){.value = value, .mean = -1};
  if (n->rank < 2) return false;
  out->cols = n->dims[n->rank - 1];
  out->rows = mk_node_count(n) / out->cols;
  if (out->rows < 2 || out->cols < 2) return false;
  int at = n->op == MK_OP_CAST ? n->args[0] : value, chain, other;
  for (;; at = chain) { /* from the last step inwards */
    n = node_of(g, at);
    if (!take_apart(g, n, &chain, &other)) return false;
    if (!one_a_column(g, other, out->cols)) break;
    if (out->nsteps == MK_MAX_MODULATION) return false;
    out->step[out->nsteps].op = n->op;
    out->step[out->nsteps++].vector = other;
  }
  if ((n->op != MK_OP_MUL && n->op != MK_OP_DIV) || !one_a_row(g, other, full)) return false;
  for (int i = 0; i < out->nsteps / 2; i++) {
    int j = out->nsteps - 1 - i, vector = out->step[i].vector;
    mk_op op = out->step[i].op;
    out->step[i] = out->step[j];
    out->step[j].op = op;
    out->step[j].vector = vector;
  }
  out->scale = other;
  out->divides = n->op == MK_OP_DIV;
  out->x = chain;
  n = node_of(g, chain);
  if (n->op == MK_OP_SUB && take_apart(g, n, &chain, &other) && one_a_row(g, other, full)) {
    out->x = chain;
    out->mean = other;
  }
  return true;
}

static bool is_vector(const mk_graph *g, int id, int64_t cols) { return !mk_is_scalar_const(g, id) && one_a_column(g, id, cols); }

/* Whether `at` is gate * cast(matmul + bias), or as much of it. */
static bool ends_matmul(const mk_graph *g, int at, mk_residual *out) {
  const mk_node *n = node_of(g, at);
  int64_t cols = n->rank < 2 ? 0 : n->dims[n->rank - 1];
  int chain, other;
  out->gate = out->bias = -1;
  if (n->op == MK_OP_MUL && take_apart(g, n, &chain, &other) && is_vector(g, other, cols)) {
    out->gate = other;
    n = node_of(g, at = chain);
  }
  if (n->op == MK_OP_CAST) n = node_of(g, at = n->args[0]);
  if (n->op == MK_OP_ADD && take_apart(g, n, &chain, &other) && is_vector(g, other, cols)) {
    out->bias = other;
    n = node_of(g, at = chain);
  }
  out->matmul = at;
  return n->op == MK_OP_MATMUL;
}

bool mk_match_residual(const mk_graph *g, int value, mk_residual *out) {
  const mk_node *n = node_of(g, value);
  *out = (mk_residual){.value = value};
  for (int k = 0; n->op == MK_OP_ADD && k < 2; k++) {
    out->x = n->args[1 - k];
    if (is_full(g, out->x, n) && is_full(g, n->args[k], n) && ends_matmul(g, n->args[k], out)) return true;
  }
  return false;
}

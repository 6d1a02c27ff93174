/* Facts about operations, and making and dropping graphs. */
#include "codegen/ir.h"

#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  mk_op_class class;
  int nargs;
} ops[] = {
#define X(id, name, class, nargs) {#name, MK_CLASS_##class, nargs},
#include "codegen/ops.def"
#undef X
};

const char *mk_op_name(mk_op op) { return (unsigned)op < MK_OP_COUNT ? ops[op].name : "unknown"; }
mk_op_class mk_op_class_of(mk_op op) { return ops[op].class; }
int mk_op_arity(mk_op op) { return ops[op].nargs; }

const char *mk_rate_name(mk_rate rate) {
  static const char *const names[] = {"load", "prompt", "step"};
  return (unsigned)rate <= MK_RATE_STEP ? names[rate] : "unknown";
}

bool mk_is_scalar_const(const mk_graph *g, int id) { return g->nodes[id].op == MK_OP_CONST && mk_node_count(&g->nodes[id]) == 1; }

float mk_scalar_value(const mk_graph *g, int id) {
  const mk_node *n = &g->nodes[id];
  return n->dtype == MK_I32 ? (float)*(const int32_t *)n->attr.data : *(const float *)n->attr.data;
}

int64_t mk_node_count(const mk_node *n) { return mk_dims_count(n->dims, n->rank); }
int64_t mk_node_bytes(const mk_node *n) { return mk_node_count(n) * (int64_t)mk_dtype_size(n->dtype); }

mk_graph *mk_graph_new(const char *name) {
  mk_graph *g = calloc(1, sizeof *g);
  if (g) g->name = mk_strdup(&g->arena, name);
  return g;
}

void mk_graph_free(mk_graph *g) {
  if (!g) return;
  mk_arena_free(&g->arena);
  free(g);
}

/* The graph's own copy of the entry's name, registered on first use. */
static const char *entry_name(mk_graph *g, const char *entry) {
  for (int i = 0; i < g->nentries; i++)
    if (!strcmp(g->entries[i], entry)) return g->entries[i];
  const char *copy = mk_strdup(&g->arena, entry);
  MK_PUSH(&g->arena, g->entries, g->nentries, g->entries_cap, copy);
  return copy;
}

void mk_graph_output(mk_graph *g, const char *entry, const char *name, int node) {
  mk_output out = {entry_name(g, entry), mk_strdup(&g->arena, name), node};
  MK_PUSH(&g->arena, g->outputs, g->noutputs, g->outputs_cap, out);
}

void mk_graph_update(mk_graph *g, const char *entry, int state, int node) {
  mk_update up = {entry_name(g, entry), state, node};
  MK_PUSH(&g->arena, g->updates, g->nupdates, g->updates_cap, up);
}

/* Whether two graphs are the same. */
#include <string.h>

#include "codegen/infer.h"

static bool same_attr(const mk_node *a, const mk_node *b) {
  mk_attr x = a->attr, y = b->attr;
  if (a->op == MK_OP_CONST && memcmp(x.data, y.data, (size_t)mk_node_count(a) * 4)) return false;
  x.data = y.data = NULL;
  return mk_attr_same(&x, &y);
}

static bool same_node(const mk_node *a, const mk_node *b) {
  bool bound = a->op == MK_OP_INPUT || a->op == MK_OP_STATE;
  return a->op == b->op && a->dtype == b->dtype && a->rank == b->rank && a->rate == b->rate && a->nargs == b->nargs &&
         !memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->rank) &&
         (!a->nargs || !memcmp(a->args, b->args, sizeof *a->args * (size_t)a->nargs)) && (!bound || !strcmp(a->name, b->name)) &&
         same_attr(a, b);
}

bool mk_graph_same(const mk_graph *a, const mk_graph *b) {
  if (a->count != b->count || a->nentries != b->nentries || a->noutputs != b->noutputs || a->nupdates != b->nupdates)
    return false;
  for (int i = 0; i < a->nentries; i++)
    if (strcmp(a->entries[i], b->entries[i])) return false;
  for (int i = 0; i < a->noutputs; i++) {
    const mk_output *x = &a->outputs[i], *y = &b->outputs[i];
    if (x->node != y->node || strcmp(x->name, y->name) || strcmp(x->entry, y->entry)) return false;
  }
  for (int i = 0; i < a->nupdates; i++) {
    const mk_update *x = &a->updates[i], *y = &b->updates[i];
    if (x->node != y->node || x->state != y->state || strcmp(x->entry, y->entry)) return false;
  }
  for (int i = 0; i < a->count; i++)
    if (!same_node(&a->nodes[i], &b->nodes[i])) return false;
  return true;
}

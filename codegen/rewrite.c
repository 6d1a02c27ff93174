/* Taking a graph's nodes apart and putting new ones in their place. */
#include "codegen/rewrite.h"

mk_rewrite mk_rewrite_begin(mk_graph *g) {
  mk_rewrite rw = {.g = g, .old = g->nodes, .count = g->count};
  rw.map = MK_NEW_ARRAY(&g->arena, int, g->count);
  for (int i = 0; i < g->count; i++) rw.map[i] = -1;
  g->cap = g->count;
  g->nodes = MK_NEW_ARRAY(&g->arena, mk_node, g->cap);
  g->count = 0;
  return rw;
}

const int *mk_rewrite_args(const mk_rewrite *rw, const mk_node *old) {
  int *args = MK_NEW_ARRAY(&rw->g->arena, int, old->nargs);
  for (int i = 0; i < old->nargs; i++) args[i] = rw->map[old->args[i]];
  return args;
}

void mk_rewrite_end(mk_rewrite *rw) {
  mk_graph *g = rw->g;
  for (int i = 0; i < g->noutputs; i++) g->outputs[i].node = rw->map[g->outputs[i].node];
  for (int i = 0; i < g->nupdates; i++) {
    g->updates[i].state = rw->map[g->updates[i].state];
    g->updates[i].node = rw->map[g->updates[i].node];
  }
}

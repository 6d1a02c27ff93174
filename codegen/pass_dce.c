/* Dead code: what no output and no update needs is dropped.
 *
 * Requires a verified graph; keeps it so. Inputs above load rate and states stay even if nothing reads them: the host writes and
 * reads them by name, and must not be told that a name of its script does not exist. */
#include "codegen/rewrite.h"

void mk_pass_dce(mk_graph *g) {
  mk_rewrite rw = mk_rewrite_begin(g);
  bool *live = MK_NEW_ARRAY(&g->arena, bool, rw.count);
  for (int i = 0; i < g->noutputs; i++) live[g->outputs[i].node] = true;
  for (int i = 0; i < g->nupdates; i++) live[g->updates[i].node] = true;
  for (int i = rw.count - 1; i >= 0; i--) {
    const mk_node *n = &rw.old[i];
    live[i] |= n->op == MK_OP_STATE || (n->op == MK_OP_INPUT && n->rate > MK_RATE_LOAD);
    for (int a = 0; live[i] && a < n->nargs; a++) live[n->args[a]] = true;
  }
  for (int i = 0; i < rw.count; i++) {
    if (!live[i]) continue;
    mk_node n = rw.old[i];
    n.args = mk_rewrite_args(&rw, &n);
    rw.map[i] = g->count;
    MK_PUSH(&g->arena, g->nodes, g->count, g->cap, n);
  }
  mk_rewrite_end(&rw);
}

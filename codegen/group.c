/* Units become groups: each new unit joins the groups that make what it reads, where that saves a trip through memory. */
#include "codegen/group_internal.h"

#include <string.h>

bool mk_in_program(const mk_flow *f, int unit, mk_rate rate, int entry) {
  const mk_unit *u = &f->units[unit];
  return u->rate == rate && (rate != MK_RATE_STEP || (u->entries >> entry & 1));
}

/* Right-aligned broadcast: the argument has the member's axes wherever it has the member's extent. */
static bool broadcast_map(const mk_axes *m, const mk_node *n, const mk_node *arg, mk_axes *out) {
  for (int i = 0; i < arg->rank; i++) {
    int j = i + n->rank - arg->rank;
    mk_list dim = mk_axes_dim(m, j);
    if (arg->dims[i] != n->dims[j]) dim.n = 0;
    if (!mk_axes_push_dim(out, &dim)) return false;
  }
  return true;
}

bool mk_arg_map(const mk_flow *f, const mk_cluster *c, const mk_member *m, int k, mk_axes *out) {
  const mk_unit *u = &f->units[m->unit];
  const mk_node *n = &f->g->nodes[u->node];
  int node;
  mk_unit_arg(f, m->unit, k, &node);
  const mk_node *arg = &f->g->nodes[node];
  *out = (mk_axes){0};
  if (u->copy || u->move) {
    *out = m->map;
    return true;
  }
  mk_list dim, none = {0};
  switch (mk_op_class_of(n->op)) {
    case MK_CLASS_ROOT: return false;
    case MK_CLASS_REDUCE:
      for (int i = 0; i < n->rank; i++) {
        dim = i == n->rank - 1 ? c->cols : mk_axes_dim(&m->map, i);
        if (i == n->rank - 1 && arg->dims[i] == 1) dim.n = 0;
        if (!mk_axes_push_dim(out, &dim)) return false;
      }
      return true;
    case MK_CLASS_BINARY:
      if (n->op != MK_OP_ROPE || k == 0) return broadcast_map(&m->map, n, arg, out);
      dim = mk_axes_dim(&m->map, n->rank - 3);
      if (!mk_axes_push_dim(out, &dim)) return false;
      dim = mk_axes_dim(&m->map, n->rank - 1);
      dim.n--; /* all but the pair */
      return mk_axes_push_dim(out, &dim);
    case MK_CLASS_MOVE: /* gather */
      if (k == 0 && !mk_axes_push_dim(out, &none)) return false;
      for (int i = k ? 0 : 1; i < arg->rank; i++) { /* ids lead, the table's own dims trail */
        dim = mk_axes_dim(&m->map, k ? i : n->rank - arg->rank + i);
        if (!mk_axes_push_dim(out, &dim)) return false;
      }
      return true;
    default: return broadcast_map(&m->map, n, arg, out);
  }
}

bool mk_is_stored(const mk_grouping *gr, int unit) {
  const mk_flow *f = gr->f;
  const mk_unit *u = &f->units[unit];
  if (u->copy || f->home[u->node].buffer != u->node) return true;
  for (int i = f->first_reader[u->node]; i < f->first_reader[u->node + 1]; i++) {
    int r = f->readers[i];
    if (f->units[r].rate != u->rate) return true;
    if (gr->cluster_of[r] >= 0 && gr->cluster_of[r] != gr->cluster_of[unit]) return true;
  }
  return false;
}

static void join_producers(mk_grouping *gr, int unit) {
  const mk_flow *f = gr->f;
  const mk_unit *u = &f->units[unit];
  int self = mk_cluster_add(gr, unit);
  if (!u->copy && !u->move && mk_op_class_of(f->g->nodes[u->node].op) == MK_CLASS_ROOT) return;
  for (int k = 0; k < mk_unit_nargs(f, unit); k++) {
    int from = mk_arg_unit(f, unit, k), other = from < 0 ? -1 : gr->cluster_of[from];
    if (other < 0 || other == self) continue;
    int root = gr->clusters[other].root;
    if (root < 0) root = gr->clusters[self].root;
    if (root >= 0 && !u->copy && !u->move && gr->absorb[unit] != root) continue;
    int joined = mk_cluster_merge(gr, other, self);
    if (joined >= 0) self = joined;
  }
}

mk_grouping *mk_group_units(const mk_flow *f, mk_rate rate, int entry, mk_row_epilogue_fn row_epilogue, void *user) {
  mk_grouping *gr = MK_NEW(f->arena, mk_grouping);
  *gr = (mk_grouping){.f = f, .arena = f->arena, .rate = rate, .entry = entry};
  gr->cluster_of = MK_NEW_ARRAY(f->arena, int, f->nunits);
  gr->absorb = MK_NEW_ARRAY(f->arena, int, f->nunits);
  gr->scratch = MK_NEW_ARRAY(f->arena, int, f->nunits);
  for (int u = 0; u < f->nunits; u++) gr->cluster_of[u] = gr->absorb[u] = -1;
  for (int u = 0; u < f->nunits; u++) {
    if (!mk_in_program(f, u, rate, entry)) continue;
    const mk_unit *unit = &f->units[u];
    if (!unit->copy && !unit->move && mk_op_class_of(f->g->nodes[unit->node].op) == MK_CLASS_ROOT)
      mk_plan_epilogue(gr, u, row_epilogue && row_epilogue(user, unit->node));
    join_producers(gr, u);
  }
  int live = 0;
  for (int i = 0; i < gr->norder; i++)
    if (!gr->clusters[gr->order[i]].dead) gr->order[live++] = gr->order[i];
  gr->norder = live;
  return gr;
}

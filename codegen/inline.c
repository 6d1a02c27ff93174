/* Short expressions that are evaluated by each reader instead of being stored: 1 + scale, ratios of sampler coefficients.
 *
 * Requires views and entries; turns UNIT nodes into INLINE ones. */
#include "codegen/flow_internal.h"

typedef struct cost {
  int ops, vectors, scalars;
} cost;

static void add_cost(const mk_flow *f, int id, cost *total) {
  const mk_node *n = &f->g->nodes[id];
  total->ops++;
  for (int k = 0; k < n->nargs; k++) {
    int arg = mk_chain_start(f, n->args[k]);
    if (f->kind[arg] == MK_VALUE_INLINE)
      add_cost(f, arg, total);
    else if (mk_is_scalar_const(f->g, arg))
      continue;
    else if (mk_node_count(&f->g->nodes[n->args[k]]) == 1)
      total->scalars++;
    else
      total->vectors++;
  }
}

static bool single_digits(const mk_view *v) {
  for (int i = 0; i < v->rank; i++)
    if (v->first[i + 1] - v->first[i] > 1) return false;
  return true;
}

/* Every leaf of the expression, seen from the end of the path, has at most one digit a dim: any domain can then be refined to
 * read it. */
static bool leaves_fit(const mk_flow *f, mk_stage *path, int length) {
  if (length == MK_MAX_STAGES) return false;
  const mk_node *n = &f->g->nodes[path[0].inlined];
  for (int k = 0; k < n->nargs; k++) {
    int arg = n->args[k], start = mk_chain_start(f, arg);
    if (f->kind[start] == MK_VALUE_INLINE) {
      mk_stage deeper[MK_MAX_STAGES];
      deeper[0] = (mk_stage){start, arg};
      for (int i = 0; i < length; i++) deeper[i + 1] = path[i];
      if (!leaves_fit(f, deeper, length + 1)) return false;
    } else {
      mk_view v;
      if (!mk_inline_view(f, arg, path, length, &v) || !single_digits(&v)) return false;
    }
  }
  return true;
}

/* Per node: computed from a reduction, and still one value a row. Such values stay in the reduction's own row program. */
static bool *find_row_values(const mk_flow *f) {
  bool *row = MK_NEW_ARRAY(f->arena, bool, f->g->count);
  for (int id = 0; id < f->g->count; id++) {
    const mk_node *n = &f->g->nodes[id];
    row[id] = mk_op_class_of(n->op) == MK_CLASS_REDUCE;
    for (int k = 0; k < n->nargs && (f->kind[id] == MK_VALUE_VIEW || mk_is_elementwise(n->op)); k++)
      row[id] |= row[n->args[k]] && mk_node_count(n) <= mk_node_count(&f->g->nodes[n->args[k]]);
  }
  return row;
}

/* Per node: every use, through views, is elementwise, of the same rate and much larger. */
static bool *find_candidates(const mk_flow *f, const int *first, const int *users) {
  bool *fits = MK_NEW_ARRAY(f->arena, bool, f->g->count);
  for (int id = f->g->count - 1; id >= 0; id--) {
    const mk_node *n = &f->g->nodes[id];
    bool here = f->kind[id] == MK_VALUE_VIEW || (f->kind[id] == MK_VALUE_UNIT && mk_is_elementwise(n->op));
    fits[id] = here && first[id] < first[id + 1];
    for (int i = first[id]; i < first[id + 1] && fits[id]; i++) {
      const mk_node *u = &f->g->nodes[users[i]];
      if (f->kind[users[i]] == MK_VALUE_VIEW)
        fits[id] = fits[users[i]];
      else
        fits[id] = f->kind[users[i]] == MK_VALUE_UNIT && mk_is_elementwise(u->op) && u->rate == n->rate &&
                   mk_node_count(u) >= 8 * mk_node_count(n);
    }
  }
  for (int i = 0; i < f->g->noutputs; i++) fits[mk_chain_start(f, f->g->outputs[i].node)] = false;
  for (int i = 0; i < f->g->nupdates; i++) fits[mk_chain_start(f, f->g->updates[i].node)] = false;
  return fits;
}

/* A value much smaller than all that is computed from it costs less to evaluate again than to launch for and store, if it is
 * short. A use at a higher rate is different: there storing saves the work of every step. */
void mk_find_inline(mk_flow *f, const int *first, const int *users) {
  bool *fits = find_candidates(f, first, users), *row = find_row_values(f);
  for (int id = 0; id < f->g->count; id++) {
    const mk_node *n = &f->g->nodes[id];
    if (f->kind[id] != MK_VALUE_UNIT || !fits[id] || row[id]) continue;
    cost total = {0};
    add_cost(f, id, &total);
    bool one = mk_node_count(n) == 1;
    if (total.ops <= (one ? 8 : 3) && total.vectors <= 1 && total.scalars <= (one ? 6 : 1)) f->kind[id] = MK_VALUE_INLINE;
  }
  for (bool changed = true; changed;) { /* those that some reader cannot address get a buffer after all */
    changed = false;
    for (int id = 0; id < f->g->count; id++) {
      int start = mk_chain_start(f, id);
      mk_stage path[MK_MAX_STAGES] = {{start, id}};
      if (f->kind[start] != MK_VALUE_INLINE || leaves_fit(f, path, 1)) continue;
      f->kind[start] = MK_VALUE_UNIT;
      changed = true;
    }
  }
}

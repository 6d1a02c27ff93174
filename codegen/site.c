/* Where a normalising row group stands right before the one matmul that reads its result. Such a pair may be realised otherwise:
 * the row group's work is then part of the matmul's candidate.
 *
 * Requires the order of execution and bodies. */
#include "codegen/planner.h"

static const int64_t MAX_FOLDED = (int64_t)64 << 20; /* beyond, scratch would be set by a candidate nobody may choose */

static const mk_node *node_of(const mk_flow *f, int id) { return &f->g->nodes[id]; }

/* Only values computed from values: no updates, no copies of views. */
static bool is_plain(const mk_flow *f, const mk_cluster *c) {
  for (int i = 0; i < c->nmembers; i++)
    if (f->units[c->members[i].unit].copy || f->units[c->members[i].unit].move) return false;
  return true;
}

/* The one reader of the value in any program. */
static int only_reader(const mk_flow *f, int node) {
  int first = f->first_reader[node];
  return f->home[node].buffer == node && f->first_reader[node + 1] == first + 1 ? f->readers[first] : -1;
}

/* A reader of the node, in a group that does not compute it, finds its elements in memory. */
static bool in_memory(const mk_grouping *gr, int node) {
  const mk_flow *f = gr->f;
  int source = f->view[node].source;
  if (f->kind[source] == MK_VALUE_INLINE) return false;
  return f->kind[source] != MK_VALUE_UNIT || mk_is_stored(gr, f->unit_of[source]);
}

static bool add_reads(const mk_flow *f, int node, mk_site *s) {
  int source = f->view[node].source;
  if (mk_is_scalar_const(f->g, source)) return true;
  if (f->kind[source] != MK_VALUE_INLINE) {
    if (s->nreads == MK_MAX_SITE_READS) return false;
    s->reads[s->nreads++] = source;
    return true;
  }
  for (int k = 0; k < node_of(f, source)->nargs; k++)
    if (!add_reads(f, node_of(f, source)->args[k], s)) return false;
  return true;
}

static int64_t part(int64_t *total, bool there, int64_t bytes) {
  int64_t at = *total;
  if (!there) return -1;
  *total += (bytes + 255) / 256 * 256;
  return at;
}

static bool describe(mk_planner *p, mk_draft *d, const mk_work *rows, const mk_work *matmul, mk_site *s) {
  const mk_grouping *gr = d->gr;
  const mk_flow *f = gr->f;
  const mk_cluster *cr = &gr->clusters[rows->cluster], *cm = &gr->clusters[matmul->cluster];
  if (cr->root >= 0 || !cr->reduces || cm->root < 0 || !is_plain(f, cr) || !is_plain(f, cm)) return false;
  const mk_node *root = node_of(f, f->units[cm->root].node);
  int a = root->args[0], maker = f->unit_of[a];
  if (root->op != MK_OP_MATMUL || f->kind[a] != MK_VALUE_UNIT || gr->cluster_of[maker] != rows->cluster) return false;
  if (only_reader(f, a) != cm->root || !mk_match_normed(f->g, a, &s->norm)) return false;
  const mk_normed *n = &s->norm;
  int64_t wide = root->dims[root->rank - 1], bytes = 0;
  bool scales = false, shifts = false;
  for (int i = 0; i < n->nsteps; i++) {
    bool product = n->step[i].op == MK_OP_MUL || n->step[i].op == MK_OP_DIV;
    scales |= product;
    shifts |= !product;
    if (!add_reads(f, n->step[i].vector, s)) return false;
  }
  s->in_memory = in_memory(gr, n->x);
  s->copies = !s->in_memory || node_of(f, n->x)->dtype != node_of(f, a)->dtype;
  if (s->in_memory && !add_reads(f, n->x, s)) return false;
  s->mean = part(&bytes, n->mean >= 0, n->rows * 4);
  s->scale = part(&bytes, true, n->rows * 4);
  s->colsum = part(&bytes, n->mean >= 0 && !s->copies, wide * 4);
  s->shift = part(&bytes, shifts, wide * 4);
  s->modulation = part(&bytes, n->nsteps > 2, (n->cols + 63) / 64 * 64 * 8);
  int64_t folded = wide * n->cols * (int64_t)mk_dtype_size(node_of(f, a)->dtype);
  s->weight_in_value = scales && !s->copies && folded <= mk_node_bytes(node_of(f, a));
  s->folds = !scales || s->weight_in_value || folded <= MAX_FOLDED;
  s->weight = part(&bytes, scales && s->folds && !s->weight_in_value, folded);
  s->workspace = mk_new_workspace(p, d, bytes);
  return true;
}

void mk_find_sites(mk_planner *p, mk_draft *d) {
  if (d->rate == MK_RATE_LOAD) return; /* uploads come between its groups */
  for (int w = 1; w < d->nwork; w++) {
    mk_site *s = MK_NEW(p->temp, mk_site);
    if (describe(p, d, &d->work[w - 1], &d->work[w], s)) d->work[w - 1].site = d->work[w].site = s;
  }
}

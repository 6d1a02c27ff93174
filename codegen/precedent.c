/* What was chosen for an operation before, maybe at another size, whose kernel is then compiled already: it stays among the
 * candidates although it is not among the cheapest here, and a convolution takes the norm behind it, or leaves it, as there.
 *
 * Only what the cost model puts far behind is left out all the same: what was right for a small image may be very slow for a
 * large one. Where little time is at stake, that has to be very far: sizes near each other often differ by a wave of tiles. */
#include "codegen/planner.h"

static const double FAR = 1.5, VERY_FAR = 3; /* times the cheapest */
static const double MUCH = 5e-4; /* seconds of a launch; there are thousands, and a kernel compiles in a second or two */

static bool known(const mk_planner *p, uint64_t signature, const char *label) {
  const mk_precedents *x = &p->options->precedents;
  return x->named && x->named(x->user, signature, label);
}

bool mk_is_far_behind(double cost, double cheapest) {
  return cost > VERY_FAR * cheapest || (cost > FAR * cheapest && cost > cheapest + MUCH);
}

void mk_look_up(mk_planner *p, const mk_draft *d, const mk_work *w) {
  p->nknown = 0;
  if (!p->options->precedents.named || d->rate == MK_RATE_LOAD) return;
  bool may_cover = w->site && d->gr->clusters[w->cluster].root >= 0;
  for (int i = 0; i < (may_cover ? 2 : 1); i++) {
    uint64_t signature = mk_signature(p, d, w, i > 0);
    if (known(p, signature, NULL)) p->known[p->nknown++] = signature;
  }
}

bool mk_has_precedent(const mk_planner *p, const char *label, double cost, double cheapest) {
  for (int i = 0; i < p->nknown && !mk_is_far_behind(cost, cheapest); i++)
    if (known(p, p->known[i], label)) return true;
  return false;
}

/* ---- grouping */

static bool is_conv(const mk_flow *f, const mk_cluster *c) {
  return c->root >= 0 && f->g->nodes[f->units[c->root].node].op == MK_OP_CONV;
}

/* Per cluster: a convolution whose group is without precedent, or that of a norm that reads it. */
static const bool *strangers(mk_planner *p, const mk_draft *d) {
  const mk_grouping *gr = d->gr;
  bool *strange = MK_NEW_ARRAY(p->temp, bool, gr->nclusters);
  for (int i = 0; i < d->nwork; i++) {
    const mk_work *w = &d->work[i];
    const mk_cluster *c = &gr->clusters[w->cluster];
    bool conv = is_conv(gr->f, c), norm = c->root < 0 && c->reduces;
    if ((!conv && !norm) || known(p, mk_signature(p, d, w, false), NULL)) continue;
    strange[w->cluster] = conv;
    for (int m = 0; norm && m < c->nmembers; m++)
      for (int k = 0; k < mk_unit_nargs(gr->f, c->members[m].unit); k++) {
        int from = mk_arg_unit(gr->f, c->members[m].unit, k), maker = from < 0 ? -1 : gr->cluster_of[from];
        if (maker >= 0 && is_conv(gr->f, &gr->clusters[maker])) strange[maker] = true;
      }
  }
  return strange;
}

bool mk_retake_norms(mk_planner *p, const mk_draft *d, bool back) {
  const mk_grouping *gr = d->gr;
  bool changed = false;
  if (!p->options->precedents.named || d->rate == MK_RATE_LOAD) return false;
  if (!back) p->turned = MK_NEW_ARRAY(p->temp, bool, p->g->count);
  const bool *strange = strangers(p, d);
  for (int c = 0; c < gr->nclusters; c++) {
    if (!strange[c]) continue;
    bool *turned = &p->turned[gr->f->units[gr->clusters[c].root].node];
    changed |= *turned == back;
    *turned = !back;
  }
  return changed;
}

/* Every realisation of a group that fits, cheapest first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/planner.h"

/* Estimates of unlike kernels are no better than this. */
static const double OTHER_MARGIN = 1.05;

static int by_cost(const void *x, const void *y) {
  const mk_candidate *a = x, *b = y;
  if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
  return strcmp(a->label, b->label);
}

/* One run of bytes to another. */
static bool is_plain_copy(const mk_body *b) {
  if (b->ninsts != 2 || b->insts[0].kind != MK_INST_LOAD || b->insts[0].a >= 0 || b->insts[1].kind != MK_INST_STORE) return false;
  const mk_access *from = &b->accesses[b->insts[0].access], *to = &b->accesses[b->insts[1].access];
  if (b->naxes > 1 || from->dtype != to->dtype) return false;
  return b->naxes == 0 || (from->stride[0] == 1 && to->stride[0] == 1);
}

static int copy_candidate(mk_planner *p, const mk_draft *d, const mk_body *b, mk_candidate *out) {
  const mk_access *from = &b->accesses[b->insts[0].access], *to = &b->accesses[b->insts[1].access];
  mk_launch *launch = MK_NEW(p->arena, mk_launch);
  launch->kind = MK_LAUNCH_COPY;
  launch->dst = mk_locate(p, d, to->buffer, to->offset, to->dtype);
  launch->src = mk_locate(p, d, from->buffer, from->offset, from->dtype);
  launch->bytes = mk_dims_count(b->extent, b->naxes) * (int64_t)mk_dtype_size(to->dtype);
  out[0] = (mk_candidate){.label = "copy", .nlaunches = 1, .launches = launch, .cost = mk_row_cost(p, b)};
  return 1;
}

static const mk_node *node_of(const mk_planner *p, int unit) { return &p->g->nodes[p->flow->units[unit].node]; }

/* "blocks.0.norm1: sub mul mean ..." */
static const char *group_name(mk_planner *p, const mk_cluster *c) {
  const char *label = NULL, *where = NULL;
  mk_text t = {0};
  for (int i = 0; i < c->nmembers; i++) {
    const mk_node *n = node_of(p, c->members[i].unit);
    bool leaf = mk_op_class_of(n->op) == MK_CLASS_LEAF;
    if (n->name && !leaf) label = n->name;
    if (n->where && !where) where = n->where;
  }
  mk_text_addf(&t, "%s:", label ? label : where ? where : "group");
  for (int i = 0; i < c->nmembers && t.len < 96; i++) {
    const mk_unit *u = &p->flow->units[c->members[i].unit];
    mk_text_addf(&t, " %s", u->state >= 0 ? "update" : u->copy ? "copy" : mk_op_name(node_of(p, c->members[i].unit)->op));
  }
  if (t.len >= 96) mk_text_add(&t, " ...");
  const char *s = mk_strdup(p->arena, mk_text_str(&t));
  mk_text_free(&t);
  return s;
}

static double operand_bytes(const mk_planner *p, const mk_cluster *c) {
  double bytes = 0;
  int node;
  for (int k = 0; c->root >= 0 && k < mk_unit_nargs(p->flow, c->root); k++) {
    mk_unit_arg(p->flow, c->root, k, &node);
    bytes += (double)mk_node_bytes(&p->g->nodes[node]);
  }
  return bytes;
}

/* Where a candidate has the pinned tunable, those without it go: the others have the pinned value. */
static int keep_pinned(const mk_trial *t, mk_candidate *found, int n) {
  for (int i = 0; i < t->npins; i++) {
    char field[64];
    snprintf(field, sizeof field, " %s=", t->pins[i].name);
    int kept = 0;
    for (int c = 0; c < n; c++)
      if (strstr(found[c].label, field)) kept++;
    if (!kept) continue;
    kept = 0;
    for (int c = 0; c < n; c++)
      if (strstr(found[c].label, field)) found[kept++] = found[c];
    n = kept;
  }
  return n;
}

/* The dearest go first, but the user's own stay: whether they are fast is what the user wants to know. So do those with a
 * precedent. */
static int keep_few(const mk_planner *p, mk_candidate *found, int n) {
  for (int c = n - 1, over = n - MK_MAX_CANDIDATES; c >= 0 && over > 0; c--) {
    if (found[c].own) continue;
    over--;
    if (mk_has_precedent(p, found[c].label, found[c].cost, found[0].cost)) continue;
    memmove(found + c, found + c + 1, sizeof *found * (size_t)(--n - c));
  }
  return n;
}

/* `usual` candidates, then others that do the work of the group before, too, which costs that much. */
static void merge(const mk_candidate *found, int usual, int others, double before, mk_candidate *out) {
  for (int i = 0, u = 0, o = usual; i < usual + others; i++) {
    bool other = u == usual || (o < usual + others && found[o].cost * OTHER_MARGIN < found[u].cost + before);
    out[i] = found[other ? o++ : u++];
  }
}

void mk_select(mk_planner *p, const mk_draft *d, const mk_work *w, mk_group *out) {
  const mk_cluster *c = &d->gr->clusters[w->cluster];
  mk_candidate found[2 * MK_MAX_CANDIDATES + 1 + MK_MAX_REALISED + 3 * MK_MAX_PRECEDENTS];
  int n = 0;
  mk_look_up(p, d, w);
  *out =
      (mk_group){.name = group_name(p, c), .flop = mk_root_flop(d->gr, c), .bytes = mk_body_bytes(w->body) + operand_bytes(p, c)};
  if (c->root >= 0) {
    const mk_node *root = node_of(p, c->root);
    out->kind = mk_op_name(root->op);
    n = mk_lt_candidates(p, d, w, found, MK_MAX_CANDIDATES);
    if (!mk_failed(p->st)) n += mk_residual_candidate(p, d, w, found + n);
    if (!mk_failed(p->st)) n += mk_template_candidates(p, d, w, found + n, MK_MAX_CANDIDATES);
    if (!n && !mk_failed(p->st))
      mk_fail(p->st, MK_EUNSUPPORTED, "%s: no template in %s can do %s on sm_%d", root->where ? root->where : p->g->name,
              p->options->templates, mk_root_text(p, d->gr, c), p->target.arch);
  } else if (is_plain_copy(w->body)) {
    out->kind = "copy";
    n = copy_candidate(p, d, w->body, found);
  } else {
    out->kind = "row";
    n = mk_row_candidates(p, d, w->body, found, MK_MAX_CANDIDATES);
  }
  if (mk_failed(p->st)) return;
  n = keep_pinned(&p->options->trial, found, n);
  qsort(found, (size_t)n, sizeof *found, by_cost);
  n = keep_few(p, found, n);
  if (c->root >= 0) {
    n = keep_pinned(&p->options->trial, found, n + mk_precedent_candidates(p, d, w, found + n, MK_MAX_CANDIDATES));
    qsort(found, (size_t)n, sizeof *found, by_cost);
  }
  int others = keep_pinned(&p->options->trial, found + n, mk_site_candidates(p, d, w, found + n));
  if (d->rate != MK_RATE_LOAD) mk_touch(p, d, w, others > 0, out); /* what runs once is not tuned */
  mk_candidate *kept = MK_NEW_ARRAY(p->arena, mk_candidate, n + others);
  qsort(found + n, (size_t)others, sizeof *found, by_cost);
  merge(found, n, others, others ? p->plan->groups[p->plan->ngroups - 1].candidates[0].cost : 0, kept);
  for (int i = 0; i < n + others; i++) kept[i].precedent = mk_has_precedent(p, kept[i].label, kept[i].cost, kept[0].cost);
  out->candidates = kept;
  out->ncandidates = n + others;
}

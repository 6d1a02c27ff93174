/* The order of a program's groups: the script's own, which keeps branches apart and values short-lived, except that copies into
 * state and outputs happen as soon as they may. */
#include "codegen/planner.h"

typedef struct heap {
  int n;
  int *items;
  const int *key;
} heap;

static void push(heap *h, int c) {
  int i = h->n++;
  for (; i > 0 && h->key[h->items[(i - 1) / 2]] > h->key[c]; i = (i - 1) / 2) h->items[i] = h->items[(i - 1) / 2];
  h->items[i] = c;
}

static int pop(heap *h) {
  int top = h->items[0], last = h->items[--h->n], i = 0;
  for (;;) {
    int child = 2 * i + 1;
    if (child >= h->n) break;
    if (child + 1 < h->n && h->key[h->items[child + 1]] < h->key[h->items[child]]) child++;
    if (h->key[h->items[child]] >= h->key[last]) break;
    h->items[i] = h->items[child];
    i = child;
  }
  if (h->n) h->items[i] = last;
  return top;
}

/* Unit number, but copies count as the last of what they wait for. Twice, to leave room for "right after". */
static int *unit_keys(const mk_planner *p) {
  const mk_flow *f = p->flow;
  int *key = MK_NEW_ARRAY(p->temp, int, f->nunits);
  for (int u = 0; u < f->nunits; u++) {
    key[u] = 2 * u;
    if (!f->units[u].copy) continue;
    int last = -1;
    for (int i = 0; i < f->units[u].ndeps; i++)
      if (key[f->units[u].deps[i]] > last) last = key[f->units[u].deps[i]];
    if (last >= 0) key[u] = last | 1;
  }
  return key;
}

typedef struct edges {
  const mk_grouping *gr;
  int *stamp; /* per cluster: the last one that counted it */
} edges;

/* Clusters that wait for c, each once. */
static int followers(const edges *e, int c, int *out) {
  const mk_grouping *gr = e->gr;
  const mk_cluster *cl = &gr->clusters[c];
  int n = 0;
  for (int i = 0; i < cl->nmembers; i++)
    for (int j = gr->f->first_user[cl->members[i].unit]; j < gr->f->first_user[cl->members[i].unit + 1]; j++) {
      int next = gr->cluster_of[gr->f->users[j]];
      if (next < 0 || next == c || e->stamp[next] == c + 1) continue;
      e->stamp[next] = c + 1;
      out[n++] = next;
    }
  return n;
}

/* The cost of the best template for a root, with or without a norm behind it; negative if there is none. */
static double root_cost(mk_planner *p, int root, bool with_norm) {
  mk_choice *choices;
  mk_problem problem;
  mk_root_problem(p->flow, p->flow->unit_of[root], NULL, &problem);
  problem.row_epilogue = with_norm;
  return mk_sidecars_choose(p->sidecars, &problem, &choices, 1, p->st) > 0 ? choices[0].cost : -1;
}

/* Convolutions only: a matmul's norm spans more columns than a tile, and its consumer is no other matmul's tile anyway. Whole
 * rows want wide tiles, which a small image has too few of: then the norm is better a row program, for which f32 values are
 * written and read again. A little more than fair: what else it reads and stores is saved too. */
static bool row_epilogue(void *user, int root) {
  mk_planner *p = user;
  const mk_node *n = &p->g->nodes[root];
  if (!p->sidecars || n->op != MK_OP_CONV) return false;
  double with = root_cost(p, root, true), without = root_cost(p, root, false);
  double pass = (double)mk_node_count(n) * 8 / (p->target.copy_tbs * 1e12) + 2e-6;
  if (with < 0 || without < 0) return with >= 0;
  bool takes = with <= 1.05 * (without + pass), turned = p->turned && p->turned[root];
  return takes != (turned && !mk_is_far_behind(takes ? without + pass : with, takes ? with : without + pass));
}

void mk_schedule(mk_planner *p, mk_draft *d) {
  int entry = 0;
  for (int i = 0; i < p->g->nentries; i++)
    if (p->g->entries[i] == d->name) entry = i;
  mk_grouping *gr = d->gr = mk_group_units(p->flow, d->rate, entry, row_epilogue, p);
  int *unit_key = unit_keys(p), n = gr->nclusters;
  int *key = MK_NEW_ARRAY(p->temp, int, n), *waits = MK_NEW_ARRAY(p->temp, int, n), *out = MK_NEW_ARRAY(p->temp, int, n);
  edges e = {gr, MK_NEW_ARRAY(p->temp, int, n)};
  heap h = {0, MK_NEW_ARRAY(p->temp, int, n), key};
  for (int i = 0; i < gr->norder; i++) {
    int c = gr->order[i];
    for (int m = 0; m < gr->clusters[c].nmembers; m++)
      if (unit_key[gr->clusters[c].members[m].unit] > key[c]) key[c] = unit_key[gr->clusters[c].members[m].unit];
    for (int k = followers(&e, c, out) - 1; k >= 0; k--) waits[out[k]]++;
  }
  for (int i = 0; i < n; i++) e.stamp[i] = 0;
  for (int i = 0; i < gr->norder; i++)
    if (!waits[gr->order[i]]) push(&h, gr->order[i]);
  d->work = MK_NEW_ARRAY(p->temp, mk_work, gr->norder);
  d->nwork = 0;
  while (h.n) {
    int c = pop(&h);
    d->work[d->nwork++] = (mk_work){.cluster = c, .workspace = -1};
    for (int k = followers(&e, c, out) - 1; k >= 0; k--)
      if (!--waits[out[k]]) push(&h, out[k]);
  }
  if (d->nwork != gr->norder) mk_fail(p->st, MK_EINTERNAL, "program %s: its groups wait for each other", d->name);
}

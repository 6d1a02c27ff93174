/* From a graph to a plan: flow, groups, places, candidates, in this order. */
#include "codegen/plan.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/planner.h"
#include "runtime/base/log.h"

mk_target mk_target_of(const mk_plan_options *o) {
  static const struct {
    int arch, smem, sms;
    double tensor, simt, copy;
  } known[] = {
      {80, 166912, 108, 312, 19, 1.6},   {86, 101376, 82, 71, 35, 0.8},     {87, 166912, 16, 40, 5, 0.18},
      {89, 101376, 128, 165, 80, 0.9},   {90, 232448, 132, 900, 60, 4.0},   {100, 232448, 148, 2200, 75, 6.5},
      {103, 232448, 148, 2200, 75, 6.5}, {120, 101376, 170, 210, 100, 1.5}, {121, 101376, 48, 60, 30, 0.25},
  };
  mk_target t = {.arch = o->arch, .smem_limit = o->smem_limit, .sms = o->sms};
  size_t at = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].arch <= o->arch) at = i;
  if (!t.smem_limit) t.smem_limit = known[at].smem;
  if (!t.sms) t.sms = known[at].sms;
  t.tensor_tflops = known[at].tensor;
  t.simt_tflops = known[at].simt;
  t.copy_tbs = known[at].copy;
  return t;
}

/* ---- programs */

/* Groups in their order, with their bodies. */
static void draft_groups(mk_planner *p, mk_draft *d) {
  mk_schedule(p, d);
  d->nbuffers = p->flow->nbuffers;
  for (int w = 0; w < d->nwork && !mk_failed(p->st); w++)
    d->work[w].body = mk_body_build(d->gr, &d->gr->clusters[d->work[w].cluster], p->temp, p->st);
}

static void draft_programs(mk_planner *p) {
  const mk_graph *g = p->g;
  p->drafts = MK_NEW_ARRAY(p->temp, mk_draft, g->nentries + 2);
  p->drafts[p->ndrafts++] = (mk_draft){.name = "load", .rate = MK_RATE_LOAD};
  p->drafts[p->ndrafts++] = (mk_draft){.name = "prompt", .rate = MK_RATE_PROMPT};
  for (int i = 0; i < g->nentries; i++) p->drafts[p->ndrafts++] = (mk_draft){.name = g->entries[i], .rate = MK_RATE_STEP};
  for (int i = 0; i < p->ndrafts && !mk_failed(p->st); i++) {
    mk_draft *d = &p->drafts[i];
    p->turned = NULL;
    draft_groups(p, d);
    for (int back = 0; back < 2 && !mk_failed(p->st) && mk_retake_norms(p, d, back); back++) draft_groups(p, d);
    for (int w = 0; w < d->nwork && !mk_failed(p->st); w++) mk_lt_plan(p, d, &d->work[w]);
    if (!mk_failed(p->st)) mk_find_sites(p, d);
  }
}

/* ---- steps */

typedef struct steps {
  int n, cap;
  mk_step *items;
} steps;

static void add_step(mk_planner *p, steps *s, mk_step_kind kind, int index) {
  mk_step step = {kind, index};
  MK_PUSH(p->arena, s->items, s->n, s->cap, step);
}

static int add_group(mk_planner *p, const mk_draft *d, const mk_work *w) {
  mk_group group;
  mk_select(p, d, w, &group);
  MK_PUSH(p->arena, p->plan->groups, p->plan->ngroups, p->groups_cap, group);
  return p->plan->ngroups - 1;
}

typedef struct weight_index { /* weights by the root buffer they lie in */
  int *first, *items;
  int *node;  /* per weight */
  bool *done; /* per weight */
} weight_index;

static void upload(mk_planner *p, const mk_draft *d, const weight_index *x, int weight, steps *s) {
  if (x->done[weight]) return;
  x->done[weight] = true;
  p->plan->weights[weight].ref = mk_locate(p, d, x->node[weight], 0, p->plan->weights[weight].dtype);
  add_step(p, s, MK_STEP_UPLOAD, weight);
}

/* A weight comes right before the first group that reads it, so that it is in scratch for a short time only. */
static void upload_for(mk_planner *p, const mk_draft *d, const mk_work *w, const weight_index *x, steps *s) {
  int buffers[256], n = mk_work_buffers(d, w, buffers, 256);
  for (int i = 0; i < n; i++)
    for (int j = buffers[i] < p->flow->nbuffers ? x->first[buffers[i]] : 0;
         buffers[i] < p->flow->nbuffers && j < x->first[buffers[i] + 1]; j++)
      upload(p, d, x, x->items[j], s);
}

static weight_index index_weights(const mk_planner *p) {
  const mk_flow *f = p->flow;
  int n = p->plan->nweights, at = 0;
  int64_t offset;
  weight_index x = {MK_NEW_ARRAY(p->temp, int, f->nbuffers + 2), MK_NEW_ARRAY(p->temp, int, n), MK_NEW_ARRAY(p->temp, int, n),
                    MK_NEW_ARRAY(p->temp, bool, n)};
  for (int id = 0; id < p->g->count && at < n; id++) { /* plan->weights are in this order */
    const mk_node *node = &p->g->nodes[id];
    if (node->op == MK_OP_INPUT && node->rate == MK_RATE_LOAD && !strcmp(node->name, p->plan->weights[at].name))
      x.node[at++] = id;
  }
  for (int w = 0; w < n; w++) x.first[mk_flow_root(f, x.node[w], &offset) + 2]++;
  for (int b = 0; b <= f->nbuffers; b++) x.first[b + 1] += x.first[b];
  for (int w = 0; w < n; w++) x.items[x.first[mk_flow_root(f, x.node[w], &offset) + 1]++] = w;
  return x;
}

static void add_programs(mk_planner *p) {
  mk_plan *plan = p->plan;
  plan->programs = MK_NEW_ARRAY(p->arena, mk_program, p->ndrafts);
  weight_index weights = index_weights(p);
  for (int i = 0; i < p->ndrafts && !mk_failed(p->st); i++) {
    mk_draft *d = &p->drafts[i];
    steps s = {0};
    for (int w = 0; w < d->nwork && !mk_failed(p->st); w++) {
      if (d->rate == MK_RATE_LOAD) upload_for(p, d, &d->work[w], &weights, &s);
      add_step(p, &s, MK_STEP_GROUP, add_group(p, d, &d->work[w]));
    }
    for (int w = 0; d->rate == MK_RATE_LOAD && w < plan->nweights && !mk_failed(p->st); w++) upload(p, d, &weights, w, &s);
    plan->programs[plan->nprograms++] = (mk_program){mk_strdup(p->arena, d->name), d->rate, s.n, s.items};
  }
}

/* ---- the whole */

static bool check_options(const mk_plan_options *o, mk_status *st) {
  if (o->arch < 80 || o->arch > 199)
    mk_fail(st, MK_EUNSUPPORTED, "architecture sm_%d is not supported; sm_80 and later are", o->arch);
  if (!o->templates) mk_fail(st, MK_EINPUT, "no templates folder");
  return !mk_failed(st);
}

static bool open_planner(mk_planner *p, const mk_graph *g, const mk_plan_options *o, mk_arena *temp, mk_plan *plan,
                         mk_status *st) {
  *p = (mk_planner){.g = g, .options = o, .target = mk_target_of(o), .arena = &plan->arena, .temp = temp, .plan = plan, .st = st};
  plan->name = mk_strdup(&plan->arena, g->name);
  plan->arch = o->arch;
  p->sidecars = mk_sidecars_open(o->templates, &o->trial, &p->target, st);
  if (!p->sidecars) return false;
  p->prelude = mk_sidecars_text(p->sidecars, "prelude.cuh", st);
  p->row_code = p->prelude ? mk_sidecars_text(p->sidecars, "row.cuh", st) : NULL;
  if (!p->row_code) return false;
  p->flow = mk_flow_build(g, temp, st);
  return p->flow != NULL;
}

mk_plan *mk_plan_build(const mk_graph *g, const mk_plan_options *options, mk_status *st) {
  if (!check_options(options, st)) return NULL;
  mk_plan *plan = calloc(1, sizeof *plan);
  if (!plan) {
    mk_fail(st, MK_ENOMEM, "no memory for a plan");
    return NULL;
  }
  mk_arena temp = {0};
  mk_planner p;
  unsigned failures = mk_text_failures();
  if (open_planner(&p, g, options, &temp, plan, st)) {
    mk_timeline("%s: templates and flow", plan->name);
    draft_programs(&p);
    mk_timeline("%s: groups", plan->name);
    if (!mk_failed(st)) mk_place_fixed(&p);
    for (int i = 0; i < p.ndrafts && !mk_failed(st); i++) mk_place_scratch(&p, &p.drafts[i]);
    mk_timeline("%s: places", plan->name);
    if (!mk_failed(st)) add_programs(&p);
    mk_timeline("%s: candidates", plan->name);
    if (!mk_failed(st) && options->trial.edited) mk_take_edited(&p);
  }
  if (mk_text_failures() != failures) mk_fail(st, MK_ENOMEM, "no memory for the plan's texts");
  mk_sidecars_close(p.sidecars);
  mk_arena_free(&temp);
  if (!mk_failed(st)) return plan;
  mk_plan_free(plan);
  return NULL;
}

void mk_plan_free(mk_plan *p) {
  if (!p) return;
  mk_arena_free(&p->arena);
  free(p);
}

bool mk_group_may_cover(const mk_group *g) {
  for (int c = 0; c < g->ncandidates; c++)
    if (g->candidates[c].covers) return true;
  return false;
}

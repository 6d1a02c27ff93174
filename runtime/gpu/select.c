#include <string.h>

#include "runtime/base/log.h"
#include "runtime/gpu/executor.h"

typedef enum verdict { UNKNOWN, WORKS, SPILLS, FAILS } verdict;

typedef struct search { /* verdicts[first[g] + c]: of candidate c of group g */
  int *first;
  verdict *verdicts;
  mk_status reason; /* the latest failure, for when a group has nothing left */
} search;

static verdict *verdict_of(const search *f, int group, int candidate) { return &f->verdicts[f->first[group] + candidate]; }

/* The group's next candidate to try: the plan's choice, then the others by rising cost, then those that spill. */
static int next_candidate(const mk_gpu_session *s, const search *f, int group) {
  const mk_group *g = &s->plan->groups[group];
  if (*verdict_of(f, group, g->chosen) <= WORKS) return g->chosen;
  for (int c = 0; c < g->ncandidates; c++)
    if (*verdict_of(f, group, c) <= WORKS) return c;
  for (int c = 0; c < g->ncandidates; c++)
    if (*verdict_of(f, group, c) == SPILLS) return c;
  return -1;
}

static void reject(mk_gpu_session *s, search *f, int group, verdict v, const char *why) {
  const mk_group *g = &s->plan->groups[group];
  int c = s->groups[group].chosen;
  *verdict_of(f, group, c) = v;
  f->reason = (mk_status){0};
  mk_fail(&f->reason, MK_ECOMPILE, "%s: %s: %s", g->name, g->candidates[c].label, why);
  mk_log(MK_LOG_INFO, "%s; taking the next candidate", f->reason.message);
}

/* Looks at the kernels of the group's choice; false when it was rejected. */
static bool kernels_work(mk_gpu_session *s, search *f, int group) {
  int c = s->groups[group].chosen;
  const mk_candidate *candidate = &s->plan->groups[group].candidates[c];
  bool last_resort = *verdict_of(f, group, c) == SPILLS;
  for (int i = 0; i < candidate->nlaunches; i++) {
    const mk_launch *l = &candidate->launches[i];
    if (l->kind != MK_LAUNCH_KERNEL) continue;
    const mk_gpu_kernel *k = &s->kernels[l->kernel];
    if (k->state == MK_GPU_KERNEL_READY || (k->state == MK_GPU_KERNEL_SPILLS && last_resort)) continue;
    reject(s, f, group, k->state == MK_GPU_KERNEL_SPILLS ? SPILLS : FAILS, k->why);
    return false;
  }
  return true;
}

void mk_gpu_group_free(mk_gpu_device *d, mk_gpu_group *g) {
  for (int i = 0; i < g->nlaunches; i++) mk_gpu_launch_free(d, &g->launches[i]);
  g->nlaunches = 0;
}

mk_gpu_launch *mk_gpu_group_matmul(mk_gpu_group *g) {
  for (int i = 0; i < g->nlaunches; i++)
    if (g->launches[i].plan->kind == MK_LAUNCH_LT) return &g->launches[i];
  return NULL;
}

bool mk_gpu_group_make(mk_gpu_device *d, const mk_plan *plan, const mk_candidate *c, const char *algorithm,
                       mk_gpu_kernel *kernels, mk_arena *arena, mk_gpu_group *g, mk_status *why) {
  g->nlaunches = 0;
  g->launches = MK_NEW_ARRAY(arena, mk_gpu_launch, c->nlaunches);
  for (int i = 0; i < c->nlaunches; i++) {
    const mk_launch *l = &c->launches[i];
    CUfunction function = l->kind == MK_LAUNCH_KERNEL ? kernels[l->kernel].function : NULL;
    if ((function && !mk_gpu_function_prepare(d, function, l, why)) ||
        !mk_gpu_launch_make(d, l, function, arena, &g->launches[i], why)) {
      mk_gpu_group_free(d, g);
      if (function) mk_gpu_kernel_blame(d, &plan->kernels[l->kernel], &kernels[l->kernel], why->message);
      return false;
    }
    g->nlaunches++;
  }
  mk_gpu_launch *matmul = algorithm ? mk_gpu_group_matmul(g) : NULL;
  if (matmul) matmul->lt.algorithm = mk_gpu_lt_find(d, &matmul->lt, algorithm);
  return true;
}

/* Prepares the launches of the group's choice; false when it was rejected. */
static bool launches_work(mk_gpu_session *s, search *f, int group) {
  mk_gpu_group *g = &s->groups[group];
  const mk_group *planned = &s->plan->groups[group];
  const char *algorithm = g->chosen == planned->chosen ? planned->algorithm : NULL;
  mk_status why = {0};
  if (!mk_gpu_group_make(s->d, s->plan, &planned->candidates[g->chosen], algorithm, s->kernels, &s->arena, g, &why)) {
    reject(s, f, group, FAILS, why.message);
    return false;
  }
  if (*verdict_of(f, group, g->chosen) == UNKNOWN) *verdict_of(f, group, g->chosen) = WORKS;
  return true;
}

static void mark(const mk_candidate *c, bool *kernels) {
  for (int i = 0; i < c->nlaunches; i++)
    if (c->launches[i].kind == MK_LAUNCH_KERNEL) kernels[c->launches[i].kernel] = true;
}

/* What was chosen before, and is not now, will be at another size: where kernels are compiled anyway, its are, too, so that the
 * change of size has nothing to compile. */
static bool *precedents(const mk_plan *plan, mk_arena *arena) {
  bool *kernels = MK_NEW_ARRAY(arena, bool, plan->nkernels);
  for (int g = 0; g < plan->ngroups; g++)
    for (int c = 0; c < plan->groups[g].ncandidates; c++)
      if (plan->groups[g].candidates[c].precedent) mark(&plan->groups[g].candidates[c], kernels);
  return kernels;
}

/* One round: compile what the present choices lack, all in parallel, and see which of them work. */
static bool round_of(mk_gpu_session *s, search *f, bool *wanted, const bool *along, bool *settled, bool *done, mk_status *st) {
  const mk_plan *plan = s->plan;
  memset(wanted, 0, sizeof *wanted * (size_t)plan->nkernels);
  for (int g = 0; g < plan->ngroups; g++) {
    if (settled[g]) continue;
    int c = next_candidate(s, f, g);
    if (c < 0) {
      *st = f->reason;
      mk_fail(st, MK_ECOMPILE, "the plan has no candidate for %s", plan->groups[g].name);
      mk_fail_context(st, "no realisation of a group works; the last one tried");
      return false;
    }
    s->groups[g].chosen = c;
    mark(&plan->groups[g].candidates[c], wanted);
  }
  if (!mk_gpu_kernels_load(s->d, plan->kernels, plan->nkernels, wanted, along, s->kernels, &s->arena, NULL, NULL, st))
    return false;
  *done = true;
  for (int g = 0; g < plan->ngroups; g++) {
    if (settled[g]) continue;
    settled[g] = kernels_work(s, f, g) && launches_work(s, f, g);
    if (!settled[g]) *done = false;
  }
  return true;
}

bool mk_gpu_select(mk_gpu_session *s, mk_status *st) {
  const mk_plan *plan = s->plan;
  mk_arena scratch = {0};
  int total = 0;
  search f = {.first = MK_NEW_ARRAY(&scratch, int, plan->ngroups)};
  for (int g = 0; g < plan->ngroups; g++) {
    f.first[g] = total;
    total += plan->groups[g].ncandidates;
  }
  f.verdicts = MK_NEW_ARRAY(&scratch, verdict, total);
  bool *wanted = MK_NEW_ARRAY(&scratch, bool, plan->nkernels), *settled = MK_NEW_ARRAY(&scratch, bool, plan->ngroups);
  const bool *along = precedents(plan, &scratch);
  bool done = false, ok = true;
  while (ok && !done) ok = round_of(s, &f, wanted, along, settled, &done, st);
  for (int g = 0; ok && g < plan->ngroups; g++)
    if (mk_gpu_session_covers(&s->base, g)) mk_gpu_group_free(s->d, &s->groups[g]);
  mk_arena_free(&scratch);
  return ok;
}

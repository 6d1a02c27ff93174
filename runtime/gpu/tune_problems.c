#include "runtime/gpu/tune_problems.h"

#include <stdlib.h>
#include <string.h>

static const double equal_part = 0.5; /* of the time, whatever a problem is worth */

static bool same_launch(const mk_launch *a, const mk_launch *b) {
  if (a->kind != b->kind) return false;
  if (a->kind == MK_LAUNCH_LT) {
    const mk_lt *x = a->lt, *y = b->lt;
    return x->m == y->m && x->n == y->n && x->k == y->k && x->lda == y->lda && x->ldb == y->ldb && x->ldc == y->ldc &&
           x->ldd == y->ldd && x->ab_type == y->ab_type && x->d_type == y->d_type && x->epilogue == y->epilogue &&
           x->beta == y->beta;
  }
  return a->kernel == b->kernel && !memcmp(a->grid, b->grid, sizeof a->grid) && a->smem == b->smem && a->bytes == b->bytes;
}

bool mk_tune_same_problem(const mk_group *a, const mk_group *b) {
  if (a->signature != b->signature || a->flop != b->flop || a->bytes != b->bytes || a->ncandidates != b->ncandidates)
    return false;
  for (int c = 0; c < a->ncandidates; c++) {
    const mk_candidate *x = &a->candidates[c], *y = &b->candidates[c];
    if (x->nlaunches != y->nlaunches) return false;
    for (int i = 0; i < x->nlaunches; i++)
      if (!same_launch(&x->launches[i], &y->launches[i])) return false;
  }
  return true;
}

/* Of problems that are not quite equal, one record will do for both: of other plans, or of nearly the same size. */
static bool posed_before(const mk_tune_problems *all, int count, const mk_group *g) {
  for (int i = 0; i < count; i++) {
    const mk_group *other = all->items[i].group;
    if (other->signature == g->signature && mk_record_class(other->flop) == mk_record_class(g->flop) &&
        mk_record_class(other->bytes) == mk_record_class(g->bytes))
      return true;
  }
  return false;
}

static void gather(mk_tune_problems *out, const mk_tune_job *job, int index, mk_arena *arena) {
  int first = out->count;
  for (int i = 0; i < job->plan->nprograms; i++) {
    const mk_program *p = &job->plan->programs[i];
    if (p->rate == MK_RATE_LOAD) continue; /* runs once */
    for (int s = 0; s < p->nsteps; s++) {
      if (p->steps[s].kind != MK_STEP_GROUP) continue;
      const mk_group *g = &job->plan->groups[p->steps[s].index];
      if (!mk_tuning_matters(g)) continue;
      double value = g->candidates[0].cost * (p->rate == MK_RATE_STEP ? job->runs : 1);
      int k = first;
      while (k < out->count && !mk_tune_same_problem(out->items[k].group, g)) k++;
      if (k < out->count) {
        out->items[k].value += value;
      } else {
        mk_tune_problem fresh = {.plan = job->plan, .group = g, .job = index, .value = value};
        MK_PUSH(arena, out->items, out->count, out->cap, fresh);
      }
    }
  }
}

static int by_value(const void *a, const void *b) {
  const mk_tune_problem *x = a, *y = b;
  if (x->value != y->value) return x->value > y->value ? -1 : 1;
  return x->group < y->group ? -1 : x->group > y->group;
}

/* Jobs in order of what all their problems are worth, so that a job's memory is taken once. */
static void order_jobs(mk_tune_problems *p, int jobs, mk_arena *arena) {
  double *worth = MK_NEW_ARRAY(arena, double, jobs);
  mk_tune_problem *sorted = MK_NEW_ARRAY(arena, mk_tune_problem, p->count);
  int n = 0;
  if (!p->count) return;
  qsort(p->items, (size_t)p->count, sizeof *p->items, by_value);
  for (int i = 0; i < p->count; i++) worth[p->items[i].job] += p->items[i].value;
  for (int round = 0; round < jobs; round++) {
    int best = -1;
    for (int j = 0; j < jobs; j++)
      if (worth[j] >= 0 && (best < 0 || worth[j] > worth[best])) best = j;
    worth[best] = -1;
    for (int i = 0; i < p->count; i++)
      if (p->items[i].job == best) sorted[n++] = p->items[i];
  }
  memcpy(p->items, sorted, sizeof *sorted * (size_t)n);
}

mk_tune_problems mk_tune_problems_of(const mk_tuning *t, const mk_tune_job *jobs, int count, const mk_tune_options *o,
                                     mk_arena *arena) {
  mk_tune_problems all = {0}, out = {0};
  for (int j = 0; j < count; j++) {
    int first = all.count;
    if (!jobs[j].plan) continue;
    gather(&all, &jobs[j], j, arena);
    for (int i = first; i < all.count; i++) {
      const mk_tune_problem *p = &all.items[i];
      mk_known known = o->again ? MK_KNOWN_NOT : mk_tuning_knows(t, p->plan, p->group);
      bool enough = known == MK_KNOWN_EXACT || (known == MK_KNOWN_NEAR && o->near_is_ok);
      if (enough || posed_before(&all, i, p->group)) {
        out.known++;
      } else {
        MK_PUSH(arena, out.items, out.count, out.cap, *p);
      }
    }
  }
  order_jobs(&out, count, arena);
  return out;
}

typedef struct weight { /* of problems that are not done */
  int count;
  double value;
} weight;

/* job: -1: of all. */
static weight weigh(const mk_tune_problems *p, int job) {
  weight w = {0};
  for (int i = 0; i < p->count; i++) {
    if (p->items[i].done || (job >= 0 && p->items[i].job != job)) continue;
    w.count++;
    w.value += p->items[i].value;
  }
  return w;
}

static double share(weight part, weight whole, double seconds) {
  if (!whole.count || seconds <= 0) return 0;
  double by_count = (double)part.count / whole.count, by_value = whole.value > 0 ? part.value / whole.value : by_count;
  return seconds * (equal_part * by_count + (1 - equal_part) * by_value);
}

double mk_tune_share(const mk_tune_problems *p, int i, double seconds) {
  return share((weight){1, p->items[i].value}, weigh(p, p->items[i].job), seconds);
}

double mk_tune_job_share(const mk_tune_problems *p, int job, double seconds) {
  return share(weigh(p, job), weigh(p, -1), seconds);
}

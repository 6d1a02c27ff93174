#include "runtime/gpu/tune.h"

#include <string.h>
#include <time.h>

#include "runtime/base/env.h"
#include "runtime/base/log.h"
#include "runtime/gpu/tune_group.h"

static const double save_seconds = 5;     /* what a killed process loses at most */
static const double compile_share = 0.75; /* of the budget: what is compiled late would not be measured any more */
enum { KERNELS_PER_WORKER = 4 };          /* compiled at a time, so that measuring begins soon */

typedef struct tuner {
  mk_gpu_device *d;
  mk_tuning *tuning;
  const mk_tune_job *jobs;
  const mk_tune_options *o;
  mk_tune_report *report;
  mk_tune_problems problems;
  mk_arena arena;
  mk_tune_bench bench;
  mk_gpu_block spaces[MK_SPACE_COUNT]; /* of the job at hand; SCRATCH stays empty: it is the device's */
  int job;                             /* -1: none */
  mk_records fresh;
  double start, saved;
  int at; /* the problem at hand */
} tuner;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double spent(const tuner *t) { return now() - t->start; }

/* ---- telling and saving */

static bool tell(tuner *t, const char *group, const char *best, double best_ms) {
  double seconds = spent(t), value = 0, done = 0;
  for (int i = 0; i < t->problems.count; i++) {
    value += t->problems.items[i].value;
    if (i < t->at) done += t->problems.items[i].value;
  }
  /* Measuring goes by value, compiling by number. */
  double left = t->o->seconds - seconds, likely = done > 0 ? seconds * (value - done) / done : left;
  double by_number = t->at > 0 ? seconds * (t->problems.count - t->at) / t->at : left;
  if (by_number > likely) likely = by_number;
  mk_tune_progress p = {.done = t->at,
                        .total = t->problems.count,
                        .group = group,
                        .best = best,
                        .best_ms = best_ms,
                        .seconds = seconds,
                        .left = likely < left ? likely
                                : left > 0    ? left
                                              : 0};
  if (t->o->progress && !t->o->progress(t->o->user, &p)) t->report->stopped = true;
  return !t->report->stopped;
}

static bool watch(void *user, const char *best, double best_ms) {
  tuner *t = user;
  return tell(t, t->problems.items[t->at].group->name, best, best_ms);
}

static bool while_compiling(void *user, const char *what, int64_t done, int64_t total) {
  tuner *t = user;
  (void)what, (void)done, (void)total;
  return tell(t, NULL, NULL, 0) && spent(t) < compile_share * t->o->seconds;
}

/* Records that cannot be written are used all the same. */
static void save(tuner *t) {
  mk_status why = {0};
  if (t->fresh.count && !mk_tuning_keep(t->tuning, &t->fresh, &why))
    mk_log(MK_LOG_WARNING, "tuning records were not saved: %s", why.message);
  mk_tune_environment e = t->fresh.environment;
  mk_records_free(&t->fresh);
  t->fresh.environment = e;
  t->saved = now();
}

/* ---- a job's kernels and memory */

static void leave_job(tuner *t) {
  if (t->job < 0) return;
  mk_gpu_wait(t->d, &(mk_status){0});
  mk_gpu_kernels_free(t->d, t->bench.kernels, t->bench.plan->nkernels);
  for (int i = 0; i < MK_SPACE_COUNT; i++) mk_gpu_block_free(t->d, &t->spaces[i]);
  t->job = -1;
}

static bool enter_job(tuner *t, int job, mk_status *st) {
  if (t->job == job) return true;
  leave_job(t);
  const mk_plan *plan = t->jobs[job].plan;
  mk_gpu_budget need = {0};
  mk_gpu_budget_add(&need, plan, true);
  t->bench.plan = plan;
  t->bench.kernels = MK_NEW_ARRAY(&t->arena, mk_gpu_kernel, plan->nkernels);
  t->job = job;
  if (!mk_gpu_budget_check(t->d, &need, plan->name, st)) return false;
  for (int i = 0; i < MK_SPACE_COUNT; i++) {
    if (i != MK_SPACE_SCRATCH && !mk_gpu_block_alloc(t->d, &t->spaces[i], plan->space_bytes[i], "tuning", st)) return false;
    t->bench.spaces.base[i] = t->spaces[i].ptr;
  }
  if (!mk_gpu_scratch_reserve(t->d, plan->space_bytes[MK_SPACE_SCRATCH], st)) return false;
  t->bench.spaces.base[MK_SPACE_SCRATCH] = t->d->scratch.ptr;
  return true;
}

static int count_new(const tuner *t, const bool *wanted) {
  int n = 0;
  for (int i = 0; i < t->bench.plan->nkernels; i++) n += wanted[i] && t->bench.kernels[i].state == MK_GPU_KERNEL_NEW;
  return n;
}

/* What the problem at hand lacks, and on the way what the next ones will. */
static bool compile(tuner *t, mk_status *st) {
  const mk_plan *plan = t->bench.plan;
  bool *wanted = MK_NEW_ARRAY(&t->arena, bool, plan->nkernels);
  mk_tune_wanted(plan, t->problems.items[t->at].group, wanted);
  if (!count_new(t, wanted)) return true;
  int enough = KERNELS_PER_WORKER * mk_env_get()->worker_count;
  for (int i = t->at + 1; i < t->problems.count && t->problems.items[i].job == t->job && count_new(t, wanted) < enough; i++)
    mk_tune_wanted(plan, t->problems.items[i].group, wanted);
  return mk_gpu_kernels_load(t->d, plan->kernels, plan->nkernels, wanted, t->bench.kernels, &t->arena, while_compiling, t, st);
}

/* ---- the whole */

/* False with the status set when nothing can be done at all; t->report->stopped or the budget end the loop otherwise. */
static bool measure(tuner *t, mk_status *st) {
  const mk_tune_problem *p = &t->problems.items[t->at];
  mk_arena arena = {0};
  mk_record record;
  mk_status why = {0};
  bool ok = mk_tune_group(&t->bench, p->group, mk_tune_share(&t->problems, t->at, t->o->seconds - spent(t)), watch, t, &arena,
                          &record, &t->report->excluded, &why);
  if (ok) {
    t->report->measured++;
    const char *first = p->group->candidates[0].label;
    t->report->changed += strncmp(record.entries[0].label, first, strlen(first)) != 0;
    mk_records_add(&t->fresh, &record);
    if (now() - t->saved > save_seconds) save(t);
  } else if (mk_failed(&why) && mk_gpu_wait(t->d, &(mk_status){0})) {
    mk_log(MK_LOG_WARNING, "tuning: %s keeps its order: %s", p->group->name, why.message);
  } else if (mk_failed(&why)) {
    *st = why; /* the device is lost */
  }
  mk_arena_free(&arena);
  return !mk_failed(st);
}

static bool run(tuner *t, mk_status *st) {
  for (t->at = 0; t->at < t->problems.count; t->at++) {
    mk_status why = {0};
    if (!tell(t, NULL, NULL, 0) || spent(t) > t->o->seconds) return true;
    if (!enter_job(t, t->problems.items[t->at].job, st)) return false;
    if (!compile(t, &why)) return why.code == MK_EINTERRUPTED ? true : (*st = why, false);
    if (!tell(t, t->problems.items[t->at].group->name, NULL, 0)) return true;
    if (!measure(t, st)) return false;
    if (t->report->stopped) return true;
  }
  tell(t, NULL, NULL, 0);
  return true;
}

bool mk_tune(mk_gpu_device *d, mk_tuning *tuning, const mk_tune_job *jobs, int count, const mk_tune_options *o,
             mk_tune_report *report, mk_status *st) {
  tuner t = {.d = d, .tuning = tuning, .jobs = jobs, .o = o, .report = report, .job = -1, .start = now(), .saved = now()};
  *report = (mk_tune_report){0};
  t.problems = mk_tune_problems_of(tuning, jobs, count, o, &t.arena);
  t.fresh.environment = tuning->user.environment;
  report->problems = t.problems.count + t.problems.known;
  report->known = t.problems.known;
  bool ok = !t.problems.count || (mk_gpu_enter(d, st) && mk_tune_bench_open(&t.bench, d, st) && run(&t, st));
  if (!ok) mk_fail_context(st, "tuning");
  save(&t);
  leave_job(&t);
  mk_tune_bench_close(&t.bench);
  for (int i = 0; i < count; i++)
    if (jobs[i].plan) mk_tuning_apply(tuning, d, jobs[i].plan);
  report->unreached = t.problems.count - report->measured;
  report->seconds = spent(&t);
  mk_records_free(&t.fresh);
  mk_arena_free(&t.arena);
  return ok;
}

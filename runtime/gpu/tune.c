#include "runtime/gpu/tune.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/env.h"
#include "runtime/base/log.h"
#include "runtime/gpu/tune_group.h"
#include "runtime/gpu/tune_trial.h"

static const double save_seconds = 5;     /* what a killed process loses at most */
static const double contest_share = 0.65; /* of a visit, compiling included; the rest is for whole runs */
static const double worth_a_visit = 1;    /* seconds */
static const double close_enough = 1.01;
enum { KERNELS_PER_WORKER = 4 }; /* compiled at a time, so that measuring begins soon */

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
  mk_records fresh, earlier;           /* earlier: the user's when it began */
  double start, saved;                 /* when it began, saved */
  double contests_end, visit_end;      /* of the visit at hand, in seconds from the start */
  int at, done;                        /* the problem at hand; how many are done */
  mk_arena results;                    /* of the job at hand: */
  mk_tune_change *changes;             /* what is to be seen in whole runs */
  int nchanges, changes_cap;
} tuner;

static double spent(const tuner *t) { return mk_now() - t->start; }

/* ---- telling and saving */

static bool tell(tuner *t, const char *group, const char *best, double best_ms) {
  double seconds = spent(t), value = 0, done = 0;
  for (int i = 0; i < t->problems.count; i++) {
    value += t->problems.items[i].value;
    if (t->problems.items[i].done) done += t->problems.items[i].value;
  }
  /* Measuring goes by value, compiling by number. */
  double left = t->o->seconds - seconds, likely = done > 0 ? seconds * (value - done) / done : left;
  double by_number = t->done > 0 ? seconds * (t->problems.count - t->done) / t->done : left;
  if (by_number > likely) likely = by_number;
  mk_tune_progress p = {.done = t->done,
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
  return tell(t, NULL, NULL, 0) && spent(t) < t->contests_end;
}

/* Records that cannot be written are used all the same. */
static void save(tuner *t) {
  mk_status why = {0};
  if (t->fresh.count && !mk_tuning_keep(t->tuning, &t->fresh, &why))
    mk_log(MK_LOG_WARNING, "tuning records were not saved: %s", why.message);
  mk_tune_environment e = t->fresh.environment;
  mk_records_free(&t->fresh);
  t->fresh.environment = e;
  t->saved = mk_now();
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
    if (!t->problems.items[i].done) mk_tune_wanted(plan, t->problems.items[i].group, wanted);
  return mk_gpu_kernels_load(t->d, plan->kernels, plan->nkernels, wanted, NULL, t->bench.kernels, &t->arena, while_compiling, t,
                             st);
}

/* ---- what was measured */

/* Counts how far the winner is the one of an earlier record. */
static void compare(tuner *t, const mk_record *r) {
  const mk_record *before = mk_records_nearest(&t->earlier, r->signature, r->flop, r->bytes, NULL, NULL);
  if (!before || !mk_record_is_measured(before) || mk_record_distance(before, r->flop, r->bytes)) return;
  for (int i = 0; i < r->count; i++) {
    const mk_record_entry *e = &r->entries[i];
    if (strcmp(e->label, before->entries[0].label) != 0) continue;
    t->report->compared++;
    t->report->same += i == 0;
    t->report->close += i > 0 && e->ms >= 0 && e->ms <= close_enough * r->entries[0].ms;
  }
}

static void keep(tuner *t, const mk_record *r) {
  compare(t, r);
  mk_records_add(&t->fresh, r);
  t->report->measured++;
}

/* The record with the change, or with what an untuned run has. Its entries are in the arena of results. */
static mk_record settled(tuner *t, const mk_tune_change *c, bool kept) {
  mk_record r = *c->record;
  mk_record_entry *entries = MK_NEW_ARRAY(&t->results, mk_record_entry, r.count);
  memcpy(entries, r.entries, sizeof *entries * (size_t)r.count);
  entries[0].state = kept ? MK_RUNNER_KEPT : MK_RUNNER_ALONE;
  if (!kept) {
    mk_record_entry usual = entries[c->usual];
    memmove(entries + 1, entries, sizeof *entries * (size_t)c->usual);
    usual.state = MK_RUNNER_BEST;
    entries[0] = usual;
  }
  r.entries = entries;
  return r;
}

/* The budget's end ends whole runs, too: what they have not judged by then is measured again by the next tuning. */
static bool between_laps(void *user) {
  tuner *t = user;
  return tell(t, "whole runs", NULL, 0) && spent(t) < t->o->seconds;
}

/* Sees in whole runs which changes are worth it. A change that cannot be tried is none. */
static void try_changes(tuner *t) {
  mk_plan *plan = t->jobs[t->job].plan;
  mk_status why = {0};
  mk_tune_whole whole;
  mk_records without = {0};
  leave_job(t);
  mk_tune_bench_close(&t->bench); /* for its memory */
  save(t);
  for (int i = 0; i < t->nchanges; i++) {
    mk_record r = settled(t, &t->changes[i], false);
    mk_records_add(&without, &r);
  }
  mk_records_merge(&t->tuning->user, &without); /* until the verdict, and not on disk */
  mk_records_free(&without);
  mk_tuning_apply(t->tuning, plan);
  bool ok = between_laps(t) &&
            mk_tune_trial(t->d, plan, t->changes, t->nchanges, t->visit_end - spent(t), between_laps, t, &whole, &why);
  if (!ok && (t->report->stopped || spent(t) >= t->o->seconds)) return;
  if (!ok) mk_log(MK_LOG_WARNING, "tuning: %s cannot be run as a whole, and keeps its order: %s", plan->name, why.message);
  mk_tune_verdict v = {.changed = t->nchanges, .ratio = ok ? whole.ratio : 1, .error = ok ? whole.error : 0};
  snprintf(v.plan, sizeof v.plan, "%s", plan->name);
  for (int i = 0; i < t->nchanges; i++) {
    mk_record r = settled(t, &t->changes[i], ok && t->changes[i].kept);
    v.kept += ok && t->changes[i].kept;
    keep(t, &r);
  }
  t->report->kept += v.kept;
  if (t->report->ntrials < MK_TUNE_JOBS_MAX) t->report->trials[t->report->ntrials++] = v;
  save(t);
}

static void end_visit(tuner *t) {
  if (t->nchanges && !t->report->stopped) try_changes(t);
  leave_job(t);
  mk_arena_free(&t->results);
  t->changes = NULL;
  t->nchanges = t->changes_cap = 0;
}

/* ---- the whole */

/* The problem at hand. False with the status set when nothing can be done any more. */
static bool measure(tuner *t, mk_status *st) {
  mk_tune_problem *p = &t->problems.items[t->at];
  mk_tune_result result;
  mk_status why = {0};
  double seconds = mk_tune_share(&t->problems, t->at, t->contests_end - spent(t));
  bool ok = mk_tune_group(&t->bench, p->group, seconds, watch, t, &t->results, &result, &t->report->excluded, &why);
  p->done = !t->report->stopped;
  t->done += p->done;
  if (ok && !result.usual) {
    keep(t, &result.record);
    if (mk_now() - t->saved > save_seconds) save(t);
  } else if (ok) {
    mk_record *record = MK_NEW(&t->results, mk_record);
    *record = result.record;
    mk_tune_change change = {.record = record, .usual = result.usual};
    MK_PUSH(&t->results, t->changes, t->nchanges, t->changes_cap, change);
    t->report->changed++;
  } else if (mk_failed(&why) && mk_gpu_wait(t->d, &(mk_status){0})) {
    mk_log(MK_LOG_WARNING, "tuning: %s keeps its order: %s", p->group->name, why.message);
  } else if (mk_failed(&why)) {
    *st = why; /* the device is lost */
  }
  return !mk_failed(st);
}

/* Contests of a job's problems, until it has had its part of the time left. t->report->stopped: by the user. */
static bool visit(tuner *t, int job, mk_status *st) {
  double begun = spent(t), seconds = mk_tune_job_share(&t->problems, job, t->o->seconds - begun);
  t->contests_end = begun + contest_share * seconds;
  t->visit_end = begun + seconds;
  for (t->at = 0; t->at < t->problems.count; t->at++) {
    const mk_tune_problem *p = &t->problems.items[t->at];
    mk_status why = {0};
    if (p->job != job || p->done) continue;
    if (!tell(t, NULL, NULL, 0) || spent(t) > t->contests_end) break;
    if (!t->bench.d && !mk_tune_bench_open(&t->bench, t->d, st)) return false;
    if (!enter_job(t, job, st)) return false;
    if (!compile(t, &why)) return why.code == MK_EINTERRUPTED ? true : (*st = why, false);
    if (!tell(t, p->group->name, NULL, 0)) break;
    if (!measure(t, st)) return false;
    if (t->report->stopped) break;
  }
  return true;
}

/* Visits the jobs in turn until all is done or the time is up: what one leaves of its part, another gets in the next round. */
static bool run(tuner *t, mk_status *st) {
  for (int i = 0; t->done < t->problems.count && t->o->seconds - spent(t) > worth_a_visit; i = (i + 1) % t->problems.count) {
    if (t->problems.items[i].done) continue;
    if (!visit(t, t->problems.items[i].job, st)) return false;
    end_visit(t);
    if (t->report->stopped) break;
    while (i + 1 < t->problems.count && t->problems.items[i + 1].job == t->problems.items[i].job) i++;
  }
  return true;
}

bool mk_tune(mk_gpu_device *d, mk_tuning *tuning, const mk_tune_job *jobs, int count, const mk_tune_options *o,
             mk_tune_report *report, mk_status *st) {
  tuner t = {.d = d, .tuning = tuning, .jobs = jobs, .o = o, .report = report, .job = -1, .start = mk_now(), .saved = mk_now()};
  *report = (mk_tune_report){0};
  t.problems = mk_tune_problems_of(tuning, jobs, count, o, &t.arena);
  t.fresh.environment = tuning->user.environment;
  mk_records_merge(&t.earlier, &tuning->user);
  report->problems = t.problems.count + t.problems.known;
  report->known = t.problems.known;
  bool ok = !t.problems.count || (mk_gpu_enter(d, st) && run(&t, st));
  if (ok && !report->stopped) tell(&t, NULL, NULL, 0);
  if (!ok) mk_fail_context(st, "tuning");
  save(&t);
  leave_job(&t);
  mk_tune_bench_close(&t.bench);
  for (int i = 0; i < count; i++)
    if (jobs[i].plan) mk_tuning_apply(tuning, jobs[i].plan);
  report->unreached = t.problems.count - report->measured;
  report->seconds = spent(&t);
  mk_records_free(&t.fresh);
  mk_records_free(&t.earlier);
  mk_arena_free(&t.results);
  mk_arena_free(&t.arena);
  return ok;
}

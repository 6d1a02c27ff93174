#include "runtime/gpu/tune_group.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/base/text.h"

enum { HEATS = 2 /* rounds of short samples; those that follow are as long as there is time for */ };
static const double heat_ms = 2, final_ms = 30; /* a sample: runs that take about this long, with what is between them */
static const double short_ms = 2;               /* runs that are shorter have other work before them */
static const double far_behind = 4;             /* times the best first run: not worth another one */
static const double settle_ms = 8; /* of other work before a sample of long runs: one that draws less power leaves a high clock */
static const double pause = 0.05;  /* seconds */

typedef struct variant { /* a runner: a candidate, and for the library one of its algorithms */
  int candidate;
  mk_gpu_launch *lt; /* NULL: no library launch in it */
  int algorithm;
  mk_gpu_group *group; /* its launches; shared by the variants of a candidate; NULL: they cannot be made */
} variant;

typedef struct trial {
  mk_tune_bench *b;
  const mk_group *g, *own; /* own: without the work of the group before */
  mk_contest contest;
  variant variants[MK_CONTEST_MAX];
  mk_gpu_group *groups; /* per candidate */
  double run_ms;        /* about what the better ones take */
  mk_arena *arena;
} trial;

/* ---- setting up */

bool mk_tune_bench_open(mk_tune_bench *b, mk_gpu_device *d, mk_status *st) {
  b->d = d;
  for (int i = 0; i < 2 * MK_TUNE_ROUND_RUNS; i++)
    if (!MK_CU(d->cu, st, cuEventCreate(&b->events[i], CU_EVENT_DEFAULT))) return false;
  return mk_gpu_probe_open(&b->probe, d, st) && mk_gpu_filler_open(&b->filler, d, &b->probe.fill, st);
}

void mk_tune_bench_close(mk_tune_bench *b) {
  if (!b->d) return;
  for (int i = 0; i < 2 * MK_TUNE_ROUND_RUNS; i++)
    if (b->events[i]) b->d->cu->cuEventDestroy(b->events[i]);
  mk_gpu_filler_close(&b->filler);
  mk_gpu_probe_close(&b->probe);
  *b = (mk_tune_bench){0};
}

/* Where some candidates do the work of the group before, too, the others run behind that group's choice. */
static mk_group whole_work(const mk_group *g, mk_arena *arena) {
  mk_group whole = *g;
  if (!mk_group_may_cover(g)) return whole;
  const mk_candidate *before = &g[-1].candidates[g[-1].chosen];
  mk_candidate *all = MK_NEW_ARRAY(arena, mk_candidate, g->ncandidates);
  for (int c = 0; c < g->ncandidates; c++) {
    const mk_candidate *own = &g->candidates[c];
    all[c] = *own;
    if (own->covers) continue;
    mk_launch *launches = MK_NEW_ARRAY(arena, mk_launch, before->nlaunches + own->nlaunches);
    memcpy(launches, before->launches, sizeof *launches * (size_t)before->nlaunches);
    memcpy(launches + before->nlaunches, own->launches, sizeof *launches * (size_t)own->nlaunches);
    all[c].launches = launches;
    all[c].nlaunches += before->nlaunches;
    all[c].cost += before->cost;
  }
  whole.candidates = all;
  return whole;
}

/* The candidates as a contest that knows no more than the model's costs. */
static mk_contest contest_by_cost(const mk_group *g) {
  mk_contest c = {.count = g->ncandidates < MK_CONTEST_MAX ? g->ncandidates : MK_CONTEST_MAX};
  for (int i = 0; i < c.count; i++) {
    c.runners[i].cost = g->candidates[i].cost;
    c.runners[i].own = g->candidates[i].own;
  }
  mk_contest_begin(&c);
  return c;
}

void mk_tune_wanted(const mk_plan *plan, const mk_group *own, bool *wanted) {
  mk_arena arena = {0};
  const mk_group whole = whole_work(own, &arena), *g = &whole;
  const mk_contest c = contest_by_cost(g);
  for (int i = 0; i < c.count; i++)
    for (int k = 0; k < g->candidates[i].nlaunches && c.runners[i].state == MK_RUNNER_IN; k++)
      if (g->candidates[i].launches[k].kind == MK_LAUNCH_KERNEL && g->candidates[i].launches[k].kernel < plan->nkernels)
        wanted[g->candidates[i].launches[k].kernel] = true;
  mk_arena_free(&arena);
}

/* Of what a candidate runs, as far as it is known; 0 for the library. */
static uint64_t run_hash(const mk_tune_bench *b, const mk_candidate *c) {
  uint64_t hash = 0;
  for (int i = 0; i < c->nlaunches; i++) {
    const mk_launch *l = &c->launches[i];
    if (l->kind == MK_LAUNCH_LT) return 0;
    uint64_t code = l->kind == MK_LAUNCH_KERNEL ? b->kernels[l->kernel].code : (uint64_t)l->kind;
    mk_piece pieces[] = {{&hash, sizeof hash},
                         {&code, sizeof code},
                         {l->grid, sizeof l->grid},
                         {l->block, sizeof l->block},
                         {l->cluster, sizeof l->cluster},
                         {&l->smem, sizeof l->smem}};
    hash = mk_hash64_pieces(pieces, sizeof pieces / sizeof *pieces);
    for (int k = 0; k < l->nargs; k++) {
      mk_piece argument[] = {{&hash, sizeof hash}, {&l->args[k].i, sizeof l->args[k].i}};
      hash = mk_hash64_pieces(argument, 2);
    }
  }
  return hash;
}

static const char *why_broken(const mk_tune_bench *b, const mk_candidate *c) {
  for (int i = 0; i < c->nlaunches; i++) {
    const mk_launch *l = &c->launches[i];
    if (l->kind == MK_LAUNCH_KERNEL && b->kernels[l->kernel].state != MK_GPU_KERNEL_READY)
      return b->kernels[l->kernel].why ? b->kernels[l->kernel].why : "it was not compiled";
  }
  return NULL;
}

static void add_runner(trial *t, int candidate, mk_gpu_launch *lt, int algorithm, mk_runner_state state) {
  if (t->contest.count == MK_CONTEST_MAX) return;
  const mk_candidate *c = &t->g->candidates[candidate];
  char name[MK_GPU_LT_NAME] = "";
  mk_text label = {0};
  if (lt) mk_gpu_lt_name(t->b->d, &lt->lt, algorithm, name);
  mk_tuning_label(c->label, name, &label);
  t->variants[t->contest.count] = (variant){candidate, lt, algorithm, &t->groups[candidate]};
  t->contest.runners[t->contest.count++] = (mk_runner){.label = mk_strdup(t->arena, mk_text_str(&label)),
                                                       .cost = c->cost,
                                                       .own = c->own,
                                                       .code = state == MK_RUNNER_IN ? run_hash(t->b, c) : 0,
                                                       .error = -1,
                                                       .state = state};
  mk_text_free(&label);
}

static bool bind(trial *t, mk_gpu_group *g, mk_status *why) {
  for (int i = 0; i < g->nlaunches; i++)
    if (!mk_gpu_launch_bind(t->b->d, &g->launches[i], &t->b->spaces, why)) return false;
  return true;
}

static void add_candidate(trial *t, int candidate) {
  const mk_candidate *c = &t->g->candidates[candidate];
  mk_gpu_group *g = &t->groups[candidate];
  mk_status why = {0};
  const char *broken = why_broken(t->b, c);
  if (broken) mk_fail(&why, MK_ECOMPILE, "%s", broken);
  if (broken || !mk_gpu_group_make(t->b->d, t->b->plan, c, NULL, t->b->kernels, t->arena, g, &why) || !bind(t, g, &why)) {
    mk_log(MK_LOG_INFO, "tuning: %s: %s is out: %s", t->g->name, c->label, why.message);
    add_runner(t, candidate, NULL, 0, MK_RUNNER_BROKEN);
    return;
  }
  mk_gpu_launch *lt = mk_gpu_group_matmul(g);
  int algorithms = lt ? mk_gpu_lt_count(&lt->lt) : 1;
  for (int a = 0; a < algorithms; a++) add_runner(t, candidate, lt, a, MK_RUNNER_IN);
}

/* Those that the model holds hopeless have no kernels, and are listed all the same. */
static void add_candidates(trial *t) {
  const mk_contest model = contest_by_cost(t->g);
  for (int i = 0; i < model.count; i++) {
    if (model.runners[i].state == MK_RUNNER_IN)
      add_candidate(t, i);
    else
      add_runner(t, i, NULL, 0, model.runners[i].state);
  }
  mk_contest_begin(&t->contest);
}

/* ---- running */

static bool run(trial *t, int runner, mk_status *st) {
  const variant *v = &t->variants[runner];
  if (v->lt) v->lt->lt.algorithm = v->algorithm;
  for (int i = 0; i < v->group->nlaunches; i++)
    if (!mk_gpu_launch_run(t->b->d, &v->group->launches[i], st)) {
      mk_fail_context(st, "%s: %s", t->g->name, t->contest.runners[runner].label);
      return false;
    }
  return true;
}

static bool mark(trial *t, int event, mk_status *st) {
  return MK_CU(t->b->d->cu, st, cuEventRecord(t->b->events[event], t->b->d->stream));
}

static bool elapsed(trial *t, int event, double *ms, mk_status *st) {
  float f = 0;
  if (!MK_CU(t->b->d->cu, st, cuEventElapsedTime(&f, t->b->events[event], t->b->events[event + 1]))) return false;
  *ms = (double)f;
  return true;
}

/* The first run of a runner, on poisoned results. Its time is not a sample: code is loaded on the way. A launch that is refused
 * is the runner's end and no failure; what breaks the device is one. */
static bool first_run(trial *t, int runner, double *ms, mk_status *st) {
  mk_runner *r = &t->contest.runners[runner];
  const variant *v = &t->variants[runner];
  mk_status why = {0};
  if (!mk_gpu_probe_reset(&t->b->probe, true, st) || !mark(t, 0, st)) return false;
  bool ok = run(t, runner, &why);
  if (ok && v->lt && mk_gpu_lt_used(&v->lt->lt) != v->algorithm)
    ok = (mk_fail(&why, MK_EUNSUPPORTED, "the library refuses the algorithm"), false);
  if (!ok) {
    r->state = MK_RUNNER_BROKEN;
    mk_log(MK_LOG_INFO, "tuning: %s: %s is out: %s", t->g->name, r->label, why.message);
  }
  if (mark(t, 1, st) && mk_gpu_wait(t->b->d, st) && elapsed(t, 0, ms, st)) return true;
  mk_fail_context(st, "tuning: %s: %s", t->g->name, r->label);
  return false;
}

/* ---- correctness */

/* Rounding, and the order of sums, may differ; tf32 does the arithmetic of f32 tensors at most. */
static double bound_of(const mk_group *g) {
  bool full = true, row = !strcmp(g->kind, "row") || !strcmp(g->kind, "copy");
  for (int i = 0; i < g->nextents; i++) full &= mk_dtype_size(g->extents[i].dtype) == 4;
  return !full ? 2e-2 : row ? 1e-3 : 1e-2;
}

/* The one to hold the others against: the library where there is one, else the model's first. */
static int next_reference(const trial *t) {
  int any = -1;
  for (int i = 0; i < t->contest.count; i++) {
    if (t->contest.runners[i].state != MK_RUNNER_IN) continue;
    if (t->variants[i].lt) return i;
    if (any < 0) any = i;
  }
  return any;
}

/* Holds every runner against one of them; *agree: how many others do. */
static bool check_against(trial *t, int reference, int *agree, int *differ, mk_status *st) {
  double bound = bound_of(t->g), ms, least = INFINITY;
  *agree = *differ = 0;
  if (!first_run(t, reference, &least, st) || !mk_gpu_probe_keep(&t->b->probe, st)) return false;
  if (t->contest.runners[reference].state == MK_RUNNER_BROKEN) return true;
  t->contest.runners[reference].error = 0;
  for (int i = 0; i < t->contest.count; i++) {
    mk_runner *r = &t->contest.runners[i];
    double error, worst;
    if (i == reference || r->state != MK_RUNNER_IN) continue;
    if (!first_run(t, i, &ms, st)) return false;
    if (r->state != MK_RUNNER_IN) continue;
    if (!mk_gpu_probe_compare(&t->b->probe, &error, &worst, st)) return false;
    if (mk_contest_judge(&t->contest, i, error, worst, bound)) {
      ++*agree;
      if (ms > far_behind * least) r->state = MK_RUNNER_SLOW;
      least = fmin(least, ms);
    } else {
      ++*differ;
    }
  }
  t->run_ms = fmax(least, 1e-3);
  return true;
}

/* When nobody agrees with the reference and there are several others, it is the reference that is wrong. */
static bool check(trial *t, int *excluded, mk_status *st) {
  bool doubted[MK_CONTEST_MAX] = {false}, settled = false;
  for (int reference; !settled && (reference = next_reference(t)) >= 0;) {
    int agree, differ;
    if (!check_against(t, reference, &agree, &differ, st)) return false;
    mk_runner *runners = t->contest.runners;
    settled = runners[reference].state == MK_RUNNER_IN && (agree > 0 || differ < 2);
    if (settled || runners[reference].state != MK_RUNNER_IN) continue;
    for (int i = 0; i < t->contest.count; i++)
      if (runners[i].state == MK_RUNNER_WRONG && !doubted[i]) runners[i].state = MK_RUNNER_IN;
    doubted[reference] = true;
    runners[reference].state = MK_RUNNER_WRONG;
    runners[reference].error = INFINITY;
  }
  for (int i = 0; i < t->contest.count; i++) {
    const mk_runner *r = &t->contest.runners[i];
    if (r->state != MK_RUNNER_WRONG) continue;
    ++*excluded;
    mk_log(MK_LOG_WARNING, "tuning: %s: %s is excluded: its results differ from the reference's by %.1e, allowed are %.1e",
           t->g->name, r->label, r->error, bound_of(t->g));
  }
  return true;
}

/* ---- timing */

/* What the group reads and the one before has just written is in the L2 cache still, where it fits. */
static bool touch_fresh(trial *t, mk_status *st) {
  const mk_plan *plan = t->b->plan;
  const mk_group *first = t->own - mk_group_may_cover(t->own), *before = first - 1;
  for (int i = 0; first > plan->groups && i < t->g->nextents; i++) {
    const mk_extent *e = &t->g->extents[i];
    bool fresh = false;
    for (int k = 0; e->read && k < before->nextents; k++)
      fresh |= before->extents[k].written && before->extents[k].ref.space == e->ref.space &&
               before->extents[k].ref.offset == e->ref.offset;
    if (fresh && !mk_gpu_filler_touch(&t->b->filler, mk_gpu_address(&t->b->spaces, e->ref), e->bytes, st)) return false;
  }
  return true;
}

/* A run with what a network has before it: long ones fill the cache and set the clock by themselves. */
static bool timed_run(trial *t, int runner, int event, mk_status *st) {
  if (!mk_gpu_probe_reset(&t->b->probe, false, st)) return false;
  if (t->run_ms < short_ms && !(mk_gpu_filler_run(&t->b->filler, st) && touch_fresh(t, st))) return false;
  return mark(t, event, st) && run(t, runner, st) && mark(t, event + 1, st);
}

/* A run with what is before it. */
static double full_ms(const trial *t) { return t->run_ms + (t->run_ms < short_ms ? t->b->filler.ms : 0); }

/* How many runs of each of n runners make a round. */
static int repeats_of(const trial *t, int n, double seconds) {
  double ms = t->contest.rounds > HEATS ? fmin(final_ms, seconds * 1e3 / (n * MK_CONTEST_SAMPLES)) : heat_ms;
  return (int)fmax(1, fmin(ms / full_ms(t), (double)MK_TUNE_ROUND_RUNS / n));
}

static bool round_of(trial *t, const int *order, int n, int repeats, mk_status *st) {
  for (int i = 0; i < n * repeats; i++) {
    bool settle = i == 0 || (i % repeats == 0 && t->run_ms >= short_ms);
    for (double ms = 0; settle && ms < settle_ms; ms += t->b->filler.ms)
      if (!mk_gpu_filler_run(&t->b->filler, st)) return false;
    if (!timed_run(t, order[i / repeats], 2 * i, st)) return false;
  }
  if (!mk_gpu_wait(t->b->d, st)) return false;
  for (int i = 0; i < n; i++) {
    double sum = 0, ms;
    for (int k = 0; k < repeats; k++) {
      if (!elapsed(t, 2 * (i * repeats + k), &ms, st)) return false;
      sum += ms;
    }
    mk_contest_sample(&t->contest, order[i], sum / repeats);
  }
  return true;
}

static bool time_all(trial *t, double end, mk_tune_watch_fn watch, void *user, mk_status *st) {
  int order[MK_CONTEST_MAX], n;
  double cost = 1; /* of a round, to that of a run of each */
  bool complete;
  if (mk_now() - t->b->busy > pause && !mk_gpu_filler_settle(&t->b->filler, st)) return false;
  while ((n = mk_contest_round(&t->contest, (end - mk_now()) / cost, order)) > 0) {
    int repeats = repeats_of(t, n, end - mk_now());
    cost = repeats * full_ms(t) / t->run_ms;
    if (!round_of(t, order, n, repeats, st)) return false;
    t->b->busy = mk_now();
    int best = mk_contest_winner(&t->contest, &complete);
    if (best >= 0 && !watch(user, t->contest.runners[best].label, mk_contest_ms(&t->contest, best, best))) break;
  }
  return true;
}

/* ---- the record */

static int by_time(const void *a, const void *b) {
  const mk_record_entry *x = a, *y = b;
  if (x->state != y->state && (x->state == MK_RUNNER_BEST || y->state == MK_RUNNER_BEST))
    return x->state == MK_RUNNER_BEST ? -1 : 1;
  if ((x->ms < 0) != (y->ms < 0)) return x->ms < 0 ? 1 : -1;
  if (x->ms != y->ms) return x->ms < y->ms ? -1 : 1;
  return strcmp(x->label, y->label);
}

/* The runner that an untuned run has: the first that works. */
static int usual_of(const mk_contest *c) {
  int i = 0;
  while (i < c->count && c->runners[i].state != MK_RUNNER_IN && c->runners[i].state != MK_RUNNER_SLOW) i++;
  return i;
}

static void make_result(const trial *t, int winner, mk_tune_result *out) {
  char date[32];
  const char *usual = t->contest.runners[usual_of(&t->contest)].label;
  mk_record_date(date);
  mk_record_entry *entries = MK_NEW_ARRAY(t->arena, mk_record_entry, t->contest.count);
  for (int i = 0; i < t->contest.count; i++) {
    const mk_runner *r = &t->contest.runners[i];
    entries[i] = (mk_record_entry){.state = i == winner ? MK_RUNNER_BEST : r->state,
                                   .ms = r->samples ? mk_contest_ms(&t->contest, i, winner) : -1,
                                   .error = r->error,
                                   .code = mk_tuning_code(t->b->plan, &t->own->candidates[t->variants[i].candidate]),
                                   .label = r->label};
  }
  qsort(entries, (size_t)t->contest.count, sizeof *entries, by_time);
  out->record = (mk_record){.signature = t->g->signature,
                            .flop = mk_record_class(t->g->flop),
                            .bytes = mk_record_class(t->g->bytes),
                            .date = mk_strdup(t->arena, date),
                            .name = t->g->name,
                            .count = t->contest.count,
                            .entries = entries};
  out->usual = 0;
  while (strcmp(entries[out->usual].label, usual) != 0) out->usual++;
}

bool mk_tune_group(mk_tune_bench *b, const mk_group *own, double seconds, mk_tune_watch_fn watch, void *user, mk_arena *arena,
                   mk_tune_result *out, int *excluded, mk_status *st) {
  double end = mk_now() + seconds;
  const mk_group whole = whole_work(own, arena), *g = &whole;
  trial t = {
      .b = b, .g = g, .own = own, .run_ms = 1, .arena = arena, .groups = MK_NEW_ARRAY(arena, mk_gpu_group, g->ncandidates)};
  bool complete = false;
  add_candidates(&t);
  bool ok = mk_gpu_probe_begin(&b->probe, g, &b->spaces, st) && check(&t, excluded, st) && time_all(&t, end, watch, user, st);
  int winner = ok ? mk_contest_winner(&t.contest, &complete) : -1;
  if (ok && winner >= 0 && complete) make_result(&t, winner, out);
  for (int c = 0; c < g->ncandidates; c++) mk_gpu_group_free(b->d, &t.groups[c]);
  return ok && winner >= 0 && complete;
}

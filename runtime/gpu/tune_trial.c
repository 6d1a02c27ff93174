#include "runtime/gpu/tune_trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/gpu/tune_problems.h"

enum { MAX_REPEATS = 3, MIN_ROUNDS = 6, MAX_ROUNDS = MK_RATIO_ROUNDS };
static const double lap_seconds = 0.4; /* beyond, a kind of group runs less often */
static const double confirmed = 0.995; /* a change's ratio in whole runs, midway from a contest's 0.99 to nothing gained */
static const double slower = 1.001;    /* the ratio of whole runs with all that stay */
static const double change_errors = 3; /* standard errors by which a change has to be faster */
static const double whole_errors = 2;  /* by which the whole has to be slower to object: better a change lost than time */
static const double warm_seconds = 2;  /* a card that was idle is fast until it is warm, and favours what draws much power */

typedef struct choice { /* of a group, on one side */
  int candidate;
  mk_gpu_group launches;
} choice;

typedef struct spot { /* a group in a lap */
  int group, change;  /* change: -1: it is the same on both sides */
  choice sides[2];    /* without, with */
  bool joined;        /* on some side it does the work of the spot before, too: both are timed together */
  bool after_group;   /* the spot before is the group before */
} spot;

typedef struct course { /* what is run again and again */
  mk_gpu_session *s;
  const mk_plan *plan;
  mk_tune_change *changes;
  int nchanges;
  bool *active; /* changes that the side with them has */
  spot *spots;
  int count;
  CUevent *events; /* one before the first spot, one after each */
  double *ms[2];   /* per side: a row of MAX_ROUNDS for each change, and the last for the whole lap */
  int rounds;
  double end;
  bool warm;
  mk_tune_tick_fn tick;
  void *user;
  mk_arena arena;
} course;

/* ---- which groups */

static int change_of(const course *c, const mk_group *g) {
  for (int i = 0; i < c->nchanges; i++) {
    const mk_record *r = c->changes[i].record;
    if (r->signature == g->signature && r->flop == mk_record_class(g->flop) && r->bytes == mk_record_class(g->bytes) &&
        mk_tuning_candidate(c->plan, g, &r->entries[0]) >= 0 &&
        mk_tuning_candidate(c->plan, g, &r->entries[c->changes[i].usual]) >= 0)
      return i;
  }
  return -1;
}

static bool is_changed(const course *c, const mk_program *p) {
  for (int i = 0; i < p->nsteps; i++)
    if (p->steps[i].kind == MK_STEP_GROUP && change_of(c, &c->plan->groups[p->steps[i].index]) >= 0) return true;
  return false;
}

static double add_spot(course *c, int group, bool after_group) {
  const mk_group *g = &c->plan->groups[group];
  c->spots[c->count++] = (spot){.group = group, .change = change_of(c, g), .after_group = after_group};
  return g->candidates[0].cost;
}

/* Adds the program's groups, each kind at most so often; returns the model's seconds for them. */
static double add_spots(course *c, const mk_program *p, int repeats) {
  double seconds = 0;
  int first = c->count, last = -1; /* step added last */
  for (int i = 0; i < p->nsteps; i++) {
    int g = p->steps[i].index, before = 0;
    if (p->steps[i].kind != MK_STEP_GROUP) continue;
    const mk_group *group = &c->plan->groups[g];
    for (int k = first; k < c->count; k++) before += mk_tune_same_problem(&c->plan->groups[c->spots[k].group], group);
    if (before >= repeats) continue;
    if (mk_group_may_cover(group) && last < i - 1) { /* its work may be done on one side only */
      seconds += add_spot(c, g - 1, false);
      last = i - 1;
    }
    seconds += add_spot(c, g, last >= 0 && last == i - 1 && p->steps[last].index == g - 1);
    last = i;
  }
  return seconds;
}

static void choose_spots(course *c) {
  double seconds = INFINITY;
  c->spots = MK_NEW_ARRAY(&c->arena, spot, c->plan->ngroups);
  for (int repeats = MAX_REPEATS; repeats > 0 && seconds > lap_seconds; repeats--) {
    seconds = c->count = 0;
    for (int i = 0; i < c->plan->nprograms; i++) {
      const mk_program *p = &c->plan->programs[i];
      if (p->rate != MK_RATE_LOAD && is_changed(c, p)) seconds += add_spots(c, p, repeats);
    }
  }
}

/* ---- their launches */

static bool make_choice(course *c, int group, int candidate, const char *algorithm, choice *out, mk_status *st) {
  mk_gpu_device *d = c->s->d;
  const mk_candidate *chosen = &c->plan->groups[group].candidates[candidate];
  mk_gpu_spaces spaces;
  for (int i = 0; i < MK_SPACE_COUNT; i++) spaces.base[i] = c->s->spaces[i].ptr;
  spaces.base[MK_SPACE_SCRATCH] = d->scratch.ptr;
  out->candidate = candidate;
  if (!mk_gpu_group_make(d, c->plan, chosen, algorithm, c->s->kernels, &c->arena, &out->launches, st)) return false;
  for (int i = 0; i < out->launches.nlaunches; i++)
    if (!mk_gpu_launch_bind(d, &out->launches.launches[i], &spaces, st)) return false;
  return true;
}

static bool make_side(course *c, spot *s, int side, mk_status *st) {
  const mk_group *g = &c->plan->groups[s->group];
  int length, candidate = c->s->groups[s->group].chosen;
  const char *algorithm = g->algorithm;
  if (s->change >= 0) {
    const mk_tune_change *change = &c->changes[s->change];
    const mk_record_entry *e = &change->record->entries[side ? 0 : change->usual];
    candidate = mk_tuning_candidate(c->plan, g, e);
    mk_tuning_split(e->label, &length, &algorithm);
  }
  if (candidate >= 0) return make_choice(c, s->group, candidate, algorithm, &s->sides[side], st);
  mk_fail(st, MK_EUNSUPPORTED, "%s: what was measured is not in the plan", g->name);
  return false;
}

static bool make_spots(course *c, mk_status *st) {
  const mk_plan *plan = c->plan;
  bool *wanted = MK_NEW_ARRAY(&c->arena, bool, plan->nkernels);
  for (int i = 0; i < c->count; i++) {
    const mk_group *g = &plan->groups[c->spots[i].group];
    const mk_record *r = c->spots[i].change >= 0 ? c->changes[c->spots[i].change].record : NULL;
    const mk_candidate *with = r ? &g->candidates[mk_tuning_candidate(plan, g, &r->entries[0])] : NULL;
    for (int k = 0; with && k < with->nlaunches; k++)
      if (with->launches[k].kind == MK_LAUNCH_KERNEL) wanted[with->launches[k].kernel] = true;
  }
  if (!mk_gpu_kernels_load(c->s->d, plan->kernels, plan->nkernels, wanted, NULL, c->s->kernels, &c->arena, NULL, NULL, st))
    return false;
  for (int i = 0; i < c->count; i++) {
    spot *s = &c->spots[i];
    for (int side = 0; side < (s->change >= 0 ? 2 : 1); side++)
      if (!make_side(c, s, side, st)) return mk_fail_context(st, "%s", plan->groups[s->group].name), false;
    const mk_candidate *all = plan->groups[s->group].candidates;
    s->joined = s->after_group && (all[s->sides[0].candidate].covers || (s->change >= 0 && all[s->sides[1].candidate].covers));
  }
  return true;
}

/* ---- running */

static choice *side_of(const course *c, int i, bool with) {
  spot *s = &c->spots[i];
  return &s->sides[with && s->change >= 0 && c->active[s->change]];
}

static bool is_covered(const course *c, int i, bool with) {
  if (i + 1 == c->count || !c->spots[i + 1].after_group) return false;
  return c->plan->groups[c->spots[i + 1].group].candidates[side_of(c, i + 1, with)->candidate].covers;
}

static bool lap(course *c, bool with, mk_status *st) {
  mk_gpu_device *d = c->s->d;
  if (!MK_CU(d->cu, st, cuEventRecord(c->events[0], d->stream))) return false;
  for (int i = 0; i < c->count; i++) {
    choice *s = side_of(c, i, with);
    for (int k = 0; k < s->launches.nlaunches && !is_covered(c, i, with); k++)
      if (!mk_gpu_launch_run(d, &s->launches.launches[k], st)) return false;
    if (!MK_CU(d->cu, st, cuEventRecord(c->events[i + 1], d->stream))) return false;
  }
  return mk_gpu_wait(d, st);
}

static bool take_times(course *c, bool with, int round, mk_status *st) {
  const mk_driver *cu = c->s->d->cu;
  float ms;
  for (int k = 0; k <= c->nchanges; k++) c->ms[with][k * MAX_ROUNDS + round] = 0;
  for (int i = 0; i < c->count; i++) {
    const spot *s = &c->spots[i];
    if (s->change < 0) continue;
    if (!MK_CU(cu, st, cuEventElapsedTime(&ms, c->events[s->joined ? i - 1 : i], c->events[i + 1]))) return false;
    c->ms[with][s->change * MAX_ROUNDS + round] += (double)ms;
  }
  if (!MK_CU(cu, st, cuEventElapsedTime(&ms, c->events[0], c->events[c->count]))) return false;
  c->ms[with][c->nchanges * MAX_ROUNDS + round] = (double)ms;
  return true;
}

static bool goes_on(course *c, mk_status *st) {
  if (!c->tick(c->user)) mk_fail(st, MK_EINTERRUPTED, "stopped between whole runs");
  return !mk_failed(st);
}

/* *each: seconds of a lap. */
static bool warm_up(course *c, double seconds, double *each, mk_status *st) {
  double start = mk_now();
  int laps = 0;
  do {
    if (!lap(c, laps++ % 2, st) || !goes_on(c, st)) return false;
  } while (laps < 2 || (!c->warm && mk_now() - start < seconds));
  c->warm = true;
  *each = (mk_now() - start) / laps;
  return true;
}

/* Laps of both sides, there and back, for about so many seconds. Each has one before it in which the clock and the cache become
 * what they are with it. */
static bool hold(course *c, double seconds, mk_status *st) {
  double each, start = mk_now();
  if (!warm_up(c, fmin(warm_seconds, 0.3 * seconds), &each, st)) return false;
  int rounds = (int)((seconds - (mk_now() - start)) / (4 * fmax(each, 1e-6))) & ~1;
  c->rounds = rounds < MIN_ROUNDS ? MIN_ROUNDS : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
  for (int r = 0; r < c->rounds; r++) {
    for (int turn = 0; turn < 2; turn++) {
      bool with = turn != r % 2;
      if (!lap(c, with, st) || !lap(c, with, st) || !take_times(c, with, r, st)) return false;
    }
    if (!goes_on(c, st)) return false;
  }
  return true;
}

static double ratio_of(const course *c, int row, double *error) {
  return mk_paired_ratio(&c->ms[1][row * MAX_ROUNDS], &c->ms[0][row * MAX_ROUNDS], c->rounds, error);
}

/* ---- the verdict */

static double saved_ms(const course *c, int change) {
  double saved = 0;
  for (int r = 0; r < c->rounds; r++) saved += c->ms[0][change * MAX_ROUNDS + r] - c->ms[1][change * MAX_ROUNDS + r];
  return saved / c->rounds;
}

/* Each change by the times of its groups; returns how many are left. */
static int judge_changes(course *c) {
  int left = 0;
  for (int i = 0; i < c->nchanges; i++) {
    mk_tune_change *change = &c->changes[i];
    bool runs = c->ms[0][i * MAX_ROUNDS] > 0;
    change->ratio = runs ? ratio_of(c, i, &change->error) : 0;
    c->active[i] = runs && change->ratio < confirmed && change->ratio + change_errors * change->error < 1;
    left += c->active[i];
    mk_log(MK_LOG_INFO, "tuning: %s: %s instead of %s takes %.4f +- %.4f of its time in whole runs", change->record->name,
           change->record->entries[0].label, change->record->entries[change->usual].label, change->ratio, change->error);
  }
  return left;
}

/* The half that saves most stays; returns how many these are. */
static int halve(course *c, const double *saved, int left) {
  for (int out = (left + 1) / 2; out > 0; out--) {
    int least = -1;
    for (int i = 0; i < c->nchanges; i++)
      if (c->active[i] && (least < 0 || saved[i] < saved[least])) least = i;
    c->active[least] = false;
  }
  return left / 2;
}

/* The changes that are left are kept unless they make the whole slower; then the better half of them is tried, and so on. */
static bool judge(course *c, mk_tune_whole *out, mk_status *st) {
  double *saved = MK_NEW_ARRAY(&c->arena, double, c->nchanges);
  for (int i = 0; i < c->nchanges; i++) c->active[i] = true;
  if (!hold(c, 0.5 * (c->end - mk_now()), st)) return false;
  int left = judge_changes(c);
  bool again = left < c->nchanges; /* else the laps of all changes are those */
  for (int i = 0; i < c->nchanges; i++) saved[i] = saved_ms(c, i);
  while (left) {
    if (again && !hold(c, 0.6 * (c->end - mk_now()), st)) return false;
    out->ratio = ratio_of(c, c->nchanges, &out->error);
    if (out->ratio <= slower || out->ratio - whole_errors * out->error <= 1) break;
    left = mk_now() < c->end ? halve(c, saved, left) : 0;
    again = true;
  }
  if (!left) out->ratio = 1, out->error = 0;
  for (int i = 0; i < c->nchanges; i++) c->changes[i].kept = left && c->active[i];
  return true;
}

/* ---- a session to run in */

/* Integers are indices and lengths: what is valid for them, the groups that read them know. */
static bool write_integers(mk_gpu_session *s, const mk_binding *b, CUdeviceptr to, mk_status *st) {
  int32_t value = 0;
  for (int g = 0; g < s->plan->ngroups; g++)
    for (int i = 0; i < s->plan->groups[g].nextents; i++) {
      const mk_extent *e = &s->plan->groups[g].extents[i];
      if (e->read && e->dtype == MK_I32 && e->ref.space == b->ref.space && e->ref.offset == b->ref.offset) value = e->integer;
    }
  return MK_CU(s->d->cu, st, cuMemsetD32Async(to, (unsigned)value, (size_t)b->bytes / 4, s->d->stream));
}

static bool fill_session(mk_gpu_session *s, mk_status *st) {
  const mk_source source = {.synthetic_seed = 1};
  if (!s->base.ops->load(&s->base, &source, NULL, NULL, st)) return false;
  for (int i = 0; i < s->plan->ninputs; i++) {
    const mk_binding *b = &s->plan->inputs[i];
    CUdeviceptr to = s->spaces[b->ref.space].ptr + (CUdeviceptr)b->ref.offset;
    if (!(b->dtype == MK_I32 ? write_integers(s, b, to, st) : mk_gpu_fill_synthetic(s->d, &s->fill, b, to, 1, st))) return false;
  }
  for (int i = 0; i < s->plan->nprograms; i++)
    if (s->plan->programs[i].rate == MK_RATE_PROMPT && !mk_gpu_run_program(s, &s->programs[i], st)) return false;
  return mk_gpu_wait(s->d, st);
}

static bool make_events(course *c, mk_status *st) {
  c->events = MK_NEW_ARRAY(&c->arena, CUevent, c->count + 1);
  for (int i = 0; i <= c->count; i++)
    if (!MK_CU(c->s->d->cu, st, cuEventCreate(&c->events[i], CU_EVENT_DEFAULT))) return false;
  return true;
}

static void close_course(course *c) {
  mk_gpu_device *d = c->s->d;
  mk_gpu_wait(d, &(mk_status){0});
  for (int i = 0; i < c->count; i++)
    for (int side = 0; side < 2; side++) mk_gpu_group_free(d, &c->spots[i].sides[side].launches);
  for (int i = 0; c->events && i <= c->count; i++)
    if (c->events[i]) d->cu->cuEventDestroy(c->events[i]);
  c->s->base.ops->close(&c->s->base);
}

bool mk_tune_trial(mk_gpu_device *d, const mk_plan *plan, mk_tune_change *changes, int count, double seconds,
                   mk_tune_tick_fn tick, void *user, mk_tune_whole *out, mk_status *st) {
  course c = {.plan = plan, .changes = changes, .nchanges = count, .tick = tick, .user = user};
  *out = (mk_tune_whole){.ratio = 1};
  mk_session *s = mk_gpu_session_open(d, plan, NULL, st);
  if (!s) return false;
  c.s = (mk_gpu_session *)s;
  c.active = MK_NEW_ARRAY(&c.arena, bool, count);
  for (int side = 0; side < 2; side++) c.ms[side] = MK_NEW_ARRAY(&c.arena, double, (count + 1) * MAX_ROUNDS);
  choose_spots(&c);
  bool ok = fill_session(c.s, st) && make_spots(&c, st) && make_events(&c, st);
  c.end = mk_now() + seconds;
  ok = ok && judge(&c, out, st);
  close_course(&c);
  mk_arena_free(&c.arena);
  return ok;
}

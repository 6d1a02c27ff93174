#include "runtime/cli/variants.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/hash.h"
#include "runtime/cli/job.h"
#include "runtime/cli/made_up.h"
#include "runtime/cpu/session.h"
#include "runtime/gpu/kernels.h"
#include "runtime/gpu/session.h"

/* What the CPU backend does in a few seconds. Beyond it, errors are taken against the plan's own choices. */
static const double CPU_FLOP = 5e10, CPU_BYTES = 2e9;
static const int64_t CPU_WEIGHT_BYTES = (int64_t)1 << 30;
/* An error that no rounding makes. */
static const double WRONG = 0.05;

typedef struct group_class { /* groups of the entry that are alike */
  int group;                 /* the first of them */
  int calls;
  int ordinal;
  int variant;    /* index of its first candidate's */
  bool may_cover; /* some candidates do the work of the group before, too: the others are timed with that group */
} group_class;

typedef struct trial {
  mk_job job;
  const mk_measure *m;
  mk_variants *v;
  mk_made_up made_up;
  int nclasses, classes_cap;
  group_class *classes;
  int noutputs; /* of the entry */
  const mk_binding **outputs;
  float **expected; /* per output; NULL: nothing yet */
  int *class_of;    /* per group of the plan; -1: not the entry's */
} trial;

/* ---- classes */

static bool alike(const mk_plan *p, int a, int b) {
  const mk_group *x = &p->groups[a], *y = &p->groups[b];
  if (strcmp(x->kind, y->kind) != 0 || x->flop != y->flop || x->bytes != y->bytes || x->ncandidates != y->ncandidates)
    return false;
  for (int c = 0; c < x->ncandidates; c++) {
    const mk_candidate *i = &x->candidates[c], *k = &y->candidates[c];
    if (strcmp(i->label, k->label) != 0 || i->nlaunches != k->nlaunches) return false;
    for (int l = 0; l < i->nlaunches; l++)
      if (i->launches[l].kind != k->launches[l].kind || i->launches[l].kernel != k->launches[l].kernel) return false;
  }
  return true;
}

static uint64_t code_of(const mk_plan *p, const mk_candidate *c) {
  uint64_t code = mk_hash64(c->label, strlen(c->label));
  for (int i = 0; i < c->nlaunches; i++)
    if (c->launches[i].kind == MK_LAUNCH_KERNEL) {
      const char *source = p->kernels[c->launches[i].kernel].source;
      code = code * 31 + mk_hash64(source, strlen(source));
    }
  return code;
}

static void add_variants(trial *t, const group_class *k) {
  mk_variants *v = t->v;
  const mk_group *g = &t->job.plan->groups[k->group];
  for (int c = 0; c < g->ncandidates; c++) {
    mk_variant one = {.kind = mk_strdup(&v->arena, g->kind),
                      .group = mk_strdup(&v->arena, g->name),
                      .ordinal = k->ordinal,
                      .label = mk_strdup(&v->arena, g->candidates[c].label),
                      .calls = k->calls,
                      .first = c == g->chosen,
                      .code = code_of(t->job.plan, &g->candidates[c]),
                      .registers = -1,
                      .flop = g->flop,
                      .bytes = g->bytes,
                      .ms = -1};
    MK_PUSH(&v->arena, v->items, v->n, v->cap, one);
  }
}

static void find_classes(trial *t) {
  const mk_plan *p = t->job.plan;
  t->class_of = MK_NEW_ARRAY(&t->job.arena, int, p->ngroups);
  for (int g = 0; g < p->ngroups; g++) t->class_of[g] = -1;
  for (int s = 0; s < t->job.entry->nsteps; s++) {
    if (t->job.entry->steps[s].kind != MK_STEP_GROUP) continue;
    int group = t->job.entry->steps[s].index, k = 0, ordinal = 0;
    while (k < t->nclasses && !alike(p, t->classes[k].group, group)) k++;
    for (int i = 0; i < t->nclasses; i++) ordinal += !strcmp(p->groups[t->classes[i].group].kind, p->groups[group].kind);
    group_class fresh = {.group = group, .ordinal = ordinal, .may_cover = mk_group_may_cover(&p->groups[group])};
    if (k == t->nclasses) MK_PUSH(&t->job.arena, t->classes, t->nclasses, t->classes_cap, fresh);
    t->classes[k].calls++;
    t->class_of[group] = k;
  }
  for (int k = 0; k < t->nclasses; k++) {
    t->classes[k].variant = t->v->n;
    add_variants(t, &t->classes[k]);
  }
}

/* ---- compiling */

static void note_cubin(trial *t, mk_variant *v, const mk_launch *l, const mk_cubin *cubin) {
  if (cubin->state == MK_CUBIN_FAILED) {
    v->message = mk_strdup(&t->v->arena, cubin->message ? cubin->message : "it does not compile");
    return;
  }
  int smem = cubin->report.smem_bytes + (int)l->smem;
  if (cubin->report.registers > v->registers) v->registers = cubin->report.registers;
  if (smem > v->smem_bytes) v->smem_bytes = smem;
  if (cubin->report.spill_bytes > v->spill_bytes) v->spill_bytes = cubin->report.spill_bytes;
}

static bool compile_all(trial *t, mk_status *st) {
  mk_plan *p = t->job.plan;
  mk_gpu_device *d = t->job.device;
  bool *wanted = MK_NEW_ARRAY(&t->job.arena, bool, p->nkernels);
  mk_cache own;
  mk_prepared done = {0};
  if (!d) mk_cache_open(&own, NULL);
  for (int k = 0; k < t->nclasses; k++) {
    const mk_group *g = &p->groups[t->classes[k].group];
    for (int c = 0; c < g->ncandidates; c++)
      for (int i = 0; i < g->candidates[c].nlaunches; i++)
        if (g->candidates[c].launches[i].kind == MK_LAUNCH_KERNEL) wanted[g->candidates[c].launches[i].kernel] = true;
  }
  mk_prepare_options options = {.arch = p->arch, .wanted = wanted};
  if (!mk_kernels_prepare(p->kernels, p->nkernels, &options, d ? &d->cache : &own, &done, st)) return false;
  for (int k = 0; k < t->nclasses; k++) {
    const mk_group *g = &p->groups[t->classes[k].group];
    for (int c = 0; c < g->ncandidates; c++)
      for (int i = 0; i < g->candidates[c].nlaunches; i++) {
        const mk_launch *l = &g->candidates[c].launches[i];
        if (l->kind == MK_LAUNCH_KERNEL) note_cubin(t, &t->v->items[t->classes[k].variant + c], l, &done.cubins[l->kernel]);
      }
  }
  mk_prepared_free(&done);
  return true;
}

/* ---- running */

static void find_outputs(trial *t) {
  const mk_graph *g = t->job.subject.graph;
  const mk_plan *p = t->job.plan;
  t->outputs = MK_NEW_ARRAY(&t->job.arena, const mk_binding *, p->noutputs);
  for (int o = 0; o < g->noutputs; o++)
    for (int b = 0; b < p->noutputs; b++)
      if (!strcmp(g->outputs[o].entry, t->job.entry->name) && !strcmp(g->outputs[o].name, p->outputs[b].name))
        t->outputs[t->noutputs++] = &p->outputs[b];
}

static void free_values(const trial *t, float **values) {
  for (int i = 0; values && i < t->noutputs; i++) free(values[i]);
  free(values);
}

/* The entry's outputs after one run; integers as numbers. NULL with the status set on failure. */
static float **run_once(const trial *t, mk_session *s, mk_status *st) {
  float **values = calloc((size_t)t->noutputs + 1, sizeof *values);
  bool ok = values && mk_job_feed(&t->job, s, st) && s->ops->run(s, t->job.entry->name, st);
  for (int i = 0; ok && i < t->noutputs; i++) {
    const mk_binding *b = t->outputs[i];
    int64_t count = mk_dims_count(b->dims, b->rank);
    values[i] = malloc((size_t)count * 4);
    ok = values[i] && s->ops->read(s, b->name, values[i], (size_t)count * 4, st);
    for (int64_t k = 0; ok && b->dtype == MK_I32 && k < count; k++) {
      int32_t whole;
      memcpy(&whole, &values[i][k], 4);
      values[i][k] = (float)whole;
    }
  }
  if (ok) return values;
  mk_fail(st, MK_ENOMEM, "out of host memory");
  free_values(t, values);
  return NULL;
}

/* The worst output's ||have - want|| / ||want||; infinite when a value is not a number. */
static double error_of(const trial *t, float *const *have) {
  double worst = 0;
  for (int i = 0; i < t->noutputs; i++) {
    double sum = 0, norm = 0;
    for (int64_t k = 0; k < mk_dims_count(t->outputs[i]->dims, t->outputs[i]->rank); k++) {
      double want = (double)t->expected[i][k], d = (double)have[i][k] - want;
      sum += d * d;
      norm += want * want;
    }
    double error = sum > 0 || isnan(sum) ? sqrt(sum / norm) : 0;
    if (!(error <= worst)) worst = isfinite(error) ? error : INFINITY;
  }
  return worst;
}

static bool expect_from_cpu(trial *t, mk_status *st) {
  mk_session *cpu = mk_cpu_session_open(t->job.subject.graph, st);
  if (!cpu) return false;
  t->expected = run_once(t, cpu, st);
  cpu->ops->close(cpu);
  return t->expected != NULL;
}

static bool quick_on_cpu(const trial *t) {
  double flop = 0, bytes = 0;
  for (int k = 0; k < t->nclasses; k++) {
    const mk_group *g = &t->job.plan->groups[t->classes[k].group];
    flop += t->classes[k].calls * g->flop;
    bytes += t->classes[k].calls * g->bytes;
  }
  return flop <= CPU_FLOP && bytes <= CPU_BYTES;
}

/* The CPU backend where it is quick enough. Its weights must be there on the host: made up there, unless they come from files. */
static bool choose_reference(trial *t, mk_status *st) {
  mk_subject *s = &t->job.subject;
  bool from_files = s->weights && t->m->weights.count && !t->m->seed, small = quick_on_cpu(t);
  t->v->reference = "the plan's own choices";
  if (!small || s->model || (!from_files && mk_made_up_bytes(s->graph) > CPU_WEIGHT_BYTES)) return true;
  if (!from_files) {
    mk_made_up_open(&t->made_up, s->graph, (uint64_t)t->m->seed);
    s->source = mk_made_up_source(&t->made_up);
  }
  t->v->reference = "the CPU backend";
  return expect_from_cpu(t, st);
}

/* Runs and times the plan as it is now; the steps' times of the class, if there is one, go to *ms. */
static bool run_plan(trial *t, const group_class *k, double *ms, double *error, double *whole_ms, mk_status *st) {
  mk_gpu_times times = {0};
  mk_session *s = mk_gpu_session_open(t->job.device, t->job.plan, &(mk_gpu_session_options){.tune = !t->m->no_tune}, st);
  float **have = s ? run_once(t, s, st) : NULL;
  bool ok = have && mk_gpu_time_program(s, t->job.entry->name, (int)t->m->iterations, &times, st);
  if (ok && !t->expected) {
    t->expected = have;
    have = NULL;
  }
  if (ok && error) *error = have ? error_of(t, have) : 0;
  if (ok && whole_ms) *whole_ms = times.graph_ms;
  for (int i = 0; ok && k && i < t->job.entry->nsteps; i++) {
    const mk_step *step = &t->job.entry->steps[i];
    if (step->kind != MK_STEP_GROUP || t->class_of[step->index] != k - t->classes) continue;
    bool with_before = k->may_cover && i > 0; /* which takes no time when it is covered */
    *ms += (times.step_ms[i] + (with_before ? times.step_ms[i - 1] : 0)) / k->calls;
  }
  mk_gpu_times_free(&times);
  free_values(t, have);
  if (s) s->ops->close(s);
  return ok;
}

/* Makes candidate c the only one of the class' groups, for the life of a session: what fails must not be replaced. */
static bool time_variant(trial *t, const group_class *k, int c, mk_status *st) {
  mk_plan *p = t->job.plan;
  mk_variant *v = &t->v->items[k->variant + c];
  mk_group *saved = MK_NEW_ARRAY(&t->job.arena, mk_group, p->ngroups);
  memcpy(saved, p->groups, sizeof *saved * (size_t)p->ngroups);
  for (int g = 0; g < p->ngroups; g++) {
    if (t->class_of[g] != k - t->classes) continue;
    p->groups[g].candidates = &saved[g].candidates[c];
    p->groups[g].ncandidates = 1;
    p->groups[g].chosen = 0;
  }
  double ms = 0;
  mk_status why = {0};
  if (run_plan(t, k, &ms, &v->error, NULL, &why)) {
    v->ms = ms;
  } else if (why.code == MK_EGPU || why.code == MK_ENOMEM) {
    *st = why; /* the device may be lost: there is no going on */
  } else {
    v->message = mk_strdup(&t->v->arena, why.message);
  }
  memcpy(p->groups, saved, sizeof *saved * (size_t)p->ngroups);
  return !mk_failed(st);
}

static bool time_all(trial *t, mk_status *st) {
  mk_gpu_peaks peaks = mk_gpu_peaks_of(t->job.device);
  mk_profile sheet = {.peaks = peaks};
  find_outputs(t);
  if (!choose_reference(t, st) || !run_plan(t, NULL, NULL, NULL, &t->v->whole_ms, st)) return false;
  for (int k = 0; k < t->nclasses; k++) {
    const mk_group *g = &t->job.plan->groups[t->classes[k].group];
    int best = -1;
    for (int c = 0; c < g->ncandidates; c++) {
      mk_variant *v = &t->v->items[t->classes[k].variant + c];
      mk_profile_row row = {.flop = g->flop, .bytes = g->bytes, .arithmetic = mk_job_arithmetic(g)};
      v->limit_ms = mk_profile_sheet_limit(&sheet, &row).ms;
      if (!v->message && !time_variant(t, &t->classes[k], c, st)) return false;
      bool right = v->ms >= 0 && v->error <= WRONG;
      if (right && (best < 0 || v->ms < t->v->items[best].ms)) best = t->classes[k].variant + c;
    }
    if (best >= 0) t->v->items[best].best = true;
  }
  return true;
}

bool mk_variants_measure(mk_variants *v, const mk_measure *m, mk_status *st) {
  *v = (mk_variants){0};
  mk_measure with_seed = *m; /* numbers are wanted, whatever the weights are */
  if (!m->weights.count && !m->seed) with_seed.seed = 1;
  trial t = {.m = &with_seed, .v = v};
  bool ok = mk_job_open(&t.job, &with_seed, st);
  if (ok) {
    char arch[16] = "";
    mk_arch_name(t.job.plan->arch, arch, st);
    v->graph = mk_strdup(&v->arena, t.job.plan->name);
    v->entry = mk_strdup(&v->arena, t.job.entry->name);
    v->target = mk_strdup(&v->arena, t.job.device ? t.job.device->name : arch);
    find_classes(&t);
    ok = compile_all(&t, st) && (!t.job.device || m->compile_only || time_all(&t, st));
  }
  free_values(&t, t.expected);
  mk_made_up_close(&t.made_up);
  mk_job_close(&t.job);
  return ok;
}

void mk_variants_free(mk_variants *v) {
  mk_arena_free(&v->arena);
  *v = (mk_variants){0};
}

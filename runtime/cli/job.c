#include "runtime/cli/job.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/session.h"

static const mk_program *find_entry(const mk_plan *p, const char *name, mk_status *st) {
  for (int i = 0; i < p->nprograms; i++)
    if (name ? !strcmp(p->programs[i].name, name) : p->programs[i].rate == MK_RATE_STEP) return &p->programs[i];
  if (name) return mk_fail(st, MK_EINPUT, "--entry %s: the graph has no such program", name), NULL;
  return mk_fail(st, MK_EINPUT, "the graph has nothing to run at every step"), NULL;
}

/* The file's tensor of that name, or values in [-1, 1) from a fixed sequence: zeros would run faster than real data does.
 * Made-up integers are 0, a valid index everywhere, but for lengths, which are at least 1. */
static bool write_value(const mk_job *j, mk_session *s, const mk_binding *in, uint32_t *x, mk_status *st) {
  mk_entry *given = j->inputs ? mk_tensor_file_find(j->inputs, in->name) : NULL;
  if (given) {
    mk_tensor value;
    return mk_entry_fetch(j->inputs, given, &value, st) &&
           (s->ops->write(s, &value, st) || (mk_fail_context(st, "%s", j->inputs->path), false));
  }
  int64_t count = mk_dims_count(in->dims, in->rank);
  bool whole = in->dtype == MK_I32;
  void *data = calloc((size_t)count, 4);
  if (!data) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  for (int64_t k = 0; k < count; k++) {
    *x = *x * 1664525 + 1013904223;
    if (whole) {
      ((int32_t *)data)[k] = strstr(in->name, "len") != NULL;
    } else {
      ((float *)data)[k] = (float)(int32_t)*x / 2147483648.0f;
    }
  }
  mk_tensor t = {.name = in->name, .dtype = whole ? MK_I32 : MK_F32, .rank = in->rank, .data = data, .bytes = (size_t)count * 4};
  memcpy(t.dims, in->dims, sizeof t.dims);
  bool ok = s->ops->write(s, &t, st);
  free(data);
  return ok;
}

bool mk_job_feed(const mk_job *j, mk_session *s, mk_status *st) {
  uint32_t x = 1;
  if (!s->ops->load(s, &j->subject.source, NULL, NULL, st)) return false;
  for (int i = 0; i < j->plan->ninputs; i++)
    if (!write_value(j, s, &j->plan->inputs[i], &x, st)) return false;
  for (int i = 0; i < j->plan->nstates; i++)
    if (!write_value(j, s, &j->plan->states[i], &x, st)) return false;
  return s->ops->run(s, "prompt", st);
}

mk_arithmetic mk_job_arithmetic(const mk_group *g) {
  if (!strcmp(g->kind, "row") || !strcmp(g->kind, "copy")) return MK_ARITHMETIC_F32;
  for (int c = 0; c < g->ncandidates; c++)
    for (int i = 0; i < g->candidates[c].nlaunches; i++) {
      const mk_launch *l = &g->candidates[c].launches[i];
      if (l->kind == MK_LAUNCH_LT && l->lt->ab_type == MK_F32) return l->lt->tf32 ? MK_ARITHMETIC_TF32 : MK_ARITHMETIC_F32;
    }
  return MK_ARITHMETIC_BF16;
}

static bool build(mk_job *j, const mk_measure *m, mk_status *st) {
  mk_plan_options options;
  if (!mk_cli_plan_options(m->arch, &j->arena, &options, st)) return false;
  options.trial = mk_cli_trial(&m->trial, &j->arena);
  options.trial.pins = m->pins;
  options.trial.npins = m->npins;
  if (j->device && !m->no_tune) {
    if (!mk_gpu_device_wait(j->device, MK_GPU_KNOWN, st)) return false;
    mk_tuning_open(&j->tuning, j->device);
    options.precedents = mk_tuning_precedents(&j->tuning);
  }
  j->plan = j->device ? mk_gpu_draft(j->device, j->subject.graph, &options, st) : mk_plan_build(j->subject.graph, &options, st);
  if (!j->plan || (j->device && !mk_gpu_enter(j->device, st))) return false;
  if (j->device && !m->no_tune) mk_tuning_apply(&j->tuning, j->plan);
  if (!j->device || !j->plan->nweights || j->subject.has_source) return true;
  return mk_fail(st, MK_EINPUT, "the graph has weights: give --weights PATH, or --synthetic SEED"), false;
}

bool mk_job_open(mk_job *j, const mk_measure *m, mk_status *st) {
  *j = (mk_job){.device = m->device};
  if (m->inputs && !(j->inputs = mk_tensor_file_open(m->inputs, st))) return false;
  mk_status missing = {0};
  if (!j->device && !m->arch) { /* starts while the graph is made */
    j->device = mk_gpu_device_begin(0, &missing);
    j->owns_device = true;
  }
  if (!mk_subject_open(&j->subject, m, &j->arena, st)) return false;
  if (mk_failed(&missing)) return mk_fail(st, missing.code, "%s", missing.message), false;
  if (!build(j, m, st)) return false;
  j->entry = find_entry(j->plan, m->entry, st);
  return j->entry != NULL;
}

void mk_job_close(mk_job *j) {
  mk_tuning_close(&j->tuning);
  mk_plan_free(j->plan);
  if (j->owns_device) mk_gpu_device_close(j->device);
  mk_tensor_file_close(j->inputs);
  mk_subject_close(&j->subject);
  mk_arena_free(&j->arena);
  *j = (mk_job){0};
}

#include "runtime/cli/measure.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/cli/load_graph.h"
#include "runtime/cli/subject.h"
#include "runtime/gpu/session.h"
#include "runtime/gpu/tuning.h"
#include "runtime/model/tensor_file.h"

typedef struct job {
  mk_subject subject;
  mk_tensor_file *inputs; /* NULL: all are made up */
  mk_gpu_device *device;
  mk_tuning tuning;
  mk_plan *plan;
  mk_session *session;
  mk_gpu_times times;
} job;

static const mk_program *find_entry(const mk_plan *p, const char *name, mk_status *st) {
  for (int i = 0; i < p->nprograms; i++)
    if (name ? !strcmp(p->programs[i].name, name) : p->programs[i].rate == MK_RATE_STEP) return &p->programs[i];
  if (name) return mk_fail(st, MK_EINPUT, "--entry %s: the graph has no such program", name), NULL;
  return mk_fail(st, MK_EINPUT, "the graph has nothing to run at every step"), NULL;
}

/* The file's tensor of that name, or values in [-1, 1) from a fixed sequence: zeros would run faster than real data does.
 * Made-up integers are 0, a valid index everywhere, but for lengths, which are at least 1. */
static bool write_value(job *j, const mk_binding *in, uint32_t *x, mk_status *st) {
  mk_entry *given = j->inputs ? mk_tensor_file_find(j->inputs, in->name) : NULL;
  if (given) {
    mk_tensor value;
    return mk_entry_fetch(j->inputs, given, &value, st) &&
           (j->session->ops->write(j->session, &value, st) || (mk_fail_context(st, "%s", j->inputs->path), false));
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
  bool ok = j->session->ops->write(j->session, &t, st);
  free(data);
  return ok;
}

static bool write_values(job *j, mk_status *st) {
  uint32_t x = 1;
  for (int i = 0; i < j->plan->ninputs; i++)
    if (!write_value(j, &j->plan->inputs[i], &x, st)) return false;
  for (int i = 0; i < j->plan->nstates; i++)
    if (!write_value(j, &j->plan->states[i], &x, st)) return false;
  return true;
}

/* Matmuls, attention and convolutions are held against the bf16 rate, but for library matmuls in f32, whose type the plan tells.
 */
static mk_arithmetic arithmetic_of(const mk_group *g) {
  if (!strcmp(g->kind, "row") || !strcmp(g->kind, "copy")) return MK_ARITHMETIC_F32;
  for (int c = 0; c < g->ncandidates; c++)
    for (int i = 0; i < g->candidates[c].nlaunches; i++) {
      const mk_launch *l = &g->candidates[c].launches[i];
      if (l->kind == MK_LAUNCH_LT && l->lt->ab_type == MK_F32) return l->lt->tf32 ? MK_ARITHMETIC_TF32 : MK_ARITHMETIC_F32;
    }
  return MK_ARITHMETIC_BF16;
}

static void collect(const job *j, const mk_program *entry, mk_profile *p) {
  for (int i = 0; i < entry->nsteps; i++) {
    if (entry->steps[i].kind != MK_STEP_GROUP) continue;
    int index = entry->steps[i].index;
    const mk_group *g = &j->plan->groups[index];
    mk_gpu_usage usage = mk_gpu_session_usage(j->session, index);
    mk_profile_add(p, &(mk_profile_row){.kind = g->kind,
                                        .name = g->name,
                                        .candidate = g->candidates[mk_gpu_session_choice(j->session, index)].label,
                                        .arithmetic = arithmetic_of(g),
                                        .calls = 1,
                                        .ms = j->times.step_ms[i],
                                        .flop = g->flop,
                                        .bytes = g->bytes,
                                        .registers = usage.registers,
                                        .smem_bytes = usage.smem_bytes});
  }
  mk_profile_sort(p);
}

static bool build(job *j, const mk_measure *m, mk_arena *arena, mk_status *st) {
  mk_plan_options options;
  if (!mk_cli_plan_options(j->device->arch, arena, &options, st)) return false;
  options.smem_limit = j->device->smem_limit;
  options.sms = j->device->sms;
  options.cublaslt = j->device->lt != NULL;
  options.trial = mk_cli_trial(&m->trial, arena);
  j->plan = mk_plan_build(j->subject.graph, &options, st);
  if (!j->plan) return false;
  if (!m->no_tune) {
    mk_tuning_open(&j->tuning, j->device);
    mk_tuning_apply(&j->tuning, j->device, j->plan);
  }
  if (!j->plan->nweights || j->subject.has_source) return true;
  return mk_fail(st, MK_EINPUT, "the graph has weights: give --weights PATH, or --synthetic SEED"), false;
}

static bool run(job *j, const mk_measure *m, mk_profile *p, mk_status *st) {
  if (m->inputs && !(j->inputs = mk_tensor_file_open(m->inputs, st))) return false;
  if (!mk_subject_open(&j->subject, m, &p->arena, st)) return false;
  j->device = mk_gpu_device_open(0, st);
  if (!j->device || !build(j, m, &p->arena, st)) return false;
  const mk_program *entry = find_entry(j->plan, m->entry, st);
  if (!entry || (m->wants_ceilings && !mk_gpu_measure_ceilings(j->device, &p->ceilings, st))) return false;
  j->session = mk_gpu_session_open(j->device, j->plan, &(mk_gpu_session_options){.tune = !m->no_tune}, st);
  if (!j->session || !j->session->ops->load(j->session, &j->subject.source, NULL, NULL, st) || !write_values(j, st)) return false;
  if (!j->session->ops->run(j->session, "prompt", st)) return false;
  if (!mk_gpu_time_program(j->session, entry->name, (int)m->iterations, &j->times, st)) return false;
  p->gpu = mk_strdup(&p->arena, j->device->name);
  p->sms = j->device->sms;
  p->peaks = mk_gpu_peaks_of(j->device);
  p->graph = mk_strdup(&p->arena, j->plan->name);
  p->entry = mk_strdup(&p->arena, entry->name);
  p->subject = j->subject.name;
  p->graph_ms = j->times.graph_ms;
  p->steps_ms = j->times.sum_ms;
  collect(j, entry, p);
  return true;
}

bool mk_profile_measure(mk_profile *p, const mk_measure *m, mk_status *st) {
  job j = {0};
  *p = (mk_profile){0};
  bool ok = run(&j, m, p, st);
  mk_gpu_times_free(&j.times);
  if (j.session) j.session->ops->close(j.session);
  mk_tuning_close(&j.tuning);
  mk_plan_free(j.plan);
  mk_gpu_device_close(j.device);
  mk_tensor_file_close(j.inputs);
  mk_subject_close(&j.subject);
  return ok;
}

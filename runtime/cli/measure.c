#include "runtime/cli/measure.h"

#include <string.h>

#include "runtime/cli/job.h"
#include "runtime/gpu/session.h"

int mk_measure_options(mk_measure *m, mk_option out[MK_MEASURE_OPTIONS]) {
  const mk_option options[] = {
      {"set", MK_OPT_LIST, &m->sets, "K=V", "parameter of a script: JSON, text or @FILE.json", 0, 0},
      {"weights", MK_OPT_LIST, &m->weights, "PATH", "of a script: safetensors file or checkpoint folder", 0, 0},
      {"entry", MK_OPT_TEXT, &m->entry, "NAME", "of a script: program to time (default: the first)", 0, 0},
      {"size", MK_OPT_SIZE, &m->size, "WxH", "of a model's video: 1280x720 (default); multiples of 16", 1, 100000},
      {"frames", MK_OPT_INT, &m->frames, "N", "of a model's video: 81 (default); 4n + 1", 1, 1e6},
      {"policy", MK_OPT_TEXT, &m->policy, "NAME", "of a model: exact (default), fp32 or tf32", 0, 0},
      {"synthetic", MK_OPT_INT, &m->seed, "SEED", "made-up weights instead of a checkpoint's values", 1, 9e15},
      {"inputs", MK_OPT_TEXT, &m->inputs, "FILE", "safetensors file with inputs, by name; the others are made up", 0, 0},
      {"iterations", MK_OPT_INT, &m->iterations, "N", "timed runs, of which the median counts (default 5)", 1, 10000},
      {"no-tune", MK_OPT_FLAG, &m->no_tune, NULL, "take the cost model's choices and the matmul library's first suggestions", 0,
       0},
      {"templates", MK_OPT_LIST, &m->trial.templates, "DIR", "folder of your own templates", 0, 0},
      {"load", MK_OPT_TEXT, &m->trial.load, "DIR", "use the kernels, NAME.cu, of a folder that emit --dump wrote", 0, 0},
  };
  _Static_assert(sizeof options == MK_MEASURE_OPTIONS * sizeof *options, "all are handed out");
  memcpy(out, options, sizeof options);
  return MK_MEASURE_OPTIONS;
}

static void collect(const mk_job *j, mk_session *s, const mk_gpu_times *times, mk_profile *p) {
  const mk_program *entry = j->entry;
  for (int i = 0; i < entry->nsteps; i++) {
    int index = entry->steps[i].index;
    if (entry->steps[i].kind != MK_STEP_GROUP || mk_gpu_session_covers(s, index)) continue;
    const mk_group *g = &j->plan->groups[index];
    mk_gpu_usage usage = mk_gpu_session_usage(s, index);
    mk_profile_add(p, &(mk_profile_row){.kind = g->kind,
                                        .name = g->name,
                                        .candidate = g->candidates[mk_gpu_session_choice(s, index)].label,
                                        .arithmetic = mk_job_arithmetic(g),
                                        .calls = 1,
                                        .ms = times->step_ms[i],
                                        .flop = g->flop,
                                        .bytes = g->bytes,
                                        .registers = usage.registers,
                                        .smem_bytes = usage.smem_bytes});
  }
  mk_profile_sort(p);
}

static bool run(const mk_job *j, const mk_measure *m, mk_session *s, mk_profile *p, mk_status *st) {
  mk_gpu_times times;
  if (!mk_job_feed(j, s, st) || !mk_gpu_time_program(s, j->entry->name, (int)m->iterations, &times, st)) return false;
  p->gpu = mk_strdup(&p->arena, j->device->name);
  p->sms = j->device->sms;
  p->peaks = mk_gpu_peaks_of(j->device);
  p->graph = mk_strdup(&p->arena, j->plan->name);
  p->entry = mk_strdup(&p->arena, j->entry->name);
  p->subject = mk_strdup(&p->arena, j->subject.name);
  p->graph_ms = times.graph_ms;
  p->steps_ms = times.sum_ms;
  collect(j, s, &times, p);
  mk_gpu_times_free(&times);
  return true;
}

bool mk_profile_measure(mk_profile *p, const mk_measure *m, mk_status *st) {
  mk_job j;
  mk_session *s = NULL;
  *p = (mk_profile){0};
  bool ok = mk_job_open(&j, m, st) && (!m->wants_ceilings || mk_gpu_measure_ceilings(j.device, &p->ceilings, st));
  if (ok) s = mk_gpu_session_open(j.device, j.plan, &(mk_gpu_session_options){.tune = !m->no_tune}, st);
  ok = s && run(&j, m, s, p, st);
  if (s) s->ops->close(s);
  mk_job_close(&j);
  return ok;
}

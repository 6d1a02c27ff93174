#include "runtime/backend.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/base/log.h"
#include "runtime/cpu/session.h"
#include "runtime/gpu/lt.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/session.h"
#include "runtime/gpu/tune_problems.h"

struct mk_backend {
  mk_gpu_device *device; /* NULL: the CPU */
  bool gpu_only;
  mk_status no_gpu; /* why there is none */
  mk_arena arena;
  mk_plan **plans; /* of the sessions opened, kept as long as they may be in use */
  int count, cap;
  mk_trial trial;
  mk_tuning tuning; /* what is known of the GPU */
  mk_records used;  /* what is not known, and was used; kept at the end, as plans that are made in between read the others */
  bool tuning_open, ignore_records;
  pthread_mutex_t opening; /* of tuning: plans are made in several threads */
};

mk_backend *mk_backend_begin(const char *name, mk_status *st) {
  if (name && strcmp(name, "cpu") && strcmp(name, "cuda"))
    return mk_fail(st, MK_EINPUT, "backend '%s' is unknown; use cuda or cpu", name), NULL;
  mk_backend *b = calloc(1, sizeof *b);
  if (!b) return mk_fail(st, MK_ENOMEM, "out of host memory"), NULL;
  pthread_mutex_init(&b->opening, NULL);
  b->trial.templates = mk_env_get()->templates;
  omp_set_num_threads(mk_env_get()->thread_count); /* the CPU backend's loops and BLAS; test oracles use it beside a GPU too */
  b->gpu_only = name && !strcmp(name, "cuda");
  if (!name || b->gpu_only) b->device = mk_gpu_device_begin(0, &b->no_gpu);
  return b;
}

bool mk_backend_as_begun(const mk_backend *b) {
  return !b->device || mk_gpu_device_wait(b->device, MK_GPU_READY, &(mk_status){0});
}

bool mk_backend_ready(mk_backend *b, mk_status *st) {
  if (b->device && mk_gpu_device_wait(b->device, MK_GPU_READY, &b->no_gpu)) return true;
  mk_gpu_device_close(b->device);
  b->device = NULL;
  if (b->gpu_only) return mk_fail(st, b->no_gpu.code, "%s", b->no_gpu.message), false;
  if (mk_failed(&b->no_gpu)) mk_log(MK_LOG_INFO, "running on the CPU: %s", b->no_gpu.message);
  return true;
}

mk_backend *mk_backend_open(const char *name, mk_status *st) {
  mk_backend *b = mk_backend_begin(name, st);
  if (!b || mk_backend_ready(b, st)) return b;
  mk_backend_close(b);
  return NULL;
}

/* Where kernels are not kept, there is nothing to be used again. */
static void keep_used(mk_backend *b) {
  mk_status why = {0};
  b->used.environment = b->tuning.user.environment;
  if (b->used.count && b->device && b->device->cache.writable && !mk_tuning_keep(&b->tuning, &b->used, &why))
    mk_log(MK_LOG_INFO, "what was chosen without tuning is not noted: %s", why.message);
  mk_records_free(&b->used);
}

void mk_backend_close(mk_backend *b) {
  if (!b) return;
  keep_used(b);
  for (int i = 0; i < b->count; i++) mk_plan_free(b->plans[i]);
  mk_tuning_close(&b->tuning);
  mk_gpu_device_close(b->device);
  mk_arena_free(&b->arena);
  pthread_mutex_destroy(&b->opening);
  free(b);
}

const char *mk_backend_name(const mk_backend *b) { return b->device ? "cuda" : "cpu"; }

void mk_backend_try(mk_backend *b, const mk_trial *trial) { b->trial = *trial; }

void mk_backend_ignore_records(mk_backend *b) { b->ignore_records = true; }

static mk_tuning *tuning(mk_backend *b) {
  pthread_mutex_lock(&b->opening);
  if (!b->tuning_open) mk_tuning_open(&b->tuning, b->device);
  b->tuning_open = true;
  pthread_mutex_unlock(&b->opening);
  return &b->tuning;
}

mk_plan *mk_backend_draft(mk_backend *b, const mk_graph *g, mk_status *st) {
  char templates[PATH_MAX];
  mk_status why = {0};
  if (!b->device || !mk_env_data_path("templates", templates, st)) return NULL;
  mk_plan_options o = {.templates = templates, .trial = b->trial};
  mk_plan *plan = NULL;
  if (mk_gpu_device_wait(b->device, MK_GPU_KNOWN, &why)) {
    if (!b->ignore_records) o.precedents = mk_tuning_precedents(tuning(b));
    plan = mk_gpu_draft(b->device, g, &o, &why);
  }
  if (!plan && mk_backend_as_begun(b)) mk_fail(st, why.code, "%s", why.message); /* else mk_backend_ready says it */
  if (plan && !b->ignore_records) mk_tuning_apply(tuning(b), plan);
  if (plan) mk_gpu_lt_ask_ahead(b->device, plan);
  return plan;
}

bool mk_backend_plans(mk_backend *b, mk_graph *const *graphs, int count, mk_plan **plans, mk_status *st) {
  mk_status *each = calloc((size_t)count, sizeof *each);
  memset(plans, 0, sizeof *plans * (size_t)count);
  if (!each) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
#pragma omp parallel for num_threads(count) schedule(static, 1)
  for (int i = 0; i < count; i++)
    if (graphs[i]) plans[i] = mk_backend_draft(b, graphs[i], &each[i]);
  for (int i = 0; i < count; i++)
    if (mk_failed(&each[i])) mk_fail(st, each[i].code, "%s", each[i].message);
  free(each);
  return !mk_failed(st);
}

mk_plan *mk_backend_plan(mk_backend *b, const mk_graph *g, mk_status *st) {
  mk_plan *plan;
  mk_backend_plans(b, (mk_graph *const *)&g, 1, &plan, st);
  return plan;
}

bool mk_backend_knows(mk_backend *b, const mk_tune_job *jobs, int count, const mk_tune_options *o) {
  mk_arena arena = {0};
  bool known = !b->device || b->ignore_records || !mk_tune_problems_of(tuning(b), jobs, count, o, &arena).count;
  mk_arena_free(&arena);
  return known;
}

bool mk_backend_tune(mk_backend *b, const mk_tune_job *jobs, int count, const mk_tune_options *o, mk_tune_report *report,
                     mk_status *st) {
  *report = (mk_tune_report){0};
  if (!b->device || b->ignore_records) return true;
  return mk_tune(b->device, tuning(b), jobs, count, o, report, st);
}

mk_session *mk_backend_session(mk_backend *b, const mk_graph *g, const mk_plan *plan, mk_status *st) {
  if (!b->device) return mk_cpu_session_open(g, st);
  if (!plan) {
    mk_plan *made = mk_backend_plan(b, g, st);
    if (!made) return NULL;
    MK_PUSH(&b->arena, b->plans, b->count, b->cap, made);
    plan = made;
  }
  mk_session *s = mk_gpu_session_open(b->device, plan, &(mk_gpu_session_options){0}, st);
  for (int i = 0; s && !b->ignore_records && i < plan->ngroups; i++) /* where the choice does not work, it may another day */
    if (mk_gpu_session_choice(s, i) == plan->groups[i].chosen) mk_tuning_use(tuning(b), plan, &plan->groups[i], &b->used);
  return s;
}

bool mk_backend_fits(mk_backend *b, mk_plan *const *plans, int count, bool offload, const char *what, mk_status *st) {
  return !b->device || mk_gpu_plans_fit(b->device, (const mk_plan *const *)plans, count, offload, what, st);
}

#include "runtime/gpu/timing.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/executor.h"

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double mk_gpu_median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, by_value);
  return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

typedef struct stopwatch { /* one event before the first step, one after each */
  const mk_driver *cu;
  CUstream stream;
  CUevent *events;
  int count;
} stopwatch;

static void stopwatch_free(stopwatch *w) {
  for (int i = 0; w->events && i < w->count; i++)
    if (w->events[i]) w->cu->cuEventDestroy(w->events[i]);
  free(w->events);
}

static bool stopwatch_make(stopwatch *w, mk_gpu_device *d, int count, mk_status *st) {
  *w = (stopwatch){.cu = d->cu, .stream = d->stream, .count = count};
  w->events = calloc((size_t)count, sizeof *w->events);
  if (!w->events) {
    mk_fail(st, MK_ENOMEM, "out of host memory");
    return false;
  }
  for (int i = 0; i < count; i++)
    if (!MK_CU(d->cu, st, cuEventCreate(&w->events[i], CU_EVENT_DEFAULT))) return false;
  return true;
}

static bool mark(stopwatch *w, int i, mk_status *st) { return MK_CU(w->cu, st, cuEventRecord(w->events[i], w->stream)); }

static bool between(stopwatch *w, int from, int to, double *ms, mk_status *st) {
  float f = 0;
  if (!MK_CU(w->cu, st, cuEventElapsedTime(&f, w->events[from], w->events[to]))) return false;
  *ms = (double)f;
  return true;
}

/* A program this long has kernels so long that one pass says their times. */
static const double long_ms = 1000;

/* Passes over the program step by step, with events in between; returns how many were made, 0 on failure. */
static int time_steps(mk_gpu_session *s, const mk_program *p, stopwatch *w, int iterations, double *samples, double *sums,
                      mk_status *st) {
  int n = 0;
  while (n < iterations && (n == 0 || sums[n - 1] < long_ms)) {
    if (!mark(w, 0, st)) return 0;
    for (int i = 0; i < p->nsteps; i++) {
      if (p->steps[i].kind == MK_STEP_GROUP && !mk_gpu_run_group(s, p->steps[i].index, st)) return 0;
      if (!mark(w, i + 1, st)) return 0;
    }
    if (!mk_gpu_wait(s->d, st)) return 0;
    for (int i = 0; i < p->nsteps; i++)
      if (!between(w, i, i + 1, &samples[i * iterations + n], st)) return 0;
    if (!between(w, 0, p->nsteps, &sums[n], st)) return 0;
    n++;
  }
  return n;
}

static bool time_whole(mk_gpu_session *s, mk_gpu_program *p, stopwatch *w, int iterations, double *sums, mk_status *st) {
  for (int n = 0; n < iterations; n++) {
    if (!mark(w, 0, st) || !mk_gpu_run_program(s, p, st) || !mark(w, 1, st) || !mk_gpu_wait(s->d, st)) return false;
    if (!between(w, 0, 1, &sums[n], st)) return false;
  }
  return true;
}

bool mk_gpu_time_program(mk_session *base, const char *program, int iterations, mk_gpu_times *out, mk_status *st) {
  mk_gpu_session *s = (mk_gpu_session *)base;
  mk_gpu_program *p = mk_gpu_find_program(s, program);
  *out = (mk_gpu_times){0};
  if (!p || iterations < 1 || !s->loaded || s->is_parked) {
    mk_fail(st, MK_EINPUT, "%s: there is no loaded program %s to time", s->plan->name, program);
    return false;
  }
  int nsteps = p->plan->nsteps;
  double *samples = calloc((size_t)iterations * (size_t)(nsteps + 1), sizeof *samples); /* the last row: whole runs */
  double *sums = samples ? samples + (size_t)iterations * (size_t)nsteps : NULL;
  stopwatch w = {0};
  out->step_ms = calloc((size_t)nsteps + 1, sizeof *out->step_ms);
  out->nsteps = nsteps;
  if (!samples || !out->step_ms) mk_fail(st, MK_ENOMEM, "out of host memory");
  bool ok = !mk_failed(st) && mk_gpu_enter(s->d, st) && stopwatch_make(&w, s->d, nsteps + 1 > 2 ? nsteps + 1 : 2, st);
  /* Twice: the first run tunes and loads library kernels, the second captures the graph. */
  for (int i = 0; ok && i < 2; i++) ok = mk_gpu_run_program(s, p, st);
  ok = ok && mk_gpu_wait(s->d, st);
  int passes = ok ? time_steps(s, p->plan, &w, iterations, samples, sums, st) : 0;
  if (passes) {
    for (int i = 0; i < nsteps; i++) out->step_ms[i] = mk_gpu_median(&samples[i * iterations], passes);
    out->sum_ms = mk_gpu_median(sums, passes);
    ok = time_whole(s, p, &w, iterations, sums, st);
    if (ok) out->graph_ms = mk_gpu_median(sums, iterations);
  }
  ok = ok && !mk_failed(st);
  stopwatch_free(&w);
  free(samples);
  if (!ok) mk_gpu_times_free(out);
  return ok;
}

void mk_gpu_times_free(mk_gpu_times *t) {
  free(t->step_ms);
  *t = (mk_gpu_times){0};
}

/* ---- roofline */

static const struct {
  const char *name; /* part of the driver's name for the card; the first that fits counts */
  mk_gpu_peaks peaks;
} cards[] = {
    {"H200", {989, 494, 67, 4.8, false}},
    {"H100 NVL", {835, 417, 60, 3.9, false}},
    {"H100 PCIe", {756, 378, 51, 2.0, false}},
    {"H100", {989, 494, 67, 3.35, false}},
    {"H20", {148, 74, 44, 4.0, false}},
    {"B200", {2250, 1125, 75, 8.0, false}},
    {"A100-PCIE-40GB", {312, 156, 19.5, 1.555, false}},
    {"A100-SXM4-40GB", {312, 156, 19.5, 1.555, false}},
    {"A100", {312, 156, 19.5, 2.039, false}},
    {"L40S", {362, 183, 91.6, 0.864, false}},
    {"A10", {125, 62.5, 31.2, 0.6, false}},
    {"RTX 5090", {209.5, 104.8, 104.8, 1.792, false}},
    {"RTX 4090", {165.2, 82.6, 82.6, 1.008, false}},
    {"RTX 3090", {71, 35.6, 35.6, 0.936, false}},
};

mk_gpu_peaks mk_gpu_peaks_of(mk_gpu_device *d) {
  for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
    if (strstr(d->name, cards[i].name)) return cards[i].peaks;
  /* Per multiprocessor and clock: 128 f32 multiply-adds, and dense bf16 operations by generation. */
  int khz = 0, memory_khz = 0, bits = 0;
  d->cu->cuDeviceGetAttribute(&khz, CU_DEVICE_ATTRIBUTE_CLOCK_RATE, d->device);
  d->cu->cuDeviceGetAttribute(&memory_khz, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, d->device);
  d->cu->cuDeviceGetAttribute(&bits, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, d->device);
  double unit = (double)d->sms * khz * 1e3 / 1e12;
  double tensor = unit * (d->arch == 80 ? 2048 : d->arch == 90 ? 4096 : d->arch >= 100 && d->arch < 120 ? 8192 : 1024);
  return (mk_gpu_peaks){tensor, tensor / 2, unit * 256, 2.0 * memory_khz * 1e3 * bits / 8 / 1e12, true};
}

#include "runtime/gpu/ceilings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/base/log.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/session.h"
#include "runtime/gpu/timing.h"

enum { TURNS = 5, SEED = 1 };
static const double warm_ms = 200, timed_ms = 200; /* of a turn: the power limit acts within tens of milliseconds */

typedef struct sizes {
  int64_t m, n, k, copy_bytes;
} sizes;

typedef struct contender { /* something to be timed over and over */
  const char *name;
  bool present; /* it could be opened */
  bool (*run)(struct contender *c, mk_status *st);
  mk_gpu_device *d;
  /* a matmul */
  mk_graph *graph;
  mk_plan *plan;
  mk_session *session;
  /* a copy */
  mk_gpu_block from, to;
  double once_ms; /* a first measurement, which says how often a turn repeats */
  double ms[TURNS];
} contender;

/* Rows for a whole number of 128-row tiles on every multiprocessor, so that no last wave idles. */
static sizes sizes_for(mk_gpu_device *d, mk_status *st) {
  size_t available = 0, total = 0;
  if (!MK_CU(d->cu, st, cuMemGetInfo(&available, &total))) return (sizes){0};
  bool small = available < (size_t)6 << 30;
  int64_t side = small ? 4096 : 8192;
  return (sizes){128 * (int64_t)d->sms, side, side, (int64_t)(small ? 128 : 512) << 20};
}

/* y[m,n] = x[m,k] w[n,k]^T in bf16. */
static mk_graph *matmul_graph(const sizes *s, mk_status *st) {
  mk_graph *g = mk_graph_new("ceiling");
  const mk_attr step = {.rate = MK_RATE_STEP}, load = {.rate = MK_RATE_LOAD};
  int args[2];
  args[0] = mk_build(g, MK_OP_INPUT, NULL, 0, MK_BF16, (const int64_t[]){s->m, s->k}, 2, &step, "x", NULL, st);
  args[1] = mk_build(g, MK_OP_INPUT, NULL, 0, MK_BF16, (const int64_t[]){s->n, s->k}, 2, &load, "w", NULL, st);
  int y = mk_failed(st) ? -1 : mk_build(g, MK_OP_MATMUL, args, 2, MK_F32, NULL, 0, NULL, NULL, NULL, st);
  if (y >= 0) y = mk_build(g, MK_OP_CAST, &y, 1, MK_BF16, NULL, 0, NULL, NULL, NULL, st);
  if (y >= 0) mk_graph_output(g, "step", "y", y);
  if (y >= 0 && mk_optimize(g, st)) return g;
  mk_graph_free(g);
  return NULL;
}

/* Makes the matmul's first candidate of the wanted kind the plan's choice; false when there is none. */
static bool choose(mk_plan *p, bool library) {
  for (int i = 0; i < p->ngroups; i++) {
    mk_group *g = &p->groups[i];
    if (strcmp(g->kind, "matmul")) continue;
    for (int c = 0; c < g->ncandidates; c++)
      if ((g->candidates[c].launches[0].kind == MK_LAUNCH_LT) == library) {
        g->chosen = c;
        return true;
      }
  }
  return false;
}

/* Normally distributed values, a short sequence over and over: zeros would need less power, and so run faster, than real data. */
static bool write_x(mk_session *session, const sizes *s, mk_status *st) {
  enum { PERIOD = 65521 };
  int64_t count = s->m * s->k;
  uint16_t *x = malloc((size_t)count * sizeof *x);
  if (!x) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  uint32_t r = SEED;
  for (int64_t i = 0; i < count && i < PERIOD; i++) {
    float sum = 0; /* twelve uniform values of variance 1/12 each: nearly normal */
    for (int k = 0; k < 12; k++) {
      r = r * 1664525 + 1013904223;
      sum += (float)(int32_t)r / 4294967296.0f;
    }
    x[i] = mk_f32_to_bf16(sum);
  }
  for (int64_t done = PERIOD; done < count; done *= 2) {
    int64_t n = count - done < done ? count - done : done;
    memcpy(x + done, x, (size_t)n * sizeof *x);
  }
  mk_tensor t = {.name = "x", .dtype = MK_BF16, .rank = 2, .dims = {s->m, s->k}, .data = x, .bytes = (size_t)count * sizeof *x};
  bool ok = session->ops->write(session, &t, st);
  free(x);
  return ok;
}

static bool no_fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  (void)self, (void)out;
  return mk_fail(st, MK_EINTERNAL, "no tensor %s", name), false;
}

static bool run_matmul(contender *c, mk_status *st) { return c->session->ops->run(c->session, "step", st); }

/* Leaves it absent, with a clean status, when the card or the library cannot do it. */
static void open_matmul(contender *c, const sizes *s, bool library, mk_status *st) {
  char templates[PATH_MAX];
  if ((library && !c->d->lt) || mk_failed(st) || !mk_env_data_path("templates", templates, st)) return;
  mk_plan_options options = {
      .arch = c->d->arch, .templates = templates, .smem_limit = c->d->smem_limit, .sms = c->d->sms, .cublaslt = library};
  const mk_source source = {.fetch = no_fetch, .synthetic_seed = SEED};
  c->run = run_matmul;
  c->graph = matmul_graph(s, st);
  c->plan = c->graph ? mk_plan_build(c->graph, &options, st) : NULL;
  if (!c->plan || !choose(c->plan, library)) return;
  c->session = mk_gpu_session_open(c->d, c->plan, &(mk_gpu_session_options){.tune = true}, st);
  c->present = c->session && c->session->ops->load(c->session, &source, NULL, NULL, st) && write_x(c->session, s, st);
}

static bool run_copy(contender *c, mk_status *st) {
  return MK_CU(c->d->cu, st, cuMemcpyDtoDAsync(c->to.ptr, c->from.ptr, (size_t)c->to.bytes, c->d->stream));
}

static void open_copy(contender *c, const sizes *s, mk_status *st) {
  c->run = run_copy;
  c->present = mk_gpu_block_alloc(c->d, &c->from, s->copy_bytes, "measuring copies", st) &&
               mk_gpu_block_alloc(c->d, &c->to, s->copy_bytes, "measuring copies", st) &&
               MK_CU(c->d->cu, st, cuMemsetD8Async(c->from.ptr, 0x3c, (size_t)s->copy_bytes, c->d->stream));
}

static void close_contender(contender *c) {
  if (c->session) c->session->ops->close(c->session);
  mk_plan_free(c->plan);
  mk_graph_free(c->graph);
  mk_gpu_block_free(c->d, &c->from);
  mk_gpu_block_free(c->d, &c->to);
}

/* Milliseconds of one run, averaged over `count` of them back to back. */
static bool burst(contender *c, int count, const CUevent mark[2], double *ms, mk_status *st) {
  const mk_driver *cu = c->d->cu;
  float all = 0;
  if (!MK_CU(cu, st, cuEventRecord(mark[0], c->d->stream))) return false;
  for (int i = 0; i < count; i++)
    if (!c->run(c, st)) return false;
  if (!MK_CU(cu, st, cuEventRecord(mark[1], c->d->stream)) || !mk_gpu_wait(c->d, st)) return false;
  if (!MK_CU(cu, st, cuEventElapsedTime(&all, mark[0], mark[1]))) return false;
  *ms = (double)all / count;
  return true;
}

static int repeats(double all_ms, double once_ms) {
  enum { MOST = 2000 };
  return once_ms * MOST < all_ms ? MOST : 1 + (int)(all_ms / once_ms);
}

enum { COPY, LIBRARY, GENERATED, CONTENDERS };

static bool race(contender *list, const CUevent mark[2], mk_status *st) {
  double unused;
  for (int i = 0; i < CONTENDERS; i++) { /* the first runs load, tune and capture */
    if (!list[i].present) continue;
    if (!burst(&list[i], 3, mark, &unused, st) || !burst(&list[i], 3, mark, &list[i].once_ms, st)) return false;
  }
  for (int turn = 0; turn < TURNS; turn++)
    for (int i = 0; i < CONTENDERS; i++) {
      contender *c = &list[i];
      if (!c->present) continue;
      if (!burst(c, repeats(warm_ms, c->once_ms), mark, &unused, st)) return false;
      if (!burst(c, repeats(timed_ms, c->once_ms), mark, &c->ms[turn], st)) return false;
    }
  return true;
}

/* Of `amount` operations or bytes a run, in tera per second. */
static double rate(contender *c, double amount) {
  double ms = c->present ? mk_gpu_median(c->ms, TURNS) : 0;
  double r = ms > 0 ? amount / (ms * 1e-3) / 1e12 : 0;
  if (c->present) mk_log(MK_LOG_INFO, "measured %s: %.4f ms, %.4g T/s", c->name, ms, r);
  return r;
}

bool mk_gpu_measure_ceilings(mk_gpu_device *d, mk_gpu_ceilings *out, mk_status *st) {
  contender list[CONTENDERS] = {{.name = "copy"}, {.name = "matmul of the library"}, {.name = "generated matmul"}};
  CUevent mark[2] = {NULL, NULL};
  sizes s = {0};
  for (int i = 0; i < CONTENDERS; i++) list[i].d = d;
  *out = (mk_gpu_ceilings){0};
  if (mk_gpu_enter(d, st)) s = sizes_for(d, st);
  if (!mk_failed(st)) open_copy(&list[COPY], &s, st);
  open_matmul(&list[LIBRARY], &s, true, st);
  open_matmul(&list[GENERATED], &s, false, st);
  for (int i = 0; !mk_failed(st) && i < 2; i++) MK_CU(d->cu, st, cuEventCreate(&mark[i], CU_EVENT_DEFAULT));
  if (!mk_failed(st) && race(list, mark, st)) {
    double flop = 2.0 * (double)s.m * (double)s.n * (double)s.k;
    out->copy_tbs = rate(&list[COPY], 2.0 * (double)s.copy_bytes);
    out->matmul_tflops = fmax(rate(&list[LIBRARY], flop), rate(&list[GENERATED], flop));
  }
  for (int i = 0; i < 2; i++)
    if (mark[i]) d->cu->cuEventDestroy(mark[i]);
  for (int i = 0; i < CONTENDERS; i++) close_contender(&list[i]);
  if (!mk_failed(st)) return true;
  mk_fail_context(st, "measuring what the card reaches");
  return false;
}

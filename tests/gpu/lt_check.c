/* Library matmuls on a GPU through hand-made plans: layout, leading dimensions, epilogues, residuals and types against
 * double-precision sums; made-up weights' moments; the speed of uploads and downloads. TAP on standard output. A combination of
 * types that cuBLASLt does not have is skipped, and named: the planner must not count on it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/gpu/executor.h"
#include "runtime/gpu/upload.h"
#include "runtime/gpu/worker.h"

typedef struct shape {
  int64_t m, n, k, lda, ldb, ldc, ldd;
} shape;

typedef struct problem {
  mk_dtype ab, c, d, bias;
  bool tf32;
  mk_lt_epilogue epilogue;
  float beta;
  double bound;
} problem;

static int tests, failures;

static void tap(bool ok, const char *what, const char *more) {
  printf("%sok %d - %s%s\n", ok ? "" : "not ", ++tests, what, more);
  failures += !ok;
}

static float value(uint32_t *x) {
  *x = *x * 1664525 + 1013904223;
  return (float)(int32_t)*x / 2147483648.0f;
}

static float *random_values(int64_t count, mk_dtype rounded_to, uint32_t seed) {
  float *v = malloc((size_t)count * sizeof *v);
  for (int64_t i = 0; i < count; i++) {
    char stored[4];
    float f = value(&seed);
    mk_convert(stored, rounded_to, &f, MK_F32, 1);
    mk_convert(&v[i], MK_F32, stored, rounded_to, 1);
  }
  return v;
}

static double gelu(double x) { return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

/* A plan of one entry with one group: the matmul. Operands are inputs, d is an output, all with their padding. */
typedef struct fixture {
  mk_lt lt;
  mk_launch launch;
  mk_candidate candidate;
  mk_group group;
  mk_step step;
  mk_program programs[3];
  mk_binding inputs[4], output;
  mk_plan plan;
  float *values[4];
} fixture;

static int64_t place(int64_t *end, int64_t bytes) {
  int64_t at = *end;
  *end += (bytes + 255) & ~(int64_t)255;
  return at;
}

static void make(fixture *f, const shape *s, const problem *p) {
  const struct {
    const char *name;
    mk_dtype dtype;
    int64_t rows, ld;
  } operands[] = {{"a", p->ab, s->m, s->lda}, {"b", p->ab, s->n, s->ldb}, {"c", p->c, s->m, s->ldc}, {"bias", p->bias, 1, s->n}};
  int64_t end = 0;
  for (int i = 0; i < 4; i++) {
    int64_t count = operands[i].rows * operands[i].ld, bytes = count * (int64_t)mk_dtype_size(operands[i].dtype);
    f->inputs[i] = (mk_binding){
        operands[i].name, operands[i].dtype, 2, {operands[i].rows, operands[i].ld}, bytes, {MK_SPACE_IO, place(&end, bytes)}};
    f->values[i] = random_values(count, operands[i].dtype, (uint32_t)i + 7);
  }
  int64_t bytes = s->m * s->ldd * (int64_t)mk_dtype_size(p->d);
  f->output = (mk_binding){"d", p->d, 2, {s->m, s->ldd}, bytes, {MK_SPACE_IO, place(&end, bytes)}};
  f->lt = (mk_lt){.m = s->m,
                  .n = s->n,
                  .k = s->k,
                  .lda = s->lda,
                  .ldb = s->ldb,
                  .ldc = s->ldc,
                  .ldd = s->ldd,
                  .ab_type = p->ab,
                  .c_type = p->c,
                  .d_type = p->d,
                  .bias_type = p->bias,
                  .tf32 = p->tf32,
                  .epilogue = p->epilogue,
                  .beta = p->beta,
                  .a = f->inputs[0].ref,
                  .b = f->inputs[1].ref,
                  .c = f->inputs[2].ref,
                  .d = f->output.ref,
                  .bias = f->inputs[3].ref};
  f->launch = (mk_launch){.kind = MK_LAUNCH_LT, .lt = &f->lt};
  f->candidate = (mk_candidate){.label = "cublaslt", .nlaunches = 1, .launches = &f->launch};
  f->group = (mk_group){.name = "matmul", .kind = "matmul", .ncandidates = 1, .candidates = &f->candidate};
  f->step = (mk_step){MK_STEP_GROUP, 0};
  f->programs[0] = (mk_program){"load", MK_RATE_LOAD, 0, NULL};
  f->programs[1] = (mk_program){"prompt", MK_RATE_PROMPT, 0, NULL};
  f->programs[2] = (mk_program){"step", MK_RATE_STEP, 1, &f->step};
  f->plan = (mk_plan){.name = "matmul",
                      .ngroups = 1,
                      .groups = &f->group,
                      .nprograms = 3,
                      .programs = f->programs,
                      .ninputs = 4,
                      .noutputs = 1,
                      .inputs = f->inputs,
                      .outputs = &f->output};
  f->plan.space_bytes[MK_SPACE_IO] = end;
}

static double reference(const fixture *f, int64_t row, int64_t col) {
  const mk_lt *lt = &f->lt;
  double sum = 0;
  for (int64_t i = 0; i < lt->k; i++) sum += (double)f->values[0][row * lt->lda + i] * (double)f->values[1][col * lt->ldb + i];
  if (lt->epilogue == MK_LT_BIAS || lt->epilogue == MK_LT_GELU_BIAS) sum += (double)f->values[3][col];
  sum += lt->beta != 0 ? (double)lt->beta * (double)f->values[2][row * lt->ldc + col] : 0;
  return lt->epilogue == MK_LT_GELU || lt->epilogue == MK_LT_GELU_BIAS ? gelu(sum) : sum;
}

static double error_of(const fixture *f, const float *d) {
  const mk_lt *lt = &f->lt;
  double sum = 0, norm = 0;
  for (int64_t r = 0; r < lt->m; r++)
    for (int64_t c = 0; c < lt->n; c++) {
      double want = reference(f, r, c), diff = (double)d[r * lt->ldd + c] - want;
      sum += diff * diff;
      norm += want * want;
    }
  return sqrt(sum / norm);
}

static void check(mk_gpu_device *device, const shape *s, const problem *p) {
  static const char *const epilogues[] = {"plain", "bias", "gelu", "gelu+bias"};
  fixture f;
  memset(&f, 0, sizeof f);
  make(&f, s, p);
  char what[160], more[2200] = "";
  snprintf(what, sizeof what, "m%lld n%lld k%lld ld %lld %lld %lld: %s%s, c %s, d %s, bias %s, %s, beta %g", (long long)s->m,
           (long long)s->n, (long long)s->k, (long long)s->lda, (long long)s->ldb, (long long)s->ldd, mk_dtype_name(p->ab),
           p->tf32 ? " tf32" : "", mk_dtype_name(p->c), mk_dtype_name(p->d), mk_dtype_name(p->bias), epilogues[p->epilogue],
           (double)p->beta);
  mk_status st = {0};
  mk_source none = {0};
  mk_gpu_lt_op op;
  if (!mk_gpu_lt_make(device, &f.lt, &op, &st)) {
    snprintf(more, sizeof more, " # SKIP %s", st.message);
    tap(true, what, more);
    for (int i = 0; i < 4; i++) free(f.values[i]);
    return;
  }
  mk_gpu_lt_free(device, &op);
  mk_session *session = mk_gpu_session_open(device, &f.plan, &(mk_gpu_session_options){.tune = true, .poison = true}, &st);
  float *d = malloc((size_t)(s->m * s->ldd) * sizeof *d);
  bool ok = session && session->ops->load(session, &none, NULL, NULL, &st);
  for (int i = 0; ok && i < 4; i++) {
    const mk_binding *b = &f.inputs[i];
    mk_tensor t = {.name = b->name,
                   .dtype = MK_F32,
                   .rank = 2,
                   .dims = {b->dims[0], b->dims[1]},
                   .data = f.values[i],
                   .bytes = (size_t)(b->dims[0] * b->dims[1]) * 4};
    ok = session->ops->write(session, &t, &st);
  }
  double worst = 0;
  for (int i = 0; ok && i < 3; i++) { /* plain with timing, captured, replayed */
    ok = session->ops->run(session, "step", &st) && session->ops->read(session, "d", d, (size_t)(s->m * s->ldd) * 4, &st);
    double error = ok ? error_of(&f, d) : INFINITY;
    if (!(error <= worst)) worst = error;
  }
  if (session) session->ops->close(session);
  snprintf(more, sizeof more, ": error %.2e of %.0e%s%s", worst, p->bound, st.code ? " " : "", st.message);
  tap(ok && worst <= p->bound, what, more);
  free(d);
  for (int i = 0; i < 4; i++) free(f.values[i]);
}

static void check_matmuls(mk_gpu_device *device) {
  static const shape shapes[] = {
      {128, 256, 64, 64, 64, 256, 256}, {77, 96, 40, 120, 48, 96, 104}, {1, 320, 256, 256, 256, 320, 320}};
  static const problem problems[] = {
      {MK_BF16, MK_F32, MK_F32, MK_F32, false, MK_LT_NONE, 0, 1e-6},
      {MK_BF16, MK_BF16, MK_BF16, MK_BF16, false, MK_LT_NONE, 0, 4e-3},
      {MK_BF16, MK_BF16, MK_BF16, MK_BF16, false, MK_LT_BIAS, 0, 4e-3},
      {MK_BF16, MK_BF16, MK_BF16, MK_F32, false, MK_LT_BIAS, 0, 4e-3},
      {MK_BF16, MK_F32, MK_F32, MK_F32, false, MK_LT_BIAS, 0, 1e-6},
      {MK_BF16, MK_F32, MK_F32, MK_BF16, false, MK_LT_BIAS, 0, 1e-6},
      {MK_BF16, MK_BF16, MK_BF16, MK_BF16, false, MK_LT_GELU, 0, 4e-3},
      {MK_BF16, MK_BF16, MK_BF16, MK_BF16, false, MK_LT_GELU_BIAS, 0, 4e-3},
      {MK_BF16, MK_BF16, MK_BF16, MK_F32, false, MK_LT_GELU_BIAS, 0, 4e-3},
      {MK_BF16, MK_F32, MK_F32, MK_F32, false, MK_LT_GELU_BIAS, 0, 1e-3},
      {MK_BF16, MK_F32, MK_F32, MK_F32, false, MK_LT_NONE, 1, 1e-6},
      {MK_BF16, MK_F32, MK_F32, MK_F32, false, MK_LT_BIAS, 1, 1e-6},
      {MK_BF16, MK_F32, MK_F32, MK_BF16, false, MK_LT_BIAS, 1, 1e-6},
      {MK_BF16, MK_F32, MK_BF16, MK_F32, false, MK_LT_BIAS, 1, 4e-3},
      {MK_F16, MK_F16, MK_F16, MK_F16, false, MK_LT_BIAS, 0, 1e-3},
      {MK_F16, MK_F32, MK_F32, MK_F32, false, MK_LT_NONE, 1, 1e-6},
      {MK_F32, MK_F32, MK_F32, MK_F32, false, MK_LT_NONE, 0, 1e-6},
      {MK_F32, MK_F32, MK_F32, MK_F32, false, MK_LT_BIAS, 0, 1e-6},
      {MK_F32, MK_F32, MK_F32, MK_F32, false, MK_LT_BIAS, 1, 1e-6},
      {MK_F32, MK_F32, MK_F32, MK_F32, false, MK_LT_GELU_BIAS, 0, 1e-3},
      {MK_F32, MK_F32, MK_F32, MK_F32, true, MK_LT_NONE, 0, 1e-3},
      {MK_F32, MK_F32, MK_F32, MK_F32, true, MK_LT_GELU_BIAS, 0, 2e-3},
      {MK_F32, MK_F32, MK_F32, MK_F32, true, MK_LT_BIAS, 1, 1e-3},
  };
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (size_t p = 0; p < sizeof problems / sizeof *problems; p++) check(device, &shapes[s], &problems[p]);
}

/* ---- weights */

static void check_synthetic(mk_gpu_device *d) {
  static const mk_dtype types[] = {MK_F32, MK_BF16, MK_F16};
  mk_arena arena = {0};
  mk_status st = {0};
  mk_gpu_synthetic fill = {0};
  mk_gpu_block block = {0};
  int64_t count = 1000003;
  float *v = malloc((size_t)count * sizeof *v);
  bool ok = mk_gpu_synthetic_open(d, &fill, &arena, &st) && mk_gpu_block_alloc(d, &block, count * 4, "a test", &st);
  for (int i = 0; i < 3; i++) {
    mk_binding b = {
        .name = "gain.weight", .dtype = types[i], .rank = 1, .dims = {count}, .bytes = count * (int64_t)mk_dtype_size(types[i])};
    ok = ok && mk_gpu_fill_synthetic(d, &fill, &b, block.ptr, 1, &st) &&
         mk_gpu_download(d, v, MK_F32, block.ptr, types[i], count, &st);
    double mean = 0, square = 0;
    for (int64_t k = 0; ok && k < count; k++) mean += (double)v[k] / (double)count;
    for (int64_t k = 0; ok && k < count; k++) square += ((double)v[k] - mean) * ((double)v[k] - mean) / (double)count;
    char more[2200];
    snprintf(more, sizeof more, " %s: mean %.4f, deviation %.4f %s", mk_dtype_name(types[i]), mean, sqrt(square), st.message);
    tap(ok && fabs(mean - 1) < 1e-3 && fabs(sqrt(square) - 0.1) < 1e-3, "made-up weights", more);
  }
  mk_gpu_block_free(d, &block);
  mk_gpu_synthetic_close(d, &fill);
  mk_arena_free(&arena);
  free(v);
}

static void check_copies(mk_gpu_device *d) {
  int64_t count = (int64_t)1 << 29; /* 2 GiB of f32, half of that as bf16 */
  mk_status st = {0};
  mk_gpu_block block = {0};
  float *from = malloc((size_t)count * 4), *to = malloc((size_t)count * 4);
  for (int64_t i = 0; i < count; i++) from[i] = (float)(i % 9973);
  memset(to, 1, (size_t)count * 4); /* so that its pages are there */
  bool ok = from && to && mk_gpu_block_alloc(d, &block, count * 4, "a test", &st);
  double t0 = mk_now();
  ok = ok && mk_gpu_upload(d, d->stream, block.ptr, MK_F32, from, MK_F32, count, NULL, NULL, &st) && mk_gpu_wait(d, &st);
  double t1 = mk_now();
  ok = ok && mk_gpu_download(d, to, MK_F32, block.ptr, MK_F32, count, &st);
  double t2 = mk_now();
  ok = ok && !memcmp(from, to, (size_t)count * 4);
  char more[2200];
  snprintf(more, sizeof more, ": up %.1f GB/s, down %.1f GB/s %s", 4e-9 * (double)count / (t1 - t0),
           4e-9 * (double)count / (t2 - t1), st.message);
  tap(ok, "2 GiB there and back", more);
  mk_gpu_block_free(d, &block);
  free(from);
  free(to);
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "compile-worker"))
    _exit(mk_worker_main(STDIN_FILENO, argc > 2 && argv[2][0] ? argv[2] : NULL));
  setenv("MOONKILN_WORKER", "/proc/self/exe", 0); /* this program serves as its own compile worker */
  mk_status st = {0};
  mk_gpu_device *d = mk_gpu_device_open(0, &st);
  if (!d) {
    printf("Bail out! %s\n", st.message);
    return 1;
  }
  check_matmuls(d);
  check_synthetic(d);
  check_copies(d);
  printf("1..%d\n# %d passed, %d failed\n", tests, tests - failures, failures);
  mk_gpu_device_close(d);
  return failures ? 1 : 0;
}

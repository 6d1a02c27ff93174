#include "runtime/gpu/synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/hash.h"

typedef struct fill_params { /* NormalFillParams of templates/philox.cu */
  CUdeviceptr out;
  int64_t count;
  uint64_t seed, stream;
  float mean, scale;
} fill_params;

bool mk_gpu_synthetic_open(mk_gpu_device *d, mk_gpu_synthetic *out, mk_arena *arena, mk_status *st) {
  static const char *const names[MK_DTYPE_COUNT] = {
      [MK_F32] = "normal_fill_f32", [MK_F16] = "normal_fill_f16", [MK_BF16] = "normal_fill_bf16"};
  return out->kernel.module || mk_gpu_kernels_of_file(d, "philox.cu", names, MK_DTYPE_COUNT, &out->kernel, out->fill, arena, st);
}

void mk_gpu_synthetic_close(mk_gpu_device *d, mk_gpu_synthetic *f) {
  mk_gpu_kernels_free(d, &f->kernel, 1);
  *f = (mk_gpu_synthetic){0};
}

static bool ends_with(const char *name, const char *end) {
  size_t n = strlen(name), m = strlen(end);
  return n >= m && !strcmp(name + n - m, end);
}

mk_gpu_synthetic_rule mk_gpu_synthetic_rule_of(const char *name, const int64_t *dims, int rank) {
  if (ends_with(name, "modulation") || ends_with(name, "scale_shift_table")) return (mk_gpu_synthetic_rule){0, 0.3f};
  int64_t fan_in = 1;
  for (int i = 1; i < rank; i++) fan_in *= dims[i];
  /* The VAE's gains are [C,1,1,1]: vectors, whatever their rank says. */
  bool vector = rank < 2 || fan_in == 1;
  if (!vector) return (mk_gpu_synthetic_rule){0, (float)(1 / sqrt((double)fan_in))};
  if (ends_with(name, "weight") || ends_with(name, "gamma")) return (mk_gpu_synthetic_rule){1, 0.1f};
  return (mk_gpu_synthetic_rule){0, 0.02f};
}

bool mk_gpu_fill_normal(mk_gpu_device *d, const mk_gpu_synthetic *f, CUdeviceptr to, mk_dtype dtype, int64_t count, uint64_t seed,
                        uint64_t stream, mk_gpu_synthetic_rule rule, mk_status *st) {
  CUfunction fill = f->fill[dtype];
  if (!fill) return MK_CU(d->cu, st, cuMemsetD8Async(to, 0, (size_t)count * mk_dtype_size(dtype), d->stream));
  int64_t blocks = (count / 4 + 255) / 256;
  fill_params params = {to, count, seed, stream, rule.mean, rule.deviation};
  int64_t most = 8 * (int64_t)d->sms;
  CUlaunchConfig config = {.gridDimX = (unsigned)(blocks < 1      ? 1
                                                  : blocks > most ? most
                                                                  : blocks),
                           .gridDimY = 1,
                           .gridDimZ = 1,
                           .blockDimX = 256,
                           .blockDimY = 1,
                           .blockDimZ = 1,
                           .hStream = d->stream};
  void *list[] = {&params};
  if (!MK_CU(d->cu, st, cuLaunchKernelEx(&config, fill, list, NULL))) return false;
  mk_gpu_launched(d);
  return true;
}

bool mk_gpu_fill_synthetic(mk_gpu_device *d, const mk_gpu_synthetic *f, const mk_binding *b, CUdeviceptr to, uint64_t seed,
                           mk_status *st) {
  return mk_gpu_fill_normal(d, f, to, b->dtype, mk_dims_count(b->dims, b->rank), seed, mk_hash64(b->name, strlen(b->name)),
                            mk_gpu_synthetic_rule_of(b->name, b->dims, b->rank), st);
}

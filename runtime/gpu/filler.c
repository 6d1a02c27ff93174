#include "runtime/gpu/filler.h"

#include "runtime/base/clock.h"
#include "runtime/gpu/memory.h"

/* 64 + 64 + 32 MiB; random operands, as zeros draw little power. */
enum { M = 4096, N = 4096, K = 8192 };
static const int64_t block_bytes = (int64_t)256 << 20; /* twice the largest L2 cache there is */
static const double settle_seconds = 0.15;             /* the power limit's control takes some tens of milliseconds */
enum { BATCH = 16 };

static bool open_matmul(mk_gpu_filler *f, const mk_gpu_synthetic *fill, mk_status *st) {
  static const mk_gpu_synthetic_rule rule = {0, 0.5f};
  const int64_t a_bytes = (int64_t)2 * M * K, b_bytes = (int64_t)2 * N * K;
  mk_status why = {0};
  CUdeviceptr a = f->block.ptr, b = a + (CUdeviceptr)a_bytes, c = b + (CUdeviceptr)b_bytes;
  f->problem = (mk_lt){.m = M, .n = N, .k = K, .lda = K, .ldb = K, .ldc = N, .ldd = N};
  f->problem.ab_type = f->problem.c_type = f->problem.d_type = f->problem.bias_type = MK_BF16;
  f->heavy = mk_gpu_lt_make(f->d, &f->problem, &f->matmul, &why);
  f->ms = f->heavy ? 0.4 : 0.1;
  return !f->heavy || (mk_gpu_lt_bind(f->d, &f->matmul, a, b, c, c, 0, st) &&
                       mk_gpu_fill_normal(f->d, fill, a, MK_BF16, (a_bytes + b_bytes) / 2, 1, 0, rule, st));
}

bool mk_gpu_filler_open(mk_gpu_filler *f, mk_gpu_device *d, const mk_gpu_synthetic *fill, mk_status *st) {
  int cache = 0;
  f->d = d;
  d->cu->cuDeviceGetAttribute(&cache, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, d->device);
  f->cache_bytes = cache;
  return mk_gpu_block_alloc(d, &f->block, block_bytes, "work between timed runs", st) && open_matmul(f, fill, st);
}

void mk_gpu_filler_close(mk_gpu_filler *f) {
  if (!f->d) return;
  if (f->heavy) mk_gpu_lt_free(f->d, &f->matmul);
  mk_gpu_block_free(f->d, &f->block);
  *f = (mk_gpu_filler){0};
}

bool mk_gpu_filler_run(mk_gpu_filler *f, mk_status *st) {
  if (f->heavy) return mk_gpu_lt_run(f->d, &f->matmul, st);
  return MK_CU(f->d->cu, st, cuMemsetD8Async(f->block.ptr, 0, (size_t)f->block.bytes, f->d->stream));
}

bool mk_gpu_filler_settle(mk_gpu_filler *f, mk_status *st) {
  double end = mk_now() + settle_seconds;
  while (f->heavy && mk_now() < end) {
    for (int i = 0; i < BATCH; i++)
      if (!mk_gpu_filler_run(f, st)) return false;
    if (!mk_gpu_wait(f->d, st)) return false;
  }
  return true;
}

bool mk_gpu_filler_touch(mk_gpu_filler *f, CUdeviceptr from, int64_t bytes, mk_status *st) {
  if (bytes > f->cache_bytes / 2 || bytes > f->block.bytes / 4) return true;
  CUdeviceptr to = f->block.ptr + (CUdeviceptr)(f->block.bytes - bytes); /* behind the operands */
  return MK_CU(f->d->cu, st, cuMemcpyDtoDAsync(to, from, (size_t)bytes, f->d->stream));
}

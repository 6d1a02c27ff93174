#include "runtime/gpu/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/upload.h"

enum { CHUNK = 4096 /* of templates/compare.cu */, FILL_ALIGN = 16 };

static const mk_gpu_synthetic_rule inputs = {0, 0.5f};

typedef struct compare_params { /* CompareParams of templates/compare.cu */
  CUdeviceptr want, have, sums;
  int64_t count;
} compare_params;

bool mk_gpu_probe_open(mk_gpu_probe *p, mk_gpu_device *d, mk_status *st) {
  static const char *const names[MK_DTYPE_COUNT] = {
      [MK_F32] = "compare_f32", [MK_F16] = "compare_f16", [MK_BF16] = "compare_bf16", [MK_I32] = "compare_i32"};
  p->d = d;
  return mk_gpu_synthetic_open(d, &p->fill, &p->arena, st) &&
         mk_gpu_kernels_of_file(d, "compare.cu", names, MK_DTYPE_COUNT, &p->kernel, p->compare, &p->arena, st);
}

void mk_gpu_probe_close(mk_gpu_probe *p) {
  if (!p->d) return;
  mk_gpu_block *const blocks[] = {&p->saved, &p->kept, &p->sums};
  for (int i = 0; i < 3; i++) mk_gpu_block_free(p->d, blocks[i]);
  mk_gpu_synthetic_close(p->d, &p->fill);
  mk_gpu_kernels_free(p->d, &p->kernel, 1);
  free(p->host_sums);
  mk_arena_free(&p->arena);
  *p = (mk_gpu_probe){0};
}

static CUdeviceptr at(const mk_gpu_probe *p, const mk_extent *e) { return mk_gpu_address(&p->spaces, e->ref); }

static int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

static bool overlap(const mk_extent *a, const mk_extent *b) {
  return a->ref.space == b->ref.space && a->ref.offset < b->ref.offset + b->bytes && b->ref.offset < a->ref.offset + a->bytes;
}

/* Integers are indices and lengths: the one value that is valid for them. */
static bool fill_integers(mk_gpu_probe *p, const mk_extent *e, mk_status *st) {
  return MK_CU(p->d->cu, st, cuMemsetD32Async(at(p, e), (unsigned)e->integer, (size_t)e->bytes / 4, p->d->stream));
}

static bool fill(mk_gpu_probe *p, const mk_extent *e, uint64_t stream, mk_status *st) {
  if (e->dtype == MK_I32) return fill_integers(p, e, st);
  CUdeviceptr to = at(p, e);
  int64_t head = (int64_t)(-to & (FILL_ALIGN - 1)); /* a part of a larger buffer may begin anywhere */
  if (head > e->bytes) head = e->bytes;
  if (head && !MK_CU(p->d->cu, st, cuMemsetD8Async(to, 0, (size_t)head, p->d->stream))) return false;
  int64_t count = (e->bytes - head) / (int64_t)mk_dtype_size(e->dtype);
  return !count || mk_gpu_fill_normal(p->d, &p->fill, to + (CUdeviceptr)head, e->dtype, count, 1, stream, inputs, st);
}

static bool reserve(mk_gpu_probe *p, mk_gpu_block *b, int64_t bytes, mk_status *st) {
  if (bytes <= b->bytes) return true;
  if (!mk_gpu_wait(p->d, st)) return false;
  mk_gpu_block_free(p->d, b);
  return mk_gpu_block_alloc(p->d, b, bytes, "tuning", st);
}

/* Copies the extents chosen by `which` between their places and the block, where they lie one after the other. */
static bool copy_extents(mk_gpu_probe *p, const bool *which, const mk_gpu_block *b, bool out, mk_status *st) {
  CUdeviceptr next = b->ptr;
  for (int i = 0; i < p->group->nextents; i++) {
    const mk_extent *e = &p->group->extents[i];
    if (!which[i]) continue;
    CUdeviceptr to = out ? next : at(p, e), from = out ? at(p, e) : next;
    if (!MK_CU(p->d->cu, st, cuMemcpyDtoDAsync(to, from, (size_t)e->bytes, p->d->stream))) return false;
    next += (CUdeviceptr)aligned(e->bytes);
  }
  return true;
}

static int64_t chunks_of(const mk_extent *e) {
  int64_t count = e->bytes / (int64_t)mk_dtype_size(e->dtype);
  return (count + CHUNK - 1) / CHUNK;
}

bool mk_gpu_probe_begin(mk_gpu_probe *p, const mk_group *g, const mk_gpu_spaces *spaces, mk_status *st) {
  int64_t saved = 0, kept = 0, chunks = 0;
  p->group = g;
  p->spaces = *spaces;
  p->in_place = MK_NEW_ARRAY(&p->arena, bool, g->nextents);
  p->written = MK_NEW_ARRAY(&p->arena, bool, g->nextents);
  for (int i = 0; i < g->nextents; i++) {
    const mk_extent *e = &g->extents[i];
    p->written[i] = e->written;
    for (int k = 0; k < g->nextents && (e->written || e->spoilt); k++)
      if (g->extents[k].read && overlap(e, &g->extents[k])) p->in_place[i] = true;
    if (p->in_place[i]) saved += aligned(e->bytes);
    if (e->written) kept += aligned(e->bytes);
    if (e->written && chunks_of(e) > chunks) chunks = chunks_of(e);
  }
  if (!reserve(p, &p->saved, saved, st) || !reserve(p, &p->kept, kept, st) || !reserve(p, &p->sums, chunks * 16, st))
    return false;
  double *sums = realloc(p->host_sums, (size_t)p->sums.bytes + 16);
  if (!sums) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  p->host_sums = sums;
  for (int i = 0; i < g->nextents; i++)
    if (g->extents[i].read && !fill(p, &g->extents[i], (uint64_t)i, st)) return false;
  return copy_extents(p, p->in_place, &p->saved, true, st);
}

bool mk_gpu_probe_reset(mk_gpu_probe *p, bool poison, mk_status *st) {
  for (int i = 0; poison && i < p->group->nextents; i++) {
    const mk_extent *e = &p->group->extents[i];
    if (!e->written || p->in_place[i]) continue;
    if (!MK_CU(p->d->cu, st, cuMemsetD8Async(at(p, e), 0xff, (size_t)e->bytes, p->d->stream))) return false;
  }
  return copy_extents(p, p->in_place, &p->saved, false, st);
}

bool mk_gpu_probe_keep(mk_gpu_probe *p, mk_status *st) { return copy_extents(p, p->written, &p->kept, true, st); }

/* Waits for the sums of one buffer. */
static bool compare_extent(mk_gpu_probe *p, const mk_extent *e, CUdeviceptr want, double *error, double *worst, mk_status *st) {
  mk_gpu_device *d = p->d;
  int64_t count = e->bytes / (int64_t)mk_dtype_size(e->dtype), chunks = chunks_of(e);
  compare_params params = {want, at(p, e), p->sums.ptr, count};
  CUlaunchConfig config = {.gridDimX = (unsigned)chunks,
                           .gridDimY = 1,
                           .gridDimZ = 1,
                           .blockDimX = 256,
                           .blockDimY = 1,
                           .blockDimZ = 1,
                           .hStream = d->stream};
  void *list[] = {&params};
  if (!MK_CU(d->cu, st, cuLaunchKernelEx(&config, p->compare[e->dtype], list, NULL))) return false;
  /* Doubles, taken out as pairs of 32-bit units. */
  if (!mk_gpu_download(d, p->host_sums, MK_I32, p->sums.ptr, MK_I32, 4 * chunks, st)) return false;
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < chunks; i++) {
    difference += p->host_sums[2 * i];
    norm += p->host_sums[2 * i + 1];
  }
  double all = difference > 0 ? sqrt(difference / norm) : 0, mean = norm / (double)count;
  if (all > *error || isnan(all)) *error = isnan(all) ? INFINITY : all;
  for (int64_t i = 0; i < chunks; i++) {
    double one = p->host_sums[2 * i] > 0 ? sqrt(p->host_sums[2 * i] / (p->host_sums[2 * i + 1] + CHUNK * mean)) : 0;
    if (one > *worst || isnan(one)) *worst = isnan(one) ? INFINITY : one;
  }
  return true;
}

bool mk_gpu_probe_compare(mk_gpu_probe *p, double *error, double *worst, mk_status *st) {
  CUdeviceptr want = p->kept.ptr;
  *error = *worst = 0;
  for (int i = 0; i < p->group->nextents; i++) {
    const mk_extent *e = &p->group->extents[i];
    if (!e->written || !e->bytes) continue;
    if (!compare_extent(p, e, want, error, worst, st)) return false;
    want += (CUdeviceptr)aligned(e->bytes);
  }
  return true;
}

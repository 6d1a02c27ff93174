#include "runtime/gpu/upload.h"

#include <string.h>

/* A slice per task: large enough to hide the scheduling, small enough that every core gets some of a buffer. */
static const int64_t slice_bytes = 1 << 20;

enum { SMALLEST_SLOT = 256 << 10 };

void mk_gpu_slots_free(mk_gpu_device *d) {
  for (int i = 0; i < MK_GPU_SLOTS; i++) {
    if (d->slots[i].done) d->cu->cuEventDestroy(d->slots[i].done);
    if (d->slots[i].host) d->cu->cuMemFreeHost(d->slots[i].host);
  }
  memset(d->slots, 0, sizeof d->slots);
}

static void convert(void *dst, mk_dtype dst_type, const void *src, mk_dtype src_type, int64_t count) {
  int64_t to = (int64_t)mk_dtype_size(dst_type), from = (int64_t)mk_dtype_size(src_type);
  int64_t per = slice_bytes / to, slices = (count + per - 1) / per;
#pragma omp parallel for schedule(dynamic) if (slices > 1)
  for (int64_t s = 0; s < slices; s++) {
    int64_t begin = s * per, n = count - begin < per ? count - begin : per;
    char *out = (char *)dst + begin * to;
    const char *in = (const char *)src + begin * from;
    if (dst_type == src_type) {
      memcpy(out, in, (size_t)(n * to));
    } else {
      mk_convert(out, dst_type, in, src_type, (size_t)n);
    }
  }
}

/* The next staging buffer, once its last copy is over. Page-locking takes a millisecond for 3 MiB: no more than is needed. */
static mk_gpu_slot *slot_take(mk_gpu_device *d, int64_t bytes, mk_status *st) {
  mk_gpu_slot *slot = &d->slots[d->next_slot];
  int64_t room = SMALLEST_SLOT;
  d->next_slot = (d->next_slot + 1) % MK_GPU_SLOTS;
  if (!slot->done && !MK_CU(d->cu, st, cuEventCreate(&slot->done, CU_EVENT_DISABLE_TIMING))) return NULL;
  if (!MK_CU(d->cu, st, cuEventSynchronize(slot->done))) return NULL;
  if (slot->bytes >= bytes) return slot;
  while (room < bytes) room *= 2;
  if (slot->host) d->cu->cuMemFreeHost(slot->host);
  slot->host = NULL;
  slot->bytes = 0;
  if (!MK_CU(d->cu, st, cuMemHostAlloc(&slot->host, (size_t)room, 0))) return NULL;
  slot->bytes = room;
  return slot;
}

bool mk_gpu_upload(mk_gpu_device *d, CUstream stream, CUdeviceptr dst, mk_dtype dst_type, const void *src, mk_dtype src_type,
                   int64_t count, mk_gpu_upload_fn progress, void *user, mk_status *st) {
  int64_t to = (int64_t)mk_dtype_size(dst_type), from = (int64_t)mk_dtype_size(src_type);
  int64_t per = MK_GPU_SLOT_BYTES / to;
  for (int64_t begin = 0; begin < count; begin += per) {
    int64_t n = count - begin < per ? count - begin : per;
    mk_gpu_slot *slot = slot_take(d, n * to, st);
    if (!slot) return false;
    convert(slot->host, dst_type, (const char *)src + begin * from, src_type, n);
    CUresult r = d->cu->cuMemcpyHtoDAsync(dst + (CUdeviceptr)(begin * to), slot->host, (size_t)(n * to), stream);
    if (!mk_driver_check(d->cu, r, "cuMemcpyHtoDAsync", st)) return false;
    if (!MK_CU(d->cu, st, cuEventRecord(slot->done, stream))) return false;
    if (progress && !progress(user, n * to)) {
      mk_fail(st, MK_EINTERRUPTED, "stopped while weights were loading");
      return false;
    }
  }
  return true;
}

typedef struct piece { /* a download under way */
  mk_gpu_slot *slot;
  int64_t begin, count;
} piece;

static bool download_finish(mk_gpu_device *d, void *dst, mk_dtype dst_type, mk_dtype src_type, const piece *p, mk_status *st) {
  if (!p->slot) return true;
  if (!MK_CU(d->cu, st, cuEventSynchronize(p->slot->done))) return false;
  convert((char *)dst + p->begin * (int64_t)mk_dtype_size(dst_type), dst_type, p->slot->host, src_type, p->count);
  return true;
}

bool mk_gpu_download(mk_gpu_device *d, void *dst, mk_dtype dst_type, CUdeviceptr src, mk_dtype src_type, int64_t count,
                     mk_status *st) {
  int64_t from = (int64_t)mk_dtype_size(src_type), per = MK_GPU_SLOT_BYTES / from;
  piece last = {0}; /* converted while the next one is copied */
  for (int64_t begin = 0; begin < count; begin += per) {
    piece p = {NULL, begin, count - begin < per ? count - begin : per};
    p.slot = slot_take(d, p.count * from, st);
    if (!p.slot) return false;
    CUresult r = d->cu->cuMemcpyDtoHAsync(p.slot->host, src + (CUdeviceptr)(begin * from), (size_t)(p.count * from), d->stream);
    if (!mk_driver_check(d->cu, r, "cuMemcpyDtoHAsync", st)) return false;
    if (!MK_CU(d->cu, st, cuEventRecord(p.slot->done, d->stream))) return false;
    if (!download_finish(d, dst, dst_type, src_type, &last, st)) return false;
    last = p;
  }
  return download_finish(d, dst, dst_type, src_type, &last, st);
}

/* Copies between pageable host memory and the device through a ring of page-locked buffers, so that filling one buffer (with
 * all cores: pages of a mapped file fault in on the way) overlaps the copy of the one before. */
#ifndef MK_GPU_UPLOAD_H
#define MK_GPU_UPLOAD_H

#include "runtime/base/tensor.h"
#include "runtime/gpu/device.h"

enum { MK_GPU_SLOT_BYTES = 32 << 20 };

/* Called after each buffer's worth, with the bytes of dst done; false stops with MK_EINTERRUPTED. */
typedef bool (*mk_gpu_upload_fn)(void *user, int64_t bytes);

/* Enqueues on stream: count elements at src, converted to dst_type, to dst. src may be reused when this returns. */
bool mk_gpu_upload(mk_gpu_device *d, CUstream stream, CUdeviceptr dst, mk_dtype dst_type, const void *src, mk_dtype src_type,
                   int64_t count, mk_gpu_upload_fn progress, void *user, mk_status *st);

/* Waits for what is on the main stream, then copies count elements out, converted. */
bool mk_gpu_download(mk_gpu_device *d, void *dst, mk_dtype dst_type, CUdeviceptr src, mk_dtype src_type, int64_t count,
                     mk_status *st);

void mk_gpu_slots_free(mk_gpu_device *d);

#endif

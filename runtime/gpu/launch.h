/* Launches with everything resolved: functions, addresses, parameter structs, tensor maps. */
#ifndef MK_GPU_LAUNCH_H
#define MK_GPU_LAUNCH_H

#include "codegen/plan.h"
#include "runtime/gpu/device.h"
#include "runtime/gpu/lt.h"

typedef struct mk_gpu_spaces { /* where a plan's spaces are */
  CUdeviceptr base[MK_SPACE_COUNT];
} mk_gpu_spaces;

static inline CUdeviceptr mk_gpu_address(const mk_gpu_spaces *s, mk_ref r) { return s->base[r.space] + (CUdeviceptr)r.offset; }

typedef struct mk_gpu_launch {
  const mk_launch *plan;
  CUfunction function;  /* KERNEL */
  void *params;         /* KERNEL: the by-value struct, 64-byte aligned, owned by the arena given to make */
  mk_gpu_lt_op lt;      /* LT */
  CUdeviceptr dst, src; /* COPY, ZERO */
} mk_gpu_launch;

/* What does not depend on addresses. function: of a KERNEL launch, else NULL. Free with mk_gpu_launch_free. */
bool mk_gpu_launch_make(mk_gpu_device *d, const mk_launch *plan, CUfunction function, mk_arena *arena, mk_gpu_launch *out,
                        mk_status *st);
void mk_gpu_launch_free(mk_gpu_device *d, mk_gpu_launch *l);
/* Fills in the addresses; again whenever a space moves. */
bool mk_gpu_launch_bind(mk_gpu_device *d, mk_gpu_launch *l, const mk_gpu_spaces *spaces, mk_status *st);
/* Enqueues on the device's stream. */
bool mk_gpu_launch_run(mk_gpu_device *d, const mk_gpu_launch *l, mk_status *st);

/* Sets what the kernel needs before its first launch: shared memory above 48 KiB, wide clusters. Loads it, too. */
bool mk_gpu_function_prepare(mk_gpu_device *d, CUfunction f, const mk_launch *launch, mk_status *st);

#endif

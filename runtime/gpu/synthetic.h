/* Weights made on the device from a seed, to time a model of any size with no checkpoint. */
#ifndef MK_GPU_SYNTHETIC_H
#define MK_GPU_SYNTHETIC_H

#include "codegen/plan.h"
#include "runtime/gpu/module.h"

typedef struct mk_gpu_synthetic { /* the kernels that fill tensors */
  mk_gpu_kernel kernel;
  CUfunction fill[MK_DTYPE_COUNT]; /* NULL for i32 */
} mk_gpu_synthetic;

/* Compiles templates/philox.cu. Close with mk_gpu_synthetic_close. */
bool mk_gpu_synthetic_open(mk_gpu_device *d, mk_gpu_synthetic *out, mk_arena *arena, mk_status *st);
void mk_gpu_synthetic_close(mk_gpu_device *d, mk_gpu_synthetic *f);

typedef struct mk_gpu_synthetic_rule { /* values: mean + deviation * N(0,1) */
  float mean, deviation;
} mk_gpu_synthetic_rule;

/* What values of this name and shape look like in a trained model: norm gains near 1, matrices that keep their input's scale. */
mk_gpu_synthetic_rule mk_gpu_synthetic_rule_of(const char *name, const int64_t *dims, int rank);

/* Enqueues count values N(mean, deviation) at `to`, which is aligned to 16 bytes; stream tells tensors of one seed apart.
 * Integers become 0. */
bool mk_gpu_fill_normal(mk_gpu_device *d, const mk_gpu_synthetic *f, CUdeviceptr to, mk_dtype dtype, int64_t count, uint64_t seed,
                        uint64_t stream, mk_gpu_synthetic_rule rule, mk_status *st);

/* Enqueues the fill on the main stream. The values depend on seed, name, shape and dtype only; integers become 0. */
bool mk_gpu_fill_synthetic(mk_gpu_device *d, const mk_gpu_synthetic *f, const mk_binding *b, CUdeviceptr to, uint64_t seed,
                           mk_status *st);

#endif

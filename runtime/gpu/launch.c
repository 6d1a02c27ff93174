#include "runtime/gpu/launch.h"

#include <string.h>

enum { PARAM_ALIGN = 64 }; /* a tensor map's */

static CUtensorMapDataType tmap_type(mk_dtype t) {
  switch (t) {
    case MK_BF16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case MK_F16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case MK_I32: return CU_TENSOR_MAP_DATA_TYPE_INT32;
    default: return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  }
}

static CUtensorMapSwizzle tmap_swizzle(int bytes) {
  switch (bytes) {
    case 32: return CU_TENSOR_MAP_SWIZZLE_32B;
    case 64: return CU_TENSOR_MAP_SWIZZLE_64B;
    case 128: return CU_TENSOR_MAP_SWIZZLE_128B;
    default: return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

static CUtensorMapL2promotion tmap_promotion(int bytes) {
  switch (bytes) {
    case 64: return CU_TENSOR_MAP_L2_PROMOTION_L2_64B;
    case 128: return CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
    case 256: return CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
    default: return CU_TENSOR_MAP_L2_PROMOTION_NONE;
  }
}

/* Values beyond the dims read as zero. */
static bool encode(mk_gpu_device *d, void *out, const mk_tmap *t, CUdeviceptr base, mk_status *st) {
  cuuint64_t dims[5], strides[4];
  cuuint32_t box[5], steps[5];
  for (int i = 0; i < t->rank; i++) {
    dims[i] = t->dims[i];
    box[i] = t->box[i];
    steps[i] = 1;
    if (i + 1 < t->rank) strides[i] = t->strides[i];
  }
  if (!d->cu->cuTensorMapEncodeTiled) {
    mk_fail(st, MK_EGPU, "the driver has no tensor maps (cuTensorMapEncodeTiled): update it to one for CUDA 12 or later");
    return false;
  }
  CUtensorMap map;
  CUresult r = d->cu->cuTensorMapEncodeTiled(&map, tmap_type(t->dtype), (cuuint32_t)t->rank, (void *)base, dims, strides, box,
                                             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, tmap_swizzle(t->swizzle),
                                             tmap_promotion(t->l2_promotion), CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (!mk_driver_check(d->cu, r, "cuTensorMapEncodeTiled", st)) {
    mk_fail_context(st, "tensor map of rank %d, dims %llu x %llu, box %u x %u, swizzle %d", t->rank, (unsigned long long)dims[0],
                    (unsigned long long)(t->rank > 1 ? dims[1] : 1), box[0], t->rank > 1 ? box[1] : 1, t->swizzle);
    return false;
  }
  memcpy(out, &map, sizeof map);
  return true;
}

bool mk_gpu_function_prepare(mk_gpu_device *d, CUfunction f, const mk_launch *launch, mk_status *st) {
  CUresult r;
  if (launch->smem > (uint32_t)d->smem_limit) {
    mk_fail(st, MK_EUNSUPPORTED, "needs %u bytes of shared memory, the GPU has %d a block", launch->smem, d->smem_limit);
    return false;
  }
  if (launch->smem > 48 << 10) {
    r = d->cu->cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)launch->smem);
    if (!mk_driver_check(d->cu, r, "cuFuncSetAttribute(shared memory)", st)) return false;
  }
  if (launch->cluster[0] * launch->cluster[1] * launch->cluster[2] > 8) {
    r = d->cu->cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
    if (!mk_driver_check(d->cu, r, "cuFuncSetAttribute(cluster)", st)) return false;
  }
  int registers = 0; /* asking for an attribute loads a lazily loaded kernel, so no launch pays for that */
  r = d->cu->cuFuncGetAttribute(&registers, CU_FUNC_ATTRIBUTE_NUM_REGS, f);
  if (!mk_driver_check(d->cu, r, "cuFuncGetAttribute", st)) return false;
  int threads = (int)(launch->block[0] * launch->block[1] * launch->block[2]), most = 0;
  r = d->cu->cuFuncGetAttribute(&most, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f);
  if (!mk_driver_check(d->cu, r, "cuFuncGetAttribute", st)) return false;
  if (threads > most) {
    mk_fail(st, MK_EUNSUPPORTED, "a block of %d threads does not fit: with %d registers a thread, %d do", threads, registers,
            most);
    return false;
  }
  return true;
}

bool mk_gpu_launch_make(mk_gpu_device *d, const mk_launch *plan, CUfunction function, mk_arena *arena, mk_gpu_launch *out,
                        mk_status *st) {
  *out = (mk_gpu_launch){.plan = plan, .function = function};
  if (plan->kind == MK_LAUNCH_LT) return mk_gpu_lt_make(d, plan->lt, &out->lt, st);
  if (plan->kind != MK_LAUNCH_KERNEL) return true;
  size_t bytes = (plan->param_bytes + PARAM_ALIGN - 1) & ~(size_t)(PARAM_ALIGN - 1);
  uintptr_t raw = (uintptr_t)mk_alloc(arena, bytes + PARAM_ALIGN);
  out->params = (void *)((raw + PARAM_ALIGN - 1) & ~(uintptr_t)(PARAM_ALIGN - 1));
  for (int i = 0; i < plan->nargs; i++) {
    const mk_arg *a = &plan->args[i];
    char *field = (char *)out->params + a->offset;
    int32_t small = (int32_t)a->i;
    if (a->kind == MK_ARG_I32) memcpy(field, &small, sizeof small);
    if (a->kind == MK_ARG_I64) memcpy(field, &a->i, sizeof a->i);
    if (a->kind == MK_ARG_F32) memcpy(field, &a->f, sizeof a->f);
  }
  return true;
}

void mk_gpu_launch_free(mk_gpu_device *d, mk_gpu_launch *l) {
  if (l->lt.lt) mk_gpu_lt_free(d, &l->lt);
}

bool mk_gpu_launch_bind(mk_gpu_device *d, mk_gpu_launch *l, const mk_gpu_spaces *spaces, mk_status *st) {
  const mk_launch *plan = l->plan;
  if (plan->kind == MK_LAUNCH_LT) {
    const mk_lt *lt = plan->lt;
    return mk_gpu_lt_bind(d, &l->lt, mk_gpu_address(spaces, lt->a), mk_gpu_address(spaces, lt->b), mk_gpu_address(spaces, lt->c),
                          mk_gpu_address(spaces, lt->d), mk_gpu_address(spaces, lt->bias), st);
  }
  l->dst = mk_gpu_address(spaces, plan->dst);
  l->src = mk_gpu_address(spaces, plan->src);
  for (int i = 0; i < plan->nargs; i++) {
    const mk_arg *a = &plan->args[i];
    char *field = (char *)l->params + a->offset;
    CUdeviceptr p = mk_gpu_address(spaces, a->ref);
    if (a->kind == MK_ARG_PTR) memcpy(field, &p, sizeof p);
    if (a->kind == MK_ARG_TMAP && !encode(d, field, a->tmap, p, st)) return false;
  }
  return true;
}

static bool run_kernel(mk_gpu_device *d, const mk_gpu_launch *l, mk_status *st) {
  const mk_launch *p = l->plan;
  CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION};
  CUlaunchConfig config = {.gridDimX = p->grid[0],
                           .gridDimY = p->grid[1],
                           .gridDimZ = p->grid[2],
                           .blockDimX = p->block[0],
                           .blockDimY = p->block[1],
                           .blockDimZ = p->block[2],
                           .sharedMemBytes = p->smem,
                           .hStream = d->stream};
  if (p->cluster[0] > 1 || p->cluster[1] > 1 || p->cluster[2] > 1) {
    attribute.value.clusterDim.x = p->cluster[0] ? p->cluster[0] : 1;
    attribute.value.clusterDim.y = p->cluster[1] ? p->cluster[1] : 1;
    attribute.value.clusterDim.z = p->cluster[2] ? p->cluster[2] : 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  void *params[] = {l->params};
  if (!MK_CU(d->cu, st, cuLaunchKernelEx(&config, l->function, params, NULL))) return false;
  mk_gpu_launched(d);
  return true;
}

bool mk_gpu_launch_run(mk_gpu_device *d, const mk_gpu_launch *l, mk_status *st) {
  const mk_launch *p = l->plan;
  switch (p->kind) {
    case MK_LAUNCH_KERNEL: return run_kernel(d, l, st);
    case MK_LAUNCH_LT: return mk_gpu_lt_run(d, &l->lt, st);
    case MK_LAUNCH_COPY: return MK_CU(d->cu, st, cuMemcpyDtoDAsync(l->dst, l->src, (size_t)p->bytes, d->stream));
    case MK_LAUNCH_ZERO: return MK_CU(d->cu, st, cuMemsetD8Async(l->dst, 0, (size_t)p->bytes, d->stream));
  }
  mk_fail(st, MK_EINTERNAL, "plan: launch of unknown kind %d", (int)p->kind);
  return false;
}

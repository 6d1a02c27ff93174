#include "runtime/gpu/device.h"

#include <pthread.h>
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/gpu/lt.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/upload.h"

enum { MIN_ARCH = 80 };

/* What cuBLASLt's Hopper kernels ask for at most; smaller parts use less. */
static const int64_t lt_workspace_bytes = 64 << 20;

bool mk_gpu_enter(mk_gpu_device *d, mk_status *st) { return MK_CU(d->cu, st, cuCtxSetCurrent(d->context)); }

bool mk_gpu_wait(mk_gpu_device *d, mk_status *st) { return MK_CU(d->cu, st, cuStreamSynchronize(d->stream)); }

void mk_gpu_launched(mk_gpu_device *d) {
  if (!d->launched) mk_timeline("first kernel launched");
  d->launched = true;
}

static bool attribute(mk_gpu_device *d, CUdevice_attribute which, int *out, mk_status *st) {
  return MK_CU(d->cu, st, cuDeviceGetAttribute(out, which, d->device));
}

static bool identify(mk_gpu_device *d, mk_status *st) {
  int count = 0, major = 0, minor = 0;
  size_t total = 0;
  if (!MK_CU(d->cu, st, cuDeviceGetCount(&count))) return false;
  if (d->ordinal < 0 || d->ordinal >= count) {
    mk_fail(st, MK_EGPU, "there is no GPU %d: the driver sees %d, numbered from 0", d->ordinal, count);
    return false;
  }
  if (!MK_CU(d->cu, st, cuDeviceGet(&d->device, d->ordinal))) return false;
  if (!MK_CU(d->cu, st, cuDeviceGetName(d->name, sizeof d->name, d->device))) return false;
  if (!MK_CU(d->cu, st, cuDeviceTotalMem(&total, d->device))) return false;
  if (!attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major, st)) return false;
  if (!attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor, st)) return false;
  if (!attribute(d, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &d->sms, st)) return false;
  if (!attribute(d, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &d->smem_limit, st)) return false;
  mk_timeline("GPU identified");
  d->arch = 10 * major + minor;
  d->total_bytes = (int64_t)total;
  if (d->arch < MIN_ARCH) {
    mk_fail(st, MK_EUNSUPPORTED, "GPU %d (%s) has compute capability %d.%d; %d.%d (Ampere) or newer is needed, or --backend cpu",
            d->ordinal, d->name, major, minor, MIN_ARCH / 10, MIN_ARCH % 10);
    return false;
  }
  return true;
}

/* Loading cuBLASLt takes a twentieth of a second, making a context longer: they go on side by side. */
typedef struct lt_loading {
  pthread_t thread;
  bool started, found;
  int max_major;
  mk_cublaslt *lt;
  mk_status *missing;
} lt_loading;

static void *load_matmuls(void *user) {
  lt_loading *l = user;
  l->found = mk_cublaslt_open(l->lt, l->max_major, l->missing);
  mk_timeline("cuBLASLt loaded");
  return NULL;
}

static bool begin_matmuls(mk_gpu_device *d, lt_loading *l, mk_status *st) {
  *l = (lt_loading){.max_major = d->cu->version / 1000, .lt = calloc(1, sizeof *l->lt), .missing = &d->lt_missing};
  if (!l->lt) {
    mk_fail(st, MK_ENOMEM, "out of host memory");
    return false;
  }
  l->started = !pthread_create(&l->thread, NULL, load_matmuls, l);
  if (!l->started) load_matmuls(l);
  return true;
}

/* Without the library, matmuls are left to generated kernels. context: whether there is one to use it in. */
static bool end_matmuls(mk_gpu_device *d, lt_loading *l, bool context, mk_status *st) {
  if (l->started) pthread_join(l->thread, NULL);
  if (!context || !l->found || !MK_LT(l->lt, l->missing, cublasLtCreate(&d->lt_handle))) {
    if (context) mk_log(MK_LOG_INFO, "no cuBLASLt, generated kernels do all matmuls: %s", l->missing->message);
    free(l->lt);
    d->lt_handle = NULL;
    return context;
  }
  d->lt = l->lt;
  mk_timeline("cuBLASLt handle");
  return mk_gpu_block_alloc(d, &d->lt_workspace, lt_workspace_bytes, "the matmul workspace", st);
}

static bool open_context(mk_gpu_device *d, mk_status *st) {
  if (!MK_CU(d->cu, st, cuDevicePrimaryCtxRetain(&d->context, d->device))) {
    mk_fail_context(st, "GPU %d (%s)", d->ordinal, d->name);
    return false;
  }
  mk_timeline("context");
  return mk_gpu_enter(d, st) && MK_CU(d->cu, st, cuStreamCreate(&d->stream, CU_STREAM_NON_BLOCKING)) &&
         MK_CU(d->cu, st, cuStreamCreate(&d->copy_stream, CU_STREAM_NON_BLOCKING)) &&
         MK_CU(d->cu, st, cuEventCreate(&d->order, CU_EVENT_DISABLE_TIMING)) && mk_gpu_slots_make(d, st);
}

mk_gpu_device *mk_gpu_device_open(int ordinal, mk_status *st) {
  mk_gpu_device *d = calloc(1, sizeof *d);
  mk_driver *driver = calloc(1, sizeof *driver);
  if (!d || !driver) {
    mk_fail(st, MK_ENOMEM, "out of host memory");
    free(d);
    free(driver);
    return NULL;
  }
  d->cu = driver;
  d->ordinal = ordinal;
  mk_cache_open(&d->cache, NULL);
  lt_loading loading;
  if (mk_driver_open(driver, st) && identify(d, st) && begin_matmuls(d, &loading, st) &&
      end_matmuls(d, &loading, open_context(d, st), st)) {
    mk_timeline("GPU ready");
    return d;
  }
  mk_gpu_device_close(d);
  return NULL;
}

void mk_gpu_device_close(mk_gpu_device *d) {
  if (!d) return;
  if (d->context) {
    d->cu->cuCtxSetCurrent(d->context);
    if (d->stream) d->cu->cuStreamSynchronize(d->stream);
    if (d->lt_handle) d->lt->cublasLtDestroy(d->lt_handle);
    mk_gpu_block_free(d, &d->lt_workspace);
    mk_gpu_block_free(d, &d->scratch);
    mk_gpu_slots_free(d);
    if (d->order) d->cu->cuEventDestroy(d->order);
    if (d->copy_stream) d->cu->cuStreamDestroy(d->copy_stream);
    if (d->stream) d->cu->cuStreamDestroy(d->stream);
    d->cu->cuDevicePrimaryCtxRelease(d->device);
  }
  mk_arena_free(&d->arena);
  free((void *)d->cu);
  free((void *)d->lt);
  free(d);
}

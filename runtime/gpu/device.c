#include "runtime/gpu/device.h"

#include <pthread.h>
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/gpu/lt.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/upload.h"

enum { MIN_ARCH = 80 };

bool mk_gpu_enter(mk_gpu_device *d, mk_status *st) {
  return mk_gpu_device_wait(d, MK_GPU_READY, st) && MK_CU(d->cu, st, cuCtxSetCurrent(d->context));
}

bool mk_gpu_wait(mk_gpu_device *d, mk_status *st) { return MK_CU(d->cu, st, cuStreamSynchronize(d->stream)); }

void mk_gpu_launched(mk_gpu_device *d) {
  if (!d->launched) mk_timeline("first kernel launched, %d compiled before", d->compiled);
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

/* ---- opening, beside whatever the opener does meanwhile. On an H200 the driver's initialisation takes 10 ms, or 110 where no
 * other process keeps the GPU awake, the context 50 (120 with the driver's usual number of queues), loading cuBLASLt 75: the last
 * two go on side by side, but not the first and the last, as both load libraries, which the system does one after the other. */

struct mk_gpu_opening {
  pthread_t thread, library_thread;
  bool threaded;
  pthread_mutex_t lock; /* of what follows */
  pthread_cond_t changed;
  mk_gpu_opened far;
  bool failed, no_library, lt_expected, closing;
  mk_status why; /* failed */
};

static void reached(mk_gpu_device *d, mk_gpu_opened far, const mk_status *why) {
  struct mk_gpu_opening *o = d->opening;
  pthread_mutex_lock(&o->lock);
  o->far = far;
  o->failed = why != NULL;
  if (why) o->why = *why;
  pthread_cond_broadcast(&o->changed);
  pthread_mutex_unlock(&o->lock);
}

bool mk_gpu_device_wait(mk_gpu_device *d, mk_gpu_opened far, mk_status *st) {
  struct mk_gpu_opening *o = d->opening;
  if (!o) return true;
  pthread_mutex_lock(&o->lock);
  while (o->far < far && !o->failed) pthread_cond_wait(&o->changed, &o->lock);
  bool ok = !o->failed;
  if (!ok) mk_fail(st, o->why.code, "%s", o->why.message);
  pthread_mutex_unlock(&o->lock);
  return ok;
}

bool mk_gpu_device_has_lt(mk_gpu_device *d) {
  struct mk_gpu_opening *o = d->opening;
  if (!o) return d->lt != NULL;
  pthread_mutex_lock(&o->lock);
  bool lacks = o->far == MK_GPU_LIBRARY ? !d->lt : o->no_library;
  pthread_mutex_unlock(&o->lock);
  return !lacks;
}

/* The matmul library's file is loaded here, its handle made when there is a context. */
static void *load_library(void *user) {
  mk_gpu_device *d = user;
  mk_cublaslt *lt = calloc(1, sizeof *lt);
  if (!lt) {
    mk_fail(&d->lt_missing, MK_ENOMEM, "out of host memory");
  } else if (mk_cublaslt_open(lt, d->cu->version / 1000, &d->lt_missing)) {
    d->lt = lt;
    mk_timeline("cuBLASLt loaded");
    return NULL;
  }
  free(lt);
  pthread_mutex_lock(&d->opening->lock);
  d->opening->no_library = true;
  pthread_mutex_unlock(&d->opening->lock);
  return NULL;
}

/* Without the library, matmuls are left to generated kernels. */
static void open_library(mk_gpu_device *d) {
  if (d->lt && MK_LT(d->lt, &d->lt_missing, cublasLtCreate(&d->lt_handle))) {
    mk_timeline("cuBLASLt handle");
    return;
  }
  mk_log(MK_LOG_INFO, "no cuBLASLt, generated kernels do all matmuls: %s", d->lt_missing.message);
  free((void *)d->lt);
  d->lt = NULL;
  d->lt_handle = NULL;
}

static bool open_context(mk_gpu_device *d, mk_status *st) {
  if (!MK_CU(d->cu, st, cuDevicePrimaryCtxRetain(&d->context, d->device))) {
    mk_fail_context(st, "GPU %d (%s)", d->ordinal, d->name);
    return false;
  }
  mk_timeline("context");
  return MK_CU(d->cu, st, cuCtxSetCurrent(d->context)) && MK_CU(d->cu, st, cuStreamCreate(&d->stream, CU_STREAM_NON_BLOCKING)) &&
         MK_CU(d->cu, st, cuStreamCreate(&d->copy_stream, CU_STREAM_NON_BLOCKING)) &&
         MK_CU(d->cu, st, cuEventCreate(&d->order, CU_EVENT_DISABLE_TIMING));
}

static void tell(struct mk_gpu_opening *o, bool *what) {
  pthread_mutex_lock(&o->lock);
  *what = true;
  pthread_cond_broadcast(&o->changed);
  pthread_mutex_unlock(&o->lock);
}

void mk_gpu_device_expect_lt(mk_gpu_device *d) {
  if (d->opening) tell(d->opening, &d->opening->lt_expected);
}

/* Waits until the library is expected, or the end. */
static bool is_lt_expected(struct mk_gpu_opening *o) {
  pthread_mutex_lock(&o->lock);
  while (!o->lt_expected && !o->closing && o->threaded) pthread_cond_wait(&o->changed, &o->lock);
  bool expected = o->lt_expected && !o->closing;
  pthread_mutex_unlock(&o->lock);
  return expected;
}

/* Everything but loading the driver. */
static void *open_all(void *user) {
  mk_gpu_device *d = user;
  struct mk_gpu_opening *o = d->opening;
  mk_status why = {0};
  bool ok = mk_driver_start((mk_driver *)d->cu, &why) && identify(d, &why), beside = false;
  if (ok) {
    reached(d, MK_GPU_KNOWN, NULL);
    beside = !pthread_create(&o->library_thread, NULL, load_library, d);
    ok = open_context(d, &why);
  }
  if (ok) mk_timeline("GPU ready");
  if (ok) reached(d, MK_GPU_READY, NULL);
  if (beside) pthread_join(o->library_thread, NULL);
  if (ok && !beside) load_library(d);
  if (ok) open_library(d);
  reached(d, MK_GPU_LIBRARY, ok ? NULL : &why);
  if (d->lt_handle && is_lt_expected(o)) mk_gpu_lt_wake(d);
  return NULL;
}

mk_gpu_device *mk_gpu_device_begin(int ordinal, mk_status *st) {
  mk_gpu_device *d = calloc(1, sizeof *d);
  mk_driver *driver = calloc(1, sizeof *driver);
  struct mk_gpu_opening *o = calloc(1, sizeof *o);
  if (!d || !driver || !o || !mk_driver_load(driver, st)) {
    mk_fail(st, MK_ENOMEM, "out of host memory"); /* unless there is another reason */
    free(d);
    free(driver);
    free(o);
    return NULL;
  }
  d->cu = driver;
  d->ordinal = ordinal;
  d->opening = o;
  mk_cache_open(&d->cache, NULL);
  pthread_mutex_init(&o->lock, NULL);
  pthread_cond_init(&o->changed, NULL);
  o->threaded = true; /* for the thread to read */
  if (pthread_create(&o->thread, NULL, open_all, d)) {
    o->threaded = false;
    open_all(d);
  }
  return d;
}

mk_gpu_device *mk_gpu_device_open(int ordinal, mk_status *st) {
  mk_gpu_device *d = mk_gpu_device_begin(ordinal, st);
  if (d && mk_gpu_device_wait(d, MK_GPU_LIBRARY, st) && mk_gpu_enter(d, st)) return d;
  mk_gpu_device_close(d);
  return NULL;
}

static void end_opening(struct mk_gpu_opening *o) {
  if (!o) return;
  tell(o, &o->closing);
  if (o->threaded) pthread_join(o->thread, NULL);
  pthread_mutex_destroy(&o->lock);
  pthread_cond_destroy(&o->changed);
  free(o);
}

void mk_gpu_device_close(mk_gpu_device *d) {
  if (!d) return;
  end_opening(d->opening);
  if (d->launched) mk_timeline("GPU closed, %d kernels compiled in all", d->compiled);
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

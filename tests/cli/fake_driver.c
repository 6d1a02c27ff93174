/* A libcuda.so.1 made up for tests of messages: FAKE_VERSION is the CUDA version it claims, FAKE_INIT what cuInit returns,
 * FAKE_CONTEXT what making a context does.
 * It has one GPU of FAKE_ARCH with FAKE_FREE_MIB free, and FAKE_SMEM bytes of shared memory and FAKE_THREADS threads a block.
 * Anything between two events takes FAKE_MS milliseconds there.
 * With FAKE_START, a time as `date +%s.%N` gives it, it says how long after that the first kernel was launched. Everything that
 * is not written out here succeeds and does nothing: kernels compute nothing, memory cannot be read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/gpu/cuda_api.h"

static unsigned number(const char *name, unsigned standard) {
  const char *text = getenv(name);
  return text ? (unsigned)atoi(text) : standard;
}

CUresult cuInit(unsigned flags) {
  (void)flags;
  return number("FAKE_INIT", 0);
}

CUresult cuDriverGetVersion(int *version) {
  *version = (int)number("FAKE_VERSION", 13000);
  return 0;
}

CUresult cuDeviceGetCount(int *count) {
  *count = 1;
  return 0;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  (void)device;
  snprintf(name, (size_t)size, "Made-up GPU");
  return 0;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  (void)device;
  *bytes = (size_t)48 << 30;
  return 0;
}

enum { BLOCKS = 1024 };
static struct block {
  CUdeviceptr at;
  size_t bytes;
} blocks[BLOCKS]; /* of cuMemAlloc */

CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  *available = (size_t)number("FAKE_FREE_MIB", 48 << 10) << 20;
  for (int i = 0; i < BLOCKS; i++) *available -= blocks[i].bytes < *available ? blocks[i].bytes : *available;
  *total = (size_t)48 << 30;
  return 0;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  int arch = (int)number("FAKE_ARCH", 90);
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = arch / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = arch % 10; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = (int)number("FAKE_SMEM", 227 << 10); break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1500000; break;        /* kHz */
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 2000000; break; /* kHz */
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 4096; break;
    default: *value = 100;
  }
  return 0;
}

#ifndef FAKE_DEVICE /* else fake_device.c has these */
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = (CUmodule)1;
  return memcmp(image, "\177ELF", 4) ? 200 : 0;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  (void)module, (void)name;
  *function = (CUfunction)1;
  return 0;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  (void)function;
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? (int)number("FAKE_THREADS", 1024) : 32;
  return 0;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
  (void)config, (void)function, (void)params, (void)extra;
  static int launches;
  const char *start = getenv("FAKE_START");
  struct timespec now, work;
  clock_gettime(CLOCK_REALTIME, &now);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &work);
  if (start && !launches++)
    fprintf(stderr, "first launch after %.3f s, %.3f s of processor time\n",
            (double)now.tv_sec - atof(start) + 1e-9 * (double)now.tv_nsec, (double)work.tv_sec + 1e-9 * (double)work.tv_nsec);
  return 0;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  static CUdeviceptr next = (CUdeviceptr)1 << 40;
  *pointer = next;
  next += (bytes + 4095) & ~(size_t)4095;
  for (int i = 0; i < BLOCKS; i++)
    if (!blocks[i].bytes) {
      blocks[i] = (struct block){*pointer, bytes};
      break;
    }
  return 0;
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  for (int i = 0; i < BLOCKS; i++)
    if (blocks[i].at == pointer) blocks[i].bytes = 0;
  return 0;
}

CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  (void)flags;
  *pointer = calloc(1, bytes);
  return *pointer ? 0 : 2;
}

CUresult cuMemFreeHost(void *pointer) {
  free(pointer);
  return 0;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  (void)start, (void)end;
  *milliseconds = (float)number("FAKE_MS", 8);
  return 0;
}
#endif

CUresult cuGetErrorName(CUresult error, const char **name) {
  (void)error;
  *name = "CUDA_ERROR_MADE_UP";
  return 0;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  (void)error;
  *text = "made up";
  return 0;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  (void)device;
  *context = (CUcontext)1; /* there is one to be given back */
  return number("FAKE_CONTEXT", 0);
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  (void)flags;
  *stream = (CUstream)1;
  return 0;
}

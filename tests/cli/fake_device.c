/* A device for the made-up driver: memory that copies and fills work on, kernels that take made-up time and do nothing, but for
 * the tuner's comparison, which is done. Beside fake_driver.c, which is to be compiled with FAKE_DEVICE.
 *
 * FAKE_TIMES     "NAME=MS,NAME=MS": what kernels with NAME in theirs take; others take 1 ms
 * FAKE_CROWDED   the same, behind more than one other kernel since the cache was emptied
 * FAKE_AFTER     the same: by how much whatever comes behind one of them takes longer
 * FAKE_NOISE     by what part times vary from run to run (uniform), on a clock that goes up and down by 5 %
 * FAKE_SEED      another noise
 * FAKE_REAL      set: made-up time passes
 * FAKE_WRONG     kernels with this in their name have wrong results
 * FAKE_FAULT     kernels with this in their name end the device
 * FAKE_LAUNCHES  a file that gets every kernel's name */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/gpu/cuda_api.h"

static struct {
  double ms;       /* the device's clock */
  int wrong, kept; /* the results of the last kernel, and of the one before the last copy, are wrong */
  int lost, alone; /* alone: kernels to come that are as good as that */
  double slowed;   /* the next kernel, by so many ms */
} device;

static void *at(CUdeviceptr p) { return (void *)(uintptr_t)p; }

CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t bytes) {
  void *block = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  *(size_t *)block = bytes + 4096;
  *p = (CUdeviceptr)(uintptr_t)block + 4096;
  return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr p) {
  char *block = at(p - 4096);
  munmap(block, *(size_t *)block);
  return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **p, size_t bytes, unsigned flags) {
  (void)flags;
  *p = malloc(bytes);
  return *p ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *p) {
  free(p);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream s) {
  (void)s;
  memcpy(at(to), from, bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream s) {
  (void)s;
  memcpy(to, at(from), bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
  (void)s;
  memmove(at(to), at(from), bytes);
  device.kept = device.wrong;
  return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s) {
  (void)s;
  if (count < (size_t)64 << 20) {
    memset(at(to), value, count);
  } else { /* the cache is emptied, and nothing written */
    device.alone = 2;
    device.slowed = 0;
  }
  return CUDA_SUCCESS;
}

/* ---- kernels: a function is its name */

CUresult cuModuleGetFunction(CUfunction *f, CUmodule module, const char *name) {
  (void)module;
  *f = (CUfunction)strdup(name);
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = (CUmodule)&device;
  return image ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction f) {
  (void)f;
  *value = attribute == CU_FUNC_ATTRIBUTE_NUM_REGS ? 64 : 1024;
  return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveClusters(int *clusters, CUfunction f, const CUlaunchConfig *config) {
  (void)f, (void)config;
  *clusters = 1;
  return CUDA_SUCCESS;
}

static int named(const char *name, const char *variable) {
  const char *part = getenv(variable);
  return part && *part && strstr(name, part);
}

/* -1: it is not among them. */
static double named_ms(const char *name, const char *variable) {
  const char *times = getenv(variable);
  for (const char *p = times; p && *p; p += strcspn(p, ","), p += *p == ',') {
    char part[64];
    double ms;
    if (sscanf(p, "%63[^=,]=%lf", part, &ms) == 2 && strstr(name, part)) return ms;
  }
  return -1;
}

static double noisy(double ms) {
  static unsigned long long state;
  static double phase;
  const char *part = getenv("FAKE_NOISE"), *seed = getenv("FAKE_SEED");
  if (!part) return ms;
  if (!state) state = seed ? strtoull(seed, NULL, 10) : 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  phase += 0.003;
  return ms * (1 + 0.05 * sin(phase)) * (1 + atof(part) * ((double)(state >> 11) / (1ull << 52) - 1));
}

static double made_up_ms(const char *name) {
  double ms = device.alone ? -1 : named_ms(name, "FAKE_CROWDED");
  if (ms < 0) ms = named_ms(name, "FAKE_TIMES");
  ms = (ms < 0 ? 1 : ms) + device.slowed;
  if (device.alone) device.alone--;
  device.slowed = fmax(0, named_ms(name, "FAKE_AFTER"));
  return noisy(ms);
}

static void compare(void **params) {
  struct {
    CUdeviceptr want, have, sums;
    int64_t count;
  } p;
  memcpy(&p, params[0], sizeof p);
  double *sums = at(p.sums);
  for (int64_t i = 0; i < (p.count + 4095) / 4096; i++) {
    sums[2 * i] = device.wrong != device.kept;
    sums[2 * i + 1] = 1;
  }
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra) {
  (void)config, (void)extra;
  const char *name = (const char *)f, *log = getenv("FAKE_LAUNCHES");
  if (!strncmp(name, "compare_", 8)) return compare(params), CUDA_SUCCESS;
  if (!strncmp(name, "normal_fill_", 12)) return CUDA_SUCCESS;
  FILE *out = log ? fopen(log, "a") : NULL;
  if (out) {
    fprintf(out, "%s\n", name);
    fclose(out);
  }
  device.wrong = named(name, "FAKE_WRONG");
  device.lost |= named(name, "FAKE_FAULT");
  device.ms += made_up_ms(name);
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream s) {
  static double passed;
  (void)s;
  if (getenv("FAKE_REAL")) usleep((useconds_t)(1000 * (device.ms - passed)));
  passed = device.ms;
  return device.lost ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_SUCCESS;
}

/* ---- events: a time each */

CUresult cuEventCreate(CUevent *e, unsigned flags) {
  (void)flags;
  *e = calloc(1, sizeof(double));
  return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent e) {
  free(e);
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent e, CUstream s) {
  (void)s;
  *(double *)e = device.ms;
  return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *ms, CUevent a, CUevent b) {
  *ms = (float)(*(double *)b - *(double *)a);
  return CUDA_SUCCESS;
}

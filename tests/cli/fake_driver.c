/* A libcuda.so.1 made up for tests of messages: FAKE_VERSION is the CUDA version it claims, FAKE_INIT what cuInit returns.
 * It has one GPU of FAKE_ARCH with FAKE_FREE_MIB free. Everything that is not written out here succeeds and does nothing. */
#include <stdio.h>
#include <stdlib.h>

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

CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  *available = (size_t)number("FAKE_FREE_MIB", 48 << 10) << 20;
  *total = (size_t)48 << 30;
  return 0;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  int arch = (int)number("FAKE_ARCH", 90);
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? arch / 10
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? arch % 10
                                                                       : 100;
  return 0;
}

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

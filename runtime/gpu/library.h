/* NVIDIA's driver, NVRTC and cuBLASLt, found at run time: the program starts and compiles kernels without a GPU. */
#ifndef MK_GPU_LIBRARY_H
#define MK_GPU_LIBRARY_H

#include <limits.h>
#include <stdbool.h>

#include "runtime/base/status.h"
#include "runtime/gpu/cuda_api.h"

enum {
  MK_MIN_DRIVER =
      12000, /* CUDA version the driver must support: tensor maps and cuLaunchKernelEx with clusters are there since 12.0 */
  MK_MIN_NVRTC_MAJOR = 12
};

typedef struct mk_driver {
  char path[PATH_MAX];
  int version; /* 12080: supports CUDA 12.8 */
#define MK_DRIVER(result, field, symbol, parameters) result(*field) parameters;
#include "runtime/gpu/symbols.def"
} mk_driver;

typedef struct mk_nvrtc {
  char path[PATH_MAX];
  int major, minor;
  char build[64]; /* tells one build from another of the same version: the library's build id, else its size and time */
#define MK_NVRTC(result, field, symbol, parameters) result(*field) parameters;
#include "runtime/gpu/symbols.def"
} mk_nvrtc;

typedef struct mk_cublaslt {
  char path[PATH_MAX];
  size_t version; /* as cublasLtGetVersion says: 130101 is 13.1.1 */
#define MK_CUBLASLT(result, field, symbol, parameters) result(*field) parameters;
#include "runtime/gpu/symbols.def"
} mk_cublaslt;

/* Loads libcuda.so.1, checks its version; then, a good deal longer, initialises it; open does both. On failure (no driver, too
 * old, no GPU) says what to install or update; path and version are filled in as far as it came. Libraries stay loaded for the
 * life of the process: unloading them is not safe. */
bool mk_driver_load(mk_driver *driver, mk_status *st);
bool mk_driver_start(mk_driver *driver, mk_status *st);
bool mk_driver_open(mk_driver *driver, mk_status *st);

/* Loads NVRTC: `path` when given (and nothing else), else from MOONKILN_CUDA alone if set, else from the loader's folders,
 * CUDA_HOME, /usr/local/cuda*, and Python's site-packages, in this order. max_major: newest acceptable major version, because a
 * driver loads only cubins of its own major version or older; 0: any. */
bool mk_nvrtc_open(mk_nvrtc *nvrtc, const char *path, int max_major, mk_status *st);

/* Loads cuBLASLt, searched for in the same way. */
bool mk_cublaslt_open(mk_cublaslt *lt, int max_major, mk_status *st);

/* Records a driver failure with the text of the call. True on CUDA_SUCCESS. */
bool mk_driver_check(const mk_driver *driver, CUresult result, const char *call, mk_status *st);
bool mk_cublaslt_check(const mk_cublaslt *lt, cublasStatus_t result, const char *call, mk_status *st);

/* MK_CU(driver, st, cuMemAlloc(&p, bytes)): the call, checked. */
#define MK_CU(driver, st, call) mk_driver_check((driver), (driver)->call, #call, (st))
#define MK_LT(lt, st, call) mk_cublaslt_check((lt), (lt)->call, #call, (st))

#endif

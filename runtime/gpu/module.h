/* From the plan's kernel sources to functions on the device. */
#ifndef MK_GPU_MODULE_H
#define MK_GPU_MODULE_H

#include "codegen/plan.h"
#include "runtime/gpu/device.h"
#include "runtime/session.h"

typedef enum mk_gpu_kernel_state {
  MK_GPU_KERNEL_NEW,
  MK_GPU_KERNEL_READY,
  MK_GPU_KERNEL_SPILLS,
  MK_GPU_KERNEL_FAILED
} mk_gpu_kernel_state;

typedef struct mk_gpu_kernel { /* one per plan->kernels */
  mk_gpu_kernel_state state;   /* SPILLS: works, but keeps registers in memory: a last resort */
  CUmodule module;
  CUfunction function;
  bool blamed;
  const char *why; /* SPILLS, FAILED: for the log; in the arena given to load */
  uint64_t code;   /* hash of the machine code, whatever the kernel's name */
} mk_gpu_kernel;

/* Compiles (in parallel, or takes from the cache) and loads the kernels with wanted[i] that are NEW. Those with along[i] (or
 * NULL) come into the cache with them if any has to be compiled, for other sizes. A kernel that fails is no failure of the call.
 * progress (or NULL) is told of kernels compiled, and stops the compiling by returning false. */
bool mk_gpu_kernels_load(mk_gpu_device *d, const mk_kernel *sources, int count, const bool *wanted, const bool *along,
                         mk_gpu_kernel *kernels, mk_arena *arena, mk_progress_fn progress, void *user, mk_status *st);
/* Reports, once, a kernel that compiled and cannot be used all the same, and keeps its source. */
void mk_gpu_kernel_blame(const mk_gpu_device *d, const mk_kernel *source, mk_gpu_kernel *k, const char *why);
/* Compiles and loads a file of the templates folder behind the prelude: kernels of the runtime's own. out[i]: the function
 * names[i], for the names that are not NULL. */
bool mk_gpu_kernels_of_file(mk_gpu_device *d, const char *file, const char *const *names, int count, mk_gpu_kernel *kernel,
                            CUfunction *out, mk_arena *arena, mk_status *st);
void mk_gpu_kernels_free(mk_gpu_device *d, mk_gpu_kernel *kernels, int count);

#endif

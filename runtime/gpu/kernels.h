/* From a plan's kernels to cubins: taken from the cache, or compiled and put there, each as soon as it is ready. What another
 * process is compiling at the time is waited for. A source that the compiler refused or hung on is known in the cache too,
 * and is not tried again. Needs no GPU. */
#ifndef MK_GPU_KERNELS_H
#define MK_GPU_KERNELS_H

#include "codegen/plan.h"
#include "runtime/gpu/cache.h"
#include "runtime/gpu/compiler.h"

typedef enum mk_cubin_state {
  MK_CUBIN_NONE /* was not wanted */,
  MK_CUBIN_HIT,
  MK_CUBIN_COMPILED,
  MK_CUBIN_FAILED
} mk_cubin_state;

typedef struct mk_cubin {
  mk_cubin_state state;
  void *data; /* owned; NULL unless HIT or COMPILED */
  size_t bytes;
  mk_kernel_report report; /* spills and serialised wgmma are in here: the caller decides what they mean */
  char *message;           /* owned; FAILED: why, for people; COMPILED: what is slow about it, or NULL */
} mk_cubin;

typedef struct mk_prepared {
  int count; /* of kernels in the plan */
  mk_cubin *cubins;
  int hits, compiled, failed; /* hits: those that other processes compiled meanwhile are among them */
  double compile_seconds;     /* summed over workers */
} mk_prepared;

typedef struct mk_prepare_options {
  int arch;           /* 90 */
  int max_major;      /* newest CUDA major version the driver accepts (driver version / 1000); 0: any, as when no GPU is there */
  const bool *wanted; /* one per kernel; NULL: all */
  const bool *along;  /* the same, or NULL: compiled, too, when any wanted one has to be, but neither handed out nor missed */
  mk_progress_fn progress;
  void *user;
} mk_prepare_options;

/* Fills out for kernels[0..n). A kernel that fails does not fail the call: see out->failed and mk_prepared_check. False with the
 * status set when nothing can be compiled at all (no NVRTC) or the progress function said stop; out is then empty. */
bool mk_kernels_prepare(const mk_kernel *kernels, int n, const mk_prepare_options *options, mk_cache *cache, mk_prepared *out,
                        mk_status *st);
/* False with the status set to the first failed kernel's message. */
bool mk_prepared_check(const mk_prepared *p, mk_status *st);
void mk_prepared_free(mk_prepared *p);

#endif

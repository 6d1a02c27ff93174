/* Compiling kernels: a batch of CUDA sources to cubins, in parallel worker processes. A kernel that does not compile, crashes the
 * compiler or takes too long is a failed result with a message; the others go on. Needs no GPU. Knows nothing of the cache. */
#ifndef MK_GPU_COMPILER_H
#define MK_GPU_COMPILER_H

#include "runtime/base/text.h"
#include "runtime/gpu/library.h"
#include "runtime/gpu/report.h"
#include "runtime/session.h"

typedef struct mk_compile_result mk_compile_result;

typedef struct mk_compiler {
  mk_nvrtc nvrtc;                                               /* its path and version: it compiles in workers */
  int workers;                                                  /* processes at most */
  int timeout;                                                  /* seconds for one kernel */
  char failed_dir[PATH_MAX];                                    /* keeps the source of failed kernels; "": not kept */
  void (*done)(void *user, int job, mk_compile_result *result); /* called as each job of a batch ends; may be NULL */
  void *done_user;
} mk_compiler;

typedef struct mk_compile_job { /* all borrowed */
  const char *name;             /* the kernel's symbol; names the source in messages and files */
  const char *source;
  const char *arch; /* "sm_90a", see mk_arch_name */
  bool line_info;   /* for profilers and dumps: makes cubins four times larger */
  bool want_ptx;
  const char *const *options; /* further NVRTC options */
  int noptions;
} mk_compile_job;

typedef enum mk_failure {
  MK_FAILURE_OTHER,  /* a crash, or the machine's: another time it may work */
  MK_FAILURE_SOURCE, /* the compiler refuses the source */
  MK_FAILURE_TIMEOUT
} mk_failure;

struct mk_compile_result {
  bool ok;
  mk_failure failure; /* !ok: for what reason */
  void *cubin;        /* owned, see mk_compile_result_free */
  size_t cubin_bytes;
  char *ptx; /* owned; NULL unless wanted */
  char *log; /* owned; what NVRTC and ptxas said */
  mk_kernel_report report;
  double seconds;
  /* Owned; !ok: what happened to which kernel, errors with numbered source, where the source is kept. ok: the same of a kernel
   * that spills registers or whose wgmma wait for each other, else NULL. */
  char *message;
};

/* Finds NVRTC (see mk_nvrtc_open), takes workers and time-out from the environment; failed_dir may be NULL or "". */
bool mk_compiler_open(mk_compiler *c, int max_major, const char *failed_dir, mk_status *st);
/* The same with an NVRTC that was found. */
void mk_compiler_with(mk_compiler *c, const mk_nvrtc *nvrtc, const char *failed_dir);

/* 80 → "sm_80", 90 → "sm_90a" (the architecture's own features are always on: cubins fit one architecture anyway).
 * False with the status set for an architecture that is not supported. */
bool mk_arch_name(int arch, char out[16], mk_status *st);
bool mk_arch_parse(const char *text, int *out, mk_status *st); /* "90", "sm_90", "sm_90a" → 90 */

/* Everything beside the source that decides the cubin's bytes, one option a line: part of a cache key. */
void mk_compile_options(const mk_compiler *c, const mk_compile_job *job, mk_text *out);
void mk_compiler_id(const mk_compiler *c, mk_text *out); /* "nvrtc 13.0 build 65be…" */

/* Puts source and message where a person can look at them. Path "" when that fails: the failure to report is the kernel's. */
void mk_compile_keep(const char *folder, const char *name, const char *source, const char *message, char path[PATH_MAX]);

/* Fills results[0..n). False with the status set when compiling cannot go on at all (no worker starts, the progress function said
 * stop): unfinished results then are !ok with no message. Failed kernels do not make it false. */
bool mk_compile_batch(const mk_compiler *c, const mk_compile_job *jobs, int n, mk_compile_result *results,
                      mk_progress_fn progress, void *user, mk_status *st);
void mk_compile_result_free(mk_compile_result *r);

#endif

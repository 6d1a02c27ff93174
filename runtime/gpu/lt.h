/* Library matmuls: a plan's mk_lt becomes a cuBLASLt call with an algorithm chosen once per problem. */
#ifndef MK_GPU_LT_H
#define MK_GPU_LT_H

#include "codegen/plan.h"
#include "runtime/gpu/device.h"

enum { MK_GPU_LT_TRIED = 8 /* heuristic results kept for timing */, MK_GPU_LT_NAME = 64 };

typedef struct mk_gpu_lt_choice { /* the algorithms of one problem, the library's best guess first */
  struct mk_gpu_lt_choice *next;
  uint64_t key;
  cublasLtMatmulAlgo_t algos[MK_GPU_LT_TRIED];
  int count;
  bool refused[MK_GPU_LT_TRIED]; /* by the library itself, when it was to be run */
  int best;
  bool timed; /* best was found by measuring */
} mk_gpu_lt_choice;

typedef struct mk_gpu_lt_op {
  const mk_lt *lt;
  mk_gpu_lt_choice *choice; /* the device's */
  int algorithm;            /* among the choice's; -1: its best */
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t a, b, c, d;
  CUdeviceptr pa, pb, pc, pd; /* set by bind */
} mk_gpu_lt_op;

/* Fails with MK_EUNSUPPORTED when the library is missing or has no algorithm for the problem. */
bool mk_gpu_lt_make(mk_gpu_device *d, const mk_lt *lt, mk_gpu_lt_op *op, mk_status *st);
void mk_gpu_lt_free(mk_gpu_device *d, mk_gpu_lt_op *op);
/* Addresses of the operands; bias and c may be 0 when unused. */
bool mk_gpu_lt_bind(mk_gpu_device *d, mk_gpu_lt_op *op, CUdeviceptr a, CUdeviceptr b, CUdeviceptr c, CUdeviceptr dst,
                    CUdeviceptr bias, mk_status *st);
bool mk_gpu_lt_run(mk_gpu_device *d, const mk_gpu_lt_op *op, mk_status *st);

/* The problem's algorithms: how many, which one is run (op->algorithm or the best, or the next that is not refused), and what
 * names one in a record: its configuration, as numbers. */
int mk_gpu_lt_count(const mk_gpu_lt_op *op);
int mk_gpu_lt_used(const mk_gpu_lt_op *op);
void mk_gpu_lt_name(const mk_gpu_device *d, const mk_gpu_lt_op *op, int algorithm, char name[MK_GPU_LT_NAME]);
/* The algorithm of this name, or -1 where the library no longer has it. */
int mk_gpu_lt_find(const mk_gpu_device *d, const mk_gpu_lt_op *op, const char *name);

/* Makes the library set itself up, as it does at its first use. */
void mk_gpu_lt_wake(mk_gpu_device *d);
/* Asks for the algorithms of what the plan has chosen, so that making it does not have to: the first answers for the
 * transformer's matmuls take the library 0.1 s. Waits for it. From any thread. */
void mk_gpu_lt_ask_ahead(mk_gpu_device *d, const mk_plan *plan);

/* Times the problem's algorithms on the bound buffers, keeps the fastest, and leaves d as one run would. Does nothing when they
 * were timed already, when the op has an algorithm of its own, or when d is also read (a second run would then give another
 * result). */
bool mk_gpu_lt_tune(mk_gpu_device *d, const mk_gpu_lt_op *op, mk_status *st);

#endif

/* What a group of a plan is tried on: random values in its own buffers, put back before every run, and results held against those
 * of a reference. */
#ifndef MK_GPU_PROBE_H
#define MK_GPU_PROBE_H

#include "runtime/gpu/launch.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/synthetic.h"

typedef struct mk_gpu_probe {
  mk_gpu_device *d; /* borrowed */
  mk_arena arena;
  mk_gpu_synthetic fill;
  mk_gpu_kernel kernel;
  CUfunction compare[MK_DTYPE_COUNT];
  mk_gpu_block saved; /* the values before a run of what a run changes and reads */
  mk_gpu_block kept;  /* the reference's results */
  mk_gpu_block sums;
  double *host_sums; /* as large as sums; malloc'd */
  mk_gpu_spaces spaces;
  const mk_group *group;    /* at present; borrowed */
  bool *written, *in_place; /* per extent; in place: read as well */
} mk_gpu_probe;             /* zero-initialise */

/* Compiles its kernels. Close with mk_gpu_probe_close, after failure too. */
bool mk_gpu_probe_open(mk_gpu_probe *p, mk_gpu_device *d, mk_status *st);
void mk_gpu_probe_close(mk_gpu_probe *p);

/* Fills what the group reads with random values and keeps a copy of what it reads and writes. Spaces and group are borrowed until
 * the next call. Fails when there is no memory for the copies. */
bool mk_gpu_probe_begin(mk_gpu_probe *p, const mk_group *g, const mk_gpu_spaces *spaces, mk_status *st);

/* Before a run: brings back what the last one changed. poison: what is only written becomes NaN. */
bool mk_gpu_probe_reset(mk_gpu_probe *p, bool poison, mk_status *st);

/* Keeps the results of the run before as the reference's. */
bool mk_gpu_probe_keep(mk_gpu_probe *p, mk_status *st);

/* The results of the run before against the reference's: *error is ||have - want|| / ||want|| over the worst of the buffers, and
 * *worst the same of the worst 4096 elements in a row. Infinite where a number is missing. */
bool mk_gpu_probe_compare(mk_gpu_probe *p, double *error, double *worst, mk_status *st);

#endif

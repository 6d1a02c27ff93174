/* Work between timed runs. In a network a kernel finds the card busy, at the clock that its power allows then, and in the L2
 * cache no more than what ran just before left there; alone on an idle card it would be timed under other conditions. */
#ifndef MK_GPU_FILLER_H
#define MK_GPU_FILLER_H

#include "runtime/gpu/lt.h"
#include "runtime/gpu/synthetic.h"

typedef struct mk_gpu_filler {
  mk_gpu_device *d; /* borrowed */
  mk_gpu_block block;
  mk_lt problem;
  mk_gpu_lt_op matmul;
  bool heavy;          /* there is a matmul; else memory is written, which keeps no clock down */
  double ms;           /* that it takes on a large card, about */
  int64_t cache_bytes; /* of the L2 cache */
} mk_gpu_filler;       /* zero-initialise */

/* fill: open; borrowed for the call. Close with mk_gpu_filler_close, after failure too. */
bool mk_gpu_filler_open(mk_gpu_filler *f, mk_gpu_device *d, const mk_gpu_synthetic *fill, mk_status *st);
void mk_gpu_filler_close(mk_gpu_filler *f);

/* Enqueues a fraction of a millisecond's work, on more data than the L2 cache holds. */
bool mk_gpu_filler_run(mk_gpu_filler *f, mk_status *st);

/* Works until the clock has settled after a pause. */
bool mk_gpu_filler_settle(mk_gpu_filler *f, mk_status *st);

/* Reads the bytes, so that the L2 cache has them; at most half of what it holds. */
bool mk_gpu_filler_touch(mk_gpu_filler *f, CUdeviceptr from, int64_t bytes, mk_status *st);

#endif

/* What a card really reaches, measured: the rates against which a program's parts are held. */
#ifndef MK_GPU_CEILINGS_H
#define MK_GPU_CEILINGS_H

#include "runtime/gpu/device.h"

typedef struct mk_gpu_ceilings {
  double matmul_tflops; /* a large bf16 matmul, by the library or generated: the faster */
  double copy_tbs;      /* device memory, bytes read and written */
} mk_gpu_ceilings;

/* Takes a few seconds: matmuls and copies run in turns, each turn long enough for the card to come down to the clock that its
 * power allows; the medians of the turns count. Needs up to 3 GB of free device memory. */
bool mk_gpu_measure_ceilings(mk_gpu_device *d, mk_gpu_ceilings *out, mk_status *st);

#endif

/* Times of a program's parts on the device, by events. */
#ifndef MK_GPU_TIMING_H
#define MK_GPU_TIMING_H

#include "codegen/plan.h"
#include "runtime/session.h"

typedef struct mk_gpu_times {
  double *step_ms; /* per step of the program: median over the iterations; malloc'd */
  int nsteps;
  double sum_ms;   /* median over iterations of the step-by-step run, launch gaps included */
  double graph_ms; /* median of the whole program as it normally runs: a graph replay for entries */
} mk_gpu_times;

/* Runs the program of a loaded GPU session `iterations` times step by step (once, when that takes more than a second) and as
 * often whole, after warming up. States move on as in any run. Free with mk_gpu_times_free. */
bool mk_gpu_time_program(mk_session *s, const char *program, int iterations, mk_gpu_times *out, mk_status *st);
void mk_gpu_times_free(mk_gpu_times *t);

/* Of n >= 1 values, which it sorts. */
double mk_gpu_median(double *v, int n);

/* What a card can do by its maker's data sheet, dense. estimated: not in the table, computed from units and clocks. */
typedef struct mk_gpu_peaks {
  double bf16_tflops, tf32_tflops, f32_tflops, memory_tbs;
  bool estimated;
} mk_gpu_peaks;
struct mk_gpu_device;
mk_gpu_peaks mk_gpu_peaks_of(struct mk_gpu_device *d);

#endif

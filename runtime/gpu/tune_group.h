/* Between the tuner's files: one problem's contest on the device. */
#ifndef MK_GPU_TUNE_GROUP_H
#define MK_GPU_TUNE_GROUP_H

#include "runtime/gpu/executor.h"
#include "runtime/gpu/filler.h"
#include "runtime/gpu/probe.h"
#include "runtime/gpu/tune_problems.h"

enum { MK_TUNE_ROUND_RUNS = 128 /* timed between two waits */ };

typedef struct mk_tune_bench { /* what all problems are measured with; zero-initialise */
  mk_gpu_device *d;            /* borrowed; NULL: closed */
  mk_gpu_probe probe;
  mk_gpu_filler filler;
  CUevent events[2 * MK_TUNE_ROUND_RUNS];
  double busy;         /* when the card last had work */
  const mk_plan *plan; /* of the problem at hand */
  mk_gpu_kernel *kernels;
  mk_gpu_spaces spaces;
} mk_tune_bench;

/* Called between rounds with the best so far; false ends the contest. */
typedef bool (*mk_tune_watch_fn)(void *user, const char *best, double best_ms);

bool mk_tune_bench_open(mk_tune_bench *b, mk_gpu_device *d, mk_status *st);
void mk_tune_bench_close(mk_tune_bench *b);

/* Marks the kernels that a contest for the group would run. */
void mk_tune_wanted(const mk_plan *plan, const mk_group *g, bool *wanted);

typedef struct mk_tune_result {
  mk_record record; /* the winner first */
  int usual;        /* its entry that runs without tuning: 0 when that is the winner */
} mk_tune_result;

/* Holds the contest in about so many seconds. True with *out filled in (in the arena) when it was decided; false when it was not,
 * as watch ended it, no candidate is right, or with the status set. *excluded counts candidates with wrong results. */
bool mk_tune_group(mk_tune_bench *b, const mk_group *g, double seconds, mk_tune_watch_fn watch, void *user, mk_arena *arena,
                   mk_tune_result *out, int *excluded, mk_status *st);

#endif

/* Tuning: every realisation of a plan's groups is compiled, held against a reference and timed on the card, inside a budget. */
#ifndef MK_GPU_TUNE_H
#define MK_GPU_TUNE_H

#include "runtime/gpu/tuning.h"

typedef struct mk_tune_job { /* a plan, and how often its entries run for one of the jobs that the tuning is for */
  mk_plan *plan;             /* NULL: nothing */
  double runs;
} mk_tune_job;

typedef struct mk_tune_progress {
  int done, total;   /* problems: groups that are equal count once */
  const char *group; /* at work, or "whole runs"; NULL while kernels compile */
  const char *best;  /* label of the best so far; NULL: none */
  double best_ms;
  double seconds, left; /* spent; until the end, as far as can be told */
} mk_tune_progress;

/* False: stop; what was measured is kept. */
typedef bool (*mk_tune_progress_fn)(void *user, const mk_tune_progress *p);

typedef struct mk_tune_options {
  double seconds;  /* budget */
  bool again;      /* measure what is known, too */
  bool near_is_ok; /* what was measured for another size counts as known */
  mk_tune_progress_fn progress;
  void *user;
} mk_tune_options;

enum { MK_TUNE_JOBS_MAX = 8 };
typedef struct mk_tune_verdict { /* of whole runs of a job's plan */
  char plan[64];                 /* the plan's name */
  int changed, kept;             /* problems; see mk_tune_report */
  double ratio, error;           /* of the time with what was kept to the time without, and its standard error */
} mk_tune_verdict;

typedef struct mk_tune_report {
  int problems, known; /* of all groups; known before */
  int measured;
  int unreached;             /* the budget ended, or the user did */
  int excluded;              /* candidates whose results were wrong */
  int changed;               /* problems in which another candidate or algorithm than the cost model's was faster by itself */
  int kept;                  /* of those, faster in whole runs, too */
  int compared, same, close; /* with earlier records of the same size: the same winner, or one that takes within 1 % as long */
  int ntrials;
  mk_tune_verdict trials[MK_TUNE_JOBS_MAX];
  double seconds;
  bool stopped; /* by progress */
} mk_tune_report;

/* Tunes what the records do not tell enough about (nothing: takes no time), keeps what was found in t and on disk, and applies it
 * to the jobs' plans. A group that cannot be measured keeps its order and costs a message. False with the status set when nothing
 * could be measured at all. */
bool mk_tune(mk_gpu_device *d, mk_tuning *t, const mk_tune_job *jobs, int count, const mk_tune_options *o, mk_tune_report *report,
             mk_status *st);

#endif

/* Between the tuner's files: which problems a set of plans poses. */
#ifndef MK_GPU_TUNE_PROBLEMS_H
#define MK_GPU_TUNE_PROBLEMS_H

#include "runtime/gpu/tune.h"

typedef struct mk_tune_problem { /* groups with the same candidates, launched in the same way */
  const mk_plan *plan;
  const mk_group *group; /* the first of them */
  int job;
  double value; /* what is spent on it: the model's seconds, as often as it runs */
  bool done;    /* by the tuner */
} mk_tune_problem;

typedef struct mk_tune_problems {
  int count, cap;
  mk_tune_problem *items; /* job by job, the most valuable job first; in each the most valuable problem first */
  int known;              /* others, which the records tell enough about */
} mk_tune_problems;

/* In the arena. */
mk_tune_problems mk_tune_problems_of(const mk_tuning *t, const mk_tune_job *jobs, int count, const mk_tune_options *o,
                                     mk_arena *arena);

/* Whether the groups, of one plan, are the same problem. */
bool mk_tune_same_problem(const mk_group *a, const mk_group *b);

/* Of the seconds left, a part goes to what is not done: half of them are divided by value, half equally, so that those worth next
 * to nothing are decided, too. To problem i, of those of its job; to a job, of all. */
double mk_tune_share(const mk_tune_problems *p, int i, double seconds);
double mk_tune_job_share(const mk_tune_problems *p, int job, double seconds);

#endif

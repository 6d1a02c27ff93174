/* Between the tuner's files: whole runs with what the contests chose and without it, in turn. A realisation that wins by itself
 * may lose in its network, to the clock it leaves to its neighbours or to what it drives out of the cache. A change stays when
 * the times of its own groups within whole runs confirm it, which they do alike in every tuning; the time of the whole cannot,
 * where a group is a thousandth of it. It can object: when it is slower by more than its error explains, the lesser half of the
 * changes goes, and so on. So a tuned plan is never measurably slower than an untuned one, and two tunings agree. */
#ifndef MK_GPU_TUNE_TRIAL_H
#define MK_GPU_TUNE_TRIAL_H

#include "runtime/gpu/executor.h"
#include "runtime/gpu/tuning.h"

typedef struct mk_tune_change {
  const mk_record *record; /* borrowed; what won by itself first */
  int usual;               /* the entry that runs without tuning */
  /* The verdict: */
  bool kept;
  double ratio, error; /* of the group's times in whole runs, with to without; 0: it does not run */
} mk_tune_change;

typedef struct mk_tune_whole { /* all that is kept against nothing */
  double ratio, error;         /* of the times of whole runs; 1 when nothing is kept */
} mk_tune_whole;

/* False: stop. */
typedef bool (*mk_tune_tick_fn)(void *user);

/* Runs the plan's programs that the changes are in, on random weights and inputs, each kind of group a few times rather than in
 * every layer, for about so many seconds. The plan's choices are those without the changes. Takes the memory of a session. False
 * with the status set when the plan cannot be run, or tick says stop (MK_EINTERRUPTED). */
bool mk_tune_trial(mk_gpu_device *d, const mk_plan *plan, mk_tune_change *changes, int count, double seconds,
                   mk_tune_tick_fn tick, void *user, mk_tune_whole *out, mk_status *st);

#endif

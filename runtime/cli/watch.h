/* Tables of variants, again whenever a file they come from is saved. */
#ifndef MK_CLI_WATCH_H
#define MK_CLI_WATCH_H

#include "runtime/cli/measure.h"

/* Prints a table now and after every save of the graph, the scripts beside it, --set files, --load kernels or templates; ends
 * after `rounds` tables (0: never). Mistakes in the files are printed and waited for, unless it was the last round: then they
 * are the status. Without a GPU, kernels are compiled for `arch` only. */
void mk_watch(const mk_measure *m, const char *arch, int64_t rounds, mk_status *st);

/* The GPU for m, or without one the architecture to compile for, and why there is none. The device is the caller's to close. */
bool mk_watch_target(mk_measure *m, const char *arch, mk_status *why, mk_status *st);

#endif

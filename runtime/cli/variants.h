/* Every candidate of every group of a program: what the compiler made of it, and on a GPU its time and error. */
#ifndef MK_CLI_VARIANTS_H
#define MK_CLI_VARIANTS_H

#include "runtime/cli/measure.h"

typedef struct mk_variant {
  const char *kind, *group;               /* groups that are alike are one */
  int ordinal;                            /* of the group among those of its kind */
  const char *label;                      /* of the candidate */
  int calls;                              /* groups that are alike */
  bool first, best;                       /* the plan's choice; the fastest that is right */
  uint64_t code;                          /* of its kernels' sources */
  int registers, smem_bytes, spill_bytes; /* the most of its kernels, static and dynamic; -1: none of ours */
  double flop, bytes;
  double ms, limit_ms, error; /* of one call; ms < 0: not timed */
  const char *message;        /* why there is nothing to time; NULL: all is well */
} mk_variant;

typedef struct mk_variants {
  mk_arena arena;
  const char *graph, *entry, *target;
  const char *reference; /* of the errors, NULL: nothing was run */
  double whole_ms;       /* the program with the plan's choices */
  int n, cap;
  mk_variant *items; /* group by group, in the plan's order */
} mk_variants;

/* Compiles all; with m->device, runs and times each by itself, the other groups as planned. A candidate that fails is a variant
 * with a message. False with the status set when nothing can be said at all. Free either way. */
bool mk_variants_measure(mk_variants *v, const mk_measure *m, mk_status *st);
void mk_variants_free(mk_variants *v);

/* The table. before: to compare with, or NULL. */
void mk_variants_print(const mk_variants *v, const mk_variants *before, mk_text *out);

#endif

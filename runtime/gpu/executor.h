/* A GPU session's inside, shared by the files that implement it: session.c (the table), select.c (which candidates), program.c
 * (binding and running), load.c (weights), timing.c. */
#ifndef MK_GPU_EXECUTOR_H
#define MK_GPU_EXECUTOR_H

#include "runtime/gpu/launch.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/module.h"
#include "runtime/gpu/session.h"
#include "runtime/gpu/synthetic.h"

typedef struct mk_gpu_group { /* a plan's group, realised */
  int chosen;
  int nlaunches;
  mk_gpu_launch *launches;
} mk_gpu_group;

typedef struct mk_gpu_program {
  const mk_program *plan;
  CUgraphExec graph; /* NULL: none yet */
  bool no_graph;     /* capturing failed once */
  int64_t runs;
} mk_gpu_program;

typedef struct mk_gpu_session {
  mk_session base;
  mk_gpu_device *d;    /* borrowed */
  const mk_plan *plan; /* borrowed */
  mk_gpu_session_options options;
  mk_arena arena;
  mk_gpu_block spaces[MK_SPACE_COUNT]; /* SCRATCH stays empty: it is the device's */
  mk_gpu_kernel *kernels;              /* per plan->kernels */
  mk_gpu_group *groups;                /* per plan->groups */
  mk_gpu_program *programs;            /* per plan->programs */
  mk_gpu_synthetic fill;               /* open once synthetic weights were asked for */
  bool bound;                          /* launches hold the spaces' present addresses */
  uint64_t scratch_generation;         /* of the device's scratch they hold */
  bool loaded;
  void *parked;   /* host copy of the LOAD space, made by the first park; plan->space_bytes[LOAD] bytes */
  bool is_parked; /* the LOAD space is not on the device now */
} mk_gpu_session;

/* Compiles, loads and prepares the cheapest candidate of every group that works, starting with the plan's choice. */
bool mk_gpu_select(mk_gpu_session *s, mk_status *st);

/* One candidate's launches, not yet bound to memory; its kernels must be loaded. algorithm: of its library matmul, by name; NULL,
 * or one that the library lacks: the library's own choice. On failure nothing is left to free. */
bool mk_gpu_group_make(mk_gpu_device *d, const mk_plan *plan, const mk_candidate *c, const char *algorithm,
                       mk_gpu_kernel *kernels, mk_arena *arena, mk_gpu_group *g, mk_status *why);
/* The group's library matmul; NULL: it has none. */
mk_gpu_launch *mk_gpu_group_matmul(mk_gpu_group *g);
void mk_gpu_group_free(mk_gpu_device *d, mk_gpu_group *g);

/* Takes the session's spaces, after checking that they fit; no-op for those it has. */
bool mk_gpu_take_spaces(mk_gpu_session *s, mk_status *st);
/* Brings all launches up to date with where the spaces are now, and drops graphs that are not. */
bool mk_gpu_bind(mk_gpu_session *s, mk_status *st);
void mk_gpu_graphs_drop(mk_gpu_session *s);

mk_gpu_program *mk_gpu_find_program(mk_gpu_session *s, const char *name);
bool mk_gpu_run_group(mk_gpu_session *s, int group, mk_status *st);
bool mk_gpu_run_program(mk_gpu_session *s, mk_gpu_program *p, mk_status *st);

bool mk_gpu_load(mk_gpu_session *s, const mk_source *weights, mk_progress_fn progress, void *user, mk_status *st);

#endif

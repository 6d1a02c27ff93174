/* The GPU backend: runs a plan on a device. */
#ifndef MK_GPU_SESSION_H
#define MK_GPU_SESSION_H

#include "codegen/plan.h"
#include "runtime/gpu/device.h"
#include "runtime/session.h"

typedef struct mk_gpu_session_options { /* zero: the usual */
  bool tune;                            /* time a few of the library's algorithms per matmul in the first run of each program */
  bool no_graph;                        /* plain launches always, for debugging */
  bool sync;                            /* wait after every launch, so that a fault is reported by the launch that made it */
  bool poison;                          /* fill memory with NaN before it is first written, scratch before every run: for tests */
} mk_gpu_session_options;

/* A plan for the device, which need only be begun: its part of the options is filled in. From any thread. */
mk_plan *mk_gpu_draft(mk_gpu_device *d, const mk_graph *g, mk_plan_options *options, mk_status *st);

/* Compiles what the plan needs (from the cubin cache where it can), picks for every group the first candidate that works,
 * beginning with plan->groups[i].chosen, and checks that memory suffices; memory is taken by load. Device and plan are borrowed
 * until close; several sessions may share a device. NULL with the status set on failure. */
mk_session *mk_gpu_session_open(mk_gpu_device *d, const mk_plan *plan, const mk_gpu_session_options *options, mk_status *st);

/* Which candidate of the group is used. */
int mk_gpu_session_choice(const mk_session *s, int group);
/* The next group's candidate does this group's work: it does not run. */
bool mk_gpu_session_covers(const mk_session *s, int group);

typedef struct mk_gpu_usage { /* the most that one of a group's kernels takes; zero for the library's */
  int registers;              /* a thread */
  int smem_bytes;             /* a block, static and dynamic */
} mk_gpu_usage;
mk_gpu_usage mk_gpu_session_usage(const mk_session *s, int group);

#endif

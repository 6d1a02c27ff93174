/* A pool of compile workers: starts the processes, hands out jobs, notices results, crashes and time-outs. Used by compiler.c
 * only. A worker is our own program run as `moonkiln compile-worker`; in another program (a unit test) it is a fork of that
 * program. */
#ifndef MK_GPU_POOL_H
#define MK_GPU_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/status.h"
#include "runtime/gpu/worker.h"

typedef struct mk_pool_job { /* borrowed until the pool is closed */
  int index;                 /* comes back in the event */
  size_t weight;             /* for the caller's ordering; jobs are handed out in the order given */
  const char *name, *source, *options;
  size_t options_bytes; /* options are separated by NUL */
  bool want_ptx;
} mk_pool_job;

typedef enum mk_pool_event_kind { MK_POOL_NOTHING, MK_POOL_RESULT, MK_POOL_DIED, MK_POOL_TIMEOUT } mk_pool_event_kind;

typedef struct mk_pool_event {
  mk_pool_event_kind kind;
  int job; /* index */
  /* RESULT */
  mk_message message;
  char *parts[MK_MESSAGE_PARTS]; /* owned, each NUL-terminated; set one to NULL to keep it */
  /* DIED */
  int signal, exit_code;
  char output[512]; /* the end of what the process wrote */
} mk_pool_event;

typedef struct mk_pool mk_pool;
mk_pool *mk_pool_open(const mk_pool_job *jobs, int n, int workers, int timeout, const char *nvrtc_path, mk_status *st);

/* Waits a moment (a tenth of a second at most) for something to happen; NOTHING is an answer. False with the status set when no
 * worker can be started. */
bool mk_pool_wait(mk_pool *p, mk_pool_event *event, mk_status *st);
void mk_pool_event_free(mk_pool_event *event);
void mk_pool_close(mk_pool *p); /* ends all workers at once; NULL is fine */

#endif

/* A session: one graph with its weights on one backend. Both backends implement this table; generate, run and bench use only it.
 * Not thread-safe; functions return false with the status set on failure. */
#ifndef MK_RUNTIME_SESSION_H
#define MK_RUNTIME_SESSION_H

#include "runtime/base/tensor.h"

/* Called now and then while weights load; return false to stop (MK_EINTERRUPTED). */
typedef bool (*mk_progress_fn)(void *user, const char *what, int64_t done, int64_t total);

typedef struct mk_session mk_session;
typedef struct mk_session_ops {
  /* Runs the load program: fetches every weight from the source, prepares it, keeps the result. Source: borrowed for the
   * call; NULL for a graph without weights. */
  bool (*load)(mk_session *s, const mk_source *weights, mk_progress_fn progress, void *user, mk_status *st);
  /* Sets an input (prompt or step rate) or a state by name; the value's dims must match; float dtypes are converted. */
  bool (*write)(mk_session *s, const mk_tensor *value, mk_status *st);
  /* Runs a program by name: "prompt" or an entry. Asynchronous on the GPU until read. */
  bool (*run)(mk_session *s, const char *program, mk_status *st);
  bool (*wait)(mk_session *s, mk_status *st); /* until everything asked for is done */
  /* Describes an input, output or state (data NULL). */
  bool (*describe)(mk_session *s, const char *name, mk_tensor *out);
  /* Waits, then copies an output or state out, converted to f32 (i32 stays i32); bytes must match. */
  bool (*read)(mk_session *s, const char *name, void *out, size_t bytes, mk_status *st);
  bool (*reset)(mk_session *s, mk_status *st); /* all states to zero */
  /* Moves weights out of and back into device memory (--offload); CPU: no effect. */
  bool (*park)(mk_session *s, mk_status *st);
  bool (*unpark)(mk_session *s, mk_status *st);
  void (*close)(mk_session *s);
} mk_session_ops;

struct mk_session { /* backends embed this first */
  const mk_session_ops *ops;
  const char *backend; /* "cpu", "cuda" */
};

#endif

/* A backend by name, and sessions on it: the choice between GPU and CPU in one place. */
#ifndef MK_RUNTIME_BACKEND_H
#define MK_RUNTIME_BACKEND_H

#include "codegen/ir.h"
#include "codegen/plan.h"
#include "runtime/gpu/tune.h"
#include "runtime/session.h"

typedef struct mk_backend mk_backend;

/* "cpu", "cuda", or NULL for cuda where there is a usable GPU and cpu otherwise. NULL with the status set on failure. */
mk_backend *mk_backend_open(const char *name, mk_status *st);

/* The same in parts: a GPU takes a while to start, in which mk_backend_name says what it is to be, and mk_backend_draft can be
 * used. Then as_begun tells whether it has started; if not, all drafts must have ended before ready, which makes it cpu, or
 * fails. */
mk_backend *mk_backend_begin(const char *name, mk_status *st);
bool mk_backend_as_begun(const mk_backend *b);
bool mk_backend_ready(mk_backend *b, mk_status *st);
void mk_backend_close(mk_backend *b); /* after all its sessions; NULL is fine */
const char *mk_backend_name(const mk_backend *b);

/* From now on plans are made with this, whose texts are borrowed until close; before, with the environment's templates. */
void mk_backend_try(mk_backend *b, const mk_trial *trial);

/* From now on the plans keep the cost model's order, whatever was measured on this card. */
void mk_backend_ignore_records(mk_backend *b);

/* A plan of an optimized graph for the GPU, chosen by what was measured on this card before, from any thread; NULL with a clean
 * status on the CPU, and when the GPU does not start. Free with mk_plan_free. */
mk_plan *mk_backend_draft(mk_backend *b, const mk_graph *g, mk_status *st);

/* The same once the backend is ready. */
mk_plan *mk_backend_plan(mk_backend *b, const mk_graph *g, mk_status *st);
/* The plans of several graphs (NULL: none), made side by side. False with the status set when one failed; all are to be freed. */
bool mk_backend_plans(mk_backend *b, mk_graph *const *graphs, int count, mk_plan **plans, mk_status *st);

/* Whether tuning the jobs would find all known. */
bool mk_backend_knows(mk_backend *b, const mk_tune_job *jobs, int count, const mk_tune_options *o);
/* Measures what is not known of the jobs' plans (those that are not NULL), and keeps it for the plans to come. Nothing on the
 * CPU, nor when records are ignored. */
bool mk_backend_tune(mk_backend *b, const mk_tune_job *jobs, int count, const mk_tune_options *o, mk_tune_report *report,
                     mk_status *st);

/* A session for an optimized graph, which it borrows, as it does the graph's plan (NULL: it is made here). What it compiles is
 * the backend's. Close with session->ops->close. */
mk_session *mk_backend_session(mk_backend *b, const mk_graph *g, const mk_plan *plan, mk_status *st);

/* Whether sessions for these plans (of mk_backend_plan) can be in memory together, or with offload one at a time; false with the
 * status set when the GPU's free memory is too small. The CPU is not asked. `what` is for the message. */
bool mk_backend_fits(mk_backend *b, mk_plan *const *plans, int count, bool offload, const char *what, mk_status *st);

#endif

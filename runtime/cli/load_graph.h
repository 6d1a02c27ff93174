/* From a script and --set options to an optimized graph; from a graph to a session on a backend. Shared by the commands. */
#ifndef MK_CLI_LOAD_GRAPH_H
#define MK_CLI_LOAD_GRAPH_H

#include "codegen/ir.h"
#include "codegen/plan.h"
#include "runtime/cli/options.h"
#include "runtime/session.h"

/* Builds params from "key=value" items: value is JSON, or a plain string if it is not; "@file.json" reads a file; "a.b=1" sets a
 * field of table a. Then runs the script and optimizes. `raw`: leave the passes out. NULL with the status set on failure. */
mk_graph *mk_cli_load_graph(const char *script, const mk_text_list *sets, const mk_source *weights, bool raw, mk_status *st);

/* Plan options for compute capability × 10 `arch`, with the templates of the data folder (arena-owned path). */
bool mk_cli_plan_options(int arch, mk_arena *arena, mk_plan_options *out, mk_status *st);

typedef struct mk_trial_request { /* --templates and --load */
  mk_text_list templates;
  const char *load;
} mk_trial_request;

/* The folders of the request, then those of the environment. Texts are borrowed or the arena's. */
mk_trial mk_cli_trial(const mk_trial_request *r, mk_arena *arena);

/* Per kernel of the plan: whether the first choices launch it and its name holds `pattern` (NULL: any); `all`: every candidate's.
 * malloc'd; NULL with the status set on failure, or when a pattern fits no kernel. */
bool *mk_cli_wanted_kernels(const mk_plan *p, bool all, const char *pattern, mk_status *st);

/* "80,90a" or "sm_90a" -> 80, 90. */
bool mk_cli_parse_arch(const char *text, int *out, int max, int *count, mk_status *st);

#endif

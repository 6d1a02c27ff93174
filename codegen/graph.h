/* The front end: a sandboxed Lua script in, an IR graph out. */
#ifndef MK_CODEGEN_GRAPH_H
#define MK_CODEGEN_GRAPH_H

#include "codegen/ir.h"

typedef struct mk_script_options {
  const char *path;         /* the .lua file; `include` resolves beside it and in its folder only */
  const char *params_json;  /* a JSON object, seen by the script as the global table `params`; NULL: {} */
  const mk_source *weights; /* for weight() and has_weight(): shapes and dtypes; NULL: weights are taken as declared */
  int64_t max_instructions; /* 0: 500 million VM instructions */
  size_t max_memory;        /* 0: 512 MiB of Lua heap; for a moment it may be twice as much */
} mk_script_options;

/* Runs the script and returns the verified, not yet optimized graph (free with mk_graph_free), or NULL with the status set:
 * messages start with "file.lua:LINE:". */
mk_graph *mk_graph_from_script(const mk_script_options *options, mk_status *st);

#endif

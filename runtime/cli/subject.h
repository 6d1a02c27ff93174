/* What a command times: the graph of a script, or one guided diffusion step of a model; with its weights. */
#ifndef MK_CLI_SUBJECT_H
#define MK_CLI_SUBJECT_H

#include "codegen/ir.h"
#include "runtime/cli/measure.h"
#include "runtime/cli/weights.h"
#include "runtime/model/checkpoint.h"

typedef struct mk_subject {
  const char *name; /* for people, in the arena given to open */
  mk_graph *graph;
  mk_source source; /* for loading */
  bool has_source;
  mk_weights *weights; /* behind the source, one of them */
  mk_model *model;
} mk_subject;

/* False with the status set; close either way. */
bool mk_subject_open(mk_subject *s, const mk_measure *m, mk_arena *arena, mk_status *st);
void mk_subject_close(mk_subject *s);

#endif

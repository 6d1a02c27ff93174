/* Weights made up on the host, for running one graph on both backends. */
#ifndef MK_CLI_MADE_UP_H
#define MK_CLI_MADE_UP_H

#include "codegen/ir.h"

typedef struct mk_made_up {
  mk_arena arena;
  int count;
  mk_tensor *tensors;
} mk_made_up;

/* Values for every weight of the graph; close either way. They depend on names, shapes and seed only. */
void mk_made_up_open(mk_made_up *m, const mk_graph *g, uint64_t seed);
mk_source mk_made_up_source(mk_made_up *m); /* good until close */
void mk_made_up_close(mk_made_up *m);
int64_t mk_made_up_bytes(const mk_graph *g); /* what open would take */

#endif

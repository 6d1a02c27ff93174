/* What passes that replace a graph's nodes share. */
#ifndef MK_CODEGEN_REWRITE_H
#define MK_CODEGEN_REWRITE_H

#include "codegen/infer.h"

typedef struct mk_rewrite {
  mk_graph *g;
  const mk_node *old; /* the nodes before */
  int count;
  int *map; /* old id -> new id, to be filled as nodes are made; -1: dropped */
} mk_rewrite;

/* Takes the nodes out of the graph, whose list is then empty with room for as many. */
mk_rewrite mk_rewrite_begin(mk_graph *g);
/* The args of an old node by their new ids, in the graph's arena. */
const int *mk_rewrite_args(const mk_rewrite *rw, const mk_node *old);
/* Points outputs and updates to the new nodes. */
void mk_rewrite_end(mk_rewrite *rw);

/* ---- fold.c: values known at compile time */

/* id is an f32 constant, or one that is cast to a float dtype. */
bool mk_is_known(const mk_graph *g, int id);
float mk_known_at(const mk_graph *g, int id, int64_t i);
/* n, an elementwise operation on known values, computed as f32 into the arena; NULL if its arguments are not known, the result is
 * not f32, too large, or has NaN. n's dims are inferred already. */
const float *mk_fold(mk_graph *g, const mk_node *n);
/* The same for PERMUTE and SLICE of a constant, of either dtype. */
const void *mk_fold_move(mk_graph *g, const mk_node *n);

#endif

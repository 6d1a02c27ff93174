/* Shape, dtype and rate inference: the one place that knows what an operation accepts. Used by the builder and by the verifier.
 */
#ifndef MK_CODEGEN_INFER_H
#define MK_CODEGEN_INFER_H

#include "codegen/ir.h"

/* Limits of a graph as it is built; a script that runs away meets these before the machine's. */
#define MK_MAX_ELEMENTS ((int64_t)1 << 40) /* of one value */
#define MK_MAX_NODES (1 << 18)
#define MK_MAX_ARGS 1024
#define MK_MAX_NAME 255
#define MK_MAX_GRAPH_BYTES ((size_t)512 << 20) /* nodes, names and constants */

/* Requires op, args (ids below `before`) and attr, and dtype, dims and rank where the op reads them; fills in the rest of dtype,
 * dims, rank and rate. Says what is wrong, with the shapes and n->where. */
bool mk_infer(const mk_graph *g, int before, mk_node *n, mk_status *st);

/* attr with only the fields that op uses. */
mk_attr mk_attr_clean(mk_op op, const mk_attr *attr);
/* Equal in every field; CONST data by pointer only. */
bool mk_attr_same(const mk_attr *a, const mk_attr *b);

/* Appends *n (strings, args and data already the graph's) after inferring; returns its id or -1. For the builder and passes. */
int mk_append(mk_graph *g, mk_node *n, mk_status *st);

#endif

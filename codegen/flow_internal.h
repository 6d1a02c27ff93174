/* Between flow.c and inline.c. */
#ifndef MK_CODEGEN_FLOW_INTERNAL_H
#define MK_CODEGEN_FLOW_INTERNAL_H

#include "codegen/flow.h"

/* CSR of the graph's edges: users[first[id]] .. are the nodes that have id as an argument. */
void mk_find_inline(mk_flow *f, const int *first, const int *users);

#endif

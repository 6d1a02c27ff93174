/* Between group.c, group_merge.c, group_order.c and group_root.c. */
#ifndef MK_CODEGEN_GROUP_INTERNAL_H
#define MK_CODEGEN_GROUP_INTERNAL_H

#include "codegen/group.h"

/* A group of one unit, at the end of the order. */
int mk_cluster_add(mk_grouping *gr, int unit);
/* Makes b part of a if their domains agree and no cycle arises; a or b survives, the other is dead. Returns the survivor or -1.
 */
int mk_cluster_merge(mk_grouping *gr, int a, int b);
/* Reorders so that a and b can be neighbours. False: something must run between them. Changes nothing then. */
bool mk_order_join(mk_grouping *gr, int a, int b);
/* Marks what the root's epilogue should absorb. */
void mk_plan_epilogue(mk_grouping *gr, int root, bool row_epilogue);

#endif

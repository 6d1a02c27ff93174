/* Grouping: the units of one program become groups, each later one kernel (or one library call and a kernel). */
#ifndef MK_CODEGEN_GROUP_H
#define MK_CODEGEN_GROUP_H

#include "codegen/flow.h"
#include "codegen/weave.h"

typedef struct mk_member {
  int unit;
  mk_axes map; /* of the unit's value, over the group's axes */
} mk_member;

typedef struct mk_cluster {
  int root;     /* the unit of the matmul, attention or convolution; -1: a row program */
  bool reduces; /* some member reduces over cols */
  bool dead;    /* merged into another */
  int naxes;
  int64_t extent[MK_MAX_AXES];
  int pair;     /* the axis of rotated pairs, which must be the innermost of all; -1: none */
  mk_list cols; /* axes of one row, outermost first: what is reduced, or the root's columns; empty: all axes are alike */
  int nmembers, cap;
  mk_member *members; /* in unit order */
  int place;          /* in grouping.order */
  int stamp;          /* of the search that saw it last */
} mk_cluster;

typedef struct mk_grouping {
  const mk_flow *f;
  mk_arena *arena;
  mk_rate rate;
  int entry;
  int *cluster_of; /* per unit; -1: not of this program */
  int nclusters, cap;
  mk_cluster *clusters;
  int norder, order_cap;
  int *order;   /* clusters in a valid order of execution; dead ones are dropped at the end */
  int *scratch; /* as long as order may get */
  int stamp;
  int *absorb; /* per unit: the root unit whose epilogue should take it, or -1 */
} mk_grouping;

/* `entry` counts for step rate only. row_epilogue: says whether some template can finish whole rows after this root. */
typedef bool (*mk_row_epilogue_fn)(void *user, int root_node);
mk_grouping *mk_group_units(const mk_flow *f, mk_rate rate, int entry, mk_row_epilogue_fn row_epilogue, void *user);

bool mk_in_program(const mk_flow *f, int unit, mk_rate rate, int entry);
/* The map that member u needs its argument k to have; the node is what mk_unit_arg names. False for operands of roots. */
bool mk_arg_map(const mk_flow *f, const mk_cluster *c, const mk_member *m, int k, mk_axes *out);
/* The unit whose register value argument k could be, through maps alone, or -1: a buffer must be read. */
int mk_arg_unit(const mk_flow *f, int unit, int k);
/* Somebody reads the unit's value from memory, if this cluster is all that has it in registers. */
bool mk_is_stored(const mk_grouping *gr, int unit);

#endif

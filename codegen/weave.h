/* Axes: what a group iterates over. A tensor's dims are lists of axes (outermost first), so reshapes and permutes inside a group
 * cost nothing. A weave makes the axes of two groups one set, splitting and equating them as their links ask. */
#ifndef MK_CODEGEN_WEAVE_H
#define MK_CODEGEN_WEAVE_H

#include "codegen/view.h"

enum { MK_MAX_AXES = 16, MK_MAX_WEAVE = 80 };

typedef struct mk_list {
  int n;
  uint8_t axis[MK_MAX_AXES];
} mk_list;

typedef struct mk_axes { /* dim i of a tensor is the axes first[i] .. first[i+1]-1; none: extent 1, or repeated */
  uint8_t rank, first[MK_MAX_RANK + 1], axis[MK_MAX_AXES];
} mk_axes;

typedef struct mk_weave {
  int n;
  struct mk_weave_axis {
    int64_t extent;
    int8_t hi, lo; /* split into these, or -1 */
    int8_t same;   /* equal to this one, or -1 */
    uint8_t sides; /* bit per group that iterates over it */
  } axis[MK_MAX_WEAVE];
} mk_weave;

int mk_weave_add(mk_weave *w, int64_t extent, uint8_t side); /* axis number; -1 when full */
/* The list in terms of unsplit representatives; false when too long. */
bool mk_weave_leaves(const mk_weave *w, const mk_list *in, mk_list *out);
/* Makes two lists the same axes. False: no common refinement, or it would equate two axes of one group. */
bool mk_weave_equate(mk_weave *w, const mk_list *a, const mk_list *b);
/* Splits the list's innermost axis so that its last part has this extent; the rest and the part as lists of leaves. */
bool mk_weave_split_last(mk_weave *w, const mk_list *a, int64_t extent, mk_list *rest);
/* Splits axes so that each lies within one digit. */
bool mk_weave_fit_digits(mk_weave *w, const mk_list *a, const mk_digit *digits, int n);

mk_list mk_axes_dim(const mk_axes *m, int dim);
bool mk_axes_push_dim(mk_axes *m, const mk_list *list); /* appends a dim; false when too long */
/* The map of a movement node from its argument's. False: it has no map (a real slice, an upsample). */
bool mk_weave_move(mk_weave *w, const mk_axes *arg, const mk_node *move, const mk_node *arg_node, mk_axes *out);

#endif

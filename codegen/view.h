/* Strided views: what movement operations mean for addresses in a dense buffer. */
#ifndef MK_CODEGEN_VIEW_H
#define MK_CODEGEN_VIEW_H

#include "codegen/ir.h"

enum { MK_MAX_DIGITS = 16 };

typedef struct mk_digit { /* extent > 1; stride in elements, 0 repeats */
  int64_t extent, stride;
} mk_digit;

/* Dim i is the mixed-radix number of digits first[i] .. first[i+1]-1, outermost first; no digit means extent 1. So a reshape that
 * splits or joins strided axes is still a view. */
typedef struct mk_view {
  int source; /* the node whose dense buffer this looks at */
  int64_t offset;
  int rank;
  uint8_t first[MK_MAX_RANK + 1];
  mk_digit digit[MK_MAX_DIGITS];
} mk_view;

mk_view mk_view_dense(int source, const int64_t *dims, int rank);
/* Applies a movement node (RESHAPE, PERMUTE, EXPAND, SLICE, UPSAMPLE) whose argument is v. False: no view can express it. */
bool mk_view_move(mk_view *v, const mk_node *move, const int64_t *arg_dims);
/* As if the view's dims had been broadcast to these, right-aligned. */
bool mk_view_broadcast(mk_view *v, const int64_t *from, int from_rank, const int64_t *dims, int rank);
/* All elements, in order, from one run of memory. */
bool mk_view_contiguous(const mk_view *v);
/* Dims a..b-1 as one digit: false where they are not evenly spaced. A lone element has stride 0. */
bool mk_view_joined(const mk_view *v, int a, int b, mk_digit *out);

#endif

/* Text as an array of Unicode code points, for the cleaning steps. */
#ifndef MK_MODEL_POINTS_H
#define MK_MODEL_POINTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/arena.h"

typedef struct mk_points {
  int32_t *at; /* owned by the arena that every append is given */
  size_t count, cap;
} mk_points; /* zero-initialise */

static inline void mk_points_add(mk_arena *arena, mk_points *points, int32_t point) {
  MK_PUSH(arena, points->at, points->count, points->cap, point);
}

static inline mk_points mk_points_slice(mk_points points, size_t from, size_t to) {
  return (mk_points){.at = points.at + from, .count = to - from};
}

static inline void mk_points_append(mk_arena *arena, mk_points *points, mk_points more) {
  for (size_t i = 0; i < more.count; i++) mk_points_add(arena, points, more.at[i]);
}

static inline int mk_points_equal(mk_points a, mk_points b) {
  return a.count == b.count && (a.count == 0 || !memcmp(a.at, b.at, a.count * sizeof *a.at));
}

#endif

#include "codegen/view.h"

#include <string.h>

/* Builds a view dim by dim. */
typedef struct builder {
  mk_view v;
  int n;
  bool full; /* more digits than fit */
} builder;

static void put(builder *b, int64_t extent, int64_t stride) {
  if (extent == 1) return;
  if (b->n == MK_MAX_DIGITS) {
    b->full = true;
    return;
  }
  b->v.digit[b->n++] = (mk_digit){extent, stride};
}

static void end_dim(builder *b) { b->v.first[++b->v.rank] = (uint8_t)b->n; }

static void put_dim(builder *b, const mk_view *v, int dim) {
  for (int i = v->first[dim]; i < v->first[dim + 1]; i++) put(b, v->digit[i].extent, v->digit[i].stride);
  end_dim(b);
}

static bool finish(builder *b, mk_view *v) {
  if (b->full) return false;
  b->v.source = v->source;
  b->v.offset += v->offset;
  *v = b->v;
  return true;
}

mk_view mk_view_dense(int source, const int64_t *dims, int rank) {
  builder b = {.v.source = source};
  int64_t stride = mk_dims_count(dims, rank);
  for (int i = 0; i < rank; i++) {
    stride /= dims[i];
    put(&b, dims[i], stride);
    end_dim(&b);
  }
  return b.v;
}

/* The digits of dims a..b-1 with neighbours joined where they are evenly spaced; returns how many. */
static int joined_digits(const mk_view *v, int a, int b, mk_digit *out) {
  int n = 0;
  for (int i = v->first[a]; i < v->first[b]; i++) {
    mk_digit d = v->digit[i];
    if (n && out[n - 1].stride == d.stride * d.extent)
      out[n - 1] = (mk_digit){out[n - 1].extent * d.extent, d.stride};
    else
      out[n++] = d;
  }
  return n;
}

static bool reshape(mk_view *v, const mk_node *move) {
  builder b = {0};
  mk_digit digits[MK_MAX_DIGITS];
  int n = joined_digits(v, 0, v->rank, digits), at = 0;
  for (int i = 0; i < move->rank; i++) {
    int64_t left = move->dims[i];
    while (left > 1) {
      mk_digit *d = &digits[at];
      if (at == n) return false;
      if (left % d->extent == 0) {
        put(&b, d->extent, d->stride);
        left /= d->extent;
        at++;
      } else if (d->extent % left == 0) {
        d->extent /= left;
        put(&b, left, d->stride * d->extent);
        left = 1;
      } else {
        return false;
      }
    }
    end_dim(&b);
  }
  return finish(&b, v);
}

/* Takes [start, start+count) of the number made by digits i..end-1. */
static bool slice_dim(builder *b, const mk_view *v, int i, int end, int64_t start, int64_t count) {
  if (i == end) return true;
  int64_t inner = 1;
  for (int j = i + 1; j < end; j++) inner *= v->digit[j].extent;
  if (start % inner == 0 && count % inner == 0) {
    b->v.offset += start / inner * v->digit[i].stride;
    put(b, count / inner, v->digit[i].stride);
    for (int j = i + 1; j < end; j++) put(b, v->digit[j].extent, v->digit[j].stride);
    return true;
  }
  if (start / inner != (start + count - 1) / inner) return false;
  b->v.offset += start / inner * v->digit[i].stride;
  return slice_dim(b, v, i + 1, end, start % inner, count);
}

static bool slice(mk_view *v, const mk_node *move) {
  builder b = {0};
  for (int i = 0; i < v->rank; i++) {
    if (!slice_dim(&b, v, v->first[i], v->first[i + 1], move->attr.start[i], move->dims[i])) return false;
    end_dim(&b);
  }
  return finish(&b, v);
}

bool mk_view_move(mk_view *v, const mk_node *move, const int64_t *arg_dims) {
  builder b = {0};
  switch (move->op) {
    case MK_OP_RESHAPE: return reshape(v, move);
    case MK_OP_SLICE: return slice(v, move);
    case MK_OP_PERMUTE:
      for (int i = 0; i < v->rank; i++) put_dim(&b, v, move->attr.perm[i]);
      return finish(&b, v);
    case MK_OP_EXPAND: return mk_view_broadcast(v, arg_dims, v->rank, move->dims, move->rank);
    case MK_OP_UPSAMPLE:
      for (int i = 0; i < v->rank; i++) {
        put_dim(&b, v, i);
        if (i != 1 && i != 2) continue;
        put(&b, 2, 0);
        b.v.first[i + 1] = (uint8_t)b.n;
      }
      return finish(&b, v);
    default: return false;
  }
}

bool mk_view_broadcast(mk_view *v, const int64_t *from, int from_rank, const int64_t *dims, int rank) {
  builder b = {0};
  for (int i = 0; i < rank; i++) {
    int j = i - (rank - from_rank);
    if (j >= 0 && from[j] == dims[i]) {
      put_dim(&b, v, j);
    } else {
      put(&b, dims[i], 0);
      end_dim(&b);
    }
  }
  return finish(&b, v);
}

bool mk_view_contiguous(const mk_view *v) {
  mk_digit d;
  return mk_view_joined(v, 0, v->rank, &d) && d.stride <= 1 && (d.stride == 1 || d.extent == 1);
}

bool mk_view_joined(const mk_view *v, int a, int b, mk_digit *out) {
  mk_digit digits[MK_MAX_DIGITS];
  int n = joined_digits(v, a, b, digits);
  *out = n ? digits[0] : (mk_digit){1, 0};
  return n <= 1;
}

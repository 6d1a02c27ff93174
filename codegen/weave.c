#include "codegen/weave.h"

#include <string.h>

int mk_weave_add(mk_weave *w, int64_t extent, uint8_t side) {
  if (w->n == MK_MAX_WEAVE) return -1;
  w->axis[w->n] = (struct mk_weave_axis){extent, -1, -1, -1, side};
  return w->n++;
}

static bool add_leaves(const mk_weave *w, int a, mk_list *out) {
  const struct mk_weave_axis *x = &w->axis[a];
  if (x->same >= 0) return add_leaves(w, x->same, out);
  if (x->hi >= 0) return add_leaves(w, x->hi, out) && add_leaves(w, x->lo, out);
  if (out->n == MK_MAX_AXES) return false;
  out->axis[out->n++] = (uint8_t)a;
  return true;
}

bool mk_weave_leaves(const mk_weave *w, const mk_list *in, mk_list *out) {
  mk_list leaves = {0};
  for (int i = 0; i < in->n; i++)
    if (!add_leaves(w, in->axis[i], &leaves)) return false;
  *out = leaves;
  return true;
}

/* Splits leaf a into (extent / inner, inner). */
static bool split(mk_weave *w, int a, int64_t inner) {
  int hi = mk_weave_add(w, w->axis[a].extent / inner, w->axis[a].sides), lo = mk_weave_add(w, inner, w->axis[a].sides);
  if (hi < 0 || lo < 0) return false;
  w->axis[a].hi = (int8_t)hi;
  w->axis[a].lo = (int8_t)lo;
  return true;
}

bool mk_weave_equate(mk_weave *w, const mk_list *a, const mk_list *b) {
  mk_list p, q;
  if (!mk_weave_leaves(w, a, &p) || !mk_weave_leaves(w, b, &q)) return false;
  while (p.n && q.n) {
    int x = p.axis[p.n - 1], y = q.axis[q.n - 1];
    int64_t ex = w->axis[x].extent, ey = w->axis[y].extent;
    if (x == y || ex == ey) {
      if (x != y) {
        if (w->axis[x].sides & w->axis[y].sides) return false;
        w->axis[y].same = (int8_t)x;
        w->axis[x].sides |= w->axis[y].sides;
      }
      p.n--;
      q.n--;
    } else if (ex % ey == 0) {
      if (!split(w, x, ey)) return false;
    } else if (ey % ex == 0) {
      if (!split(w, y, ex)) return false;
    } else {
      return false;
    }
    if (!mk_weave_leaves(w, &p, &p) || !mk_weave_leaves(w, &q, &q)) return false;
  }
  return p.n == q.n;
}

bool mk_weave_split_last(mk_weave *w, const mk_list *a, int64_t extent, mk_list *rest) {
  mk_list p;
  if (!mk_weave_leaves(w, a, &p) || !p.n) return false;
  int last = p.axis[p.n - 1];
  int64_t e = w->axis[last].extent;
  if (e % extent) return false;
  if (e != extent && (!split(w, last, extent) || !mk_weave_leaves(w, &p, &p))) return false;
  p.n--;
  *rest = p;
  return true;
}

bool mk_weave_fit_digits(mk_weave *w, const mk_list *a, const mk_digit *digits, int n) {
  mk_list p;
  if (n < 2) return true;
  if (!mk_weave_leaves(w, a, &p)) return false;
  int64_t left = digits[n - 1].extent;
  while (p.n && n) {
    int x = p.axis[p.n - 1];
    int64_t e = w->axis[x].extent;
    if (left % e == 0) {
      left /= e;
      p.n--;
    } else if (e % left == 0) {
      if (!split(w, x, left) || !mk_weave_leaves(w, &p, &p)) return false;
      left = 1;
      p.n--;
    } else {
      return false;
    }
    if (left == 1) {
      n--;
      if (n) left = digits[n - 1].extent;
    }
  }
  return true;
}

mk_list mk_axes_dim(const mk_axes *m, int dim) {
  mk_list l = {.n = m->first[dim + 1] - m->first[dim]};
  memcpy(l.axis, m->axis + m->first[dim], (size_t)l.n);
  return l;
}

bool mk_axes_push_dim(mk_axes *m, const mk_list *list) {
  int at = m->first[m->rank];
  if (at + list->n > MK_MAX_AXES || m->rank == MK_MAX_RANK) return false;
  memcpy(m->axis + at, list->axis, (size_t)list->n);
  m->first[++m->rank] = (uint8_t)(at + list->n);
  return true;
}

static int64_t list_extent(const mk_weave *w, const mk_list *l) {
  int64_t e = 1;
  for (int i = 0; i < l->n; i++) e *= w->axis[l->axis[i]].extent;
  return e;
}

static bool reshape(mk_weave *w, const mk_axes *arg, const mk_node *move, const mk_node *arg_node, mk_axes *out) {
  mk_list all = {0};
  for (int i = 0; i < arg->rank; i++) {
    mk_list dim = mk_axes_dim(arg, i);
    if (list_extent(w, &dim) != arg_node->dims[i] || all.n + dim.n > MK_MAX_AXES) return false;
    memcpy(all.axis + all.n, dim.axis, (size_t)dim.n);
    all.n += dim.n;
  }
  mk_list dims[MK_MAX_RANK];
  if (!mk_weave_leaves(w, &all, &all)) return false;
  for (int i = move->rank - 1; i >= 0; i--) { /* innermost first: each dim takes axes from the end */
    int64_t left = move->dims[i];
    int end = all.n;
    while (left > 1) {
      if (!all.n) return false;
      int x = all.axis[all.n - 1];
      int64_t e = w->axis[x].extent;
      if (left % e == 0) {
        left /= e;
        all.n--;
      } else if (e % left == 0) { /* its inner part is this dim's outermost axis, its outer part the next dim's innermost */
        if (!split(w, x, left) || end == MK_MAX_AXES) return false;
        memmove(all.axis + all.n + 1, all.axis + all.n, (size_t)(end - all.n));
        all.axis[all.n - 1] = (uint8_t)w->axis[x].hi;
        all.axis[all.n] = (uint8_t)w->axis[x].lo;
        end++;
        left = 1;
      } else {
        return false;
      }
    }
    dims[i] = (mk_list){.n = end - all.n};
    memcpy(dims[i].axis, all.axis + all.n, (size_t)dims[i].n);
  }
  for (int i = 0; i < move->rank; i++)
    if (!mk_axes_push_dim(out, &dims[i])) return false;
  return true;
}

bool mk_weave_move(mk_weave *w, const mk_axes *arg, const mk_node *move, const mk_node *arg_node, mk_axes *out) {
  *out = (mk_axes){0};
  if (move->op == MK_OP_RESHAPE) return reshape(w, arg, move, arg_node, out);
  if (move->op == MK_OP_UPSAMPLE) return false;
  if (move->op == MK_OP_SLICE && memcmp(move->dims, arg_node->dims, sizeof *move->dims * (size_t)move->rank)) return false;
  for (int i = 0; i < move->rank; i++) { /* an expanded dim keeps its empty list */
    mk_list dim = mk_axes_dim(arg, move->op == MK_OP_PERMUTE ? move->attr.perm[i] : i);
    if (!mk_axes_push_dim(out, &dim)) return false;
  }
  return true;
}

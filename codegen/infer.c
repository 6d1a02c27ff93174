/* What every operation accepts, and the shape and dtype it yields. */
#include "codegen/infer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SHAPE_TEXT = 160 };

typedef struct ctx {
  const mk_graph *g;
  mk_node *n;
  mk_status *st;
} ctx;

static bool bad(const ctx *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool bad(const ctx *c, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  const char *where = c->n->where;
  mk_fail(c->st, MK_EINPUT, "%s%s%s: %s", where ? where : "", where ? ": " : "", mk_op_name(c->n->op), text);
  return false;
}

static const mk_node *arg(const ctx *c, int i) { return &c->g->nodes[c->n->args[i]]; }

typedef struct shape_text {
  char s[SHAPE_TEXT];
} shape_text;

static shape_text text_of(const mk_node *n) {
  shape_text t = {""};
  mk_dims_str(n->dims, n->rank, t.s, sizeof t.s);
  return t;
}
#define SHAPE(node) (text_of(node).s)

static void set_shape(mk_node *n, const int64_t *dims, int rank) {
  int64_t copy[MK_MAX_RANK] = {0};
  if (rank > 0) memcpy(copy, dims, sizeof *copy * (size_t)rank);
  memcpy(n->dims, copy, sizeof copy);
  n->rank = rank;
}

/* Rank, extents and size of the result; the multiplication cannot overflow as every factor is checked first. */
static bool check_shape(const ctx *c) {
  const mk_node *n = c->n;
  if (n->rank < 0 || n->rank > MK_MAX_RANK) return bad(c, "rank %d; at most %d axes are supported", n->rank, MK_MAX_RANK);
  int64_t count = 1;
  for (int i = 0; i < n->rank; i++) {
    if (n->dims[i] < 1) return bad(c, "extent %lld of %s is less than 1", (long long)n->dims[i], SHAPE(n));
    if (n->dims[i] > MK_MAX_ELEMENTS / count) return bad(c, "%s has more than 2^40 elements", SHAPE(n));
    count *= n->dims[i];
  }
  return true;
}

static bool is_float(mk_dtype t) { return t == MK_F32 || t == MK_F16 || t == MK_BF16; }

static bool need_float(const ctx *c, int i, const char *what) {
  if (is_float(arg(c, i)->dtype)) return true;
  return bad(c, "%s %s is %s; arithmetic takes f32, f16 or bf16", what, SHAPE(arg(c, i)), mk_dtype_name(arg(c, i)->dtype));
}

static bool infer_leaf(const ctx *c) {
  mk_node *n = c->n;
  if ((unsigned)n->dtype >= MK_DTYPE_COUNT) return bad(c, "unknown dtype %d", (int)n->dtype);
  if (n->op == MK_OP_CONST) {
    if (!n->attr.data) return bad(c, "no data");
    if (n->dtype != MK_F32 && n->dtype != MK_I32) return bad(c, "constants are f32 or i32, not %s", mk_dtype_name(n->dtype));
  } else if (!n->name || !*n->name) {
    return bad(c, "needs a name");
  }
  if (n->op == MK_OP_INPUT && (unsigned)n->attr.rate > MK_RATE_STEP) return bad(c, "unknown rate %d", (int)n->attr.rate);
  n->rate = n->op == MK_OP_INPUT ? n->attr.rate : n->op == MK_OP_STATE ? MK_RATE_STEP : MK_RATE_LOAD;
  return true;
}

static bool infer_unary(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *x = arg(c, 0);
  set_shape(n, x->dims, x->rank);
  if (n->op != MK_OP_CAST) {
    n->dtype = MK_F32;
    return need_float(c, 0, "x");
  }
  if ((unsigned)n->dtype >= MK_DTYPE_COUNT) return bad(c, "unknown dtype %d", (int)n->dtype);
  if (n->dtype != x->dtype && (!is_float(n->dtype) || !is_float(x->dtype)))
    return bad(c, "%s to %s: only float dtypes are cast", mk_dtype_name(x->dtype), mk_dtype_name(n->dtype));
  return true;
}

static bool infer_binary(const ctx *c) {
  const mk_node *a = arg(c, 0), *b = arg(c, 1);
  int rank = a->rank > b->rank ? a->rank : b->rank;
  int64_t dims[MK_MAX_RANK];
  for (int i = 1; i <= rank; i++) {
    int64_t da = i <= a->rank ? a->dims[a->rank - i] : 1, db = i <= b->rank ? b->dims[b->rank - i] : 1;
    if (da != db && da != 1 && db != 1)
      return bad(c, "%s and %s do not broadcast: axis %d from the end has %lld and %lld", SHAPE(a), SHAPE(b), i, (long long)da,
                 (long long)db);
    dims[rank - i] = da == 1 ? db : da;
  }
  c->n->dtype = MK_F32;
  set_shape(c->n, dims, rank);
  return need_float(c, 0, "the left operand") && need_float(c, 1, "the right operand");
}

static bool infer_rope(const ctx *c) {
  const mk_node *x = arg(c, 0), *co = arg(c, 1), *si = arg(c, 2);
  c->n->dtype = MK_F32;
  set_shape(c->n, x->dims, x->rank);
  if (x->rank < 3) return bad(c, "x %s must be [..., tokens, heads, channels]", SHAPE(x));
  int64_t s = x->dims[x->rank - 3], d = x->dims[x->rank - 1];
  if (d % 2) return bad(c, "x %s has an odd number of channels", SHAPE(x));
  for (int i = 1; i <= 2; i++) {
    const mk_node *t = arg(c, i);
    if (t->rank != 2 || t->dims[0] != s || t->dims[1] != d / 2)
      return bad(c, "x %s needs cos and sin of [%lld, %lld], not %s and %s", SHAPE(x), (long long)s, (long long)(d / 2),
                 SHAPE(co), SHAPE(si));
  }
  return need_float(c, 0, "x") && need_float(c, 1, "cos") && need_float(c, 2, "sin");
}

static bool infer_reduce(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *x = arg(c, 0);
  n->dtype = MK_F32;
  set_shape(n, x->dims, x->rank);
  if (x->rank < 1) return bad(c, "a scalar has no axis to reduce");
  n->dims[n->rank - 1] = 1;
  return need_float(c, 0, "x");
}

static bool infer_permute(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *x = arg(c, 0);
  unsigned seen = 0;
  int64_t dims[MK_MAX_RANK];
  for (int i = 0; i < x->rank; i++) {
    int p = n->attr.perm[i];
    if (p < 0 || p >= x->rank || seen >> p & 1) return bad(c, "the axes of %s must each stand once in the permutation", SHAPE(x));
    seen |= 1u << p;
    dims[i] = x->dims[p];
  }
  set_shape(n, dims, x->rank);
  return true;
}

static bool infer_expand(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *x = arg(c, 0);
  bool fits = x->rank == n->rank;
  for (int i = 0; fits && i < x->rank; i++) fits = x->dims[i] == n->dims[i] || x->dims[i] == 1;
  return fits || bad(c, "%s does not expand to %s: the rank stays, and only extents of 1 are repeated", SHAPE(x), SHAPE(n));
}

static bool infer_slice(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *x = arg(c, 0);
  if (x->rank != n->rank) return bad(c, "%s cannot become %s: the rank stays", SHAPE(x), SHAPE(n));
  for (int i = 0; i < x->rank; i++)
    if (n->attr.start[i] < 0 || n->attr.start[i] > x->dims[i] - n->dims[i])
      return bad(c, "axis %d of %s has no elements %lld to %lld", i + 1, SHAPE(x), (long long)n->attr.start[i],
                 (long long)(n->attr.start[i] + n->dims[i] - 1));
  return true;
}

static bool infer_concat(const ctx *c) {
  mk_node *n = c->n;
  if (n->nargs < 1) return bad(c, "nothing to join");
  const mk_node *x = arg(c, 0);
  int axis = n->attr.axis;
  if (axis < 0 || axis >= x->rank) return bad(c, "%s has no axis %d", SHAPE(x), axis + 1);
  int64_t dims[MK_MAX_RANK];
  memcpy(dims, x->dims, sizeof dims);
  for (int i = 1; i < n->nargs; i++) {
    const mk_node *y = arg(c, i);
    if (y->dtype != x->dtype) return bad(c, "dtypes differ: %s and %s", mk_dtype_name(x->dtype), mk_dtype_name(y->dtype));
    bool fits = y->rank == x->rank;
    for (int k = 0; fits && k < x->rank; k++) fits = k == axis || y->dims[k] == x->dims[k];
    if (!fits) return bad(c, "%s and %s (piece %d) do not join along axis %d", SHAPE(x), SHAPE(y), i + 1, axis + 1);
    dims[axis] += y->dims[axis];
  }
  set_shape(n, dims, x->rank);
  return true;
}

static bool infer_gather(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *table = arg(c, 0), *ids = arg(c, 1);
  if (ids->dtype != MK_I32) return bad(c, "ids %s are %s, not i32", SHAPE(ids), mk_dtype_name(ids->dtype));
  if (table->rank < 1) return bad(c, "the table is a scalar");
  int rank = ids->rank + table->rank - 1;
  if (rank > MK_MAX_RANK)
    return bad(c, "table %s by ids %s has rank %d; at most %d", SHAPE(table), SHAPE(ids), rank, MK_MAX_RANK);
  int64_t dims[2 * MK_MAX_RANK] = {0};
  memcpy(dims, ids->dims, sizeof *dims * (size_t)ids->rank);
  memcpy(dims + ids->rank, table->dims + 1, sizeof *dims * (size_t)(table->rank - 1));
  set_shape(n, dims, rank);
  return true;
}

static bool infer_move(const ctx *c) {
  mk_node *n = c->n;
  if (n->nargs) n->dtype = arg(c, 0)->dtype;
  switch (n->op) {
    case MK_OP_RESHAPE:
      if (!check_shape(c)) return false;
      return mk_node_count(n) == mk_node_count(arg(c, 0)) ||
             bad(c, "%s has %lld elements and %s has %lld", SHAPE(arg(c, 0)), (long long)mk_node_count(arg(c, 0)), SHAPE(n),
                 (long long)mk_node_count(n));
    case MK_OP_PERMUTE: return infer_permute(c);
    case MK_OP_EXPAND: return check_shape(c) && infer_expand(c);
    case MK_OP_SLICE: return check_shape(c) && infer_slice(c);
    case MK_OP_CONCAT: return infer_concat(c);
    case MK_OP_GATHER: return infer_gather(c);
    default: break; /* UPSAMPLE */
  }
  const mk_node *x = arg(c, 0);
  if (x->rank != 4) return bad(c, "x %s must be [frames, height, width, channels]", SHAPE(x));
  set_shape(n, x->dims, 4);
  n->dims[1] *= 2;
  n->dims[2] *= 2;
  return true;
}

static bool infer_matmul(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *a = arg(c, 0), *b = arg(c, 1);
  n->dtype = MK_F32;
  if (a->rank < 2 || b->rank != 2) return bad(c, "a %s must be [..., M, K] and b %s must be [N, K]", SHAPE(a), SHAPE(b));
  if (a->dims[a->rank - 1] != b->dims[1])
    return bad(c, "a %s and b %s differ in the last axis, which is summed (b is [N, K])", SHAPE(a), SHAPE(b));
  if (a->dtype != b->dtype) return bad(c, "a is %s and b is %s; cast one", mk_dtype_name(a->dtype), mk_dtype_name(b->dtype));
  set_shape(n, a->dims, a->rank);
  n->dims[n->rank - 1] = b->dims[0];
  return need_float(c, 0, "a");
}

static bool infer_attention(const ctx *c) {
  mk_node *n = c->n;
  int want = 3 + n->attr.has_bias + n->attr.has_kv_len;
  if (n->nargs != want) return bad(c, "%d arguments; q, k, v, bias and kv_len as declared make %d", n->nargs, want);
  const mk_node *q = arg(c, 0), *k = arg(c, 1), *v = arg(c, 2);
  n->dtype = MK_F32;
  set_shape(n, q->dims, q->rank);
  int r = q->rank;
  if (r != 3 && r != 4) return bad(c, "q %s must be [tokens, heads, channels] with an optional batch axis first", SHAPE(q));
  bool fits = k->rank == r && v->rank == r;
  for (int i = 0; fits && i < r; i++) fits = v->dims[i] == k->dims[i] && (i == r - 3 || k->dims[i] == q->dims[i]);
  if (!fits)
    return bad(c, "q %s, k %s and v %s must agree in batch, heads and channels, and k and v in tokens", SHAPE(q), SHAPE(k),
               SHAPE(v));
  if (q->dtype != k->dtype || q->dtype != v->dtype)
    return bad(c, "q is %s, k is %s and v is %s; cast them to one dtype", mk_dtype_name(q->dtype), mk_dtype_name(k->dtype),
               mk_dtype_name(v->dtype));
  if (!need_float(c, 0, "q")) return false;
  if (!isfinite(n->attr.scale) || n->attr.scale <= 0) return bad(c, "scale %g must be a positive number", (double)n->attr.scale);
  long long sq = q->dims[r - 3], sk = k->dims[r - 3], h = q->dims[r - 2];
  if (n->attr.has_bias) {
    const mk_node *b = arg(c, 3);
    bool full = b->rank == 3 && b->dims[0] == h && b->dims[1] == sq && b->dims[2] == sk;
    bool relative = b->rank == 2 && b->dims[0] == h && b->dims[1] == sq + sk - 1;
    if (b->dtype != MK_F32 || (!full && !relative))
      return bad(c, "bias is %s %s; it must be f32 [%lld, %lld, %lld], or relative [%lld, %lld]", mk_dtype_name(b->dtype),
                 SHAPE(b), h, sq, sk, h, sq + sk - 1);
  }
  if (n->attr.has_kv_len) {
    const mk_node *len = arg(c, n->nargs - 1);
    if (len->dtype != MK_I32 || len->rank != 1 || len->dims[0] != 1)
      return bad(c, "kv_len is %s %s; it must be i32 [1]", mk_dtype_name(len->dtype), SHAPE(len));
  }
  return true;
}

static bool infer_conv(const ctx *c) {
  mk_node *n = c->n;
  const mk_node *x = arg(c, 0), *w = arg(c, 1);
  n->dtype = MK_F32;
  if (x->rank != 4 || w->rank != 5)
    return bad(c, "x %s must be [T, H, W, Cin] and w %s [Cout, kT, kH, kW, Cin]", SHAPE(x), SHAPE(w));
  if (x->dims[3] != w->dims[4]) return bad(c, "x %s and w %s differ in input channels, their last axes", SHAPE(x), SHAPE(w));
  if (x->dtype != w->dtype) return bad(c, "x is %s and w is %s; cast one", mk_dtype_name(x->dtype), mk_dtype_name(w->dtype));
  int64_t dims[4] = {0, 0, 0, w->dims[0]};
  for (int i = 0; i < 3; i++) {
    int lo = n->attr.pad[2 * i], hi = n->attr.pad[2 * i + 1];
    if (lo < 0 || hi < 0) return bad(c, "negative padding %d, %d on axis %d", lo, hi, i + 1);
    dims[i] = x->dims[i] + lo + hi - w->dims[1 + i] + 1;
    if (dims[i] < 1) return bad(c, "x %s padded by %d and %d is smaller than w %s on axis %d", SHAPE(x), lo, hi, SHAPE(w), i + 1);
  }
  set_shape(n, dims, 4);
  return need_float(c, 0, "x");
}

static bool infer_op(const ctx *c) {
  switch (mk_op_class_of(c->n->op)) {
    case MK_CLASS_LEAF: return infer_leaf(c);
    case MK_CLASS_UNARY: return infer_unary(c);
    case MK_CLASS_BINARY: return c->n->op == MK_OP_ROPE ? infer_rope(c) : infer_binary(c);
    case MK_CLASS_REDUCE: return infer_reduce(c);
    case MK_CLASS_MOVE: return infer_move(c);
    case MK_CLASS_ROOT: break;
  }
  return c->n->op == MK_OP_MATMUL ? infer_matmul(c) : c->n->op == MK_OP_CONV ? infer_conv(c) : infer_attention(c);
}

bool mk_infer(const mk_graph *g, int before, mk_node *n, mk_status *st) {
  ctx c = {g, n, st};
  if ((unsigned)n->op >= MK_OP_COUNT) return bad(&c, "no such operation: %d", (int)n->op);
  int arity = mk_op_arity(n->op);
  if (n->nargs < 0 || n->nargs > MK_MAX_ARGS || (arity >= 0 && n->nargs != arity))
    return bad(&c, "%d arguments; it takes %d", n->nargs, arity >= 0 ? arity : MK_MAX_ARGS);
  n->rate = MK_RATE_LOAD;
  for (int i = 0; i < n->nargs; i++) {
    if (n->args[i] < 0 || n->args[i] >= before) return bad(&c, "argument %d is no earlier node: %%%d", i + 1, n->args[i]);
    if (arg(&c, i)->rate > n->rate) n->rate = arg(&c, i)->rate;
  }
  return infer_op(&c) && check_shape(&c);
}

mk_attr mk_attr_clean(mk_op op, const mk_attr *attr) {
  mk_attr out;
  memset(&out, 0, sizeof out);
  switch (op) {
    case MK_OP_INPUT: out.rate = attr->rate; break;
    case MK_OP_CONST: out.data = attr->data; break;
    case MK_OP_SLICE: memcpy(out.start, attr->start, sizeof out.start); break;
    case MK_OP_PERMUTE: memcpy(out.perm, attr->perm, sizeof out.perm); break;
    case MK_OP_CONCAT: out.axis = attr->axis; break;
    case MK_OP_MATMUL: out.tf32 = attr->tf32; break;
    case MK_OP_CONV:
      memcpy(out.pad, attr->pad, sizeof out.pad);
      out.tf32 = attr->tf32;
      break;
    case MK_OP_ATTENTION:
      out.has_bias = attr->has_bias;
      out.has_kv_len = attr->has_kv_len;
      out.causal = attr->causal;
      out.scale = attr->scale;
      break;
    default: break;
  }
  return out;
}

bool mk_attr_same(const mk_attr *a, const mk_attr *b) {
  return a->rate == b->rate && a->data == b->data && !memcmp(a->start, b->start, sizeof a->start) &&
         !memcmp(a->perm, b->perm, sizeof a->perm) && a->axis == b->axis && !memcmp(a->pad, b->pad, sizeof a->pad) &&
         a->tf32 == b->tf32 && a->has_bias == b->has_bias && a->has_kv_len == b->has_kv_len && a->causal == b->causal &&
         a->scale == b->scale;
}

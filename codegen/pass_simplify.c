/* Simplify: constants are computed, identities and movement that moves nothing go, chains of one movement become one.
 *
 * Requires a verified graph; keeps it so. Leaves what is no longer used to dce. No rule changes a value, except that the sign of
 * a zero may (x + 0). Each rule returns the id of a node that already has the value, or changes *n into a simpler operation of
 * the same value and returns AGAIN, or returns KEEP. */
#include <string.h>

#include "codegen/rewrite.h"

enum { KEEP = -1, AGAIN = -2 };

typedef struct simplifier {
  mk_graph *g;
  mk_status st; /* a rule that makes an invalid node is a defect; the verifier then finds the dropped node */
} simplifier;

static int emit(simplifier *s, mk_node *n);

static const mk_node *arg(const simplifier *s, const mk_node *n, int i) { return &s->g->nodes[n->args[i]]; }

static bool same_dims(const mk_node *a, const mk_node *b) {
  return a->rank == b->rank && !memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->rank);
}

/* n with argument i replaced. */
static void set_arg(simplifier *s, mk_node *n, int i, int id) {
  int *args = MK_NEW_ARRAY(&s->g->arena, int, n->nargs);
  memcpy(args, n->args, sizeof *args * (size_t)n->nargs);
  args[i] = id;
  n->args = args;
}

/* A new operation on one node, at n's place in the script. */
static mk_node operation(simplifier *s, const mk_node *n, mk_op op, int id) {
  int *args = MK_NEW_ARRAY(&s->g->arena, int, 1);
  args[0] = id;
  mk_node out = {.op = op, .nargs = 1, .args = args, .name = n->name, .where = n->where, .dtype = n->dtype, .rank = n->rank};
  memcpy(out.dims, n->dims, sizeof out.dims);
  return out;
}

static int become_const(mk_node *n, const void *data) {
  mk_attr attr = {.data = data};
  n->op = MK_OP_CONST;
  n->nargs = 0;
  n->args = NULL;
  n->attr = attr;
  return AGAIN;
}

/* The value of node id as f32, which is what arithmetic on it yields. */
static int as_f32(simplifier *s, mk_node *n, int id) {
  if (s->g->nodes[id].dtype == MK_F32) return id;
  *n = operation(s, n, MK_OP_CAST, id);
  n->dtype = MK_F32;
  return AGAIN;
}

static bool is_widening(const simplifier *s, const mk_node *n) {
  if (n->op != MK_OP_CAST || n->dtype != MK_F32) return false;
  mk_dtype from = arg(s, n, 0)->dtype;
  return from == MK_F16 || from == MK_BF16;
}

/* Arithmetic reads any float dtype as f32 anyway. */
static bool drop_widening(simplifier *s, mk_node *n) {
  bool changed = false;
  for (int i = 0; i < n->nargs; i++)
    if (is_widening(s, arg(s, n, i))) {
      set_arg(s, n, i, arg(s, n, i)->args[0]);
      changed = true;
    }
  return changed;
}

static int simplify_cast(simplifier *s, mk_node *n) {
  const mk_node *x = arg(s, n, 0);
  if (x->dtype == n->dtype) return n->args[0];
  if (is_widening(s, x)) { /* the inner cast loses nothing */
    set_arg(s, n, 0, x->args[0]);
    return AGAIN;
  }
  return KEEP;
}

static int simplify_unary(simplifier *s, mk_node *n) {
  const mk_node *x = arg(s, n, 0);
  if (n->op == MK_OP_NEG && x->op == MK_OP_NEG) return as_f32(s, n, x->args[0]);
  return KEEP;
}

/* Every element has this value, and it is known. */
static bool is_all(const simplifier *s, int id, float value) {
  if (!mk_is_known(s->g, id)) return false;
  for (int64_t i = 0; i < mk_node_count(&s->g->nodes[id]); i++)
    if (mk_known_at(s->g, id, i) != value) return false;
  return true;
}

/* Broadcasting does what expand does, and adds the leading axes that a reshape may add. */
static bool drop_expansion(simplifier *s, mk_node *n) {
  for (int i = 0; i < 2; i++) {
    const mk_node *x = arg(s, n, i);
    if (x->op != MK_OP_EXPAND && x->op != MK_OP_RESHAPE) continue;
    const mk_node *source = arg(s, x, 0);
    int added = x->rank - source->rank;
    bool leading = added > 0;
    for (int k = 0; leading && k < x->rank; k++) leading = x->dims[k] == (k < added ? 1 : source->dims[k - added]);
    if (x->op == MK_OP_RESHAPE && !leading) continue;
    mk_node shorter = *n;
    mk_status ignored = {0};
    set_arg(s, &shorter, i, x->args[0]);
    if (!mk_infer(s->g, s->g->count, &shorter, &ignored) || !same_dims(&shorter, n)) continue;
    *n = shorter;
    return true;
  }
  return false;
}

static int simplify_binary(simplifier *s, mk_node *n) {
  if (n->op == MK_OP_ROPE) return KEEP;
  bool commutes = n->op == MK_OP_ADD || n->op == MK_OP_MUL;
  bool has_identity = commutes || n->op == MK_OP_SUB || n->op == MK_OP_DIV;
  float identity = n->op == MK_OP_ADD || n->op == MK_OP_SUB ? 0.0f : 1.0f;
  for (int i = 0; has_identity && i < (commutes ? 2 : 1); i++)
    if (same_dims(arg(s, n, i), n) && is_all(s, n->args[1 - i], identity)) return as_f32(s, n, n->args[i]);
  return drop_expansion(s, n) ? AGAIN : KEEP;
}

static int simplify_reshape(simplifier *s, mk_node *n) {
  const mk_node *x = arg(s, n, 0);
  if (same_dims(x, n)) return n->args[0];
  if (x->op == MK_OP_CONST) return become_const(n, x->attr.data);
  if (x->op != MK_OP_RESHAPE) return KEEP;
  set_arg(s, n, 0, x->args[0]);
  return AGAIN;
}

static int simplify_permute(simplifier *s, mk_node *n) {
  const mk_node *x = arg(s, n, 0);
  int last = -1;
  bool in_order = true; /* the axes longer than 1 keep their order: then memory does too */
  for (int i = 0; i < n->rank; i++) {
    if (n->dims[i] == 1) continue;
    in_order = in_order && n->attr.perm[i] > last;
    last = n->attr.perm[i];
  }
  if (in_order) {
    *n = operation(s, n, MK_OP_RESHAPE, n->args[0]);
    return AGAIN;
  }
  const void *data = mk_fold_move(s->g, n);
  if (data) return become_const(n, data);
  if (x->op != MK_OP_PERMUTE) return KEEP;
  for (int i = 0; i < n->rank; i++) n->attr.perm[i] = x->attr.perm[n->attr.perm[i]];
  set_arg(s, n, 0, x->args[0]);
  return AGAIN;
}

static int simplify_expand(simplifier *s, mk_node *n) {
  const mk_node *x = arg(s, n, 0);
  if (same_dims(x, n)) return n->args[0];
  if (x->op != MK_OP_EXPAND) return KEEP;
  set_arg(s, n, 0, x->args[0]);
  return AGAIN;
}

/* A slice of joined pieces that takes from one piece only. */
static int slice_of_concat(simplifier *s, mk_node *n, const mk_node *x) {
  int axis = x->attr.axis;
  int64_t first = n->attr.start[axis];
  for (int i = 0; i < x->nargs; i++) {
    int64_t extent = arg(s, x, i)->dims[axis];
    if (first < extent) {
      if (first + n->dims[axis] > extent) return KEEP;
      n->attr.start[axis] = first;
      set_arg(s, n, 0, x->args[i]);
      return AGAIN;
    }
    first -= extent;
  }
  return KEEP;
}

/* A slice of repeated values repeats fewer. */
static int slice_of_expand(simplifier *s, mk_node *n, const mk_node *x) {
  const mk_node *source = arg(s, x, 0);
  mk_node part = operation(s, n, MK_OP_SLICE, x->args[0]);
  for (int i = 0; i < n->rank; i++) {
    part.dims[i] = source->dims[i] == 1 ? 1 : n->dims[i];
    part.attr.start[i] = source->dims[i] == 1 ? 0 : n->attr.start[i];
  }
  int id = emit(s, &part);
  if (id < 0) return KEEP;
  *n = operation(s, n, MK_OP_EXPAND, id);
  return AGAIN;
}

static int simplify_slice(simplifier *s, mk_node *n) {
  const mk_node *x = arg(s, n, 0);
  if (same_dims(x, n)) return n->args[0];
  const void *data = mk_fold_move(s->g, n);
  if (data) return become_const(n, data);
  if (x->op == MK_OP_CONCAT) return slice_of_concat(s, n, x);
  if (x->op == MK_OP_EXPAND) return slice_of_expand(s, n, x);
  if (x->op != MK_OP_SLICE) return KEEP;
  for (int i = 0; i < n->rank; i++) n->attr.start[i] += x->attr.start[i];
  set_arg(s, n, 0, x->args[0]);
  return AGAIN;
}

/* Two slices of one tensor that lie side by side along axis. */
static bool side_by_side(const simplifier *s, int a_id, int b_id, int axis) {
  const mk_node *a = &s->g->nodes[a_id], *b = &s->g->nodes[b_id];
  if (a->op != MK_OP_SLICE || b->op != MK_OP_SLICE || a->args[0] != b->args[0]) return false;
  for (int i = 0; i < a->rank; i++)
    if (i != axis && (a->dims[i] != b->dims[i] || a->attr.start[i] != b->attr.start[i])) return false;
  return a->attr.start[axis] + a->dims[axis] == b->attr.start[axis];
}

static int simplify_concat(simplifier *s, mk_node *n) {
  if (n->nargs == 1) return n->args[0];
  int axis = n->attr.axis, count = 0, most = n->nargs;
  bool changed = false;
  for (int i = 0; i < n->nargs; i++) most += arg(s, n, i)->nargs;
  int *args = MK_NEW_ARRAY(&s->g->arena, int, most);
  for (int i = 0; i < n->nargs; i++) {
    const mk_node *x = arg(s, n, i);
    bool nested = x->op == MK_OP_CONCAT && x->attr.axis == axis && count + x->nargs + n->nargs - i - 1 <= MK_MAX_ARGS;
    if (nested) {
      memcpy(args + count, x->args, sizeof *args * (size_t)x->nargs);
      count += x->nargs;
    } else if (count && side_by_side(s, args[count - 1], n->args[i], axis)) {
      const mk_node *before = &s->g->nodes[args[count - 1]];
      mk_node both = operation(s, before, MK_OP_SLICE, before->args[0]);
      both.attr = before->attr;
      both.dims[axis] += x->dims[axis];
      int id = emit(s, &both);
      if (id < 0) return KEEP;
      args[count - 1] = id;
    } else {
      args[count++] = n->args[i];
      continue;
    }
    changed = true;
  }
  n->args = args;
  n->nargs = count;
  return changed ? AGAIN : KEEP;
}

static int simplify_once(simplifier *s, mk_node *n) {
  mk_op_class class = mk_op_class_of(n->op);
  bool elementwise = class == MK_CLASS_UNARY || (class == MK_CLASS_BINARY && n->op != MK_OP_ROPE);
  const float *folded = elementwise ? mk_fold(s->g, n) : NULL;
  if (folded) return become_const(n, folded);
  if (n->op != MK_OP_CAST && (class == MK_CLASS_UNARY || class == MK_CLASS_BINARY || class == MK_CLASS_REDUCE) &&
      drop_widening(s, n))
    return AGAIN;
  if (class == MK_CLASS_REDUCE) return same_dims(arg(s, n, 0), n) ? as_f32(s, n, n->args[0]) : KEEP; /* one element each */
  if (class == MK_CLASS_BINARY) return simplify_binary(s, n);
  switch (n->op) {
    case MK_OP_CAST: return simplify_cast(s, n);
    case MK_OP_NEG: return simplify_unary(s, n);
    case MK_OP_RESHAPE: return simplify_reshape(s, n);
    case MK_OP_PERMUTE: return simplify_permute(s, n);
    case MK_OP_EXPAND: return simplify_expand(s, n);
    case MK_OP_SLICE: return simplify_slice(s, n);
    case MK_OP_CONCAT: return simplify_concat(s, n);
    default: return KEEP;
  }
}

/* The id of a node with n's value, new or not. Every rule removes a node from the chain above n or an operation, so this ends. */
static int emit(simplifier *s, mk_node *n) {
  for (;;) {
    if (!mk_infer(s->g, s->g->count, n, &s->st)) return -1;
    int id = simplify_once(s, n);
    if (id == AGAIN) continue;
    return id == KEEP ? mk_append(s->g, n, &s->st) : id;
  }
}

void mk_pass_simplify(mk_graph *g) {
  mk_rewrite rw = mk_rewrite_begin(g);
  simplifier s = {.g = g};
  for (int i = 0; i < rw.count; i++) {
    mk_node n = rw.old[i];
    n.args = mk_rewrite_args(&rw, &n);
    int id = rw.map[i] = emit(&s, &n);
    if (id >= 0 && !g->nodes[id].name) g->nodes[id].name = rw.old[i].name;
  }
  mk_rewrite_end(&rw);
}

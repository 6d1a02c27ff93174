#include "codegen/body.h"

#include <string.h>

typedef struct builder {
  const mk_grouping *gr;
  const mk_flow *f;
  const mk_cluster *c;
  mk_arena *arena;
  mk_body *b;
  int *value; /* per member: the instruction that has its value */
  mk_status *st;
} builder;

static const mk_node *node_of(const builder *x, int id) { return &x->f->g->nodes[id]; }

/* ---- instructions */

static int add_inst(builder *x, mk_inst in) {
  mk_body *b = x->b;
  if (in.kind != MK_INST_STORE)
    for (int i = 0; i < b->ninsts; i++) { /* the same load or literal again */
      const mk_inst *o = &b->insts[i];
      if (o->kind == in.kind && in.kind == MK_INST_LITERAL && !memcmp(&o->value, &in.value, sizeof in.value)) return i;
      if (o->kind == in.kind && in.kind == MK_INST_LOAD && o->access == in.access && o->a == in.a) return i;
    }
  MK_PUSH(x->arena, b->insts, b->ninsts, b->insts_cap, in);
  return b->ninsts - 1;
}

static int literal(builder *x, float value) {
  return add_inst(x, (mk_inst){.kind = MK_INST_LITERAL, .value = value, .a = -1, .b = -1, .c = -1});
}

static uint32_t axes_of(const builder *x, int a) { return a < 0 ? 0 : x->b->insts[a].axes; }

/* ---- accesses */

/* Strides over the group's axes of a view whose dims are the map's. */
static bool set_strides(builder *x, const mk_view *v, const mk_axes *map, mk_access *a) {
  for (int d = 0; d < v->rank; d++) {
    int digit = v->first[d + 1] - 1;
    int64_t inner = 1; /* of the digit, taken by axes further in */
    for (int i = map->first[d + 1] - 1; i >= map->first[d]; i--) {
      int axis = map->axis[i];
      if (digit < v->first[d]) return false;
      a->stride[axis] += v->digit[digit].stride * inner;
      inner *= x->c->extent[axis];
      if (v->digit[digit].extent % inner) return false;
      if (v->digit[digit].extent == inner) {
        inner = 1;
        digit--;
      }
    }
  }
  return true;
}

static const char *label_of(const builder *x, int buffer) {
  const mk_flow *f = x->f;
  if (buffer >= f->g->count) return "output";
  const mk_node *n = node_of(x, buffer);
  return n->name ? n->name : mk_op_name(n->op);
}

static int add_access(builder *x, const mk_view *v, const mk_axes *map, mk_dtype dtype, bool store, int64_t index_stride,
                      bool gather) {
  mk_access a = {.dtype = dtype, .store = store, .gather = gather, .index_stride = index_stride};
  if (!set_strides(x, v, map, &a)) {
    mk_fail(x->st, MK_EINTERNAL, "the axes of a group do not fit its access to %s", label_of(x, v->source));
    return 0;
  }
  int64_t at;
  a.buffer = mk_flow_root(x->f, v->source, &at);
  a.offset = at + v->offset;
  a.what = label_of(x, v->source);
  for (int i = 0; i < x->b->naccesses; i++) {
    const mk_access *o = &x->b->accesses[i];
    if (o->buffer == a.buffer && o->offset == a.offset && o->store == store && o->gather == gather &&
        o->index_stride == index_stride && !memcmp(o->stride, a.stride, sizeof a.stride))
      return i;
  }
  MK_PUSH(x->arena, x->b->accesses, x->b->naccesses, x->b->accesses_cap, a);
  return x->b->naccesses - 1;
}

static uint32_t varying(const mk_access *a) {
  uint32_t axes = 0;
  for (int i = 0; i < MK_MAX_AXES; i++) axes |= a->stride[i] ? 1u << i : 0;
  return axes;
}

static int load(builder *x, const mk_view *v, const mk_axes *map, mk_dtype dtype) {
  int access = add_access(x, v, map, dtype, false, 0, false);
  mk_inst in = {.kind = MK_INST_LOAD, .dtype = dtype, .access = access, .a = -1, .b = -1, .c = -1};
  in.axes = mk_failed(x->st) ? 0 : varying(&x->b->accesses[access]);
  return add_inst(x, in);
}

/* ---- expressions */

static int operation(builder *x, const mk_node *n, const int *args) {
  mk_inst in = {.kind = MK_INST_OP, .op = n->op, .dtype = n->dtype, .a = args[0], .b = -1, .c = -1};
  if (n->op == MK_OP_CAST && n->dtype == MK_F32) return args[0];
  if (mk_op_arity(n->op) == 2) in.b = args[1];
  in.axes = axes_of(x, in.a) | axes_of(x, in.b);
  return add_inst(x, in);
}

/* An inline expression as the reader at the end of the path sees it; map: the reader's, of path[length-1].seen_as. */
static int inline_value(builder *x, const mk_stage *path, int length, const mk_axes *map) {
  const mk_node *n = node_of(x, path[0].inlined);
  int args[2] = {-1, -1};
  for (int k = 0; k < n->nargs; k++) {
    int arg = n->args[k], start = mk_chain_start(x->f, arg);
    if (mk_is_scalar_const(x->f->g, start)) {
      args[k] = literal(x, mk_scalar_value(x->f->g, start));
    } else if (x->f->kind[start] == MK_VALUE_INLINE) {
      mk_stage deeper[MK_MAX_STAGES];
      deeper[0] = (mk_stage){start, arg};
      memcpy(deeper + 1, path, sizeof *path * (size_t)(length < MK_MAX_STAGES ? length : MK_MAX_STAGES - 1));
      args[k] = inline_value(x, deeper, length + 1, map);
    } else {
      mk_view v;
      mk_inline_view(x->f, arg, path, length, &v);
      args[k] = load(x, &v, map, node_of(x, arg)->dtype);
    }
  }
  return operation(x, n, args);
}

static int operand(builder *x, const mk_member *m, int k) {
  int node, unit = mk_arg_unit(x->f, m->unit, k);
  const mk_view *v = mk_unit_arg(x->f, m->unit, k, &node);
  if (unit >= 0)
    for (int i = 0; i < x->c->nmembers; i++)
      if (x->c->members[i].unit == unit && x->value[i] >= 0) return x->value[i];
  mk_axes map;
  if (!mk_arg_map(x->f, x->c, m, k, &map)) return -1;
  if (v->source < x->f->g->count) {
    if (mk_is_scalar_const(x->f->g, v->source)) return literal(x, mk_scalar_value(x->f->g, v->source));
    if (x->f->kind[v->source] == MK_VALUE_INLINE) {
      mk_stage path[1] = {{v->source, node}};
      return inline_value(x, path, 1, &map);
    }
  }
  return load(x, v, &map, node_of(x, node)->dtype);
}

static int gather(builder *x, const mk_member *m) {
  int table, ids;
  const mk_view *t = mk_unit_arg(x->f, m->unit, 0, &table), *i = mk_unit_arg(x->f, m->unit, 1, &ids);
  mk_axes tmap, imap;
  mk_digit rows;
  if (!mk_arg_map(x->f, x->c, m, 0, &tmap) || !mk_arg_map(x->f, x->c, m, 1, &imap) || !mk_view_joined(t, 0, 1, &rows)) return -1;
  int index = load(x, i, &imap, MK_I32);
  mk_dtype dtype = node_of(x, table)->dtype;
  int access = add_access(x, t, &tmap, dtype, false, rows.stride, true);
  mk_inst in = {.kind = MK_INST_LOAD, .dtype = dtype, .access = access, .a = index, .b = -1, .c = -1};
  in.axes = axes_of(x, index) | (mk_failed(x->st) ? 0 : varying(&x->b->accesses[access]));
  return add_inst(x, in);
}

static int compute(builder *x, const mk_member *m) {
  const mk_unit *u = &x->f->units[m->unit];
  const mk_node *n = node_of(x, u->node);
  if (u->copy || u->move) return operand(x, m, 0);
  mk_op_class class = mk_op_class_of(n->op);
  if (class == MK_CLASS_ROOT) {
    mk_inst in = {.kind = MK_INST_ROOT, .op = n->op, .dtype = MK_F32, .a = -1, .b = -1, .c = -1};
    for (int i = 0; i < m->map.first[m->map.rank]; i++) in.axes |= 1u << m->map.axis[i];
    x->b->root_op = mk_op_name(n->op);
    return x->b->root = add_inst(x, in);
  }
  if (n->op == MK_OP_GATHER) return gather(x, m);
  int args[3] = {-1, -1, -1};
  for (int k = 0; k < n->nargs && k < 3; k++) args[k] = operand(x, m, k);
  if (n->op == MK_OP_ROPE) {
    mk_inst in = {.kind = MK_INST_ROPE, .op = n->op, .dtype = MK_F32, .a = args[0], .b = args[1], .c = args[2]};
    mk_list last = mk_axes_dim(&m->map, n->rank - 1);
    in.axes = axes_of(x, in.a) | axes_of(x, in.b) | axes_of(x, in.c) | 1u << last.axis[last.n - 1];
    return add_inst(x, in);
  }
  if (class != MK_CLASS_REDUCE) return operation(x, n, args);
  if (node_of(x, n->args[0])->dims[n->rank - 1] == 1) return args[0];
  mk_inst in = {
      .kind = MK_INST_REDUCE, .op = n->op, .dtype = MK_F32, .a = args[0], .b = -1, .c = -1, .axes = axes_of(x, args[0])};
  for (int i = 0; i < x->c->cols.n; i++) in.axes &= ~(1u << x->c->cols.axis[i]);
  return add_inst(x, in);
}

static void store(builder *x, const mk_member *m, int value) {
  const mk_unit *u = &x->f->units[m->unit];
  const mk_node *n = node_of(x, u->node);
  mk_view to = u->copy ? u->to : mk_view_dense(u->node, n->dims, n->rank);
  const mk_inst *v = &x->b->insts[value];
  if (v->kind == MK_INST_OP && v->op == MK_OP_CAST && v->dtype == n->dtype) value = v->a; /* storing rounds */
  int access = add_access(x, &to, &m->map, n->dtype, true, 0, false);
  mk_inst in = {.kind = MK_INST_STORE, .dtype = n->dtype, .a = value, .b = -1, .c = -1, .access = access};
  in.axes = mk_failed(x->st) ? 0 : varying(&x->b->accesses[access]);
  add_inst(x, in);
}

/* Drops what no store needs any more. */
static void remove_dead(mk_body *b, mk_arena *arena) {
  int *number = MK_NEW_ARRAY(arena, int, b->ninsts), n = 0;
  for (int i = b->ninsts - 1; i >= 0; i--) {
    const mk_inst *in = &b->insts[i];
    number[i] |= in->kind == MK_INST_STORE || in->kind == MK_INST_ROOT;
    if (!number[i]) continue;
    if (in->a >= 0) number[in->a] = 1;
    if (in->b >= 0) number[in->b] = 1;
    if (in->c >= 0) number[in->c] = 1;
  }
  for (int i = 0; i < b->ninsts; i++) {
    if (!number[i]) continue;
    mk_inst in = b->insts[i];
    if (in.a >= 0) in.a = number[in.a];
    if (in.b >= 0) in.b = number[in.b];
    if (in.c >= 0) in.c = number[in.c];
    number[i] = n;
    if (in.kind == MK_INST_ROOT) b->root = n;
    b->insts[n++] = in;
  }
  b->ninsts = n;
}

/* Integers that are only moved keep all their bits: arithmetic would read them as f32, but 4 bytes are 4 bytes. */
static void move_integers(mk_body *b) {
  for (int i = 0; i < b->ninsts; i++) {
    if (b->insts[i].kind != MK_INST_LOAD || b->insts[i].dtype != MK_I32) continue;
    bool moved = true;
    for (int j = 0; j < b->ninsts; j++) {
      const mk_inst *u = &b->insts[j];
      moved &= (u->a != i && u->b != i && u->c != i) || (u->kind == MK_INST_STORE && u->dtype == MK_I32);
    }
    if (!moved) continue;
    b->insts[i].dtype = b->accesses[b->insts[i].access].dtype = MK_F32;
    for (int j = 0; j < b->ninsts; j++)
      if (b->insts[j].kind == MK_INST_STORE && b->insts[j].a == i)
        b->insts[j].dtype = b->accesses[b->insts[j].access].dtype = MK_F32;
  }
}

/* ---- the order of axes: rows by the strides of the largest store, then columns; neighbours that every access walks as one
 * become one */

static const mk_access *main_store(const mk_body *b) {
  const mk_access *best = NULL;
  int most = -1;
  for (int i = 0; i < b->naccesses; i++) {
    int axes = 0;
    for (int j = 0; j < b->naxes; j++) axes += b->accesses[i].stride[j] != 0;
    if (b->accesses[i].store && axes > most) {
      most = axes;
      best = &b->accesses[i];
    }
  }
  return best;
}

static int order_axes(const builder *x, int order[MK_MAX_AXES], int *nrows) {
  const mk_cluster *c = x->c;
  const mk_access *key = c->root >= 0 ? NULL : main_store(x->b);
  int n = 0;
  for (int i = 0; i < c->naxes; i++)
    if (!memchr(c->cols.axis, i, (size_t)c->cols.n)) order[n++] = i;
  if (c->root >= 0) { /* rows and columns number as the root's own dims do */
    n = 0;
    for (int i = 0; i < c->nmembers; i++)
      for (int j = 0; c->members[i].unit == c->root && j < c->members[i].map.first[c->members[i].map.rank]; j++) {
        int axis = c->members[i].map.axis[j];
        if (!memchr(c->cols.axis, axis, (size_t)c->cols.n)) order[n++] = axis;
      }
  }
  for (int i = 1; key && i < n; i++)
    for (int j = i; j > 0 && key->stride[order[j - 1]] < key->stride[order[j]]; j--) {
      int t = order[j];
      order[j] = order[j - 1];
      order[j - 1] = t;
    }
  for (int i = 0; c->pair >= 0 && !c->cols.n && i < n - 1; i++) /* rotated pairs are adjacent lanes */
    if (order[i] == c->pair) {
      order[i] = order[i + 1];
      order[i + 1] = c->pair;
    }
  *nrows = n;
  for (int i = 0; i < c->cols.n; i++) order[n++] = c->cols.axis[i];
  return n;
}

static uint32_t permute_bits(uint32_t axes, const int *to) {
  uint32_t out = 0;
  for (int i = 0; i < MK_MAX_AXES; i++)
    if ((axes >> i & 1) && to[i] >= 0) out |= 1u << to[i];
  return out;
}

static bool joins(const mk_body *b, int outer, int64_t inner_extent) {
  for (int i = 0; i < b->naccesses; i++)
    if (b->accesses[i].stride[outer] != b->accesses[i].stride[outer + 1] * inner_extent) return false;
  for (int i = 0; i < b->ninsts; i++) /* an index, or a root, varies over both or neither */
    if ((b->insts[i].axes >> outer & 1) != (b->insts[i].axes >> (outer + 1) & 1)) return false;
  return true;
}

static void remove_axis(mk_body *b, int gone, int into) {
  int to[MK_MAX_AXES];
  for (int i = 0; i < MK_MAX_AXES; i++) to[i] = i < gone ? i : i == gone ? into : i - 1;
  for (int i = 0; i < b->ninsts; i++) b->insts[i].axes = permute_bits(b->insts[i].axes, to);
  for (int i = 0; i < b->naccesses; i++) {
    int64_t *s = b->accesses[i].stride;
    memmove(s + gone, s + gone + 1, sizeof *s * (size_t)(MK_MAX_AXES - gone - 1));
    s[MK_MAX_AXES - 1] = 0;
  }
  memmove(b->extent + gone, b->extent + gone + 1, sizeof *b->extent * (size_t)(MK_MAX_AXES - gone - 1));
  b->naxes--;
}

static void settle_axes(builder *x) {
  mk_body *b = x->b;
  int order[MK_MAX_AXES], to[MK_MAX_AXES];
  b->naxes = x->c->naxes;
  b->naxes = order_axes(x, order, &b->nrows);
  for (int i = 0; i < MK_MAX_AXES; i++) to[i] = -1;
  for (int i = 0; i < b->naxes; i++) {
    to[order[i]] = i;
    b->extent[i] = x->c->extent[order[i]];
  }
  for (int i = 0; i < b->ninsts; i++) b->insts[i].axes = permute_bits(b->insts[i].axes, to);
  for (int i = 0; i < b->naccesses; i++) {
    int64_t stride[MK_MAX_AXES] = {0};
    for (int j = 0; j < b->naxes; j++) stride[j] = b->accesses[i].stride[order[j]];
    memcpy(b->accesses[i].stride, stride, sizeof stride);
  }
  for (int i = b->naxes - 2; i >= 0; i--) {
    if (i == b->nrows - 1 || !joins(b, i, b->extent[i + 1])) continue;
    b->extent[i + 1] *= b->extent[i];
    bool row = i < b->nrows;
    remove_axis(b, i, i);
    b->nrows -= row;
  }
}

mk_body *mk_body_build(const mk_grouping *gr, const mk_cluster *c, mk_arena *arena, mk_status *st) {
  mk_body *b = MK_NEW(arena, mk_body);
  b->root = -1;
  b->reduces = c->reduces;
  builder x = {.gr = gr, .f = gr->f, .c = c, .arena = arena, .b = b, .st = st};
  x.value = MK_NEW_ARRAY(arena, int, c->nmembers);
  for (int i = 0; i < c->nmembers; i++) x.value[i] = -1;
  for (int i = 0; i < c->nmembers; i++) {
    x.value[i] = compute(&x, &c->members[i]);
    if (x.value[i] < 0 && !mk_failed(st)) {
      const mk_node *n = node_of(&x, gr->f->units[c->members[i].unit].node);
      mk_fail(st, MK_EINTERNAL, "%s: no axes for %s", n->where ? n->where : "graph", mk_op_name(n->op));
    }
    if (mk_failed(st)) return NULL;
    if (mk_is_stored(gr, c->members[i].unit)) store(&x, &c->members[i], x.value[i]);
  }
  remove_dead(b, arena);
  move_integers(b);
  settle_axes(&x);
  return mk_failed(st) ? NULL : b;
}

/* Leaves out what no store needs. */
static void drop_dead(mk_body *b, mk_arena *arena) {
  int *inst = MK_NEW_ARRAY(arena, int, b->ninsts), *access = MK_NEW_ARRAY(arena, int, b->naccesses), n = 0, naccesses = 0;
  for (int i = b->ninsts - 1; i >= 0; i--) { /* 1: needed */
    const mk_inst *in = &b->insts[i];
    int args[3] = {in->a, in->b, in->c};
    if (in->kind == MK_INST_STORE) inst[i] = 1;
    if (!inst[i]) continue;
    for (int k = 0; k < 3; k++)
      if (args[k] >= 0) inst[args[k]] = 1;
    if (in->kind == MK_INST_LOAD || in->kind == MK_INST_STORE) access[in->access] = 1;
  }
  for (int i = 0; i < b->naccesses; i++) {
    if (!access[i]) continue;
    b->accesses[naccesses] = b->accesses[i];
    access[i] = naccesses++;
  }
  for (int i = 0; i < b->ninsts; i++) {
    mk_inst in = b->insts[i];
    if (!inst[i]) continue;
    int *const args[] = {&in.a, &in.b, &in.c};
    for (int k = 0; k < 3; k++)
      if (*args[k] >= 0) *args[k] = inst[*args[k]];
    if (in.kind == MK_INST_LOAD || in.kind == MK_INST_STORE) in.access = access[in.access];
    b->insts[n] = in;
    inst[i] = n++;
  }
  b->ninsts = n;
  b->naccesses = naccesses;
}

mk_body *mk_body_from_memory(const mk_body *b, int inst, int buffer, mk_dtype dtype, mk_arena *arena) {
  mk_body *out = MK_NEW(arena, mk_body);
  *out = *b;
  out->root = -1;
  out->root_op = NULL;
  out->insts = MK_NEW_ARRAY(arena, mk_inst, b->ninsts);
  memcpy(out->insts, b->insts, sizeof *b->insts * (size_t)b->ninsts);
  out->accesses = MK_NEW_ARRAY(arena, mk_access, b->naccesses + 1);
  memcpy(out->accesses, b->accesses, sizeof *b->accesses * (size_t)b->naccesses);
  out->insts_cap = out->ninsts;
  out->accesses_cap = out->naccesses + 1;
  mk_access a = {.buffer = buffer, .dtype = dtype, .what = b->root_op};
  int64_t stride = 1;
  for (int i = b->naxes - 1; i >= 0; i--) {
    a.stride[i] = stride;
    stride *= b->extent[i];
  }
  out->accesses[out->naccesses++] = a;
  out->insts[inst] = (mk_inst){
      .kind = MK_INST_LOAD, .dtype = dtype, .a = -1, .b = -1, .c = -1, .access = out->naccesses - 1, .axes = b->insts[inst].axes};
  drop_dead(out, arena);
  return out;
}

static int64_t extent_of(const mk_body *b, int from, int to) { return mk_dims_count(b->extent + from, to - from); }
int64_t mk_body_rows(const mk_body *b) { return extent_of(b, 0, b->nrows); }
int64_t mk_body_cols(const mk_body *b) { return extent_of(b, b->nrows, b->naxes); }

static double bytes_of(const mk_body *b, bool stores) {
  double total = 0;
  for (int i = 0; i < b->naccesses; i++) {
    double elements = stores || !b->accesses[i].store ? 1 : 0;
    for (int j = 0; j < b->naxes; j++) elements *= b->accesses[i].stride[j] ? (double)b->extent[j] : 1;
    total += elements * (double)mk_dtype_size(b->accesses[i].dtype);
  }
  return total;
}

double mk_body_bytes(const mk_body *b) { return bytes_of(b, true); }
double mk_body_bytes_read(const mk_body *b) { return bytes_of(b, false); }

#include "codegen/emit_access.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mk_line(mk_emitter *e, const char *format, ...) {
  char line[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (line[0] != '#') mk_text_addf(e->out, "%*s", 2 * e->indent, "");
  mk_text_add(e->out, line);
  mk_text_add(e->out, "\n");
}

bool mk_is_index(const mk_body *b, int inst) {
  for (int i = 0; i < b->ninsts; i++)
    if (b->insts[i].kind == MK_INST_LOAD && b->insts[i].a == inst) return true;
  return false;
}

/* ---- fields */

static void pointer_field(mk_emitter *e, int access) {
  const mk_access *a = &e->b->accesses[access];
  const char *type = mk_printf(e->arena, a->store ? "%s *" : "const %s *", mk_ctype(a->dtype));
  mk_fields_add(e->fields, e->arena, (mk_field){e->name[access], type, MK_ARG_PTR, MK_FIELD_POINTER, access, 0, e->prologue, 0});
}

static const char *stride_text(mk_emitter *e, int access, int axis) {
  if (e->class[access][axis] == MK_STRIDE_CONST)
    return mk_printf(e->arena, "%lld", (long long)e->b->accesses[access].stride[axis]);
  const char *name = mk_printf(e->arena, "%s_stride%d", e->name[access], axis);
  mk_fields_add(e->fields, e->arena, (mk_field){name, "i64", MK_ARG_I64, MK_FIELD_STRIDE, access, axis, e->prologue, 0});
  return mk_printf(e->arena, "p.%s", name);
}

static const char *extent_field(mk_emitter *e, int axis) {
  const char *name = mk_printf(e->arena, e->prologue ? "a_extent%d" : "extent%d", axis);
  mk_fields_add(e->fields, e->arena, (mk_field){name, "u32", MK_ARG_I32, MK_FIELD_EXTENT, 0, axis, e->prologue, 0});
  return name;
}

void mk_open_accesses(mk_emitter *e) {
  const mk_body *b = e->b;
  int in = 0, out = 0;
  e->cols = mk_body_cols(b);
  e->name = MK_NEW_ARRAY(e->arena, const char *, b->naccesses);
  e->class = mk_alloc(e->arena, sizeof *e->class * (size_t)(b->naccesses ? b->naccesses : 1));
  for (int i = 0; i < b->naccesses; i++) {
    const mk_access *a = &b->accesses[i];
    const char *prefix = e->prologue ? "a_" : "";
    e->name[i] = a->store ? mk_printf(e->arena, "%sout%d", prefix, out++) : mk_printf(e->arena, "%sin%d", prefix, in++);
    mk_stride_classes(b, a, e->class[i]);
    if (!e->prologue || !a->store) pointer_field(e, i);
  }
}

/* ---- rows */

/* Whether the access is read through the ring. An access has one load. */
static bool fetched(const mk_emitter *e, int access) {
  for (int i = 0; i < e->b->ninsts; i++)
    if (e->b->insts[i].kind == MK_INST_LOAD && e->b->insts[i].access == access) return e->ring.piece && e->ring.piece[i] >= 0;
  return false;
}

/* Does this part of the code name the access? */
static bool in_part(const mk_emitter *e, int access) {
  if (e->part == MK_EMIT_WHOLE) return true;
  return e->b->accesses[access].store == (e->part == MK_EMIT_REST);
}

void mk_emit_row_addresses(mk_emitter *e, bool ahead) {
  const mk_body *b = e->b;
  bool used[MK_MAX_AXES] = {false};
  int outermost = b->nrows;
  for (int i = 0; i < b->naccesses; i++)
    for (int j = 0; j < b->nrows; j++)
      if (e->class[i][j] != MK_STRIDE_ZERO && in_part(e, i) && fetched(e, i) == ahead) {
        used[j] = true;
        if (j < outermost) outermost = j;
      }
  if (b->nrows > 1 && outermost < b->nrows) {
    const char *rest = "row";
    for (int j = b->nrows - 1; j >= outermost; j--) {
      const char *extent = j > 0 ? extent_field(e, j) : NULL;
      const char *cast = e->mode == MK_EMIT_ROW || strcmp(rest, "row") ? "" : "(u32)";
      if (used[j] && j > 0)
        mk_line(e, "const u32 r%d = %s%s %% p.%s;", j, cast, rest, extent);
      else if (used[j])
        mk_line(e, "const u32 r%d = %s%s;", j, cast, rest);
      if (j > outermost) {
        const char *next = mk_printf(e->arena, "above%d", j);
        mk_line(e, "const u32 %s = %s%s / p.%s;", next, cast, rest, extent);
        rest = next;
      }
    }
  }
  for (int i = 0; i < b->naccesses; i++) {
    if (!mk_walks_rows(e->b, i) || !in_part(e, i) || fetched(e, i) != ahead || (e->prologue && b->accesses[i].store)) continue;
    mk_text t = {0};
    for (int j = 0; j < b->nrows; j++) {
      if (e->class[i][j] == MK_STRIDE_ZERO) continue;
      const char *at = b->nrows > 1 ? mk_printf(e->arena, "r%d", j) : "row";
      mk_text_addf(&t, "%s%s * %s", t.len ? " + " : "", at, stride_text(e, i, j));
    }
    mk_line(e, "const i64 at_%s = %s;", e->name[i], mk_text_str(&t));
    mk_text_free(&t);
  }
}

/* ---- columns */

/* Coordinate of columns [inner, inner*extent) of column number `c`. */
static const char *digit_text(mk_emitter *e, const char *c, int64_t inner, int64_t extent, int64_t total) {
  const char *div = inner == 1 ? c : mk_printf(e->arena, "%s / %lld", c, (long long)inner);
  return inner * extent == total ? div : mk_printf(e->arena, "%s %% %lld", div, (long long)extent);
}

/* " + ..." for the columns' part of the address at column `c`, which is a multiple of `step`; empty where there is none. */
static void add_column_offset(mk_emitter *e, int access, const char *c, int64_t step, mk_text *t) {
  const mk_body *b = e->b;
  const mk_stride_class *class = e->class[access];
  int64_t inner = 1;
  for (int j = b->naxes - 1; j >= b->nrows;) {
    int64_t extent = b->extent[j];
    int k = j; /* the run j..k of axes that the access walks as one */
    while (class[j] == MK_STRIDE_CONST && k > b->nrows && class[k - 1] == MK_STRIDE_CONST) extent *= b->extent[--k];
    if (class[j] != MK_STRIDE_ZERO && step % (inner * extent) != 0) {
      const char *digit = digit_text(e, c, inner, extent, e->cols), *stride = stride_text(e, access, j);
      bool plain = !strchr(digit, ' ');
      if (!strcmp(stride, "1"))
        mk_text_addf(t, " + %s", digit);
      else
        mk_text_addf(t, plain ? " + %s * %s" : " + (%s) * %s", digit, stride);
    }
    inner *= extent;
    j = k - 1;
  }
}

typedef enum lanes { LANES_SAME, LANES_RUN, LANES_PAIRED, LANES_ANY } lanes;

/* How V adjacent columns lie in memory. RUN: adjacent; PAIRED: adjacent, each for two columns. */
static lanes lane_pattern(const mk_emitter *e, int access) {
  const mk_body *b = e->b;
  const mk_stride_class *class = e->class[access];
  int64_t inner = 1, run = 1;
  int v = e->mode == MK_EMIT_HOOK ? 8 : e->shape->v;
  bool same = true, paired = v > 1, adjacent = true;
  for (int j = b->naxes - 1; j >= b->nrows && inner < v; j--) {
    bool first_pair = inner == 1 && b->extent[j] == 2;
    if (class[j] != MK_STRIDE_ZERO) same = false;
    if (class[j] != MK_STRIDE_CONST || b->accesses[access].stride[j] != run) {
      adjacent = false;
      if (!(first_pair && class[j] == MK_STRIDE_ZERO)) paired = false;
    } else {
      if (inner == 1) paired = false;
      run *= b->extent[j];
    }
    inner *= b->extent[j];
  }
  if (e->mode == MK_EMIT_HOOK && inner < v && inner != e->cols) adjacent = paired = false;
  if (e->mode == MK_EMIT_HOOK) { /* V may be anything up to 8: what holds for 8 must hold within one axis */
    paired = false;
    int last = b->naxes - 1;
    bool whole = last >= b->nrows && class[last] == MK_STRIDE_CONST && (b->extent[last] % 8 == 0 || b->extent[last] == e->cols);
    adjacent = adjacent && whole;
    same = same && (last < b->nrows || b->extent[last] % 8 == 0 || b->extent[last] == e->cols);
  }
  return same ? LANES_SAME : adjacent ? LANES_RUN : paired ? LANES_PAIRED : LANES_ANY;
}

/* " + ..." for lane `i` beyond the first of a thread's V columns. */
static void add_lane_offset(mk_emitter *e, int access, mk_text *t) {
  const mk_body *b = e->b;
  int64_t inner = 1;
  for (int j = b->naxes - 1; j >= b->nrows && inner < e->shape->v; j--) {
    int64_t left = e->shape->v / inner, extent = b->extent[j] < left ? b->extent[j] : left;
    if (e->class[access][j] != MK_STRIDE_ZERO) {
      const char *digit = digit_text(e, "i", inner, extent, e->shape->v), *stride = stride_text(e, access, j);
      if (!strcmp(stride, "1"))
        mk_text_addf(t, " + %s", digit);
      else
        mk_text_addf(t, strchr(digit, ' ') ? " + (%s) * %s" : " + %s * %s", digit, stride);
    }
    inner *= b->extent[j];
  }
}

static const char *column(const mk_emitter *e) { return e->mode == MK_EMIT_HOOK ? "col" : "c"; }

/* Pointer to the first of the thread's columns. */
static void add_pointer(mk_emitter *e, int access, mk_text *t) {
  mk_text_addf(t, "p.%s", e->name[access]);
  if (mk_walks_rows(e->b, access)) mk_text_addf(t, " + at_%s", e->name[access]);
  add_column_offset(e, access, column(e), e->mode == MK_EMIT_HOOK ? 1 : e->shape->v, t);
}

/* Element of lane i. */
static void add_element(mk_emitter *e, int access, const char *index, mk_text *t) {
  mk_text_addf(t, "p.%s[", e->name[access]);
  size_t start = t->len;
  if (mk_walks_rows(e->b, access)) mk_text_addf(t, " + at_%s", e->name[access]);
  if (index) mk_text_addf(t, " + %s", index);
  if (e->mode == MK_EMIT_HOOK) {
    add_column_offset(e, access, "(col + i)", 1, t);
  } else {
    add_column_offset(e, access, "c", e->shape->v, t);
    add_lane_offset(e, access, t);
  }
  if (t->len == start) {
    mk_text_add(t, "0");
  } else { /* drop the leading " + " */
    memmove(t->data + start, t->data + start + 3, t->len - start - 3);
    t->len -= 3;
    t->data[t->len] = 0;
  }
  mk_text_add(t, "]");
}

static const char *index_text(mk_emitter *e, int inst) {
  const mk_inst *in = &e->b->insts[inst];
  if (in->kind != MK_INST_LOAD || in->a < 0) return NULL;
  const char *name = mk_printf(e->arena, "%s_row", e->name[in->access]);
  mk_fields_add(e->fields, e->arena, (mk_field){name, "i64", MK_ARG_I64, MK_FIELD_INDEX_STRIDE, in->access, 0, e->prologue, 0});
  if (!e->ph.column[in->a]) return mk_printf(e->arena, "v%d * p.%s", in->a, name);
  mk_text t = {0};
  add_element(e, e->b->insts[in->a].access, NULL, &t);
  const char *s = mk_printf(e->arena, "%s * p.%s", mk_text_str(&t), name);
  mk_text_free(&t);
  return s;
}

/* ---- rows ahead */

/* Columns after which the access repeats itself. */
static int64_t period(const mk_emitter *e, int access) {
  int64_t inner = 1, last = 1;
  for (int j = e->b->naxes - 1; j >= e->b->nrows; j--) {
    inner *= e->b->extent[j];
    if (e->class[access][j] != MK_STRIDE_ZERO) last = inner;
  }
  return last;
}

/* Whether a thread's vector is one piece of 16 bytes. With two pieces every copy of a warp would touch all sectors and take half
 * of each: 0.61 of the memory's rate where one read by registers has 1. */
static bool one_piece(const mk_emitter *e, int access) {
  lanes pattern = lane_pattern(e, access);
  const mk_access *a = &e->b->accesses[access];
  int n = pattern == LANES_RUN ? e->shape->v : pattern == LANES_PAIRED ? e->shape->v / 2 : 0;
  return n * mk_dtype_size(a->dtype) == 16 && mk_access_alignment(e->b, a, n) == n;
}

void mk_plan_ring(mk_emitter *e) {
  const mk_body *b = e->b;
  mk_ring *r = &e->ring;
  if (e->mode != MK_EMIT_ROW || !e->shape->stages) return;
  r->piece = MK_NEW_ARRAY(e->arena, int, b->ninsts);
  r->shared = MK_NEW_ARRAY(e->arena, bool, b->ninsts);
  r->fixed = MK_NEW_ARRAY(e->arena, bool, b->ninsts);
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    r->piece[i] = -1;
    if (in->kind != MK_INST_LOAD || in->a >= 0 || !e->ph.column[i] || mk_is_index(b, i)) continue;
    if (!mk_walks_rows(e->b, in->access)) {
      r->fixed[i] = true;
    } else if (one_piece(e, in->access)) {
      r->shared[i] = (int64_t)e->shape->threads * e->shape->v % period(e, in->access) == 0;
      r->piece[i] = r->pieces;
      r->pieces += r->shared[i] ? 1 : e->shape->items;
    } else {
      r->refused = true;
    }
  }
}

/* Where in a thread's part of the ring a load's pieces of item k are. */
static const char *slot_text(mk_emitter *e, int inst, const char *base) {
  const mk_ring *r = &e->ring;
  if (r->shared[inst] || e->shape->items == 1) return mk_printf(e->arena, "%s + %d * PIECE", base, r->piece[inst]);
  return mk_printf(e->arena, "%s + (%d + k) * PIECE", base, r->piece[inst]);
}

void mk_emit_fetch(mk_emitter *e, int inst) {
  const mk_inst *in = &e->b->insts[inst];
  bool first = e->ring.shared[inst] && e->shape->items > 1;
  mk_text t = {0};
  add_pointer(e, in->access, &t);
  mk_line(e, "%sfetch_lanes<%s, PIECE>(%s, %s, valid);", first ? "if (k == 0) " : "",
          lane_pattern(e, in->access) == LANES_PAIRED ? "V / 2" : "V", mk_text_str(&t), slot_text(e, inst, "to"));
  mk_text_free(&t);
}

void mk_emit_load(mk_emitter *e, int inst, const char *dest) {
  const mk_inst *in = &e->b->insts[inst];
  const mk_access *a = &e->b->accesses[in->access];
  if (e->ring.piece && e->ring.piece[inst] >= 0) {
    mk_line(e, "%s<%s, PIECE>(%s, %s);", lane_pattern(e, in->access) == LANES_PAIRED ? "fetched_pairs" : "fetched_lanes",
            mk_ctype(a->dtype), slot_text(e, inst, "ready"), dest);
    return;
  }
  const char *index = index_text(e, inst);
  bool lane_index = index && e->ph.column[in->a];
  lanes pattern = lane_index ? LANES_ANY : lane_pattern(e, in->access);
  int v = e->mode == MK_EMIT_HOOK ? 8 : e->shape->v;
  mk_text t = {0};
  if (pattern == LANES_RUN || pattern == LANES_PAIRED) {
    add_pointer(e, in->access, &t);
    if (index) mk_text_addf(&t, " + %s", index);
    int align = mk_access_alignment(e->b, a, pattern == LANES_PAIRED ? v / 2 : v);
    mk_line(e, pattern == LANES_PAIRED ? "load_pairs<%d>(%s, %s);" : "load_lanes<%d>(%s, %s);", align, mk_text_str(&t), dest);
  } else if (pattern == LANES_SAME) {
    add_pointer(e, in->access, &t);
    if (index) mk_text_addf(&t, " + %s", index);
    mk_line(e, "fill_lanes(to_f32(*(%s)), %s);", mk_text_str(&t), dest);
  } else {
    add_element(e, in->access, index, &t);
    mk_line(e, "#pragma unroll");
    mk_line(e, "for (int i = 0; i < V; i++) %s[i] = to_f32(%s);", dest, mk_text_str(&t));
  }
  mk_text_free(&t);
}

void mk_emit_prefetch(mk_emitter *e, int inst) {
  int access = e->b->insts[inst].access;
  const mk_access *a = &e->b->accesses[access];
  if (!mk_walks_rows(e->b, access) || lane_pattern(e, access) != LANES_RUN) return;
  if (mk_access_alignment(e->b, a, 8) * (int)mk_dtype_size(a->dtype) % 16) return;
  mk_text t = {0};
  add_pointer(e, access, &t);
  mk_line(e, "prefetch_vec(%s, columns);", mk_text_str(&t));
  mk_text_free(&t);
}

void mk_emit_store(mk_emitter *e, int inst, const char *src) {
  const mk_inst *in = &e->b->insts[inst];
  if (e->prologue) { /* whoever calls it rounds */
    mk_line(e, "#pragma unroll");
    mk_line(e, "for (int i = 0; i < V; i++) a[i] = %s[i];", src);
    return;
  }
  const mk_access *a = &e->b->accesses[in->access];
  mk_text t = {0};
  if (lane_pattern(e, in->access) == LANES_RUN) {
    add_pointer(e, in->access, &t);
    mk_line(e, "store_lanes<%d>(%s, %s);", mk_access_alignment(e->b, a, e->mode == MK_EMIT_HOOK ? 8 : e->shape->v),
            mk_text_str(&t), src);
  } else {
    add_element(e, in->access, NULL, &t);
    mk_line(e, "#pragma unroll");
    mk_line(e, "for (int i = 0; i < V; i++) %s = from_f32<%s>(%s[i]);", mk_text_str(&t), mk_ctype(a->dtype), src);
  }
  mk_text_free(&t);
}

static const char *row_element(mk_emitter *e, int access) {
  return mk_printf(e->arena, "p.%s[%s%s]", e->name[access], mk_walks_rows(e->b, access) ? "at_" : "0",
                   mk_walks_rows(e->b, access) ? e->name[access] : "");
}

void mk_emit_row_load(mk_emitter *e, int inst) {
  const mk_inst *in = &e->b->insts[inst];
  const char *index = index_text(e, inst);
  if (mk_is_index(e->b, inst)) {
    mk_line(e, "const i64 v%d = %s;", inst, row_element(e, in->access));
  } else if (index) {
    const char *at = mk_walks_rows(e->b, in->access) ? mk_printf(e->arena, "at_%s + ", e->name[in->access]) : "";
    mk_line(e, "const float v%d = to_f32(p.%s[%s%s]);", inst, e->name[in->access], at, index);
  } else {
    mk_line(e, "const float v%d = to_f32(%s);", inst, row_element(e, in->access));
  }
}

void mk_emit_row_store(mk_emitter *e, int inst, const char *value) {
  const mk_inst *in = &e->b->insts[inst];
  mk_line(e, "%s = from_f32<%s>(%s);", row_element(e, in->access), mk_ctype(e->b->accesses[in->access].dtype), value);
}

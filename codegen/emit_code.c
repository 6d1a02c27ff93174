/* A body's instructions as CUDA: for each phase, what the row knows so far, the loads, the arithmetic with its stores, and the
 * reductions that end it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codegen/emit_access.h"

typedef enum storage { STORE_SCALAR, STORE_LANES, STORE_ITEMS } storage; /* float v; float v[V]; float v[ITEMS][V] */

typedef struct coder {
  mk_emitter e;
  storage *where; /* per column instruction */
  int *segment;   /* per column instruction: lane loops are cut at rotations, which need whole pairs */
  int scratch;    /* reductions that went through shared memory so far */
} coder;

static bool looping(const coder *c) { return c->e.mode != MK_EMIT_HOOK && c->e.shape->items == 0; }
static bool many_items(const coder *c) { return c->e.mode != MK_EMIT_HOOK && c->e.shape->items > 1; }
static bool ragged(const coder *c) {
  const mk_row_shape *s = c->e.shape;
  return c->e.mode != MK_EMIT_HOOK && s->items > 0 && (int64_t)s->threads * s->items * s->v != c->e.cols;
}

static bool walks_over_rows(const coder *c) { return c->e.ring.piece; }
static bool comes_ahead(const coder *c, int inst) { return walks_over_rows(c) && c->e.ring.piece[inst] >= 0; }
static bool stays(const coder *c, int inst) { return walks_over_rows(c) && c->e.ring.fixed[inst]; }

static bool is_source(const mk_inst *in) { return in->kind == MK_INST_LOAD || in->kind == MK_INST_ROOT; }

/* In a loop every phase evaluates again what it needs; otherwise each instruction runs in its own phase. All stores of a loop
 * come last, so that what an earlier phase read is still there. */
static void mark_needed(const coder *c, int inst, bool *needed) {
  const mk_inst *in = &c->e.b->insts[inst];
  if (inst < 0 || needed[inst] || !c->e.ph.column[inst]) return;
  needed[inst] = true;
  if (in->a >= 0) mark_needed(c, in->a, needed);
  if (in->b >= 0) mark_needed(c, in->b, needed);
  if (in->c >= 0) mark_needed(c, in->c, needed);
}

static void find_needed(const coder *c, int phase, bool *needed) {
  const mk_body *b = c->e.b;
  memset(needed, 0, (size_t)b->ninsts);
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    if (!looping(c)) {
      needed[i] = c->e.ph.column[i] && c->e.ph.phase[i] == phase && !stays(c, i);
    } else if (in->kind == MK_INST_REDUCE && c->e.ph.phase[i] == phase + 1) {
      mark_needed(c, in->a, needed);
    } else if (in->kind == MK_INST_STORE && c->e.ph.column[i] && phase == c->e.ph.count - 1) {
      mark_needed(c, i, needed);
    }
  }
  for (int i = 0; i < b->ninsts; i++) /* an index of its own per column is read where it is used */
    if (needed[i] && mk_is_index(b, i)) needed[i] = false;
}

static void find_storage(coder *c) {
  const mk_body *b = c->e.b;
  c->where = MK_NEW_ARRAY(c->e.arena, storage, b->ninsts);
  c->segment = MK_NEW_ARRAY(c->e.arena, int, b->ninsts);
  int segment = 0;
  for (int i = 0; i < b->ninsts; i++) {
    if (!c->e.ph.column[i]) continue;
    bool rope = b->insts[i].kind == MK_INST_ROPE;
    segment += rope;
    c->segment[i] = segment;
    segment += rope;
  }
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    int args[3] = {in->a, in->b, in->c};
    bool source = is_source(in);
    if (source || in->kind == MK_INST_ROPE) c->where[i] = STORE_LANES;
    for (int k = 0; k < 3; k++) {
      int a = args[k];
      if (a < 0 || !c->e.ph.column[a] || in->kind == MK_INST_LOAD) continue;
      if (in->kind == MK_INST_STORE || in->kind == MK_INST_ROPE || c->segment[a] != c->segment[i]) c->where[a] = STORE_LANES;
    }
  }
  for (int i = 0; i < b->ninsts && c->e.mode != MK_EMIT_HOOK && !looping(c); i++)
    if (c->e.ph.column[i] && (c->e.ph.kept[i] || stays(c, i) || (is_source(&b->insts[i]) && many_items(c))))
      c->where[i] = STORE_ITEMS;
}

static const char *array_of(const coder *c, int i) {
  return mk_printf(c->e.arena, c->where[i] == STORE_ITEMS && many_items(c) ? "v%d[k]" : "v%d", i);
}

static const char *float_text(mk_arena *arena, float x) {
  if (isnan(x)) return "__int_as_float(0x7fffffff)";
  if (isinf(x)) return x > 0 ? "__int_as_float(0x7f800000)" : "__int_as_float(0xff800000)";
  char s[32];
  snprintf(s, sizeof s, "%.9g", (double)x);
  bool point = strpbrk(s, ".e") != NULL;
  return mk_printf(arena, x < 0 ? "(%s%sf)" : "%s%sf", s, point ? "" : ".");
}

/* The value of instruction i in lane `lane`. */
static const char *value_at(const coder *c, int i, const char *lane) {
  const mk_inst *in = &c->e.b->insts[i];
  if (in->kind == MK_INST_LITERAL) return float_text(c->e.arena, in->value);
  if (!c->e.ph.column[i] && i == c->e.b->root) return mk_printf(c->e.arena, "v%d[0]", i); /* a hook's only column */
  if (!c->e.ph.column[i]) return mk_printf(c->e.arena, mk_is_index(c->e.b, i) ? "(float)v%d" : "v%d", i);
  if (c->where[i] == STORE_SCALAR) return mk_printf(c->e.arena, "v%d", i);
  return mk_printf(c->e.arena, "%s[%s]", array_of(c, i), lane);
}

static const char *expression(const coder *c, int i) {
  const mk_inst *in = &c->e.b->insts[i];
  const char *a = value_at(c, in->a, "i"), *b = in->b >= 0 ? value_at(c, in->b, "i") : NULL;
  static const char infix[MK_OP_COUNT] = {[MK_OP_ADD] = '+', [MK_OP_SUB] = '-', [MK_OP_MUL] = '*', [MK_OP_DIV] = '/'};
  if (infix[in->op]) return mk_printf(c->e.arena, "%s %c %s", a, infix[in->op], b);
  if (in->op == MK_OP_NEG) return mk_printf(c->e.arena, "-%s", a);
  if (in->op == MK_OP_CAST) return mk_printf(c->e.arena, "round_to<%s>(%s)", mk_ctype(in->dtype), a);
  if (b) return mk_printf(c->e.arena, "op_%s(%s, %s)", mk_op_name(in->op), a, b);
  return mk_printf(c->e.arena, "op_%s(%s)", mk_op_name(in->op), a);
}

/* ---- a walk along the row */

/* uses_column: something inside names the column c. */
static void open_walk(coder *c, bool uses_column) {
  mk_emitter *e = &c->e;
  if (e->mode == MK_EMIT_HOOK) return;
  const char *at = e->shape->threads == 1 ? "" : " + lane";
  if (looping(c)) {
    mk_line(e, "for (int c = lane * V; c < COLS; c += THREADS * V) {");
    e->indent++;
  } else if (many_items(c)) {
    mk_line(e, "#pragma unroll");
    mk_line(e, "for (int k = 0; k < ITEMS; k++) {");
    e->indent++;
    if (uses_column || ragged(c))
      mk_line(e, e->shape->threads == 1 ? "const int c = k%s * V;" : "const int c = (k * THREADS%s) * V;", at);
  }
  if (ragged(c)) {
    mk_line(e, "if (c < COLS) {");
    e->indent++;
  }
}

static void close_walk(coder *c) {
  mk_emitter *e = &c->e;
  int depth = looping(c) + many_items(c) + ragged(c);
  for (int i = 0; i < depth; i++) {
    e->indent--;
    mk_line(e, "}");
  }
}

static void declare(coder *c, int i) {
  if (c->where[i] == STORE_LANES) mk_line(&c->e, "float v%d[V];", i);
}

static void emit_source(coder *c, int i) {
  mk_emitter *e = &c->e;
  const char *dest = array_of(c, i);
  if (e->mode == MK_EMIT_HOOK && i == e->b->root) return; /* the hook's parameter */
  if (e->part == MK_EMIT_FETCH)
    mk_line(e, "float(&v%d)[V] = o.v%d;", i, i);
  else if (e->part == MK_EMIT_REST)
    mk_line(e, "const float(&v%d)[V] = o.v%d;", i, i);
  else if (e->part == MK_EMIT_WHOLE)
    declare(c, i);
  if (e->part == MK_EMIT_PREFETCH)
    mk_emit_prefetch(e, i);
  else if (e->b->insts[i].kind == MK_INST_LOAD && e->part != MK_EMIT_REST)
    mk_emit_load(e, i, dest);
  else if (e->mode == MK_EMIT_EPILOGUE_ROW)
    mk_line(e, "load_lanes<%d>(acc + c, %s);", e->shape->v < 4 ? e->shape->v : 4, dest);
}

static void emit_rope(coder *c, int i) {
  mk_emitter *e = &c->e;
  const mk_inst *in = &e->b->insts[i];
  const char *dest = array_of(c, i);
  declare(c, i);
  mk_line(e, "#pragma unroll");
  mk_line(e, "for (int i = 0; i < V; i += 2) {");
  e->indent++;
  const char *x = value_at(c, in->a, "i"), *y = value_at(c, in->a, "i + 1"), *cos = value_at(c, in->b, "i"),
             *sin = value_at(c, in->c, "i");
  mk_line(e, "%s[i] = %s * %s - %s * %s;", dest, x, cos, y, sin);
  mk_line(e, "%s[i + 1] = %s * %s + %s * %s;", dest, x, sin, y, cos);
  e->indent--;
  mk_line(e, "}");
}

static const char *accumulate(const coder *c, int i) {
  const mk_inst *in = &c->e.b->insts[i];
  const char *x = value_at(c, in->a, "i");
  if (in->op == MK_OP_AMAX) return mk_printf(c->e.arena, "v%d = fmaxf(v%d, %s);", i, i, x);
  return mk_printf(c->e.arena, "v%d += %s;", i, x);
}

/* Which segment a reduction's sum is taken in: that of its argument, or the next one if that is a rotation. */
static int reduce_segment(const coder *c, int i) {
  int a = c->e.b->insts[i].a;
  return c->segment[a] + (c->e.b->insts[a].kind == MK_INST_ROPE);
}

static bool reduces_in(const coder *c, int i, int phase) {
  return c->e.b->insts[i].kind == MK_INST_REDUCE && c->e.ph.phase[i] == phase + 1;
}

/* One lane loop: the arithmetic of a segment, and the sums over it. */
static void emit_segment(coder *c, int phase, int segment, const bool *needed) {
  mk_emitter *e = &c->e;
  const mk_body *b = e->b;
  bool any = false;
  for (int i = 0; i < b->ninsts; i++) {
    bool op = needed[i] && b->insts[i].kind == MK_INST_OP && c->segment[i] == segment;
    any |= op || (reduces_in(c, i, phase) && reduce_segment(c, i) == segment);
    if (op) declare(c, i);
  }
  if (!any) return;
  mk_line(e, "#pragma unroll");
  mk_line(e, "for (int i = 0; i < V; i++) {");
  e->indent++;
  for (int i = 0; i < b->ninsts; i++) {
    if (needed[i] && b->insts[i].kind == MK_INST_OP && c->segment[i] == segment) {
      if (c->where[i] == STORE_SCALAR)
        mk_line(e, "const float v%d = %s;", i, expression(c, i));
      else
        mk_line(e, "%s[i] = %s;", array_of(c, i), expression(c, i));
    }
    if (reduces_in(c, i, phase) && reduce_segment(c, i) == segment) mk_line(e, "%s", accumulate(c, i));
  }
  e->indent--;
  mk_line(e, "}");
}

static void emit_stores(coder *c, const bool *needed) {
  mk_emitter *e = &c->e;
  bool guard = e->mode == MK_EMIT_ROW && e->shape->threads > 1 && e->shape->threads < 32;
  for (int i = 0; i < e->b->ninsts; i++) {
    const mk_inst *in = &e->b->insts[i];
    if (!needed[i] || in->kind != MK_INST_STORE) continue;
    const char *src = e->ph.column[in->a] && in->a >= 0 ? array_of(c, in->a) : NULL;
    if (guard) {
      mk_line(e, "if (active) {");
      e->indent++;
    }
    if (!src) { /* the same value in every column */
      mk_line(e, "float same%d[V];", i);
      mk_line(e, "fill_lanes(%s, same%d);", value_at(c, in->a, "i"), i);
      src = mk_printf(e->arena, "same%d", i);
    }
    mk_emit_store(e, i, src);
    if (guard) {
      e->indent--;
      mk_line(e, "}");
    }
  }
}

static void emit_walk(coder *c, int phase) {
  mk_emitter *e = &c->e;
  const mk_body *b = e->b;
  bool *needed = MK_NEW_ARRAY(e->arena, bool, b->ninsts), any = false, sources = false, addressed = false, stores = false;
  find_needed(c, phase, needed);
  int last = 0;
  for (int i = 0; i < b->ninsts; i++) {
    any |= needed[i] || reduces_in(c, i, phase);
    sources |= needed[i] && is_source(&b->insts[i]);
    addressed |= needed[i] && is_source(&b->insts[i]) && !comes_ahead(c, i);
    stores |= needed[i] && b->insts[i].kind == MK_INST_STORE;
    if (e->ph.column[i] && c->segment[i] >= last) last = c->segment[i] + 1;
    if (needed[i] && c->where[i] == STORE_ITEMS) mk_line(e, many_items(c) ? "float v%d[ITEMS][V];" : "float v%d[V];", i);
    if (reduces_in(c, i, phase))
      mk_line(e, "float v%d = %s;", i, b->insts[i].op == MK_OP_AMAX ? "__int_as_float(0xff800000)" : "0.f");
  }
  if (!any) return;
  if (sources && many_items(c)) { /* all loads are under way before the first is used */
    open_walk(c, addressed);
    for (int i = 0; i < b->ninsts; i++)
      if (needed[i] && is_source(&b->insts[i])) emit_source(c, i);
    close_walk(c);
  }
  open_walk(c, stores || (addressed && !many_items(c)));
  for (int i = 0; i < b->ninsts && !many_items(c); i++)
    if (needed[i] && is_source(&b->insts[i])) emit_source(c, i);
  if (e->part == MK_EMIT_FETCH || e->part == MK_EMIT_PREFETCH) return;
  for (int s = 0; s <= last; s++) {
    emit_segment(c, phase, s, needed);
    for (int i = 0; i < b->ninsts; i++)
      if (needed[i] && b->insts[i].kind == MK_INST_ROPE && c->segment[i] == s) emit_rope(c, i);
  }
  emit_stores(c, needed);
  close_walk(c);
}

/* ---- between walks */

static void emit_reductions(coder *c, int phase) {
  mk_emitter *e = &c->e;
  int threads = e->shape ? e->shape->threads : 1;
  for (int i = 0; i < e->b->ninsts; i++) {
    if (!reduces_in(c, i, phase)) continue;
    mk_op op = e->b->insts[i].op;
    const char *f = op == MK_OP_AMAX ? "max_values()" : "add_values()";
    if (threads > 32)
      mk_line(e, "v%d = combine_block<THREADS>(v%d, scratch%s[%d], %s);", i, i, walks_over_rows(c) ? "[stage]" : "", c->scratch++,
              f);
    else if (threads > 1)
      mk_line(e, "v%d = combine_lanes<THREADS>(v%d, %s);", i, i, f);
    if (op == MK_OP_MEAN) mk_line(e, "v%d *= 1.f / COLS;", i);
  }
}

static void emit_row_values(coder *c, int phase) {
  mk_emitter *e = &c->e;
  const mk_body *b = e->b;
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    if (e->ph.column[i] || e->ph.phase[i] != phase) continue;
    if (in->kind == MK_INST_LOAD && e->part == MK_EMIT_REST) mk_line(e, "const float v%d = o.v%d;", i, i);
    if (in->kind == MK_INST_LOAD && (e->part == MK_EMIT_WHOLE || e->part == MK_EMIT_FETCH)) mk_emit_row_load(e, i);
    if (in->kind == MK_INST_LOAD && e->part == MK_EMIT_FETCH) mk_line(e, "o.v%d = v%d;", i, i);
    if (e->part == MK_EMIT_FETCH || e->part == MK_EMIT_PREFETCH) continue;
    if (in->kind == MK_INST_OP) mk_line(e, "const float v%d = %s;", i, expression(c, i));
    if (in->kind != MK_INST_STORE) continue;
    bool alone = e->mode == MK_EMIT_HOOK || e->shape->threads == 1;
    const char *first = e->mode == MK_EMIT_HOOK                            ? "col == 0"
                        : e->mode == MK_EMIT_ROW && e->shape->threads < 32 ? "active && lane == 0"
                                                                           : "lane == 0";
    if (!alone || e->mode == MK_EMIT_HOOK) mk_line(e, "if (%s)", first);
    e->indent += !alone || e->mode == MK_EMIT_HOOK;
    mk_emit_row_store(e, i, value_at(c, in->a, "0"));
    e->indent -= !alone || e->mode == MK_EMIT_HOOK;
  }
}

/* ---- blocks that walk over rows */

static void emit_sources(coder *c, bool ahead) {
  mk_emitter *e = &c->e;
  for (int i = 0; i < e->b->ninsts; i++) {
    if (ahead && e->ring.piece[i] >= 0) mk_emit_fetch(e, i);
    if (!ahead && e->ring.fixed[i]) mk_emit_load(e, i, array_of(c, i));
  }
}

/* What stays in registers, the copies of the first rows, and the head of the loop; the row at work was fetched STAGES - 1 turns
 * before. Sums of adjacent rows have scratch of their own, so a thread may be a row ahead of the slowest. */
static void open_rows(coder *c) {
  mk_emitter *e = &c->e;
  bool any = false;
  for (int i = 0; i < e->b->ninsts; i++) {
    if (e->ring.fixed[i]) mk_line(e, many_items(c) ? "float v%d[ITEMS][V];" : "float v%d[V];", i);
    any |= e->ring.fixed[i];
  }
  if (any) {
    open_walk(c, true);
    emit_sources(c, false);
    close_walk(c);
  }
  mk_line(e, "const auto fetch = [&](u32 row, int stage) {");
  e->indent++;
  mk_line(e, "const bool valid = row < p.rows;");
  mk_line(e, "u8 *to = dynamic_smem + (stage * PIECES * THREADS + lane) * 16;");
  mk_emit_row_addresses(e, true);
  open_walk(c, true);
  emit_sources(c, true);
  close_walk(c);
  mk_line(e, "cp_async_commit();");
  e->indent--;
  mk_line(e, "};");
  mk_line(e, "for (int i = 0; i < STAGES - 1; i++) fetch(blockIdx.x + i * gridDim.x, i);");
  mk_line(e, "int stage = 0;");
  mk_line(e, "for (u32 row = blockIdx.x; row < p.rows; row += gridDim.x) {");
  e->indent++;
  mk_line(e, "fetch(row + (STAGES - 1) * gridDim.x, stage ? stage - 1 : STAGES - 1);");
  mk_line(e, "cp_async_wait<STAGES - 1>();");
  mk_line(e, "const u8 *ready = dynamic_smem + (stage * PIECES * THREADS + lane) * 16;");
}

static void close_rows(coder *c) {
  mk_line(&c->e, "stage = stage + 1 < STAGES ? stage + 1 : 0;");
  c->e.indent--;
  mk_line(&c->e, "}");
}

static void open_coder(coder *c, const mk_body *b, const mk_row_shape *shape, mk_emit_mode mode, bool prologue, mk_fields *fields,
                       mk_arena *arena, mk_text *out) {
  *c = (coder){.e = {.b = b, .shape = shape, .mode = mode, .prologue = prologue, .fields = fields, .arena = arena, .out = out}};
  c->e.indent = 1;
  mk_find_phases(b, arena, &c->e.ph);
  mk_open_accesses(&c->e);
  mk_plan_ring(&c->e);
  find_storage(c);
}

int mk_row_ring_bytes(const mk_body *b, const mk_row_shape *shape) {
  mk_arena arena = {0};
  mk_fields fields = {0};
  coder c;
  open_coder(&c, b, shape, MK_EMIT_ROW, false, &fields, &arena, NULL);
  int pieces = c.e.ring.refused ? 0 : c.e.ring.pieces;
  mk_arena_free(&arena);
  return shape->stages * pieces * shape->threads * 16;
}

void mk_emit_code(const mk_body *b, const mk_row_shape *shape, mk_emit_mode mode, bool prologue, mk_fields *fields,
                  mk_arena *arena, mk_text *out) {
  coder c;
  open_coder(&c, b, shape, mode, prologue, fields, arena, out);
  int reductions = 0;
  for (int i = 0; i < b->ninsts; i++) reductions += b->insts[i].kind == MK_INST_REDUCE;
  if (mode != MK_EMIT_HOOK && shape->threads > 32 && reductions)
    mk_line(&c.e, "__shared__ float scratch%s[%d][THREADS / WARP];", walks_over_rows(&c) ? "[STAGES]" : "", reductions);
  if (mode != MK_EMIT_HOOK && shape->items == 1 && (c.e.cols > shape->v || shape->threads > 1))
    mk_line(&c.e, "const int c = lane * V;");
  if (walks_over_rows(&c)) {
    mk_line(&c.e, "constexpr int PIECES = %d, PIECE = THREADS * 16;", c.e.ring.pieces);
    open_rows(&c);
  }
  mk_emit_row_addresses(&c.e, false);
  for (int phase = 0; phase < c.e.ph.count; phase++) {
    if (phase) emit_reductions(&c, phase - 1);
    emit_row_values(&c, phase);
    emit_walk(&c, phase);
  }
  if (walks_over_rows(&c)) close_rows(&c);
}

void mk_emit_part_code(const mk_body *b, mk_emit_part part, mk_fields *fields, mk_arena *arena, mk_text *out) {
  coder c;
  open_coder(&c, b, NULL, MK_EMIT_HOOK, false, fields, arena, out);
  c.e.part = part;
  mk_emit_row_addresses(&c.e, false);
  emit_row_values(&c, 0);
  emit_walk(&c, 0);
}

void mk_emit_operands(const mk_body *b, mk_arena *arena, mk_text *out) {
  mk_phases ph;
  mk_find_phases(b, arena, &ph);
  for (int i = 0; i < b->ninsts; i++)
    if (b->insts[i].kind == MK_INST_LOAD) mk_text_addf(out, "  float v%d%s;\n", i, ph.column[i] ? "[V]" : "");
}

/* Row programs: how a body is spread over threads, and the kernel around its code. */
#include <stdlib.h>
#include <string.h>

#include "codegen/emit_internal.h"

enum {
  FLAT_BLOCK = 256,
  SMALL_BLOCK = 128,
  MAX_ROW_FLOATS = 96,
  MAX_SPREADS = 64,
  WALK_THREADS = 640, /* of a multiprocessor */
  WALK_STATIC = 2048  /* shared memory of a block beside its ring */
};

/* ---- lanes of bodies without columns */

/* The widest vector, up to 16 bytes of the narrowest type, whose lanes are whole axes and then a part that divides the next one.
 */
static int widest(const mk_body *b, int first_axis) {
  int v = 4;
  for (int i = 0; i < b->naccesses; i++)
    if (mk_dtype_size(b->accesses[i].dtype) == 2) v = 8;
  for (; v > 1; v /= 2) {
    int64_t left = v;
    for (int j = b->naxes - 1; j >= first_axis && left > 1; j--) {
      if (left % b->extent[j] == 0)
        left /= b->extent[j];
      else if (b->extent[j] % left == 0)
        left = 1;
      else
        break;
    }
    if (left == 1) break;
  }
  return v;
}

int mk_lane_count(const mk_body *b) { return widest(b, 0); }

mk_body *mk_body_lanes(const mk_body *b, int v, mk_arena *arena) {
  mk_body *out = MK_NEW(arena, mk_body);
  *out = *b;
  out->accesses = MK_NEW_ARRAY(arena, mk_access, b->naccesses);
  memcpy(out->accesses, b->accesses, sizeof *b->accesses * (size_t)b->naccesses);
  out->insts = MK_NEW_ARRAY(arena, mk_inst, b->ninsts);
  memcpy(out->insts, b->insts, sizeof *b->insts * (size_t)b->ninsts);
  out->accesses_cap = b->naccesses;
  out->insts_cap = b->ninsts;
  int64_t left = v;
  int j = b->naxes;
  while (left > 1 && left % out->extent[j - 1] == 0) left /= out->extent[--j];
  out->nrows = j;
  if (left == 1 || b->naxes == MK_MAX_AXES) return out;
  /* axis j-1 splits: its inner `left` elements are columns */
  int at = j - 1;
  memmove(out->extent + at + 1, out->extent + at, sizeof *out->extent * (size_t)(out->naxes - at));
  out->extent[at] /= left;
  out->extent[at + 1] = left;
  for (int i = 0; i < out->naccesses; i++) {
    int64_t *s = out->accesses[i].stride;
    memmove(s + at + 1, s + at, sizeof *s * (size_t)(out->naxes - at));
    s[at] *= left;
  }
  for (int i = 0; i < out->ninsts; i++) {
    uint32_t axes = out->insts[i].axes, low = axes & ((2u << at) - 1), high = axes & ~((1u << at) - 1);
    out->insts[i].axes = low | high << 1;
  }
  out->naxes++;
  return out;
}

/* ---- shapes */

typedef struct rated {
  mk_row_shape shape;
  double penalty;
} rated;

static int by_penalty(const void *x, const void *y) {
  const rated *a = x, *b = y;
  if (a->penalty != b->penalty) return a->penalty < b->penalty ? -1 : 1;
  return a->shape.threads - b->shape.threads;
}

/* As many blocks of so many warps as may have so many registers a thread. Each of the four parts of a multiprocessor has 512
 * registers a lane, given to a warp in eights. */
static int blocks_with(int warps, int registers) {
  int blocks = 1;
  if (registers < 48) registers = 48;
  if (registers > 248) registers = 248;
  while (blocks < 32 && (blocks + 1) * warps <= 64 && 512 / (((blocks + 1) * warps + 3) / 4) / 8 * 8 >= registers / 8 * 8)
    blocks++;
  return blocks;
}

/* More blocks are more memory traffic under way. ptxas by itself takes 24 registers, the values kept between reductions and half
 * of the others (seen over these programs; more where a row's end is guarded). Blocks with one row of few items make do with
 * three quarters; others would spill, the sooner the longer the program. An H200 norms 5120 bf16 values at 90 % of the copies'
 * rate with four blocks of 320 threads, and a hand-written kernel like ours at 97 % (28,800 rows) and 99 % (75,600) with five of
 * 160. */
static int resident_blocks(const mk_body *b, const mk_row_shape *s, int live, int kept) {
  int items = s->items ? s->items : 1, floats = items * s->v, registers = 40 + floats * live;
  bool ragged = (int64_t)s->threads * floats != mk_body_cols(b);
  int usual = 24 + floats * (9 * kept + 11 * live) / 20;
  if (s->threads > 32 && items <= 2) registers = usual * 3 / 4;
  if (s->threads > 32 && items > 2 && items <= 4 && live <= 2 && !ragged) registers = usual + b->ninsts / 2;
  return blocks_with((s->threads * s->rows + 31) / 32, registers);
}

/* All spreads of a body's columns over threads, best first. */
static int spreads(const mk_body *b, int v, int live, rated out[MAX_SPREADS]) {
  int64_t vectors = mk_body_cols(b) / v;
  int n = 0;
  for (int threads = 1; threads <= 1024; threads = threads < 32 ? 2 * threads : threads + 32) {
    int64_t items = (vectors + threads - 1) / threads;
    if (items > 16 || (threads > 1 && threads > 2 * vectors) || n == MAX_SPREADS) continue;
    int64_t floats = items * v * live;
    if (floats > MAX_ROW_FLOATS || (threads > 512 && floats > 40)) continue;
    double idle = (double)(items * threads) / (double)vectors - 1; /* of the lanes */
    double few = threads < 32 && threads < vectors ? 0.05 : 0;     /* short runs of memory per row */
    double bytes = (double)items * v * 4;                          /* in flight per thread and array: 32 to 64 is best */
    double depth = bytes < 32 ? 32 / bytes - 1 : bytes > 80 ? bytes / 80 - 1 : 0;
    double sync = threads > 512 ? 0.3 : threads > 256 ? 0.1 : threads > 32 ? 0.05 : 0;
    int rows = threads >= 64 ? 1 : SMALL_BLOCK / threads > 32 ? 32 : SMALL_BLOCK / threads;
    if (threads == 32) rows = 4;
    out[n++] = (rated){{.v = v, .threads = threads, .rows = rows, .items = (int)items}, 2 * idle + few + 0.3 * depth + sync};
  }
  qsort(out, (size_t)n, sizeof *out, by_penalty);
  return n;
}

int mk_row_shapes(const mk_body *b, mk_row_shape *out, int max) {
  mk_arena arena = {0};
  mk_phases ph;
  mk_find_phases(b, &arena, &ph);
  int live = mk_live_values(b, &ph), kept = mk_kept_values(b, &ph), v = widest(b, b->nrows), n = 0;
  mk_arena_free(&arena);
  if (b->reduces) {
    rated all[MAX_SPREADS];
    int found = spreads(b, v, live, all);
    for (; n < found && n < max; n++) out[n] = all[n].shape;
    int64_t vectors = mk_body_cols(b) / v;
    if (!n) /* too wide for registers: read again for each reduction */
      out[n++] = (mk_row_shape){.v = v, .threads = vectors >= 512 ? 512 : vectors >= 128 ? 128 : 32, .rows = 1};
  } else { /* one thread a vector */
    int cols = (int)mk_body_cols(b);
    out[n++] = (mk_row_shape){.v = cols, .threads = 1, .rows = FLAT_BLOCK, .items = 1};
    if (max > 1) out[n++] = (mk_row_shape){.v = cols, .threads = 1, .rows = SMALL_BLOCK, .items = 1};
  }
  for (int i = 0; i < n; i++) out[i].blocks = resident_blocks(b, &out[i], live, kept);
  return n;
}

/* ---- blocks that walk over rows
 *
 * A block with one row of 16-bit values has little to do and long to wait: for its launch, its row, the other warps and, where it
 * rotates, the tables of its row. Where rows are waited for twice there are shapes whose blocks stay, take every n-th row, keep
 * what is the same for all rows in registers, and copy the next row to shared memory while they work on one.
 *
 * Measured on an H200 (copies: 4.22 TB/s), 28,800 rows of 5120 bf16 values, as shares of the copies: norm and rotation 74 % with
 * a block a row, 94 % so with two blocks of 320 threads and one row ahead; 87 % with three blocks, 87 % with two rows ahead: what
 * is under way beyond that only gets in the way. Norms without rotation lose by it (90 to 89 %; 92 % with a block of 160 threads
 * a row), rows of f32 values much (102 to 62 %, see emit_access.c). */

int mk_row_walks(const mk_body *b, int smem, mk_row_shape *out, int max) {
  mk_arena arena = {0};
  mk_phases ph;
  mk_find_phases(b, &arena, &ph);
  bool worth = b->reduces && mk_waits_again(b, &ph);
  int live = mk_live_values(b, &ph), n = 0;
  mk_arena_free(&arena);
  rated all[MAX_SPREADS];
  int found = worth ? spreads(b, widest(b, b->nrows), live, all) : 0;
  for (int i = 0; i < found && n < max; i++) {
    mk_row_shape s = all[i].shape;
    s.stages = 2;
    s.blocks = s.threads > WALK_THREADS / 2 ? 2 : WALK_THREADS / s.threads;
    if (s.threads <= 32 || (int64_t)s.threads * s.items * s.v != mk_body_cols(b)) continue;
    if (blocks_with((s.threads + 31) / 32, 16 + s.items * s.v * live) < s.blocks) continue;
    int ring = mk_row_ring_bytes(b, &s);
    if (ring && s.blocks * (ring + WALK_STATIC) <= smem) out[n++] = s;
  }
  return n;
}

/* Of a block with one row, however little it does: launch, row, sum, stores, and what the sum is followed by. */
double mk_row_life(const mk_body *b) {
  mk_arena arena = {0};
  mk_phases ph;
  mk_find_phases(b, &arena, &ph);
  bool again = mk_waits_again(b, &ph);
  mk_arena_free(&arena);
  return again ? 3.4e-6 : 2.8e-6;
}

/* ---- kernels */

static void constants(const mk_body *b, const mk_row_shape *s, mk_text *out) {
  mk_text_addf(out, "constexpr int COLS = %lld, V = %d, THREADS = %d", (long long)mk_body_cols(b), s->v, s->threads);
  if (s->items > 1) mk_text_addf(out, ", ITEMS = %d", s->items);
  if (s->stages) mk_text_addf(out, ", STAGES = %d", s->stages);
}

void mk_emit_row(const mk_body *b, const mk_row_shape *s, mk_fields *fields, mk_arena *arena, mk_text *out) {
  mk_text code = {0};
  mk_emit_code(b, s, MK_EMIT_ROW, false, fields, arena, &code);
  bool whole = s->threads > 32 && !s->stages; /* a block has one row: the grid is exact */
  if (!whole) mk_fields_add(fields, arena, (mk_field){"rows", "u32", MK_ARG_I32, MK_FIELD_ROWS, 0, 0, false, 0});
  if (!fields->n) mk_fields_add(fields, arena, (mk_field){"rows", "u32", MK_ARG_I32, MK_FIELD_ROWS, 0, 0, false, 0});
  mk_fields_layout(fields);
  mk_text_addf(
      out, "/* %s\n",
      b->reduces ? "A row program: each row's values stay in registers between its reductions." : "An elementwise program.");
  mk_body_comment(b, out);
  mk_text_add(out, " */\n");
  constants(b, s, out);
  if (s->rows > 1) mk_text_addf(out, ", ROWS = %d", s->rows);
  mk_text_add(out, ";\n");
  mk_fields_print(fields, out);
  mk_text_addf(out, "extern \"C\" __global__ void __launch_bounds__(%d, %d) KERNEL(const __grid_constant__ Params p) {\n",
               s->threads * s->rows, s->blocks);
  const char *first = s->rows > 1 ? "blockIdx.x * ROWS + threadIdx.x" : "blockIdx.x";
  if (s->stages) {
    mk_text_add(out, "  const int lane = threadIdx.x;\n");
  } else if (s->threads == 1) {
    mk_text_addf(out, "  const u32 row = %s;\n  if (row >= p.rows) return;\n", first);
  } else {
    mk_text_addf(out, "  const int lane = threadIdx.x%s;\n", s->rows > 1 ? " % THREADS" : "");
    if (s->threads >= 32) {
      mk_text_addf(out, "  const u32 row = %s;\n", s->rows > 1 ? "blockIdx.x * ROWS + threadIdx.x / THREADS" : "blockIdx.x");
      if (!whole) mk_text_add(out, "  if (row >= p.rows) return;\n");
    } else { /* rows share warps, and shuffles need all lanes */
      mk_text_add(out,
                  "  const u32 asked = blockIdx.x * ROWS + threadIdx.x / THREADS;\n  const bool active = asked < p.rows;\n"
                  "  const u32 row = active ? asked : p.rows - 1;\n");
    }
  }
  mk_text_add(out, mk_text_str(&code));
  mk_text_add(out, "}\n");
  mk_text_free(&code);
}

void mk_emit_epilogue(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out) {
  mk_text_addf(out, "/* The code fused behind the %s.\n", b->root_op);
  mk_body_comment(b, out);
  mk_text_addf(out,
               " */\ntemplate <int V>\n__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float "
               "(&v%d)[V]) {\n",
               b->root);
  mk_emit_code(b, NULL, MK_EMIT_HOOK, false, fields, arena, out);
  mk_text_add(out, "}\n");
}

static bool gathers(const mk_body *b) {
  for (int i = 0; i < b->ninsts; i++)
    if (b->insts[i].kind == MK_INST_LOAD && b->insts[i].a >= 0) return true;
  return false;
}

void mk_emit_epilogue_apart(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out) {
  bool whole = gathers(b);
  mk_text_addf(out, "/* The code fused behind the %s, and apart from it what it reads.\n", b->root_op);
  mk_body_comment(b, out);
  mk_text_add(out, " */\ntemplate <int V>\nstruct Operands {\n");
  if (!whole) mk_emit_operands(b, arena, out);
  mk_text_add(
      out, "};\ntemplate <int V>\n__device__ __forceinline__ void fetch(const Params &p, i64 row, int col, Operands<V> &o) {\n");
  if (!whole) mk_emit_part_code(b, MK_EMIT_FETCH, fields, arena, out);
  mk_text_add(out, "}\n__device__ __forceinline__ void prefetch(const Params &p, i64 row, int col, int columns) {\n");
  if (!whole) mk_emit_part_code(b, MK_EMIT_PREFETCH, fields, arena, out);
  mk_text_addf(
      out,
      "}\ntemplate <int V>\n__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float (&v%d)[V], "
      "const Operands<V> &o) {\n",
      b->root);
  mk_emit_part_code(b, whole ? MK_EMIT_WHOLE : MK_EMIT_REST, fields, arena, out);
  mk_text_add(out, "}\n");
}

void mk_emit_prologue(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out) {
  mk_text_add(out, "/* How the left operand is made of what is in memory.\n");
  mk_body_comment(b, out);
  mk_text_add(
      out,
      " */\ntemplate <int V>\n__device__ __forceinline__ void prologue(const Params &p, i64 row, int col, float (&a)[V]) {\n");
  mk_emit_code(b, NULL, MK_EMIT_HOOK, true, fields, arena, out);
  mk_text_add(out, "}\n");
}

bool mk_emit_epilogue_row(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out) {
  mk_row_shape s = {.v = widest(b, b->nrows) < 4 ? widest(b, b->nrows) : 4, .threads = 32, .rows = 1};
  int64_t cols = mk_body_cols(b);
  s.items = (int)((cols / s.v + 31) / 32);
  if (s.items * s.v > 64) return false;
  mk_text_addf(out, "/* The code fused behind the %s, a warp a row.\n", b->root_op);
  mk_body_comment(b, out);
  mk_text_add(out,
              " */\n__device__ __forceinline__ void epilogue_row(const Params &p, i64 row, const float *acc, int lane) {\n  ");
  constants(b, &s, out);
  mk_text_add(out, ";\n");
  mk_emit_code(b, &s, MK_EMIT_EPILOGUE_ROW, false, fields, arena, out);
  mk_text_add(out, "}\n");
  return true;
}

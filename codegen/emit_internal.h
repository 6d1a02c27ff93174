/* Between the emit_*.c files. */
#ifndef MK_CODEGEN_EMIT_INTERNAL_H
#define MK_CODEGEN_EMIT_INTERNAL_H

#include "codegen/emit.h"

/* HOOK: one call is V adjacent columns of a row, col onwards. A prologue is a hook whose store is its result. */
typedef enum mk_emit_mode { MK_EMIT_ROW, MK_EMIT_HOOK, MK_EMIT_EPILOGUE_ROW } mk_emit_mode;

/* Of a hook. FETCH: only what it reads, into `o`; REST: all but that, from `o`; PREFETCH: asks for what it reads by row. */
typedef enum mk_emit_part { MK_EMIT_WHOLE, MK_EMIT_FETCH, MK_EMIT_REST, MK_EMIT_PREFETCH } mk_emit_part;

enum { MK_MAX_PHASES = 16 };

/* When each instruction runs. A row is walked once per phase; a reduction ends a phase. */
typedef struct mk_phases {
  int count;
  int *phase;   /* per instruction; of a row-level one: the phase before whose walk it is known */
  bool *column; /* per instruction: varies along the row */
  bool *kept;   /* per instruction: needed in a later phase than its own */
} mk_phases;

uint32_t mk_column_axes(const mk_body *b);
void mk_find_phases(const mk_body *b, mk_arena *arena, mk_phases *out);
/* Floats a thread holds at once, per column it owns. */
int mk_live_values(const mk_body *b, const mk_phases *ph);
/* Whether the access reads or writes something else in each row. */
bool mk_walks_rows(const mk_body *b, int access);
/* Whether what is another in each row is read after a reduction, too. */
bool mk_waits_again(const mk_body *b, const mk_phases *ph);
/* Arrays held from one phase to a later one, at most at a time. */
int mk_kept_values(const mk_body *b, const mk_phases *ph);

/* Whether a stride is written as a number: zero, or that of densely packed columns. */
typedef enum mk_stride_class { MK_STRIDE_ZERO, MK_STRIDE_CONST, MK_STRIDE_PARAM } mk_stride_class;
void mk_stride_classes(const mk_body *b, const mk_access *a, mk_stride_class out[MK_MAX_AXES]);
/* The most adjacent columns of the access that may move as one piece: 1, 2, 4 or 8. */
int mk_access_alignment(const mk_body *b, const mk_access *a, int v);
const char *mk_ctype(mk_dtype t);

void mk_emit_code(const mk_body *b, const mk_row_shape *shape, mk_emit_mode mode, bool prologue, mk_fields *fields,
                  mk_arena *arena, mk_text *out);
/* One part of an epilogue that has no gathers, or the whole. */
void mk_emit_part_code(const mk_body *b, mk_emit_part part, mk_fields *fields, mk_arena *arena, mk_text *out);
/* The members of what FETCH fills in. */
void mk_emit_operands(const mk_body *b, mk_arena *arena, mk_text *out);

#endif

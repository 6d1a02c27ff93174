/* Addresses and memory traffic of emitted code. */
#ifndef MK_CODEGEN_EMIT_ACCESS_H
#define MK_CODEGEN_EMIT_ACCESS_H

#include "codegen/emit_internal.h"

/* Of blocks that walk over rows: what lies ahead of the row at work, in shared memory, and what stays from row to row. */
typedef struct mk_ring {
  int pieces;   /* of 16 bytes, of a thread and row */
  int *piece;   /* per instruction: the first of a load's pieces, or -1: it is not fetched ahead */
  bool *shared; /* per instruction: all items of a thread are the same elements, fetched once */
  bool refused; /* something of the row cannot be fetched so */
  bool *fixed;  /* per instruction: a load that is the same for all rows and stays in registers */
} mk_ring;

typedef struct mk_emitter {
  const mk_body *b;
  const mk_row_shape *shape;
  mk_emit_mode mode;
  mk_emit_part part;
  bool prologue; /* fields have names of their own, and the store is the result */
  mk_fields *fields;
  mk_arena *arena;
  mk_text *out;
  mk_phases ph;
  int indent;
  int64_t cols;
  const char **name; /* per access: in0, out1 */
  mk_ring ring;
  mk_stride_class (*class)[MK_MAX_AXES]; /* per access */
} mk_emitter;

void mk_line(mk_emitter *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mk_open_accesses(mk_emitter *e);
/* Coordinates of the row and the row's part of addresses: of what is fetched ahead, or of all else. */
void mk_emit_row_addresses(mk_emitter *e, bool ahead);
/* Finds what to fetch ahead and what to keep; nothing where the shape has no stages. */
void mk_plan_ring(mk_emitter *e);
/* Starts the copies of what is fetched ahead of item k. */
void mk_emit_fetch(mk_emitter *e, int inst);
/* Reads the columns c .. c+V of an access into `dest`, an array of V floats. */
void mk_emit_load(mk_emitter *e, int inst, const char *dest);
/* Asks for `columns` columns from `col` on, where they lie side by side and belong to the row alone. */
void mk_emit_prefetch(mk_emitter *e, int inst);
void mk_emit_store(mk_emitter *e, int inst, const char *src);
/* Reads or writes the row's one element. */
void mk_emit_row_load(mk_emitter *e, int inst);
void mk_emit_row_store(mk_emitter *e, int inst, const char *value);
bool mk_is_index(const mk_body *b, int inst);

#endif

/* Addresses and memory traffic of emitted code. */
#ifndef MK_CODEGEN_EMIT_ACCESS_H
#define MK_CODEGEN_EMIT_ACCESS_H

#include "codegen/emit_internal.h"

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
  const char **name;                     /* per access: in0, out1 */
  mk_stride_class (*class)[MK_MAX_AXES]; /* per access */
} mk_emitter;

void mk_line(mk_emitter *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mk_open_accesses(mk_emitter *e);
/* Coordinates of the row and the row's part of every address. */
void mk_emit_row_addresses(mk_emitter *e);
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

/* CUDA text from bodies: row programs, and the epilogues of templates. Deterministic: equal bodies give equal text. */
#ifndef MK_CODEGEN_EMIT_H
#define MK_CODEGEN_EMIT_H

#include "codegen/body.h"
#include "codegen/plan.h"

/* ---- the kernel's parameter struct */

typedef enum mk_field_what {
  MK_FIELD_POINTER,      /* of an access */
  MK_FIELD_STRIDE,       /* of an access along an axis */
  MK_FIELD_INDEX_STRIDE, /* of a gather */
  MK_FIELD_EXTENT,       /* of an axis */
  MK_FIELD_ROWS,
  MK_FIELD_NAMED /* the template's own */
} mk_field_what;

typedef struct mk_field {
  const char *name, *type; /* as declared */
  mk_arg_kind kind;
  mk_field_what what;
  int access, axis;
  bool prologue;   /* access and axis are those of the prologue's body */
  uint32_t offset; /* once laid out */
} mk_field;

typedef struct mk_fields {
  int n, cap;
  mk_field *items;
  uint32_t bytes; /* once laid out: sizeof(Params) */
} mk_fields;

/* Adds a field unless one of this name is there. */
void mk_fields_add(mk_fields *f, mk_arena *arena, mk_field field);
/* Sorts by alignment, so that no padding is needed and both compilers agree; sets offsets. */
void mk_fields_layout(mk_fields *f);
void mk_fields_print(const mk_fields *f, mk_text *out); /* struct Params */

/* ---- row programs */

typedef struct mk_row_shape { /* how a body is spread over threads */
  int v;                      /* columns a thread takes at a time */
  int threads;                /* of one row */
  int rows;                   /* of one block */
  int items;                  /* vectors of v columns a thread has of its row; 0: a loop that reads again for each reduction */
  int stages;                 /* rows under way in a block that walks over rows; 0: it has `rows` rows and ends */
  int blocks;                 /* a multiprocessor should hold at a time */
} mk_row_shape;

/* A body with no reduction has rows only; this makes its innermost v elements the columns of one thread. */
mk_body *mk_body_lanes(const mk_body *b, int v, mk_arena *arena);
/* Shapes worth trying, best first; returns how many. b is what mk_body_lanes gave, if nothing reduces. */
int mk_row_shapes(const mk_body *b, mk_row_shape *out, int max);
/* The same for blocks that walk over rows; smem: what a multiprocessor has of shared memory. */
int mk_row_walks(const mk_body *b, int smem, mk_row_shape *out, int max);
/* Seconds for which a block with one row is there at least. */
double mk_row_life(const mk_body *b);
/* Shared memory of a block of such a shape, beside what its code declares. */
int mk_row_ring_bytes(const mk_body *b, const mk_row_shape *shape);
/* The widest vector that suits the body's innermost axes. */
int mk_lane_count(const mk_body *b);

/* Parameter struct and kernel; KERNEL stands for its name. */
void mk_emit_row(const mk_body *b, const mk_row_shape *shape, mk_fields *fields, mk_arena *arena, mk_text *out);
/* The hooks, see templates/README.md. Fields are added to, the struct is the caller's to print before. */
void mk_emit_epilogue(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out);
/* The same in pieces: Operands, fetch, prefetch, epilogue. Where it gathers, all but the last are empty. */
void mk_emit_epilogue_apart(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out);
bool mk_emit_epilogue_row(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out);
/* b: rows and columns of an operand, whose value is its one store. */
void mk_emit_prologue(const mk_body *b, mk_fields *fields, mk_arena *arena, mk_text *out);
/* "norm_rope", "gelu", "copy": what the body does, in a word or three. */
void mk_body_summary(const mk_body *b, mk_text *out);
/* Comment lines, one an access and one an operation. */
void mk_body_comment(const mk_body *b, mk_text *out);
/* Everything that decides the emitted text, and nothing else. */
void mk_body_key(const mk_body *b, mk_text *out);

#endif

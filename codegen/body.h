/* The fused code of one group as a short list of instructions over its axes: what emission reads. Says nothing of nodes, so equal
 * work in two places is an equal body. */
#ifndef MK_CODEGEN_BODY_H
#define MK_CODEGEN_BODY_H

#include "codegen/group.h"

typedef enum mk_inst_kind {
  MK_INST_LITERAL, /* value */
  MK_INST_ROOT,    /* the root's f32 result */
  MK_INST_LOAD,    /* access; a: the index of a gather, or -1 */
  MK_INST_OP,      /* unary or binary op of a, b; CAST rounds to dtype */
  MK_INST_ROPE,    /* of a with cos b and sin c; lanes in pairs */
  MK_INST_REDUCE,  /* op of a over the columns */
  MK_INST_STORE    /* a to access */
} mk_inst_kind;

typedef struct mk_inst {
  mk_inst_kind kind;
  mk_op op;
  mk_dtype dtype; /* LOAD, STORE: in memory; CAST: rounded to */
  int a, b, c;    /* earlier instructions, or -1 */
  int access;
  float value;
  uint32_t axes; /* over which the value varies */
} mk_inst;

typedef struct mk_access { /* how a buffer is walked: element offset + sum of coordinate times stride */
  int buffer;
  int64_t offset;
  mk_dtype dtype;
  int64_t stride[MK_MAX_AXES];
  int64_t index_stride; /* gather: of the table's rows */
  bool store, gather;
  const char *what; /* a name for people */
} mk_access;

typedef struct mk_body {
  int naxes, nrows; /* axes 0..nrows-1 are rows, the rest columns; outermost first */
  int64_t extent[MK_MAX_AXES];
  bool reduces;
  int ninsts, insts_cap;
  mk_inst *insts;
  int naccesses, accesses_cap;
  mk_access *accesses;
  const char *root_op; /* "matmul" ..., or NULL */
  int root;            /* ROOT instruction, or -1 */
} mk_body;

/* Requires a finished grouping. */
mk_body *mk_body_build(const mk_grouping *gr, const mk_cluster *c, mk_arena *arena, mk_status *st);
/* The same work with instruction `inst`'s value, the root's or one made of it, read from a dense f32 or 16-bit [rows, columns]
 * buffer; what was there for this value alone is left out. */
mk_body *mk_body_from_memory(const mk_body *b, int inst, int buffer, mk_dtype dtype, mk_arena *arena);
int64_t mk_body_rows(const mk_body *b);
int64_t mk_body_cols(const mk_body *b);
/* Bytes read and written once each. */
double mk_body_bytes(const mk_body *b);
double mk_body_bytes_read(const mk_body *b);

#endif

/* Reading a SentencePiece model file: its vocabulary. The library itself is not used: it builds an index of all pieces that
 * nobody here needs, which takes it seconds for umT5's quarter of a million. */
#ifndef MK_MODEL_SENTENCEPIECE_H
#define MK_MODEL_SENTENCEPIECE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/arena.h"

typedef enum mk_spm_kind { /* numbers of the file format */
                           MK_SPM_NORMAL = 1,
                           MK_SPM_UNKNOWN,
                           MK_SPM_CONTROL,
                           MK_SPM_USER_DEFINED,
                           MK_SPM_UNUSED,
                           MK_SPM_BYTE
} mk_spm_kind;

typedef struct mk_spm_text { /* UTF-8, without a NUL */
  const char *text;
  size_t bytes;
} mk_spm_text;

typedef struct mk_spm_piece {
  mk_spm_text piece;
  float score;
  mk_spm_kind kind;
} mk_spm_piece;

typedef struct mk_spm {
  int count;
  mk_spm_piece *pieces; /* in the arena; the texts lie in the file's bytes */
  int pad, eos, unk;    /* ids; -1: none */
} mk_spm;

/* Reads the bytes of a model file, which must stay. NULL, or why it is none. */
const char *mk_spm_read(mk_spm *out, const void *data, size_t bytes, mk_arena *arena);

#endif

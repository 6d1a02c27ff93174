/* A mapped file of named tensors, whatever its format: safetensors, or PyTorch's zip. */
#ifndef MK_MODEL_TENSOR_FILE_H
#define MK_MODEL_TENSOR_FILE_H

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/base/tensor.h"

typedef struct mk_entry {
  const char *name;
  const char *stored; /* dtype in the file's own words: "BF16", "I64" */
  int rank;
  int64_t dims[MK_MAX_RANK];
  const uint8_t *data; /* in the map */
  size_t bytes;
  const char *problem;      /* why it cannot be fetched (a dtype or layout that moonkiln does not take); NULL: it can */
  const int32_t *converted; /* I64 is handed out as i32, converted at the first fetch */
} mk_entry;

typedef struct mk_tensor_file {
  const char *path;
  mk_map map;
  mk_arena arena;
  mk_entry *entries; /* sorted by name */
  int count, cap;
  const char **metadata; /* key, value, key, value...; strings only */
  int metadata_count;    /* pairs */
} mk_tensor_file;

/* By the file's first bytes. The tensors' bytes are mapped, not read. NULL on failure. */
mk_tensor_file *mk_tensor_file_open(const char *path, mk_status *st);
void mk_tensor_file_close(mk_tensor_file *f); /* NULL is fine */

mk_entry *mk_tensor_file_find(const mk_tensor_file *f, const char *name);
const char *mk_tensor_file_metadata(const mk_tensor_file *f, const char *key); /* NULL if absent */

/* Shape and dtype as mk_source's describe has them; a dtype that cannot be fetched is described as f32. */
void mk_entry_describe(const mk_tensor_file *f, const mk_entry *e, mk_tensor *out);
/* With data, valid until the file is closed. Not thread-safe for I64 tensors, which are converted here. */
bool mk_entry_fetch(mk_tensor_file *f, mk_entry *e, mk_tensor *out, mk_status *st);

/* For the readers: map + empty table (NULL on failure), and the end of it: sorts the table, refuses duplicate names. */
mk_tensor_file *mk_tensor_file_new(const char *path, mk_status *st);
bool mk_tensor_file_finish(mk_tensor_file *f, mk_status *st);

#endif

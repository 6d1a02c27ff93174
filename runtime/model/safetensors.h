/* The safetensors format: a length, a JSON header of names, dtypes, shapes and byte ranges, and the bytes. */
#ifndef MK_MODEL_SAFETENSORS_H
#define MK_MODEL_SAFETENSORS_H

#include "runtime/model/tensor_file.h"

/* Fills f's table from its map (mk_tensor_file_open calls this). Strict: the ranges must tile the data exactly. */
bool mk_safetensors_read(mk_tensor_file *f, mk_status *st);

/* ---- writing: to a temporary file in the same folder, renamed at the end, so that path is either whole or untouched. */

typedef struct mk_st_writer mk_st_writer;

/* Writes the header for n tensors (their data is not read); metadata: `pairs` × (key, value), may be NULL. Bytes then follow in
 * the given order. Tensors of a wider dtype must come first, so that every one is aligned. NULL on failure. */
mk_st_writer *mk_st_create(const char *path, const mk_tensor *tensors, int n, const char *const *metadata, int pairs,
                           mk_status *st);
bool mk_st_write(mk_st_writer *w, const void *data, size_t bytes, mk_status *st); /* any piece size */
/* Ends the writer in every case. False, with nothing left behind, if a write failed or bytes are missing. */
bool mk_st_commit(mk_st_writer *w, mk_status *st);
void mk_st_discard(mk_st_writer *w); /* NULL is fine */

/* All at once; the order is chosen here. */
bool mk_safetensors_save(const char *path, const mk_tensor *tensors, int n, const char *const *metadata, int pairs,
                         mk_status *st);

#endif

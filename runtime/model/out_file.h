/* A file written piece by piece that appears under its name only when it is whole. For files too large for mk_file_publish. */
#ifndef MK_MODEL_OUT_FILE_H
#define MK_MODEL_OUT_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/status.h"

typedef struct mk_out_file mk_out_file;

mk_out_file *mk_out_open(const char *path, mk_status *st); /* a temporary file beside path; NULL on failure */
bool mk_out_write(mk_out_file *f, const void *data, size_t bytes, mk_status *st);
bool mk_out_commit(mk_out_file *f, mk_status *st); /* fsync, rename; ends f in every case; on failure nothing is left */
void mk_out_discard(mk_out_file *f);               /* ends f, removes what was written; NULL is fine */

#endif

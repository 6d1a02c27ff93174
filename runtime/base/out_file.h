/* A file written piece by piece that appears under its name only when it is whole. */
#ifndef MK_BASE_OUT_FILE_H
#define MK_BASE_OUT_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/status.h"

typedef struct mk_out_file mk_out_file;

mk_out_file *mk_out_open(const char *path, mk_status *st); /* a temporary file beside path; NULL on failure */
const char *mk_out_path(const mk_out_file *f);             /* as it was given, for messages */
bool mk_out_write(mk_out_file *f, const void *data, size_t bytes, mk_status *st);
bool mk_out_commit(mk_out_file *f, mk_status *st); /* fsync, rename; ends f in every case; on failure nothing is left */
/* As commit, with exactly these permissions, and never over a file that is there: *there then is true, that file stays and this
 * one is dropped, which is no failure. Does not wait for the disk: after a power cut the file may be missing or cut off, so this
 * is for files that are checked when they are read, and that can be made again. */
bool mk_out_commit_new(mk_out_file *f, unsigned mode, bool *there, mk_status *st);
void mk_out_discard(mk_out_file *f); /* ends f, removes what was written; NULL is fine */

#endif

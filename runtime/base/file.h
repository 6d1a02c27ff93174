/* Files: whole reads, read-only maps, and publishing that is all or nothing. Messages name the file and the reason. */
#ifndef MK_BASE_FILE_H
#define MK_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/status.h"

typedef struct mk_map {
  const uint8_t *data; /* NULL for an empty file */
  size_t bytes;
} mk_map;

/* Reads a whole file into malloc'd memory with a NUL after its end (not counted); caller frees. NULL on failure. */
char *mk_file_read(const char *path, size_t *bytes, mk_status *st);
/* The same, but fails unless mk_file_is_ours: for files that hold code. */
char *mk_file_read_ours(const char *path, size_t *bytes, mk_status *st);
/* Nobody but this user and root can have put this there: the owner is one of them and nobody else may write to it. */
struct stat;
bool mk_file_is_ours(const struct stat *info);
bool mk_file_map(const char *path, mk_map *out, mk_status *st); /* mmap, read-only, shared; regular files only */
void mk_file_unmap(mk_map *m);
bool mk_file_exists(const char *path);
bool mk_dir_exists(const char *path);
bool mk_dir_make(const char *path, unsigned mode, mk_status *st); /* with parents; existing is fine */
/* Writes bytes to a temporary file in the same folder, fsyncs, renames over path. On failure nothing is left behind. */
bool mk_file_publish(const char *path, const void *data, size_t bytes, mk_status *st);

#endif

/* The files of a cache, for those that implement it: cache.c (entries), cache_folder.c (all of them), cache_pack.c (packs). */
#ifndef MK_GPU_CACHE_INTERNAL_H
#define MK_GPU_CACHE_INTERNAL_H

#include <sys/stat.h>

#include "runtime/base/hash.h"
#include "runtime/gpu/cache.h"

enum { MK_CACHE_NAME = MK_HASH_HEX - 1, MK_CACHE_PIECES = 5 };

/* An entry's file: this header, then key, label, meta, log and payload, and nothing after. */
typedef struct mk_cache_header {
  char magic[8];
  uint64_t checksum; /* of everything else in the file */
  uint64_t bytes[MK_CACHE_PIECES];
} mk_cache_header;

typedef enum mk_cache_piece { MK_PIECE_KEY, MK_PIECE_LABEL, MK_PIECE_META, MK_PIECE_LOG, MK_PIECE_PAYLOAD } mk_cache_piece;

typedef struct mk_cache_parsed { /* pieces of a file in memory */
  mk_cache_header h;
  const char *piece[MK_CACHE_PIECES];
} mk_cache_parsed;

/* False when these are not the bytes of a whole, undamaged entry. */
bool mk_cache_parse(const char *data, size_t bytes, mk_cache_parsed *out);
bool mk_cache_extract(const mk_cache_parsed *e, mk_cache_entry *out);

/* Publishes the bytes of an entry's file. *there: a good entry of this key was there and stays. */
bool mk_cache_publish(mk_cache *c, const char *data, size_t bytes, bool *there);

bool mk_cache_join(char out[PATH_MAX], const char *folder, const char *name);

typedef bool (*mk_cache_file_fn)(void *user, const char *path, const struct stat *info, bool temporary);

/* Calls fn with every file of ours in one level's folder, in the order of their names, until it returns false. */
void mk_cache_each_file(const char *folder, mk_cache_file_fn fn, void *user);

#endif

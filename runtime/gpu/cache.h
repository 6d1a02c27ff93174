/* A folder of compiled kernels: bytes in, bytes out; it knows nothing of CUDA. Safe between processes with no locks, because an
 * entry is published whole by one rename, and every reader checks the key and a checksum. Nothing here fails the caller: an entry
 * that is damaged is a miss, a folder that cannot be used costs one warning.
 *
 * FOLDER/cubin/ab/abcdef…   one entry, named by the 128-bit hash of its key
 * FOLDER/failed/            sources that did not compile (written by the compiler) */
#ifndef MK_GPU_CACHE_H
#define MK_GPU_CACHE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/status.h"

typedef struct mk_cache {
  char folder[PATH_MAX]; /* ends in "/cubin"; "" when nothing can be read */
  char failed[PATH_MAX]; /* the folder for failed sources; "" when nothing can be written */
  bool writable;         /* false after the first failure to write */
  int damaged;           /* entries found damaged since opening */
} mk_cache;

typedef struct mk_cache_entry {
  char *label;   /* what it is, for people; owned */
  char *meta;    /* a line of the caller's; owned */
  void *payload; /* owned */
  size_t bytes;
} mk_cache_entry;

/* Opens FOLDER (mk_env's cache folder when NULL), making it with mode 0700. A folder that others may write is not used: they
 * could put code there that we would run. */
void mk_cache_open(mk_cache *c, const char *folder);

/* True and *out filled in when there is a good entry for exactly this key. */
bool mk_cache_lookup(mk_cache *c, const void *key, size_t key_bytes, mk_cache_entry *out);

/* Publishes an entry, replacing one of the same name. False when it could not be kept. */
bool mk_cache_store(mk_cache *c, const void *key, size_t key_bytes, const mk_cache_entry *entry);
void mk_cache_entry_free(mk_cache_entry *e);

typedef enum mk_cache_state {
  MK_CACHE_GOOD,
  MK_CACHE_DAMAGED,
  MK_CACHE_LEFTOVER /* a temporary file of a killed process */
} mk_cache_state;

typedef struct mk_cache_item { /* for the visitor; borrowed */
  const char *path;
  mk_cache_state state;
  const char *label, *meta; /* "" unless GOOD */
  int64_t file_bytes;
  int64_t age_seconds;
} mk_cache_item;

/* Visits every file of ours in the folder, by name; reads and checks each. The visitor may delete the file; false stops. */
typedef bool (*mk_cache_visit_fn)(void *user, const mk_cache_item *item);
void mk_cache_visit(mk_cache *c, mk_cache_visit_fn visit, void *user);

typedef struct mk_cache_size {
  int entries;
  int64_t bytes;
} mk_cache_size;
mk_cache_size mk_cache_measure(const mk_cache *c); /* without reading the entries */

/* Deletes every entry, leftover and failed source, and nothing else. False with the status set when a file stays. */
bool mk_cache_clear(mk_cache *c, mk_cache_size *removed, mk_status *st);

#endif

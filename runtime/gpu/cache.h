/* A folder of compiled kernels: bytes in, bytes out; it knows nothing of CUDA. Safe between processes with no locks, because an
 * entry is published whole under a name that is given once, and every reader checks the key and a checksum. Nothing here fails
 * the caller: an entry that is damaged is a miss, a folder that cannot be used costs one warning. A second folder, the system's,
 * is looked into when the first has nothing, and never written.
 *
 * FOLDER/cubin/ab/abcdef…   one entry, named by the 128-bit hash of its key; its time is that of its last use
 * FOLDER/cubin/claims       who is compiling what (cache_claim.h)
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
  char shared[PATH_MAX]; /* the same of the system's cache; "" when there is none */
  char failed[PATH_MAX]; /* the folder for failed sources; "" when nothing can be written */
  unsigned mode;         /* permissions of new folders; of new files without the x */
  bool writable;         /* false after the first failure to write */
  int damaged;           /* entries found damaged since opening */
} mk_cache;

typedef struct mk_cache_entry {
  char *label;   /* what it is, for people; owned */
  char *meta;    /* a line of the caller's; owned */
  char *log;     /* what was said when it was made; owned */
  void *payload; /* owned; an entry without one is a note that a later store replaces */
  size_t bytes;
} mk_cache_entry;

/* Opens FOLDER (mk_env's cache folder when NULL, and the system's as second), making it with mode 0700. A folder that others may
 * write or that belongs to another user is not used: code could be put there that we would run. */
void mk_cache_open(mk_cache *c, const char *folder);
/* FOLDER as second level; no message when it is not there. */
void mk_cache_open_shared(mk_cache *c, const char *folder);

/* True and *out filled in when there is a good entry for exactly this key. Marks it as used. */
bool mk_cache_lookup(mk_cache *c, const void *key, size_t key_bytes, mk_cache_entry *out);

/* Publishes an entry, unless a good one of this key is there already: then that one stays. False when it could not be kept. */
bool mk_cache_store(mk_cache *c, const void *key, size_t key_bytes, const mk_cache_entry *entry);
void mk_cache_entry_free(mk_cache_entry *e);

typedef enum mk_cache_state {
  MK_CACHE_GOOD,
  MK_CACHE_DAMAGED,
  MK_CACHE_LEFTOVER /* a temporary file of a killed process */
} mk_cache_state;

typedef struct mk_cache_item { /* for the visitor; borrowed */
  const char *path;
  const char *name; /* its last part; of an entry 32 hexadecimal digits */
  mk_cache_state state;
  bool shared;                 /* lies in the system's cache */
  const char *key;             /* NULL unless GOOD */
  const mk_cache_entry *entry; /* NULL unless GOOD */
  const void *data;            /* the whole file; NULL unless GOOD */
  size_t key_bytes;
  int64_t file_bytes;
  int64_t idle_seconds; /* since it was last used or written */
} mk_cache_item;

/* Visits every file of ours in both folders, by name; reads and checks each. The visitor may delete the file; false stops. */
typedef bool (*mk_cache_visit_fn)(void *user, const mk_cache_item *item);
void mk_cache_visit(mk_cache *c, mk_cache_visit_fn visit, void *user);

typedef struct mk_cache_size {
  int entries;
  int64_t bytes;
} mk_cache_size;
mk_cache_size mk_cache_measure(const mk_cache *c); /* of the first folder; without reading the entries */

enum { MK_CACHE_OLD_SECONDS = 3600 }; /* a temporary file younger than this may be a process's at work */

/* Deletes old leftovers and then what was not used for longest, failed sources included, until at most `limit` bytes are left.
 * False with the status set when a file stays. */
bool mk_cache_trim(mk_cache *c, int64_t limit, mk_cache_size *removed, mk_status *st);

/* Deletes every entry, leftover and failed source, and nothing else. False with the status set when a file stays. */
bool mk_cache_clear(mk_cache *c, mk_cache_size *removed, mk_status *st);

/* Writes the good entries whose label holds `pattern` (NULL: all) into one file. False with the status set, and no file left. */
bool mk_cache_export(mk_cache *c, const char *path, const char *pattern, mk_cache_size *written, mk_status *st);

/* Publishes the entries of such a file, after all of it was checked: a damaged file changes nothing. */
bool mk_cache_import(mk_cache *c, const char *path, mk_cache_size *added, mk_cache_size *present, mk_status *st);

#endif

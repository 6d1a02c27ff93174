#include "runtime/gpu/cache.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

/* An entry's file: this header, then key, label, meta and payload, and nothing after. */
typedef struct header {
  char magic[8];
  uint64_t checksum; /* of everything else in the file */
  uint64_t key_bytes, label_bytes, meta_bytes, payload_bytes;
} header;
static const char magic[8] = {'M', 'K', 'C', 'U', 'B', 'I', 'N', '1'};

enum { NAME_LENGTH = MK_HASH_HEX - 1 };

/* ---- opening ---- */

/* False with the reason logged when others could have put files there. */
static bool trusted(const char *folder) {
  struct stat info;
  if (stat(folder, &info)) return false;
  if (info.st_uid != geteuid() && info.st_uid != 0)
    mk_log(MK_LOG_WARNING, "the cache folder %s belongs to another user and is not used; set MOONKILN_CACHE to one of your own",
           folder);
  else if (info.st_mode & (S_IWGRP | S_IWOTH))
    mk_log(MK_LOG_WARNING, "the cache folder %s can be written by others and is not used: `chmod go-w` it, or set MOONKILN_CACHE",
           folder);
  else
    return true;
  return false;
}

static bool join(char out[PATH_MAX], const char *folder, const char *name) {
  return snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

void mk_cache_open(mk_cache *c, const char *folder) {
  *c = (mk_cache){0};
  mk_status st = {0};
  char cubin[PATH_MAX], failed[PATH_MAX];
  if (!folder) folder = mk_env_get()->cache_dir;
  if (!*folder) {
    mk_log(MK_LOG_WARNING, "there is no home folder to keep compiled kernels in; set MOONKILN_CACHE");
    return;
  }
  if (!join(cubin, folder, "cubin") || !join(failed, folder, "failed")) {
    mk_log(MK_LOG_WARNING, "compiled kernels are not kept: the path of the cache folder is too long");
    return;
  }
  if (!mk_dir_make(folder, 0700, &st) || !mk_dir_make(cubin, 0700, &st)) {
    mk_log(MK_LOG_WARNING, "compiled kernels are not kept: %s; set MOONKILN_CACHE to a folder that can be written", st.message);
    if (!mk_dir_exists(cubin)) return;
  } else {
    c->writable = true;
  }
  if (!trusted(folder) || !trusted(cubin)) {
    c->writable = false;
    return;
  }
  memcpy(c->folder, cubin, sizeof cubin);
  if (c->writable) memcpy(c->failed, failed, sizeof failed);
}

static bool entry_path(const mk_cache *c, const void *key, size_t key_bytes, char folder[PATH_MAX], char path[PATH_MAX]) {
  char hex[MK_HASH_HEX];
  mk_hash_hex(key, key_bytes, hex);
  return snprintf(folder, PATH_MAX, "%s/%.2s", c->folder, hex) < PATH_MAX && join(path, folder, hex);
}

/* ---- entries ---- */

typedef struct parsed { /* pieces of a file in memory */
  header h;
  const char *key, *label, *meta, *payload;
} parsed;

/* Lengths are checked one by one against what is left, so that no sum can overflow. */
static bool parse(const char *data, size_t bytes, parsed *out) {
  if (bytes < sizeof out->h) return false;
  memcpy(&out->h, data, sizeof out->h);
  const uint64_t sizes[] = {out->h.key_bytes, out->h.label_bytes, out->h.meta_bytes, out->h.payload_bytes};
  const char **pieces[] = {&out->key, &out->label, &out->meta, &out->payload};
  uint64_t left = bytes - sizeof out->h;
  const char *p = data + sizeof out->h;
  for (int i = 0; i < 4; i++) {
    if (sizes[i] > left) return false;
    *pieces[i] = p;
    p += sizes[i];
    left -= sizes[i];
  }
  if (left || memcmp(out->h.magic, magic, sizeof magic)) return false;
  header unsummed = out->h;
  unsummed.checksum = 0;
  const mk_piece all[] = {{&unsummed, sizeof unsummed}, {data + sizeof out->h, bytes - sizeof out->h}};
  return mk_hash64_pieces(all, 2) == out->h.checksum;
}

static void *copy(const char *data, uint64_t bytes) {
  char *p = malloc((size_t)bytes + 1);
  if (!p) return NULL;
  memcpy(p, data, (size_t)bytes);
  p[bytes] = 0;
  return p;
}

static bool extract(const parsed *e, mk_cache_entry *out) {
  *out = (mk_cache_entry){copy(e->label, e->h.label_bytes), copy(e->meta, e->h.meta_bytes), copy(e->payload, e->h.payload_bytes),
                          (size_t)e->h.payload_bytes};
  if (out->label && out->meta && out->payload) return true;
  mk_cache_entry_free(out);
  return false;
}

bool mk_cache_lookup(mk_cache *c, const void *key, size_t key_bytes, mk_cache_entry *out) {
  char folder[PATH_MAX], path[PATH_MAX];
  mk_status ignored = {0};
  size_t bytes;
  *out = (mk_cache_entry){0};
  if (!c->folder[0] || !entry_path(c, key, key_bytes, folder, path) || !mk_file_exists(path)) return false;
  char *data = mk_file_read(path, &bytes, &ignored);
  if (!data) {
    mk_log(MK_LOG_WARNING, "a cached kernel is compiled again: %s", ignored.message);
    return false;
  }
  parsed e;
  bool found = false;
  if (!parse(data, bytes, &e)) {
    c->damaged++;
    mk_log(MK_LOG_WARNING, "the cached kernel %s is damaged and is compiled again", path);
  } else if (e.h.key_bytes == key_bytes && !memcmp(e.key, key, key_bytes)) { /* else another key of the same hash */
    found = extract(&e, out);
  }
  free(data);
  return found;
}

bool mk_cache_store(mk_cache *c, const void *key, size_t key_bytes, const mk_cache_entry *entry) {
  char folder[PATH_MAX], path[PATH_MAX];
  mk_status st = {0};
  if (!c->writable || !entry_path(c, key, key_bytes, folder, path)) return false;
  header h = {.key_bytes = key_bytes,
              .label_bytes = strlen(entry->label),
              .meta_bytes = strlen(entry->meta),
              .payload_bytes = entry->bytes};
  memcpy(h.magic, magic, sizeof magic);
  size_t label = (size_t)h.label_bytes, meta = (size_t)h.meta_bytes, bytes = sizeof h + key_bytes + label + meta + entry->bytes;
  char *data = malloc(bytes);
  if (!data) return false;
  char *p = data + sizeof h;
  memcpy(p, key, key_bytes);
  memcpy(p += key_bytes, entry->label, label);
  memcpy(p += label, entry->meta, meta);
  if (entry->bytes) memcpy(p + meta, entry->payload, entry->bytes);
  const mk_piece all[] = {{&h, sizeof h}, {data + sizeof h, bytes - sizeof h}};
  h.checksum = mk_hash64_pieces(all, 2);
  memcpy(data, &h, sizeof h);
  bool ok = mk_dir_make(folder, 0700, &st) && mk_file_publish(path, data, bytes, &st);
  free(data);
  if (ok) return true;
  mk_log(MK_LOG_WARNING, "compiled kernels are not kept: %s", st.message);
  c->writable = false;
  return false;
}

void mk_cache_entry_free(mk_cache_entry *e) {
  free(e->label);
  free(e->meta);
  free(e->payload);
  *e = (mk_cache_entry){0};
}

/* ---- the whole folder ---- */

static bool hexadecimal(const char *name, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isdigit((unsigned char)name[i]) && (name[i] < 'a' || name[i] > 'f')) return false;
  return true;
}

/* 2: an entry's name; 1: a temporary file of one; 0: not ours. */
static int kind_of_name(const char *name) {
  size_t n = strlen(name);
  if (n < NAME_LENGTH || !hexadecimal(name, NAME_LENGTH)) return 0;
  if (n == NAME_LENGTH) return 2;
  return name[NAME_LENGTH] == '.' && n > 4 && !strcmp(name + n - 4, ".tmp");
}

typedef bool (*file_fn)(void *user, const char *path, const struct stat *info, bool temporary);

/* Calls fn with every file of ours, in the order of their names. */
static void each_file(const char *folder, file_fn fn, void *user) {
  struct dirent **groups = NULL;
  bool on = true;
  int ngroups = *folder ? scandir(folder, &groups, NULL, alphasort) : 0;
  for (int g = 0; g < ngroups; g++) {
    char group[PATH_MAX], path[PATH_MAX];
    struct dirent **files = NULL;
    const char *name = groups[g]->d_name;
    bool ours = strlen(name) == 2 && hexadecimal(name, 2) && join(group, folder, name);
    int nfiles = ours && on ? scandir(group, &files, NULL, alphasort) : 0;
    for (int f = 0; f < nfiles; f++) {
      struct stat info;
      int kind = kind_of_name(files[f]->d_name);
      if (on && kind && join(path, group, files[f]->d_name) && !lstat(path, &info) && S_ISREG(info.st_mode))
        on = fn(user, path, &info, kind == 1);
      free(files[f]);
    }
    free(files);
    free(groups[g]);
  }
  free(groups);
}

typedef struct visiting {
  mk_cache_visit_fn visit;
  void *user;
} visiting;

/* Is the file under the name that its key demands? */
static bool named_right(const char *path, const parsed *e) {
  char hex[MK_HASH_HEX];
  mk_hash_hex(e->key, (size_t)e->h.key_bytes, hex);
  const char *slash = strrchr(path, '/');
  return slash && !strcmp(slash + 1, hex);
}

static bool visit_file(void *user, const char *path, const struct stat *info, bool temporary) {
  const visiting *v = user;
  mk_cache_item item = {.path = path, .state = MK_CACHE_LEFTOVER, .label = "", .meta = "", .file_bytes = info->st_size};
  item.age_seconds = (int64_t)time(NULL) - info->st_mtime;
  mk_cache_entry entry = {0};
  if (!temporary) {
    mk_status ignored = {0};
    size_t bytes = 0;
    parsed e;
    char *data = mk_file_read(path, &bytes, &ignored);
    item.state = MK_CACHE_DAMAGED;
    if (data && parse(data, bytes, &e) && named_right(path, &e) && extract(&e, &entry)) {
      item.state = MK_CACHE_GOOD;
      item.label = entry.label;
      item.meta = entry.meta;
    }
    free(data);
  }
  bool on = v->visit(v->user, &item);
  mk_cache_entry_free(&entry);
  return on;
}

void mk_cache_visit(mk_cache *c, mk_cache_visit_fn visit, void *user) {
  each_file(c->folder, visit_file, &(visiting){visit, user});
}

static bool add_size(void *user, const char *path, const struct stat *info, bool temporary) {
  (void)path;
  mk_cache_size *size = user;
  size->entries += !temporary;
  size->bytes += info->st_size;
  return true;
}

mk_cache_size mk_cache_measure(const mk_cache *c) {
  mk_cache_size size = {0};
  each_file(c->folder, add_size, &size);
  return size;
}

typedef struct clearing {
  mk_cache_size *removed;
  mk_status *st;
} clearing;

static bool remove_file(void *user, const char *path, const struct stat *info, bool temporary) {
  const clearing *c = user;
  if (unlink(path) && errno != ENOENT)
    mk_fail(c->st, MK_EIO, "cannot delete %s: %s", path, strerror(errno));
  else
    add_size(c->removed, path, info, temporary);
  return true;
}

/* failed/ holds what compiler.c writes there: NAME-<8 hex>.cu and .log. */
static void clear_failed(const char *folder, const clearing *c) {
  struct dirent **files = NULL;
  int n = *folder ? scandir(folder, &files, NULL, NULL) : 0;
  for (int i = 0; i < n; i++) {
    char path[PATH_MAX];
    struct stat info;
    const char *name = files[i]->d_name, *dash = strrchr(name, '-');
    bool ours = dash && strlen(dash) > 9 && hexadecimal(dash + 1, 8) && dash[9] == '.';
    if (ours && join(path, folder, name) && !lstat(path, &info) && S_ISREG(info.st_mode)) {
      if (unlink(path) && errno != ENOENT) mk_fail(c->st, MK_EIO, "cannot delete %s: %s", path, strerror(errno));
    }
    free(files[i]);
  }
  free(files);
}

bool mk_cache_clear(mk_cache *c, mk_cache_size *removed, mk_status *st) {
  *removed = (mk_cache_size){0};
  clearing all = {removed, st};
  each_file(c->folder, remove_file, &all);
  clear_failed(c->failed, &all);
  return !mk_failed(st);
}

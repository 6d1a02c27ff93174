/* A cache's folder as a whole: walking, measuring, trimming, clearing. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/gpu/cache_internal.h"

static bool hexadecimal(const char *name, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isdigit((unsigned char)name[i]) && (name[i] < 'a' || name[i] > 'f')) return false;
  return true;
}

/* ---- which files are ours */

typedef enum file_kind { FOREIGN, TEMPORARY, ENTRY } file_kind;

static file_kind kind_of_name(const char *name) {
  size_t n = strlen(name);
  if (n < MK_CACHE_NAME || !hexadecimal(name, MK_CACHE_NAME)) return FOREIGN;
  if (n == MK_CACHE_NAME) return ENTRY;
  return name[MK_CACHE_NAME] == '.' && n > 4 && !strcmp(name + n - 4, ".tmp") ? TEMPORARY : FOREIGN;
}

void mk_cache_each_file(const char *folder, mk_cache_file_fn fn, void *user) {
  struct dirent **groups = NULL;
  bool on = true;
  int ngroups = *folder ? scandir(folder, &groups, NULL, alphasort) : 0;
  for (int g = 0; g < ngroups; g++) {
    char group[PATH_MAX], path[PATH_MAX];
    struct dirent **files = NULL;
    const char *name = groups[g]->d_name;
    bool ours = strlen(name) == 2 && hexadecimal(name, 2) && mk_cache_join(group, folder, name);
    int nfiles = ours && on ? scandir(group, &files, NULL, alphasort) : 0;
    for (int f = 0; f < nfiles; f++) {
      struct stat info;
      file_kind kind = kind_of_name(files[f]->d_name);
      if (on && kind != FOREIGN && mk_cache_join(path, group, files[f]->d_name) && !lstat(path, &info) && S_ISREG(info.st_mode))
        on = fn(user, path, &info, kind == TEMPORARY);
      free(files[f]);
    }
    free(files);
    free(groups[g]);
  }
  free(groups);
}

/* failed/ holds what the compiler writes there: NAME-<8 hex>.cu and .log, and temporary files of those. */
static void each_failed(const char *folder, mk_cache_file_fn fn, void *user) {
  struct dirent **files = NULL;
  int n = *folder ? scandir(folder, &files, NULL, alphasort) : 0;
  for (int i = 0; i < n; i++) {
    char path[PATH_MAX];
    struct stat info;
    const char *name = files[i]->d_name, *dot = strchr(name, '.');
    bool ours = dot && dot - name > 9 && dot[-9] == '-' && hexadecimal(dot - 8, 8);
    if (ours && mk_cache_join(path, folder, name) && !lstat(path, &info) && S_ISREG(info.st_mode))
      fn(user, path, &info, !strcmp(name + strlen(name) - 4, ".tmp"));
    free(files[i]);
  }
  free(files);
}

static int64_t idle_seconds(const struct stat *info) { return (int64_t)time(NULL) - info->st_mtime; }

/* ---- visiting */

typedef struct visiting {
  mk_cache_visit_fn visit;
  void *user;
  bool shared;
} visiting;

/* Is the file under the name that its key demands? */
static bool named_right(const char *name, const mk_cache_parsed *e) {
  char hex[MK_HASH_HEX];
  return !strcmp(name, mk_hash_hex(e->piece[MK_PIECE_KEY], (size_t)e->h.bytes[MK_PIECE_KEY], hex));
}

static bool visit_file(void *user, const char *path, const struct stat *info, bool temporary) {
  const visiting *v = user;
  mk_cache_item item = {.path = path,
                        .name = strrchr(path, '/') + 1,
                        .state = temporary ? MK_CACHE_LEFTOVER : MK_CACHE_DAMAGED,
                        .shared = v->shared,
                        .file_bytes = info->st_size,
                        .idle_seconds = idle_seconds(info)};
  mk_cache_entry entry = {0};
  mk_cache_parsed e;
  mk_status ignored = {0};
  size_t bytes = 0;
  char *data = temporary ? NULL : mk_file_read_ours(path, &bytes, &ignored);
  if (data && mk_cache_parse(data, bytes, &e) && named_right(item.name, &e) && mk_cache_extract(&e, &entry)) {
    item.state = MK_CACHE_GOOD;
    item.entry = &entry;
    item.key = e.piece[MK_PIECE_KEY];
    item.key_bytes = (size_t)e.h.bytes[MK_PIECE_KEY];
    item.data = data;
  }
  bool on = v->visit(v->user, &item);
  mk_cache_entry_free(&entry);
  free(data);
  return on;
}

void mk_cache_visit(mk_cache *c, mk_cache_visit_fn visit, void *user) {
  mk_cache_each_file(c->folder, visit_file, &(visiting){visit, user, false});
  mk_cache_each_file(c->shared, visit_file, &(visiting){visit, user, true});
}

static void add_size(mk_cache_size *size, const struct stat *info, bool temporary) {
  size->entries += !temporary;
  size->bytes += info->st_size;
}

static bool measure_file(void *user, const char *path, const struct stat *info, bool temporary) {
  (void)path;
  add_size(user, info, temporary);
  return true;
}

mk_cache_size mk_cache_measure(const mk_cache *c) {
  mk_cache_size size = {0};
  mk_cache_each_file(c->folder, measure_file, &size);
  return size;
}

/* ---- deleting */

typedef struct found {
  char *path;
  struct stat info;
  bool entry, temporary;
} found;

typedef struct finding {
  mk_arena arena;
  found *files;
  int count, cap;
  bool entries; /* what is found now are entries, not failed sources */
} finding;

static bool find_file(void *user, const char *path, const struct stat *info, bool temporary) {
  finding *f = user;
  found file = {mk_strdup(&f->arena, path), *info, f->entries && !temporary, temporary};
  MK_PUSH(&f->arena, f->files, f->count, f->cap, file);
  return true;
}

static void find_files(const mk_cache *c, finding *f) {
  *f = (finding){.entries = true};
  mk_cache_each_file(c->folder, find_file, f);
  f->entries = false;
  each_failed(c->failed, find_file, f);
}

static void delete_file(const found *file, mk_cache_size *removed, mk_status *st) {
  if (unlink(file->path) && errno != ENOENT)
    mk_fail(st, MK_EIO, "cannot delete %s: %s", file->path, strerror(errno));
  else
    add_size(removed, &file->info, !file->entry);
}

static int by_use(const void *x, const void *y) {
  const found *a = x, *b = y;
  const struct timespec *s = &a->info.st_mtim, *t = &b->info.st_mtim;
  if (s->tv_sec != t->tv_sec) return s->tv_sec < t->tv_sec ? -1 : 1;
  if (s->tv_nsec != t->tv_nsec) return s->tv_nsec < t->tv_nsec ? -1 : 1;
  return strcmp(a->path, b->path);
}

bool mk_cache_trim(mk_cache *c, int64_t limit, mk_cache_size *removed, mk_status *st) {
  finding f;
  int64_t total = 0;
  *removed = (mk_cache_size){0};
  find_files(c, &f);
  if (f.count) qsort(f.files, (size_t)f.count, sizeof *f.files, by_use);
  for (int i = 0; i < f.count; i++) total += f.files[i].info.st_size;
  for (int i = 0; i < f.count; i++) {
    const found *file = &f.files[i];
    bool at_work = file->temporary && idle_seconds(&file->info) < MK_CACHE_OLD_SECONDS;
    if (at_work || (!file->temporary && total <= limit)) continue;
    delete_file(file, removed, st);
    total -= file->info.st_size;
  }
  mk_arena_free(&f.arena);
  return !mk_failed(st);
}

bool mk_cache_clear(mk_cache *c, mk_cache_size *removed, mk_status *st) {
  finding f;
  *removed = (mk_cache_size){0};
  find_files(c, &f);
  for (int i = 0; i < f.count; i++) delete_file(&f.files[i], removed, st);
  mk_arena_free(&f.arena);
  return !mk_failed(st);
}

#include "runtime/gpu/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/out_file.h"
#include "runtime/gpu/cache_internal.h"

static const char magic[8] = {'M', 'K', 'C', 'U', 'B', 'I', 'N', '2'};

static const char own_switch[] = "MOONKILN_CACHE", shared_switch[] = "MOONKILN_SYSTEM_CACHE";

enum { USE_SECONDS = 3600 }; /* an entry's last use is known to the hour: a start with a full cache writes nothing */

/* ---- opening ---- */

/* False with the reason logged when others could have put files there. */
static bool trusted(const char *folder, const char *variable, struct stat *info) {
  if (stat(folder, info)) return false;
  if (mk_file_is_ours(info)) return true;
  if (info->st_uid != geteuid() && info->st_uid != 0)
    mk_log(MK_LOG_WARNING, "the cache folder %s belongs to another user and is not used; set %s to another one", folder,
           variable);
  else
    mk_log(MK_LOG_WARNING, "the cache folder %s can be written by others and is not used: `chmod go-w` it, or set %s", folder,
           variable);
  return false;
}

bool mk_cache_join(char out[PATH_MAX], const char *folder, const char *name) {
  return snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* With these permissions whatever the umask is. */
static bool make_folder(const char *path, unsigned mode, mk_status *st) {
  if (mk_dir_exists(path)) return true;
  return mk_dir_make(path, mode, st) && (!chmod(path, (mode_t)mode) || errno == ENOENT);
}

void mk_cache_open_shared(mk_cache *c, const char *folder) {
  char cubin[PATH_MAX];
  struct stat info;
  if (!*folder || !mk_cache_join(cubin, folder, "cubin") || !mk_dir_exists(cubin)) return;
  if (!strcmp(cubin, c->folder) || !trusted(folder, shared_switch, &info) || !trusted(cubin, shared_switch, &info)) return;
  memcpy(c->shared, cubin, sizeof cubin);
}

static void open_own(mk_cache *c, const char *folder) {
  mk_status st = {0};
  struct stat info;
  char cubin[PATH_MAX], failed[PATH_MAX];
  if (!*folder) {
    mk_log(MK_LOG_WARNING, "there is no home folder to keep compiled kernels in; set MOONKILN_CACHE");
    return;
  }
  if (!mk_cache_join(cubin, folder, "cubin") || !mk_cache_join(failed, folder, "failed")) {
    mk_log(MK_LOG_WARNING, "compiled kernels are not kept: the path of the cache folder is too long");
    return;
  }
  bool made = mk_dir_make(folder, 0700, &st);
  if (made && !trusted(folder, own_switch, &info)) return; /* before anything is put into it */
  /* What a folder was opened to, its content is: a cache that root made readable serves everybody. */
  c->mode = made ? 0700 | (info.st_mode & 055) : 0700;
  if (!made || !make_folder(cubin, c->mode, &st)) {
    mk_log(MK_LOG_WARNING, "compiled kernels are not kept: %s; set MOONKILN_CACHE to a folder that can be written", st.message);
    if (!mk_dir_exists(cubin) || (!made && !trusted(folder, own_switch, &info))) return;
  } else {
    c->writable = true;
  }
  if (!trusted(cubin, own_switch, &info)) {
    c->writable = false;
    return;
  }
  memcpy(c->folder, cubin, sizeof cubin);
  if (c->writable) memcpy(c->failed, failed, sizeof failed);
}

void mk_cache_open(mk_cache *c, const char *folder) {
  *c = (mk_cache){0};
  open_own(c, folder ? folder : mk_env_get()->cache_dir);
  if (!folder) mk_cache_open_shared(c, mk_env_get()->system_dir);
}

/* ---- entries ---- */

/* Lengths are checked one by one against what is left, so that no sum can overflow. */
bool mk_cache_parse(const char *data, size_t bytes, mk_cache_parsed *out) {
  if (bytes < sizeof out->h) return false;
  memcpy(&out->h, data, sizeof out->h);
  uint64_t left = bytes - sizeof out->h;
  const char *p = data + sizeof out->h;
  for (int i = 0; i < MK_CACHE_PIECES; i++) {
    if (out->h.bytes[i] > left) return false;
    out->piece[i] = p;
    p += out->h.bytes[i];
    left -= out->h.bytes[i];
  }
  if (left || memcmp(out->h.magic, magic, sizeof magic)) return false;
  mk_cache_header unsummed = out->h;
  unsummed.checksum = 0;
  const mk_piece all[] = {{&unsummed, sizeof unsummed}, {data + sizeof out->h, bytes - sizeof out->h}};
  return mk_hash64_pieces(all, 2) == out->h.checksum;
}

static void *copy(const mk_cache_parsed *e, mk_cache_piece piece) {
  size_t bytes = (size_t)e->h.bytes[piece];
  char *p = malloc(bytes + 1);
  if (!p) return NULL;
  memcpy(p, e->piece[piece], bytes);
  p[bytes] = 0;
  return p;
}

bool mk_cache_extract(const mk_cache_parsed *e, mk_cache_entry *out) {
  *out = (mk_cache_entry){.label = copy(e, MK_PIECE_LABEL),
                          .meta = copy(e, MK_PIECE_META),
                          .log = copy(e, MK_PIECE_LOG),
                          .payload = copy(e, MK_PIECE_PAYLOAD),
                          .bytes = (size_t)e->h.bytes[MK_PIECE_PAYLOAD]};
  if (out->label && out->meta && out->log && out->payload) return true;
  mk_cache_entry_free(out);
  return false;
}

static bool entry_path(const char *level, const void *key, size_t key_bytes, char folder[PATH_MAX], char path[PATH_MAX]) {
  char hex[MK_HASH_HEX];
  mk_hash_hex(key, key_bytes, hex);
  return snprintf(folder, PATH_MAX, "%s/%.2s", level, hex) < PATH_MAX && mk_cache_join(path, folder, hex);
}

/* Trimming goes by the time of the last use. */
static void mark_used(const char *path) {
  struct stat info;
  if (!stat(path, &info) && time(NULL) - info.st_mtime > USE_SECONDS) utimensat(AT_FDCWD, path, NULL, 0);
}

static bool look_up_in(mk_cache *c, const char *level, const void *key, size_t key_bytes, mk_cache_entry *out) {
  char folder[PATH_MAX], path[PATH_MAX];
  mk_status why = {0};
  size_t bytes;
  if (!*level || !entry_path(level, key, key_bytes, folder, path) || !mk_file_exists(path)) return false;
  char *data = mk_file_read_ours(path, &bytes, &why);
  if (!data) {
    mk_log(MK_LOG_WARNING, "a cached kernel is compiled again: %s", why.message);
    return false;
  }
  mk_cache_parsed e;
  bool found = false;
  if (!mk_cache_parse(data, bytes, &e)) {
    c->damaged++;
    mk_log(MK_LOG_WARNING, "the cached kernel %s is damaged and is compiled again", path);
  } else if (e.h.bytes[MK_PIECE_KEY] == key_bytes && !memcmp(e.piece[MK_PIECE_KEY], key, key_bytes)) {
    found = mk_cache_extract(&e, out);
  } /* else another key of the same hash */
  free(data);
  if (found && level == c->folder && c->writable) mark_used(path);
  return found;
}

bool mk_cache_lookup(mk_cache *c, const void *key, size_t key_bytes, mk_cache_entry *out) {
  *out = (mk_cache_entry){0};
  return look_up_in(c, c->folder, key, key_bytes, out) || look_up_in(c, c->shared, key, key_bytes, out);
}

/* ---- publishing ---- */

/* Is there a good entry of the same key, with a payload? */
static bool good_there(const char *path, const mk_cache_parsed *ours) {
  mk_status ignored = {0};
  size_t bytes;
  mk_cache_parsed e;
  char *data = mk_file_read_ours(path, &bytes, &ignored);
  uint64_t n = ours->h.bytes[MK_PIECE_KEY];
  bool good = data && mk_cache_parse(data, bytes, &e) && e.h.bytes[MK_PIECE_PAYLOAD] && e.h.bytes[MK_PIECE_KEY] == n &&
              !memcmp(e.piece[MK_PIECE_KEY], ours->piece[MK_PIECE_KEY], (size_t)n);
  free(data);
  return good;
}

static bool write_file(const mk_cache *c, const char *path, const char *data, size_t bytes, bool *there, mk_status *st) {
  mk_out_file *f = mk_out_open(path, st);
  if (!f) return false;
  if (mk_out_write(f, data, bytes, st)) return mk_out_commit_new(f, c->mode & 0666, there, st);
  mk_out_discard(f);
  return false;
}

bool mk_cache_publish(mk_cache *c, const char *data, size_t bytes, bool *there) {
  char folder[PATH_MAX], path[PATH_MAX];
  mk_status st = {0};
  mk_cache_parsed e;
  *there = false;
  if (!c->writable || !mk_cache_parse(data, bytes, &e)) return false;
  if (!entry_path(c->folder, e.piece[MK_PIECE_KEY], (size_t)e.h.bytes[MK_PIECE_KEY], folder, path)) return false;
  if (mk_file_exists(path)) {
    *there = good_there(path, &e);
    if (*there) return true;
    unlink(path);
  }
  /* When another process has meanwhile taken the name, its entry is as good as this one. */
  bool ok = make_folder(folder, c->mode, &st) && write_file(c, path, data, bytes, there, &st);
  if (ok) return true;
  mk_log(MK_LOG_WARNING, "compiled kernels are not kept: %s", st.message);
  c->writable = false;
  return false;
}

bool mk_cache_store(mk_cache *c, const void *key, size_t key_bytes, const mk_cache_entry *entry) {
  if (!c->writable) return false;
  const mk_piece pieces[MK_CACHE_PIECES] = {{key, key_bytes},
                                            {entry->label, strlen(entry->label)},
                                            {entry->meta, strlen(entry->meta)},
                                            {entry->log, entry->log ? strlen(entry->log) : 0},
                                            {entry->payload, entry->bytes}};
  mk_cache_header h = {0};
  size_t bytes = sizeof h;
  memcpy(h.magic, magic, sizeof magic);
  for (int i = 0; i < MK_CACHE_PIECES; i++) bytes += h.bytes[i] = pieces[i].bytes;
  char *data = malloc(bytes), *at = data;
  if (!data) return false;
  at += sizeof h;
  for (int i = 0; i < MK_CACHE_PIECES; i++) {
    if (pieces[i].bytes) memcpy(at, pieces[i].data, pieces[i].bytes);
    at += pieces[i].bytes;
  }
  const mk_piece all[] = {{&h, sizeof h}, {data + sizeof h, bytes - sizeof h}};
  h.checksum = mk_hash64_pieces(all, 2);
  memcpy(data, &h, sizeof h);
  bool there, ok = mk_cache_publish(c, data, bytes, &there);
  free(data);
  return ok;
}

void mk_cache_entry_free(mk_cache_entry *e) {
  free(e->label);
  free(e->meta);
  free(e->log);
  free(e->payload);
  *e = (mk_cache_entry){0};
}

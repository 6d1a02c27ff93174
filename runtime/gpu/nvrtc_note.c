#include "runtime/gpu/nvrtc_note.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/text.h"

enum { DAY_SECONDS = 24 * 3600 };

/* Two states of a file that differ in none of this are taken for the same. */
static void add_state(mk_text *out, const char *path) {
  struct stat info;
  if (stat(path, &info)) return;
  mk_text_addf(out, "%lld %lld.%09ld %llu %llu\n", (long long)info.st_size, (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
               (unsigned long long)info.st_ino, (unsigned long long)info.st_dev);
}

/* All that decides where the library is found (mk_nvrtc_open), and the file itself, as one word. */
static void circumstances(const char *library, int max_major, char hex[MK_HASH_HEX]) {
  static const char *const variables[] = {"LD_LIBRARY_PATH", "MOONKILN_CUDA", "CUDA_HOME", "CUDA_PATH",
                                          "VIRTUAL_ENV",     "CONDA_PREFIX",  "HOME"};
  mk_text t = {0};
  mk_text_addf(&t, "%d\n", max_major);
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
    const char *value = getenv(variables[i]);
    mk_text_addf(&t, "%s=%s\n", variables[i], value ? value : "");
  }
  add_state(&t, "/etc/ld.so.cache");
  add_state(&t, library);
  mk_hash_hex(mk_text_str(&t), t.len, hex);
  mk_text_free(&t);
}

static bool note_path(const mk_cache *cache, char path[PATH_MAX]) {
  const char *slash = strrchr(cache->folder, '/'); /* the kernels' folder lies in the cache's */
  return slash && snprintf(path, PATH_MAX, "%.*s/nvrtc", (int)(slash - cache->folder), cache->folder) < PATH_MAX;
}

/* circumstances, version, build, path */
static bool parse(const char *text, int max_major, mk_nvrtc *n) {
  char have[MK_HASH_HEX], want[MK_HASH_HEX];
  int at = 0;
  *n = (mk_nvrtc){0};
  if (sscanf(text, "moonkiln nvrtc 1\n%32s %d.%d %63s %n", have, &n->major, &n->minor, n->build, &at) != 4 || !at) return false;
  if (snprintf(n->path, sizeof n->path, "%.*s", (int)strcspn(text + at, "\n"), text + at) >= (int)sizeof n->path) return false;
  circumstances(n->path, max_major, want);
  return !strcmp(have, want);
}

static bool recall(const char *note, int max_major, mk_nvrtc *n) {
  struct stat info;
  mk_status ignored = {0};
  size_t bytes;
  if (stat(note, &info) || time(NULL) - info.st_mtime > DAY_SECONDS) return false;
  char *text = mk_file_read_ours(note, &bytes, &ignored);
  bool ok = text && parse(text, max_major, n);
  free(text);
  return ok;
}

static void keep(const char *note, int max_major, const mk_nvrtc *n) {
  char hex[MK_HASH_HEX];
  mk_text t = {0};
  mk_status ignored = {0}; /* the next start looks again */
  circumstances(n->path, max_major, hex);
  mk_text_addf(&t, "moonkiln nvrtc 1\n%s %d.%d %s %s\n", hex, n->major, n->minor, n->build, n->path);
  if (!t.failed) mk_file_publish(note, t.data, t.len, &ignored);
  mk_text_free(&t);
}

bool mk_nvrtc_identify(mk_nvrtc *n, const mk_cache *cache, int max_major, mk_status *st) {
  char note[PATH_MAX];
  bool notable = note_path(cache, note);
  if (notable && recall(note, max_major, n)) return true;
  if (!mk_nvrtc_open(n, NULL, max_major, st)) return false;
  if (notable && cache->writable) keep(note, max_major, n);
  return true;
}

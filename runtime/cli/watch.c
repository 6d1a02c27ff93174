#include "runtime/cli/watch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/cli/variants.h"
#include "runtime/gpu/device.h"

/* ---- what is watched */

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && !strcmp(s + n - m, end);
}

static uint64_t file_print(const char *path) {
  struct stat info;
  if (stat(path, &info)) return 0;
  int64_t values[] = {(int64_t)info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_size, (int64_t)info.st_ino};
  return mk_hash64(path, strlen(path)) ^ mk_hash64(values, sizeof values);
}

/* Of the folder's files with one of these ends; the order of the folder does not count. */
static uint64_t folder_print(const char *folder, size_t length, const char *const *ends) {
  char path[PATH_MAX], name[PATH_MAX];
  uint64_t sum = 0;
  snprintf(path, sizeof path, "%.*s", (int)length, length ? folder : ".");
  if (!length) snprintf(path, sizeof path, ".");
  DIR *dir = opendir(path);
  for (struct dirent *d; dir && (d = readdir(dir));)
    for (const char *const *end = ends; *end; end++)
      if (ends_with(d->d_name, *end) && snprintf(name, sizeof name, "%s/%s", path, d->d_name) < (int)sizeof name)
        sum += file_print(name);
  if (dir) closedir(dir);
  return sum;
}

/* Polled, not asked of the kernel: it works on every file system, and editors that write a new file and rename it are no case of
 * their own. */
static uint64_t fingerprint(const mk_measure *m, const char *templates) {
  static const char *const scripts[] = {".lua", NULL}, *const all[] = {".lua", ".cu", ".cuh", NULL},
                           *const kernels[] = {".cu", NULL};
  char built_in[PATH_MAX];
  const char *slash = strrchr(m->what, '/');
  uint64_t sum = folder_print(m->what, slash ? (size_t)(slash - m->what) : 0, scripts);
  for (int i = 0; i < m->sets.count; i++) {
    const char *file = strstr(m->sets.items[i], "=@");
    if (file) sum += file_print(file + 2);
  }
  for (const char *p = templates; p && *p;) {
    size_t n = strcspn(p, ":");
    if (n) sum += folder_print(p, n, all);
    p += n + (p[n] == ':');
  }
  if (m->trial.load) sum += folder_print(m->trial.load, strlen(m->trial.load), kernels);
  if (mk_env_data_path("templates", built_in, &(mk_status){0})) sum += folder_print(built_in, strlen(built_in), all);
  return sum;
}

/* Returns when something was saved, and nothing more for a moment: editors and version control write in several steps. */
static void wait_for_save(const mk_measure *m, const char *templates, uint64_t *last) {
  const struct timespec pause = {.tv_nsec = 100000000};
  uint64_t now;
  while ((now = fingerprint(m, templates)) == *last) nanosleep(&pause, NULL);
  do {
    *last = now;
    nanosleep(&pause, NULL);
    now = fingerprint(m, templates);
  } while (now != *last);
}

/* ---- rounds */

bool mk_watch_target(mk_measure *m, const char *arch, mk_status *why, mk_status *st) {
  int count;
  if (!mk_cli_parse_arch(arch, &m->arch, 1, &count, st)) return false;
  m->device = mk_gpu_device_open(0, why);
  return true;
}

/* A kernel that faults costs the process its GPU, and nothing but another process gets it back. Returns on failure only. */
static void start_anew(mk_status *st) {
  char *argv[512];
  size_t bytes, count = 0;
  mk_status why = {0};
  char *text = mk_file_read("/proc/self/cmdline", &bytes, &why);
  if (text) {
    for (size_t at = 0; at < bytes && count < sizeof argv / sizeof *argv - 1; at += strlen(text + at) + 1)
      argv[count++] = text + at;
    argv[count] = NULL;
    execv("/proc/self/exe", argv);
    free(text);
  }
  mk_fail_context(st, "the GPU was lost, and starting anew failed");
}

static void show(const mk_variants *now, const mk_variants *before) {
  mk_text table = {0};
  mk_variants_print(now, before, &table);
  fputs(mk_text_str(&table), stdout);
  fflush(stdout);
  mk_text_free(&table);
}

void mk_watch(const mk_measure *asked, const char *arch, int64_t rounds, mk_status *st) {
  mk_measure m = *asked;
  mk_status why = {0};
  mk_arena arena = {0};
  mk_variants tables[2];
  memset(tables, 0, sizeof tables);
  bool shown = false;
  const char *templates = mk_cli_trial(&m.trial, &arena).templates;
  if (!mk_watch_target(&m, arch, &why, st)) return;
  if (!m.device) fprintf(stderr, "moonkiln: kernels are compiled for %s only: %s\n", arch, why.message);
  uint64_t last = fingerprint(&m, templates);
  for (int64_t round = 1;; round++) {
    mk_variants *now = &tables[round % 2], *before = &tables[(round + 1) % 2];
    *st = (mk_status){0};
    if (mk_variants_measure(now, &m, st)) {
      show(now, shown ? before : NULL);
      shown = true;
    } else {
      mk_variants kept = *before; /* what the next good table is compared with */
      mk_variants_free(now);
      *before = (mk_variants){0};
      *now = kept;
    }
    mk_variants_free(before);
    if (round == rounds) break;
    if (mk_failed(st)) fprintf(stderr, "moonkiln: %s\n", st->message);
    fprintf(stderr, "-- waiting for the next save of %s or a template; Ctrl-C ends --\n", m.what);
    wait_for_save(&m, templates, &last);
    if (st->code == MK_EGPU && !rounds) start_anew(st);
    if (st->code == MK_EGPU) break;
  }
  for (int i = 0; i < 2; i++) mk_variants_free(&tables[i]);
  mk_gpu_device_close(m.device);
  mk_arena_free(&arena);
}

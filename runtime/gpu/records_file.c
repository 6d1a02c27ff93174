/* Tuning records on disk. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/gpu/records.h"

void mk_tune_file_name(const mk_tune_environment *e, char out[NAME_MAX + 1]) {
  char gpu[sizeof e->gpu];
  size_t n = 0;
  for (const char *s = e->gpu; *s; s++) {
    if (isalnum((unsigned char)*s))
      gpu[n++] = (char)tolower((unsigned char)*s);
    else if (n && gpu[n - 1] != '-')
      gpu[n++] = '-';
  }
  while (n && gpu[n - 1] == '-') n--;
  gpu[n] = 0;
  snprintf(out, NAME_MAX + 1, "%s-%dsm-driver%d-nvrtc%d.%d.tune", gpu, e->sms, e->driver, e->nvrtc_major, e->nvrtc_minor);
}

static bool file_path(const char *folder, const mk_tune_environment *e, char path[PATH_MAX], mk_status *st) {
  char name[NAME_MAX + 1];
  mk_tune_file_name(e, name);
  if (snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX - 8) return true;
  return mk_fail(st, MK_EIO, "%s: the path is too long", folder), false;
}

static bool same_environment(const mk_tune_environment *a, const mk_tune_environment *b) {
  return !strcmp(a->gpu, b->gpu) && a->sms == b->sms && a->driver == b->driver && a->nvrtc_major == b->nvrtc_major &&
         a->nvrtc_minor == b->nvrtc_minor;
}

mk_records_found mk_records_read(const char *folder, const mk_tune_environment *e, mk_records *r, mk_status *st) {
  char path[PATH_MAX];
  size_t bytes;
  mk_records_free(r);
  r->environment = *e;
  if (!file_path(folder, e, path, st)) return MK_RECORDS_FOREIGN;
  if (access(path, F_OK) && (errno == ENOENT || errno == ENOTDIR)) return MK_RECORDS_NONE;
  char *text = mk_file_read(path, &bytes, st);
  bool ok = text && mk_records_parse(r, text, st);
  free(text);
  if (ok && same_environment(&r->environment, e)) return MK_RECORDS_READ;
  if (ok) {
    mk_fail(st, MK_EINPUT, "made for %s with %d multiprocessors, driver %d, NVRTC %d.%d, not for this machine",
            r->environment.gpu, r->environment.sms, r->environment.driver, r->environment.nvrtc_major,
            r->environment.nvrtc_minor);
  }
  if (text) mk_fail_context(st, "%s", path);
  mk_records_free(r);
  r->environment = *e;
  return MK_RECORDS_FOREIGN;
}

static int is_records(const struct dirent *e) {
  size_t n = strlen(e->d_name);
  return n > 5 && !strcmp(e->d_name + n - 5, ".tune");
}

void mk_records_visit(const char *folder, mk_records_visit_fn visit, void *user) {
  struct dirent **names;
  int n = scandir(folder, &names, is_records, alphasort);
  for (int i = 0; i < n; i++) {
    char path[PATH_MAX];
    mk_status why = {0};
    mk_records r = {0};
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
    char *text = mk_file_read(path, &bytes, &why);
    if (text) mk_records_parse(&r, text, &why);
    visit(user, path, &r, &why);
    free(text);
    mk_records_free(&r);
    free(names[i]);
  }
  if (n >= 0) free(names);
}

/* The lock is the kernel's, on a file of its own: a process that dies gives it back, and the records' file may be replaced under
 * it. */
static int lock(const char *path, mk_status *st) {
  char name[PATH_MAX + 8];
  snprintf(name, sizeof name, "%s.lock", path);
  int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600), failed = fd < 0;
  while (!failed && flock(fd, LOCK_EX)) failed = errno != EINTR;
  if (!failed) return fd;
  mk_fail(st, MK_EIO, "cannot lock %s: %s", name, strerror(errno));
  if (fd >= 0) close(fd);
  return -1;
}

/* With the lock held, temporary files of this name are those of processes that were killed. */
static void drop_leftovers(const char *path) {
  const char *name = strrchr(path, '/') + 1;
  size_t n = strlen(name);
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    size_t length = strlen(e->d_name);
    if (length > n + 4 && !strncmp(e->d_name, name, n) && e->d_name[n] == '.' && !strcmp(e->d_name + length - 4, ".tmp"))
      unlinkat(dirfd(d), e->d_name, 0);
  }
  if (d) closedir(d);
}

bool mk_records_write(const char *folder, const mk_records *r, mk_status *st) {
  char path[PATH_MAX];
  if (!file_path(folder, &r->environment, path, st) || !mk_dir_make(folder, 0700, st)) return false;
  int fd = lock(path, st);
  if (fd < 0) return false;
  drop_leftovers(path);
  mk_records all = {0};
  mk_text text = {0};
  bool ok = mk_records_read(folder, &r->environment, &all, st) != MK_RECORDS_FOREIGN;
  if (ok) {
    mk_records_merge(&all, r);
    mk_records_print(&all, &text);
    if (text.failed) mk_fail(st, MK_ENOMEM, "out of host memory");
    ok = !text.failed && mk_file_publish(path, text.data, text.len, st);
  }
  mk_text_free(&text);
  mk_records_free(&all);
  close(fd);
  return ok;
}

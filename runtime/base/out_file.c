#include "runtime/base/out_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct mk_out_file {
  int fd;
  bool in_place;         /* a device or pipe: nothing to rename */
  char shown[PATH_MAX];  /* as the user gave it, for messages */
  char target[PATH_MAX]; /* behind links, so that a link stays a link */
  char temporary[PATH_MAX];
};

static bool refuse(mk_status *st, const char *path) {
  int e = errno;
  const char *advice = e == ENOSPC || e == EDQUOT || e == EFBIG  ? "; free some space or choose another place"
                       : e == EACCES || e == EROFS || e == EPERM ? "; choose a folder you may write to"
                       : e == ENOENT                             ? "; make the folder first"
                                                                 : "";
  mk_fail(st, e == ENOENT || e == ENOTDIR ? MK_EINPUT : MK_EIO, "cannot write %s: %s%s", path, strerror(e), advice);
  return false;
}

static bool open_temporary(mk_out_file *f, mk_status *st) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  for (int attempt = 0; attempt < 100; attempt++) {
    int n = snprintf(f->temporary, sizeof f->temporary, "%s.%ld-%lx.tmp", f->target, (long)getpid(), (long)now.tv_nsec + attempt);
    if (n < 0 || (size_t)n >= sizeof f->temporary) {
      mk_fail(st, MK_EINPUT, "cannot write %.300s: the path is too long", f->shown);
      return false;
    }
    f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd >= 0) return true;
    if (errno != EEXIST) break;
  }
  return refuse(st, f->shown);
}

static bool open_any(mk_out_file *f, const char *path, mk_status *st) {
  struct stat info;
  if (strlen(path) >= sizeof f->shown) {
    mk_fail(st, MK_EINPUT, "cannot write %.300s: the path is too long", path);
    return false;
  }
  strcpy(f->shown, path);
  strcpy(f->target, path);
  if (!stat(path, &info)) {
    if (S_ISDIR(info.st_mode)) {
      mk_fail(st, MK_EINPUT, "cannot write %s: it is a folder; give a file name", path);
      return false;
    }
    if (!S_ISREG(info.st_mode)) {
      f->in_place = true;
      f->fd = open(path, O_WRONLY | O_CLOEXEC);
      return f->fd >= 0 || refuse(st, path);
    }
    char real[PATH_MAX];
    if (realpath(path, real)) strcpy(f->target, real);
  }
  return open_temporary(f, st);
}

mk_out_file *mk_out_open(const char *path, mk_status *st) {
  mk_out_file *f = calloc(1, sizeof *f);
  if (!f) {
    mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path);
    return NULL;
  }
  f->fd = -1;
  if (open_any(f, path, st)) return f;
  free(f);
  return NULL;
}

const char *mk_out_path(const mk_out_file *f) { return f->shown; }

bool mk_out_write(mk_out_file *f, const void *data, size_t bytes, mk_status *st) {
  for (const char *at = data; bytes;) {
    ssize_t n = write(f->fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return refuse(st, f->shown);
    at += n;
    bytes -= (size_t)n;
  }
  return true;
}

static void sync_folder(const char *file) {
  char folder[PATH_MAX];
  const char *slash = strrchr(file, '/');
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - file) + 1 : 1, slash ? file : ".");
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd); /* best effort: the file itself is whole whether or not its new name survives a power cut */
  close(fd);
}

bool mk_out_commit(mk_out_file *f, mk_status *st) {
  bool ok = f->in_place || !fsync(f->fd) || refuse(st, f->shown);
  if (close(f->fd) && ok) ok = refuse(st, f->shown);
  if (!f->in_place) {
    if (ok && rename(f->temporary, f->target)) ok = refuse(st, f->shown);
    if (ok)
      sync_folder(f->target);
    else
      unlink(f->temporary);
  }
  free(f);
  return ok;
}

/* 0, or -1 with errno, EEXIST when the name is taken. */
static int rename_new(const char *from, const char *to) {
  if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE)) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  /* The file system cannot do that; a second name for the file does the same, and one that has neither gets a plain rename. */
  if (!link(from, to)) return unlink(from);
  return errno == EEXIST ? -1 : rename(from, to);
}

bool mk_out_commit_new(mk_out_file *f, unsigned mode, bool *there, mk_status *st) {
  bool ok = f->in_place || !fchmod(f->fd, (mode_t)mode) || refuse(st, f->shown);
  if (close(f->fd) && ok) ok = refuse(st, f->shown);
  *there = false;
  if (!f->in_place) {
    bool moved = ok && !rename_new(f->temporary, f->target);
    *there = ok && !moved && errno == EEXIST;
    if (ok && !moved && !*there) ok = refuse(st, f->shown);
    if (!moved) unlink(f->temporary);
  }
  free(f);
  return ok;
}

void mk_out_discard(mk_out_file *f) {
  if (!f) return;
  close(f->fd);
  if (!f->in_place) unlink(f->temporary);
  free(f);
}

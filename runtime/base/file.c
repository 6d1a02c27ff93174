#include "runtime/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/out_file.h"

static bool fail_errno(mk_status *st, const char *verb, const char *path) {
  int e = errno;
  mk_code code = e == ENOENT || e == ENOTDIR || e == EISDIR ? MK_EINPUT : e == ENOMEM ? MK_ENOMEM : MK_EIO;
  mk_fail(st, code, "cannot %s %s: %s", verb, path, strerror(e));
  return false;
}

static int open_read(const char *path, struct stat *info, mk_status *st) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    fail_errno(st, "open", path);
    return -1;
  }
  if (fstat(fd, info)) {
    fail_errno(st, "examine", path);
    close(fd);
    return -1;
  }
  if (S_ISDIR(info->st_mode)) {
    mk_fail(st, MK_EINPUT, "%s is a folder, a file was expected", path);
    close(fd);
    return -1;
  }
  return fd;
}

/* Reads all of fd, and closes it. */
static char *read_all(int fd, const struct stat *info, const char *path, size_t *bytes, mk_status *st) {
  /* The size is a hint only: pipes have none, and a file may grow while it is read. */
  size_t cap = S_ISREG(info->st_mode) && info->st_size > 0 ? (size_t)info->st_size + 1 : 4096, len = 0;
  char *data = malloc(cap);
  while (data) {
    ssize_t n = read(fd, data + len, cap - len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      fail_errno(st, "read", path);
      break;
    }
    len += (size_t)n;
    if (n > 0 && len < cap) continue;
    if (n == 0 && len < cap) {
      data[len] = 0;
      if (bytes) *bytes = len;
      close(fd);
      return data;
    }
    cap *= 2;
    char *grown = realloc(data, cap);
    if (!grown) {
      mk_fail(st, MK_ENOMEM, "out of host memory while reading %s (%zu bytes)", path, cap);
      break;
    }
    data = grown;
  }
  if (!data) mk_fail(st, MK_ENOMEM, "out of host memory while reading %s (%zu bytes)", path, cap);
  free(data);
  close(fd);
  return NULL;
}

char *mk_file_read(const char *path, size_t *bytes, mk_status *st) {
  struct stat info;
  int fd = open_read(path, &info, st);
  return fd < 0 ? NULL : read_all(fd, &info, path, bytes, st);
}

bool mk_file_is_ours(const struct stat *info) {
  return (info->st_uid == geteuid() || info->st_uid == 0) && !(info->st_mode & (S_IWGRP | S_IWOTH));
}

char *mk_file_read_ours(const char *path, size_t *bytes, mk_status *st) {
  struct stat info;
  int fd = open_read(path, &info, st);
  if (fd < 0) return NULL;
  if (S_ISREG(info.st_mode) && mk_file_is_ours(&info)) return read_all(fd, &info, path, bytes, st);
  mk_fail(st, MK_EIO, "%s belongs to another user, or can be written by others", path);
  close(fd);
  return NULL;
}

bool mk_file_map(const char *path, mk_map *out, mk_status *st) {
  *out = (mk_map){0};
  struct stat info;
  int fd = open_read(path, &info, st);
  if (fd < 0) return false;
  bool ok = true;
  if (!S_ISREG(info.st_mode)) {
    mk_fail(st, MK_EINPUT, "%s is not a regular file", path);
    ok = false;
  } else if (info.st_size > 0) {
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
      ok = fail_errno(st, "map", path);
    else
      *out = (mk_map){data, (size_t)info.st_size};
  }
  close(fd);
  return ok;
}

void mk_file_unmap(mk_map *m) {
  if (m->data) munmap((void *)(uintptr_t)m->data, m->bytes);
  *m = (mk_map){0};
}

bool mk_file_exists(const char *path) {
  struct stat info;
  return !stat(path, &info) && !S_ISDIR(info.st_mode);
}

bool mk_dir_exists(const char *path) {
  struct stat info;
  return !stat(path, &info) && S_ISDIR(info.st_mode);
}

bool mk_dir_make(const char *path, unsigned mode, mk_status *st) {
  char part[PATH_MAX];
  size_t len = strlen(path);
  if (len == 0 || len >= sizeof part) {
    mk_fail(st, MK_EINPUT, "cannot make folder \"%.200s\": %s", path, len ? "the path is too long" : "the path is empty");
    return false;
  }
  /* Each prefix in turn; only the last result counts, as a parent may exist where we may not make one. */
  for (size_t i = 1; i <= len; i++) {
    if (path[i] != '/' && path[i] != 0) continue;
    memcpy(part, path, i);
    part[i] = 0;
    if (!mkdir(part, (mode_t)mode) || errno == EEXIST) continue;
    int reason = errno;
    if (mk_dir_exists(part)) continue;
    errno = reason;
    return fail_errno(st, "make folder", part);
  }
  if (mk_dir_exists(path)) return true;
  mk_fail(st, MK_EINPUT, "cannot make folder %s: a file of this name is in the way", path);
  return false;
}

bool mk_file_publish(const char *path, const void *data, size_t bytes, mk_status *st) {
  mk_out_file *f = mk_out_open(path, st);
  if (!f) return false;
  if (mk_out_write(f, data, bytes, st)) return mk_out_commit(f, st);
  mk_out_discard(f);
  return false;
}

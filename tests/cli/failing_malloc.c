/* For LD_PRELOAD: the allocation numbered FAIL_AT gets no memory, and those after it neither, or FAIL_FOR of them in all. The
 * number of all allocations goes to the file FAIL_COUNT. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static atomic_long count, fail_at, fail_end;

__attribute__((constructor)) static void start(void) {
  const char *at = getenv("FAIL_AT"), *many = getenv("FAIL_FOR");
  count = 0; /* the linker's own are not counted */
  fail_at = at ? atol(at) : 0;
  fail_end = many ? fail_at + atol(many) : LONG_MAX;
}

__attribute__((destructor)) static void finish(void) {
  const char *path = getenv("FAIL_COUNT");
  int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
  if (fd < 0) return;
  dprintf(fd, "%ld\n", (long)count);
  close(fd);
}

static bool refuses(void) {
  long n = ++count, at = fail_at;
  if (!at || n < at || n >= fail_end) return false;
  errno = ENOMEM;
  return true;
}

void *malloc(size_t bytes) { return refuses() ? NULL : __libc_malloc(bytes); }
void *calloc(size_t n, size_t bytes) { return refuses() ? NULL : __libc_calloc(n, bytes); }
void *realloc(void *p, size_t bytes) { return refuses() ? NULL : __libc_realloc(p, bytes); }
void *memalign(size_t alignment, size_t bytes) { return refuses() ? NULL : __libc_memalign(alignment, bytes); }
void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **out, size_t alignment, size_t bytes) {
  void *p = memalign(alignment, bytes);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}

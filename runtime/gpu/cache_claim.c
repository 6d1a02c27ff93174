#include "runtime/gpu/cache_claim.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "runtime/gpu/cache_internal.h"

void mk_cache_claims_open(mk_cache_claims *k, const mk_cache *c) {
  char path[PATH_MAX];
  k->fd = -1;
  if (c->writable && mk_cache_join(path, c->folder, "claims"))
    k->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

/* Locks belong to the open file, so that two users of one cache in one process exclude each other, too. */
static int set(const mk_cache_claims *k, short type, const void *key, size_t key_bytes) {
  struct flock lock = {.l_type = type,
                       .l_whence = SEEK_SET,
                       .l_start = (off_t)(mk_hash64(key, key_bytes) >> 2), /* far from the largest offset */
                       .l_len = 1};
  return fcntl(k->fd, F_OFD_SETLK, &lock);
}

bool mk_cache_claim(mk_cache_claims *k, const void *key, size_t key_bytes) {
  return k->fd < 0 || !set(k, F_WRLCK, key, key_bytes) || (errno != EAGAIN && errno != EACCES);
}

void mk_cache_unclaim(mk_cache_claims *k, const void *key, size_t key_bytes) {
  if (k->fd >= 0) set(k, F_UNLCK, key, key_bytes);
}

void mk_cache_claims_close(mk_cache_claims *k) {
  if (k->fd >= 0) close(k->fd);
  k->fd = -1;
}

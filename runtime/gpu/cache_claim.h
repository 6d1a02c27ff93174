/* Who makes which entry: processes that start together with an empty cache share the work instead of all doing all of it. Only
 * that: entries are right whatever happens here. A claim is the lock of one byte of a file, and ends with its process. */
#ifndef MK_GPU_CACHE_CLAIM_H
#define MK_GPU_CACHE_CLAIM_H

#include "runtime/gpu/cache.h"

typedef struct mk_cache_claims {
  int fd; /* -1: claims cannot be made here, and every one is granted */
} mk_cache_claims;

void mk_cache_claims_open(mk_cache_claims *k, const mk_cache *c);
/* False: another process is making it, and it will be there soon. */
bool mk_cache_claim(mk_cache_claims *k, const void *key, size_t key_bytes);
void mk_cache_unclaim(mk_cache_claims *k, const void *key, size_t key_bytes);
void mk_cache_claims_close(mk_cache_claims *k); /* ends all of this one's claims */

#endif

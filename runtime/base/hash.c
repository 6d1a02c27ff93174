#include "runtime/base/hash.h"

#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t mk_hash64(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }

const char *mk_hash_hex(const void *data, size_t bytes, char hex[MK_HASH_HEX]) {
  XXH128_hash_t h = XXH3_128bits(data, bytes);
  snprintf(hex, MK_HASH_HEX, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
  return hex;
}

uint64_t mk_hash64_pieces(const mk_piece *pieces, int count) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (int i = 0; i < count; i++)
    if (pieces[i].bytes) XXH3_64bits_update(&state, pieces[i].data, pieces[i].bytes);
  return XXH3_64bits_digest(&state);
}

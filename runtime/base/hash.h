/* Hashing of bytes (xxh3): cache keys, checksums. Same result on every machine; not for untrusted keys. */
#ifndef MK_BASE_HASH_H
#define MK_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { MK_HASH_HEX = 33 }; /* 32 digits and the NUL */

uint64_t mk_hash64(const void *data, size_t bytes);
/* The 128-bit hash as 32 lower-case hexadecimal digits into hex; returns hex. */
const char *mk_hash_hex(const void *data, size_t bytes, char hex[MK_HASH_HEX]);

/* Of several pieces in order; equal to mk_hash64 of their concatenation. */
typedef struct mk_piece {
  const void *data;
  size_t bytes;
} mk_piece;
uint64_t mk_hash64_pieces(const mk_piece *pieces, int count);

#endif

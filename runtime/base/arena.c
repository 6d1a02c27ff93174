#include "runtime/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mk_arena_block {
  mk_arena_block *next;
  size_t used, size;
  _Alignas(16) char data[];
};

/* Blocks double: many arenas hold a few numbers, and clearing what they do not use would be most of the work. */
enum { FIRST_BYTES = 1 << 10, MOST_BYTES = 64 << 10 };

void *mk_alloc(mk_arena *a, size_t bytes) {
  bytes = (bytes + 15) & ~(size_t)15;
  mk_arena_block *b = a->head;
  if (!b || b->size - b->used < bytes) {
    size_t usual = !b ? FIRST_BYTES : b->size < MOST_BYTES / 2 ? 2 * b->size : MOST_BYTES;
    size_t size = bytes > usual ? bytes : usual;
    b = calloc(1, sizeof *b + size);
    if (!b) {
      fprintf(stderr, "moonkiln: out of host memory (%zu bytes)\n", size);
      exit(1);
    }
    b->size = size;
    b->next = a->head;
    a->head = b;
  }
  void *p = b->data + b->used;
  b->used += bytes;
  a->used += bytes;
  return p;
}

void *mk_grow(mk_arena *a, const void *old, size_t old_bytes, size_t new_bytes) {
  void *p = mk_alloc(a, new_bytes);
  if (old_bytes) memcpy(p, old, old_bytes);
  return p;
}

char *mk_strndup(mk_arena *a, const char *s, size_t n) {
  char *p = mk_alloc(a, n + 1);
  memcpy(p, s, n);
  return p;
}

char *mk_strdup(mk_arena *a, const char *s) { return mk_strndup(a, s, strlen(s)); }

char *mk_printf(mk_arena *a, const char *format, ...) {
  char small[256]; /* most texts fit, and are formatted once */
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(small, sizeof small, format, args);
  va_end(args);
  char *p = mk_alloc(a, (size_t)n + 1);
  if ((size_t)n < sizeof small)
    memcpy(p, small, (size_t)n + 1);
  else
    vsnprintf(p, (size_t)n + 1, format, again);
  va_end(again);
  return p;
}

void mk_arena_free(mk_arena *a) {
  for (mk_arena_block *b = a->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  *a = (mk_arena){0};
}

/* Bump allocation for compile-time data: everything of a graph is dropped at once. */
#ifndef MK_BASE_ARENA_H
#define MK_BASE_ARENA_H

#include <stddef.h>

typedef struct mk_arena_block mk_arena_block;
typedef struct mk_arena {
  mk_arena_block *head; /* zero-initialise */
  size_t used;          /* bytes handed out, for reports */
} mk_arena;

/* Zeroed memory aligned to 16 bytes, owned by the arena. Never NULL: running out of memory for
 * compile-time data (kilobytes) ends the process with a message, as no caller could go on. */
void *mk_alloc(mk_arena *a, size_t bytes);
void *mk_grow(mk_arena *a, const void *old, size_t old_bytes, size_t new_bytes);
char *mk_strdup(mk_arena *a, const char *s);
char *mk_strndup(mk_arena *a, const char *s, size_t n);
char *mk_printf(mk_arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mk_arena_free(mk_arena *a);

#define MK_NEW(arena, type) ((type *)mk_alloc((arena), sizeof(type)))
#define MK_NEW_ARRAY(arena, type, n) ((type *)mk_alloc((arena), sizeof(type) * (size_t)(n)))

/* Appends to an arena-backed array {ptr, count, cap fields}: MK_PUSH(a, list->items, list->count, list->cap, value). */
#define MK_PUSH(arena, items, count, cap, value)                                                        \
  do {                                                                                                  \
    if ((count) == (cap)) {                                                                             \
      size_t old_cap_ = (size_t)(cap);                                                                  \
      (cap) = (cap) ? 2 * (cap) : 8;                                                                    \
      (items) = mk_grow((arena), (items), old_cap_ * sizeof *(items), (size_t)(cap) * sizeof *(items)); \
    }                                                                                                   \
    (items)[(count)++] = (value);                                                                       \
  } while (0)

#endif

/* A growing string whose failure is sticky: append freely, check once at the end. Where texts are made of texts, the one at the
 * end does not show that a piece is missing; mk_text_failures does. */
#ifndef MK_BASE_TEXT_H
#define MK_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mk_text {
  char *data; /* NUL-terminated once anything was appended; owned, see mk_text_free */
  size_t len, cap;
  bool failed; /* out of memory happened; data is then incomplete */
} mk_text;     /* zero-initialise */

void mk_text_add(mk_text *t, const char *s);
void mk_text_add_n(mk_text *t, const char *s, size_t n);
void mk_text_addf(mk_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mk_text_clear(mk_text *t);
void mk_text_free(mk_text *t);
/* The text, "" when empty. Borrowed. */
const char *mk_text_str(const mk_text *t);
/* How many texts of this thread have failed so far: if there are more after a stage than before it, what it made is incomplete.
 */
unsigned mk_text_failures(void);

#endif

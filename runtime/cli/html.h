/* Pages that need nothing else: text made safe, and skeletons with {{name}} where a part goes. */
#ifndef MK_CLI_HTML_H
#define MK_CLI_HTML_H

#include "runtime/base/status.h"
#include "runtime/base/text.h"

/* s as text or attribute value. */
void mk_html_escape(mk_text *out, const char *s);

typedef struct mk_html_part {
  const char *name;
  void (*add)(const void *subject, mk_text *out);
} mk_html_part;

/* Fills a skeleton whose every {{name}} is a part. */
void mk_html_fill(const char *skeleton, const mk_html_part *parts, int count, const void *subject, mk_text *out, mk_status *st);

/* Makes a file of the source tree, with a NUL after it, part of the program: `extern const char symbol[]`. */
#define MK_HTML_EMBED(symbol, file)                                                            \
  __asm__(".pushsection .rodata\n" #symbol ":\n.incbin \"" file "\"\n.byte 0\n.popsection\n"); \
  extern const char symbol[]

#endif

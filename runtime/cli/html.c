#include "runtime/cli/html.h"

#include <string.h>

void mk_html_escape(mk_text *out, const char *s) {
  for (; *s; s++) {
    switch (*s) {
      case '&': mk_text_add(out, "&amp;"); break;
      case '<': mk_text_add(out, "&lt;"); break;
      case '>': mk_text_add(out, "&gt;"); break;
      case '"': mk_text_add(out, "&quot;"); break;
      default: mk_text_add_n(out, s, 1);
    }
  }
}

static const mk_html_part *find(const mk_html_part *parts, int count, const char *name, size_t length) {
  for (int i = 0; i < count; i++)
    if (strlen(parts[i].name) == length && !memcmp(parts[i].name, name, length)) return &parts[i];
  return NULL;
}

void mk_html_fill(const char *at, const mk_html_part *parts, int count, const void *subject, mk_text *out, mk_status *st) {
  for (const char *open; (open = strstr(at, "{{"));) {
    const char *name = open + 2, *close = strstr(name, "}}");
    const mk_html_part *part = close ? find(parts, count, name, (size_t)(close - name)) : NULL;
    mk_text_add_n(out, at, (size_t)(open - at));
    if (!part) {
      mk_fail(st, MK_EINTERNAL, "the page's skeleton has an unknown part at '%.20s'", open);
      return;
    }
    part->add(subject, out);
    at = close + 2;
  }
  mk_text_add(out, at);
  if (out->failed) mk_fail(st, MK_ENOMEM, "out of host memory");
}

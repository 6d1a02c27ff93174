#include "runtime/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local unsigned failures;

unsigned mk_text_failures(void) { return failures; }

static bool reserve(mk_text *t, size_t extra) {
  if (t->failed) return false;
  if (t->len + extra + 1 <= t->cap) return true;
  size_t cap = t->cap ? t->cap : 256;
  while (cap < t->len + extra + 1) cap *= 2;
  char *p = realloc(t->data, cap);
  if (!p) {
    t->failed = true;
    failures++;
    return false;
  }
  t->data = p;
  t->cap = cap;
  return true;
}

void mk_text_add_n(mk_text *t, const char *s, size_t n) {
  if (!reserve(t, n)) return;
  memcpy(t->data + t->len, s, n);
  t->len += n;
  t->data[t->len] = 0;
}

void mk_text_add(mk_text *t, const char *s) { mk_text_add_n(t, s, strlen(s)); }

void mk_text_addf(mk_text *t, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  /* Most pieces fit what is there; only those that do not are formatted twice. */
  size_t room = t->failed ? 0 : t->cap - t->len;
  int n = vsnprintf(room ? t->data + t->len : NULL, room, format, args);
  va_end(args);
  if (n >= 0 && (size_t)n < room) {
    t->len += (size_t)n;
  } else if (n >= 0 && reserve(t, (size_t)n)) {
    vsnprintf(t->data + t->len, (size_t)n + 1, format, again);
    t->len += (size_t)n;
  } else if (room) {
    t->data[t->len] = 0;
  }
  va_end(again);
}

void mk_text_clear(mk_text *t) {
  t->len = 0;
  if (t->data) t->data[0] = 0;
}

void mk_text_free(mk_text *t) {
  free(t->data);
  *t = (mk_text){0};
}

const char *mk_text_str(const mk_text *t) { return t->data ? t->data : ""; }

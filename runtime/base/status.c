#include "runtime/base/status.h"

#include <stdio.h>
#include <string.h>

mk_code mk_vfail(mk_status *st, mk_code code, const char *format, va_list args) {
  if (st->code != MK_OK) return st->code;
  st->code = code;
  vsnprintf(st->message, sizeof st->message, format, args);
  return code;
}

mk_code mk_fail(mk_status *st, mk_code code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  mk_code recorded = mk_vfail(st, code, format, args);
  va_end(args);
  return recorded;
}

void mk_fail_context(mk_status *st, const char *format, ...) {
  if (st->code == MK_OK) return;
  char prefix[512], message[sizeof st->message];
  va_list args;
  va_start(args, format);
  vsnprintf(prefix, sizeof prefix, format, args);
  va_end(args);
  memcpy(message, st->message, sizeof message);
  int n = snprintf(st->message, sizeof st->message, "%s: ", prefix);
  size_t room = sizeof st->message - (size_t)n - 1;
  size_t len = strnlen(message, room);
  memcpy(st->message + n, message, len);
  st->message[(size_t)n + len] = 0;
}

const char *mk_code_name(mk_code code) {
  static const char *const names[] = {"ok", "input", "io", "memory", "gpu", "compile", "unsupported", "interrupted", "internal"};
  return (unsigned)code < sizeof names / sizeof *names ? names[code] : "unknown";
}

#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/env.h"

static const char *const names[] = {"error", "warning", "info", "debug"};

bool mk_log_parse(const char *name, mk_log_level *out) {
  for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
    if (strcmp(name, names[i])) continue;
    *out = (mk_log_level)i;
    return true;
  }
  return false;
}

bool mk_log_on(mk_log_level level) { return level <= mk_env_get()->log_level; }

void mk_log(mk_log_level level, const char *format, ...) {
  if (!mk_log_on(level)) return;
  char line[4096];
  /* A progress bar may be standing on the line: clear it first. */
  int n = snprintf(line, sizeof line, "%smoonkiln: %s: ", isatty(STDERR_FILENO) ? "\r\033[K" : "", names[level]);
  va_list args;
  va_start(args, format);
  int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
  va_end(args);
  if (m < 0) return;
  n = (int)strnlen(line, sizeof line - 2);
  line[n++] = '\n';
  fwrite(line, 1, (size_t)n, stderr);
}

#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
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

double mk_log_age(void) {
  char text[1024];
  unsigned long long start = 0;
  struct timespec now;
  FILE *f = fopen("/proc/self/stat", "re");
  if (!f) return 0;
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  const char *at = strrchr(text, ')'); /* the name of the program, which may hold anything, is field 2; the start is field 22 */
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  if (!at || sscanf(at, " %llu", &start) != 1 || clock_gettime(CLOCK_BOOTTIME, &now)) return 0;
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - (double)start / (double)sysconf(_SC_CLK_TCK);
}

static void say(const char *label, const char *format, va_list args) {
  char line[4096];
  /* A progress bar may be standing on the line: clear it first. */
  int n = snprintf(line, sizeof line, "%smoonkiln: %s: ", isatty(STDERR_FILENO) ? "\r\033[K" : "", label);
  int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
  if (m < 0) return;
  n = (int)strnlen(line, sizeof line - 2);
  line[n++] = '\n';
  fwrite(line, 1, (size_t)n, stderr);
}

void mk_log(mk_log_level level, const char *format, ...) {
  if (!mk_log_on(level)) return;
  va_list args;
  va_start(args, format);
  say(names[level], format, args);
  va_end(args);
}

void mk_timeline(const char *format, ...) {
  if (!mk_env_get()->timeline_on) return;
  char label[32];
  snprintf(label, sizeof label, "%7.1f ms", 1e3 * mk_log_age());
  va_list args;
  va_start(args, format);
  say(label, format, args);
  va_end(args);
}

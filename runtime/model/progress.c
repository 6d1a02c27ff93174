#include "runtime/model/progress.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MIN_BAR = 4, MAX_BAR = 40, PLAIN_WIDTH = 0 };

static const char *clock_text(char buf[32], double seconds) {
  long s = seconds > 0 && seconds < 1e8 ? (long)(seconds + 0.5) : 0;
  if (s >= 3600)
    snprintf(buf, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else
    snprintf(buf, 32, "%02ld:%02ld", s / 60, s % 60);
  return buf;
}

static void add_bar(char *buf, size_t size, int columns, double fraction) {
  static const char *const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  int filled = (int)(fraction * columns * 8 + 0.5);
  size_t n = strlen(buf);
  for (int i = 0; i < columns && n < size; i++) {
    int part = filled - 8 * i;
    n += (size_t)snprintf(buf + n, size - n, "%s", part >= 8 ? "█" : eighths[part > 0 ? part : 0]);
  }
}

/* known_left: seconds; 0: by the average. */
static const char *line_of(char *buf, size_t size, int width, const char *phase, int64_t done, int64_t total, double seconds,
                           double known_left) {
  char spent[32], left[32] = "?", each[32] = "? s/it", tail[128], head[96];
  const bool bytes = total >= 1 << 20; /* nothing else is counted in millions */
  const double mib = 1 << 20;
  double fraction = total > 0 ? (double)done / (double)total : 0;
  if (done > 0 && seconds > 0) {
    double step = seconds / (double)done;
    clock_text(left, step * (double)(total - done));
    if (bytes)
      snprintf(each, sizeof each, "%.0f MiB/s", 1 / (step * mib));
    else if (step >= 1)
      snprintf(each, sizeof each, "%.2f s/it", step);
    else
      snprintf(each, sizeof each, "%.2f it/s", 1 / step);
  }
  if (known_left > 0) clock_text(left, known_left);
  clock_text(spent, seconds);
  if (bytes)
    snprintf(tail, sizeof tail, "%.0f/%.0f MiB [%s<%s, %s]", (double)done / mib, (double)total / mib, spent, left, each);
  else
    snprintf(tail, sizeof tail, "%lld/%lld [%s<%s, %s]", (long long)done, (long long)total, spent, left, each);
  snprintf(head, sizeof head, "%.60s %3d%%", phase, (int)(100 * fraction));
  int bar = width - (int)strlen(head) - (int)strlen(tail) - 3;
  if (bar < MIN_BAR) {
    snprintf(buf, size, "%s %s", head, tail);
    return buf;
  }
  snprintf(buf, size, "%s|", head);
  add_bar(buf, size, bar < MAX_BAR ? bar : MAX_BAR, fraction < 1 ? fraction : 1);
  size_t n = strlen(buf);
  if (n < size) snprintf(buf + n, size - n, "| %s", tail);
  return buf;
}

const char *mk_progress_line(char *buf, size_t size, int width, const char *phase, int64_t done, int64_t total, double seconds) {
  return line_of(buf, size, width, phase, done, total, seconds, 0);
}

static int columns(FILE *out) {
  struct winsize w;
  return !ioctl(fileno(out), TIOCGWINSZ, &w) && w.ws_col > 0 ? w.ws_col - 1 : 79;
}

void mk_progress_show(mk_progress *p, const char *phase, int64_t done, int64_t total, double seconds) {
  FILE *out = p->out ? p->out : stderr;
  bool terminal = isatty(fileno(out));
  size_t name = strcspn(phase, ":"); /* what is behind a colon may change from time to time */
  if (name >= sizeof p->phase) name = sizeof p->phase - 1;
  bool fresh = strncmp(p->phase, phase, name) != 0 || p->phase[name];
  if (fresh) {
    mk_progress_end(p);
    snprintf(p->phase, sizeof p->phase, "%.*s", (int)name, phase);
    p->drawn = 0;
  } else if (done < total && seconds - p->drawn < (terminal ? 0.1 : 0.5)) {
    return;
  }
  char line[512];
  line_of(line, sizeof line, terminal ? columns(out) : PLAIN_WIDTH, phase, done, total, seconds, p->left);
  fprintf(out, terminal ? "\r%s\x1b[K" : "%s\n", line);
  fflush(out);
  p->open = terminal;
  p->drawn = seconds;
}

void mk_progress_end(mk_progress *p) {
  FILE *out = p->out ? p->out : stderr;
  if (p->open) fputc('\n', out);
  fflush(out);
  p->open = false;
  p->phase[0] = 0;
}

#include "runtime/gpu/report.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT_LINES = 3, MAX_EXCERPTS = 4, MAX_LOG_LINES = 60 };

static int larger(int a, int b) { return a > b ? a : b; }

/* The number before `unit` in the line, 0 when it is not there: "64 registers", "804 bytes spill stores". */
static int number_before(const char *line, const char *unit) {
  const char *at = strstr(line, unit);
  if (!at) return 0;
  while (at > line && at[-1] == ' ') at--;
  const char *digits = at;
  while (digits > line && isdigit((unsigned char)digits[-1])) digits--;
  return atoi(digits);
}

mk_kernel_report mk_report_parse_log(const char *log) {
  mk_kernel_report r = {0};
  char line[1024];
  for (const char *p = log; p && *p;) {
    size_t n = strcspn(p, "\n");
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), p);
    p += n + (p[n] != 0);
    r.registers = larger(r.registers, number_before(line, "registers"));
    r.barriers = larger(r.barriers, number_before(line, "barriers"));
    r.smem_bytes = larger(r.smem_bytes, number_before(line, "bytes smem"));
    r.stack_bytes = larger(r.stack_bytes, number_before(line, "bytes stack frame"));
    r.spill_bytes += number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
    /* By their words: the numbers in front of them differ between versions of ptxas. */
    if (strstr(line, "wgmma.mma_async instructions are serialized")) r.wgmma_serialized = true;
    if (strstr(line, "'setmaxnreg' ignored")) r.setmaxnreg_ignored = true;
  }
  return r;
}

void mk_report_print(const mk_kernel_report *r, mk_text *out) {
  mk_text_addf(out, "registers=%d smem=%d stack=%d spill=%d barriers=%d wgmma_serialized=%d setmaxnreg_ignored=%d", r->registers,
               r->smem_bytes, r->stack_bytes, r->spill_bytes, r->barriers, r->wgmma_serialized, r->setmaxnreg_ignored);
}

bool mk_report_scan(const char *line, mk_kernel_report *out) {
  int serialized, ignored;
  *out = (mk_kernel_report){0};
  int n = sscanf(line, "registers=%d smem=%d stack=%d spill=%d barriers=%d wgmma_serialized=%d setmaxnreg_ignored=%d",
                 &out->registers, &out->smem_bytes, &out->stack_bytes, &out->spill_bytes, &out->barriers, &serialized, &ignored);
  if (n != 7) return false;
  out->wgmma_serialized = serialized != 0;
  out->setmaxnreg_ignored = ignored != 0;
  return true;
}

static void add_line(int number, bool marked, const char *line, size_t length, mk_text *out) {
  mk_text_addf(out, "  %c%6d | %.*s\n", marked ? '>' : ' ', number, (int)(length < 200 ? length : 200), line);
}

static void add_excerpt(const char *text, int line, mk_text *out) {
  int first = line > CONTEXT_LINES ? line - CONTEXT_LINES : 1, at = 1;
  for (const char *p = text; *p && at <= line + CONTEXT_LINES; at++) {
    size_t n = strcspn(p, "\n");
    if (at >= first) add_line(at, at == line, p, n, out);
    p += n + (p[n] != 0);
  }
}

void mk_report_declarations(const char *source, const char *word, mk_text *out) {
  int number = 1, shown = 0;
  for (const char *p = source; *p && shown < MAX_EXCERPTS; number++) {
    size_t n = strcspn(p, "\n"), blank = strspn(p, " \t");
    const char *found = strstr(p, word), *text = p + blank;
    bool comment = *text == '*' || !strncmp(text, "/*", 2) || !strncmp(text, "//", 2);
    if (!found) break;
    if (found < p + n && !comment) {
      add_line(number, true, p, n, out);
      shown++;
    }
    p += n + (p[n] != 0);
  }
}

/* "name.cu(12): error: ..." gives 12; "ptxas application ptx input, line 34; error ..." gives 34 and sets *ptx; else 0. */
static int line_named(const char *line, bool *ptx) {
  const char *at = strstr(line, "ptx input, line ");
  *ptx = at != NULL;
  if (at) return atoi(at + strlen("ptx input, line "));
  if (!strstr(line, "error")) return 0;
  at = strchr(line, '(');
  return at && isdigit((unsigned char)at[1]) ? atoi(at + 1) : 0;
}

void mk_report_errors(const char *log, const char *source, const char *ptx, mk_text *out) {
  int lines = 0, excerpts = 0, last = 0;
  char line[1024];
  for (const char *p = log; p && *p && lines < MAX_LOG_LINES; lines++) {
    size_t n = strcspn(p, "\n");
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), p);
    p += n + (p[n] != 0);
    if (!*line || strstr(line, "ptxas info") || !strncmp(line, "ptxas   ", 8)) continue; /* reports, and their second lines */
    mk_text_addf(out, "%s\n", line);
    bool in_ptx;
    int number = line_named(line, &in_ptx);
    const char *text = in_ptx ? ptx : source;
    if (number == 0 || number == last || !text || excerpts == MAX_EXCERPTS) continue;
    add_excerpt(text, number, out);
    excerpts++;
    last = number;
  }
}

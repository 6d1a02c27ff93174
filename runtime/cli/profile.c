#include "runtime/cli/profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const mk_arithmetic_names[MK_ARITHMETIC_COUNT] = {"bf16", "tf32", "f32"};

/* Those before "row" run on tensor cores. */
static const char *const kinds[MK_PROFILE_KINDS] = {"attention", "matmul", "conv", "row", "copy", "other"};
enum { FIRST_OUTSIDE = 3 };

int mk_profile_kind_index(const char *kind) {
  int i = 0;
  while (i < MK_PROFILE_KINDS - 1 && strcmp(kinds[i], kind)) i++;
  return i;
}

const char *mk_profile_kind_name(const char *kind) { return kinds[mk_profile_kind_index(kind)]; }

void mk_profile_free(mk_profile *p) {
  mk_arena_free(&p->arena);
  *p = (mk_profile){0};
}

/* "blocks.12.norm1" -> "blocks.*.norm1": a number between dots is a repeat of the same thing. */
static const char *without_numbers(mk_arena *arena, const char *name) {
  char *s = mk_strdup(arena, name), *to = s;
  for (const char *from = s; *from;) {
    size_t digits = strspn(from, "0123456789");
    bool between = digits && from > s && from[-1] == '.' && from[digits] == '.';
    if (between) {
      *to++ = '*';
      from += digits;
    } else {
      *to++ = *from++;
    }
  }
  *to = 0;
  return s;
}

/* Sums of large counts are rounded. */
static bool same(double a, double b) { return fabs(a - b) <= 1e-9 * fabs(a); }

static bool alike(const mk_profile_row *a, const mk_profile_row *group, const char *name) {
  return !strcmp(a->kind, group->kind) && !strcmp(a->candidate, group->candidate) && !strcmp(a->name, name) &&
         same(a->flop, group->flop * a->calls) && same(a->bytes, group->bytes * a->calls);
}

void mk_profile_add(mk_profile *p, const mk_profile_row *group) {
  const char *name = without_numbers(&p->arena, group->name);
  for (int i = 0; i < p->nrows; i++) {
    mk_profile_row *row = &p->rows[i];
    if (!alike(row, group, name)) continue;
    row->calls += group->calls;
    row->ms += group->ms;
    row->flop += group->flop;
    row->bytes += group->bytes;
    return;
  }
  mk_profile_row row = *group;
  row.kind = mk_strdup(&p->arena, group->kind);
  row.candidate = mk_strdup(&p->arena, group->candidate);
  row.name = name;
  MK_PUSH(&p->arena, p->rows, p->nrows, p->cap, row);
}

static int by_time(const void *a, const void *b) {
  const mk_profile_row *x = a, *y = b;
  if (x->ms != y->ms) return x->ms < y->ms ? 1 : -1;
  return strcmp(x->name, y->name);
}

void mk_profile_sort(mk_profile *p) {
  if (p->nrows) qsort(p->rows, (size_t)p->nrows, sizeof *p->rows, by_time);
}

double mk_profile_sum_ms(const mk_profile *p) {
  double ms = 0;
  for (int i = 0; i < p->nrows; i++) ms += p->rows[i].ms;
  return ms;
}

int mk_profile_by_kind(const mk_profile *p, mk_profile_row out[MK_PROFILE_KINDS]) {
  int n = 0;
  for (int k = 0; k < MK_PROFILE_KINDS; k++) {
    mk_profile_row sum = {.kind = kinds[k], .name = kinds[k], .candidate = ""};
    for (int i = 0; i < p->nrows; i++) {
      const mk_profile_row *r = &p->rows[i];
      if (mk_profile_kind_index(r->kind) != k) continue;
      sum.calls += r->calls;
      sum.ms += r->ms;
      sum.flop += r->flop;
      sum.bytes += r->bytes;
    }
    if (sum.calls) out[n++] = sum;
  }
  return n;
}

double mk_profile_outside_ms(const mk_profile *p) {
  double ms = 0;
  for (int i = 0; i < p->nrows; i++)
    if (mk_profile_kind_index(p->rows[i].kind) >= FIRST_OUTSIDE) ms += p->rows[i].ms;
  return ms;
}

/* ---- limits */

double mk_profile_rate(double amount, double ms, double unit) { return ms > 0 ? amount / (ms * 1e-3) / unit : 0; }

static double sheet_tflops(const mk_profile *p, mk_arithmetic a) {
  const double rates[MK_ARITHMETIC_COUNT] = {p->peaks.bf16_tflops, p->peaks.tf32_tflops, p->peaks.f32_tflops};
  return rates[a];
}

double mk_profile_measured_tflops(const mk_profile *p, mk_arithmetic a) {
  if (a == MK_ARITHMETIC_BF16) return p->ceilings.matmul_tflops;
  return p->peaks.bf16_tflops > 0 ? p->ceilings.matmul_tflops / p->peaks.bf16_tflops * sheet_tflops(p, a) : 0;
}

static mk_limit limit(const mk_profile_row *row, double tflops, double tbs) {
  if (tflops <= 0 || tbs <= 0) return (mk_limit){0};
  double compute = 1e3 * row->flop / (tflops * 1e12), memory = 1e3 * row->bytes / (tbs * 1e12);
  return (mk_limit){fmax(compute, memory), memory >= compute};
}

mk_limit mk_profile_sheet_limit(const mk_profile *p, const mk_profile_row *row) {
  return limit(row, sheet_tflops(p, row->arithmetic), p->peaks.memory_tbs);
}

mk_limit mk_profile_limit(const mk_profile *p, const mk_profile_row *row) {
  return limit(row, mk_profile_measured_tflops(p, row->arithmetic), p->ceilings.copy_tbs);
}

mk_profile_limits mk_profile_limit_sums(const mk_profile *p, const char *kind) {
  mk_profile_limits sums = {0};
  for (int i = 0; i < p->nrows; i++) {
    const mk_profile_row *r = &p->rows[i];
    if (kind && mk_profile_kind_index(r->kind) != mk_profile_kind_index(kind)) continue;
    sums.measured_ms += mk_profile_limit(p, r).ms;
    sums.sheet_ms += mk_profile_sheet_limit(p, r).ms;
  }
  return sums;
}

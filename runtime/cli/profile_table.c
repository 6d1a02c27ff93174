#include <stdio.h>
#include <string.h>

#include "runtime/cli/profile.h"

static double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

/* The columns that rows and sums share. */
static void add_numbers(const mk_profile *p, const mk_profile_row *r, const char *kind, mk_text *out) {
  mk_text_addf(out, "%-10s %6d %10.4f %10.3f %6.1f%% %10.4g %10.4g %8.1f %7.0f", kind, r->calls, r->calls ? r->ms / r->calls : 0,
               r->ms, percent(r->ms, mk_profile_sum_ms(p)), r->flop / 1e12, r->bytes / 1e9, mk_profile_rate(r->flop, r->ms, 1e12),
               mk_profile_rate(r->bytes, r->ms, 1e9));
}

/* "84% matmul": how near the row is to its limit, and what the limit is (NULL: the line's last, without). */
static void add_limit(double limit_ms, const char *what, double ms, mk_text *out) {
  if (limit_ms > 0 && ms > 0) {
    mk_text_addf(out, "  %4.0f%%", percent(limit_ms, ms));
  } else {
    mk_text_addf(out, "  %5s", "-");
  }
  if (what) mk_text_addf(out, " %-6s", limit_ms > 0 ? what : "");
}

static const char *bound(mk_limit l) { return l.by_memory ? "copy" : "matmul"; }

static void add_group(const mk_profile *p, const mk_profile_row *r, mk_text *out) {
  mk_limit measured = mk_profile_limit(p, r), sheet = mk_profile_sheet_limit(p, r);
  add_numbers(p, r, r->kind, out);
  add_limit(measured.ms, bound(measured), r->ms, out);
  add_limit(sheet.ms, bound(sheet), r->ms, out);
  mk_text_addf(out, " %4d %7d  %.60s; %s\n", r->registers, r->smem_bytes, r->name, r->candidate);
}

static void add_sum(const mk_profile *p, const mk_profile_row *r, const char *kind, mk_text *out) {
  mk_profile_limits sums = mk_profile_limit_sums(p, kind);
  add_numbers(p, r, kind ? kind : "all", out);
  add_limit(sums.measured_ms, "", r->ms, out);
  add_limit(sums.sheet_ms, NULL, r->ms, out);
  mk_text_add(out, "\n");
}

static void add_heading(const char *tail, mk_text *out) {
  mk_text_addf(out, "%-10s %6s %10s %10s %7s %10s %10s %8s %7s  %-12s  of sheet%s\n", "kind", "calls", "ms each", "ms", "share",
               "TFLOP", "GB", "TFLOP/s", "GB/s", "of measured", tail);
}

static void add_card(const mk_profile *p, mk_text *out) {
  const mk_gpu_peaks *s = &p->peaks;
  mk_text_addf(out, "%s, %d multiprocessors", p->gpu, p->sms);
  if (p->ceilings.matmul_tflops > 0)
    mk_text_addf(out, "; measured: bf16 matmul %.1f TFLOP/s, copy %.3f TB/s", p->ceilings.matmul_tflops, p->ceilings.copy_tbs);
  mk_text_addf(out, "; %s: bf16 %.0f, tf32 %.0f, f32 %.0f TFLOP/s, %.2f TB/s\n",
               s->estimated ? "from units and clocks (estimated)" : "data sheet", s->bf16_tflops, s->tf32_tflops, s->f32_tflops,
               s->memory_tbs);
}

void mk_profile_table(const mk_profile *p, mk_text *out) {
  mk_profile_row kinds[MK_PROFILE_KINDS], all = {0};
  int nkinds = mk_profile_by_kind(p, kinds);
  add_heading("     regs    smem  group; candidate", out);
  for (int i = 0; i < p->nrows; i++) add_group(p, &p->rows[i], out);
  mk_text_add(out, "\n");
  add_heading("", out);
  for (int i = 0; i < nkinds; i++) {
    add_sum(p, &kinds[i], kinds[i].kind, out);
    all.calls += kinds[i].calls;
    all.ms += kinds[i].ms;
    all.flop += kinds[i].flop;
    all.bytes += kinds[i].bytes;
  }
  add_sum(p, &all, NULL, out);
  double outside = mk_profile_outside_ms(p);
  mk_text_addf(out, "\noutside matmul, attention and conv: %.3f ms (%.1f%%)\n", outside, percent(outside, all.ms));
  mk_text_addf(out, "%s of %s: %.3f ms as a whole (%.1f TFLOP/s), %.3f ms step by step\n", p->entry, p->subject, p->graph_ms,
               mk_profile_rate(all.flop, p->graph_ms, 1e12), p->steps_ms);
  add_card(p, out);
}

void mk_profile_print(const mk_profile *p, bool json) {
  if (json) {
    json_t *root = mk_profile_to_json(p);
    if (root) json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    puts("");
    json_decref(root);
    return;
  }
  mk_text table = {0};
  mk_profile_table(p, &table);
  fputs(mk_text_str(&table), stdout);
  mk_text_free(&table);
}

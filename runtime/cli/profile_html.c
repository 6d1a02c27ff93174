/* Fills the page's skeleton: {{name}} in profile_page.html stands for what the part of that name writes. */
#include "runtime/cli/profile_html.h"

#include <stdio.h>
#include <string.h>

MK_HTML_EMBED(mk_profile_skeleton, "runtime/cli/profile_page.html");

static double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }
static bool measured(const mk_profile *p) { return p->ceilings.matmul_tflops > 0; }

void mk_html_group_title(const mk_profile *p, const mk_profile_row *r, mk_text *out) {
  mk_text_add(out, "<title>");
  mk_html_escape(out, r->name);
  mk_text_addf(out, "\n%d calls, %.3f ms (%.1f%%), %.1f TFLOP/s, %.0f GB/s\n", r->calls, r->ms,
               percent(r->ms, mk_profile_sum_ms(p)), mk_profile_rate(r->flop, r->ms, 1e12),
               mk_profile_rate(r->bytes, r->ms, 1e9));
  mk_html_escape(out, r->candidate);
  mk_text_add(out, "</title>");
}

/* ---- parts */

static void add_title(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  mk_html_escape(out, p->graph);
  mk_text_add(out, ", ");
  mk_html_escape(out, p->entry);
}

static void add_subject(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  mk_html_escape(out, p->subject);
  mk_text_add(out, " on ");
  mk_html_escape(out, p->gpu);
}

static void add_tile(const char *value, const char *what, mk_text *out) {
  mk_text_addf(out, "<div><b>%s</b>%s</div>\n", value, what);
}

static void add_tiles(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  char value[64];
  double all = mk_profile_sum_ms(p), flop = 0;
  mk_profile_limits sums = mk_profile_limit_sums(p, NULL);
  for (int i = 0; i < p->nrows; i++) flop += p->rows[i].flop;
  snprintf(value, sizeof value, p->graph_ms < 1000 ? "%.3f ms" : "%.0f ms", p->graph_ms);
  add_tile(value, "as it normally runs", out);
  snprintf(value, sizeof value, "%.1f TFLOP/s", mk_profile_rate(flop, p->graph_ms, 1e12));
  add_tile(value, "over the whole of it", out);
  snprintf(value, sizeof value, "%.1f%%", percent(measured(p) ? sums.measured_ms : sums.sheet_ms, all));
  add_tile(value, measured(p) ? "of what the card was measured to reach" : "of what the data sheet says", out);
  snprintf(value, sizeof value, "%.1f%%", percent(mk_profile_outside_ms(p), all));
  add_tile(value, "of the time is outside matmul, attention and conv", out);
}

/* A cell whose column sorts by `key`. */
static void add_number(double key, const char *format, mk_text *out) {
  char text[64];
  snprintf(text, sizeof text, format, key);
  mk_text_addf(out, "<td data-key=\"%.9g\">%s</td>", key, text);
}

static void add_share_of_limit(double limit_ms, double ms, const char *what, mk_text *out) {
  if (limit_ms > 0 && ms > 0) {
    mk_text_addf(out, "<td data-key=\"%.9g\">%.0f%% %s</td>", limit_ms / ms, percent(limit_ms, ms), what);
  } else {
    mk_text_add(out, "<td data-key=\"-1\">–</td>");
  }
}

static void add_numbers(const mk_profile *p, const mk_profile_row *r, mk_text *out) {
  add_number(r->calls, "%.0f", out);
  add_number(r->calls ? r->ms / r->calls : 0, "%.4f", out);
  add_number(r->ms, "%.3f", out);
  add_number(percent(r->ms, mk_profile_sum_ms(p)), "%.1f%%", out);
  add_number(r->flop / 1e12, "%.4g", out);
  add_number(r->bytes / 1e9, "%.4g", out);
  add_number(mk_profile_rate(r->flop, r->ms, 1e12), "%.1f", out);
  add_number(mk_profile_rate(r->bytes, r->ms, 1e9), "%.0f", out);
}

static void add_kinds(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  mk_profile_row kinds[MK_PROFILE_KINDS];
  int n = mk_profile_by_kind(p, kinds);
  for (int i = 0; i < n; i++) {
    mk_profile_limits sums = mk_profile_limit_sums(p, kinds[i].kind);
    mk_text_addf(out, "<tr><td class=\"name\"><i class=\"swatch kind-%s\"></i>%s</td>", kinds[i].kind, kinds[i].kind);
    add_numbers(p, &kinds[i], out);
    add_share_of_limit(sums.measured_ms, kinds[i].ms, "", out);
    add_share_of_limit(sums.sheet_ms, kinds[i].ms, "", out);
    mk_text_add(out, "</tr>\n");
  }
}

static void add_groups(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  for (int i = 0; i < p->nrows; i++) {
    const mk_profile_row *r = &p->rows[i];
    mk_limit real = mk_profile_limit(p, r), sheet = mk_profile_sheet_limit(p, r);
    mk_text_addf(out, "<tr><td data-key=\"%d\">%d</td><td class=\"name\"><i class=\"swatch kind-%s\"></i>", i, i + 1,
                 mk_profile_kind_name(r->kind));
    mk_html_escape(out, r->kind);
    mk_text_add(out, "</td><td class=\"name\">");
    mk_html_escape(out, r->name);
    mk_text_add(out, "<small>");
    mk_html_escape(out, r->candidate);
    mk_text_add(out, "</small></td>");
    add_numbers(p, r, out);
    add_share_of_limit(real.ms, r->ms, real.by_memory ? "copy" : "matmul", out);
    add_share_of_limit(sheet.ms, r->ms, "", out);
    add_number(r->registers, "%.0f", out);
    add_number(r->smem_bytes, "%.0f", out);
    mk_text_add(out, "</tr>\n");
  }
}

static void add_card(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  const mk_gpu_peaks *s = &p->peaks;
  mk_html_escape(out, p->gpu);
  mk_text_addf(out, ", %d multiprocessors. ", p->sms);
  if (measured(p)) {
    mk_text_addf(out, "Measured: %.1f TFLOP/s in a large bf16 matmul, %.3f TB/s copied. ", p->ceilings.matmul_tflops,
                 p->ceilings.copy_tbs);
  } else {
    mk_text_add(out, "What it really reaches was not measured. ");
  }
  mk_text_addf(out, "%s: %.4g (bf16), %.4g (tf32), %.4g (f32) TFLOP/s, %.3g TB/s.",
               s->estimated ? "Estimated from units and clocks" : "Data sheet", s->bf16_tflops, s->tf32_tflops, s->f32_tflops,
               s->memory_tbs);
}

static void add_steps(const void *subject, mk_text *out) {
  const mk_profile *p = subject;
  mk_text_addf(out, "%.3f ms", p->steps_ms);
}

static void add_bars(const void *subject, mk_text *out) { mk_svg_bars(subject, out); }
static void add_roofline(const void *subject, mk_text *out) { mk_svg_roofline(subject, out); }

void mk_profile_page(const mk_profile *p, mk_text *out, mk_status *st) {
  static const mk_html_part parts[] = {{"title", add_title},   {"subject", add_subject},   {"tiles", add_tiles},
                                       {"bars", add_bars},     {"roofline", add_roofline}, {"kinds", add_kinds},
                                       {"groups", add_groups}, {"card", add_card},         {"steps", add_steps}};
  mk_html_fill(mk_profile_skeleton, parts, (int)(sizeof parts / sizeof *parts), p, out, st);
}

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/cli/profile_html.h"

/* A piece that is wide enough shows its label, or at least the short one. */
static void add_piece(double x, double width, double y, double height, const char *label, const char *brief, mk_text *out) {
  enum { LETTER = 8, MARGIN = 8 };
  bool thin = width < 3; /* no room for a border */
  mk_text_addf(out, "<rect%s x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%.0f\"/>", thin ? " class=\"thin\"" : "", x, y, width,
               height);
  const char *text = LETTER * (double)strlen(label) + MARGIN <= width ? label : brief;
  if (LETTER * (double)strlen(text) + MARGIN > width) return;
  mk_text_addf(out, "<text x=\"%.2f\" y=\"%.0f\">", x + width / 2, y + height / 2 + 5);
  mk_html_escape(out, text);
  mk_text_add(out, "</text>");
}

/* A group's name up to the colon before its operations; else its number in the table. */
static void add_group_piece(const mk_profile *p, int i, double x, double width, double y, double height, mk_text *out) {
  const mk_profile_row *r = &p->rows[i];
  char label[128], number[16];
  snprintf(label, sizeof label, "%.*s", (int)strcspn(r->name, ":"), r->name);
  snprintf(number, sizeof number, "%d", i + 1);
  mk_text_addf(out, "<g class=\"kind-%s\">", mk_profile_kind_name(r->kind));
  mk_html_group_title(p, r, out);
  add_piece(x, width, y, height, label, number, out);
  mk_text_add(out, "</g>\n");
}

void mk_svg_bars(const mk_profile *p, mk_text *out) {
  enum { WIDTH = 1000, KINDS_Y = 4, GROUPS_Y = 60, HEIGHT = 48 };
  mk_profile_row kinds[MK_PROFILE_KINDS];
  int nkinds = mk_profile_by_kind(p, kinds);
  double all = mk_profile_sum_ms(p), x = 0;
  mk_text_addf(out, "<svg class=\"bars\" viewBox=\"0 0 %d 112\" role=\"img\" aria-label=\"time by kind and by group\">\n", WIDTH);
  for (int k = 0; k < nkinds && all > 0; k++) {
    char label[64];
    double start = x, width = WIDTH * kinds[k].ms / all;
    snprintf(label, sizeof label, "%s %.1f%%", kinds[k].kind, 100 * kinds[k].ms / all);
    mk_text_addf(out, "<g class=\"kind-%s\"><title>%s: %.3f ms</title>", kinds[k].kind, label, kinds[k].ms);
    add_piece(x, width, KINDS_Y, HEIGHT, label, kinds[k].kind, out);
    mk_text_add(out, "</g>\n");
    for (int i = 0; i < p->nrows; i++) {
      const mk_profile_row *r = &p->rows[i];
      if (mk_profile_kind_index(r->kind) != mk_profile_kind_index(kinds[k].kind)) continue;
      add_group_piece(p, i, start, WIDTH * r->ms / all, GROUPS_Y, HEIGHT, out);
      start += WIDTH * r->ms / all;
    }
    x += width;
  }
  mk_text_add(out, "</svg>\n");
}

/* ---- roofline */

typedef struct axes { /* decimal logarithms at the plot's edges */
  double x0, x1, y0, y1;
} axes;

enum { LEFT = 60, RIGHT = 980, TOP = 16, BOTTOM = 420, PLOT_HEIGHT = 470, MAX_NUMBERS = 20 };

static double at_x(const axes *a, double intensity) {
  return LEFT + (RIGHT - LEFT) * (log10(intensity) - a->x0) / (a->x1 - a->x0);
}
static double at_y(const axes *a, double tflops) { return BOTTOM - (BOTTOM - TOP) * (log10(tflops) - a->y0) / (a->y1 - a->y0); }

/* Operations of rows and copies are not counted. They are shown as if they did one for every byte: then their distance to the
 * slope is that of their traffic to the memory's rate, as it should be. */
static double flop_of(const mk_profile_row *r) { return r->flop > 0 ? r->flop : r->bytes; }
static bool plotted(const mk_profile *p, const mk_profile_row *r) {
  const double least = 1e-4; /* of the time: shorter groups would stretch the axes for nothing */
  return r->bytes > 0 && r->ms > 0 && r->ms >= least * mk_profile_sum_ms(p);
}
static double intensity_of(const mk_profile_row *r) { return flop_of(r) / r->bytes; }
static double tflops_of(const mk_profile_row *r) { return mk_profile_rate(flop_of(r), r->ms, 1e12); }

/* Around all dots and the place where the sheet's lines meet, with a margin. */
static axes axes_for(const mk_profile *p) {
  double ridge = p->peaks.bf16_tflops / p->peaks.memory_tbs, top = fmax(p->peaks.bf16_tflops, p->ceilings.matmul_tflops);
  double x0 = ridge, x1 = 2 * ridge, y0 = top / 10, y1 = top;
  for (int i = 0; i < p->nrows; i++) {
    const mk_profile_row *r = &p->rows[i];
    if (!plotted(p, r)) continue;
    x0 = fmin(x0, intensity_of(r));
    x1 = fmax(x1, intensity_of(r));
    y0 = fmin(y0, tflops_of(r));
    y1 = fmax(y1, tflops_of(r));
  }
  const double margin = 0.3;
  return (axes){log10(x0) - margin, log10(x1) + margin, log10(y0) - margin, log10(y1) + 1.5 * margin};
}

static void add_grid(const axes *a, mk_text *out) {
  mk_text_add(out, "<g class=\"grid\">\n");
  for (double d = ceil(a->x0); d <= a->x1; d++) {
    double x = at_x(a, pow(10, d));
    mk_text_addf(
        out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n", x,
        TOP, x, BOTTOM, x, BOTTOM + 18, pow(10, d));
  }
  for (double d = ceil(a->y0); d <= a->y1; d++) {
    double y = at_y(a, pow(10, d));
    mk_text_addf(out,
                 "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                 LEFT, y, RIGHT, y, LEFT - 6, y + 4, pow(10, d));
  }
  mk_text_addf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">FLOP per byte of the least traffic</text>\n",
               (LEFT + RIGHT) / 2, BOTTOM + 40);
  mk_text_addf(out, "<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">TFLOP/s</text>\n</g>\n",
               (TOP + BOTTOM) / 2, (TOP + BOTTOM) / 2);
}

/* The slope of the memory up to the arithmetic's rate, and on along that; and line `entry` of the legend, which stands where no
 * dot can be: above the slope. */
static void add_roof(const axes *a, int entry, const char *class, const char *what, double tflops, double tbs, mk_text *out) {
  double left = pow(10, a->x0), right = pow(10, a->x1), bottom = pow(10, a->y0), ridge = tflops / tbs;
  double from = fmax(left, bottom / tbs); /* where the slope enters the plot */
  mk_text_addf(out, "<polyline class=\"roof %s\" points=\"", class);
  if (from < ridge) mk_text_addf(out, "%.1f,%.1f ", at_x(a, from), at_y(a, from * tbs));
  mk_text_addf(out, "%.1f,%.1f %.1f,%.1f\"/>\n", at_x(a, fmax(ridge, left)), at_y(a, tflops), at_x(a, fmax(right, ridge)),
               at_y(a, tflops));
  int y = TOP + 16 + 20 * entry;
  mk_text_addf(out, "<line class=\"roof %s\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>", class, LEFT + 12, y, LEFT + 52, y);
  mk_text_addf(out, "<text class=\"legend\" x=\"%d\" y=\"%d\">%s: %.4g TFLOP/s, %.3g TB/s</text>\n", LEFT + 60, y + 4, what,
               tflops, tbs);
}

/* Roofs of the arithmetic that the tensor-core groups use; bf16's always. */
static void add_roofs(const mk_profile *p, const axes *a, mk_text *out) {
  static const char *const sheets[] = {"data sheet, bf16", "data sheet, tf32", "data sheet, f32"};
  static const char *const measured[] = {"measured, bf16", "from measured bf16, tf32", "from measured bf16, f32"};
  const double rates[] = {p->peaks.bf16_tflops, p->peaks.tf32_tflops, p->peaks.f32_tflops};
  int entries = 0;
  for (int k = 0; k < MK_ARITHMETIC_COUNT; k++) {
    double real = mk_profile_measured_tflops(p, (mk_arithmetic)k);
    bool used = k == MK_ARITHMETIC_BF16;
    for (int i = 0; i < p->nrows && !used; i++) {
      const mk_profile_row *r = &p->rows[i];
      used = (int)r->arithmetic == k && r->flop > 0 && mk_profile_kind_index(r->kind) < mk_profile_kind_index("row");
    }
    if (!used) continue;
    add_roof(a, entries++, "sheet", sheets[k], rates[k], p->peaks.memory_tbs, out);
    if (real > 0) add_roof(a, entries++, "measured", measured[k], real, p->ceilings.copy_tbs, out);
  }
}

typedef struct numbers { /* written so far */
  double x[MAX_NUMBERS], y[MAX_NUMBERS];
  int count;
} numbers;

/* Claims the place of a number unless one is there already. */
static bool claim(numbers *n, double x, double y) {
  for (int i = 0; i < n->count; i++)
    if (fabs(n->x[i] - x) < 18 && fabs(n->y[i] - y) < 13) return false;
  if (n->count == MAX_NUMBERS) return false;
  n->x[n->count] = x;
  n->y[n->count++] = y;
  return true;
}

/* The dot's area goes with its time; the longest are numbered as in the table. */
static void add_dot(const mk_profile *p, const axes *a, int i, double all, numbers *taken, mk_text *out) {
  const mk_profile_row *r = &p->rows[i];
  double x = at_x(a, intensity_of(r)), y = at_y(a, tflops_of(r)), radius = fmax(3.5, 36 * sqrt(r->ms / all));
  mk_text_addf(out, "<g class=\"dot%s kind-%s\">", r->flop > 0 ? "" : " uncounted", mk_profile_kind_name(r->kind));
  mk_html_group_title(p, r, out);
  mk_text_addf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", x, y, radius);
  bool inside = radius >= 10;
  double at = inside ? x : x + radius + 3;
  if (claim(taken, at, y))
    mk_text_addf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">%d</text>", inside ? "inside" : "beside", at, y + 4, i + 1);
  mk_text_add(out, "</g>\n");
}

void mk_svg_roofline(const mk_profile *p, mk_text *out) {
  axes a = axes_for(p);
  double all = mk_profile_sum_ms(p);
  numbers taken = {0};
  mk_text_addf(out, "<svg class=\"roofline\" viewBox=\"0 0 1000 %d\" role=\"img\" aria-label=\"roofline\">\n", PLOT_HEIGHT);
  add_grid(&a, out);
  add_roofs(p, &a, out);
  for (int i = 0; i < p->nrows; i++) /* longest first, so that small dots lie on top */
    if (plotted(p, &p->rows[i])) add_dot(p, &a, i, all, &taken, out);
  mk_text_add(out, "</svg>\n");
}

/* The page of a sweep: one plot for each number of interest, one line for each combination of the axes that are not along x. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/html.h"
#include "runtime/cli/sweep.h"

MK_HTML_EMBED(mk_sweep_skeleton, "runtime/cli/sweep_page.html");

enum { LEFT = 70, RIGHT = 980, TOP = 14, BOTTOM = 330, LINES = 8, LEGEND_ROW = 20 };

typedef double (*number_fn)(const mk_point *p);
static double ms_of(const mk_point *p) { return p->ms; }
static double tflops_of(const mk_point *p) { return p->tflops; }
static double registers_of(const mk_point *p) { return p->registers; }
static double smem_of(const mk_point *p) { return p->smem_bytes / 1024.0; }

static bool usable(const mk_sweep_result *r, const mk_point *p) { return !p->message && (p->ms >= 0 || !r->timed); }

/* The axis along x: of those with numbers the one with most values; else the first. */
static int x_axis(const mk_sweep_result *r) {
  int best = 0;
  for (int i = 1; i < r->naxes; i++) {
    const mk_axis *a = &r->axes[i], *b = &r->axes[best];
    if ((a->numeric && !b->numeric) || (a->numeric == b->numeric && a->n > b->n)) best = i;
  }
  return best;
}

/* Number of the combination of the other axes' values. */
static int line_of(const mk_sweep_result *r, const mk_point *p, int x) {
  int line = 0;
  for (int i = 0; i < r->naxes; i++)
    if (i != x) line = line * r->axes[i].n + p->at[i];
  return line;
}

static double x_value(const mk_axis *a, int i) { return a->numeric ? atof(a->values[i]) : i; }

typedef struct scale { /* value -> 0..1 */
  double low, high;
  bool log;
} scale;

static double place(const scale *s, double v) {
  if (s->high <= s->low) return 0.5;
  return s->log ? log(v / s->low) / log(s->high / s->low) : (v - s->low) / (s->high - s->low);
}

static scale x_scale(const mk_axis *a) {
  scale s = {x_value(a, 0), x_value(a, 0), false};
  for (int i = 1; i < a->n; i++) {
    s.low = fmin(s.low, x_value(a, i));
    s.high = fmax(s.high, x_value(a, i));
  }
  s.log = a->numeric && s.low > 0 && s.high >= 8 * s.low;
  return s;
}

/* From 0, unless the values span much: then by powers. */
static scale y_scale(const mk_sweep_result *r, number_fn number) {
  double low = INFINITY, high = 0;
  for (int i = 0; i < r->npoints; i++) {
    if (!usable(r, &r->points[i])) continue;
    double v = number(&r->points[i]);
    if (v > 0) low = fmin(low, v);
    high = fmax(high, v);
  }
  if (high > 20 * low) return (scale){low / 1.2, high * 1.2, true};
  return (scale){0, high > 0 ? high * 1.08 : 1, false};
}

static double at_x(const scale *s, double v) { return LEFT + 10 + (RIGHT - LEFT - 20) * place(s, v); }
static double at_y(const scale *s, double v) { return BOTTOM - (BOTTOM - TOP) * place(s, v); }

/* 1, 2 or 5 times a power of ten, not above v. */
static double round_step(double v) {
  double power = pow(10, floor(log10(v)));
  return power * (v >= 5 * power ? 5 : v >= 2 * power ? 2 : 1);
}

static void add_grid(const mk_axis *a, const scale *x, const scale *y, const char *what, mk_text *out) {
  mk_text_add(out, "<g class=\"grid\">\n");
  for (int i = 0; i < a->n; i++) {
    double at = at_x(x, x_value(a, i));
    mk_text_addf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", at,
                 TOP, at, BOTTOM, at, BOTTOM + 18);
    mk_html_escape(out, a->values[i]);
    mk_text_add(out, "</text>\n");
  }
  double step = round_step(y->high / 4);
  for (int i = 0; y->log ? i <= 4 : i * step <= y->high; i++) {
    double v = y->log ? y->low * pow(y->high / y->low, i / 4.0) : i * step;
    mk_text_addf(out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>", LEFT, at_y(y, v), RIGHT, at_y(y, v));
    mk_text_addf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>\n", LEFT - 6, at_y(y, v) + 4, v);
  }
  mk_text_addf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + RIGHT) / 2, BOTTOM + 38);
  mk_html_escape(out, a->name);
  mk_text_addf(out, "</text><text x=\"14\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 14 %d)\">%s</text>\n</g>\n",
               (TOP + BOTTOM) / 2, (TOP + BOTTOM) / 2, what);
}

static void add_names(const mk_sweep_result *r, const mk_point *p, int but, mk_text *out) {
  bool any = false;
  for (int i = 0; i < r->naxes; i++) {
    if (i == but) continue;
    mk_text_add(out, any ? ", " : "");
    mk_html_escape(out, r->axes[i].name);
    mk_text_add(out, "=");
    mk_html_escape(out, r->axes[i].values[p->at[i]]);
    any = true;
  }
}

/* The line's points, in the order of the axis as given. */
static void add_line(const mk_sweep_result *r, int line, int x, const scale *sx, const scale *sy, number_fn number,
                     mk_text *out) {
  const mk_point *first = NULL;
  mk_text dots = {0};
  mk_text_addf(out, "<g class=\"s%d\"><polyline points=\"", line % LINES);
  for (int i = 0; i < r->npoints; i++) {
    const mk_point *p = &r->points[i];
    if (line_of(r, p, x) != line) continue;
    if (!first) first = p;
    if (!usable(r, p)) continue;
    double px = at_x(sx, x_value(&r->axes[x], p->at[x])), py = at_y(sy, number(p));
    mk_text_addf(out, "%.1f,%.1f ", px, py);
    mk_text_addf(&dots, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>", px, py);
    add_names(r, p, -1, &dots);
    mk_text_addf(&dots, ": %.5g; ", number(p));
    mk_html_escape(&dots, p->candidate ? p->candidate : "");
    mk_text_add(&dots, "</title></circle>\n");
  }
  mk_text_addf(out, "\"/>\n%s", mk_text_str(&dots));
  mk_text_free(&dots);
  int y = BOTTOM + 62 + LEGEND_ROW * line;
  mk_text_addf(out, "<circle cx=\"%d\" cy=\"%d\" r=\"5\"/><text class=\"legend\" x=\"%d\" y=\"%d\">", LEFT + 8, y - 4, LEFT + 22,
               y);
  if (first) add_names(r, first, x, out);
  mk_text_add(out, "</text></g>\n");
}

static void add_plot(const mk_sweep_result *r, const char *title, const char *unit, number_fn number, mk_text *out) {
  int x = x_axis(r), lines = r->npoints / r->axes[x].n, shown = lines < 4 * LINES ? lines : 4 * LINES;
  scale sx = x_scale(&r->axes[x]), sy = y_scale(r, number);
  mk_text_addf(out, "<h2>%s</h2>\n<svg viewBox=\"0 0 1000 %d\" role=\"img\" aria-label=\"%s\">\n", title,
               BOTTOM + 56 + LEGEND_ROW * shown, title);
  add_grid(&r->axes[x], &sx, &sy, unit, out);
  for (int i = 0; i < shown; i++) add_line(r, i, x, &sx, &sy, number, out);
  mk_text_add(out, "</svg>\n");
  if (shown < lines) mk_text_addf(out, "<p>%d of %d lines are shown; the table has all.</p>\n", shown, lines);
}

static void add_plots(const void *subject, mk_text *out) {
  const mk_sweep_result *r = subject;
  if (r->timed) {
    add_plot(r, "Time", "ms", ms_of, out);
    add_plot(r, "Rate", "TFLOP/s", tflops_of, out);
  } else {
    add_plot(r, "Registers of a thread", "registers", registers_of, out);
    add_plot(r, "Shared memory of a block", "KiB", smem_of, out);
  }
}

static void add_title(const void *subject, mk_text *out) { mk_html_escape(out, ((const mk_sweep_result *)subject)->graph); }

static void add_target(const void *subject, mk_text *out) {
  const mk_sweep_result *r = subject;
  mk_html_escape(out, r->target);
  mk_text_add(out, r->timed ? ": the whole program; registers and memory of the group that takes longest"
                            : ": compiled only, the group that computes most; times need a GPU");
}

static void add_heads(const void *subject, mk_text *out) {
  const mk_sweep_result *r = subject;
  for (int i = 0; i < r->naxes; i++) {
    mk_text_add(out, "<th>");
    mk_html_escape(out, r->axes[i].name);
    mk_text_add(out, "</th>");
  }
  mk_text_add(out,
              "<th>ms</th><th>TFLOP/s</th><th>GB/s</th><th>of roofline</th><th>registers</th><th>shared</th><th>spills</th>"
              "<th>candidate</th>");
}

static void add_row(const mk_sweep_result *r, const mk_point *p, mk_text *out) {
  mk_text_add(out, "<tr>");
  for (int i = 0; i < r->naxes; i++) {
    mk_text_add(out, "<td>");
    mk_html_escape(out, r->axes[i].values[p->at[i]]);
    mk_text_add(out, "</td>");
  }
  if (p->message || p->ms < 0)
    mk_text_add(out, "<td>–</td><td>–</td><td>–</td><td>–</td>");
  else
    mk_text_addf(out, "<td>%.4f</td><td>%.1f</td><td>%.0f</td><td>%.0f%%</td>", p->ms, p->tflops, p->gbs, 100 * p->roofline);
  mk_text_addf(out, "<td>%d</td><td>%d</td><td>%d</td><td>", p->registers, p->smem_bytes, p->spill_bytes);
  mk_html_escape(out, p->message ? p->message : p->candidate ? p->candidate : "");
  mk_text_add(out, "</td></tr>\n");
}

static void add_rows(const void *subject, mk_text *out) {
  const mk_sweep_result *r = subject;
  for (int i = 0; i < r->npoints; i++) add_row(r, &r->points[i], out);
}

void mk_sweep_page(const mk_sweep_result *r, mk_text *out, mk_status *st) {
  static const mk_html_part parts[] = {
      {"title", add_title}, {"target", add_target}, {"plots", add_plots}, {"heads", add_heads}, {"rows", add_rows}};
  mk_html_fill(mk_sweep_skeleton, parts, (int)(sizeof parts / sizeof *parts), r, out, st);
}

#include "runtime/cli/sweep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/sidecar.h"
#include "runtime/base/file.h"
#include "runtime/cli/variants.h"
#include "runtime/cli/watch.h"
#include "runtime/gpu/device.h"

/* ---- axes */

static bool whole_number(const char *s, const char *end, int64_t *out) {
  char *stop;
  errno = 0;
  *out = strtoll(s, &stop, 10);
  return stop == end && end > s && !errno;
}

static bool add_value(mk_axis *a, const char *value, const char *text, mk_status *st) {
  if (a->n == MK_SWEEP_VALUES) return mk_fail(st, MK_EINPUT, "--sweep %s: more than %d values", text, MK_SWEEP_VALUES), false;
  char *stop;
  strtod(value, &stop);
  a->numeric = (a->n == 0 || a->numeric) && *value && !*stop;
  a->values[a->n++] = value;
  return true;
}

/* "1024..131072": the first, doubled as long as it is not beyond the last. */
static bool add_doublings(mk_axis *a, const char *from, const char *dots, const char *end, const char *text, mk_arena *arena,
                          mk_status *st) {
  int64_t low, high;
  if (!whole_number(from, dots, &low) || !whole_number(dots + 2, end, &high) || low < 1 || high < low)
    return mk_fail(st, MK_EINPUT, "--sweep %s: give a range as in 1024..131072, whole numbers from 1 on, the smaller first",
                   text),
           false;
  for (; low <= high && low <= INT64_MAX / 2; low *= 2)
    if (!add_value(a, mk_printf(arena, "%lld", (long long)low), text, st)) return false;
  return true;
}

bool mk_sweep_parse(const char *text, mk_axis *out, mk_arena *arena, mk_status *st) {
  const char *eq = strchr(text, '=');
  *out = (mk_axis){0};
  if (!eq || eq == text || !eq[1] || eq - text >= (int)sizeof out->name)
    return mk_fail(st, MK_EINPUT, "--sweep %s: give NAME=VALUE,VALUE or NAME=FROM..TO", text), false;
  snprintf(out->name, sizeof out->name, "%.*s", (int)(eq - text), text);
  for (const char *p = eq + 1; *p;) {
    const char *end = p + strcspn(p, ","), *dots = strstr(p, "..");
    bool ok = dots && dots < end ? add_doublings(out, p, dots, end, text, arena, st)
                                 : add_value(out, mk_strndup(arena, p, (size_t)(end - p)), text, st);
    if (!ok) return false;
    p = end + (*end == ',');
  }
  return true;
}

/* A name that a template has for a tunable is that; "params.NAME" is always the script's. */
static bool name_axis(mk_axis *a, mk_sidecars *s, mk_status *st) {
  static const char prefix[] = "params.";
  bool found = true;
  if (!strncmp(a->name, prefix, sizeof prefix - 1)) {
    memmove(a->name, a->name + sizeof prefix - 1, strlen(a->name) - sizeof prefix + 2);
    return true;
  }
  a->tunable = mk_sidecars_tunable(s, a->name, 0, &found) != NULL;
  for (int i = 0; a->tunable && i < a->n; i++) {
    int64_t value;
    const char *known = NULL;
    if (!whole_number(a->values[i], a->values[i] + strlen(a->values[i]), &value) ||
        !((known = mk_sidecars_tunable(s, a->name, value, &found)) && found)) {
      mk_fail(st, MK_EINPUT, "--sweep %s=%s: no template has that value; there are %s", a->name, a->values[i],
              known ? known : mk_sidecars_tunable(s, a->name, 0, &found));
      return false;
    }
  }
  return true;
}

static bool read_axes(mk_sweep_result *r, const mk_measure *m, const mk_text_list *axes, mk_status *st) {
  mk_plan_options o;
  if (axes->count > MK_SWEEP_AXES) return mk_fail(st, MK_EINPUT, "at most %d --sweep can be given", MK_SWEEP_AXES), false;
  if (!mk_cli_plan_options(m->device ? m->device->arch : m->arch, &r->arena, &o, st)) return false;
  o.trial = mk_cli_trial(&m->trial, &r->arena);
  mk_sidecars *s = mk_sidecars_open(o.templates, &o.trial, &(mk_target){.arch = o.arch}, st);
  int64_t points = 1;
  for (int i = 0; s && i < axes->count && !mk_failed(st); i++) {
    mk_axis *a = &r->axes[r->naxes++];
    if (mk_sweep_parse(axes->items[i], a, &r->arena, st)) name_axis(a, s, st);
    points *= a->n;
  }
  mk_sidecars_close(s);
  if (!mk_failed(st) && points > MK_SWEEP_POINTS)
    mk_fail(st, MK_EINPUT, "--sweep: %lld combinations; at most %d", (long long)points, MK_SWEEP_POINTS);
  r->npoints = (int)points;
  return !mk_failed(st);
}

/* ---- points */

/* Of the groups' first choices, or of those that ran: the one that takes longest, or computes most. */
static const mk_variant *heaviest(const mk_variants *v, const char *candidate) {
  const mk_variant *best = NULL;
  for (int i = 0; i < v->n; i++) {
    const mk_variant *o = &v->items[i];
    if (candidate ? strcmp(o->label, candidate) != 0 : !o->first) continue;
    if (!best || o->flop * o->calls > best->flop * best->calls ||
        (o->flop * o->calls == best->flop * best->calls && o->bytes * o->calls > best->bytes * best->calls))
      best = o;
  }
  return best;
}

/* Whether some group is held at all pinned values. */
static const char *unmet_pin(const mk_variants *v, const mk_measure *m, mk_arena *arena) {
  for (int i = 0; i < m->npins; i++) {
    const char *field = mk_printf(arena, " %s=%lld", m->pins[i].name, (long long)m->pins[i].value);
    bool met = false;
    for (int k = 0; k < v->n && !met; k++) {
      const char *at = strstr(v->items[k].label, field);
      met = at && (at[strlen(field)] == ' ' || !at[strlen(field)]);
    }
    if (!met) return mk_printf(arena, "no candidate of any group can have%s here", field);
  }
  return NULL;
}

static bool compile_point(const mk_measure *m, mk_sweep_result *r, mk_point *p, const char *candidate, mk_status *st) {
  mk_measure only = *m;
  mk_variants v;
  only.arch = m->device ? m->device->arch : m->arch;
  only.compile_only = true;
  bool ok = mk_variants_measure(&v, &only, st);
  if (ok) {
    const mk_variant *h = heaviest(&v, candidate);
    r->graph = mk_strdup(&r->arena, v.graph);
    if (!r->target) r->target = mk_strdup(&r->arena, v.target);
    p->message = unmet_pin(&v, m, &r->arena);
    if (h) {
      p->group = mk_strdup(&r->arena, h->group);
      p->candidate = mk_strdup(&r->arena, h->label);
      p->registers = h->registers < 0 ? 0 : h->registers;
      p->smem_bytes = h->smem_bytes;
      p->spill_bytes = h->spill_bytes;
      if (h->message) p->message = mk_strdup(&r->arena, h->message);
    }
  }
  mk_variants_free(&v);
  return ok;
}

static bool time_point(const mk_measure *m, mk_sweep_result *r, mk_point *p, mk_status *st) {
  mk_profile profile;
  bool ok = mk_profile_measure(&profile, m, st);
  if (ok) {
    double flop = 0, bytes = 0;
    for (int i = 0; i < profile.nrows; i++) {
      flop += profile.rows[i].flop;
      bytes += profile.rows[i].bytes;
    }
    p->ms = profile.graph_ms;
    p->tflops = mk_profile_rate(flop, p->ms, 1e12);
    p->gbs = mk_profile_rate(bytes, p->ms, 1e9);
    p->roofline = p->ms > 0 ? mk_profile_limit_sums(&profile, NULL).sheet_ms / p->ms : 0;
    r->target = mk_strdup(&r->arena, profile.gpu);
    if (profile.nrows) p->candidate = mk_strdup(&r->arena, profile.rows[0].candidate);
  }
  mk_profile_free(&profile);
  return ok;
}

/* False when there is no going on. */
static bool measure_point(const mk_measure *m, mk_sweep_result *r, mk_point *p, mk_status *st) {
  mk_measure here = *m;
  mk_pin pins[MK_SWEEP_AXES];
  mk_status why = {0};
  here.pins = pins;
  for (int i = 0; i < r->naxes; i++) {
    const mk_axis *a = &r->axes[i];
    const char *value = a->values[p->at[i]];
    if (a->tunable) {
      pins[here.npins++] = (mk_pin){a->name, strtoll(value, NULL, 10)};
    } else if (here.sets.count < MK_LIST_MAX) {
      here.sets.items[here.sets.count++] = mk_printf(&r->arena, "%s=%s", a->name, value);
    }
  }
  p->ms = -1;
  bool ok = !m->device || time_point(&here, r, p, &why);
  ok = ok && compile_point(&here, r, p, p->candidate, &why);
  if (!ok) p->message = mk_strdup(&r->arena, why.message);
  if (why.code != MK_EGPU && why.code != MK_EINTERRUPTED) return true;
  *st = why;
  return false;
}

static void place(mk_sweep_result *r, int number) {
  mk_point *p = &r->points[number];
  for (int i = r->naxes - 1; i >= 0; i--) { /* the last axis turns fastest */
    p->at[i] = number % r->axes[i].n;
    number /= r->axes[i].n;
  }
}

static void describe_point(const mk_sweep_result *r, const mk_point *p, mk_text *out) {
  for (int i = 0; i < r->naxes; i++) mk_text_addf(out, "%s%s=%s", i ? " " : "", r->axes[i].name, r->axes[i].values[p->at[i]]);
}

static bool measure_all(const mk_measure *m, mk_sweep_result *r, mk_status *st) {
  int good = 0;
  r->points = MK_NEW_ARRAY(&r->arena, mk_point, r->npoints);
  r->timed = m->device != NULL;
  for (int i = 0; i < r->npoints; i++) {
    mk_text name = {0};
    place(r, i);
    describe_point(r, &r->points[i], &name);
    bool ok = measure_point(m, r, &r->points[i], st);
    fprintf(stderr, "%d of %d: %s%s%.300s\n", i + 1, r->npoints, mk_text_str(&name), r->points[i].message ? ": " : "",
            r->points[i].message ? r->points[i].message : "");
    mk_text_free(&name);
    if (!ok) return false;
    good += !r->points[i].message;
  }
  if (!good) mk_fail(st, MK_EINPUT, "--sweep: no combination can be run; the first: %.1500s", r->points[0].message);
  return !mk_failed(st);
}

/* ---- out */

/* A field of a CSV file: quoted where it must be, on one line. */
static void add_field(const char *s, mk_text *out) {
  bool quoted = strpbrk(s, ",\"\n\r") != NULL;
  if (quoted) mk_text_add(out, "\"");
  for (; *s && *s != '\n' && *s != '\r'; s++) mk_text_addf(out, *s == '"' ? "\"\"" : "%c", *s);
  if (quoted) mk_text_add(out, "\"");
}

static void add_number(double v, bool known, mk_text *out) {
  mk_text_add(out, ",");
  if (known) mk_text_addf(out, "%.6g", v);
}

void mk_sweep_csv(const mk_sweep_result *r, mk_text *out) {
  for (int i = 0; i < r->naxes; i++) {
    add_field(r->axes[i].name, out);
    mk_text_add(out, ",");
  }
  mk_text_add(out, "ms,tflops,gbs,roofline_percent,registers,smem_bytes,spill_bytes,candidate,group,message\n");
  for (int k = 0; k < r->npoints; k++) {
    const mk_point *p = &r->points[k];
    bool timed = !p->message && p->ms >= 0, compiled = p->candidate && !p->message;
    for (int i = 0; i < r->naxes; i++) {
      if (i) mk_text_add(out, ",");
      add_field(r->axes[i].values[p->at[i]], out);
    }
    add_number(p->ms, timed, out);
    add_number(p->tflops, timed, out);
    add_number(p->gbs, timed, out);
    add_number(100 * p->roofline, timed, out);
    add_number(p->registers, compiled, out);
    add_number(p->smem_bytes, compiled, out);
    add_number(p->spill_bytes, compiled, out);
    const char *const texts[] = {p->message ? NULL : p->candidate, p->message ? NULL : p->group, p->message};
    for (int i = 0; i < 3; i++) {
      mk_text_add(out, ",");
      if (texts[i]) add_field(texts[i], out);
    }
    mk_text_add(out, "\n");
  }
}

static void write_out(const mk_sweep_result *r, const mk_sweep_request *asked, mk_status *st) {
  mk_text csv = {0}, page = {0};
  mk_sweep_csv(r, &csv);
  if (asked->html) mk_sweep_page(r, &page, st);
  if (csv.failed || page.failed) mk_fail(st, MK_ENOMEM, "out of host memory");
  if (asked->csv && !mk_failed(st)) mk_file_publish(asked->csv, mk_text_str(&csv), csv.len, st);
  if (asked->html && !mk_failed(st)) mk_file_publish(asked->html, mk_text_str(&page), page.len, st);
  if (!asked->csv && !mk_failed(st)) fputs(mk_text_str(&csv), stdout);
  mk_text_free(&csv);
  mk_text_free(&page);
}

void mk_sweep(const mk_measure *asked, const mk_sweep_request *request, mk_status *st) {
  mk_measure m = *asked;
  mk_status why = {0};
  mk_sweep_result r = {0};
  if (!m.weights.count && !m.seed) m.seed = 1;
  if (mk_watch_target(&m, request->arch, &why, st)) {
    if (!m.device) fprintf(stderr, "moonkiln: kernels are compiled for %s only: %s\n", request->arch, why.message);
    if (read_axes(&r, &m, &request->axes, st) && measure_all(&m, &r, st)) write_out(&r, request, st);
    mk_gpu_device_close(m.device);
  }
  mk_arena_free(&r.arena);
}

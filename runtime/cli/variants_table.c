#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/cli/variants.h"

/* The same variant in an earlier table: of the same place and label, whatever its code is now. */
static const mk_variant *find(const mk_variants *v, const mk_variant *like) {
  for (int i = 0; v && i < v->n; i++) {
    const mk_variant *o = &v->items[i];
    if (o->ordinal == like->ordinal && !strcmp(o->kind, like->kind) && !strcmp(o->label, like->label)) return o;
  }
  return NULL;
}

static void add_change(const mk_variant *v, const mk_variants *before, mk_text *out) {
  const mk_variant *old = find(before, v);
  if (!before) return;
  if (!old) {
    mk_text_add(out, "  new");
  } else if (v->ms > 0 && old->ms > 0) {
    mk_text_addf(out, "  %+.1f%%%s", 100 * (v->ms / old->ms - 1), v->code == old->code ? ", same code" : "");
  } else if (v->code == old->code) {
    mk_text_add(out, "  same code");
  } else {
    mk_text_addf(out, "  registers %+d, spills %+d", v->registers - old->registers, v->spill_bytes - old->spill_bytes);
  }
}

static void add_count(int value, int width, mk_text *out) {
  if (value < 0)
    mk_text_addf(out, " %*s", width, "-");
  else
    mk_text_addf(out, " %*d", width, value);
}

static void add_variant(const mk_variants *all, const mk_variant *v, const mk_variants *before, mk_text *out) {
  bool marked = all->reference ? v->best : v->first;
  mk_text_addf(out, "%c %-56s", marked ? '*' : ' ', v->label);
  if (v->message) {
    mk_text_add(out, " fails, see below\n");
    return;
  }
  if (v->ms >= 0) {
    mk_text_addf(out, " %10.2f %7.0f%%", 1e3 * v->ms, v->ms > 0 ? 100 * v->limit_ms / v->ms : 0);
    mk_text_addf(out, " %8.1e%c", v->error, v->error <= 0.05 ? ' ' : '!');
  } else {
    mk_text_addf(out, " %10s %8s %8s ", "-", "-", "-");
  }
  add_count(v->registers, 5, out);
  add_count(v->registers < 0 ? -1 : v->smem_bytes, 7, out);
  add_count(v->registers < 0 ? -1 : v->spill_bytes, 6, out);
  add_change(v, before, out);
  mk_text_add(out, "\n");
}

void mk_variants_print(const mk_variants *v, const mk_variants *before, mk_text *out) {
  mk_text_addf(out, "  %-56s %10s %8s %9s %5s %7s %6s%s\n", "variant", "us", "roofline", "error", "regs", "smem", "spills",
               before ? "  since the last save" : "");
  for (int i = 0; i < v->n; i++) {
    const mk_variant *one = &v->items[i];
    bool opens = !i || one[-1].ordinal != one->ordinal || strcmp(one[-1].kind, one->kind) != 0;
    if (opens) {
      mk_text_addf(out, "%s, %.72s", one->kind, one->group);
      if (one->calls > 1) mk_text_addf(out, " (%d times)", one->calls);
      if (one->flop > 0) mk_text_addf(out, ", %.4g GFLOP", one->flop * 1e-9);
      mk_text_addf(out, ", %.4g MB\n", one->bytes * 1e-6);
    }
    add_variant(v, one, before, out);
  }
  for (int i = 0; i < v->n; i++)
    if (v->items[i].message) mk_text_addf(out, "\n%s: %s\n", v->items[i].label, v->items[i].message);
  if (v->reference)
    mk_text_addf(out, "%s, %s on %s: %.2f us as planned; * is the fastest; errors against %s\n", v->graph, v->entry, v->target,
                 1e3 * v->whole_ms, v->reference);
  else
    mk_text_addf(out, "%s, %s for %s, compiled only: times and errors need a GPU; * is the plan's choice\n", v->graph, v->entry,
                 v->target);
}

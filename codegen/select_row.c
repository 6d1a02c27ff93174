/* Row programs as candidates, and the kernels of the plan. */
#include <stdio.h>
#include <string.h>

#include "codegen/planner.h"
#include "runtime/base/hash.h"

enum { ROW_SHAPES = 3, ROW_WALKS = 2 };

/* ---- kernels */

bool mk_memo_find(mk_planner *p, const char *key, mk_memo **out) {
  uint64_t hash = mk_hash64(key, strlen(key));
  for (mk_memo *m = p->memo[hash % MK_MEMO_SLOTS]; m; m = m->next)
    if (m->hash == hash && !strcmp(m->key, key)) {
      *out = m;
      return true;
    }
  mk_memo *m = MK_NEW(p->temp, mk_memo);
  *m = (mk_memo){.hash = hash, .key = mk_strdup(p->temp, key), .kernel = -1, .next = p->memo[hash % MK_MEMO_SLOTS]};
  p->memo[hash % MK_MEMO_SLOTS] = m;
  *out = m;
  return false;
}

int mk_add_kernel(mk_planner *p, const char *prefix, const char *defines, const char *text, int min_arch, bool arch_specific) {
  char hex[MK_HASH_HEX];
  mk_text whole = {0};
  mk_text_add(&whole, defines);
  mk_text_add(&whole, text);
  mk_memo *same;
  if (mk_memo_find(p, mk_text_str(&whole), &same)) { /* bodies that differ in what the text does not show */
    mk_text_free(&whole);
    return same->kernel;
  }
  mk_hash_hex(mk_text_str(&whole), whole.len, hex);
  const char *name = mk_printf(p->arena, "%s_%.10s", prefix, hex);
  mk_text_clear(&whole);
  mk_text_addf(&whole, "#define KERNEL %s\n", name);
  const char *const parts[] = {defines, p->prelude, "\n", p->row_code, "\n", text};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) mk_text_add(&whole, parts[i]);
  mk_kernel k = {name, mk_strdup(p->arena, mk_text_str(&whole)), min_arch, arch_specific,
                 mk_hash64(mk_text_str(&whole), whole.len)};
  mk_text_free(&whole);
  MK_PUSH(p->arena, p->plan->kernels, p->plan->nkernels, p->kernels_cap, k);
  return same->kernel = p->plan->nkernels - 1;
}

/* ---- values of fields */

void mk_bind_fields(const mk_planner *p, const mk_draft *d, const mk_body *b, bool prologue, const mk_fields *fields,
                    mk_arg *args) {
  for (int i = 0; i < fields->n; i++) {
    const mk_field *f = &fields->items[i];
    mk_arg *a = &args[i];
    if (f->prologue != prologue) continue;
    const mk_access *x = f->what == MK_FIELD_POINTER || f->what == MK_FIELD_STRIDE || f->what == MK_FIELD_INDEX_STRIDE
                             ? &b->accesses[f->access]
                             : NULL;
    a->kind = f->kind;
    a->offset = f->offset;
    switch (f->what) {
      case MK_FIELD_POINTER: a->ref = mk_locate(p, d, x->buffer, x->offset, x->dtype); break;
      case MK_FIELD_STRIDE: a->i = x->stride[f->axis]; break;
      case MK_FIELD_INDEX_STRIDE: a->i = x->index_stride; break;
      case MK_FIELD_EXTENT: a->i = b->extent[f->axis]; break;
      case MK_FIELD_ROWS: a->i = mk_body_rows(b); break;
      case MK_FIELD_NAMED: break; /* the template's; bound by its caller */
    }
  }
}

/* ---- row programs */

double mk_row_cost(const mk_planner *p, const mk_body *b) { return mk_body_bytes(b) / (p->target.copy_tbs * 1e12) + 2e-6; }

static mk_memo *row_kernel(mk_planner *p, const mk_body *b, const mk_row_shape *s) {
  mk_text key = {0};
  mk_memo *m;
  mk_text_addf(&key, "row %d %d %d %d %d %d\n", s->v, s->threads, s->rows, s->items, s->stages, s->blocks);
  mk_body_key(b, &key);
  if (!mk_memo_find(p, mk_text_str(&key), &m)) {
    mk_text text = {0}, name = {0};
    mk_fields fields = {0};
    const char *ahead = s->stages ? mk_sidecars_text(p->sidecars, "row_ahead.cuh", p->st) : NULL;
    if (ahead) mk_text_add(&text, ahead);
    if (ahead) mk_text_add(&text, "\n");
    mk_emit_row(b, s, &fields, p->arena, &text);
    mk_text_add(&name, "row_");
    mk_body_summary(b, &name);
    if (b->reduces) mk_text_addf(&name, "_%lld", (long long)mk_body_cols(b));
    m->fields = fields;
    m->kernel = mk_add_kernel(p, mk_text_str(&name), "", mk_text_str(&text), 80, false);
    mk_text_free(&text);
    mk_text_free(&name);
  }
  mk_text_free(&key);
  return m;
}

bool mk_row_launch(mk_planner *p, const mk_draft *d, const mk_body *b, const mk_row_shape *s, mk_launch *out) {
  int64_t rows = mk_body_rows(b);
  if (s->stages && rows > INT32_MAX) return false;
  if (rows > UINT32_MAX || (rows + s->rows - 1) / s->rows > INT32_MAX) {
    mk_fail(p->st, MK_EUNSUPPORTED, "a row program over %lld rows; at most 2^32", (long long)rows);
    return false;
  }
  const mk_memo *m = row_kernel(p, b, s);
  mk_arg *args = MK_NEW_ARRAY(p->arena, mk_arg, m->fields.n);
  mk_bind_fields(p, d, b, false, &m->fields, args);
  *out = (mk_launch){.kind = MK_LAUNCH_KERNEL, .kernel = m->kernel, .block = {(uint32_t)(s->threads * s->rows), 1, 1}};
  out->grid[0] = (uint32_t)((rows + s->rows - 1) / s->rows);
  out->grid[1] = out->grid[2] = 1;
  if (s->stages) {
    int64_t most = (int64_t)p->target.sms * s->blocks;
    out->grid[0] = (uint32_t)(rows < most ? rows : most);
    out->smem = (uint32_t)mk_row_ring_bytes(b, s);
  }
  out->param_bytes = m->fields.bytes;
  out->nargs = m->fields.n;
  out->args = args;
  return true;
}

/* Blocks with a row each come in waves; those that stay fetch their first rows, and are as fast as memory but for a little. */
static double shape_cost(const mk_planner *p, const mk_body *b, const mk_row_shape *s) {
  double traffic = mk_row_cost(p, b), waves = (double)mk_body_rows(b) / ((double)p->target.sms * s->blocks),
         life = mk_row_life(b);
  if (s->stages) return 1.03 * traffic + life;
  return b->reduces && s->threads > 32 && waves * life > traffic ? waves * life : traffic;
}

int mk_row_candidates(mk_planner *p, const mk_draft *d, const mk_body *b, mk_candidate *out, int max) {
  mk_row_shape shapes[ROW_SHAPES + ROW_WALKS];
  const mk_body *lanes = b->reduces ? b : mk_body_lanes(b, mk_lane_count(b), p->temp);
  int once = mk_row_shapes(lanes, shapes, max < ROW_SHAPES ? max : ROW_SHAPES), left = max - once;
  int n = once + mk_row_walks(lanes, p->target.smem_limit, shapes + once, left < ROW_WALKS ? left : ROW_WALKS);
  for (int i = 0; i < n; i++) {
    mk_launch *launch = MK_NEW(p->arena, mk_launch);
    if (!mk_row_launch(p, d, lanes, &shapes[i], launch)) return i;
    const mk_row_shape *s = &shapes[i];
    char items[32] = "loop", ahead[32] = "";
    if (s->items) snprintf(items, sizeof items, "%d items", s->items);
    if (s->stages) snprintf(ahead, sizeof ahead, ", ahead=%d", s->stages - 1);
    out[i] = (mk_candidate){
        .label = mk_printf(p->arena, "row %d threads, %d rows, %s of %d%s", s->threads, s->rows, items, s->v, ahead),
        .nlaunches = 1,
        .launches = launch,
        .cost = shape_cost(p, b, s) * (1 + 0.01 * (i < once ? i : i - once))};
  }
  return n;
}

/* The order of work in a row, and how each access walks it. */
#include <string.h>

#include "codegen/emit_internal.h"

uint32_t mk_column_axes(const mk_body *b) {
  uint32_t axes = 0;
  for (int i = b->nrows; i < b->naxes; i++) axes |= 1u << i;
  return axes;
}

static int uses(const mk_inst *in, int out[3]) {
  int n = 0;
  if (in->a >= 0) out[n++] = in->a;
  if (in->b >= 0) out[n++] = in->b;
  if (in->c >= 0) out[n++] = in->c;
  return n;
}

static bool also_stored(const mk_body *b, const mk_inst *load) {
  for (int i = 0; i < b->naccesses; i++)
    if (b->accesses[i].store && b->accesses[i].buffer == b->accesses[load->access].buffer) return true;
  return false;
}

bool mk_walks_rows(const mk_body *b, int access) {
  for (int j = 0; j < b->nrows; j++)
    if (b->accesses[access].stride[j]) return true;
  return false;
}

void mk_find_phases(const mk_body *b, mk_arena *arena, mk_phases *out) {
  int n = b->ninsts, args[3];
  uint32_t columns = mk_column_axes(b);
  int *level = MK_NEW_ARRAY(arena, int, n); /* reductions it waits for */
  *out = (mk_phases){1, MK_NEW_ARRAY(arena, int, n), MK_NEW_ARRAY(arena, bool, n), MK_NEW_ARRAY(arena, bool, n)};
  for (int i = 0; i < n; i++) {
    const mk_inst *in = &b->insts[i];
    for (int k = uses(in, args) - 1; k >= 0; k--)
      if (level[args[k]] > level[i]) level[i] = level[args[k]];
    if (in->kind == MK_INST_REDUCE) level[i]++;
    if (level[i] + 1 > out->count) out->count = level[i] + 1;
    out->column[i] = in->axes & columns;
    out->phase[i] = -1;
  }
  for (int i = n - 1; i >= 0; i--) { /* as late as its first user allows: registers are held for less long */
    const mk_inst *in = &b->insts[i];
    if (!out->column[i] || out->phase[i] < level[i]) out->phase[i] = level[i];
    if (in->kind == MK_INST_LOAD && out->column[i] && also_stored(b, in)) out->phase[i] = 0;
    int when = in->kind == MK_INST_REDUCE ? level[i] - 1 : out->phase[i];
    for (int k = uses(in, args) - 1; k >= 0; k--)
      if (out->phase[args[k]] < 0 || out->phase[args[k]] > when) out->phase[args[k]] = when;
  }
  for (int i = 0; i < n; i++) {
    const mk_inst *in = &b->insts[i];
    int when = in->kind == MK_INST_REDUCE ? level[i] - 1 : out->phase[i];
    for (int k = uses(in, args) - 1; k >= 0; k--)
      if (out->column[args[k]] && out->phase[args[k]] < when) out->kept[args[k]] = true;
  }
}

/* The last phase that needs column value i. */
static int last_use(const mk_body *b, const mk_phases *ph, int i) {
  int last = ph->phase[i];
  for (int j = 0; ph->kept[i] && j < b->ninsts; j++) {
    const mk_inst *u = &b->insts[j];
    int when = ph->phase[j] - (u->kind == MK_INST_REDUCE);
    if ((u->a == i || u->b == i || u->c == i) && when > last) last = when;
  }
  return last;
}

int mk_live_values(const mk_body *b, const mk_phases *ph) {
  int most = 1;
  for (int p = 0; p < ph->count; p++) {
    int live = 0;
    for (int i = 0; i < b->ninsts; i++) {
      bool here = ph->column[i] && (b->insts[i].kind == MK_INST_LOAD || b->insts[i].kind == MK_INST_ROOT) && ph->phase[i] == p;
      int last = last_use(b, ph, i);
      live += here || (ph->kept[i] && ph->phase[i] <= p && last > p) || (ph->kept[i] && ph->phase[i] < p && last >= p);
    }
    if (live > most) most = live;
  }
  return most;
}

bool mk_waits_again(const mk_body *b, const mk_phases *ph) {
  for (int i = 0; i < b->ninsts; i++)
    if (b->insts[i].kind == MK_INST_LOAD && ph->column[i] && ph->phase[i] > 0 && mk_walks_rows(b, b->insts[i].access))
      return true;
  return false;
}

int mk_kept_values(const mk_body *b, const mk_phases *ph) {
  int most = 0;
  for (int p = 1; p < ph->count; p++) {
    int live = 0;
    for (int i = 0; i < b->ninsts; i++) live += ph->kept[i] && ph->phase[i] < p && last_use(b, ph, i) >= p;
    if (live > most) most = live;
  }
  return most;
}

void mk_stride_classes(const mk_body *b, const mk_access *a, mk_stride_class out[MK_MAX_AXES]) {
  int64_t packed = 1; /* -1 once the columns are not dense any more: further out, strides depend on lengths */
  for (int i = b->naxes - 1; i >= 0; i--) {
    if (!a->stride[i]) {
      out[i] = MK_STRIDE_ZERO;
    } else if (i >= b->nrows && a->stride[i] == packed) {
      out[i] = MK_STRIDE_CONST;
      packed *= b->extent[i];
    } else {
      out[i] = MK_STRIDE_PARAM;
      packed = -1;
    }
  }
}

int mk_access_alignment(const mk_body *b, const mk_access *a, int v) {
  int64_t size = (int64_t)mk_dtype_size(a->dtype);
  for (; v > 1; v /= 2) {
    int64_t piece = v * size < 16 ? v * size : 16, run = 1;
    bool ok = a->offset * size % piece == 0 && (!a->gather || a->index_stride * size % piece == 0);
    for (int i = b->naxes - 1; i >= 0 && ok; i--) {
      bool in_run = i >= b->nrows && a->stride[i] == run; /* part of the contiguous columns */
      if (in_run)
        run *= b->extent[i];
      else
        ok = a->stride[i] * size % piece == 0;
    }
    if (ok) break;
  }
  return v;
}

const char *mk_ctype(mk_dtype t) { return t == MK_F32 ? "float" : t == MK_I32 ? "i32" : mk_dtype_name(t); }

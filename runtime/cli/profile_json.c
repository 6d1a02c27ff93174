#include <string.h>

#include "runtime/cli/profile.h"
#include "runtime/model/json_util.h"

static json_t *row_to_json(const mk_profile *p, const mk_profile_row *r) {
  return json_pack("{ss ss ss ss si sf sf sf sf sf si si}", "kind", r->kind, "candidate", r->candidate, "group", r->name,
                   "arithmetic", mk_arithmetic_names[r->arithmetic], "calls", r->calls, "ms", r->ms, "flop", r->flop, "bytes",
                   r->bytes, "roofline_ms", mk_profile_sheet_limit(p, r).ms, "limit_ms", mk_profile_limit(p, r).ms, "registers",
                   r->registers, "smem", r->smem_bytes);
}

json_t *mk_profile_to_json(const mk_profile *p) {
  json_t *rows = json_array();
  for (int i = 0; i < p->nrows; i++) json_array_append_new(rows, row_to_json(p, &p->rows[i]));
  const mk_gpu_peaks *s = &p->peaks;
  json_t *sheet = json_pack("{sf sf sf sf sb}", "bf16_tflops", s->bf16_tflops, "tf32_tflops", s->tf32_tflops, "f32_tflops",
                            s->f32_tflops, "memory_tbs", s->memory_tbs, "estimated", s->estimated);
  json_t *root = json_pack("{ss si ss ss ss sf sf sf so}", "gpu", p->gpu, "multiprocessors", p->sms, "graph", p->graph, "subject",
                           p->subject, "entry", p->entry, "graph_ms", p->graph_ms, "steps_ms", p->steps_ms, "outside_ms",
                           mk_profile_outside_ms(p), "data_sheet", sheet);
  if (p->ceilings.matmul_tflops > 0)
    json_object_set_new(root, "ceilings",
                        json_pack("{sf sf}", "matmul_tflops", p->ceilings.matmul_tflops, "copy_tbs", p->ceilings.copy_tbs));
  json_object_set_new(root, "groups", rows);
  return root;
}

/* ---- reading: every field that is used must be there and make sense */

static bool present(const json_t *object, const char *where, const char *key, mk_status *st) {
  const json_t *v = json_object_get(object, key);
  if (v && !json_is_null(v)) return true;
  mk_fail(st, MK_EINPUT, "%s: field \"%s\" is missing; give what profile --json wrote", where, key);
  return false;
}

static bool text(mk_profile *p, const json_t *object, const char *where, const char *key, const char **out, mk_status *st) {
  const char *s = NULL;
  if (!present(object, where, key, st) || !mk_json_get_string(object, where, key, &s, st)) return false;
  *out = mk_strdup(&p->arena, s);
  return true;
}

static bool amount(const json_t *object, const char *where, const char *key, double *out, mk_status *st) {
  if (!present(object, where, key, st) || !mk_json_get_number(object, where, key, out, st)) return false;
  if (*out >= 0 && *out < 1e30) return true;
  mk_fail(st, MK_EINPUT, "%s: field \"%s\" is %g; it must not be negative or beyond measure", where, key, *out);
  return false;
}

static bool rate(const json_t *object, const char *where, const char *key, double *out, mk_status *st) {
  if (!amount(object, where, key, out, st)) return false;
  if (*out >= 1e-6) return true;
  mk_fail(st, MK_EINPUT, "%s: field \"%s\" is %g; it must be greater than 0", where, key, *out);
  return false;
}

static bool whole(const json_t *object, const char *where, const char *key, int64_t low, int *out, mk_status *st) {
  int64_t v = 0;
  if (!present(object, where, key, st) || !mk_json_get_int(object, where, key, low, 1 << 30, &v, st)) return false;
  *out = (int)v;
  return true;
}

static bool arithmetic(mk_profile *p, const json_t *object, const char *where, mk_arithmetic *out, mk_status *st) {
  const char *name;
  if (!text(p, object, where, "arithmetic", &name, st)) return false;
  for (int a = 0; a < MK_ARITHMETIC_COUNT; a++)
    if (!strcmp(name, mk_arithmetic_names[a])) {
      *out = (mk_arithmetic)a;
      return true;
    }
  mk_fail(st, MK_EINPUT, "%s: field \"arithmetic\" is \"%.50s\"; it must be bf16, tf32 or f32", where, name);
  return false;
}

/* The member as an object; NULL with the status set. */
static const json_t *object_in(const json_t *root, const char *path, const char *key, mk_status *st) {
  const json_t *v = json_object_get(root, key);
  if (!present(root, path, key, st)) return NULL;
  if (!json_is_object(v)) mk_fail(st, MK_EINPUT, "%s: field \"%s\" must be an object", path, key);
  return mk_failed(st) ? NULL : v;
}

static bool read_row(mk_profile *p, const json_t *o, const char *where, mk_status *st) {
  mk_profile_row r = {0};
  if (!json_is_object(o)) return mk_fail(st, MK_EINPUT, "%s: must be an object", where), false;
  if (!text(p, o, where, "kind", &r.kind, st) || !text(p, o, where, "group", &r.name, st) ||
      !text(p, o, where, "candidate", &r.candidate, st) || !arithmetic(p, o, where, &r.arithmetic, st) ||
      !whole(o, where, "calls", 1, &r.calls, st) || !amount(o, where, "ms", &r.ms, st) ||
      !amount(o, where, "flop", &r.flop, st) || !amount(o, where, "bytes", &r.bytes, st) ||
      !whole(o, where, "registers", 0, &r.registers, st) || !whole(o, where, "smem", 0, &r.smem_bytes, st))
    return false;
  MK_PUSH(&p->arena, p->rows, p->nrows, p->cap, r);
  return true;
}

static bool read_limits(mk_profile *p, const json_t *root, const char *path, mk_status *st) {
  const char *where = mk_printf(&p->arena, "%s: data_sheet", path);
  const json_t *sheet = object_in(root, path, "data_sheet", st);
  mk_gpu_peaks *s = &p->peaks;
  if (!sheet || !rate(sheet, where, "bf16_tflops", &s->bf16_tflops, st) ||
      !rate(sheet, where, "tf32_tflops", &s->tf32_tflops, st) || !rate(sheet, where, "f32_tflops", &s->f32_tflops, st) ||
      !rate(sheet, where, "memory_tbs", &s->memory_tbs, st) || !mk_json_get_bool(sheet, where, "estimated", &s->estimated, st))
    return false;
  if (!json_object_get(root, "ceilings")) return true;
  const json_t *c = object_in(root, path, "ceilings", st);
  where = mk_printf(&p->arena, "%s: ceilings", path);
  return c && rate(c, where, "matmul_tflops", &p->ceilings.matmul_tflops, st) &&
         rate(c, where, "copy_tbs", &p->ceilings.copy_tbs, st);
}

static bool read_all(mk_profile *p, const json_t *root, const char *path, mk_status *st) {
  if (!text(p, root, path, "gpu", &p->gpu, st) || !whole(root, path, "multiprocessors", 0, &p->sms, st) ||
      !text(p, root, path, "graph", &p->graph, st) || !text(p, root, path, "subject", &p->subject, st) ||
      !text(p, root, path, "entry", &p->entry, st) || !amount(root, path, "graph_ms", &p->graph_ms, st) ||
      !amount(root, path, "steps_ms", &p->steps_ms, st) || !read_limits(p, root, path, st) || !present(root, path, "groups", st))
    return false;
  const json_t *groups = json_object_get(root, "groups");
  if (!json_is_array(groups) || !json_array_size(groups))
    return mk_fail(st, MK_EINPUT, "%s: field \"groups\" must be a list with at least one group", path), false;
  for (size_t i = 0; i < json_array_size(groups); i++)
    if (!read_row(p, json_array_get(groups, i), mk_printf(&p->arena, "%s: groups[%zu]", path, i), st)) return false;
  mk_profile_sort(p);
  return true;
}

bool mk_profile_read(mk_profile *p, const char *path, mk_status *st) {
  *p = (mk_profile){0};
  json_t *root = mk_json_load_object(path, st);
  bool ok = root && read_all(p, root, path, st);
  json_decref(root);
  return ok;
}

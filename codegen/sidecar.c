#include "codegen/sidecar.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/lua_script.h"
#include "codegen/sidecar_internal.h"
#include "runtime/base/hash.h"

enum { MEMORY_LIMIT = 64 << 20, PER_TEMPLATE = 3, MAX_COMBINATIONS = 4096 };

/* ---- problems */

static void add_fact(mk_problem *p, mk_fact fact) {
  if (p->nfacts < MK_MAX_FACTS) p->facts[p->nfacts++] = fact;
}

void mk_problem_int(mk_problem *p, const char *name, int64_t value) {
  add_fact(p, (mk_fact){.name = name, .kind = MK_FACT_INT, .i = value});
}
void mk_problem_float(mk_problem *p, const char *name, double value) {
  add_fact(p, (mk_fact){.name = name, .kind = MK_FACT_FLOAT, .f = value});
}
void mk_problem_text(mk_problem *p, const char *name, const char *value) {
  add_fact(p, (mk_fact){.name = name, .kind = MK_FACT_TEXT, .s = value});
}
void mk_problem_bool(mk_problem *p, const char *name, bool value) {
  add_fact(p, (mk_fact){.name = name, .kind = MK_FACT_BOOL, .i = value});
}

const mk_fact *mk_problem_fact(const mk_problem *p, const char *name) {
  for (int i = 0; i < p->nfacts; i++)
    if (!strcmp(p->facts[i].name, name)) return &p->facts[i];
  return NULL;
}

void mk_problem_key(const mk_problem *p, mk_text *out) {
  mk_text_addf(out, "%s row=%d", p->op, p->row_epilogue);
  for (int i = 0; i < p->nfacts; i++) {
    const mk_fact *f = &p->facts[i];
    mk_text_addf(out, " %s=", f->name);
    if (f->kind == MK_FACT_FLOAT)
      mk_text_addf(out, "%.9g", f->f);
    else if (f->kind == MK_FACT_TEXT)
      mk_text_add(out, f->s);
    else
      mk_text_addf(out, "%lld", (long long)f->i);
  }
  mk_text_add(out, " ->");
  for (int i = 0; i < p->nout; i++) mk_text_addf(out, " %s", mk_dtype_name(p->out[i]));
}

/* ---- the sandbox */

bool mk_sidecar_call(mk_sidecars *s, const char *shown, lua_CFunction f, void **args, int nargs, mk_status *st) {
  lua_State *L = s->script.L;
  s->script.path = shown;
  s->asking = NULL;
  s->script.instructions = 0;
  lua_settop(L, 0);
  lua_pushcfunction(L, mk_sandbox_handler);
  lua_pushcfunction(L, f);
  for (int i = 0; i < nargs; i++) lua_pushlightuserdata(L, args[i]);
  if (lua_pcall(L, nargs, 0, 1) == LUA_OK) return true;
  const char *message = lua_tostring(L, -1);
  if (!message) message = "out of memory";
  size_t n = strlen(shown); /* what stands there when no line of the file is to blame */
  if (!strncmp(message, shown, n) && !strncmp(message + n, ": ", 2)) message += n + 2;
  if (s->asking)
    mk_fail(st, MK_EINPUT, "template %s: field '%s': %s", shown, s->asking, message);
  else
    mk_fail(st, MK_EINPUT, "template %s: %s", shown, message);
  return false;
}

static int open_libs(lua_State *L) {
  mk_sandbox_libs(L);
  mk_lua_include(L);
  return 0;
}

mk_sidecars *mk_sidecars_open(const char *folder, const mk_trial *trial, const mk_target *target, mk_status *st) {
  mk_sidecars *s = calloc(1, sizeof *s);
  if (!s) {
    mk_fail(st, MK_ENOMEM, "no memory for the templates' sidecars");
    return NULL;
  }
  s->folder = mk_strdup(&s->arena, folder);
  s->trial = trial;
  s->target = *target;
  s->script = (mk_script){.path = "sidecar", .max_memory = MEMORY_LIMIT, .max_instructions = 500000000};
  bool ok = mk_sandbox_open(&s->script) != NULL;
  if (!ok) mk_fail(st, MK_ENOMEM, "no memory for the templates' sidecars");
  ok = ok && mk_sidecar_call(s, "sidecar", open_libs, NULL, 0, st) && mk_sidecars_find(s, st);
  if (ok) return s;
  mk_sidecars_close(s);
  return NULL;
}

void mk_sidecars_close(mk_sidecars *s) {
  if (!s) return;
  if (s->script.L) lua_close(s->script.L);
  mk_arena_free(&s->arena);
  free(s);
}

/* ---- choices */

static int by_cost(const void *x, const void *y) {
  const mk_choice *a = x, *b = y;
  if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
  return strcmp(a->label, b->label);
}

/* Only measuring says whether a template of the user's is fast: its choices are cut last. */
static int own_first(const void *x, const void *y) {
  const mk_choice *a = x, *b = y;
  return a->own != b->own ? b->own - a->own : by_cost(x, y);
}

/* What stands behind the first n goes to the rest. */
static void cut(mk_sidecars *s, mk_sidecar_found *found, int n) {
  for (int i = n; i < found->n; i++) MK_PUSH(&s->arena, found->rest, found->nrest, found->rest_cap, found->items[i]);
  if (found->n > n) found->n = n;
}

static bool choose(mk_sidecars *s, const mk_problem *p, mk_sidecar_found *found, mk_status *st) {
  for (int i = 0; i < s->n; i++) {
    mk_sidecar *one = &s->items[i];
    bool here = s->target.arch >= one->arch_min && (!one->arch_max || s->target.arch <= one->arch_max);
    if (one->arch_specific) here = s->target.arch / 10 == one->arch_min / 10;
    if (!here || strcmp(one->implements, p->op) != 0 || (p->row_epilogue && !one->row_epilogue) || p->prologue != one->prologue)
      continue;
    int first = found->n;
    if (!mk_sidecar_call(s, one->shown, mk_sidecar_enumerate, (void *[]){s, one, (void *)p, found}, 4, st)) return false;
    if (found->n == first) continue;
    qsort(found->items + first, (size_t)(found->n - first), sizeof *found->items, by_cost);
    cut(s, found, first + PER_TEMPLATE);
  }
  if (!found->n) return true;
  qsort(found->items, (size_t)found->n, sizeof *found->items, own_first);
  cut(s, found, MK_MAX_CANDIDATES);
  qsort(found->items, (size_t)found->n, sizeof *found->items, by_cost);
  return true;
}

const char *mk_sidecars_tunable(mk_sidecars *s, const char *name, int64_t value, bool *found) {
  mk_text t = {0};
  *found = false;
  for (int i = 0; i < s->n; i++)
    for (int k = 0; k < s->items[i].ntunables; k++) {
      if (strcmp(s->items[i].tunables[k].name, name) != 0) continue;
      mk_text_addf(&t, "%s%s:", t.len ? "; " : "", s->items[i].name);
      for (int v = 0; v < s->items[i].tunables[k].n; v++) {
        *found |= s->items[i].tunables[k].values[v] == value;
        mk_text_addf(&t, " %lld", (long long)s->items[i].tunables[k].values[v]);
      }
    }
  const char *text = t.len ? mk_strdup(&s->arena, mk_text_str(&t)) : NULL;
  mk_text_free(&t);
  return text;
}

/* Of the problem; NULL with the status set when a sidecar is wrong. */
static mk_sidecar_found *found_for(mk_sidecars *s, const mk_problem *p, mk_status *st) {
  mk_text key = {0};
  mk_problem_key(p, &key);
  uint64_t hash = mk_hash64(mk_text_str(&key), key.len);
  mk_sidecar_found *f = s->memo[hash % MK_MEMO];
  while (f && strcmp(f->key, mk_text_str(&key)) != 0) f = f->next;
  if (!f) {
    f = MK_NEW(&s->arena, mk_sidecar_found);
    f->key = mk_strdup(&s->arena, mk_text_str(&key));
    if (choose(s, p, f, st)) {
      f->next = s->memo[hash % MK_MEMO];
      s->memo[hash % MK_MEMO] = f;
    } else {
      f = NULL;
    }
  }
  mk_text_free(&key);
  return f;
}

int mk_sidecars_choose(mk_sidecars *s, const mk_problem *p, mk_choice **out, int max, mk_status *st) {
  mk_sidecar_found *f = found_for(s, p, st);
  if (!f) return -1;
  *out = f->items;
  return f->n < max ? f->n : max;
}

int mk_sidecars_rest(mk_sidecars *s, const mk_problem *p, mk_choice **out, mk_status *st) {
  mk_sidecar_found *f = found_for(s, p, st);
  if (!f) return -1;
  *out = f->rest;
  return f->nrest;
}

bool mk_sidecars_settle(mk_sidecars *s, const mk_problem *p, mk_choice *c, mk_status *st) {
  if (c->constants) return true;
  if (!c->of->code) c->of->code = mk_sidecar_code(s, c->of, st);
  c->code = c->of->code;
  return c->code && mk_sidecar_call(s, c->shown, mk_sidecar_settle, (void *[]){s, (void *)p, c}, 3, st);
}

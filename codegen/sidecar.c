#include "codegen/sidecar.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/lua_script.h"
#include "codegen/sidecar_internal.h"
#include "runtime/base/file.h"
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

/* ---- the folder */

const char *mk_sidecars_text(mk_sidecars *s, const char *file, mk_status *st) {
  for (int i = 0; i < s->nfiles; i++)
    if (!strcmp(s->files[i].name, file)) return s->files[i].text;
  size_t bytes;
  char *text = mk_file_read(mk_printf(&s->arena, "%s/%s", s->folder, file), &bytes, st);
  if (!text) return NULL;
  mk_sidecar_file f = {mk_strdup(&s->arena, file), mk_strdup(&s->arena, text)};
  free(text);
  MK_PUSH(&s->arena, s->files, s->nfiles, s->files_cap, f);
  return f.text;
}

static int by_name(const void *a, const void *b) { return strcmp(((const mk_sidecar *)a)->name, ((const mk_sidecar *)b)->name); }

static bool find_sidecars(mk_sidecars *s, mk_status *st) {
  DIR *dir = opendir(s->folder);
  if (!dir) {
    mk_fail(st, MK_EIO, "%s: the templates folder cannot be read; set it with MOONKILN_TEMPLATES", s->folder);
    return false;
  }
  for (struct dirent *d; (d = readdir(dir));) {
    size_t n = strlen(d->d_name);
    if (n < 5 || strcmp(d->d_name + n - 4, ".lua") != 0) continue;
    char *name = mk_strndup(&s->arena, d->d_name, n - 4);
    if (!mk_file_exists(mk_printf(&s->arena, "%s/%s.cu", s->folder, name))) continue;
    mk_sidecar one = {.name = name};
    MK_PUSH(&s->arena, s->items, s->n, s->cap, one);
  }
  closedir(dir);
  if (s->n) qsort(s->items, (size_t)s->n, sizeof *s->items, by_name); /* the folder's own order is nobody's choice */
  return true;
}

static int load_sidecar(lua_State *L) { /* (sidecars, sidecar, text) */
  mk_sidecars *s = lua_touserdata(L, 1);
  mk_sidecar *one = lua_touserdata(L, 2);
  const char *text = lua_touserdata(L, 3);
  if (luaL_loadbufferx(L, text, strlen(text), mk_printf(&s->arena, "@%s.lua", one->name), "t") != LUA_OK) return lua_error(L);
  lua_call(L, 0, 1);
  if (!lua_istable(L, -1)) return luaL_error(L, "%s.lua must return a table", one->name);
  mk_sidecar_read(s, one, L);
  return 0;
}

/* Runs f(arguments as light userdata) in the sandbox. */
static bool call(mk_sidecars *s, const char *file, lua_CFunction f, void **args, int nargs, mk_status *st) {
  lua_State *L = s->script.L;
  s->script.path = mk_printf(&s->arena, "%s.lua", file);
  s->script.instructions = 0;
  lua_settop(L, 0);
  lua_pushcfunction(L, mk_sandbox_handler);
  lua_pushcfunction(L, f);
  for (int i = 0; i < nargs; i++) lua_pushlightuserdata(L, args[i]);
  if (lua_pcall(L, nargs, 0, 1) == LUA_OK) return true;
  const char *message = lua_tostring(L, -1);
  mk_fail(st, MK_EINPUT, "template %s: %s", file, message ? message : "out of memory");
  return false;
}

static int open_libs(lua_State *L) {
  mk_sandbox_libs(L);
  return 0;
}

mk_sidecars *mk_sidecars_open(const char *folder, const mk_target *target, mk_status *st) {
  mk_sidecars *s = calloc(1, sizeof *s);
  if (!s) {
    mk_fail(st, MK_ENOMEM, "no memory for the templates' sidecars");
    return NULL;
  }
  s->folder = mk_strdup(&s->arena, folder);
  s->target = *target;
  s->script = (mk_script){.path = "sidecar", .max_memory = MEMORY_LIMIT, .max_instructions = 500000000};
  bool ok = mk_sandbox_open(&s->script) != NULL;
  if (!ok) mk_fail(st, MK_ENOMEM, "no memory for the templates' sidecars");
  ok = ok && call(s, "sidecar", open_libs, NULL, 0, st) && find_sidecars(s, st);
  for (int i = 0; ok && i < s->n; i++) {
    const char *text = mk_sidecars_text(s, mk_printf(&s->arena, "%s.lua", s->items[i].name), st);
    ok = text && call(s, s->items[i].name, load_sidecar, (void *[]){s, &s->items[i], (void *)text}, 3, st);
  }
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

static bool with_code(mk_sidecars *s, const mk_sidecar *one, mk_choice *c, mk_status *st) {
  mk_text t = {0};
  for (int i = 0; i <= one->nuses; i++) {
    const char *part = mk_sidecars_text(s, i < one->nuses ? one->uses[i] : mk_printf(&s->arena, "%s.cu", one->name), st);
    if (!part) {
      mk_fail_context(st, "template %s", one->name);
      mk_text_free(&t);
      return false;
    }
    mk_text_addf(&t, "%s\n", part);
  }
  c->code = mk_strdup(&s->arena, mk_text_str(&t));
  mk_text_free(&t);
  return true;
}

static bool choose(mk_sidecars *s, const mk_problem *p, mk_sidecar_found *found, mk_status *st) {
  for (int i = 0; i < s->n; i++) {
    mk_sidecar *one = &s->items[i];
    bool here = s->target.arch >= one->arch_min && (!one->arch_max || s->target.arch <= one->arch_max);
    if (one->arch_specific) here = s->target.arch / 10 == one->arch_min / 10;
    if (!here || strcmp(one->implements, p->op) != 0 || (p->row_epilogue && !one->row_epilogue)) continue;
    int first = found->n;
    if (!call(s, one->name, mk_sidecar_enumerate, (void *[]){s, one, (void *)p, found}, 4, st)) return false;
    if (found->n == first) continue;
    qsort(found->items + first, (size_t)(found->n - first), sizeof *found->items, by_cost);
    if (found->n - first > PER_TEMPLATE) found->n = first + PER_TEMPLATE;
    if (!one->code) {
      mk_choice c = {0};
      if (!with_code(s, one, &c, st)) return false;
      one->code = c.code;
    }
    for (int j = first; j < found->n; j++) found->items[j].code = one->code;
  }
  if (found->n) qsort(found->items, (size_t)found->n, sizeof *found->items, by_cost);
  return true;
}

int mk_sidecars_choose(mk_sidecars *s, const mk_problem *p, const mk_choice **out, int max, mk_status *st) {
  mk_text key = {0};
  mk_problem_key(p, &key);
  uint64_t hash = mk_hash64(mk_text_str(&key), key.len);
  const mk_sidecar_found *hit = NULL;
  for (const mk_sidecar_found *f = s->memo[hash % MK_MEMO]; f && !hit; f = f->next)
    if (!strcmp(f->key, mk_text_str(&key))) hit = f;
  if (!hit) {
    mk_sidecar_found *f = MK_NEW(&s->arena, mk_sidecar_found);
    f->key = mk_strdup(&s->arena, mk_text_str(&key));
    if (!choose(s, p, f, st)) {
      mk_text_free(&key);
      return -1;
    }
    f->next = s->memo[hash % MK_MEMO];
    s->memo[hash % MK_MEMO] = f;
    hit = f;
  }
  mk_text_free(&key);
  *out = hit->items;
  return hit->n < max ? hit->n : max;
}

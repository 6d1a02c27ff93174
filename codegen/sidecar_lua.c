/* Sidecar tables to C and problems to Lua tables. Runs inside the sandbox: errors are raised, with the sidecar's line where it
 * has one. */
#include <math.h>
#include <string.h>

#include "codegen/sidecar_internal.h"

enum { MAX_COMBINATIONS = 8192 };

/* ---- reading */

static const char *text_field(mk_sidecars *s, lua_State *L, int table, const char *name) {
  if (lua_getfield(L, table, name) != LUA_TSTRING) luaL_error(L, "field '%s' must be a string", name);
  const char *text = mk_strdup(&s->arena, lua_tostring(L, -1));
  lua_pop(L, 1);
  return text;
}

static int64_t whole(lua_State *L, int index, const char *what) {
  int ok;
  int64_t v = lua_tointegerx(L, index, &ok);
  if (!ok) luaL_error(L, "%s must be a whole number, not %s", what, luaL_tolstring(L, index, NULL));
  return v;
}

static int64_t whole_field(lua_State *L, int table, const char *name, int64_t otherwise) {
  int64_t v = otherwise;
  if (lua_getfield(L, table, name) != LUA_TNIL) v = whole(L, -1, name);
  lua_pop(L, 1);
  return v;
}

static bool flag_field(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  bool v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

static int list_length(lua_State *L, int index, const char *what, int most) {
  if (!lua_istable(L, index)) luaL_error(L, "%s must be a list", what);
  lua_Integer n = luaL_len(L, index);
  if (n > most) luaL_error(L, "%s has %d elements; at most %d", what, (int)n, most);
  return (int)n;
}

static void read_uses(mk_sidecars *s, mk_sidecar *one, lua_State *L, int table) {
  if (lua_getfield(L, table, "uses") != LUA_TNIL) {
    one->nuses = list_length(L, -1, "uses", MK_MAX_USES);
    for (int i = 0; i < one->nuses; i++) {
      lua_geti(L, -1, i + 1);
      const char *name = lua_tostring(L, -1);
      if (!name || strchr(name, '/')) luaL_error(L, "field 'uses' must name files of the templates folder");
      one->uses[i] = mk_strdup(&s->arena, name);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
}

/* Sorted by name: Lua's own order of keys differs from run to run. */
static void read_tunables(mk_sidecars *s, mk_sidecar *one, lua_State *L, int table) {
  if (lua_getfield(L, table, "tunables") != LUA_TNIL) {
    if (!lua_istable(L, -1)) luaL_error(L, "field 'tunables' must be a table of lists");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "tunables must have names");
      if (one->ntunables == MK_MAX_TUNABLES) luaL_error(L, "more than %d tunables", MK_MAX_TUNABLES);
      int at = one->ntunables++;
      const char *name = mk_strdup(&s->arena, lua_tostring(L, -2));
      for (; at > 0 && strcmp(one->tunables[at - 1].name, name) > 0; at--) one->tunables[at] = one->tunables[at - 1];
      one->tunables[at].name = name;
      one->tunables[at].n = list_length(L, -1, name, MK_MAX_VALUES);
      for (int i = 0; i < one->tunables[at].n; i++) {
        lua_geti(L, -1, i + 1);
        one->tunables[at].values[i] = whole(L, -1, name);
        lua_pop(L, 1);
      }
    }
  }
  lua_pop(L, 1);
}

static void read_fields(mk_sidecars *s, mk_sidecar *one, lua_State *L, int table) {
  static const struct {
    const char *name, *type;
    mk_arg_kind kind;
  } kinds[] = {{"ptr", "const void *", MK_ARG_PTR},
               {"i32", "i32", MK_ARG_I32},
               {"i64", "i64", MK_ARG_I64},
               {"f32", "float", MK_ARG_F32},
               {"tmap", "tmap", MK_ARG_TMAP}};
  lua_getfield(L, table, "params");
  one->nfields = list_length(L, -1, "params", 64);
  one->fields = MK_NEW_ARRAY(&s->arena, mk_field, one->nfields);
  for (int i = 0; i < one->nfields; i++) {
    lua_geti(L, -1, i + 1);
    if (!lua_istable(L, -1)) luaL_error(L, "params must be a list of {name, kind}");
    lua_geti(L, -1, 1);
    lua_geti(L, -2, 2);
    const char *name = lua_tostring(L, -2), *kind = lua_tostring(L, -1);
    size_t k = 0;
    while (k < sizeof kinds / sizeof *kinds && (!kind || strcmp(kinds[k].name, kind) != 0)) k++;
    if (!name || k == sizeof kinds / sizeof *kinds)
      luaL_error(L, "params: entry %d must be {name, \"ptr\"|\"i32\"|\"i64\"|\"f32\"|\"tmap\"}", i + 1);
    one->fields[i] =
        (mk_field){.name = mk_strdup(&s->arena, name), .type = kinds[k].type, .kind = kinds[k].kind, .what = MK_FIELD_NAMED};
    lua_pop(L, 3);
  }
  lua_pop(L, 1);
}

static bool has_function(lua_State *L, int table, const char *name) {
  int type = lua_getfield(L, table, name);
  if (type != LUA_TFUNCTION && type != LUA_TNIL) luaL_error(L, "field '%s' must be a function", name);
  lua_pop(L, 1);
  return type == LUA_TFUNCTION;
}

/* Tunables and formulas: what a misspelt field would silently leave out. */
static void check_fields(lua_State *L, int table) {
  mk_lua_fields(
      L, table, "the sidecar",
      " implements arch_min arch_max arch_specific row_epilogue prologue fetches uses tunables params accepts valid constants "
      "launch cost flop bytes unit ");
}

static bool read_unit(lua_State *L, int table) {
  static const char *const units[] = {"tensor", "simt", NULL};
  lua_getfield(L, table, "unit");
  const char *unit = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : lua_isnil(L, -1) ? "simt" : "";
  if (strcmp(unit, units[0]) != 0 && strcmp(unit, units[1]) != 0) luaL_error(L, "field 'unit' must be \"tensor\" or \"simt\"");
  bool simt = !strcmp(unit, units[1]);
  lua_pop(L, 1);
  return simt;
}

void mk_sidecar_read(mk_sidecars *s, mk_sidecar *one, lua_State *L) {
  static const char *const needed[] = {"constants", "launch"}, *const optional[] = {"accepts", "valid", "flop", "bytes", "cost"};
  int table = lua_gettop(L);
  if (one->own) check_fields(L, table);
  one->implements = text_field(s, L, table, "implements");
  if (strcmp(one->implements, "matmul") != 0 && strcmp(one->implements, "conv") != 0 && strcmp(one->implements, "attention") != 0)
    luaL_error(L, "field 'implements' is \"%s\"; it takes \"matmul\", \"conv\" or \"attention\"", one->implements);
  one->arch_min = (int)whole_field(L, table, "arch_min", 80);
  one->arch_max = (int)whole_field(L, table, "arch_max", 0);
  one->arch_specific = flag_field(L, table, "arch_specific");
  one->row_epilogue = flag_field(L, table, "row_epilogue");
  one->prologue = flag_field(L, table, "prologue");
  one->fetches = flag_field(L, table, "fetches");
  read_uses(s, one, L, table);
  read_tunables(s, one, L, table);
  read_fields(s, one, L, table);
  one->simt = read_unit(L, table);
  for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) has_function(L, table, optional[i]);
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    if (!has_function(L, table, needed[i])) luaL_error(L, "field '%s' must be a function", needed[i]);
  if (!has_function(L, table, "cost") && !has_function(L, table, "bytes"))
    luaL_error(L, "there is neither a field 'cost' nor 'bytes' to say how long it takes");
  lua_pushvalue(L, table);
  one->table = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* ---- asking */

static void set_int(lua_State *L, const char *name, int64_t v) {
  lua_pushinteger(L, v);
  lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, double v) {
  lua_pushnumber(L, v);
  lua_setfield(L, -2, name);
}

static void push_problem(lua_State *L, const mk_problem *p) {
  lua_newtable(L);
  for (int i = 0; i < p->nfacts; i++) {
    const mk_fact *f = &p->facts[i];
    if (f->kind == MK_FACT_FLOAT) lua_pushnumber(L, f->f);
    if (f->kind == MK_FACT_INT) lua_pushinteger(L, f->i);
    if (f->kind == MK_FACT_TEXT) lua_pushstring(L, f->s);
    if (f->kind == MK_FACT_BOOL) lua_pushboolean(L, f->i != 0);
    lua_setfield(L, -2, f->name);
  }
  lua_pushboolean(L, p->row_epilogue);
  lua_setfield(L, -2, "row_epilogue");
  lua_newtable(L);
  for (int i = 0; i < p->nout; i++) {
    lua_pushstring(L, mk_dtype_name(p->out[i]));
    lua_seti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "out_dtypes");
}

static void push_target(lua_State *L, const mk_target *t) {
  lua_newtable(L);
  set_int(L, "arch", t->arch);
  set_int(L, "sms", t->sms);
  set_number(L, "tensor_tflops", t->tensor_tflops);
  set_number(L, "simt_tflops", t->simt_tflops);
  set_number(L, "copy_tbs", t->copy_tbs);
}

/* Calls a function of the sidecar with the values at the given stack indices and leaves its result on the stack; false, and
 * nothing there, when the sidecar does not have it. */
static bool ask(mk_sidecars *s, lua_State *L, int table, const char *function, const int *args, int nargs) {
  s->asking = function;
  if (lua_getfield(L, table, function) == LUA_TNIL) {
    lua_pop(L, 1);
    return false;
  }
  for (int i = 0; i < nargs; i++) lua_pushvalue(L, args[i]);
  lua_call(L, nargs, 1);
  return true;
}

/* What is not restricted is possible. */
static bool ask_bool(mk_sidecars *s, lua_State *L, int table, const char *function, const int *args, int nargs) {
  if (!ask(s, L, table, function, args, nargs)) return true;
  bool v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

/* 0 when the sidecar does not have the function. */
static double ask_number(mk_sidecars *s, lua_State *L, int table, const char *function, const int *args, int nargs) {
  if (!ask(s, L, table, function, args, nargs)) return 0;
  double v = lua_tonumber(L, -1);
  if (lua_type(L, -1) != LUA_TNUMBER || !isfinite(v)) luaL_error(L, "%s must be a finite number", function);
  lua_pop(L, 1);
  return v;
}

/* Seconds: what the sidecar says, or what its operations and bytes take on the target. */
static double read_cost(mk_sidecars *s, const mk_sidecar *one, lua_State *L, int table, const int *args) {
  const double launch = 2e-6;
  lua_getfield(L, table, "cost");
  bool given = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (given) return ask_number(s, L, table, "cost", args, 3);
  double rate = (one->simt ? s->target.simt_tflops : s->target.tensor_tflops) * 1e12;
  double arithmetic = ask_number(s, L, table, "flop", args, 2) / rate;
  double traffic = ask_number(s, L, table, "bytes", args, 2) / (s->target.copy_tbs * 1e12);
  return fmax(arithmetic, traffic) + launch;
}

static bool is_pinned_out(const mk_trial *t, const char *tunable, int64_t value) {
  for (int i = 0; i < t->npins; i++)
    if (!strcmp(t->pins[i].name, tunable) && t->pins[i].value != value) return true;
  return false;
}

static const char *read_constants(mk_sidecars *s, lua_State *L) {
  mk_text t = {0};
  int n = list_length(L, -1, "constants", 64);
  for (int i = 0; i < n; i++) {
    lua_geti(L, -1, i + 1);
    lua_geti(L, -1, 1);
    lua_geti(L, -2, 2);
    const char *name = lua_tostring(L, -2);
    if (name && lua_isinteger(L, -1))
      mk_text_addf(&t, "constexpr int %s = %lld;\n", name, (long long)lua_tointeger(L, -1));
    else if (name && lua_type(L, -1) == LUA_TNUMBER)
      mk_text_addf(&t, "constexpr float %s = %.9gf;\n", name, lua_tonumber(L, -1));
    else if (name && lua_type(L, -1) == LUA_TSTRING)
      mk_text_addf(&t, "using %s = %s;\n", name, lua_tostring(L, -1));
    else {
      mk_text_free(&t);
      luaL_error(L, "constants: entry %d must be {name, number or type}", i + 1);
    }
    lua_pop(L, 3);
  }
  const char *text = mk_strdup(&s->arena, mk_text_str(&t));
  mk_text_free(&t);
  return text;
}

static int read_numbers(lua_State *L, const char *field, uint64_t *out, int most) {
  lua_getfield(L, -1, field);
  int n = list_length(L, -1, field, most);
  for (int i = 0; i < n; i++) {
    lua_geti(L, -1, i + 1);
    int64_t v = whole(L, -1, field);
    if (v < 0) luaL_error(L, "%s: %I is negative", field, (LUAI_UACINT)v);
    out[i] = (uint64_t)v;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return n;
}

static void read_tmaps(mk_sidecars *s, const mk_sidecar *one, const mk_problem *p, mk_choice *c, lua_State *L) {
  for (int i = 0; i < one->nfields; i++) {
    if (one->fields[i].kind != MK_ARG_TMAP) continue;
    if (c->ntmaps == MK_MAX_TMAPS || lua_getfield(L, -1, "tmaps") != LUA_TTABLE ||
        lua_getfield(L, -1, one->fields[i].name) != LUA_TTABLE)
      luaL_error(L, "launch: no tmaps.%s", one->fields[i].name);
    struct mk_choice_tmap *m = &c->tmaps[c->ntmaps++];
    uint64_t box[5] = {0};
    m->field = one->fields[i].name;
    m->operand = text_field(s, L, lua_gettop(L), "operand");
    m->map.rank = read_numbers(L, "dims", m->map.dims, 5);
    if (read_numbers(L, "strides", m->map.strides, 4) < m->map.rank - 1 || read_numbers(L, "box", box, 5) != m->map.rank ||
        m->map.rank < 1)
      luaL_error(L, "tmaps.%s: dims and box must have as many numbers, strides one less", m->field);
    for (int j = 0; j < 5; j++) m->map.box[j] = (uint32_t)box[j];
    m->map.swizzle = (int)whole_field(L, lua_gettop(L), "swizzle", 0);
    m->map.l2_promotion = (int)whole_field(L, lua_gettop(L), "l2", 0);
    const mk_fact *dtype = mk_problem_fact(p, "dtype");
    if (dtype) mk_dtype_parse(dtype->s, &m->map.dtype);
    lua_pop(L, 2);
  }
}

static void read_launch(mk_sidecars *s, const mk_sidecar *one, const mk_problem *p, mk_choice *c, lua_State *L) {
  if (!lua_istable(L, -1)) luaL_error(L, "launch must return a table");
  uint64_t grid[3] = {1, 1, 1};
  read_numbers(L, "grid", grid, 3);
  for (int i = 0; i < 3; i++) {
    if (!grid[i] || grid[i] > (i ? 65535u : 2147483647u))
      luaL_error(L, "launch: grid has %I in place %d", (LUAI_UACINT)grid[i], i + 1);
    c->grid[i] = (uint32_t)grid[i];
  }
  c->block = (uint32_t)whole_field(L, lua_gettop(L), "block", 0);
  c->smem = (uint32_t)whole_field(L, lua_gettop(L), "smem", 0);
  c->cluster = (uint32_t)whole_field(L, lua_gettop(L), "cluster", 1);
  if (!c->block || c->block > 1024) luaL_error(L, "launch: a block of %d threads", (int)c->block);
  read_tmaps(s, one, p, c, L);
}

static void push_tunables(const mk_sidecars *s, const mk_sidecar *one, const unsigned char *pick, lua_State *L) {
  lua_createtable(L, 0, one->ntunables + 3);
  for (int i = 0; i < one->ntunables; i++) set_int(L, one->tunables[i].name, one->tunables[i].values[pick[i]]);
  set_int(L, "smem_limit", s->target.smem_limit);
  set_int(L, "sms", s->target.sms);
  set_int(L, "arch", s->target.arch);
}

static const char *label_of(mk_sidecars *s, const mk_sidecar *one, const unsigned char *pick) {
  mk_text label = {0};
  mk_text_add(&label, one->name);
  for (int i = 0; i < one->ntunables; i++)
    mk_text_addf(&label, " %s=%lld", one->tunables[i].name, (long long)one->tunables[i].values[pick[i]]);
  const char *text = mk_strdup(&s->arena, mk_text_str(&label));
  mk_text_free(&label);
  return text;
}

/* One choice of tunables, given by `pick`. */
static void try_choice(mk_sidecars *s, mk_sidecar *one, mk_sidecar_found *found, const unsigned char *pick, lua_State *L,
                       int table, int problem, int hw) {
  int top = lua_gettop(L), t = top + 1;
  for (int i = 0; i < one->ntunables; i++)
    if (is_pinned_out(s->trial, one->tunables[i].name, one->tunables[i].values[pick[i]])) return;
  push_tunables(s, one, pick, L);
  const int args[3] = {problem, t, hw};
  if (ask_bool(s, L, table, "valid", args, 2)) {
    mk_choice c = {.of = one, .name = one->name, .shown = one->shown, .own = one->own};
    memcpy(c.pick, pick, sizeof c.pick);
    c.cost = read_cost(s, one, L, table, args);
    c.label = label_of(s, one, pick);
    MK_PUSH(&s->arena, found->items, found->n, found->cap, c);
  }
  lua_settop(L, top);
}

int mk_sidecar_settle(lua_State *L) {
  mk_sidecars *s = lua_touserdata(L, 1);
  const mk_problem *p = lua_touserdata(L, 2);
  mk_choice *c = lua_touserdata(L, 3);
  const mk_sidecar *one = c->of;
  luaL_checkstack(L, 32, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, one->table);
  const int table = lua_gettop(L), args[2] = {table + 1, table + 2};
  push_problem(L, p);
  push_tunables(s, one, c->pick, L);
  c->nfields = one->nfields;
  c->fields = one->fields;
  c->min_arch = one->arch_min;
  c->arch_specific = one->arch_specific;
  c->fetches = one->fetches;
  ask(s, L, table, "launch", args, 2);
  c->ntmaps = 0; /* of an earlier attempt that failed */
  read_launch(s, one, p, c, L);
  ask(s, L, table, "constants", args, 2);
  c->constants = read_constants(s, L);
  return 0;
}

int mk_sidecar_enumerate(lua_State *L) {
  mk_sidecars *s = lua_touserdata(L, 1);
  mk_sidecar *one = lua_touserdata(L, 2);
  const mk_problem *p = lua_touserdata(L, 3);
  mk_sidecar_found *found = lua_touserdata(L, 4);
  luaL_checkstack(L, 32, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, one->table);
  int table = lua_gettop(L), problem = table + 1, hw = table + 2;
  push_problem(L, p);
  push_target(L, &s->target);
  if (!ask_bool(s, L, table, "accepts", &problem, 1)) return 0;
  unsigned char pick[MK_MAX_TUNABLES] = {0};
  int left = MAX_COMBINATIONS;
  for (int i = 0; i < one->ntunables; i++)
    if (!one->tunables[i].n) return 0;
  for (int at = 0; at >= 0 && left-- > 0;) { /* counts through all combinations, the first tunable fastest */
    try_choice(s, one, found, pick, L, table, problem, hw);
    for (at = 0; at < one->ntunables && ++pick[at] == one->tunables[at].n; at++) pick[at] = 0;
    if (at == one->ntunables) at = -1;
  }
  return 0;
}

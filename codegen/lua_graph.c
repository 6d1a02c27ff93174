/* Global functions of scripts that stand at the graph's border: weights, inputs, states, outputs, constants. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codegen/lua_script.h"

static const char WEIGHTS[] = "moonkiln.weights"; /* registry: name -> tensor */
static const char NAMES[] = "moonkiln.names";     /* registry: name of an input, a state or an output -> what and where it is */

static void check_room(lua_State *L, const mk_graph *g) {
  if (g->arena.used > MK_MAX_GRAPH_BYTES || g->noutputs + g->nupdates > MK_MAX_NODES)
    luaL_error(L, "the names of the graph need too much memory");
}

static int graph_name(lua_State *L) {
  mk_graph *g = mk_script_of(L)->g;
  check_room(L, g);
  g->name = mk_strdup(&g->arena, mk_lua_name(L, 1, "graph_name"));
  return 0;
}

/* Inputs, states and outputs are read and written by name from outside, so a name stands for one of them. */
static void claim(lua_State *L, const char *name, const char *what) {
  char where[MK_WHERE_TEXT];
  lua_getfield(L, LUA_REGISTRYINDEX, NAMES);
  if (lua_getfield(L, -1, name) != LUA_TNIL)
    luaL_error(L, "%s '%s': the name is taken by the %s", what, name, lua_tostring(L, -1));
  lua_pop(L, 1);
  lua_pushfstring(L, "%s at %s", what, mk_script_where(L, where));
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

/* Reads name, shape and dtype from the table at index 1 and pushes the name for safekeeping. */
static const char *border(lua_State *L, const char *what, const char *allowed, mk_dtype *dtype, int64_t *dims, int *rank) {
  char field[64];
  mk_lua_fields(L, 1, what, allowed);
  lua_settop(L, 1);
  snprintf(field, sizeof field, "%s: dtype", what);
  *dtype = lua_getfield(L, 1, "dtype") == LUA_TNIL ? MK_F32 : mk_lua_dtype(L, -1, field);
  snprintf(field, sizeof field, "%s: shape", what);
  lua_getfield(L, 1, "shape");
  *rank = mk_lua_dims(L, -1, field, 1, dims);
  snprintf(field, sizeof field, "%s: name", what);
  lua_getfield(L, 1, "name");
  return mk_lua_name(L, -1, field);
}

static int input(lua_State *L) {
  mk_dtype dtype;
  int64_t dims[MK_MAX_RANK];
  int rank;
  const char *name = border(L, "input", " name shape dtype rate ", &dtype, dims, &rank);
  mk_attr attr = {.rate = MK_RATE_STEP};
  if (lua_getfield(L, 1, "rate") != LUA_TNIL) {
    const char *rate = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
    if (!strcmp(rate, "prompt"))
      attr.rate = MK_RATE_PROMPT;
    else if (strcmp(rate, "step") != 0)
      return luaL_error(L, "input '%s': rate is '%s'; use \"step\" or \"prompt\" (weights are made by weight)", name, rate);
  }
  claim(L, name, "input");
  mk_lua_push(L, mk_lua_build(L, MK_OP_INPUT, NULL, 0, dtype, dims, rank, &attr, name));
  return 1;
}

static int state(lua_State *L) {
  mk_dtype dtype;
  int64_t dims[MK_MAX_RANK];
  int rank;
  const char *name = border(L, "state", " name shape dtype ", &dtype, dims, &rank);
  claim(L, name, "state");
  mk_lua_push(L, mk_lua_build(L, MK_OP_STATE, NULL, 0, dtype, dims, rank, NULL, name));
  return 1;
}

static bool same_dims(const int64_t *a, int a_rank, const int64_t *b, int b_rank) {
  return a_rank == b_rank && !memcmp(a, b, sizeof *a * (size_t)a_rank);
}

/* The declared shape, against the one that there is. */
static void check_weight_shape(lua_State *L, const char *name, const mk_tensor *there, const int64_t *dims, int rank) {
  char want[160], have[160];
  if (same_dims(there->dims, there->rank, dims, rank)) return;
  mk_dims_str(dims, rank, want, sizeof want);
  mk_dims_str(there->dims, there->rank, have, sizeof have);
  luaL_error(L, "weight '%s': the graph wants %s, %s has %s", name, want, there->where ? there->where : "the source", have);
}

static int weight(lua_State *L) {
  const mk_source *source = mk_script_of(L)->weights;
  const char *name = mk_lua_name(L, 1, "weight: name");
  lua_settop(L, 2);
  bool declared = !lua_isnil(L, 2);
  mk_tensor there = {.name = name, .dtype = MK_F32};
  if (declared) there.rank = mk_lua_dims(L, 2, "weight: shape", 1, there.dims);
  lua_getfield(L, LUA_REGISTRYINDEX, WEIGHTS);
  if (lua_getfield(L, 3, name) != LUA_TNIL) { /* asked for before */
    const mk_node *n = mk_lua_node_of(L, mk_lua_tensor_id(L, 4));
    mk_tensor first = {.where = n->where, .rank = n->rank};
    memcpy(first.dims, n->dims, sizeof first.dims);
    if (declared) check_weight_shape(L, name, &first, there.dims, there.rank);
    return 1;
  }
  if (source) {
    mk_tensor found = {0};
    if (!source->describe(source->self, name, &found)) return luaL_error(L, "weight '%s': there is no such tensor", name);
    if (declared) check_weight_shape(L, name, &found, there.dims, there.rank);
    there = found;
  } else if (!declared) {
    return luaL_error(L, "weight '%s': the shape must be given, as there are no weights to read it from", name);
  }
  mk_lua_push(L,
              mk_lua_build(L, MK_OP_INPUT, NULL, 0, there.dtype, there.dims, there.rank, &(mk_attr){.rate = MK_RATE_LOAD}, name));
  lua_pushvalue(L, -1);
  lua_setfield(L, 3, name);
  return 1;
}

static int has_weight(lua_State *L) {
  const mk_source *source = mk_script_of(L)->weights;
  mk_tensor t = {0};
  const char *name = mk_lua_name(L, 1, "has_weight: name");
  lua_pushboolean(L, !source || source->describe(source->self, name, &t));
  return 1;
}

static int weight_shape(lua_State *L) {
  const mk_source *source = mk_script_of(L)->weights;
  mk_tensor t = {0};
  const char *name = mk_lua_name(L, 1, "weight_shape: name");
  if (!source || !source->describe(source->self, name, &t)) return lua_pushnil(L), 1;
  lua_createtable(L, t.rank, 0);
  for (int i = 0; i < t.rank; i++) {
    lua_pushinteger(L, t.dims[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int entry(lua_State *L) {
  mk_script *s = mk_script_of(L);
  const char *name = mk_lua_name(L, 1, "entry: name");
  if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != strlen(name) ||
      strlen(name) >= MK_ENTRY_TEXT)
    return luaL_error(L, "entry: '%s' must be letters, digits and underscores, fewer than %d", name, MK_ENTRY_TEXT);
  if (!strcmp(name, "load") || !strcmp(name, "prompt")) return luaL_error(L, "entry: '%s' is the name of another program", name);
  snprintf(s->entry, sizeof s->entry, "%s", name);
  return 0;
}

static int output(lua_State *L) {
  mk_script *s = mk_script_of(L);
  const char *name = mk_lua_name(L, 1, "output: name");
  int id = mk_lua_tensor_id(L, 2);
  check_room(L, s->g);
  claim(L, name, "output");
  mk_graph_output(s->g, s->entry, name, id);
  return 0;
}

static int update(lua_State *L) {
  mk_script *s = mk_script_of(L);
  int to = mk_lua_tensor_id(L, 1), from = mk_lua_tensor_id(L, 2);
  const mk_node *a = &s->g->nodes[to], *b = &s->g->nodes[from];
  if (a->op != MK_OP_STATE) return luaL_error(L, "update: the first argument must come from state{...}");
  char want[160], have[160];
  if (a->dtype != b->dtype || !same_dims(a->dims, a->rank, b->dims, b->rank))
    return luaL_error(L, "update: state '%s' is %s %s, the value is %s %s", a->name, mk_dtype_name(a->dtype),
                      mk_dims_str(a->dims, a->rank, want, sizeof want), mk_dtype_name(b->dtype),
                      mk_dims_str(b->dims, b->rank, have, sizeof have));
  check_room(L, s->g);
  for (int i = 0; i < s->g->nupdates; i++)
    if (s->g->updates[i].state == to && !strcmp(s->g->updates[i].entry, s->entry))
      return luaL_error(L, "update: entry '%s' updates state '%s' already", s->entry, a->name);
  mk_graph_update(s->g, s->entry, to, from);
  return 0;
}

/* The number on the top of the stack, the position-th of a constant; the message is made only where it is needed. */
static float number_f32(lua_State *L, int64_t position) {
  float v = lua_type(L, -1) == LUA_TNUMBER ? (float)lua_tonumber(L, -1) : NAN;
  if (isfinite(v)) return v;
  char what[48];
  snprintf(what, sizeof what, "const: number %lld", (long long)position);
  return mk_lua_float(L, -1, what);
}

static int32_t number_i32(lua_State *L, int64_t position) {
  int exact = 0;
  lua_Integer v = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &exact) : 0;
  if (exact && v >= INT32_MIN && v <= INT32_MAX) return (int32_t)v;
  char what[48];
  snprintf(what, sizeof what, "const: number %lld", (long long)position);
  return (int32_t)mk_lua_whole(L, -1, what, INT32_MIN, INT32_MAX);
}

static int constant(lua_State *L) {
  if (lua_type(L, 1) == LUA_TNUMBER && lua_isnoneornil(L, 2)) {
    mk_lua_push(L, mk_lua_node(L, 1));
    return 1;
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  int64_t dims[MK_MAX_RANK];
  int rank = mk_lua_dims(L, 2, "const: shape", 1, dims);
  mk_dtype dtype = lua_isnoneornil(L, 3) ? MK_F32 : mk_lua_dtype(L, 3, "const");
  if (dtype != MK_F32 && dtype != MK_I32) return luaL_error(L, "const: only f32 and i32; cast it");
  int64_t count = (int64_t)lua_rawlen(L, 1), want = 1;
  for (int i = 0; i < rank && want <= count; i++) want = dims[i] > count ? count + 1 : want * dims[i];
  if (want != count) return luaL_error(L, "const: the shape does not hold the %I numbers", (LUAI_UACINT)count);
  void *data = lua_newuserdatauv(L, 4 * (size_t)count, 0);
  for (int64_t i = 0; i < count; i++) {
    lua_rawgeti(L, 1, i + 1);
    if (dtype == MK_I32)
      ((int32_t *)data)[i] = number_i32(L, i + 1);
    else
      ((float *)data)[i] = number_f32(L, i + 1);
    lua_pop(L, 1);
  }
  mk_sandbox_charge(mk_script_of(L), count);
  mk_lua_push(L, mk_lua_build(L, MK_OP_CONST, NULL, 0, dtype, dims, rank, &(mk_attr){.data = data}, NULL));
  return 1;
}

void mk_lua_graph(lua_State *L) {
  static const luaL_Reg functions[] = {{"graph_name", graph_name},
                                       {"input", input},
                                       {"state", state},
                                       {"weight", weight},
                                       {"has_weight", has_weight},
                                       {"weight_shape", weight_shape},
                                       {"entry", entry},
                                       {"output", output},
                                       {"update", update},
                                       {"const", constant},
                                       {NULL, NULL}};
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, WEIGHTS);
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, NAMES);
  lua_pushglobaltable(L);
  luaL_setfuncs(L, functions, 0);
  lua_pop(L, 1);
}

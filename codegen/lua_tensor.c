/* Tensors in scripts: operators and methods. */
#include <stdio.h>
#include <string.h>

#include "codegen/lua_script.h"

#define TYPE "tensor"

void mk_lua_push(lua_State *L, int id) {
  mk_tensor_ref *t = lua_newuserdatauv(L, sizeof *t, 0);
  t->id = id;
  luaL_setmetatable(L, TYPE);
}

int mk_lua_tensor_id(lua_State *L, int index) { return ((mk_tensor_ref *)luaL_checkudata(L, index, TYPE))->id; }

int mk_lua_build(lua_State *L, mk_op op, const int *args, int nargs, mk_dtype dtype, const int64_t *dims, int rank,
                 const mk_attr *attr, const char *name) {
  mk_script *s = mk_script_of(L);
  char where[MK_WHERE_TEXT];
  mk_status st = {0};
  int id = mk_build(s->g, op, args, nargs, dtype, dims, rank, attr, name, mk_script_where(L, where), &st);
  if (id >= 0) return id;
  lua_pushstring(L, st.message);
  return lua_error(L);
}

int mk_lua_node(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TNUMBER) {
    if (luaL_testudata(L, index, TYPE)) return mk_lua_tensor_id(L, index);
    return luaL_typeerror(L, index, "tensor or number");
  }
  float value = mk_lua_float(L, index, "the number");
  return mk_lua_build(L, MK_OP_CONST, NULL, 0, MK_F32, NULL, 0, &(mk_attr){.data = &value}, NULL);
}

/* Operators, maximum and minimum: the operation is the first upvalue. */
static int binary(lua_State *L) {
  int args[2] = {mk_lua_node(L, 1)};
  args[1] = mk_lua_node(L, 2);
  mk_lua_push(L, mk_lua_build(L, (mk_op)lua_tointeger(L, lua_upvalueindex(1)), args, 2, MK_F32, NULL, 0, NULL, NULL));
  return 1;
}

static int unary(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1);
  mk_lua_push(L, mk_lua_build(L, (mk_op)lua_tointeger(L, lua_upvalueindex(1)), &x, 1, MK_F32, NULL, 0, NULL, NULL));
  return 1;
}

static int cast(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1);
  mk_dtype to = mk_lua_dtype(L, 2, "cast");
  if (mk_lua_node_of(L, x)->dtype != to) x = mk_lua_build(L, MK_OP_CAST, &x, 1, to, NULL, 0, NULL, NULL);
  mk_lua_push(L, x);
  return 1;
}

static int reshape(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1);
  int64_t dims[MK_MAX_RANK], rest = mk_node_count(mk_lua_node_of(L, x));
  int rank = mk_lua_dims(L, 2, "reshape", -1, dims), open = -1;
  for (int i = 0; i < rank; i++) {
    if (dims[i] == -1 && open >= 0) return luaL_error(L, "reshape: only one extent may be -1");
    if (dims[i] == -1)
      open = i;
    else if (dims[i] == 0)
      return luaL_error(L, "reshape[%d] is 0; extents are at least 1", i + 1);
  }
  for (int i = 0; open >= 0 && i < rank; i++) {
    if (i == open) continue;
    if (rest % dims[i])
      return luaL_error(L, "reshape: the given extents do not divide the %I elements",
                        (LUAI_UACINT)mk_node_count(mk_lua_node_of(L, x)));
    rest /= dims[i];
  }
  if (open >= 0) dims[open] = rest;
  mk_lua_push(L, mk_lua_build(L, MK_OP_RESHAPE, &x, 1, MK_F32, dims, rank, NULL, NULL));
  return 1;
}

static int permute(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1), rank = mk_lua_node_of(L, x)->rank;
  luaL_checktype(L, 2, LUA_TTABLE);
  if ((int64_t)lua_rawlen(L, 2) != rank)
    return luaL_error(L, "permute: %I axes given; the tensor has %d", (LUAI_UACINT)lua_rawlen(L, 2), rank);
  mk_attr attr = {0};
  for (int i = 0; i < rank; i++) {
    lua_rawgeti(L, 2, i + 1);
    attr.perm[i] = (int8_t)mk_lua_axis(L, -1, "permute", rank);
    lua_pop(L, 1);
  }
  mk_lua_push(L, mk_lua_build(L, MK_OP_PERMUTE, &x, 1, MK_F32, NULL, 0, &attr, NULL));
  return 1;
}

static int expand(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1);
  int64_t dims[MK_MAX_RANK];
  int rank = mk_lua_dims(L, 2, "expand", 1, dims);
  mk_lua_push(L, mk_lua_build(L, MK_OP_EXPAND, &x, 1, MK_F32, dims, rank, NULL, NULL));
  return 1;
}

static int slice(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1);
  const mk_node *n = mk_lua_node_of(L, x);
  int axis = mk_lua_axis(L, 2, "slice", n->rank), rank = n->rank;
  int64_t dims[MK_MAX_RANK];
  memcpy(dims, n->dims, sizeof dims);
  mk_attr attr = {0};
  attr.start[axis] = mk_lua_whole(L, 3, "slice: the offset", 0, MK_MAX_ELEMENTS);
  dims[axis] = mk_lua_whole(L, 4, "slice: the count", 1, MK_MAX_ELEMENTS);
  mk_lua_push(L, mk_lua_build(L, MK_OP_SLICE, &x, 1, MK_F32, dims, rank, &attr, NULL));
  return 1;
}

static int upsample(lua_State *L) {
  int x = mk_lua_tensor_id(L, 1);
  mk_lua_push(L, mk_lua_build(L, MK_OP_UPSAMPLE, &x, 1, MK_F32, NULL, 0, NULL, NULL));
  return 1;
}

static int label(lua_State *L) {
  mk_graph *g = mk_script_of(L)->g;
  mk_node *n = &g->nodes[mk_lua_tensor_id(L, 1)];
  const char *name = mk_lua_name(L, 2, "label");
  if (n->op != MK_OP_INPUT && n->op != MK_OP_STATE && !(n->name && !strcmp(n->name, name))) {
    if (g->arena.used > MK_MAX_GRAPH_BYTES) return luaL_error(L, "label: the graph's names need too much memory");
    n->name = mk_strdup(&g->arena, name);
  }
  lua_settop(L, 1);
  return 1;
}

/* x.shape, x.dtype, x.rank, or a method from the table that is the upvalue. */
static int get_field(lua_State *L) {
  const mk_node *n = mk_lua_node_of(L, mk_lua_tensor_id(L, 1));
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (!strcmp(key, "shape")) {
    lua_createtable(L, n->rank, 0);
    for (int i = 0; i < n->rank; i++) {
      lua_pushinteger(L, n->dims[i]);
      lua_rawseti(L, -2, i + 1);
    }
  } else if (!strcmp(key, "dtype")) {
    lua_pushstring(L, mk_dtype_name(n->dtype));
  } else if (!strcmp(key, "rank")) {
    lua_pushinteger(L, n->rank);
  } else {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL)
      return luaL_error(L, "a tensor has no field or method '%s'", *key ? key : luaL_typename(L, 2));
  }
  return 1;
}

static int set_field(lua_State *L) { return luaL_error(L, "the fields of a tensor cannot be set"); }

static int to_string(lua_State *L) {
  const mk_node *n = mk_lua_node_of(L, mk_lua_tensor_id(L, 1));
  char shape[160];
  lua_pushfstring(L, "tensor %s %s", mk_dtype_name(n->dtype), mk_dims_str(n->dims, n->rank, shape, sizeof shape));
  return 1;
}

static void set_op(lua_State *L, const char *name, lua_CFunction f, mk_op op) {
  lua_pushinteger(L, op);
  lua_pushcclosure(L, f, 1);
  lua_setfield(L, -2, name);
}

void mk_lua_tensor(lua_State *L) {
  static const luaL_Reg methods[] = {{"cast", cast},   {"reshape", reshape},   {"permute", permute}, {"expand", expand},
                                     {"slice", slice}, {"upsample", upsample}, {"label", label},     {NULL, NULL}};
  luaL_newmetatable(L, TYPE);
  luaL_newlib(L, methods);
  for (int op = 0; op < MK_OP_COUNT; op++) {
    mk_op_class class = mk_op_class_of((mk_op)op);
    if ((class == MK_CLASS_UNARY && op != MK_OP_CAST) || class == MK_CLASS_REDUCE)
      set_op(L, mk_op_name((mk_op)op), unary, (mk_op)op);
  }
  lua_pushcclosure(L, get_field, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, set_field);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, to_string);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, TYPE);
  lua_setfield(L, -2, "__metatable"); /* what getmetatable shows */
  set_op(L, "__add", binary, MK_OP_ADD);
  set_op(L, "__sub", binary, MK_OP_SUB);
  set_op(L, "__mul", binary, MK_OP_MUL);
  set_op(L, "__div", binary, MK_OP_DIV);
  set_op(L, "__unm", unary, MK_OP_NEG);
  lua_pop(L, 1);
  lua_pushglobaltable(L);
  set_op(L, "maximum", binary, MK_OP_MAX);
  set_op(L, "minimum", binary, MK_OP_MIN);
  lua_pop(L, 1);
}

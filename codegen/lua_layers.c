/* Global functions of scripts that combine tensors: concat, gather, rope, matmul, attention, conv. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codegen/lua_script.h"

static int concat(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Unsigned n = lua_rawlen(L, 1);
  if (n < 1 || n > MK_MAX_ARGS) return luaL_error(L, "concat: %I tensors; 1 to %d can be joined", (LUAI_UACINT)n, MK_MAX_ARGS);
  int args[MK_MAX_ARGS];
  for (int i = 0; i < (int)n; i++) {
    lua_rawgeti(L, 1, i + 1);
    if (!luaL_testudata(L, -1, "tensor"))
      return luaL_error(L, "concat: entry %d is a %s, not a tensor", i + 1, luaL_typename(L, -1));
    args[i] = mk_lua_tensor_id(L, -1);
    lua_pop(L, 1);
  }
  mk_attr attr = {.axis = (int8_t)mk_lua_axis(L, 2, "concat", mk_lua_node_of(L, args[0])->rank)};
  mk_lua_push(L, mk_lua_build(L, MK_OP_CONCAT, args, (int)n, MK_F32, NULL, 0, &attr, NULL));
  return 1;
}

static int gather(lua_State *L) {
  int args[] = {mk_lua_tensor_id(L, 1), mk_lua_tensor_id(L, 2)};
  mk_lua_push(L, mk_lua_build(L, MK_OP_GATHER, args, 2, MK_F32, NULL, 0, NULL, NULL));
  return 1;
}

static int rope(lua_State *L) {
  int args[] = {mk_lua_tensor_id(L, 1), mk_lua_tensor_id(L, 2), mk_lua_tensor_id(L, 3)};
  mk_lua_push(L, mk_lua_build(L, MK_OP_ROPE, args, 3, MK_F32, NULL, 0, NULL, NULL));
  return 1;
}

static int matmul(lua_State *L) {
  int args[] = {mk_lua_tensor_id(L, 1), mk_lua_tensor_id(L, 2)};
  if (!lua_isnoneornil(L, 3)) mk_lua_fields(L, 3, "matmul", " tf32 ");
  mk_attr attr = {.tf32 = mk_lua_flag(L, 3, "tf32")};
  mk_lua_push(L, mk_lua_build(L, MK_OP_MATMUL, args, 2, MK_F32, NULL, 0, &attr, NULL));
  return 1;
}

/* An optional tensor field of the options; appends it to args. */
static bool take_tensor(lua_State *L, const char *field, int *args, int *nargs) {
  int type = lua_getfield(L, 4, field);
  if (type != LUA_TNIL) {
    if (!luaL_testudata(L, -1, "tensor")) luaL_error(L, "attention: %s is a %s, not a tensor", field, luaL_typename(L, -1));
    args[(*nargs)++] = mk_lua_tensor_id(L, -1);
  }
  lua_pop(L, 1);
  return type != LUA_TNIL;
}

static int attention(lua_State *L) {
  int args[5] = {mk_lua_tensor_id(L, 1), mk_lua_tensor_id(L, 2), mk_lua_tensor_id(L, 3)}, nargs = 3;
  const mk_node *q = mk_lua_node_of(L, args[0]);
  mk_attr attr = {.scale = q->rank ? (float)(1 / sqrt((double)q->dims[q->rank - 1])) : 1};
  if (!lua_isnoneornil(L, 4)) {
    mk_lua_fields(L, 4, "attention", " scale bias kv_len causal ");
    attr.has_bias = take_tensor(L, "bias", args, &nargs);
    attr.has_kv_len = take_tensor(L, "kv_len", args, &nargs);
    attr.causal = mk_lua_flag(L, 4, "causal");
    if (lua_getfield(L, 4, "scale") != LUA_TNIL) attr.scale = mk_lua_float(L, -1, "attention: scale");
  }
  mk_lua_push(L, mk_lua_build(L, MK_OP_ATTENTION, args, nargs, MK_F32, NULL, 0, &attr, NULL));
  return 1;
}

static int conv(lua_State *L) {
  static const char *const axes[] = {"t", "h", "w"};
  int args[] = {mk_lua_tensor_id(L, 1), mk_lua_tensor_id(L, 2)};
  mk_attr attr = {.tf32 = false};
  if (!lua_isnoneornil(L, 3)) {
    mk_lua_fields(L, 3, "conv", " t h w tf32 ");
    attr.tf32 = mk_lua_flag(L, 3, "tf32");
    for (int i = 0; i < 3; i++) {
      if (lua_getfield(L, 3, axes[i]) != LUA_TNIL) {
        int64_t pad[MK_MAX_RANK];
        char what[32];
        snprintf(what, sizeof what, "conv: padding %s", axes[i]);
        if (mk_lua_dims(L, -1, what, 0, pad) != 2) return luaL_error(L, "%s must be {before, after}", what);
        if (pad[0] > INT16_MAX || pad[1] > INT16_MAX) return luaL_error(L, "%s is more than %d", what, INT16_MAX);
        attr.pad[2 * i] = (int16_t)pad[0];
        attr.pad[2 * i + 1] = (int16_t)pad[1];
      }
      lua_pop(L, 1);
    }
  }
  mk_lua_push(L, mk_lua_build(L, MK_OP_CONV, args, 2, MK_F32, NULL, 0, &attr, NULL));
  return 1;
}

void mk_lua_layers(lua_State *L) {
  static const luaL_Reg functions[] = {{"concat", concat},       {"gather", gather}, {"rope", rope}, {"matmul", matmul},
                                       {"attention", attention}, {"conv", conv},     {NULL, NULL}};
  lua_pushglobaltable(L);
  luaL_setfuncs(L, functions, 0);
  lua_pop(L, 1);
}

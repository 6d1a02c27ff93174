/* Reading the arguments of graph functions from the Lua stack, with messages that name the argument. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codegen/lua_script.h"

const mk_node *mk_lua_node_of(lua_State *L, int id) { return &mk_script_of(L)->g->nodes[id]; }

int64_t mk_lua_whole(lua_State *L, int index, const char *what, int64_t least, int64_t most) {
  int exact = 0;
  lua_Integer v = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &exact) : 0;
  if (exact && v >= least && v <= most) return v;
  lua_pushvalue(L, index);
  const char *got = lua_isnumber(L, -1) || lua_isstring(L, -1) ? lua_tostring(L, -1) : luaL_typename(L, -1);
  if (most == MK_MAX_ELEMENTS)
    return luaL_error(L, "%s is %s; it must be a whole number from %I on, at most 2^40", what, got, (LUAI_UACINT)least);
  return luaL_error(L, "%s is %s; it must be a whole number from %I to %I", what, got, (LUAI_UACINT)least, (LUAI_UACINT)most);
}

int mk_lua_dims(lua_State *L, int index, const char *what, int64_t least, int64_t out[MK_MAX_RANK]) {
  index = lua_absindex(L, index);
  if (!lua_istable(L, index)) return luaL_error(L, "%s is a %s; it must be a list of numbers", what, luaL_typename(L, index));
  lua_Unsigned n = lua_rawlen(L, index);
  if (n > MK_MAX_RANK)
    return luaL_error(L, "%s has %I entries; at most %d axes are supported", what, (LUAI_UACINT)n, MK_MAX_RANK);
  for (int i = 0; i < (int)n; i++) {
    char entry[96];
    snprintf(entry, sizeof entry, "%s[%d]", what, i + 1);
    lua_rawgeti(L, index, i + 1);
    out[i] = mk_lua_whole(L, -1, entry, least, MK_MAX_ELEMENTS);
    lua_pop(L, 1);
  }
  return (int)n;
}

int mk_lua_axis(lua_State *L, int index, const char *what, int rank) {
  int exact = 0;
  lua_Integer v = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &exact) : 0;
  if (exact && v >= 1 && v <= rank) return (int)v - 1;
  if (exact && v <= -1 && v >= -rank) return rank + (int)v;
  if (exact) return luaL_error(L, "%s: there is no axis %I; the tensor has %d", what, (LUAI_UACINT)v, rank);
  return luaL_error(L, "%s: the axis must be a whole number, not a %s", what, luaL_typename(L, index));
}

mk_dtype mk_lua_dtype(lua_State *L, int index, const char *what) {
  mk_dtype t = MK_F32;
  const char *name = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : luaL_typename(L, index);
  if (lua_type(L, index) != LUA_TSTRING || !mk_dtype_parse(name, &t))
    luaL_error(L, "%s: '%s' is no dtype; use \"f32\", \"f16\", \"bf16\" or \"i32\"", what, name);
  return t;
}

float mk_lua_float(lua_State *L, int index, const char *what) {
  if (lua_type(L, index) != LUA_TNUMBER) luaL_error(L, "%s is a %s; it must be a number", what, luaL_typename(L, index));
  lua_Number v = lua_tonumber(L, index);
  if (isnan(v)) luaL_error(L, "%s is NaN", what);
  if (isfinite(v) && !isfinite((float)v)) luaL_error(L, "%s is %f; f32 reaches to 3.4e38", what, v);
  return (float)v;
}

bool mk_lua_flag(lua_State *L, int index, const char *field) {
  if (!lua_istable(L, index)) return false;
  int type = lua_getfield(L, index, field);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN)
    luaL_error(L, "%s is a %s; it must be true or false", field, luaL_typename(L, -1));
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

const char *mk_lua_name(lua_State *L, int index, const char *what) {
  if (lua_type(L, index) != LUA_TSTRING) luaL_error(L, "%s is a %s; it must be a string", what, luaL_typename(L, index));
  size_t len;
  const char *name = lua_tolstring(L, index, &len);
  if (!len || len > MK_MAX_NAME) luaL_error(L, "%s has %I bytes; 1 to %d are allowed", what, (LUAI_UACINT)len, MK_MAX_NAME);
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)name[i] < ' ' || name[i] == '"' || name[i] == 127)
      luaL_error(L, "%s has a control character or a quote", what);
  return name;
}

void mk_lua_fields(lua_State *L, int index, const char *what, const char *allowed) {
  index = lua_absindex(L, index);
  if (!lua_istable(L, index)) luaL_error(L, "%s takes a table of fields, not a %s", what, luaL_typename(L, index));
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    char word[64] = "";
    if (lua_type(L, -2) == LUA_TSTRING) snprintf(word, sizeof word, " %s ", lua_tostring(L, -2));
    if (*word && strlen(word) < sizeof word - 1 && !strchr(lua_tostring(L, -2), ' ') && strstr(allowed, word)) continue;
    lua_pushvalue(L, -2);
    luaL_error(L, "%s has no field '%s'; it knows%s", what, lua_isstring(L, -1) ? lua_tostring(L, -1) : luaL_typename(L, -1),
               allowed);
  }
}

/* The script's parameters: JSON to Lua tables. */
#include <jansson.h>

#include "codegen/lua_script.h"

static void push_value(lua_State *L, const json_t *v);

static void push_object(lua_State *L, const json_t *v) {
  lua_createtable(L, 0, (int)json_object_size(v));
  const char *key;
  json_t *item;
  json_object_foreach((json_t *)v, key, item) {
    push_value(L, item);
    lua_setfield(L, -2, key);
  }
}

static void push_value(lua_State *L, const json_t *v) {
  luaL_checkstack(L, 4, "params: nested too deeply");
  switch (json_typeof(v)) {
    case JSON_OBJECT: push_object(L, v); break;
    case JSON_ARRAY:
      lua_createtable(L, (int)json_array_size(v), 0);
      for (size_t i = 0; i < json_array_size(v); i++) {
        push_value(L, json_array_get(v, i));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
      }
      break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(v), json_string_length(v)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(v)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(v)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    case JSON_NULL: lua_pushnil(L); break;
  }
}

/* Keeps the parsed document reachable for freeing if pushing raises an error. */
static int free_document(lua_State *L) {
  json_t **doc = lua_touserdata(L, 1);
  json_decref(*doc);
  *doc = NULL;
  return 0;
}

void mk_lua_params(lua_State *L, const char *json) {
  json_t **doc = lua_newuserdatauv(L, sizeof *doc, 0);
  *doc = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, free_document);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  json_error_t why;
  *doc = json_loads(json ? json : "{}", JSON_REJECT_DUPLICATES, &why);
  if (!*doc) luaL_error(L, "params: line %d, column %d: %s", why.line, why.column, why.text);
  if (!json_is_object(*doc)) luaL_error(L, "params: the document must be a JSON object, as {\"dim\": 64}");
  push_value(L, *doc);
  lua_remove(L, -2);
}

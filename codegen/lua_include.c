/* Files of a script: its own, and those that include() runs for their value. */
#include <stdlib.h>
#include <string.h>

#include "codegen/lua_script.h"
#include "runtime/base/file.h"

static const char CHUNKS[] = "moonkiln.chunks"; /* registry: path -> {value}, or true while it runs */

static int raise(lua_State *L, const mk_status *st) {
  mk_script_of(L)->code = st->code;
  lua_pushstring(L, st->message);
  return lua_error(L);
}

static int free_text(lua_State *L) {
  char **text = lua_touserdata(L, 1);
  free(*text);
  *text = NULL;
  return 0;
}

void mk_lua_chunk(lua_State *L, const char *path, const char *name) {
  char **text = lua_newuserdatauv(L, sizeof *text, 0); /* owns the text should an error pass by */
  *text = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, free_text);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  const char *chunk_name = lua_pushfstring(L, "@%s", name);
  size_t bytes;
  mk_status st = {0};
  *text = mk_file_read(path, &bytes, &st);
  if (!*text) raise(L, &st);
  if (bytes && (*text)[0] == LUA_SIGNATURE[0]) luaL_error(L, "%s:1: this is Lua bytecode; only source text is accepted", name);
  if (luaL_loadbufferx(L, *text, bytes, chunk_name, "t") != LUA_OK) lua_error(L);
  free(*text);
  *text = NULL;
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* Pushes the path of the file of this name: in the folder of the file that includes it, else among the parts that all share. */
static const char *find(lua_State *L, const char **folder, const char *name) {
  const mk_script *s = mk_script_of(L);
  const char *path = lua_pushfstring(L, "%s%s", s->folder, name);
  *folder = s->folder;
  if (!s->parts || mk_file_exists(path)) return path;
  lua_pop(L, 1);
  *folder = s->parts;
  return lua_pushfstring(L, "%s%s", s->parts, name);
}

static int include(lua_State *L) {
  mk_script *s = mk_script_of(L);
  const char *name = mk_lua_name(L, 1, "include: name"), *folder, *from = s->folder;
  size_t len = strlen(name);
  if (strpbrk(name, "/\\") || *name == '.' || len < 5 || strcmp(name + len - 4, ".lua") != 0)
    return luaL_error(L, "include: '%s' must be the name of a .lua file in the script's own folder", name);
  if (!from)
    return luaL_error(L, "include: '%s': files are included when a file is read, not when its functions are called", name);
  lua_settop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, CHUNKS);
  const char *path = find(L, &folder, name);
  int seen = lua_getfield(L, 2, path);
  if (seen == LUA_TBOOLEAN) return luaL_error(L, "include: '%s' includes itself", name);
  if (seen == LUA_TNIL) {
    lua_pushboolean(L, 1);
    lua_setfield(L, 2, path);
    lua_newtable(L);
    mk_lua_chunk(L, path, name);
    s->folder = folder;
    lua_call(L, 0, 1);
    s->folder = from;
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, path);
  }
  lua_rawgeti(L, -1, 1);
  return 1;
}

void mk_lua_include(lua_State *L) {
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, CHUNKS);
  lua_register(L, "include", include);
}

bool mk_lua_included(lua_State *L, const char *path) {
  lua_getfield(L, LUA_REGISTRYINDEX, CHUNKS);
  bool was = lua_getfield(L, -1, path) != LUA_TNIL;
  lua_pop(L, 2);
  return was;
}

/* Running a script: its file and those it includes, its parameters, its errors. */
#include <stdlib.h>
#include <string.h>

#include "codegen/graph.h"
#include "codegen/lua_script.h"
#include "runtime/base/file.h"

static const char CHUNKS[] = "moonkiln.chunks"; /* registry: file name -> {value}, or true while it runs */

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

/* Pushes the chunk of the file at path, named name in messages. Text only: bytecode could break the sandbox. */
static void load_chunk(lua_State *L, const char *path, const char *name) {
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

static int include(lua_State *L) {
  const char *name = mk_lua_name(L, 1, "include: name");
  size_t len = strlen(name);
  if (strpbrk(name, "/\\") || *name == '.' || len < 5 || strcmp(name + len - 4, ".lua") != 0)
    return luaL_error(L, "include: '%s' must be the name of a .lua file in the script's own folder", name);
  lua_settop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, CHUNKS);
  int seen = lua_getfield(L, 2, name);
  if (seen == LUA_TBOOLEAN) return luaL_error(L, "include: '%s' includes itself", name);
  if (seen == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushboolean(L, 1);
    lua_setfield(L, 2, name);
    const char *path = mk_script_of(L)->path, *slash = strrchr(path, '/');
    lua_pushlstring(L, path, slash ? (size_t)(slash + 1 - path) : 0);
    lua_pushstring(L, name);
    lua_concat(L, 2);
    load_chunk(L, lua_tostring(L, -1), name);
    lua_newtable(L);
    lua_insert(L, -2);
    lua_call(L, 0, 1);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
  }
  lua_rawgeti(L, -1, 1);
  return 1;
}

/* Everything that may raise an error: the libraries, the parameters, the script. */
static int run(lua_State *L) {
  mk_script *s = mk_script_of(L);
  mk_sandbox_libs(L);
  mk_lua_tensor(L);
  mk_lua_graph(L);
  mk_lua_layers(L);
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, CHUNKS);
  lua_register(L, "include", include);
  mk_lua_params(L, s->params_json);
  lua_setglobal(L, "params");
  const char *slash = strrchr(s->path, '/');
  load_chunk(L, s->path, slash ? slash + 1 : s->path);
  lua_call(L, 0, 0);
  return 0;
}

/* "dir/wan_dit.lua" -> "wan_dit" in the graph's arena. */
static mk_graph *graph_for(const char *path) {
  mk_graph *g = mk_graph_new("");
  if (!g) return NULL;
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
  g->name = mk_strndup(&g->arena, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
  return g;
}

static bool run_protected(mk_script *s, const char *base, mk_status *st) {
  lua_State *L = mk_sandbox_open(s);
  if (!L) return mk_fail(st, MK_ENOMEM, "%s: out of memory for the script", base), false;
  lua_pushcfunction(L, mk_sandbox_handler);
  lua_pushcfunction(L, run);
  int result = lua_pcall(L, 0, 0, 1);
  if (result == LUA_ERRMEM)
    mk_fail(st, MK_EINPUT, "%s: the script needs more than %zu KiB of memory", base, s->max_memory >> 10);
  else if (result != LUA_OK)
    mk_fail(st, s->code ? s->code : MK_EINPUT, "%s", lua_tostring(L, -1));
  lua_close(L);
  return result == LUA_OK;
}

mk_graph *mk_graph_from_script(const mk_script_options *options, mk_status *st) {
  const char *slash = strrchr(options->path, '/'), *base = slash ? slash + 1 : options->path;
  mk_graph *g = graph_for(options->path);
  if (!g) return mk_fail(st, MK_ENOMEM, "out of host memory"), NULL;
  mk_script s = {
      .g = g, .weights = options->weights, .path = options->path, .params_json = options->params_json, .entry = "step"};
  s.max_instructions = options->max_instructions ? options->max_instructions : 500000000;
  s.max_memory = options->max_memory ? options->max_memory : (size_t)512 << 20;
  bool ok = run_protected(&s, base, st);
  if (ok && !g->noutputs && !g->nupdates) {
    mk_fail(st, MK_EINPUT, "%s: the script defines no output; end it with output(\"name\", value)", base);
    ok = false;
  }
  ok = ok && mk_verify(g, st);
  if (!ok) {
    mk_graph_free(g);
    return NULL;
  }
  return g;
}

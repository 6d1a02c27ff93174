/* Running a script: its file, its parameters, its errors. */
#include <string.h>

#include "codegen/graph.h"
#include "codegen/lua_script.h"

/* Everything that may raise an error: the libraries, the parameters, the script. */
static int run(lua_State *L) {
  mk_script *s = mk_script_of(L);
  mk_sandbox_libs(L);
  mk_lua_tensor(L);
  mk_lua_graph(L);
  mk_lua_layers(L);
  mk_lua_include(L);
  mk_lua_params(L, s->params_json);
  lua_setglobal(L, "params");
  const char *slash = strrchr(s->path, '/');
  s->folder = lua_pushlstring(L, s->path, slash ? (size_t)(slash + 1 - s->path) : 0);
  mk_lua_chunk(L, s->path, slash ? slash + 1 : s->path);
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

/* Every attention template compiles for every architecture it names, with no spills, no serialised wgmma and within the block's
 * shared memory. The variants come from tests/gpu/attention_dump.lua, which evaluates the sidecars. Needs NVRTC, no GPU. */
#include "runtime/gpu/compiler.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The variants of attention_dump.lua stay on the stack's top; what its strings point to lives as long as the state. */
static lua_State *open_variants(int *count) {
  lua_State *lua = luaL_newstate();
  assert_non_null(lua);
  luaL_openlibs(lua);
  if (luaL_dofile(lua, "tests/gpu/attention_dump.lua")) fail_msg("%s", lua_tostring(lua, -1));
  lua_getfield(lua, -1, "variants");
  if (lua_pcall(lua, 0, 1, 0)) fail_msg("%s", lua_tostring(lua, -1));
  *count = (int)luaL_len(lua, -1);
  return lua;
}

static const char *text_field(lua_State *lua, int index, const char *name) {
  lua_rawgeti(lua, -1, index);
  lua_getfield(lua, -1, name);
  const char *text = lua_tostring(lua, -1);
  assert_non_null(text);
  lua_pop(lua, 2);
  return text;
}

static int int_field(lua_State *lua, int index, const char *name) {
  lua_rawgeti(lua, -1, index);
  lua_getfield(lua, -1, name);
  int value = (int)lua_tointeger(lua, -1);
  lua_pop(lua, 2);
  return value;
}

static void every_variant_compiles(void **state) {
  (void)state;
  mk_compiler compiler;
  mk_status st = {0};
  if (!mk_compiler_open(&compiler, 0, NULL, &st)) {
    print_message("# no NVRTC: %s\n", st.message);
    skip();
  }
  int n, bad = 0, wgmma = 0;
  lua_State *lua = open_variants(&n);
  assert_true(n > 50);
  mk_compile_job *jobs = calloc((size_t)n, sizeof *jobs);
  mk_compile_result *results = calloc((size_t)n, sizeof *results);
  assert_true(jobs && results);
  for (int i = 0; i < n; i++) {
    jobs[i] = (mk_compile_job){.name = text_field(lua, i + 1, "label"),
                               .source = text_field(lua, i + 1, "source"),
                               .arch = text_field(lua, i + 1, "arch")};
    wgmma += strncmp(jobs[i].name, "wgmma", 5) == 0;
  }
  assert_true(wgmma > 0);
  assert_true(mk_compile_batch(&compiler, jobs, n, results, NULL, NULL, &st));
  for (int i = 0; i < n; i++) {
    const mk_compile_result *r = &results[i];
    const mk_kernel_report *report = &r->report;
    const char *fault = NULL;
    if (!r->ok)
      fault = r->message;
    else if (report->spill_bytes || report->stack_bytes)
      fault = "spills";
    else if (report->wgmma_serialized || report->setmaxnreg_ignored || strstr(r->log, "C75"))
      fault = r->log;
    if (fault) print_error("%s %s: %s\n", jobs[i].arch, jobs[i].name, fault);
    bad += fault != NULL;
    mk_compile_result_free(&results[i]);
  }
  free(jobs);
  free(results);
  lua_close(lua);
  assert_int_equal(bad, 0);
}

static void shared_memory_fits(void **state) {
  (void)state;
  int n;
  lua_State *lua = open_variants(&n);
  for (int i = 1; i <= n; i++) assert_true(int_field(lua, i, "smem") <= int_field(lua, i, "smem_limit"));
  lua_close(lua);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shared_memory_fits), cmocka_unit_test(every_variant_compiles)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

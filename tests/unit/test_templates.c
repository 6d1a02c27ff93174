/* Every matmul and convolution template compiles for every architecture, with no spills, no serialised wgmma and within the
 * block's shared memory. The variants come from tests/gpu/template_dump.lua, which evaluates the sidecars. With MOONKILN_TEST_ALL
 * set: every choice of tunables. */
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

#include "runtime/base/file.h"
#include "runtime/gpu/compiler.h"

typedef struct variants { /* strings are the Lua state's */
  lua_State *lua;
  int count;
  mk_compile_job *jobs;
  int *smem, *smem_limit;
} variants;

static const char *text_field(lua_State *lua, const char *name) {
  lua_getfield(lua, -1, name);
  const char *text = lua_tostring(lua, -1); /* stays referenced by its table */
  lua_pop(lua, 1);
  return text;
}

static int int_field(lua_State *lua, const char *name) {
  lua_getfield(lua, -1, name);
  int value = (int)lua_tointeger(lua, -1);
  lua_pop(lua, 1);
  return value;
}

static variants load_variants(bool everything) {
  variants v = {.lua = luaL_newstate()};
  assert_non_null(v.lua);
  luaL_openlibs(v.lua);
  if (luaL_dofile(v.lua, "tests/gpu/template_dump.lua")) fail_msg("%s", lua_tostring(v.lua, -1));
  lua_getfield(v.lua, -1, "variants");
  lua_pushboolean(v.lua, everything);
  if (lua_pcall(v.lua, 1, 1, 0)) fail_msg("%s", lua_tostring(v.lua, -1));
  v.count = (int)luaL_len(v.lua, -1);
  v.jobs = calloc((size_t)v.count, sizeof *v.jobs);
  v.smem = calloc((size_t)v.count, sizeof *v.smem);
  v.smem_limit = calloc((size_t)v.count, sizeof *v.smem_limit);
  assert_true(v.jobs && v.smem && v.smem_limit);
  for (int i = 0; i < v.count; i++) {
    lua_rawgeti(v.lua, -1, i + 1);
    v.jobs[i] = (mk_compile_job){
        .name = text_field(v.lua, "label"), .source = text_field(v.lua, "source"), .arch = text_field(v.lua, "arch")};
    v.smem[i] = int_field(v.lua, "smem");
    v.smem_limit[i] = int_field(v.lua, "smem_limit");
    lua_pop(v.lua, 1);
  }
  return v;
}

static void free_variants(variants *v) {
  free(v->jobs);
  free(v->smem);
  free(v->smem_limit);
  lua_close(v->lua);
}

static bool open_compiler(mk_compiler *c) {
  mk_status st = {0};
  if (mk_compiler_open(c, 0, NULL, &st)) return true;
  print_message("# no NVRTC: %s\n", st.message);
  return false;
}

/* Prints what is wrong with each result; returns how many are. */
static int judge(const mk_compile_job *jobs, const mk_compile_result *results, int n) {
  int bad = 0;
  for (int i = 0; i < n; i++) {
    const mk_compile_result *r = &results[i];
    bool slow = r->ok && (r->report.spill_bytes || r->report.wgmma_serialized || r->report.setmaxnreg_ignored);
    if (r->ok && !slow) continue;
    print_error("%s %s: %s\n", jobs[i].arch, jobs[i].name, r->ok ? r->log : r->message);
    bad++;
  }
  return bad;
}

static void all_compile(void **state) {
  (void)state;
  mk_compiler c;
  if (!open_compiler(&c)) skip();
  variants v = load_variants(getenv("MOONKILN_TEST_ALL") != NULL);
  assert_true(v.count > 80);
  mk_compile_result *results = calloc((size_t)v.count, sizeof *results);
  assert_non_null(results);
  mk_status st = {0};
  if (!mk_compile_batch(&c, v.jobs, v.count, results, NULL, NULL, &st)) fail_msg("%s", st.message);
  int bad = judge(v.jobs, results, v.count);
  for (int i = 0; i < v.count; i++) {
    int smem = v.smem[i] + results[i].report.smem_bytes;
    if (smem > v.smem_limit[i]) {
      print_error("%s %s: %d bytes of shared memory, of %d\n", v.jobs[i].arch, v.jobs[i].name, smem, v.smem_limit[i]);
      bad++;
    }
    mk_compile_result_free(&results[i]);
  }
  free(results);
  free_variants(&v);
  assert_int_equal(bad, 0);
}

/* Prelude and a file of the runtime's own kernels, as the runtime composes them. */
static void own_file_compiles(const mk_compiler *c, const char *path, const char *name) {
  mk_status st = {0};
  size_t bytes;
  char *prelude = mk_file_read("templates/prelude.cuh", &bytes, &st), *own = mk_file_read(path, &bytes, &st);
  assert_true(prelude && own);
  mk_text source = {0};
  mk_text_add(&source, prelude);
  mk_text_add(&source, own);
  static const char *const archs[] = {"sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"};
  mk_compile_job jobs[5];
  mk_compile_result results[5] = {0};
  for (int i = 0; i < 5; i++) jobs[i] = (mk_compile_job){.name = name, .source = mk_text_str(&source), .arch = archs[i]};
  bool ran = mk_compile_batch(c, jobs, 5, results, NULL, NULL, &st);
  int bad = judge(jobs, results, 5);
  for (int i = 0; i < 5; i++) mk_compile_result_free(&results[i]);
  mk_text_free(&source);
  free(prelude);
  free(own);
  assert_true(ran);
  assert_int_equal(bad, 0);
}

static void own_kernels_compile(void **state) {
  (void)state;
  mk_compiler c;
  if (!open_compiler(&c)) skip();
  own_file_compiles(&c, "templates/philox.cu", "philox");
  own_file_compiles(&c, "templates/compare.cu", "compare");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(own_kernels_compile), cmocka_unit_test(all_compile)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

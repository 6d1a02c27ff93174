/* Hopper templates' own text, run on the host: boxes, phases, swizzles, barriers, rounding. See tests/host/conv_wgmma.lua,
 * matmul_wgmma.lua, attention_wgmma.lua. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* Builds and runs the program whose text the script returns. */
static void passes(const char *script) {
  char source[] = "/tmp/wgmma_XXXXXX.cc", program[64], command[256];
  int fd = mkstemps(source, 3);
  assert_true(fd >= 0);
  lua_State *lua = luaL_newstate();
  assert_non_null(lua);
  luaL_openlibs(lua);
  if (luaL_dofile(lua, script)) fail_msg("%s", lua_tostring(lua, -1));
  size_t bytes;
  const char *text = lua_tolstring(lua, -1, &bytes);
  assert_int_equal(write(fd, text, bytes), (ssize_t)bytes);
  close(fd);
  lua_close(lua);
  snprintf(program, sizeof program, "%s.out", source);
  snprintf(command, sizeof command, "${CXX:-c++} -std=c++17 -O1 -w -Wno-psabi -I. %s -o %s", source, program);
  assert_int_equal(system(command), 0);
  assert_int_equal(system(program), 0);
  unlink(source);
  unlink(program);
}

static void convolution(void **state) {
  (void)state;
  passes("tests/host/conv_wgmma.lua");
}

static void matmul(void **state) {
  (void)state;
  passes("tests/host/matmul_wgmma.lua");
}

static void attention(void **state) {
  (void)state;
  passes("tests/host/attention_wgmma.lua");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(convolution), cmocka_unit_test(matmul), cmocka_unit_test(attention)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The Lua front end: what scripts can say, and what a wrong or hostile script is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "codegen/graph.h"

typedef struct fixture {
  char folder[64], path[96];
} fixture;

static void write_file(const fixture *f, const char *name, const char *text, size_t bytes) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", f->folder, name);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(text, 1, bytes, out), bytes);
  assert_int_equal(fclose(out), 0);
}

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  snprintf(f->folder, sizeof f->folder, "/tmp/mk-lua-XXXXXX");
  if (!mkdtemp(f->folder)) return -1;
  snprintf(f->path, sizeof f->path, "%s/g.lua", f->folder);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  static const char *const names[] = {"g.lua", "block.lua", "loop.lua"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", f->folder, names[i]);
    unlink(path);
  }
  int result = rmdir(f->folder);
  free(f);
  return result;
}

static bool describe(void *self, const char *name, mk_tensor *out) {
  (void)self;
  if (strcmp(name, "w") != 0) return false;
  *out = (mk_tensor){.name = "w", .where = "m.safetensors", .dtype = MK_BF16, .rank = 2, .dims = {8, 4}};
  return true;
}

static mk_graph *run(const fixture *f, const char *script, mk_script_options options, mk_status *st) {
  write_file(f, "g.lua", script, strlen(script));
  options.path = f->path;
  return mk_graph_from_script(&options, st);
}

/* The graph's printed form without the positions, which the scripts' layout here would make noise. */
static void expect_graph(const fixture *f, const char *script, mk_script_options options, const char *want) {
  mk_status st = {0};
  mk_graph *g = run(f, script, options, &st);
  assert_string_equal(st.message, "");
  assert_non_null(g);
  for (int i = 0; i < g->count; i++) g->nodes[i].where = NULL;
  mk_text out = {0};
  mk_graph_print(g, &out);
  assert_string_equal(mk_text_str(&out), want);
  mk_text_free(&out);
  mk_graph_free(g);
}

static void expect_error_with(const fixture *f, const char *script, mk_script_options options, const char *want) {
  mk_status st = {0};
  mk_graph *g = run(f, script, options, &st);
  assert_null(g);
  assert_int_equal(st.code, MK_EINPUT);
  if (strncmp(st.message, want, strlen(want)) != 0) assert_string_equal(st.message, want); /* shows both */
}

static void expect_error(const fixture *f, const char *script, const char *want) {
  expect_error_with(f, script, (mk_script_options){0}, want);
}

static void builds_a_layer(void **state) {
  const mk_source source = {.describe = describe};
  expect_graph(*state,
               "graph_name 'layer'\n"
               "local x = input{name='x', shape={2, params.dim}, dtype='bf16'}\n"
               "local y = matmul(x, weight('w', {8, 4})):label 'y'\n"
               "local s = state{name='s', shape={2, 8}}\n"
               "y = 2 * y + 1 - s / (y:mean()) + -y\n"
               "update(s, y:silu())\n"
               "output('y', maximum(y, 0):cast 'f16')\n",
               (mk_script_options){.weights = &source, .params_json = "{\"dim\": 4, \"policy\": {\"a\": [1, null, true]}}"},
               "graph layer\n"
               "%0 bf16 [2,4] step  input \"x\"\n"
               "%1 bf16 [8,4] load  input \"w\"\n"
               "%2 f32 [2,8] step  matmul %0 %1   ; y\n"
               "%3 f32 [2,8] step  state \"s\"\n"
               "%4 f32 [] load  const {2}\n"
               "%5 f32 [2,8] step  mul %4 %2\n"
               "%6 f32 [] load  const {1}\n"
               "%7 f32 [2,8] step  add %5 %6\n"
               "%8 f32 [2,1] step  mean %2\n"
               "%9 f32 [2,8] step  div %3 %8\n"
               "%10 f32 [2,8] step  sub %7 %9\n"
               "%11 f32 [2,8] step  neg %2\n"
               "%12 f32 [2,8] step  add %10 %11\n"
               "%13 f32 [2,8] step  silu %12\n"
               "%14 f32 [] load  const {0}\n"
               "%15 f32 [2,8] step  max %12 %14\n"
               "%16 f16 [2,8] step  cast %15\n"
               "entry step\n"
               "  output \"y\" %16\n"
               "  update \"s\" %3 <- %13\n");
}

static void builds_movement_and_roots(void **state) {
  expect_graph(*state,
               "local x = input{name='x', shape={6, 2, 4}, rate='prompt'}\n"
               "local c = const({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, {6, 2})\n"
               "local r = rope(x, c, c)\n"
               "local len = input{name='len', shape={1}, dtype='i32', rate='prompt'}\n"
               "local a = attention(r, x, x, {kv_len=len, scale=0.5, causal=true})\n"
               "a = attention(a, x, x)\n"
               "local p = concat({a, x}, -1):permute{2, 1, -1}:reshape{-1, 8}:slice(1, 2, 3)\n"
               "p = gather(p, const({0, 2}, {2}, 'i32'))\n"
               "local v = p:reshape{1, 2, 4, 2}:upsample()\n"
               "v = conv(v, weight('k', {3, 3, 1, 1, 2}), {t={2, 0}, w={1, 1}, tf32=true})\n"
               "assert(v.shape[4] == 3 and v.rank == 4 and v.dtype == 'f32' and tostring(v) == 'tensor f32 [1, 4, 10, 3]')\n"
               "entry 'first'\n"
               "output('v', v:sum():expand{1, 4, 10, 5})\n",
               (mk_script_options){0},
               "graph g\n"
               "%0 f32 [6,2,4] prompt  input \"x\"\n"
               "%1 f32 [6,2] load  const {1 2 3 4 ... #bf2e3c26d21324a6}\n"
               "%2 f32 [6,2,4] prompt  rope %0 %1 %1\n"
               "%3 i32 [1] prompt  input \"len\"\n"
               "%4 f32 [6,2,4] prompt  attention %2 %0 %0 kv_len=%3 scale=0.5 causal\n"
               "%5 f32 [6,2,4] prompt  attention %4 %0 %0 scale=0.5\n"
               "%6 f32 [6,2,8] prompt  concat %5 %0 axis=2\n"
               "%7 f32 [2,6,8] prompt  permute %6 perm=[1,0,2]\n"
               "%8 f32 [12,8] prompt  reshape %7\n"
               "%9 f32 [3,8] prompt  slice %8 start=[2,0]\n"
               "%10 i32 [2] load  const {0 2}\n"
               "%11 f32 [2,8] prompt  gather %9 %10\n"
               "%12 f32 [1,2,4,2] prompt  reshape %11\n"
               "%13 f32 [1,4,8,2] prompt  upsample %12\n"
               "%14 f32 [3,3,1,1,2] load  input \"k\"\n"
               "%15 f32 [1,4,10,3] prompt  conv %13 %14 pad=[2,0,0,0,1,1] tf32\n"
               "%16 f32 [1,4,10,1] prompt  sum %15\n"
               "%17 f32 [1,4,10,5] prompt  expand %16\n"
               "entry first\n"
               "  output \"v\" %17\n");
}

static void includes_beside_the_script(void **state) {
  const char block[] = "local M = {}\nfunction M.twice(x)\n  return x:reshape{5}\nend\nreturn M\n";
  write_file(*state, "block.lua", block, sizeof block - 1);
  write_file(*state, "loop.lua", "include 'loop.lua'", 18);
  const char use[] =
      "local b = include 'block.lua'\nassert(b == include 'block.lua')\n"
      "local x = input{name='x', shape={4}}\nlocal function f()\n  local y = b.twice(x)\n  return y\nend\nlocal y = f()\n";
  expect_error(*state, use, "block.lua:3: reshape: [4] has 4 elements and [5] has 5 (called from g.lua:5, g.lua:8)");
  expect_error(*state, "include 'loop.lua'", "loop.lua:1: include: 'loop.lua' includes itself (called from g.lua:1)");
  expect_error(*state, "\ninclude '../g.lua'",
               "g.lua:2: include: '../g.lua' must be the name of a .lua file in the script's own folder");
  expect_error(*state, "include '/etc/passwd'", "g.lua:1: include: '/etc/passwd' must be");
  expect_error(*state, "include '.lua'", "g.lua:1: include: '.lua' must be");
  expect_error(*state, "include 'a\\0.lua'", "g.lua:1: include: name has a control character");
  mk_status st = {0};
  assert_null(run(*state, "\ninclude 'missing.lua'", (mk_script_options){0}, &st));
  assert_true(mk_failed(&st));
  assert_non_null(strstr(st.message, "missing.lua"));
}

static void says_where_shapes_differ(void **state) {
  expect_error(*state, "local x = input{name='x', shape={7, 4}}\n\nlocal y = x + weight('w', {5})\n",
               "g.lua:3: add: [7, 4] and [5] do not broadcast: axis 1 from the end has 4 and 5");
  const mk_source source = {.describe = describe};
  const mk_script_options with = {.weights = &source};
  expect_error_with(*state, "\nweight('w', {8, 5})", with,
                    "g.lua:2: weight 'w': the graph wants [8, 5], m.safetensors has [8, 4]");
  expect_error_with(*state, "weight('v', {8, 5})", with, "g.lua:1: weight 'v': there is no such tensor");
  expect_error_with(*state, "weight('w')\nassert(not has_weight 'v')\nassert(weight_shape('w')[1] == 8)\nweight('w', {4, 8})",
                    with, "g.lua:4: weight 'w': the graph wants [4, 8], g.lua:1 has [8, 4]");
  expect_error(*state, "update(state{name='s', shape={3}}, input{name='x', shape={4}})",
               "g.lua:1: update: state 's' is f32 [3], the value is f32 [4]");
}

static void refuses_wrong_arguments(void **state) {
  static const char *const cases[][2] = {
      {"input{name='x', shape={0/0}}", "g.lua:1: input: shape[1] is -nan; it must be a whole number from 1 on"},
      {"input{name='x', shape={2.5}}", "g.lua:1: input: shape[1] is 2.5; it must be"},
      {"input{name='x', shape={0}}", "g.lua:1: input: shape[1] is 0; it must be"},
      {"input{name='x', shape={-3}}", "g.lua:1: input: shape[1] is -3; it must be"},
      {"input{name='x', shape={'4'}}", "g.lua:1: input: shape[1] is 4; it must be"},
      {"input{name='x', shape={{}}}", "g.lua:1: input: shape[1] is table; it must be"},
      {"input{name='x', shape={1/0}}", "g.lua:1: input: shape[1] is inf; it must be"},
      {"input{name='x', shape={math.maxinteger, 2}}", "g.lua:1: input: shape[1] is 9223372036854775807; it must be"},
      {"input{name='x', shape={2^21, 2^20}}", "g.lua:1: input: [2097152, 1048576] has more than 2^40 elements"},
      {"input{name='x', shape={1, 1, 1, 1, 1, 1, 1}}", "g.lua:1: input: shape has 7 entries; at most 6 axes are supported"},
      {"input{name='x', shape=3}", "g.lua:1: input: shape is a number; it must be a list"},
      {"input{nam='x', shape={3}}", "g.lua:1: input has no field 'nam'; it knows name shape dtype rate"},
      {"input{name='x', shape={3}, ['name shape']=1}", "g.lua:1: input has no field 'name shape'"},
      {"input{shape={3}}", "g.lua:1: input: name is a nil; it must be a string"},
      {"input{name='x', shape={3}, dtype='f64'}", "g.lua:1: input: dtype: 'f64' is no dtype"},
      {"input{name='x', shape={3}, rate='load'}", "g.lua:1: input 'x': rate is 'load'; use"},
      {"input{name='x', shape={3}}\nstate{name='x', shape={3}}", "g.lua:2: state 'x': the name is taken by the input at g.lua:1"},
      {"input 'x'", "g.lua:1: input takes a table of fields, not a string"},
      {"local x = input{name='x', shape={3}}\nlocal y = x + {}",
       "g.lua:2: bad argument #2 to 'add' (tensor or number expected, got table)"},
      {"local x = input{name='x', shape={3}}\nlocal y = x + 0/0", "g.lua:2: the number is NaN"},
      {"local x = input{name='x', shape={3}}\nlocal y = x * 1e300", "g.lua:2: the number is 1e+300; f32 reaches to 3.4e38"},
      {"local x = input{name='x', shape={3}}\nx:slice(2, 0, 1)", "g.lua:2: slice: there is no axis 2; the tensor has 1"},
      {"local x = input{name='x', shape={3}}\nx:slice(1, 2, 2)", "g.lua:2: slice: axis 1 of [3] has no elements 2 to 3"},
      {"local x = input{name='x', shape={3}}\nx:permute{1, 1}", "g.lua:2: permute: 2 axes given; the tensor has 1"},
      {"local x = input{name='x', shape={3}}\nx:reshape{-1, -1}", "g.lua:2: reshape: only one extent may be -1"},
      {"local x = input{name='x', shape={3}}\nx:reshape{-1, 2}",
       "g.lua:2: reshape: the given extents do not divide the 3 elements"},
      {"local x = input{name='x', shape={3}}\nx:frobnicate()", "g.lua:2: a tensor has no field or method 'frobnicate'"},
      {"local x = input{name='x', shape={3}}\nx.shape = 1", "g.lua:2: the fields of a tensor cannot be set"},
      {"local x = input{name='x', shape={3}}\nlocal y = x .. 'a'", "g.lua:2: attempt to concatenate a tensor value (local 'x')"},
      {"local x = input{name='x', shape={3}}\nconcat({x, 3}, 1)", "g.lua:2: concat: entry 2 is a number, not a tensor"},
      {"local x = input{name='x', shape={3}}\nmatmul(x, x, {tf23=true})", "g.lua:2: matmul has no field 'tf23'; it knows tf32"},
      {"const({1, 2, 3}, {2})", "g.lua:1: const: the shape does not hold the 3 numbers"},
      {"const({1, 'a'}, {2})", "g.lua:1: const: number 2 is a string; it must be a number"},
      {"const({1.5}, {1}, 'i32')", "g.lua:1: const: number 1 is 1.5; it must be a whole number from"},
      {"const({2^31}, {1}, 'i32')", "g.lua:1: const: number 1 is 2147483648.0; it must be a whole number from"},
      {"entry 'load'", "g.lua:1: entry: 'load' is the name of another program"},
      {"output('x', 3)", "g.lua:1: bad argument #2 to 'output' (tensor expected, got number)"},
      {"matmul(nil, nil)", "g.lua:1: bad argument #1 to 'matmul' (tensor expected, got nil)"},
      {"getmetatable('').__index.x = 1\nlocal x = input{name='x', shape={3}}\nassert(getmetatable(x) == "
       "'tensor')\nsetmetatable(x, {})",
       "g.lua:4: bad argument #1 to 'setmetatable' (table expected, got tensor)"},
      {"local x = 1", "g.lua: the script defines no output"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) expect_error(*state, cases[i][0], cases[i][1]);
}

static void refuses_bad_scripts(void **state) {
  expect_error(*state, "local x =\n\n= 3", "g.lua:3: unexpected symbol near '='");
  expect_error(*state, "\nerror('no such policy: ' .. 'x')", "g.lua:2: no such policy: x");
  expect_error(*state, "\nerror('plain', 0)", "g.lua:2: plain");
  expect_error(*state, "\nassert(false, 'dim must be even')", "g.lua:2: dim must be even");
  expect_error(*state, "error({})", "g.lua:1: the error value is a table, not a message");
  expect_error(*state, "error()", "g.lua:1: the error value is a nil, not a message");
  expect_error(*state, "local t = nil\nt.x = 1", "g.lua:2: attempt to index a nil value (local 't')");
  expect_error(*state, "\33Lua", "g.lua:1: this is Lua bytecode; only source text is accepted");
  expect_error(*state, "local function f() return 1 + f() end f()", "g.lua:1: stack overflow");
  expect_error_with(*state, "", (mk_script_options){.params_json = "{\"a\": }"}, "g.lua: params: line 1, column 7:");
  expect_error_with(*state, "", (mk_script_options){.params_json = "[1]"}, "g.lua: params: the document must be a JSON object");
  mk_status st = {0};
  assert_null(mk_graph_from_script(&(mk_script_options){.path = "/nonexistent/g.lua"}, &st));
  assert_true(mk_failed(&st));
  assert_non_null(strstr(st.message, "/nonexistent/g.lua"));
}

static void keeps_scripts_in(void **state) {
  static const char *const absent[] = {"io",          "os",          "require",    "package",        "load",
                                       "loadstring",  "loadfile",    "dofile",     "debug",          "coroutine",
                                       "utf8",        "print",       "warn",       "collectgarbage", "xpcall",
                                       "string.dump", "string.pack", "table.move", "math.random",    "math.randomseed"};
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
    char script[96];
    snprintf(script, sizeof script, "assert(%s == nil, 'there')\nerror('absent', 2 - 1)", absent[i]);
    expect_error(*state, script, "g.lua:2: absent");
  }
  expect_error(*state, "io.open('/etc/passwd')", "g.lua:1: attempt to index a nil value (global 'io')");
  expect_error(*state, "os.execute('true')", "g.lua:1: attempt to index a nil value (global 'os')");
  expect_error(*state, "setmetatable({}, {__gc = function() while true do end end})",
               "g.lua:1: setmetatable: __gc is not available");
  expect_error(*state, "string.format('%p', 'x')", "g.lua:1: format: '%p' is not available");
}

static void bounds_time(void **state) {
  const mk_script_options few = {.max_instructions = 2000000};
  const char stopped[] = "g.lua:1: the script runs for more than 2000000 instructions; is a loop endless?";
  static const char *const endless[] = {
      "while true do end",
      "while true do pcall(function() while true do end end) end",
      "local function f() pcall(f) f() end while true do pcall(f) end",
      "local x <close> = setmetatable({}, {__close = function() while true do end end}) error('x')",
      "while true do pcall(error, setmetatable({}, {__tostring = function() while true do end end})) end",
      "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() return t[1] "
      "end) end",
      "local s = ('x'):rep(1e7) while true do s:upper() end",
      "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.insert(t, 1, 1) table.remove(t, 1) end",
      "local s = ('a'):rep(1000) while true do s:find('.-.-b') end",
      "table.sort({3, 2, 1, 4, 5, 6}, function(a, b) while true do end end)",
  };
  for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) expect_error_with(*state, endless[i], few, stopped);
  expect_error(*state, "('a'):rep(1e5):find('.-.-.-b')",
               "g.lua:1: a pattern with 3 repetitions on a text of 100000 bytes could take too");
  expect_error(*state, "table.insert(setmetatable({}, {__len = function() return 1e18 end}), 1, 1)",
               "g.lua:1: table functions take tables with no metatable");
  expect_error(
      *state, "assert((''):rep(1e18) == '') assert(('blocks.12.attn.q'):match('^blocks%.(%d+)%.([%w_%.-]+)$') == '12') error'ok'",
      "g.lua:1: ok");
  expect_error(*state, "local x = input{name='x', shape={2}}\nwhile true do\n  x = x + 1\nend",
               "g.lua:3: the graph has more than 262144 nodes");
}

static void bounds_memory(void **state) {
  const mk_script_options small = {.max_memory = 4 << 20};
  expect_error_with(*state, "local s = ('x'):rep(1e12)", small, "g.lua:1: rep: 1000000000000 times 1 bytes is more than");
  expect_error_with(*state, "local s = 'xxxxxxxx'\nwhile true do s = s .. s end", small,
                    "g.lua:2: the script needs more than 4096 KiB");
  expect_error_with(*state, "local t = {}\nwhile true do\n  t[#t + 1] = {}\nend", small,
                    "g.lua:3: the script needs more than 4096 KiB");
  expect_error_with(*state, "local t = {}\nwhile true do pcall(function() while true do t[#t + 1] = {} end end) end", small,
                    "g.lua:2: the script needs more than 4096 KiB");
  expect_error_with(*state, "local s = ('x'):rep(1e6)\nlocal u = s .. s .. s .. s .. s .. s .. s .. s .. s .. s .. s", small,
                    "g.lua: the script needs more than 4096 KiB");
  expect_error(*state, "local t = {}\nfor i = 1, 1e6 do t[i] = i end\nwhile true do const(t, {1e6}) end",
               "g.lua:3: the graph needs more than 512 MiB");
  /* what has become garbage does not count */
  expect_error_with(*state, "for i = 1, 100 do local s = ('x'):rep(1e6) end error('ok')", small, "g.lua:1: ok");
}

static void walks_tables_in_order(void **state) {
  expect_error(*state,
               "local t, seen = {b = 1, a = 1, [10] = 1, [2.5] = 1, [true] = 1, aa = 1, [-1] = 1, gone = 1}, {}\n"
               "for k, v in pairs(t) do\n  t.gone = nil\n  seen[#seen + 1] = tostring(k)\nend\n"
               "local k, again = nil, {}\n"
               "repeat\n  k = next(t, k)\n  again[#again + 1] = tostring(k)\nuntil k == nil\n"
               "assert(next({}) == nil and tostring({}) == 'table' and ('%s'):format(error) == 'function')\n"
               "error(table.concat(seen, ' ') .. ' / ' .. table.concat(again, ' '))",
               "g.lua:12: true -1 2.5 10 a aa b / true -1 2.5 10 a aa b nil");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(builds_a_layer),
                                     cmocka_unit_test(builds_movement_and_roots),
                                     cmocka_unit_test(includes_beside_the_script),
                                     cmocka_unit_test(says_where_shapes_differ),
                                     cmocka_unit_test(refuses_wrong_arguments),
                                     cmocka_unit_test(refuses_bad_scripts),
                                     cmocka_unit_test(keeps_scripts_in),
                                     cmocka_unit_test(bounds_time),
                                     cmocka_unit_test(bounds_memory),
                                     cmocka_unit_test(walks_tables_in_order)};
  return cmocka_run_group_tests_name("lua", tests, setup, teardown);
}

/* Plans: where values lie and for how long, uploads, bindings, library matmuls, errors, and planning a model of full size in
 * time. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "tests/host/script.h"

static mk_plan *plan_with(const char *lua, const mk_plan_options *options) {
  mk_status st = {0};
  mk_graph *g = graph_of(lua, &st);
  mk_plan *p = g ? mk_plan_build(g, options, &st) : NULL;
  mk_graph_free(g);
  if (!p) fail_msg("%s", st.message);
  return p;
}

static mk_plan *plan(const char *lua) {
  mk_plan_options options = options_for(90);
  return plan_with(lua, &options);
}

static void expect_failure(const char *lua, const mk_plan_options *options, mk_code code, const char *message) {
  mk_status st = {0};
  mk_graph *g = graph_of(lua, &st);
  if (!g) fail_msg("%s", st.message);
  assert_null(mk_plan_build(g, options, &st));
  assert_int_equal(st.code, code);
  if (!strstr(st.message, message)) fail_msg("'%s' says nothing of '%s'", st.message, message);
  mk_graph_free(g);
}

/* ---- places */

static void spaces(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local x = input{name='x', shape={8, 64}}\nlocal c = input{name='c', shape={64}, rate='prompt'}\nlocal s = state{name='s', "
      "shape={8, 64}}\n"
      "local w = weight('w', {64})\nlocal y = x * c:exp() + s * weight('direct', {64}) + w:exp()\noutput('y', y)\nupdate(s, y * "
      "2)");
  assert_int_equal(p->nprograms, 3);
  assert_int_equal(p->programs[0].rate, MK_RATE_LOAD);
  assert_int_equal(p->programs[1].rate, MK_RATE_PROMPT);
  assert_string_equal(p->programs[2].name, "step");
  assert_int_equal(binding_of(p->inputs, p->ninputs, "x")->ref.space, MK_SPACE_IO);
  assert_int_equal(binding_of(p->inputs, p->ninputs, "c")->ref.space, MK_SPACE_IO);
  assert_int_equal(binding_of(p->outputs, p->noutputs, "y")->ref.space, MK_SPACE_IO);
  assert_int_equal(binding_of(p->states, p->nstates, "s")->ref.space, MK_SPACE_STATE);
  assert_int_equal(binding_of(p->weights, p->nweights, "direct")->ref.space,
                   MK_SPACE_LOAD); /* no transformation: uploaded in place */
  assert_int_equal(binding_of(p->weights, p->nweights, "w")->ref.space, MK_SPACE_SCRATCH); /* staged */
  assert_int_equal(p->space_bytes[MK_SPACE_PROMPT], 256);
  assert_int_equal(p->space_bytes[MK_SPACE_LOAD], 2 * 256);
  assert_int_equal(p->space_bytes[MK_SPACE_SCRATCH], 256);
  assert_int_equal(groups_in(p, "step"), 1); /* the update in place */
  for (int i = 0; i < p->nweights; i++) assert_int_equal(p->weights[i].ref.offset % 256, 0);
  mk_plan_free(p);
}

static void weights_come_right_before_their_use(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local y = input{name='x', shape={8, 64}}\nfor i = 1, 6 do y = y * weight('w' .. i, {8, 64}):exp() end\noutput('y', y)");
  const mk_program *l = program_of(p, "load");
  assert_int_equal(l->nsteps, 12);
  for (int i = 0; i < 12; i++) assert_int_equal(l->steps[i].kind, i % 2 ? MK_STEP_GROUP : MK_STEP_UPLOAD);
  assert_int_equal(p->space_bytes[MK_SPACE_SCRATCH], 8 * 64 * 4); /* one at a time */
  mk_plan_free(p);
}

static void joined_weights_are_made_in_place(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local x = input{name='x', shape={8, 64}, dtype='bf16'}\nlocal ws = {}\n"
      "for i = 1, 3 do ws[i] = weight('w' .. i, {32, 64}):cast'bf16' end\noutput('y', matmul(x, concat(ws, 1)))");
  assert_int_equal(groups_in(p, "load"), 3); /* each cast writes its part of the joined buffer */
  assert_int_equal(p->space_bytes[MK_SPACE_LOAD], 96 * 64 * 2);
  mk_plan_free(p);
  p = plan(
      "local x = input{name='x', shape={8, 64}}\nlocal ws = {}\nfor i = 1, 3 do ws[i] = weight('w' .. i, {32, 64}) end\n"
      "output('y', matmul(x, concat(ws, 1)))");
  assert_int_equal(groups_in(p, "load"), 0); /* uploaded into it */
  for (int i = 0; i < 3; i++) assert_int_equal(p->weights[i].ref.offset, i * 32 * 64 * 4);
  mk_plan_free(p);
}

static void slices_reach_attention_uncopied(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local x = input{name='x', shape={100, 64}, dtype='bf16'}\nlocal qkv = matmul(x, weight('w', {384, "
      "64}):cast'bf16'):cast'bf16'\n"
      "local function part(i) return qkv:slice(2, i * 128, 128):reshape{100, 1, 128} end\n"
      "output('y', attention(part(0), part(1), part(2), {scale = 1}):cast'bf16':reshape{100, 128})");
  assert_int_equal(groups_in(p, "step"), 2);
  const mk_group *g = group_at(p, "step", 1);
  assert_string_equal(g->kind, "attention");
  for (int i = 0; i < g->ncandidates; i++)
    if (strstr(g->candidates[i].label, "attention_mma")) {
      const mk_launch *l = &g->candidates[i].launches[0];
      assert_int_equal(l->args[0].ref.offset + 256, l->args[1].ref.offset); /* k begins 128 bf16 behind q */
      assert_int_equal(l->args[5].i, 384);                                  /* q_token */
    }
  mk_plan_free(p);
}

static void scratch_is_reused(void **state) {
  (void)state; /* a chain of matmuls needs two buffers at a time, however long it is */
  mk_plan *p = plan(
      "local x = input{name='x', shape={512, 64}}\nfor i = 1, 9 do x = matmul(x, weight('w' .. i, {64, 64})) end\noutput('y', "
      "x)");
  assert_int_equal(p->space_bytes[MK_SPACE_SCRATCH], 2 * 512 * 64 * 4);
  mk_plan_free(p);
}

static void residual_stream_stays_in_place(void **state) {
  (void)state; /* x = x + mean-free part of a matmul of it: the row program stores x where it read it, but where x is needed later
                */
  const char *lua =
      "local x = input{name='x', shape={512, 64}} * 2\nlocal kept = x\nfor i = 1, 4 do\n"
      "  local y = matmul(x:cast'bf16', weight('w' .. i, {64, 64}):cast'bf16')\n  x = x + (y - y:mean())\nend\n"
      "output('y', x:amax()%s)";
  for (int keep = 0; keep < 2; keep++) {
    char text[512];
    snprintf(text, sizeof text, lua, keep ? " + kept" : "");
    mk_plan *p = plan(text);
    /* x, its cast, the product; one more x where the first is kept */
    assert_int_equal(p->space_bytes[MK_SPACE_SCRATCH], 512 * 64 * (4 + 2 + 4 + 4 * keep));
    mk_plan_free(p);
  }
}

static void entries_are_programs(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local x = input{name='x', shape={8}}\nentry 'a'\noutput('y', x + 1)\nentry 'b'\noutput('z', x + 1)\noutput('e', x:exp())");
  assert_int_equal(p->nprograms, 4);
  assert_int_equal(groups_in(p, "a"), 1);
  assert_int_equal(groups_in(p, "b"), 2);
  assert_int_equal(p->noutputs, 3);
  mk_plan_free(p);
}

/* ---- candidates */

static const mk_lt *library(const mk_plan *p, int group) {
  const mk_group *g = group_at(p, "step", group);
  for (int i = 0; i < g->ncandidates; i++)
    if (g->candidates[i].launches[0].kind == MK_LAUNCH_LT) return g->candidates[i].launches[0].lt;
  return NULL;
}

static void library_epilogues(void **state) {
  (void)state;
  static const struct {
    const char *y;
    mk_lt_epilogue epilogue;
    mk_dtype d;
    float beta;
    int launches;
  } cases[] = {{"y", MK_LT_NONE, MK_F32, 0, 1},
               {"y:cast'bf16'", MK_LT_NONE, MK_BF16, 0, 1},
               {"(y + b16):cast'bf16'", MK_LT_BIAS, MK_BF16, 0, 1},
               {"y + b32", MK_LT_BIAS, MK_F32, 0, 1},
               {"(y + b16):gelu():cast'bf16'", MK_LT_GELU_BIAS, MK_BF16, 0, 1},
               {"y:gelu():cast'bf16'", MK_LT_GELU, MK_BF16, 0, 1},
               {"r + (y + b32)", MK_LT_BIAS, MK_F32, 1, 1},
               {"(y + b32):cast'bf16'", MK_LT_NONE, MK_F32, 0, 2}, /* the library wants the bias in the result's dtype */
               {"(y + b16):silu():cast'bf16'", MK_LT_NONE, MK_F32, 0, 2},
               {"y:cast'bf16' * b32 + r", MK_LT_NONE, MK_BF16, 0, 2},
               {"r + (y + b16):cast'bf16' * b32", MK_LT_BIAS, MK_BF16, 0, 2},
               {"r + (y + b16):gelu():cast'bf16'", MK_LT_GELU_BIAS, MK_BF16, 0, 2},
               {"r + (y + b32):cast'bf16'", MK_LT_NONE, MK_F32, 0, 2}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char lua[1024];
    snprintf(lua, sizeof lua,
             "local x = input{name='x', shape={512, 64}, dtype='bf16'}\nlocal y = matmul(x, weight('w', {128, 64}):cast'bf16')\n"
             "local b32, b16 = weight('b', {128}), weight('b', {128}):cast'bf16'\nlocal r = input{name='r', shape={512, "
             "128}}\noutput('y', %s)",
             cases[i].y);
    mk_plan *p = plan(lua);
    assert_int_equal(groups_in(p, "step"), 1);
    const mk_lt *lt = library(p, 0);
    if (!lt) fail_msg("no library matmul for %s", cases[i].y);
    assert_int_equal(lt->epilogue, cases[i].epilogue);
    assert_int_equal(lt->d_type, cases[i].d);
    assert_true(lt->beta == cases[i].beta);
    const mk_group *g = group_at(p, "step", 0);
    for (int c = 0; c < g->ncandidates; c++)
      if (g->candidates[c].launches[0].kind == MK_LAUNCH_LT) assert_int_equal(g->candidates[c].nlaunches, cases[i].launches);
    assert_true(g->ncandidates > 1);
    mk_plan_free(p);
  }
}

/* What the library adds to a residual: nothing rounds in between, the bias is f32, the gate is in the weight. */
static void library_residuals(void **state) {
  (void)state;
  static const struct {
    const char *y, *label; /* NULL: there is none */
    int launches;
  } cases[] = {{"r + (y + b16):cast'bf16' * b32", "gate in the weight, residual in place, cublaslt", 3},
               {"(y + b16):cast'bf16' + r", "residual in place, cublaslt", 2},
               {"y:cast'bf16' + r", "residual in place, cublaslt", 1},
               {"b32 * y + r", "gate in the weight, residual in place, cublaslt", 2},
               {"r + (y + b32):cast'bf16'", "residual in place, cublaslt", 2},
               {"r * 2 + (y + b16):cast'bf16'", NULL, 0},
               {"r + (y + b16):gelu():cast'bf16'", NULL, 0},
               {"(r + (y + b16):cast'bf16'):cast'bf16'", NULL, 0},
               {"r - (y + b16):cast'bf16'", NULL, 0},
               {"r + y:cast'bf16' * 0.5", NULL, 0},
               {"r + (y + 0.5):cast'bf16' * b32", NULL, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char lua[1024];
    snprintf(
        lua, sizeof lua,
        "local x = input{name='x', shape={9000, 4096}, dtype='bf16'}\nlocal y = matmul(x, weight('w', {4096, 4096}):cast'bf16')\n"
        "local b32, b16 = weight('b', {4096}), weight('b', {4096}):cast'bf16'\nlocal r = input{name='r', shape={9000, "
        "4096}}\noutput('y', %s)",
        cases[i].y);
    mk_plan *p = plan(lua);
    const mk_candidate *found = NULL;
    const mk_group *g = group_at(p, "step", 0);
    for (int c = 0; c < g->ncandidates; c++)
      if (strstr(g->candidates[c].label, "residual in place")) found = &g->candidates[c];
    if (!found != !cases[i].label) fail_msg("%s: %s", cases[i].y, found ? found->label : "is not added in place");
    if (found) {
      const mk_lt *lt = found->launches[found->nlaunches - 1].lt;
      assert_string_equal(found->label, cases[i].label);
      assert_int_equal(found->nlaunches, cases[i].launches);
      assert_true(found->rounds && lt->beta == 1 && lt->d_type == MK_F32 && lt->c_type == MK_F32);
      assert_int_equal(lt->bias_type, MK_F32);
    }
    mk_plan_free(p);
  }
}

/* Its kernels take longer to load than a prompt's matmuls to run. */
static void library_is_for_steps(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local w = weight('w', {2048, 2048}, 'bf16'):cast'bf16'\n"
      "local c = input{name='c', shape={512, 2048}, dtype='bf16', rate='prompt'}\n"
      "local x = input{name='x', shape={512, 2048}, dtype='bf16'}\n"
      "output('y', matmul(x, matmul(c, matmul(w, w):cast'bf16'):cast'bf16'))");
  int found[MK_RATE_STEP + 1] = {0};
  for (int i = 0; i < p->nprograms; i++)
    for (int s = 0; s < p->programs[i].nsteps; s++) {
      if (p->programs[i].steps[s].kind != MK_STEP_GROUP) continue;
      const mk_group *g = &p->groups[p->programs[i].steps[s].index];
      for (int c = 0; c < g->ncandidates; c++) found[p->programs[i].rate] += g->candidates[c].launches[0].kind == MK_LAUNCH_LT;
    }
  assert_int_equal(found[MK_RATE_LOAD], 0);
  assert_int_equal(found[MK_RATE_PROMPT], 0);
  assert_int_equal(found[MK_RATE_STEP], 1);
  mk_plan_free(p);
}

static void candidates_are_ordered(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local x = input{name='x', shape={4096, 2048}, dtype='bf16'}\nlocal s = input{name='s', shape={1, 2048}, dtype='bf16'}\n"
      "local w = weight('w', {2048, 2048}):cast'bf16'\noutput('big', matmul(x, w):cast'bf16')\noutput('one', matmul(s, w))");
  assert_string_equal(group_at(p, "step", 0)->candidates[0].label, "cublaslt");
  for (int i = 0; i < p->ngroups; i++)
    for (int c = 0; c < p->groups[i].ncandidates; c++) {
      assert_true(c == 0 || p->groups[i].candidates[c].cost >= p->groups[i].candidates[c - 1].cost);
      assert_true(p->groups[i].ncandidates <= 6);
    }
  for (int i = 0; i < p->nkernels; i++) /* names are symbols: unique */
    for (int j = 0; j < i; j++) assert_string_not_equal(p->kernels[i].name, p->kernels[j].name);
  mk_plan_free(p);
}

/* ---- errors */

static const char one_matmul[] = "output('y', matmul(input{name='x', shape={8, 64}}, weight('w', {32, 64})))";

static void put_file(const char *folder, const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static void remove_folder(const char *folder) {
  char command[300];
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
}

static void says_what_no_template_can_do(void **state) {
  (void)state;
  char folder[] = "/tmp/templates_XXXXXX";
  assert_non_null(mkdtemp(folder));
  put_file(folder, "prelude.cuh", "");
  put_file(folder, "row.cuh", "");
  mk_plan_options options = {.arch = 80, .templates = folder};
  expect_failure(one_matmul, &options, MK_EUNSUPPORTED, ".lua:1: no template in /tmp/templates_");
  expect_failure(one_matmul, &options, MK_EUNSUPPORTED, "can do matmul of f32 [8, 64] by f32 [32, 64] on sm_80");
  remove_folder(folder);
}

static void names_the_sidecar_that_is_wrong(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } cases[] = {
      {"return 5", "bad.lua must return a table"},
      {"return { implements = 'matmul' ", "bad.lua:1:"},
      {"return { implements = 'matmul', params = {} }", "field 'constants' must be a function"},
      {"return { implements = 7 }", "field 'implements' must be a string"},
      {"local f = function() return true end\nreturn { implements = 'matmul', params = {{'a', 'pointer'}}, accepts = f, valid = "
       "f, constants = f, launch = f, cost = f }",
       "params: entry 1"},
      {"local f = function() return true end\nreturn { implements = 'matmul', params = {}, accepts = f, valid = f, constants = "
       "f, launch = f,\n cost = function(p) return p.x.y end }",
       "bad.lua:3:"},
      {"local f = function() return {} end\nreturn { implements = 'matmul', params = {{'nonsense', 'i32'}}, accepts = f, valid = "
       "f, constants = f,\n"
       " launch = function() return { grid = {1}, block = 32 } end, cost = function() return 1 end }",
       "params has 'nonsense'"},
      {"local f = function() return {} end\nreturn { implements = 'matmul', params = {}, accepts = f, valid = f, constants = f,\n"
       " launch = function() return { grid = {1, 0}, block = 32 } end, cost = function() return 1 end }",
       "grid has 0 in place 2"},
      {"while true do end", "runs for more than"},
      {"os.exit(3)", "bad.lua:1:"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char folder[] = "/tmp/templates_XXXXXX";
    assert_non_null(mkdtemp(folder));
    put_file(folder, "prelude.cuh", "");
    put_file(folder, "row.cuh", "");
    put_file(folder, "bad.cu", "");
    put_file(folder, "bad.lua", cases[i].text);
    mk_plan_options options = {.arch = 80, .templates = folder};
    expect_failure(one_matmul, &options, MK_EINPUT, "template bad");
    expect_failure(one_matmul, &options, MK_EINPUT, cases[i].message);
    remove_folder(folder);
  }
}

static void refuses_options(void **state) {
  (void)state;
  mk_plan_options options = {.arch = 75, .templates = "templates"};
  expect_failure(one_matmul, &options, MK_EUNSUPPORTED, "sm_75");
  options = (mk_plan_options){.arch = 90, .templates = "/nowhere"};
  expect_failure(one_matmul, &options, MK_EIO, "/nowhere");
}

/* ---- size */

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const char a14b[] =
    "{\"config\": {\"num_heads\": 40, \"dim\": 5120, \"ffn_dim\": 13824, \"num_layers\": 40, \"in_dim\": 16, \"out_dim\": 16, "
    "\"freq_dim\": 256, \"text_len\": 512}, \"frames\": %d, \"height\": %d, \"width\": %d, \"steps\": 40}";

static mk_plan *plan_model(int frames, int height, int width, double *time) {
  mk_status st = {0};
  char params[512];
  snprintf(params, sizeof params, a14b, frames, height, width);
  mk_graph *g = graph_of_file("scripts/models/wan_dit.lua", params, &st);
  if (!g) fail_msg("%s", st.message);
  mk_plan_options options = options_for(90);
  double start = seconds();
  mk_plan *p = mk_plan_build(g, &options, &st);
  *time = seconds() - start;
  if (!p) fail_msg("%s", st.message);
  mk_graph_free(g);
  return p;
}

static void full_size_model(void **state) {
  (void)state;
  double first, second;
  mk_plan *a = plan_model(9, 44, 80, &first), *b = plan_model(9, 60, 104, &second);
  assert_true(a->ngroups > 1500 && a->nkernels < 150);
  print_message("# planned in %.0f ms\n", 1e3 * (first < second ? first : second));
  assert_true((first < second ? first : second) < 2); /* 0.1 s where nothing else runs */
  int rows = 0;
  for (int i = 0; i < a->nkernels; i++) { /* row programs do not depend on the resolution; templates' tiles may */
    bool found = strncmp(a->kernels[i].name, "row_", 4) != 0;
    rows += !found;
    for (int j = 0; j < b->nkernels && !found; j++)
      found = !strcmp(a->kernels[i].name, b->kernels[j].name) && !strcmp(a->kernels[i].source, b->kernels[j].source);
    if (!found) fail_msg("%s depends on the resolution", a->kernels[i].name);
  }
  assert_true(rows > 20);
  /* 16 groups a block with cross-attention, and a few around them. */
  assert_true(groups_in(a, "step") <= 2 * 40 * 16 + 12);
  mk_plan_free(a);
  mk_plan_free(b);
}

/* A step of 1280x720 with 81 frames: what the card must have beside the weights. */
static void large_step_fits(void **state) {
  (void)state;
  double time;
  mk_plan *p = plan_model(21, 90, 160, &time);
  int64_t bytes = 0;
  for (int s = 0; s < MK_SPACE_COUNT; s++) bytes += s == MK_SPACE_LOAD ? 0 : p->space_bytes[s];
  print_message("# %.2f GiB beside the weights\n", (double)bytes / (1 << 30));
  assert_true(bytes <= 8ll << 30);
  mk_plan_free(p);
}

static void printing_is_repeatable(void **state) {
  (void)state;
  mk_text t[2] = {{0}, {0}};
  for (int i = 0; i < 2; i++) {
    mk_status st = {0};
    mk_graph *g = graph_of_file("tests/golden/block.lua", NULL, &st);
    mk_plan_options options = options_for(90);
    mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
    assert_string_equal(st.message, "");
    mk_plan_print(p, &t[i]);
    for (int k = 0; k < p->nkernels; k++) mk_text_add(&t[i], p->kernels[k].source);
    mk_plan_free(p);
    mk_graph_free(g);
  }
  assert_string_equal(mk_text_str(&t[0]), mk_text_str(&t[1]));
  assert_non_null(strstr(mk_text_str(&t[0]), "upload qkv.weight f32 [768, 256] at scratch+0"));
  mk_text_free(&t[0]);
  mk_text_free(&t[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(spaces),
                                     cmocka_unit_test(weights_come_right_before_their_use),
                                     cmocka_unit_test(joined_weights_are_made_in_place),
                                     cmocka_unit_test(slices_reach_attention_uncopied),
                                     cmocka_unit_test(scratch_is_reused),
                                     cmocka_unit_test(residual_stream_stays_in_place),
                                     cmocka_unit_test(entries_are_programs),
                                     cmocka_unit_test(library_epilogues),
                                     cmocka_unit_test(library_residuals),
                                     cmocka_unit_test(library_is_for_steps),
                                     cmocka_unit_test(candidates_are_ordered),
                                     cmocka_unit_test(says_what_no_template_can_do),
                                     cmocka_unit_test(names_the_sidecar_that_is_wrong),
                                     cmocka_unit_test(refuses_options),
                                     cmocka_unit_test(full_size_model),
                                     cmocka_unit_test(large_step_fits),
                                     cmocka_unit_test(printing_is_repeatable)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

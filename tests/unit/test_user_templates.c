/* Templates of a user's folder: found, merged with the built-in ones, chosen by their formulas, kept whatever those say; pinned
 * tunables; edited kernels in the place of emitted ones; and what is said when something is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "runtime/base/file.h"
#include "tests/host/script.h"
#include "tests/unit/temp_folder.h"

static const char matmul[] = "output('y', matmul(input{name='x', shape={300, 64}}, weight('w', {128, 64})))";
static const char own[] = "scripts/experiments/own_template";

static void put(const char *name, const char *text) {
  FILE *f = fopen(in(name), "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static mk_plan *plan_of(const char *lua, mk_trial trial, mk_status *st) {
  mk_graph *g = graph_of(lua, st);
  if (!g) fail_msg("%s", st->message);
  mk_plan_options o = options_for(90);
  o.trial = trial;
  mk_plan *p = mk_plan_build(g, &o, st);
  mk_graph_free(g);
  return p;
}

static mk_plan *plan_with(mk_trial trial) {
  mk_status st = {0};
  mk_plan *p = plan_of(matmul, trial, &st);
  if (!p) fail_msg("%s", st.message);
  return p;
}

static void refused(mk_trial trial, const char *const *words) {
  mk_status st = {0};
  assert_null(plan_of(matmul, trial, &st));
  assert_int_equal(st.code, MK_EINPUT);
  for (; *words; words++)
    if (!strstr(st.message, *words)) fail_msg("'%s' does not say '%s'", st.message, *words);
}

static const mk_group *the_matmul(const mk_plan *p) {
  for (int g = 0; g < p->ngroups; g++)
    if (!strcmp(p->groups[g].kind, "matmul")) return &p->groups[g];
  fail_msg("no matmul");
  return NULL;
}

static int count(const mk_group *g, const char *word) {
  int n = 0;
  for (int c = 0; c < g->ncandidates; c++) n += strstr(g->candidates[c].label, word) != NULL;
  return n;
}

/* A sidecar for a matmul whose formulas are given. */
static void put_pair(const char *name, const char *formulas) {
  char file[64], text[1024];
  snprintf(file, sizeof file, "%s.cu", name);
  put(file, "extern \"C\" __global__ void KERNEL(const __grid_constant__ Params p) { helper(); }\n");
  snprintf(file, sizeof file, "%s.lua", name);
  snprintf(text, sizeof text,
           "return { implements = 'matmul', tunables = { tile = { 1, 2 } }, params = { { 'a', 'ptr' } },\n"
           " constants = function(p, t) return { { 'T', 'float' }, { 'TILE', t.tile } } end,\n"
           " launch = function() return { grid = { 7 }, block = 32 } end,\n %s }",
           formulas);
  put(file, text);
}

static void is_a_candidate_beside_the_others(void **state) {
  (void)state;
  mk_plan *p = plan_with((mk_trial){.templates = own}), *without = plan_with((mk_trial){0});
  assert_int_equal(count(the_matmul(p), "plain_matmul"), 3); /* the cheapest three of its choices */
  assert_true(count(the_matmul(p), "matmul_simt") > 0 && count(the_matmul(p), "cublaslt") == 1);
  assert_int_equal(count(the_matmul(without), "plain_matmul"), 0);
  mk_plan_free(p);
  mk_plan_free(without);
}

static void formulas_decide_the_order(void **state) {
  (void)state;
  put_pair("free", "flop = function() return 0 end, bytes = function() return 0 end, unit = 'tensor'");
  mk_plan *p = plan_with((mk_trial){.templates = folder});
  const mk_group *g = the_matmul(p);
  assert_non_null(strstr(g->candidates[0].label, "free tile="));
  assert_true(g->candidates[0].cost > 0 && g->candidates[0].cost < 1e-5); /* a launch is never free */
  assert_int_equal(g->candidates[0].launches[0].grid[0], 7);
  mk_plan_free(p);
  /* 4.0e12 bytes take a second on the target */
  put_pair("free", "bytes = function(p, t) return 4e12 * t.tile end");
  p = plan_with((mk_trial){.templates = folder});
  g = the_matmul(p);
  assert_true(g->ncandidates <= 6 && !strstr(g->candidates[0].label, "free"));
  assert_string_equal(g->candidates[g->ncandidates - 1].label, "free tile=2"); /* dear, but not dropped */
  assert_true(fabs(g->candidates[g->ncandidates - 1].cost - 2) < 1e-3);
  mk_plan_free(p);
}

static void dear_ones_of_the_user_stay(void **state) {
  (void)state;
  put_pair("slow_a", "cost = function() return 100 end");
  put_pair("slow_b", "cost = function() return 200 end");
  mk_plan *p = plan_with((mk_trial){.templates = folder});
  assert_int_equal(count(the_matmul(p), "slow_"), 4);
  assert_int_equal(the_matmul(p)->ncandidates, 6);
  mk_plan_free(p);
}

static void takes_the_place_of_a_built_in_one(void **state) {
  (void)state;
  put_pair("matmul_simt", "cost = function() return 1 end");
  put("drain.cuh", "// of the user\n");
  mk_plan *p = plan_with((mk_trial){.templates = folder});
  assert_int_equal(count(the_matmul(p), "matmul_simt tile="), 2);
  assert_int_equal(count(the_matmul(p), "matmul_simt tile_m"), 0);
  mk_plan_free(p);
}

static void parts_come_from_both_folders(void **state) {
  (void)state;
  put_pair("mine", "cost = function() return 1e-9 end, uses = { 'helper.cuh', 'simt_tile.cuh' }");
  put("helper.cuh", "__device__ void helper() { /* mine */ }\n");
  mk_plan *p = plan_with((mk_trial){.templates = folder});
  const char *source = p->kernels[the_matmul(p)->candidates[0].launches[0].kernel].source;
  assert_non_null(strstr(source, "helper() { /* mine */ }"));
  assert_non_null(strstr(source, "struct row_fetcher")); /* simt_tile.cuh of the built-in folder */
  mk_plan_free(p);
}

/* A sidecar with one candidate, whose cost is a Lua expression. */
static void put_cost(const char *before, const char *cost) {
  char text[1024];
  put("mine.cu", "extern \"C\" __global__ void KERNEL(const __grid_constant__ Params p) {}\n");
  snprintf(text, sizeof text,
           "%s\nreturn { implements = 'matmul', params = {}, constants = function() return {} end,\n"
           " launch = function() return { grid = { 1 }, block = 32 } end, cost = function(p) return %s end }",
           before, cost);
  put("mine.lua", text);
}

static double cost_of_mine(void) {
  mk_plan *p = plan_with((mk_trial){.templates = folder});
  double cost = NAN;
  for (int c = 0; c < the_matmul(p)->ncandidates; c++)
    if (!strcmp(the_matmul(p)->candidates[c].label, "mine")) cost = the_matmul(p)->candidates[c].cost;
  mk_plan_free(p);
  return cost;
}

static void sidecars_include_files(void **state) {
  (void)state;
  put_cost("local common = include 'common.lua'", "common.ceil_div(p.k, 10)"); /* the built-in one */
  assert_true(cost_of_mine() == 7);
  /* The user's own is found first, is run once, and is not what built-in files get. */
  put("common.lua", "runs = (runs or 0) + 1\nreturn { share = 100 * runs }");
  put("again.lua", "return include('common.lua').share / 2");
  put_cost("local common, half, tile = include 'common.lua', include 'again.lua', include 'simt_tile.lua'",
           "common.share + half + #tile.constants(1, 1)");
  assert_true(cost_of_mine() == 154);
}

static void wrong_includes_are_named(void **state) {
  (void)state;
  mk_trial trial = {.templates = folder};
  put_cost("include 'nothing.lua'", "1");
  refused(trial, (const char *[]){"mine.lua", "nothing.lua", NULL});
  put_cost("include '../mine.lua'", "1");
  refused(trial, (const char *[]){"mine.lua:1", "'../mine.lua' must be the name of a .lua file", NULL});
  put_cost("", "include('common.lua').ceil_div(1, 1)");
  refused(trial, (const char *[]){"mine.lua", "field 'cost'", "when a file is read", NULL});
  put("loop.lua", "include 'loop.lua'");
  put_cost("include 'loop.lua'", "1");
  refused(trial, (const char *[]){"loop.lua:1", "'loop.lua' includes itself", "mine.lua:1", NULL});
}

static void several_folders(void **state) {
  (void)state;
  char both[512], other[300];
  snprintf(other, sizeof other, "%s/second", folder);
  assert_int_equal(mkdir(other, 0700), 0);
  put_pair("mine", "cost = function() return 1e-9 end");
  put_pair("second/mine", "cost = function() return 1e-10 end");
  put_pair("second/other", "cost = function() return 3 end");
  snprintf(both, sizeof both, "%s:%s", folder, other);
  mk_plan *p = plan_with((mk_trial){.templates = both});
  assert_true(the_matmul(p)->candidates[0].cost > 5e-10); /* the first folder's */
  assert_int_equal(count(the_matmul(p), "other tile="), 2);
  mk_plan_free(p);
}

static void says_what_is_wrong_with_a_sidecar(void **state) {
  (void)state;
  static const struct {
    const char *formulas, *field;
  } cases[] = {
      {"tuneables = {}, cost = function() return 1 end", "'tuneables'"},
      {"cost = 5", "field 'cost'"},
      {"flop = function() return 1 end", "'bytes'"},
      {"cost = function(p) return p.x.y end", "field 'cost': bad.lua:4:"},
      {"cost = function(p) return 'soon' end", "field 'cost'"},
      {"bytes = function(p) return 0 / 0 end", "field 'bytes'"},
      {"cost = function() return 1 end, unit = 'wave'", "field 'unit'"},
      {"cost = function() return 1 end, valid = function(p, t) return t.tile < p.tile end", "field 'valid': bad.lua:4:"},
      {"cost = function() return 1 end, uses = { '../secret' }", "field 'uses'"},
      {"cost = function() return 1 end, uses = { 'gone.cuh' }", "gone.cuh"},
      {"cost = function() return 1 end, launch = function() return { grid = { 0 }, block = 32 } end", "field 'launch'"},
      {"cost = function() return 1 end, constants = function() return 7 end", "field 'constants'"},
      {"cost = function() return 1 end, params = { { 'z', 'ptr' } }", "params has 'z'"},
      {"cost = function() return 1 end, implements = 'softmax'", "field 'implements' is \"softmax\""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put_pair("bad", cases[i].formulas);
    refused((mk_trial){.templates = folder}, (const char *[]){in("bad.lua"), cases[i].field, NULL});
  }
}

static void says_what_is_wrong_with_a_folder(void **state) {
  (void)state;
  refused((mk_trial){.templates = "/nowhere"}, (const char *[]){"/nowhere", "--templates", NULL});
  refused((mk_trial){.templates = folder}, (const char *[]){folder, "NAME.cu", NULL});
  put("lonely.lua", "return {}");
  refused((mk_trial){.templates = folder}, (const char *[]){folder, "NAME.cu", NULL});
}

static void pins_hold_tunables(void **state) {
  (void)state;
  const mk_pin rows[] = {{"rows", 8}, {"step", 32}}, none[] = {{"rows", 5}}, foreign[] = {{"tile_q", 64}};
  mk_plan *p = plan_with((mk_trial){.templates = own, .pins = rows, .npins = 2});
  assert_int_equal(the_matmul(p)->ncandidates, 1);
  assert_string_equal(the_matmul(p)->candidates[0].label, "plain_matmul rows=8 step=32");
  mk_plan_free(p);
  p = plan_with((mk_trial){.templates = own, .pins = none, .npins = 1}); /* nothing has it: the others do the work */
  assert_int_equal(count(the_matmul(p), "rows="), 0);
  assert_true(the_matmul(p)->ncandidates > 0);
  mk_plan_free(p);
  p = plan_with((mk_trial){.templates = own, .pins = foreign, .npins = 1}); /* another kind's */
  assert_true(the_matmul(p)->ncandidates > 3);
  mk_plan_free(p);
}

/* ---- edited kernels */

typedef struct emitted {
  char file[128], name[96], *source;
} emitted;

/* The first choice of the matmul that is a kernel of ours. */
static emitted emit_one(void) {
  mk_plan *p = plan_with((mk_trial){0});
  const mk_group *g = the_matmul(p);
  emitted e = {.source = NULL};
  for (int c = 0; c < g->ncandidates && !e.source; c++) {
    if (g->candidates[c].launches[0].kind != MK_LAUNCH_KERNEL) continue;
    const mk_kernel *k = &p->kernels[g->candidates[c].launches[0].kernel];
    snprintf(e.name, sizeof e.name, "%s", k->name);
    snprintf(e.file, sizeof e.file, "%s.cu", k->name);
    e.source = strdup(k->source);
  }
  mk_plan_free(p);
  assert_non_null(e.source);
  return e;
}

/* The source with the first `from` replaced. */
static char *with(const char *source, const char *from, const char *to) {
  const char *at = strstr(source, from);
  assert_non_null(at);
  mk_text t = {0};
  mk_text_add_n(&t, source, (size_t)(at - source));
  mk_text_add(&t, to);
  mk_text_add(&t, at + strlen(from));
  return t.data;
}

static void edited_kernels_replace_emitted_ones(void **state) {
  (void)state;
  emitted e = emit_one();
  put(e.file, e.source);
  mk_plan *p = plan_with((mk_trial){.edited = folder}); /* as emitted: nothing changes */
  assert_int_equal(count(the_matmul(p), "cublaslt"), 1);
  mk_plan_free(p);
  char *changed = with(e.source, "struct Params {", "// faster\nstruct  Params {");
  free(changed);
  changed = with(e.source, "extern \"C\"", "// faster\nextern \"C\"");
  put(e.file, changed);
  p = plan_with((mk_trial){.edited = folder});
  const mk_group *g = the_matmul(p);
  for (int c = 0; c < g->ncandidates; c++) { /* only what the person wants to see run */
    const mk_kernel *k = &p->kernels[g->candidates[c].launches[0].kernel];
    assert_string_equal(k->name, e.name);
    assert_string_equal(k->source, changed);
  }
  mk_plan_free(p);
  free(changed);
  free(e.source);
}

static void edited_kernels_are_checked(void **state) {
  (void)state;
  refused((mk_trial){.edited = "/nowhere"}, (const char *[]){"/nowhere", "--dump", NULL});
  refused((mk_trial){.edited = folder}, (const char *[]){folder, "no NAME.cu", NULL});
  emitted e = emit_one();
  put("unknown_0123456789.cu", e.source);
  refused((mk_trial){.edited = folder}, (const char *[]){"unknown_0123456789.cu", "no kernel of that name", NULL});
  remove(in("unknown_0123456789.cu"));
  char *changed = with(e.source, "struct Params {", "struct Params {\n  float extra;");
  put(e.file, changed);
  refused((mk_trial){.edited = folder}, (const char *[]){e.file, "struct Params", NULL});
  free(changed);
  changed = with(e.source, "struct Params {", "struct Params\n{");
  put(e.file, changed);
  refused((mk_trial){.edited = folder}, (const char *[]){e.file, "struct Params", NULL});
  free(changed);
  changed = with(e.source, "#define KERNEL ", "#define KERNEL x");
  put(e.file, changed);
  refused((mk_trial){.edited = folder}, (const char *[]){e.file, "#define KERNEL", NULL});
  free(changed);
  changed = with(e.source, "struct Params {", "struct Params {  \n");
  put(e.file, changed); /* blanks do not count */
  mk_plan_free(plan_with((mk_trial){.edited = folder}));
  free(changed);
  free(e.source);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(is_a_candidate_beside_the_others),
      IN_FOLDER(formulas_decide_the_order),
      IN_FOLDER(dear_ones_of_the_user_stay),
      IN_FOLDER(takes_the_place_of_a_built_in_one),
      IN_FOLDER(parts_come_from_both_folders),
      IN_FOLDER(sidecars_include_files),
      IN_FOLDER(wrong_includes_are_named),
      IN_FOLDER(several_folders),
      IN_FOLDER(says_what_is_wrong_with_a_sidecar),
      IN_FOLDER(says_what_is_wrong_with_a_folder),
      cmocka_unit_test(pins_hold_tunables),
      IN_FOLDER(edited_kernels_replace_emitted_ones),
      IN_FOLDER(edited_kernels_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

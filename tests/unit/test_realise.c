/* Norm, modulation and matmul: what is recognised, which realisations a plan has, and when one is preferred. That they compute
 * the right thing is test_realise_host's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/pattern.h"
#include "tests/host/script.h"

static const char norms[] =
    "local x, e = input{name='x', shape={%s}, dtype='%s'}, input{name='e', shape={3, 512}}\n"
    "local a, b, g = e:slice(1, 0, 1), e:slice(1, 1, 1), weight('g', {512})\nlocal c = x - x:mean()\n"
    "local layer = c * ((c * c):mean() + 1e-6):rsqrt()\nlocal rms = x / ((x * x):mean() + 1e-6):sqrt()\n"
    "local w = weight('w', {256, 512}):cast'bf16'\nlocal function y(h) output('y', matmul(h:cast'bf16', w)) end\n%s";

static mk_graph *graph_with(const char *shape, const char *dtype, const char *rest) {
  char lua[2048];
  mk_status st = {0};
  snprintf(lua, sizeof lua, norms, shape, dtype, rest);
  mk_graph *g = graph_of(lua, &st);
  if (!g) fail_msg("%s", st.message);
  return g;
}

static mk_plan *plan_of(const char *shape, const char *dtype, const char *rest, const mk_plan_options *options) {
  mk_status st = {0};
  mk_graph *g = graph_with(shape, dtype, rest);
  mk_plan *p = mk_plan_build(g, options, &st);
  if (!p) fail_msg("%s: %s", rest, st.message);
  mk_graph_free(g);
  return p;
}

/* ---- the pattern */

static bool match(const char *rest, mk_normed *out, mk_graph **graph) {
  mk_graph *g = *graph = graph_with("77, 512", "f32", rest);
  for (int i = 0; i < g->count; i++)
    if (g->nodes[i].op == MK_OP_MATMUL) return mk_match_normed(g, g->nodes[i].args[0], out);
  return false;
}

static void forms(void **state) {
  (void)state;
  static const struct {
    const char *lua;
    bool mean, divides;
    const char *steps; /* as operators, innermost first */
  } good[] = {{"y(layer)", true, false, ""},
              {"y(rms)", false, true, ""},
              {"y(layer * (a + 1) + b)", true, false, "*+"},
              {"y(b + (a + 1) * layer)", true, false, "*+"},
              {"y(rms * g)", false, true, "*"},
              {"y(((layer - b) / a) * 3 - b)", true, false, "-/*-"},
              {"output('y', matmul(layer * g, weight('w32', {256, 512})))", true, false, "*"}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    mk_normed n;
    mk_graph *g;
    if (!match(good[i].lua, &n, &g)) fail_msg("%s is not recognised", good[i].lua);
    char steps[8] = "";
    for (int k = 0; k < n.nsteps; k++)
      steps[k] = n.step[k].op == MK_OP_ADD ? '+' : n.step[k].op == MK_OP_SUB ? '-' : n.step[k].op == MK_OP_MUL ? '*' : '/';
    steps[n.nsteps] = 0;
    assert_string_equal(steps, good[i].steps);
    assert_int_equal(n.mean >= 0, good[i].mean);
    assert_int_equal(n.divides, good[i].divides);
    assert_int_equal(n.rows, 77);
    assert_int_equal(n.cols, 512);
    assert_string_equal(g->nodes[n.x].name, "x");
    mk_graph_free(g);
  }
}

static void other_forms(void **state) {
  (void)state;
  static const char *const bad[] = {
      "y(x * g)",                                                                 /* nothing of a row */
      "y(b - layer)",                                                             /* the wrong way round */
      "y(layer:cast'bf16' * g)",                                                  /* rounded on the way */
      "y(layer:silu())",                                                          /* not linear */
      "y(layer * x)",                                                             /* modulated by each element */
      "y((layer * g + b):reshape{7, 11, 512}:permute{2, 1, 3}:reshape{77, 512})", /* rows move */
      "y(layer * g + b + g * 2 + a + g - a + b * 3 + x:sum() * 0 + g)",           /* rows among the columns */
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mk_normed n;
    mk_graph *g;
    if (match(bad[i], &n, &g)) fail_msg("%s is recognised", bad[i]);
    mk_graph_free(g);
  }
}

/* ---- plans */

/* How many of a plan's candidates begin so; each covers the group before, which is its row group. */
static int count(const mk_plan *p, const char *name) {
  int n = 0;
  for (int g = 0; g < p->ngroups; g++)
    for (int c = 0; c < p->groups[g].ncandidates; c++) {
      const mk_candidate *k = &p->groups[g].candidates[c];
      bool usual = strncmp(k->label, "folded", 6) != 0 && strncmp(k->label, "prologue", 8) != 0;
      assert_int_equal(k->covers, !usual);
      if (!usual) assert_string_equal(p->groups[g - 1].kind, "row");
      n += !strncmp(k->label, name, strlen(name));
    }
  return n;
}

static void expect(const char *shape, const char *dtype, const char *rest, bool folded, bool prologue) {
  const mk_plan_options options = options_for(90);
  mk_plan *p = plan_of(shape, dtype, rest, &options);
  if ((count(p, "folded modulation, ") > 0) != folded) fail_msg("%s: folded: %d", rest, !folded);
  if ((count(p, "prologue, ") > 0) != prologue) fail_msg("%s: prologue: %d", rest, !prologue);
  for (int g = 0; g < p->ngroups; g++) {
    assert_int_equal(p->groups[g].chosen, 0);
    assert_int_equal(p->groups[g].candidates[0].covers, 0);
  }
  mk_plan_free(p);
}

static void where_they_are_offered(void **state) {
  (void)state;
  expect("77, 512", "f32", "y(layer * (a + 1) + b)", true, true);
  expect("2, 77, 512", "bf16", "y(layer * (a + 1) + b)", true, true);
  expect("77, 512", "f32", "output('x2', x * g)\ny(rms)", true, true);
  /* several readers, or the operand itself is wanted: the row kernel's work is needed anyway */
  expect("77, 512", "f32", "local h = (layer * g):cast'bf16'\ny(h)\noutput('z', matmul(h, weight('v', {64, 512}):cast'bf16'))",
         false, false);
  expect("77, 512", "f32", "local h = (layer * g):cast'bf16'\ny(h)\noutput('h', h)", false, false);
  /* a value that is nowhere in memory cannot be read by a prologue */
  expect("77, 512", "f32", "local z = x * a\ny(z * ((z * z):mean() + 1e-6):rsqrt() * g)", true, false);
  /* one row has no statistics to share */
  expect("1, 512", "f32", "y(layer * g)", false, false);
  /* 128 MiB of folded weight beside the copy of x: nobody would choose it */
  expect("77, 512", "f32", "output('y', matmul((layer * g):cast'bf16', weight('v', {131072, 512}):cast'bf16'))", false, true);
}

static void the_folded_weight_takes_the_operands_place(void **state) {
  (void)state;
  const mk_plan_options options = options_for(90);
  static const char *const x[] = {"bf16", "f32"};
  int64_t scratch[2];
  for (int i = 0; i < 2; i++) {
    mk_plan *p = plan_of("4096, 512", x[i], "y(layer * g + b)", &options);
    assert_true(count(p, "folded modulation, ") > 0);
    scratch[i] = p->space_bytes[MK_SPACE_SCRATCH];
    mk_plan_free(p);
  }
  assert_true(scratch[0] < 4096 * 512 * 2 + 64 * 1024); /* h, and some vectors */
  assert_true(scratch[1] >= 4096 * 512 * 2 + 256 * 512 * 2);
}

/* Memory-bound on a card without the library: not writing and reading h again pays. */
static void the_cost_model_chooses(void **state) {
  (void)state;
  mk_plan_options options = options_for(80);
  options.cublaslt = false;
  mk_plan *p = plan_of("262144, 512", "bf16",
                       "output('y', matmul((rms * g):cast'bf16', weight('v', {64, 512}):cast'bf16'):cast'bf16')", &options);
  const mk_group *g = &p->groups[p->ngroups - 1];
  assert_int_equal(g->chosen, 0);
  if (strncmp(g->candidates[0].label, "folded modulation, ", 19)) fail_msg("%s is chosen", g->candidates[0].label);
  assert_int_equal(g->candidates[0].covers, 1);
  assert_true(count(p, "matmul_mma") > 0);
  mk_text t = {0};
  mk_plan_print(p, &t);
  assert_non_null(strstr(mk_text_str(&t), "us with the group before\n"));
  mk_text_free(&t);
  mk_plan_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forms),
      cmocka_unit_test(other_forms),
      cmocka_unit_test(where_they_are_offered),
      cmocka_unit_test(the_folded_weight_takes_the_operands_place),
      cmocka_unit_test(the_cost_model_chooses),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

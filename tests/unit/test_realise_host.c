/* The realisations of a norm and its matmul, and of a matmul and its residual, on the host, against the CPU backend, and the
 * error of each against f32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/graph.h"
#include "runtime/cpu/session.h"
#include "tests/host/host_session.h"
#include "tests/host/script.h"
#include "tests/host/trial.h"

/* Groups that have candidates of this name, and can run them here, have no others afterwards. Returns how many such there are. */
static int take_only(mk_plan *p, const char *name) {
  int found = 0;
  for (int g = 0; g < p->ngroups; g++)
    for (int c = 0; c < p->groups[g].ncandidates; c++) {
      const mk_candidate *k = &p->groups[g].candidates[c];
      if (strncmp(k->label, name, strlen(name)) || !host_can_run(p, k)) continue;
      p->groups[g].candidates = k;
      p->groups[g].ncandidates = 1;
      found++;
    }
  return found;
}

static void check(const char *file, const char *params, double bound, const char *entries, const char *realisation) {
  mk_status st = {0};
  mk_graph *g = graph_of_file(file, params, &st);
  mk_plan *p = g ? mk_plan_build(g, &(mk_plan_options){.arch = 90, .templates = templates, .cublaslt = true}, &st) : NULL;
  if (!p) fail_msg("%s %s: %s", file, params, st.message);
  if (!take_only(p, realisation)) fail_msg("%s %s: nothing is realised as %s", file, params, realisation);
  values v = {.g = g, .text = ""};
  mk_session *cpu = mk_cpu_session_open(g, &st), *host = cpu ? host_session_open(p, templates, 0, &st) : NULL;
  if (!host) fail_msg("%s %s: %s", file, params, st.message);
  run want = run_all(cpu, &v, p, entries), have = run_all(host, &v, p, entries);
  for (int i = 0; i < want.n; i++) {
    double e = error_of(want.data[i], have.data[i], want.what[i]);
    if (!(e <= bound)) fail_msg("%s %s: %s: %s: error %.3g, bound %.3g", file, params, realisation, want.what[i]->name, e, bound);
  }
  free_run(&want);
  free_run(&have);
  mk_arena_free(&v.arena);
  mk_plan_free(p);
  mk_graph_free(g);
}

static const char *const others[] = {"folded modulation", "prologue"};

/* The cases of a graph file that the host can run: f32 as it is, not as TF32; not the largest, which would take long. */
static void check_cases(const char *file) {
  mk_status st = {0};
  size_t bytes;
  char params[512];
  double bound;
  char *text = mk_file_read(file, &bytes, &st);
  if (!text) fail_msg("%s", st.message);
  for (const char *at = text; (at = strstr(at, "-- case ")); at++) {
    assert_int_equal(sscanf(at, "-- case %lf %511[^\n]", &bound, params), 2);
    if (strstr(params, "tf32") || strstr(params, "256, \"n\"") || strstr(params, "515") || strstr(params, "1030")) continue;
    for (int i = 0; i < 2; i++) check(file, params, bound, "step", others[i]);
  }
  free(text);
}

static void every_form(void **state) {
  (void)state;
  check_cases("tests/gpu/graphs/norm_matmul.lua");
}

static void the_experiment(void **state) {
  (void)state;
  check_cases("scripts/experiments/norm_modulate_matmul.lua");
}

static void the_model(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++)
    check("scripts/models/wan_dit.lua",
          "{\"config\": {\"num_heads\": 2, \"dim\": 64, \"ffn_dim\": 96, \"num_layers\": 2, \"in_dim\": 16, \"out_dim\": 16, "
          "\"freq_dim\": 32, \"text_dim\": 24, \"text_len\": 9}, \"frames\": 3, \"height\": 4, \"width\": 6, \"steps\": 2}",
          2e-2, "step step step", others[i]);
}

/* A block's linears that end in a residual. */
static void residuals(void **state) {
  (void)state;
  static const struct {
    const char *part, *realisation;
  } cases[] = {{"self_out", "gate in the weight, residual in place"},
               {"ffn_down", "gate in the weight, residual in place"},
               {"cross_out", "residual in place"}};
  for (int i = 0; i < 3; i++) {
    char params[128];
    snprintf(params, sizeof params, "{\"part\": \"%s\", \"tokens\": 37, \"dim\": 64, \"heads\": 2, \"ffn\": 96}", cases[i].part);
    check("scripts/compare/graphs/linear.lua", params, 3e-3, "step", cases[i].realisation);
  }
}

/* ---- errors */

static const char one_norm[] =
    "local x_type, layer, to = %s\nlocal x = input{name='x', shape={77, 512}, dtype=x_type}\n"
    "local m = input{name='m', shape={2, 512}}\nlocal w = weight('w', {96, 512})\nif to then w = w:cast(to) end\n"
    "local c = layer and x - x:mean() or x\nlocal h = c * ((c * c):mean() + 1e-6):rsqrt()\n"
    "h = h * (m:slice(1, 1, 1) + 1) + m:slice(1, 0, 1)\noutput('y', matmul(to and h:cast(to) or h, w))";

/* y in f32 with full-precision operands on the CPU, or with rounded ones in one realisation on the host. */
static float *result(const char *format, const char *params, float mean, const char *realisation, mk_binding *out) {
  mk_status st = {0};
  char lua[1024];
  snprintf(lua, sizeof lua, format, params);
  mk_graph *g = graph_of(lua, &st);
  mk_plan *p = g ? mk_plan_build(g, &(mk_plan_options){.arch = 90, .templates = templates, .cublaslt = true}, &st) : NULL;
  if (!p) fail_msg("%s", st.message);
  values v = {.g = g, .text = lua, .mean = mean};
  if (realisation && !take_only(p, realisation)) fail_msg("%s: nothing is realised as %s", params, realisation);
  mk_session *s = realisation ? host_session_open(p, templates, 0, &st) : mk_cpu_session_open(g, &st);
  if (!s) fail_msg("%s", st.message);
  run r = run_all(s, &v, p, "step");
  *out = p->outputs[0];
  mk_arena_free(&v.arena);
  mk_plan_free(p);
  mk_graph_free(g);
  return r.data[0];
}

/* The error of each realisation against f32: what rounding costs, and whether subtracting the mean afterwards costs more. */
static void realisation_errors(void **state) {
  (void)state;
  static const char *const names[] = {"matmul_simt", "folded modulation", "prologue"};
  static const char *const x_types[] = {"f32", "bf16"};
  static const float means[] = {0, 100};
  for (int i = 0; i < 8; i++) {
    const char *x = x_types[i % 2], *layer = i / 2 % 2 ? "true" : "false";
    float mean = means[i / 4];
    char params[128];
    double error[3];
    mk_binding b;
    snprintf(params, sizeof params, "'%s', %s", x, layer);
    float *want = result(one_norm, params, mean, NULL, &b);
    snprintf(params, sizeof params, "'%s', %s, 'bf16'", x, layer);
    for (int k = 0; k < 3; k++) {
      float *have = result(one_norm, params, mean, names[k], &b);
      error[k] = error_of(want, have, &b);
      free(have);
    }
    free(want);
    print_message("# %s norm of %s with mean %3g: row kernel %.2e, folded modulation %.2e, prologue %.2e\n",
                  i / 2 % 2 ? "layer" : "rms  ", x, (double)mean, error[0], error[1], error[2]);
    for (int k = 0; k < 3; k++)
      if (!(error[k] < 4e-3 && error[k] < 1.5 * error[0])) fail_msg("%s: %s: error %.3g", params, names[k], error[k]);
  }
}

static const char one_residual[] =
    "local function half(x) return %s and x:cast('bf16') or x end\nlocal x, n = half(input{name='x', shape={77, 512}}), 96\n"
    "local y = half(matmul(x, half(weight('w', {n, 512}))) + weight('b', {n})) * input{name='gate', shape={1, n}}\n"
    "output('y', input{name='r', shape={77, n}} + y)";

/* Rounding gate W in place of the product costs no more. */
static void residual_errors(void **state) {
  (void)state;
  static const char *const names[] = {"cublaslt, then", "gate in the weight, residual in place"};
  double error[2];
  mk_binding b;
  float *want = result(one_residual, "false", 0, NULL, &b);
  for (int k = 0; k < 2; k++) {
    float *have = result(one_residual, "true", 0, names[k], &b);
    error[k] = error_of(want, have, &b);
    free(have);
  }
  free(want);
  print_message("# gated residual: row program %.2e, in place %.2e\n", error[0], error[1]);
  assert_true(error[0] < 4e-3 && error[1] < 1.2 * error[0]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_form),         cmocka_unit_test(the_experiment),
                                     cmocka_unit_test(the_model),          cmocka_unit_test(residuals),
                                     cmocka_unit_test(realisation_errors), cmocka_unit_test(residual_errors)};
  return cmocka_run_group_tests(tests, make_templates, remove_templates);
}

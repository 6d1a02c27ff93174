/* Whole plans against the CPU backend with no GPU: emitted row programs, epilogues, memory planning, states and entries. The
 * graphs and their cases are those of the GPU check; templates that need tensor cores are left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codegen/graph.h"
#include "runtime/cpu/session.h"
#include "tests/host/host_session.h"
#include "tests/host/trial.h"

static void compare(run *want, run *have, double bound, const char *what) {
  assert_int_equal(want->n, have->n);
  for (int i = 0; i < want->n; i++) {
    double e = error_of(want->data[i], have->data[i], want->what[i]);
    if (!(e <= bound)) fail_msg("%s: %s, result %d: error %.3g, bound %.3g", what, want->what[i]->name, i + 1, e, bound);
  }
  free_run(want);
  free_run(have);
}

static mk_trial trial; /* of the test at hand */
static int sms;        /* 0: the usual count */

static void check_case(const char *file, const char *text, double bound, const char *params, const char *entries, bool cublaslt,
                       int pick) {
  mk_status st = {0};
  char what[PATH_MAX + 640];
  snprintf(what, sizeof what, "%s %s%s pick %d", file, params, cublaslt ? " cublaslt" : "", pick);
  mk_graph *g = mk_graph_from_script(&(mk_script_options){.path = file, .params_json = params}, &st);
  if (!g || !mk_optimize(g, &st)) fail_msg("%s: %s", what, st.message);
  mk_plan *p = mk_plan_build(
      g, &(mk_plan_options){.arch = 90, .templates = templates, .cublaslt = cublaslt, .trial = trial, .sms = sms}, &st);
  if (!p) fail_msg("%s: %s", what, st.message);
  values v = {.g = g, .text = text};
  mk_session *cpu = mk_cpu_session_open(g, &st), *host = cpu ? host_session_open(p, templates, pick, &st) : NULL;
  if (!host) fail_msg("%s: %s", what, st.message);
  run want = run_all(cpu, &v, p, entries), have = run_all(host, &v, p, entries);
  compare(&want, &have, bound, what);
  mk_arena_free(&v.arena);
  mk_plan_free(p);
  mk_graph_free(g);
}

/* Cases of a graph file: "-- case BOUND {params}". only: the number of one case, or -1. */
static void check_graph(const char *name, int only, bool cublaslt, int pick) {
  mk_status st = {0};
  size_t bytes;
  char file[PATH_MAX], entries[128] = "step", params[512];
  snprintf(file, sizeof file, strchr(name, '/') ? "%s" : "tests/gpu/graphs/%s.lua", name);
  char *text = mk_file_read(file, &bytes, &st);
  if (!text) fail_msg("%s", st.message);
  const char *e = strstr(text, "-- entries ");
  if (e) sscanf(e, "-- entries %127[^\n]", entries);
  int index = 0;
  for (const char *at = text; (at = strstr(at, "-- case ")); at++, index++) {
    double bound;
    if (sscanf(at, "-- case %lf %511[^\n]", &bound, params) != 2) fail_msg("%s: bad case", file);
    if (only < 0 || only == index) check_case(file, text, bound > 0 ? bound : 1e-30, params, entries, cublaslt, pick);
  }
  free(text);
}

static void rows(void **state) {
  (void)state;
  check_graph("row", -1, false, 0);
}

/* Blocks that walk over rows and fetch the next ones ahead: on a card of one multiprocessor each has many. */
static void rows_ahead(void **state) {
  (void)state;
  const mk_pin pin = {"ahead", 1};
  trial = (mk_trial){.npins = 1, .pins = &pin};
  sms = 1;
  for (int only = 3; only < 5; only++) check_graph("qk_rope", only, false, 0);
  trial = (mk_trial){0};
  sms = 0;
}

static void corners(void **state) {
  (void)state;
  check_graph("tests/golden/plan_corners.lua", -1, false, 0);
}

static void one_column(void **state) { /* of matmuls: a hook's value has one lane, and the body no axis for it */
  (void)state;
  check_graph("matmul", 10, false, 0);
}

static const char dit_config[] =
    "{\"num_heads\": 2, \"dim\": 64, \"ffn_dim\": 96, \"num_layers\": 2, \"in_dim\": 16, \"out_dim\": 16, "
    "\"freq_dim\": 32, \"text_dim\": 24, \"text_len\": 9}";

static void diffusion_transformer(void **state) {
  (void)state;
  char params[512];
  for (int i = 0; i < 2; i++) {
    snprintf(params, sizeof params,
             "{\"config\": %s, \"frames\": 3, \"height\": 4, \"width\": 6, \"steps\": 2, \"policy\": \"%s\"}", dit_config,
             i ? "exact" : "fp32");
    check_case("scripts/models/wan_dit.lua", "", i ? 2e-2 : 2e-5, params, "step step step", i, 0);
  }
}

static void text_encoder(void **state) {
  (void)state;
  check_case(
      "scripts/models/umt5.lua", "-- range ids 0 50\n-- range length 7 8\n", 2e-5,
      "{\"config\": {\"d_model\": 48, \"num_heads\": 2, \"d_kv\": 16, \"d_ff\": 40, \"num_layers\": 2, \"vocab_size\": 50}, "
      "\"tokens\": 11, \"policy\": \"fp32\"}",
      "prompt", false, 0);
}

static void video_decoder(void **state) {
  (void)state;
  check_case("scripts/models/wan_vae.lua", "", 2e-5,
             "{\"config\": {\"base_dim\": 8}, \"height\": 3, \"width\": 2, \"policy\": \"fp32\"}", "first next next", false, 0);
}

/* The experiment's template with every choice of its tunables, in the place of all other matmuls. */
static void own_template(void **state) {
  (void)state;
  trial.templates = "scripts/experiments/own_template";
  for (int rows = 2; rows <= 8; rows *= 2)
    for (int step = 16; step <= 32; step *= 2) {
      const mk_pin pins[] = {{"rows", rows}, {"step", step}};
      trial.pins = pins;
      trial.npins = 2;
      check_graph("scripts/experiments/own_template.lua", -1, false, 0);
    }
  trial = (mk_trial){0};
}

/* The same for a template that takes the fused code in pieces; prefetch asks for whole rows. */
static void operands_apart(void **state) {
  (void)state;
  char folder[] = "/tmp/apart_XXXXXX", command[1024];
  assert_non_null(mkdtemp(folder));
  snprintf(
      command, sizeof command,
      "cd scripts/experiments/own_template && sed 's/implements = .*/&\\n  fetches = true,/' plain_matmul.lua >%s/apart.lua && "
      "sed 's/< N) epilogue<4>(p, \\(.*\\), acc\\[i\\]);/< N) { Operands<4> o; fetch(p, \\1, o); "
      "if (N %% 8 == 0) prefetch(p, row0 + ty, 0, N); epilogue<4>(p, \\1, acc[i], o); }/' plain_matmul.cu >%s/apart.cu",
      folder, folder);
  assert_int_equal(system(command), 0);
  const mk_pin pins[] = {{"rows", 4}, {"step", 32}};
  trial = (mk_trial){.templates = folder, .pins = pins, .npins = 2};
  check_graph("scripts/experiments/own_template.lua", 1, false, 0);
  check_graph("matmul", 1, false, 0);
  check_graph("tests/golden/plan_corners.lua", -1, false, 0);
  trial = (mk_trial){0};
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
}

static void only_named(void **state) { /* HOST_GRAPH=name[:case[:pick[:sms]]]: one graph, for debugging */
  (void)state;
  char name[128];
  int only = -1, pick = 0;
  sscanf(getenv("HOST_GRAPH"), "%127[^:]:%d:%d:%d", name, &only, &pick, &sms);
  check_graph(name, only, getenv("HOST_LT") != NULL, pick);
}

int main(void) {
  const struct CMUnitTest one[] = {cmocka_unit_test(only_named)};
  const struct CMUnitTest tests[] = {cmocka_unit_test(rows),
                                     cmocka_unit_test(rows_ahead),
                                     cmocka_unit_test(corners),
                                     cmocka_unit_test(one_column),
                                     cmocka_unit_test(diffusion_transformer),
                                     cmocka_unit_test(text_encoder),
                                     cmocka_unit_test(video_decoder),
                                     cmocka_unit_test(own_template),
                                     cmocka_unit_test(operands_apart)};
  if (getenv("HOST_GRAPH")) return cmocka_run_group_tests(one, make_templates, remove_templates);
  return cmocka_run_group_tests(tests, make_templates, remove_templates);
}

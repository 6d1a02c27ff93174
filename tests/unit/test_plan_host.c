/* Whole plans against the CPU backend with no GPU: emitted row programs, epilogues, memory planning, states and entries. The
 * graphs and their cases are those of the GPU check; templates that need tensor cores are left out. */
#include <dirent.h>
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <limits.h>

#include <cmocka.h>

#include "codegen/graph.h"
#include "runtime/base/hash.h"
#include "runtime/cpu/session.h"
#include "tests/host/host_session.h"

static char templates[PATH_MAX]; /* a folder without the tensor-core templates */

static int make_templates(void **state) {
  (void)state;
  char here[PATH_MAX], from[2 * PATH_MAX + 64], to[PATH_MAX + 300];
  strcpy(templates, "/tmp/host_templates_XXXXXX");
  if (!mkdtemp(templates) || !getcwd(here, sizeof here)) return -1;
  DIR *dir = opendir("templates");
  if (!dir) return -1;
  for (struct dirent *d; (d = readdir(dir));) {
    if (d->d_name[0] == '.' || strstr(d->d_name, "mma")) continue;
    snprintf(from, sizeof from, "%s/templates/%s", here, d->d_name);
    snprintf(to, sizeof to, "%s/%s", templates, d->d_name);
    if (symlink(from, to)) return -1;
  }
  return closedir(dir);
}

static int remove_templates(void **state) {
  (void)state;
  char path[PATH_MAX + 300];
  DIR *dir = opendir(templates);
  for (struct dirent *d; dir && (d = readdir(dir));) {
    snprintf(path, sizeof path, "%s/%s", templates, d->d_name);
    unlink(path);
  }
  if (dir) closedir(dir);
  return rmdir(templates);
}

/* ---- made-up values: the same for every backend, decided by name */

typedef struct values {
  const mk_graph *g;
  const char *text; /* of the graph file, for its ranges */
  mk_arena arena;
} values;

static void make_value(values *v, const mk_node *n, mk_tensor *t) {
  *t = (mk_tensor){
      .name = n->name, .where = "made-up values", .dtype = n->dtype, .rank = n->rank, .bytes = (size_t)mk_node_bytes(n)};
  memcpy(t->dims, n->dims, sizeof t->dims);
  char *data = mk_alloc(&v->arena, t->bytes);
  uint64_t seed = mk_hash64(n->name, strlen(n->name));
  int low = 0, high = 2;
  char key[128];
  snprintf(key, sizeof key, "-- range %s ", n->name);
  const char *range = strstr(v->text, key);
  if (range) sscanf(range + strlen(key), "%d %d", &low, &high);
  float scale = n->rate == MK_RATE_LOAD && n->rank > 1 ? 1 / sqrtf((float)mk_node_count(n) / (float)n->dims[0]) : 1;
  for (int64_t i = 0; i < mk_node_count(n); i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    float f = ((float)(seed >> 40) / (float)(1 << 24) - 0.5f) * 3.4f * scale;
    if (n->dtype == MK_I32)
      ((int32_t *)(void *)data)[i] = low + (int32_t)((seed >> 33) % (uint64_t)(high - low));
    else
      mk_convert(data + i * (int64_t)mk_dtype_size(n->dtype), n->dtype, &f, MK_F32, 1);
  }
  t->data = data;
}

static bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  values *v = self;
  for (int i = 0; i < v->g->count; i++)
    if (v->g->nodes[i].op == MK_OP_INPUT && !strcmp(v->g->nodes[i].name, name)) {
      make_value(v, &v->g->nodes[i], out);
      return true;
    }
  mk_fail(st, MK_EINTERNAL, "no weight %s", name);
  return false;
}

/* ---- running both */

typedef struct run {
  float *data[256];
  int n;
} run;

static void start(mk_session *s, values *v, const mk_plan *p) {
  mk_status st = {0};
  mk_source source = {.self = v, .fetch = fetch};
  s->ops->load(s, &source, NULL, NULL, &st);
  for (int i = 0; i < p->ninputs; i++) {
    mk_tensor t;
    fetch(v, p->inputs[i].name, &t, &st);
    s->ops->write(s, &t, &st);
  }
  s->ops->run(s, "prompt", &st);
  assert_string_equal(st.message, "");
}

static void keep(mk_session *s, const mk_binding *b, run *out) {
  mk_status st = {0};
  size_t bytes = (size_t)mk_dims_count(b->dims, b->rank) * 4;
  assert_true(out->n < 256);
  out->data[out->n] = malloc(bytes);
  s->ops->read(s, b->name, out->data[out->n++], bytes, &st);
  assert_string_equal(st.message, "");
}

static bool makes(const mk_graph *g, const char *entry, const char *output) {
  for (int i = 0; i < g->noutputs; i++)
    if (!strcmp(g->outputs[i].entry, entry) && !strcmp(g->outputs[i].name, output)) return true;
  return false;
}

static run run_all(mk_session *s, values *v, const mk_plan *p, const char *entries) {
  run out = {0};
  char list[256];
  start(s, v, p);
  snprintf(list, sizeof list, "%s", entries);
  for (char *rest = list, *entry; (entry = strsep(&rest, " "));) {
    mk_status st = {0};
    s->ops->run(s, entry, &st);
    assert_string_equal(st.message, "");
    for (int i = 0; i < p->noutputs; i++)
      if (makes(v->g, entry, p->outputs[i].name)) keep(s, &p->outputs[i], &out);
  }
  for (int i = 0; i < p->nstates; i++) keep(s, &p->states[i], &out);
  s->ops->close(s);
  return out;
}

static double error_of(const float *want, const float *have, const mk_binding *b) {
  double sum = 0, norm = 0;
  for (int64_t i = 0; i < mk_dims_count(b->dims, b->rank); i++) {
    double w = b->dtype == MK_I32 ? ((const int32_t *)(const void *)want)[i] : (double)want[i];
    double h = b->dtype == MK_I32 ? ((const int32_t *)(const void *)have)[i] : (double)have[i];
    double d = w == h ? 0 : w - h;
    sum += d * d;
    norm += w == h && isinf(w) ? 0 : w * w;
  }
  double e = sqrt(sum / (norm + DBL_MIN));
  return isnan(e) ? INFINITY : norm > 0 ? e : sqrt(sum);
}

static void compare(run *want, run *have, const mk_plan *p, const mk_graph *g, const char *entries, double bound,
                    const char *what) {
  char list[256];
  int at = 0;
  assert_int_equal(want->n, have->n);
  snprintf(list, sizeof list, "%s", entries);
  for (char *rest = list, *entry; (entry = strsep(&rest, " "));)
    for (int i = 0; i < p->noutputs; i++)
      if (makes(g, entry, p->outputs[i].name)) {
        double e = error_of(want->data[at], have->data[at], &p->outputs[i]);
        if (!(e <= bound)) fail_msg("%s: output %s of %s: error %.3g, bound %.3g", what, p->outputs[i].name, entry, e, bound);
        at++;
      }
  for (int i = 0; i < p->nstates; i++, at++) {
    double e = error_of(want->data[at], have->data[at], &p->states[i]);
    if (!(e <= bound)) fail_msg("%s: state %s: error %.3g, bound %.3g", what, p->states[i].name, e, bound);
  }
  for (int i = 0; i < want->n; i++) {
    free(want->data[i]);
    free(have->data[i]);
  }
}

static mk_trial trial; /* of the test at hand */

static void check_case(const char *file, const char *text, double bound, const char *params, const char *entries, bool cublaslt,
                       int pick) {
  mk_status st = {0};
  char what[PATH_MAX + 640];
  snprintf(what, sizeof what, "%s %s%s pick %d", file, params, cublaslt ? " cublaslt" : "", pick);
  mk_graph *g = mk_graph_from_script(&(mk_script_options){.path = file, .params_json = params}, &st);
  if (!g || !mk_optimize(g, &st)) fail_msg("%s: %s", what, st.message);
  mk_plan *p =
      mk_plan_build(g, &(mk_plan_options){.arch = 90, .templates = templates, .cublaslt = cublaslt, .trial = trial}, &st);
  if (!p) fail_msg("%s: %s", what, st.message);
  values v = {.g = g, .text = text};
  mk_session *cpu = mk_cpu_session_open(g, &st), *host = cpu ? host_session_open(p, templates, pick, &st) : NULL;
  if (!host) fail_msg("%s: %s", what, st.message);
  run want = run_all(cpu, &v, p, entries), have = run_all(host, &v, p, entries);
  compare(&want, &have, p, g, entries, bound, what);
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

static void corners(void **state) {
  (void)state;
  check_graph("tests/golden/plan_corners.lua", -1, false, 0);
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

static void only_named(void **state) { /* HOST_GRAPH=name[:case[:pick]]: one graph, for debugging */
  (void)state;
  char name[128];
  int only = -1, pick = 0;
  sscanf(getenv("HOST_GRAPH"), "%127[^:]:%d:%d", name, &only, &pick);
  check_graph(name, only, getenv("HOST_LT") != NULL, pick);
}

int main(void) {
  const struct CMUnitTest one[] = {cmocka_unit_test(only_named)};
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rows),         cmocka_unit_test(corners),       cmocka_unit_test(diffusion_transformer),
      cmocka_unit_test(text_encoder), cmocka_unit_test(video_decoder), cmocka_unit_test(own_template)};
  if (getenv("HOST_GRAPH")) return cmocka_run_group_tests(one, make_templates, remove_templates);
  return cmocka_run_group_tests(tests, make_templates, remove_templates);
}

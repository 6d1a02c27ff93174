/* Every realisation of every group on a GPU against the CPU backend.
 *
 *   gpu_check [--filter TEXT] [--fast] [GRAPH.lua ...]     default: all of tests/gpu/graphs
 *
 * A graph file's comments say how it is run:
 *   -- case BOUND {json params}    once for each; BOUND: the largest ||gpu - cpu|| / ||cpu|| of an output (0: equal)
 *   -- entries a b b               the entries to run, in order (default: step); prompt runs first
 *   -- range NAME LOW HIGH         values of an i32 input, LOW <= v < HIGH
 *
 * A case runs with the plan's own choices (three times over, so that graph replay is met, then once more after parking), then
 * again for each further candidate of each group. Memory is filled with NaN before, so what is not written is seen. TAP on
 * standard output, closed by a table of the worst error of each kind of candidate. --fast: the plan's own choices only. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/graph.h"
#include "codegen/plan.h"
#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/cpu/session.h"
#include "runtime/gpu/executor.h"
#include "runtime/gpu/worker.h"

enum { MAX_ENTRIES = 8, MAX_RANGES = 8 };

typedef struct range {
  char name[64];
  int low, high;
} range;

typedef struct recipe { /* from a file's comments */
  char entries[MAX_ENTRIES][32];
  int nentries;
  range ranges[MAX_RANGES];
  int nranges;
} recipe;

typedef struct summary { /* worst error among candidates of one kind and label */
  char kind[32], label[128];
  double error, share; /* share: of the bound */
  int runs, failures;
} summary;

typedef struct checker {
  mk_gpu_device *device;
  char templates[PATH_MAX];
  const char *filter;
  bool fast;
  int tests, failures;
  mk_arena arena;
  summary *summaries;
  int nsummaries, summaries_cap;
} checker;

typedef struct value {
  void *data; /* malloc'd */
  const mk_binding *what;
} value;

typedef struct values { /* the outputs of a run: each entry's after it ran, one after the other, then the states */
  value *items;
  int count, cap;
} values;

typedef struct test_case { /* one graph with its inputs and what the CPU makes of them */
  checker *c;
  const recipe *r;
  const char *name;
  double bound;
  mk_arena arena;
  mk_graph *graph;
  mk_plan *plan;
  mk_tensor *tensors; /* weights and inputs, by name */
  int ntensors, tensors_cap;
  values expected;
} test_case;

/* ---- made-up values */

static uint64_t next_random(uint64_t *x) {
  uint64_t z = (*x += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static double uniform(uint64_t *x) { return ((double)(next_random(x) >> 11) + 0.5) / 9007199254740992.0; }
static double normal(uint64_t *x) { return sqrt(-2 * log(uniform(x))) * cos(6.283185307179586 * uniform(x)); }

static void make_tensor(test_case *t, const mk_node *n, uint64_t *seed) {
  int64_t count = mk_node_count(n);
  mk_tensor v = {
      .name = n->name, .where = "made-up values", .dtype = n->dtype, .rank = n->rank, .bytes = (size_t)mk_node_bytes(n)};
  memcpy(v.dims, n->dims, sizeof v.dims);
  void *data = mk_alloc(&t->arena, v.bytes);
  v.data = data;
  mk_gpu_synthetic_rule rule = {0, 1};
  if (n->rate == MK_RATE_LOAD) rule = mk_gpu_synthetic_rule_of(n->name, n->dims, n->rank);
  int low = 0, high = 2;
  for (int i = 0; i < t->r->nranges; i++) {
    if (strcmp(t->r->ranges[i].name, n->name)) continue;
    low = t->r->ranges[i].low;
    high = t->r->ranges[i].high;
  }
  for (int64_t i = 0; i < count; i++) {
    if (n->dtype == MK_I32) {
      ((int32_t *)data)[i] = low + (int32_t)(next_random(seed) % (uint64_t)(high - low));
      continue;
    }
    float f = rule.mean + rule.deviation * (float)normal(seed);
    mk_convert((char *)data + i * (int64_t)mk_dtype_size(n->dtype), n->dtype, &f, MK_F32, 1);
  }
  MK_PUSH(&t->arena, t->tensors, t->ntensors, t->tensors_cap, v);
}

static bool describe(void *self, const char *name, mk_tensor *out) {
  const test_case *t = self;
  for (int i = 0; i < t->ntensors; i++) {
    if (strcmp(t->tensors[i].name, name)) continue;
    *out = t->tensors[i];
    return true;
  }
  return false;
}

static bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  if (!describe(self, name, out)) mk_fail(st, MK_EINTERNAL, "the graph has no weight %s", name);
  return !mk_failed(st);
}

/* ---- running */

static bool keep(test_case *t, mk_session *s, const mk_binding *b, values *out, mk_status *st) {
  size_t count = (size_t)mk_dims_count(b->dims, b->rank);
  value v = {malloc(count * 4), b};
  if (!v.data) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  MK_PUSH(&t->arena, out->items, out->count, out->cap, v);
  return s->ops->read(s, b->name, v.data, count * 4, st);
}

static void free_values(values *v) {
  for (int i = 0; i < v->count; i++) free(v->items[i].data);
  v->count = 0;
}

/* Outputs belong to entries; which one, only the graph says. */
static bool of_entry(const test_case *t, const char *output, const char *entry) {
  for (int i = 0; i < t->graph->noutputs; i++)
    if (!strcmp(t->graph->outputs[i].name, output) && !strcmp(t->graph->outputs[i].entry, entry)) return true;
  return false;
}

static bool run_entries(test_case *t, mk_session *s, values *out, mk_status *st) {
  const mk_plan *p = t->plan;
  for (int e = 0; e < t->r->nentries; e++) {
    const char *entry = t->r->entries[e];
    if (!s->ops->run(s, entry, st)) return false;
    for (int i = 0; i < p->noutputs; i++)
      if (of_entry(t, p->outputs[i].name, entry) && !keep(t, s, &p->outputs[i], out, st)) return false;
  }
  for (int i = 0; i < p->nstates; i++)
    if (!keep(t, s, &p->states[i], out, st)) return false;
  return true;
}

static bool start(test_case *t, mk_session *s, mk_status *st) {
  mk_source source = {.self = t, .describe = describe, .fetch = fetch};
  if (!s->ops->load(s, &source, NULL, NULL, st)) return false;
  for (int i = 0; i < t->plan->ninputs; i++) {
    mk_tensor v;
    if (!describe(t, t->plan->inputs[i].name, &v))
      return mk_fail(st, MK_EINTERNAL, "no value for %s", t->plan->inputs[i].name), false;
    if (!s->ops->write(s, &v, st)) return false;
  }
  return s->ops->run(s, "prompt", st);
}

/* ---- comparing */

typedef struct difference {
  double error; /* of the worst output: ||gpu - cpu|| / ||cpu|| */
  double share; /* of what the bound allows, elements included; NaN-proof: infinite when a value is not finite */
  const char *output;
} difference;

/* Sessions give i32 as it is and all else as f32. */
static double at(const void *data, mk_dtype dtype, int64_t i) {
  return dtype == MK_I32 ? (double)((const int32_t *)data)[i] : (double)((const float *)data)[i];
}

/* A whole output is held to the bound by norms; every element to 16 times that, so that one wrong element among millions is seen.
 */
static void compare(const void *cpu, const void *gpu, const mk_binding *b, double bound, difference *worst) {
  int64_t count = mk_dims_count(b->dims, b->rank);
  double sum = 0, norm = 0, element = 0;
  for (int64_t i = 0; i < count; i++) norm += at(cpu, b->dtype, i) * at(cpu, b->dtype, i);
  double rms = sqrt(norm / (double)count) + FLT_MIN;
  for (int64_t i = 0; i < count; i++) {
    double want = at(cpu, b->dtype, i), have = at(gpu, b->dtype, i);
    double d = isfinite(have) || have == want ? fabs(have - want) : INFINITY;
    sum += d * d;
    if (!(d / (fabs(want) + rms) <= element)) element = d / (fabs(want) + rms);
  }
  double error = sqrt(sum / (double)count) / rms;
  double share = bound > 0 ? fmax(error / bound, element / (16 * bound)) : error > 0 ? INFINITY : 0;
  if (isnan(share)) share = INFINITY;
  if (worst->output && share <= worst->share) return;
  *worst = (difference){error, share, b->name};
}

static difference compare_all(const test_case *t, const values *got) {
  difference worst = {0};
  for (int i = 0; i < t->expected.count && i < got->count; i++)
    compare(t->expected.items[i].data, got->items[i].data, got->items[i].what, t->bound, &worst);
  if (got->count != t->expected.count) worst.share = INFINITY;
  return worst;
}

/* ---- reporting */

static void summarize(checker *c, const char *kind, const char *label, difference d, bool ok) {
  summary *s = NULL;
  for (int i = 0; i < c->nsummaries && !s; i++)
    if (!strncmp(c->summaries[i].kind, kind, sizeof s->kind - 1) && !strncmp(c->summaries[i].label, label, sizeof s->label - 1))
      s = &c->summaries[i];
  if (!s) {
    summary fresh = {0};
    snprintf(fresh.kind, sizeof fresh.kind, "%s", kind);
    snprintf(fresh.label, sizeof fresh.label, "%s", label);
    MK_PUSH(&c->arena, c->summaries, c->nsummaries, c->summaries_cap, fresh);
    s = &c->summaries[c->nsummaries - 1];
  }
  s->runs++;
  s->failures += !ok;
  if (d.error > s->error) s->error = d.error;
  if (d.share > s->share) s->share = d.share;
}

static void tap(checker *c, bool ok, const char *what) {
  printf("%sok %d - %s\n", ok ? "" : "not ", ++c->tests, what);
  c->failures += !ok;
  fflush(stdout);
}

static void diagnose(const mk_status *st) {
  mk_text line = {0};
  for (const char *p = st->message; *p; p++) {
    mk_text_add_n(&line, p, 1);
    if (*p == '\n') mk_text_add(&line, "#   ");
  }
  printf("#   %s\n", mk_text_str(&line));
  mk_text_free(&line);
}

static void report(test_case *t, int group, int candidate, bool ran, difference d, const mk_status *st) {
  bool ok = ran && d.share <= 1;
  char what[512];
  const mk_group *g = group >= 0 ? &t->plan->groups[group] : NULL;
  const char *kind = g ? g->kind : "plan", *label = g ? g->candidates[candidate].label : "as chosen";
  snprintf(what, sizeof what, "%s: %s: %s: %.2e of %.0e in %s%s%.80s", t->name, kind, label, d.error, t->bound,
           d.output ? d.output : "-", ok || !g ? "" : "; ", ok || !g ? "" : g->name);
  tap(t->c, ok, what);
  if (mk_failed(st)) diagnose(st);
  summarize(t->c, kind, label, d, ok);
}

/* ---- the checks */

static bool expect(test_case *t, mk_status *st) {
  mk_session *s = mk_cpu_session_open(t->graph, st);
  if (!s) return false;
  bool ok = start(t, s, st) && run_entries(t, s, &t->expected, st);
  s->ops->close(s);
  return ok;
}

static void check_choices(test_case *t) {
  mk_status st = {0};
  difference worst = {0};
  mk_session *s = mk_gpu_session_open(t->c->device, t->plan, &(mk_gpu_session_options){.poison = true, .tune = true}, &st);
  bool ok = s && start(t, s, &st);
  for (int round = 0; ok && round < 4; round++) {
    values got = {0};
    if (round == 3) ok = s->ops->park(s, &st) && s->ops->unpark(s, &st);
    ok = ok && s->ops->reset(s, &st) && run_entries(t, s, &got, &st);
    difference d = ok ? compare_all(t, &got) : (difference){0};
    if (!worst.output || d.share > worst.share) worst = d;
    free_values(&got);
  }
  if (s) s->ops->close(s);
  report(t, -1, 0, ok, worst, &st);
}

static void check_candidate(test_case *t, int group, int candidate) {
  mk_status st = {0};
  values got = {0};
  mk_group *g = &t->plan->groups[group];
  int usual = g->chosen;
  g->chosen = candidate;
  mk_session *s = mk_gpu_session_open(t->c->device, t->plan, &(mk_gpu_session_options){.poison = true, .no_graph = true}, &st);
  bool ok = s != NULL;
  if (ok && mk_gpu_session_choice(s, group) != candidate) {
    mk_fail(&st, MK_ECOMPILE, "this candidate was given up; MOONKILN_LOG=info says why");
    ok = false;
  }
  ok = ok && start(t, s, &st) && run_entries(t, s, &got, &st);
  difference d = ok ? compare_all(t, &got) : (difference){0};
  if (s) s->ops->close(s);
  g->chosen = usual;
  report(t, group, candidate, ok, d, &st);
  free_values(&got);
}

/* All kernels at once, so that compiling uses every core; the sessions then find them in the cache. */
static bool compile_all(test_case *t, mk_status *st) {
  bool *wanted = MK_NEW_ARRAY(&t->arena, bool, t->plan->nkernels);
  mk_gpu_kernel *kernels = MK_NEW_ARRAY(&t->arena, mk_gpu_kernel, t->plan->nkernels);
  for (int i = 0; i < t->plan->nkernels; i++) wanted[i] = true;
  bool ok = mk_gpu_kernels_load(t->c->device, t->plan->kernels, t->plan->nkernels, wanted, kernels, &t->arena, st);
  mk_gpu_kernels_free(t->c->device, kernels, t->plan->nkernels);
  return ok;
}

static bool prepare(test_case *t, const char *path, const char *params, mk_status *st) {
  const mk_gpu_device *d = t->c->device;
  uint64_t seed = 12345;
  t->graph = mk_graph_from_script(&(mk_script_options){.path = path, .params_json = params}, st);
  if (!t->graph || !mk_optimize(t->graph, st)) return false;
  for (int i = 0; i < t->graph->count; i++)
    if (t->graph->nodes[i].op == MK_OP_INPUT) make_tensor(t, &t->graph->nodes[i], &seed);
  mk_plan_options options = {
      .arch = d->arch, .smem_limit = d->smem_limit, .sms = d->sms, .templates = t->c->templates, .cublaslt = d->lt != NULL};
  t->plan = mk_plan_build(t->graph, &options, st);
  return t->plan && expect(t, st) && compile_all(t, st);
}

static void run_case(checker *c, const char *path, const recipe *r, double bound, const char *params) {
  char name[256];
  const char *slash = strrchr(path, '/');
  snprintf(name, sizeof name, "%s %s", slash ? slash + 1 : path, params);
  if (c->filter && !strstr(name, c->filter)) return;
  mk_status st = {0};
  test_case t = {.c = c, .r = r, .name = name, .bound = bound};
  if (prepare(&t, path, params, &st)) {
    check_choices(&t);
    for (int g = 0; !c->fast && g < t.plan->ngroups; g++)
      for (int k = 0; k < t.plan->groups[g].ncandidates; k++)
        if (k != t.plan->groups[g].chosen) check_candidate(&t, g, k);
  } else {
    tap(c, false, name);
    diagnose(&st);
  }
  free_values(&t.expected);
  mk_plan_free(t.plan);
  mk_graph_free(t.graph);
  mk_arena_free(&t.arena);
}

static void read_recipe(const char *text, recipe *r) {
  for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    range v;
    if (r->nranges < MAX_RANGES && sscanf(line, "-- range %63s %d %d", v.name, &v.low, &v.high) == 3) r->ranges[r->nranges++] = v;
    if (strncmp(line, "-- entries ", 11)) continue;
    int used;
    for (const char *p = line + 11;
         r->nentries < MAX_ENTRIES && *p != '\n' && sscanf(p, "%31s%n", r->entries[r->nentries], &used) == 1; p += used)
      r->nentries++;
  }
  if (!r->nentries) strcpy(r->entries[r->nentries++], "step");
}

static void run_file(checker *c, const char *path) {
  mk_status st = {0};
  size_t bytes;
  char *text = mk_file_read(path, &bytes, &st);
  if (!text) {
    tap(c, false, path);
    diagnose(&st);
    return;
  }
  recipe r = {0};
  read_recipe(text, &r);
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char *end;
    if (strncmp(line, "-- case ", 8)) continue;
    double bound = strtod(line + 8, &end);
    run_case(c, path, &r, bound, *end == ' ' ? end + 1 : "{}");
  }
  free(text);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void run_folder(checker *c, const char *folder) {
  char **paths = NULL;
  int count = 0, cap = 0;
  DIR *dir = opendir(folder);
  for (struct dirent *e; dir && (e = readdir(dir));) {
    size_t n = strlen(e->d_name);
    if (n > 4 && !strcmp(e->d_name + n - 4, ".lua"))
      MK_PUSH(&c->arena, paths, count, cap, mk_printf(&c->arena, "%s/%s", folder, e->d_name));
  }
  if (dir) closedir(dir);
  if (count) qsort(paths, (size_t)count, sizeof *paths, by_text);
  for (int i = 0; i < count; i++) run_file(c, paths[i]);
  if (!count) tap(c, false, "there are graphs in the folder");
}

static void print_summary(const checker *c) {
  printf("1..%d\n# %-10s %-44s %5s %6s %10s %9s\n", c->tests, "kind", "candidate", "runs", "failed", "worst", "of bound");
  for (int i = 0; i < c->nsummaries; i++) {
    const summary *s = &c->summaries[i];
    printf("# %-10s %-44s %5d %6d %10.2e %8.0f%%\n", s->kind, s->label, s->runs, s->failures, s->error, 100 * s->share);
  }
  printf("# %d passed, %d failed\n", c->tests - c->failures, c->failures);
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "compile-worker"))
    _exit(mk_worker_main(STDIN_FILENO, argc > 2 && argv[2][0] ? argv[2] : NULL));
  setenv("MOONKILN_WORKER", "/proc/self/exe", 0); /* this program serves as its own compile worker */
  checker c = {0};
  mk_status st = {0};
  int files = 0;
  if (mk_env_data_path("templates", c.templates, &st)) c.device = mk_gpu_device_open(0, &st);
  if (!c.device) {
    printf("Bail out! %s\n", st.message);
    return 1;
  }
  printf("# %s, %d multiprocessors, cuBLASLt %s\n", c.device->name, c.device->sms, c.device->lt ? "found" : "not found");
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--fast")) {
      c.fast = true;
    } else if (!strcmp(argv[i], "--filter") && i + 1 < argc) {
      c.filter = argv[++i];
    } else {
      run_file(&c, argv[i]);
      files++;
    }
  }
  if (!files) run_folder(&c, "tests/gpu/graphs");
  print_summary(&c);
  mk_gpu_device_close(c.device);
  mk_arena_free(&c.arena);
  return c.failures ? 1 : 0;
}

/* Random valid graphs (tests/fuzz/random_graph.lua), each by its seed. Of every graph: the CPU backend computes the same before
 * and after the passes, and planning twice gives the same text and the same sources. Of a part of them, the emitted kernels are
 * run on the host against the CPU backend, and every kernel is compiled by NVRTC. Both are slow, so that part is another one
 * every day, and all of them take part in a few weeks; the seeds are in the messages.
 *
 * How far results may be apart is measured: a third run has every value off by a few millionths. A graph that makes much of that
 * (by cancellation, or where a small difference decides a rounding) may differ by as much.
 *
 *   FUZZ_GRAPHS=1-500        the seeds
 *   FUZZ_PART=N,M            host: every N-th seed, NVRTC: every M-th (1: all of them, 0: none)
 *   FUZZ_WRITE=FOLDER        nothing but write the scripts into the folder, for gpu_check FOLDER/<star>.lua; needs no GPU */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "codegen/graph.h"
#include "runtime/cpu/session.h"
#include "runtime/gpu/compiler.h"
#include "tests/host/host_session.h"
#include "tests/host/trial.h"

enum { HOST_BATCH = 16, NOISES = 3 };

static lua_State *lua; /* the generator is on top of its stack */
static char folder[32];
static int first_seed = 1, last_seed = 500, host_part = 5, nvrtc_part = 30;

typedef struct sample { /* a random graph and what the CPU backend makes of it */
  int seed;
  char *text;
  mk_graph *raw, *graph; /* graph: after the passes */
  mk_plan *plan;
  run want;          /* of raw */
  double noise[256]; /* per result: how far it is off when everything is a little */
  mk_session *host;
} sample;

/* ---- scripts */

static char *script_of(int seed, int only, int noise, double bound, int *lines) {
  lua_getfield(lua, -1, "script");
  lua_createtable(lua, 0, 4);
  lua_pushinteger(lua, seed), lua_setfield(lua, -2, "seed");
  if (only) lua_pushinteger(lua, only), lua_setfield(lua, -2, "only");
  if (noise) lua_pushinteger(lua, noise), lua_setfield(lua, -2, "noise");
  lua_pushnumber(lua, bound), lua_setfield(lua, -2, "bound");
  if (lua_pcall(lua, 1, 2, 0)) fail_msg("seed %d: %s", seed, lua_tostring(lua, -1));
  char *text = strdup(lua_tostring(lua, -2));
  if (lines) *lines = (int)lua_tointeger(lua, -1);
  lua_pop(lua, 2);
  return text;
}

static bool write_text(const char *path, const char *text, mk_status *st) {
  FILE *f = fopen(path, "w");
  bool ok = f && fputs(text, f) >= 0;
  if (f) ok = !fclose(f) && ok;
  if (!ok) mk_fail(st, MK_EIO, "cannot write %s", path);
  return ok;
}

static mk_graph *graph_of_text(const char *text, mk_status *st) {
  char path[64];
  snprintf(path, sizeof path, "%s/random.lua", folder);
  if (!write_text(path, text, st)) return NULL;
  return mk_graph_from_script(&(mk_script_options){.path = path}, st);
}

static const char *entries_of(const char *text) { return strstr(text, "-- entries a b a") ? "a b a" : "step step"; }

/* ---- one graph */

static run run_cpu(const mk_graph *g, const sample *s, float noise, mk_status *st) {
  values v = {.g = g, .text = s->text, .noise = noise};
  mk_session *cpu = mk_cpu_session_open(g, st);
  run out = cpu ? run_all(cpu, &v, s->plan, entries_of(s->text)) : (run){0};
  mk_arena_free(&v.arena);
  return out;
}

static mk_plan *plan_of(const mk_graph *g, mk_status *st) {
  return mk_plan_build(g, &(mk_plan_options){.arch = 90, .templates = "templates", .cublaslt = true}, st);
}

/* What is off in some samples with noise; a result with no other value than zeros is off by itself. */
static void measure_noise(sample *s, int only, mk_status *st) {
  for (int i = 0; i < NOISES && !mk_failed(st); i++) {
    char *noisy = script_of(s->seed, only, i + 1, 0, NULL);
    mk_graph *g = graph_of_text(noisy, st);
    if (g) {
      run r = run_cpu(g, s, 4e-6f, st);
      for (int k = 0; k < r.n; k++) s->noise[k] = fmax(s->noise[k], error_of(s->want.data[k], r.data[k], r.what[k]));
      free_run(&r);
    }
    mk_graph_free(g);
    free(noisy);
  }
}

static void drop_sample(sample *s) {
  free_run(&s->want);
  mk_plan_free(s->plan);
  mk_graph_free(s->graph);
  mk_graph_free(s->raw);
  free(s->text);
}

/* only: the number of the line that is the only output, 0 for the graph as it is. */
static bool make_sample(sample *s, int seed, int only, mk_status *st) {
  *s = (sample){.seed = seed, .text = script_of(seed, only, 0, 0, NULL)};
  s->raw = graph_of_text(s->text, st);
  s->graph = s->raw ? graph_of_text(s->text, st) : NULL;
  if (!s->graph || !mk_optimize(s->graph, st) || !(s->plan = plan_of(s->graph, st))) return false;
  s->want = run_cpu(s->raw, s, 0, st);
  measure_noise(s, only, st);
  return !mk_failed(st);
}

/* Whether the results are those of the graph before the passes; says which is not. */
static bool same_results(const sample *s, const run *have, double bound, const char *what, mk_status *st) {
  if (have->n != s->want.n) return mk_fail(st, MK_EINTERNAL, "%s: %d results of %d", what, have->n, s->want.n), false;
  for (int i = 0; i < have->n; i++) {
    double e = error_of(s->want.data[i], have->data[i], s->want.what[i]), most = bound + 16 * s->noise[i];
    if (!(e <= most))
      return mk_fail(st, MK_EINTERNAL, "%s: %s is off by %.3g, at most %.3g", what, s->want.what[i]->name, e, most), false;
  }
  return true;
}

static bool same_plans(const sample *s, mk_status *st) {
  mk_text a = {0}, b = {0};
  mk_plan *again = plan_of(s->graph, st);
  bool same = again && again->nkernels == s->plan->nkernels;
  for (int k = 0; same && k < again->nkernels; k++) same = !strcmp(again->kernels[k].source, s->plan->kernels[k].source);
  if (again) mk_plan_print(s->plan, &a), mk_plan_print(again, &b);
  if (!mk_failed(st) && (!same || strcmp(mk_text_str(&a), mk_text_str(&b)))) mk_fail(st, MK_EINTERNAL, "two plans differ");
  mk_text_free(&a);
  mk_text_free(&b);
  mk_plan_free(again);
  return !mk_failed(st);
}

static bool same_after_passes(sample *s, mk_status *st) {
  run have = run_cpu(s->graph, s, 0, st);
  bool ok = !mk_failed(st) && same_results(s, &have, 2e-6, "after the passes", st) && same_plans(s, st);
  free_run(&have);
  return ok;
}

static bool same_on_host(sample *s, mk_status *st) {
  values v = {.g = s->graph, .text = s->text};
  run have = run_all(s->host, &v, s->plan, entries_of(s->text));
  s->host = NULL;
  mk_arena_free(&v.arena);
  bool ok = same_results(s, &have, 2e-5, "emitted kernels", st);
  free_run(&have);
  return ok;
}

/* Plans for the host have no kernel that needs tensor cores. */
static bool host_plan(sample *s, host_library *l, mk_status *st) {
  mk_plan_free(s->plan);
  free_run(&s->want);
  s->plan = mk_plan_build(s->graph, &(mk_plan_options){.arch = 90, .templates = templates}, st);
  if (!s->plan) return false;
  s->want = run_cpu(s->raw, s, 0, st);
  s->host = host_session_in(s->plan, l, s->seed % 3, st);
  if (s->host) host_session_add_kernels(s->host);
  return s->host != NULL;
}

static bool check_on_host(sample *s, mk_status *st) {
  host_library l;
  if (!host_library_open(&l, templates, st)) return false;
  pid_t child = host_plan(s, &l, st) ? host_library_start(&l, st) : -1;
  bool ok = child >= 0 && host_library_finish(&l, child, st) && same_on_host(s, st);
  host_library_close(&l);
  return ok;
}

/* Each line in turn as the only output: the first that fails too is the smallest script there is of this failure. */
static void report(const sample *s, const mk_status *why, bool (*check)(sample *s, mk_status *st)) {
  int lines;
  char *whole = script_of(s->seed, 0, 0, 0, &lines);
  print_error("seed %d: %s\n", s->seed, why->message);
  for (int only = 1; only <= lines; only++) {
    mk_status st = {0};
    sample small;
    bool ok = make_sample(&small, s->seed, only, &st) && check(&small, &st);
    if (!ok) print_error("line %d alone: %s\n%s\n", only, st.message, small.text);
    drop_sample(&small);
    if (!ok) break;
    if (only == lines) print_error("no line fails alone; all of it:\n%s\n", whole);
  }
  free(whole);
}

/* ---- the tests */

/* Whether the seed is in today's part, 1 of n. */
static bool in_part(int seed, int n) { return n && (seed + time(NULL) / 86400) % n == 0; }

static void passes_and_plans(void **state) {
  (void)state;
  int bad = 0, unsure = 0, results = 0;
  for (int seed = first_seed; seed <= last_seed; seed++) {
    mk_status st = {0};
    sample s;
    bool ok = make_sample(&s, seed, 0, &st) && same_after_passes(&s, &st);
    for (int i = 0; i < s.want.n; i++) unsure += s.noise[i] > 1e-2;
    results += s.want.n;
    if (!ok && ++bad <= 5) report(&s, &st, same_after_passes);
    drop_sample(&s);
  }
  print_message("# %d results, %d of them too sensitive to tell much\n", results, unsure);
  assert_int_equal(bad, 0);
  assert_true(unsure * 20 < results);
}

typedef struct batch { /* graphs whose kernels are compiled for the host together */
  sample *items;
  int count;
  host_library library;
  pid_t child;
} batch;

static void start_batch(batch *b, const int *seeds, int n) {
  mk_status st = {0};
  *b = (batch){.items = calloc((size_t)n, sizeof *b->items), .count = n};
  if (!host_library_open(&b->library, templates, &st)) fail_msg("%s", st.message);
  for (int i = 0; i < n; i++)
    if (!make_sample(&b->items[i], seeds[i], 0, &st) || !host_plan(&b->items[i], &b->library, &st))
      fail_msg("seed %d: %s\n%s", seeds[i], st.message, b->items[i].text);
  b->child = host_library_start(&b->library, &st);
  if (b->child < 0) fail_msg("%s", st.message);
}

static int finish_batch(batch *b) {
  mk_status st = {0};
  int bad = 0;
  if (!host_library_finish(&b->library, b->child, &st)) fail_msg("%s (kept)", st.message);
  for (int i = 0; i < b->count; i++) {
    mk_status why = {0};
    if (!same_on_host(&b->items[i], &why) && ++bad <= 3) report(&b->items[i], &why, check_on_host);
    drop_sample(&b->items[i]);
  }
  host_library_close(&b->library);
  free(b->items);
  return bad;
}

static void emitted_kernels(void **state) {
  (void)state;
  int *seeds = calloc((size_t)(last_seed - first_seed + 1), sizeof *seeds), n = 0, bad = 0;
  for (int seed = first_seed; seed <= last_seed; seed++)
    if (in_part(seed, host_part)) seeds[n++] = seed;
  batch two[2];
  int batches = (n + HOST_BATCH - 1) / HOST_BATCH;
  for (int i = 0; i <= batches; i++) { /* two compilers at work at a time */
    int at = i * HOST_BATCH, count = n - at < HOST_BATCH ? n - at : HOST_BATCH;
    if (i < batches) start_batch(&two[i % 2], seeds + at, count);
    if (i > 0) bad += finish_batch(&two[(i - 1) % 2]);
  }
  print_message("# %d graphs on the host\n", n);
  free(seeds);
  assert_int_equal(bad, 0);
}

typedef struct sources { /* kernels, each once */
  mk_arena arena;
  mk_compile_job *jobs;
  int *seeds;
  int count, cap, seeds_cap;
} sources;

static void add_sources(sources *all, const mk_plan *p, int seed) {
  for (int k = 0; k < p->nkernels; k++) {
    bool known = false;
    for (int i = 0; i < all->count && !known; i++) known = !strcmp(all->jobs[i].name, p->kernels[k].name);
    if (known) continue;
    mk_compile_job job = {.name = mk_strdup(&all->arena, p->kernels[k].name),
                          .source = mk_strdup(&all->arena, p->kernels[k].source),
                          .arch = "sm_90a"};
    int n = all->count;
    MK_PUSH(&all->arena, all->jobs, all->count, all->cap, job);
    MK_PUSH(&all->arena, all->seeds, n, all->seeds_cap, seed);
  }
}

static void all_compile(void **state) {
  (void)state;
  mk_status st = {0};
  mk_compiler compiler;
  sources all = {0};
  if (!mk_compiler_open(&compiler, 0, NULL, &st)) {
    print_message("# no NVRTC: %s\n", st.message);
    skip();
  }
  for (int seed = first_seed; seed <= last_seed; seed++) {
    if (!in_part(seed, nvrtc_part)) continue;
    char *text = script_of(seed, 0, 0, 0, NULL);
    mk_graph *g = graph_of_text(text, &st);
    mk_plan *p = g && mk_optimize(g, &st) ? plan_of(g, &st) : NULL;
    if (!p) fail_msg("seed %d: %s", seed, st.message);
    add_sources(&all, p, seed);
    mk_plan_free(p);
    mk_graph_free(g);
    free(text);
  }
  mk_compile_result *results = calloc((size_t)all.count + 1, sizeof *results);
  if (!mk_compile_batch(&compiler, all.jobs, all.count, results, NULL, NULL, &st)) fail_msg("%s", st.message);
  int bad = 0, spilling = 0;
  for (int i = 0; i < all.count; i++) {
    if (!results[i].ok && ++bad <= 10) print_error("seed %d: %s\n", all.seeds[i], results[i].message);
    if (results[i].report.spill_bytes) {
      print_message("# seed %d: %s spills %d bytes\n", all.seeds[i], all.jobs[i].name, results[i].report.spill_bytes);
      spilling++;
    }
    mk_compile_result_free(&results[i]);
  }
  print_message("# %d kernels, %d spill\n", all.count, spilling);
  free(results);
  mk_arena_free(&all.arena);
  assert_int_equal(bad, 0);
}

/* Scripts for the GPU check, with bounds for its arithmetic (attention rounds its weights too, matmuls may take TF32); those too
 * sensitive to tell anything are left out. */
static void write_scripts(void **state) {
  (void)state;
  const char *to = getenv("FUZZ_WRITE");
  mkdir(to, 0777);
  for (int seed = first_seed; seed <= last_seed; seed++) {
    mk_status st = {0};
    sample s;
    if (!make_sample(&s, seed, 0, &st)) fail_msg("seed %d: %s", seed, st.message);
    double noise = 0;
    for (int i = 0; i < s.want.n; i++) noise = fmax(noise, s.noise[i]);
    bool tf32 = strstr(s.text, "tf32"), half = strstr(s.text, "f16\"");
    char path[PATH_MAX], *text = script_of(seed, 0, 0, (half || tf32 ? 1e-2 : 5e-5) + 16 * noise, NULL);
    snprintf(path, sizeof path, "%s/random_%04d.lua", to, seed);
    if (noise < 1e-3 && !write_text(path, text, &st)) fail_msg("%s", st.message);
    free(text);
    drop_sample(&s);
  }
}

static int open_all(void **state) {
  omp_set_num_threads(1); /* the tensors are small */
  const char *seeds = getenv("FUZZ_GRAPHS"), *every = getenv("FUZZ_PART");
  if (seeds && sscanf(seeds, "%d-%d", &first_seed, &last_seed) == 1) last_seed = first_seed;
  if (every) sscanf(every, "%d,%d", &host_part, &nvrtc_part);
  strcpy(folder, "/tmp/mk_random_XXXXXX");
  lua = luaL_newstate();
  luaL_openlibs(lua);
  if (luaL_dofile(lua, "tests/fuzz/random_graph.lua")) {
    print_error("%s\n", lua_tostring(lua, -1));
    return -1;
  }
  return mkdtemp(folder) ? make_templates(state) : -1;
}

static int close_all(void **state) {
  char path[64];
  lua_close(lua);
  snprintf(path, sizeof path, "%s/random.lua", folder);
  unlink(path);
  return rmdir(folder) ? -1 : remove_templates(state);
}

int main(void) {
  const struct CMUnitTest writing[] = {cmocka_unit_test(write_scripts)};
  const struct CMUnitTest tests[] = {cmocka_unit_test(passes_and_plans), cmocka_unit_test(emitted_kernels),
                                     cmocka_unit_test(all_compile)};
  if (getenv("FUZZ_WRITE")) return cmocka_run_group_tests(writing, open_all, close_all);
  return cmocka_run_group_tests(tests, open_all, close_all);
}

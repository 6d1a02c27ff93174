/* Every realisation of every group on a GPU against the CPU backend.
 *
 *   gpu_check [--filter TEXT] [--fast] [--tune] [--timeout SECONDS] [GRAPH.lua ...]
 *
 * Without files: all of tests/gpu/graphs and scripts/experiments.
 *
 * A graph file's comments say how it is run:
 *   -- case BOUND {json params}    once for each; BOUND: the largest ||gpu - cpu|| / ||cpu|| of an output (0: equal)
 *   -- entries a b b               the entries to run, in order (default: step); prompt runs first
 *   -- range NAME LOW HIGH         values of an i32 input, LOW <= v < HIGH
 *   -- templates FOLDER            further templates, in a folder beside the graph
 *
 * A case runs with the plan's own choices (three times over, so that graph replay is met, then once more after parking), then
 * again for each further candidate of each group. Memory is filled with NaN before, so what is not written is seen. The cases
 * run in a child process: a kernel that faults or hangs costs the rest of its case only, and the next one goes on in another
 * child. All files' kernels are compiled before the first is run, so that the compile workers are never idle. TAP on standard
 * output, closed by a table of the worst error of each kind of candidate. --fast: the plan's own choices only. --tune: the
 * plan is tuned first, which must find nothing wrong; no record is kept. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/graph.h"
#include "codegen/plan.h"
#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/cpu/session.h"
#include "runtime/gpu/executor.h"
#include "runtime/gpu/kernels.h"
#include "runtime/gpu/tune.h"
#include "runtime/gpu/worker.h"

enum { MAX_ENTRIES = 8, MAX_RANGES = 8, MAX_CASES = 64, MAX_SUMMARIES = 512, PREPARE_SECONDS = 600, DEVICE_LOST = 3 };

typedef struct range {
  char name[64];
  int low, high;
} range;

typedef struct recipe { /* from a file's comments */
  double bounds[MAX_CASES];
  const char *params[MAX_CASES]; /* in the file's text */
  int ncases;
  char entries[MAX_ENTRIES][32];
  int nentries;
  range ranges[MAX_RANGES];
  int nranges;
  char templates[128];
} recipe;

typedef struct graph_file {
  const char *path;
  recipe recipe;
} graph_file;

typedef struct summary { /* worst error among candidates of one kind and label */
  char kind[32], label[128];
  double error, share; /* share: of the bound */
  int runs, failures;
} summary;

typedef struct results { /* shared between the processes */
  int tests, failures;
  bool no_gpu, compiled;
  int next_file, next_case; /* where a new child goes on */
  char current[512];        /* what is being tried, for when the child dies of it */
  int nsummaries;
  summary summaries[MAX_SUMMARIES];
} results;

typedef struct checker {
  mk_gpu_device *device; /* the child's */
  char templates[PATH_MAX];
  const char *filter;
  bool fast, tune;
  int timeout; /* seconds for one candidate */
  mk_arena arena;
  graph_file *files;
  int nfiles, files_cap;
  results *all;
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
  const char *path, *params;
  char name[256];
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

static void summarize(results *all, const char *kind, const char *label, difference d, bool ok) {
  summary *s = NULL;
  for (int i = 0; i < all->nsummaries && !s; i++)
    if (!strncmp(all->summaries[i].kind, kind, sizeof s->kind - 1) &&
        !strncmp(all->summaries[i].label, label, sizeof s->label - 1))
      s = &all->summaries[i];
  if (!s) {
    if (all->nsummaries == MAX_SUMMARIES) return;
    s = &all->summaries[all->nsummaries++];
    snprintf(s->kind, sizeof s->kind, "%s", kind);
    snprintf(s->label, sizeof s->label, "%s", label);
  }
  s->runs++;
  s->failures += !ok;
  if (d.error > s->error) s->error = d.error;
  if (d.share > s->share) s->share = d.share;
}

static void tap(const checker *c, bool ok, const char *what) {
  printf("%sok %d - %s\n", ok ? "" : "not ", ++c->all->tests, what);
  c->all->failures += !ok;
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

typedef struct trial { /* what is tried: a candidate of a group, or all the plan's choices */
  const char *kind, *label, *group;
} trial;

static void begin(const test_case *t, const trial *what) {
  snprintf(t->c->all->current, sizeof t->c->all->current, "%s: %s: %s: %.80s", t->name, what->kind, what->label, what->group);
  alarm((unsigned)t->c->timeout);
}

/* Ends the process when the device is lost: nothing after that would tell anything. */
static void report(const test_case *t, const trial *what, bool ran, difference d, const mk_status *st) {
  bool ok = ran && d.share <= 1;
  char line[640];
  snprintf(line, sizeof line, "%s: %s: %s: %.2e of %.0e in %s%s%.80s", t->name, what->kind, what->label, d.error, t->bound,
           d.output ? d.output : "-", ok ? "" : "; ", ok ? "" : what->group);
  tap(t->c, ok, line);
  if (mk_failed(st)) diagnose(st);
  summarize(t->c->all, what->kind, what->label, d, ok);
  if (!ok && !mk_gpu_wait(t->c->device, &(mk_status){0})) _exit(DEVICE_LOST);
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
  const trial what = {"plan", "as chosen", t->graph->name};
  mk_status st = {0};
  begin(t, &what);
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
  report(t, &what, ok, worst, &st);
}

/* Such candidates are the session's last resort, so it takes another one here. */
static bool spills(const mk_session *s, const mk_candidate *c) {
  const mk_gpu_kernel *kernels = ((const mk_gpu_session *)s)->kernels;
  for (int i = 0; i < c->nlaunches; i++)
    if (c->launches[i].kind == MK_LAUNCH_KERNEL && kernels[c->launches[i].kernel].state == MK_GPU_KERNEL_SPILLS) return true;
  return false;
}

static void check_candidate(test_case *t, int group, int candidate) {
  mk_status st = {0};
  values got = {0};
  mk_group *g = &t->plan->groups[group];
  const trial what = {g->kind, g->candidates[candidate].label, g->name};
  char line[640];
  int usual = g->chosen;
  begin(t, &what);
  g->chosen = candidate;
  mk_session *s =
      mk_gpu_session_open(t->c->device, t->plan, &(mk_gpu_session_options){.poison = true, .no_graph = true, .sync = true}, &st);
  bool ok = s != NULL;
  if (ok && mk_gpu_session_choice(s, group) != candidate && spills(s, &g->candidates[candidate])) {
    snprintf(line, sizeof line, "%s: %s: %s # SKIP it spills, and others do not", t->name, what.kind, what.label);
    tap(t->c, true, line);
    s->ops->close(s);
    g->chosen = usual;
    return;
  }
  if (ok && mk_gpu_session_choice(s, group) != candidate) {
    mk_fail(&st, MK_ECOMPILE, "this candidate was given up; MOONKILN_LOG=info says why");
    ok = false;
  }
  ok = ok && start(t, s, &st) && run_entries(t, s, &got, &st);
  difference d = ok ? compare_all(t, &got) : (difference){0};
  if (s) s->ops->close(s);
  g->chosen = usual;
  report(t, &what, ok, d, &st);
  free_values(&got);
}

/* What casts lose is lost in another place by some candidates. */
static void check_candidates(test_case *t, int group) {
  const mk_group *g = &t->plan->groups[group];
  double bound = t->bound;
  for (int c = 0; c < g->ncandidates; c++) {
    if (c == g->chosen) continue;
    t->bound = g->candidates[c].rounds ? fmax(bound, 8e-3) : bound;
    check_candidate(t, group, c);
  }
  t->bound = bound;
}

static bool make_plan(test_case *t, mk_status *st) {
  const mk_gpu_device *d = t->c->device;
  t->graph = mk_graph_from_script(&(mk_script_options){.path = t->path, .params_json = t->params}, st);
  if (!t->graph || !mk_optimize(t->graph, st)) return false;
  mk_plan_options options = {
      .arch = d->arch, .smem_limit = d->smem_limit, .sms = d->sms, .templates = t->c->templates, .cublaslt = d->lt != NULL};
  const char *name = strrchr(t->path, '/');
  if (t->r->templates[0])
    options.trial.templates =
        mk_printf(&t->arena, "%.*s/%s", name ? (int)(name - t->path) : 1, name ? t->path : ".", t->r->templates);
  t->plan = mk_plan_build(t->graph, &options, st);
  return t->plan != NULL;
}

static bool prepare(test_case *t, mk_status *st) {
  uint64_t seed = 12345;
  if (!make_plan(t, st)) return false;
  for (int i = 0; i < t->graph->count; i++)
    if (t->graph->nodes[i].op == MK_OP_INPUT) make_tensor(t, &t->graph->nodes[i], &seed);
  return expect(t, st);
}

/* Every candidate on random values against the group's reference, as the tuner does it; the plan then has the tuner's choices. */
static void check_tuning(test_case *t) {
  const trial what = {"plan", "tuning", t->graph->name};
  mk_status st = {0};
  mk_tuning nothing = {0};
  mk_tune_job job = {t->plan, 1};
  mk_tune_options options = {.seconds = 0.5 * t->c->timeout};
  mk_tune_report r = {0};
  begin(t, &what);
  bool ok = mk_tune(t->c->device, &nothing, &job, 1, &options, &r, &st);
  mk_tuning_close(&nothing);
  if (ok && (r.excluded || r.unreached))
    mk_fail(&st, MK_EGPU, "of %d problems %d were not decided; %d candidates have wrong results", r.problems, r.unreached,
            r.excluded);
  report(t, &what, !mk_failed(&st), (difference){0}, &st);
}

static test_case open_case(checker *c, int file, int index) {
  const recipe *r = &c->files[file].recipe;
  test_case t = {.c = c, .r = r, .path = c->files[file].path, .params = r->params[index], .bound = r->bounds[index]};
  const char *slash = strrchr(t.path, '/');
  snprintf(t.name, sizeof t.name, "%s %s", slash ? slash + 1 : t.path, t.params);
  return t;
}

static bool asked_for(const test_case *t) { return !t->c->filter || strstr(t->name, t->c->filter); }

static void close_case(test_case *t) {
  free_values(&t->expected);
  mk_plan_free(t->plan);
  mk_graph_free(t->graph);
  mk_arena_free(&t->arena);
}

static void run_case(test_case *t) {
  mk_status st = {0};
  snprintf(t->c->all->current, sizeof t->c->all->current, "%s: CPU backend", t->name);
  alarm(PREPARE_SECONDS);
  if (prepare(t, &st)) {
    if (t->c->tune) check_tuning(t);
    check_choices(t);
    for (int g = 0; !t->c->fast && g < t->plan->ngroups; g++) check_candidates(t, g);
  } else {
    tap(t->c, false, t->name);
    diagnose(&st);
  }
  alarm(0);
}

/* ---- compiling */

typedef struct kernel_list {
  mk_arena arena;
  mk_kernel *items;
  int count, cap;
} kernel_list;

static void add_kernel(kernel_list *l, const mk_kernel *k) {
  for (int i = 0; i < l->count; i++)
    if (!strcmp(l->items[i].name, k->name)) return; /* names tell sources apart */
  mk_kernel copy = *k;
  copy.name = mk_strdup(&l->arena, k->name);
  copy.source = mk_strdup(&l->arena, k->source);
  MK_PUSH(&l->arena, l->items, l->count, l->cap, copy);
}

static void add_kernels(const test_case *t, kernel_list *l) {
  for (int g = 0; g < t->plan->ngroups; g++)
    for (int c = 0; c < t->plan->groups[g].ncandidates; c++) {
      const mk_candidate *candidate = &t->plan->groups[g].candidates[c];
      for (int i = 0; i < candidate->nlaunches && (!t->c->fast || c == t->plan->groups[g].chosen); i++)
        if (candidate->launches[i].kind == MK_LAUNCH_KERNEL) add_kernel(l, &t->plan->kernels[candidate->launches[i].kernel]);
    }
}

/* What goes wrong here is said when the kernel is used. */
static void compile_all(checker *c) {
  kernel_list list = {0};
  mk_prepared done = {0};
  mk_prepare_options options = {.arch = c->device->arch, .max_major = c->device->cu->version / 1000};
  c->all->compiled = true;
  snprintf(c->all->current, sizeof c->all->current, "compiling all kernels");
  alarm(PREPARE_SECONDS);
  for (int f = 0; f < c->nfiles; f++)
    for (int i = 0; i < c->files[f].recipe.ncases; i++) {
      test_case t = open_case(c, f, i);
      if (asked_for(&t) && make_plan(&t, &(mk_status){0})) add_kernels(&t, &list);
      close_case(&t);
    }
  if (mk_kernels_prepare(list.items, list.count, &options, &c->device->cache, &done, &(mk_status){0}))
    printf("# %d kernels: %d from the cache, %d compiled\n", list.count, done.hits, done.compiled);
  mk_prepared_free(&done);
  mk_arena_free(&list.arena);
}

/* ---- files */

/* Cuts the text into lines; the recipe points into it. */
static void read_recipe(char *text, recipe *r) {
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    range v;
    char *end;
    int used;
    if (r->nranges < MAX_RANGES && sscanf(line, "-- range %63s %d %d", v.name, &v.low, &v.high) == 3) r->ranges[r->nranges++] = v;
    if (r->ncases < MAX_CASES && !strncmp(line, "-- case ", 8)) {
      r->bounds[r->ncases] = strtod(line + 8, &end);
      r->params[r->ncases++] = *end == ' ' ? end + 1 : "{}";
    }
    sscanf(line, "-- templates %127s", r->templates);
    if (strncmp(line, "-- entries ", 11)) continue;
    for (const char *p = line + 11; r->nentries < MAX_ENTRIES && sscanf(p, "%31s%n", r->entries[r->nentries], &used) == 1;
         p += used)
      r->nentries++;
  }
  if (!r->nentries) strcpy(r->entries[r->nentries++], "step");
}

/* The child: opens the device and runs the cases from the next one on. */
static int run_cases(checker *c) {
  results *all = c->all;
  mk_status st = {0};
  snprintf(all->current, sizeof all->current, "opening the GPU");
  c->device = mk_gpu_device_open(0, &st);
  if (!c->device) {
    printf("Bail out! %s\n", st.message);
    all->no_gpu = true;
    return 0;
  }
  if (!all->compiled) compile_all(c);
  for (; all->next_file < c->nfiles; all->next_file++, all->next_case = 0)
    while (all->next_case < c->files[all->next_file].recipe.ncases) {
      test_case t = open_case(c, all->next_file, all->next_case++);
      if (asked_for(&t)) run_case(&t);
      close_case(&t);
    }
  mk_gpu_device_close(c->device);
  return 0;
}

static const char *end_of(int status) {
  if (WIFEXITED(status)) return "it ended";
  return WTERMSIG(status) == SIGALRM ? "it hung" : strsignal(WTERMSIG(status));
}

static void run_files(checker *c) {
  for (int status = -1, before = -1, now; status; before = now) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) exit(run_cases(c));
    if (child < 0 || waitpid(child, &status, 0) != child) status = 1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == DEVICE_LOST) {
      printf("#   the GPU was lost, the rest of the case is skipped\n");
    } else if (status) {
      tap(c, false, c->all->current);
      printf("#   %s; the rest of the case is skipped\n", end_of(status));
    }
    now = c->all->next_file * MAX_CASES + c->all->next_case + c->all->compiled;
    if (now == before) break;
  }
}

static void add_file(checker *c, const char *path) {
  mk_status st = {0};
  size_t bytes;
  graph_file file = {.path = mk_strdup(&c->arena, path)};
  char *text = mk_file_read(path, &bytes, &st);
  if (text) {
    read_recipe(mk_strdup(&c->arena, text), &file.recipe);
    MK_PUSH(&c->arena, c->files, c->nfiles, c->files_cap, file);
  } else {
    tap(c, false, path);
    diagnose(&st);
  }
  free(text);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void add_folder(checker *c, const char *folder) {
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
  for (int i = 0; i < count; i++) add_file(c, paths[i]);
  if (!count) tap(c, false, "there are graphs in the folder");
}

static void print_summary(const results *all) {
  printf("1..%d\n# %-10s %-44s %5s %6s %10s %9s\n", all->tests, "kind", "candidate", "runs", "failed", "worst", "of bound");
  for (int i = 0; i < all->nsummaries; i++) {
    const summary *s = &all->summaries[i];
    printf("# %-10s %-44s %5d %6d %10.2e %8.0f%%\n", s->kind, s->label, s->runs, s->failures, s->error, 100 * s->share);
  }
  printf("# %d passed, %d failed\n", all->tests - all->failures, all->failures);
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "compile-worker"))
    _exit(mk_worker_main(STDIN_FILENO, argc > 2 && argv[2][0] ? argv[2] : NULL));
  setenv("MOONKILN_WORKER", "/proc/self/exe", 0); /* this program serves as its own compile worker */
  checker c = {.timeout = 60};
  mk_status st = {0};
  int files = 0;
  c.all = mmap(NULL, sizeof *c.all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (c.all == MAP_FAILED || !mk_env_data_path("templates", c.templates, &st)) {
    printf("Bail out! %s\n", st.message);
    return 1;
  }
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--fast")) {
      c.fast = true;
    } else if (!strcmp(argv[i], "--tune")) {
      c.tune = true;
    } else if (!strcmp(argv[i], "--filter") && i + 1 < argc) {
      c.filter = argv[++i];
    } else if (!strcmp(argv[i], "--timeout") && i + 1 < argc) {
      c.timeout = atoi(argv[++i]);
    } else {
      add_file(&c, argv[i]);
      files++;
    }
  }
  if (!files) add_folder(&c, "tests/gpu/graphs");
  if (!files) add_folder(&c, "scripts/experiments");
  run_files(&c);
  print_summary(c.all);
  mk_arena_free(&c.arena);
  return c.all->failures || !c.all->tests ? 1 : 0;
}

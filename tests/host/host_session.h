/* A backend for tests: runs a plan's kernels on the host, compiled by the C++ compiler with tests/host/cuda_host.hh. Library
 * matmuls are plain loops. Memory starts as NaN, so what is read before it is written is seen. */
#ifndef MK_TESTS_HOST_SESSION_H
#define MK_TESTS_HOST_SESSION_H

#include <dlfcn.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/plan.h"
#include "runtime/base/file.h"
#include "runtime/session.h"

typedef void (*host_kernel)(const void *params, const uint32_t *grid, uint32_t threads);

typedef struct host_library { /* kernels of one plan or of several, compiled together */
  mk_text text;
  char *prelude; /* of the templates: replaced by cuda_host.hh */
  char **names;  /* of each number */
  int count, cap;
  char source[40];
  void *handle;
} host_library;

typedef struct host_session {
  mk_session base;
  const mk_plan *plan;
  int *chosen; /* per group: a candidate that can run here */
  host_library *library, own;
  host_kernel *kernels; /* per kernel of the plan, found when it is first launched */
  char *space[MK_SPACE_COUNT];
} host_session;

/* ---- compiling */

static inline bool host_can_run(const mk_plan *p, const mk_candidate *c) {
  for (int i = 0; i < c->nlaunches; i++)
    if (c->launches[i].kind == MK_LAUNCH_KERNEL && strstr(p->kernels[c->launches[i].kernel].name, "mma")) return false;
  return true;
}

static inline bool host_library_open(host_library *l, const char *templates, mk_status *st) {
  size_t bytes;
  char path[PATH_MAX + 16];
  snprintf(path, sizeof path, "%s/prelude.cuh", templates);
  *l = (host_library){.prelude = mk_file_read(path, &bytes, st)};
  mk_text_add(&l->text, "#include \"tests/host/cuda_host.hh\"\n");
  return l->prelude != NULL;
}

/* Equal names are equal kernels, as within a plan. -1: it is not there. */
static inline int host_library_find(const host_library *l, const char *name) {
  for (int i = 0; i < l->count; i++)
    if (!strcmp(l->names[i], name)) return i;
  return -1;
}

static inline void host_library_add(host_library *l, const mk_kernel *k) {
  if (host_library_find(l, k->name) >= 0) return;
  if (l->count == l->cap) l->names = realloc(l->names, sizeof *l->names * (size_t)(l->cap = 2 * l->cap + 64));
  int index = l->count++;
  l->names[index] = strdup(k->name);
  const char *cut = strstr(k->source, l->prelude), *rest = cut ? cut + strlen(l->prelude) : k->source;
  mk_text_addf(&l->text, "#undef KERNEL\n#undef MK_ROW_EPILOGUE\nnamespace kernel%d {\n", index);
  if (cut) mk_text_add_n(&l->text, k->source, (size_t)(cut - k->source));
  mk_text_add(&l->text, rest);
  bool waits =
      strncmp(k->name, "row_", 4) || strstr(k->source, "combine_block<THREADS>") || strstr(k->source, "combine_lanes<THREADS>");
  mk_text_addf(
      &l->text,
      "\nstatic void call(const void *p) { KERNEL(*(const Params *)p); }\n}\nextern \"C\" void run%d(const void *p, const u32 "
      "*grid, u32 threads) { host::launch(kernel%d::call, p, grid, threads, %s); }\n",
      index, index, waits ? "true" : "false");
}

/* Starts the compiler; -1 with the status set when that fails. */
static inline pid_t host_library_start(host_library *l, mk_status *st) {
  char command[512];
  strcpy(l->source, "/tmp/host_plan_XXXXXX.cc");
  int fd = mkstemps(l->source, 3);
  bool ok = fd >= 0 && write(fd, l->text.data, l->text.len) == (ssize_t)l->text.len;
  if (fd >= 0) close(fd);
  snprintf(command, sizeof command, "exec ${CXX:-c++} -std=c++17 -O1 -w -fno-gnu-unique -shared -fPIC -I. %s -o %s.so", l->source,
           l->source);
  fflush(NULL);
  pid_t child = ok ? fork() : -1;
  if (!child) {
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
  }
  if (child < 0) mk_fail(st, MK_EIO, "%s: the compiler does not start", l->source);
  return child;
}

static inline bool host_library_finish(host_library *l, pid_t child, mk_status *st) {
  char path[64];
  int status = -1;
  bool ok = waitpid(child, &status, 0) == child && status == 0;
  snprintf(path, sizeof path, "%s.so", l->source);
  if (ok) l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (l->handle) {
    unlink(l->source);
    unlink(path);
  } else {
    mk_fail(st, MK_ECOMPILE, "%s does not compile for the host: %s", l->source, ok ? dlerror() : "see above");
  }
  return l->handle != NULL;
}

static inline host_kernel host_library_kernel(const host_library *l, const char *name) {
  char symbol[32];
  host_kernel found;
  snprintf(symbol, sizeof symbol, "run%d", host_library_find(l, name));
  *(void **)&found = dlsym(l->handle, symbol);
  return found;
}

static inline void host_library_close(host_library *l) {
  if (l->handle) dlclose(l->handle);
  mk_text_free(&l->text);
  free(l->prelude);
  for (int i = 0; i < l->count; i++) free(l->names[i]);
  free(l->names);
  *l = (host_library){0};
}

/* ---- running */

static inline char *host_at(const host_session *s, mk_ref r) { return s->space[r.space] + r.offset; }

static inline void host_run_kernel(const host_session *s, const mk_launch *l) {
  _Alignas(64) char params[4096];
  memset(params, 0xee, sizeof params);
  for (int i = 0; i < l->nargs; i++) {
    const mk_arg *a = &l->args[i];
    const char *p = host_at(s, a->ref);
    int32_t i32 = (int32_t)a->i;
    if (a->kind == MK_ARG_PTR) memcpy(params + a->offset, &p, 8);
    if (a->kind == MK_ARG_I64) memcpy(params + a->offset, &a->i, 8);
    if (a->kind == MK_ARG_I32) memcpy(params + a->offset, &i32, 4);
    if (a->kind == MK_ARG_F32) memcpy(params + a->offset, &a->f, 4);
  }
  if (!s->kernels[l->kernel]) s->kernels[l->kernel] = host_library_kernel(s->library, s->plan->kernels[l->kernel].name);
  s->kernels[l->kernel](params, l->grid, l->block[0]);
}

static inline float host_get(const char *p, mk_dtype t, int64_t i) {
  float f;
  mk_convert(&f, MK_F32, p + i * (int64_t)mk_dtype_size(t), t, 1);
  return f;
}

static inline void host_run_lt(const host_session *s, const mk_lt *l) {
  const char *a = host_at(s, l->a), *b = host_at(s, l->b), *c = host_at(s, l->c), *bias = host_at(s, l->bias);
  bool has_bias = l->epilogue == MK_LT_BIAS || l->epilogue == MK_LT_GELU_BIAS,
       gelu = l->epilogue == MK_LT_GELU || l->epilogue == MK_LT_GELU_BIAS;
  for (int64_t i = 0; i < l->m; i++)
    for (int64_t j = 0; j < l->n; j++) {
      double x = 0;
      for (int64_t k = 0; k < l->k; k++)
        x += (double)host_get(a, l->ab_type, i * l->lda + k) * (double)host_get(b, l->ab_type, j * l->ldb + k);
      if (l->beta != 0) x += (double)l->beta * (double)host_get(c, l->c_type, i * l->ldc + j);
      if (has_bias) x += (double)host_get(bias, l->bias_type, j);
      if (gelu) x = 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
      float f = (float)x;
      mk_convert(host_at(s, l->d) + (i * l->ldd + j) * (int64_t)mk_dtype_size(l->d_type), l->d_type, &f, MK_F32, 1);
    }
}

/* any: there is no choice. Otherwise results are to be what the graph says, but for the order of sums. */
static inline bool host_may_pick(const mk_plan *p, const mk_candidate *c, bool any) {
  return host_can_run(p, c) && (any || !c->rounds);
}

static inline bool host_covered(const host_session *s, int group) {
  return group + 1 < s->plan->ngroups && s->plan->groups[group + 1].candidates[s->chosen[group + 1]].covers;
}

static inline void host_run_group(const host_session *s, int group) {
  if (host_covered(s, group)) return;
  const mk_candidate *c = &s->plan->groups[group].candidates[s->chosen[group]];
  for (int i = 0; i < c->nlaunches; i++) {
    const mk_launch *l = &c->launches[i];
    if (l->kind == MK_LAUNCH_KERNEL) host_run_kernel(s, l);
    if (l->kind == MK_LAUNCH_LT) host_run_lt(s, l->lt);
    if (l->kind == MK_LAUNCH_COPY) memcpy(host_at(s, l->dst), host_at(s, l->src), (size_t)l->bytes);
    if (l->kind == MK_LAUNCH_ZERO) memset(host_at(s, l->dst), 0, (size_t)l->bytes);
  }
}

static inline const mk_program *host_program(const host_session *s, const char *name) {
  for (int i = 0; i < s->plan->nprograms; i++)
    if (!strcmp(s->plan->programs[i].name, name)) return &s->plan->programs[i];
  return NULL;
}

static inline void host_fill_scratch(host_session *s) {
  memset(s->space[MK_SPACE_SCRATCH], 0xff, (size_t)s->plan->space_bytes[MK_SPACE_SCRATCH]);
}

static bool host_run(mk_session *base, const char *program, mk_status *st) {
  host_session *s = (host_session *)base;
  const mk_program *p = host_program(s, program);
  if (!p) return mk_fail(st, MK_EINPUT, "no program %s", program), false;
  host_fill_scratch(s);
  for (int i = 0; i < p->nsteps; i++) host_run_group(s, p->steps[i].index);
  return true;
}

static bool host_load(mk_session *base, const mk_source *weights, mk_progress_fn progress, void *user, mk_status *st) {
  host_session *s = (host_session *)base;
  const mk_program *p = host_program(s, "load");
  (void)progress, (void)user;
  host_fill_scratch(s);
  for (int i = 0; i < s->plan->nconsts; i++)
    memcpy(host_at(s, s->plan->consts[i].ref), s->plan->consts[i].data, (size_t)s->plan->consts[i].bytes);
  for (int i = 0; i < p->nsteps; i++) {
    if (p->steps[i].kind == MK_STEP_GROUP) {
      host_run_group(s, p->steps[i].index);
      continue;
    }
    const mk_binding *b = &s->plan->weights[p->steps[i].index];
    mk_tensor t;
    if (!weights->fetch(weights->self, b->name, &t, st)) return false;
    mk_convert(host_at(s, b->ref), b->dtype, t.data, t.dtype, (size_t)mk_dims_count(b->dims, b->rank));
  }
  return true;
}

static inline const mk_binding *host_binding(const host_session *s, const char *name) {
  const mk_binding *lists[] = {s->plan->inputs, s->plan->states, s->plan->outputs};
  int counts[] = {s->plan->ninputs, s->plan->nstates, s->plan->noutputs};
  for (int l = 0; l < 3; l++)
    for (int i = 0; i < counts[l]; i++)
      if (!strcmp(lists[l][i].name, name)) return &lists[l][i];
  return NULL;
}

static bool host_write(mk_session *base, const mk_tensor *v, mk_status *st) {
  host_session *s = (host_session *)base;
  const mk_binding *b = host_binding(s, v->name);
  if (!b) return mk_fail(st, MK_EINPUT, "no input %s", v->name), false;
  mk_convert(host_at(s, b->ref), b->dtype, v->data, v->dtype, (size_t)mk_dims_count(b->dims, b->rank));
  return true;
}

static bool host_read(mk_session *base, const char *name, void *out, size_t bytes, mk_status *st) {
  host_session *s = (host_session *)base;
  const mk_binding *b = host_binding(s, name);
  (void)bytes;
  if (!b) return mk_fail(st, MK_EINPUT, "no output %s", name), false;
  mk_convert(out, b->dtype == MK_I32 ? MK_I32 : MK_F32, host_at(s, b->ref), b->dtype, (size_t)mk_dims_count(b->dims, b->rank));
  return true;
}

static void host_close(mk_session *base) {
  host_session *s = (host_session *)base;
  for (int i = 0; i < MK_SPACE_COUNT; i++) free(s->space[i]);
  host_library_close(&s->own);
  free(s->kernels);
  free(s->chosen);
  free(s);
}

/* The session's kernels come from the library (NULL: its own): host_session_add_kernels, then compile it, then run. pick: which
 * of the candidates that can run here to take, modulo their number. NULL with the status set on failure. */
static inline mk_session *host_session_in(const mk_plan *plan, host_library *library, int pick, mk_status *st) {
  static const mk_session_ops ops = {
      .load = host_load, .write = host_write, .run = host_run, .read = host_read, .close = host_close};
  host_session *s = calloc(1, sizeof *s);
  s->base = (mk_session){&ops, "host"};
  s->plan = plan;
  s->library = library ? library : &s->own;
  s->chosen = calloc((size_t)plan->ngroups + 1, sizeof *s->chosen);
  s->kernels = calloc((size_t)plan->nkernels + 1, sizeof *s->kernels);
  for (int i = 0; i < MK_SPACE_COUNT; i++) {
    size_t bytes = ((size_t)plan->space_bytes[i] + 4095) / 4096 * 4096 + 4096;
    s->space[i] = aligned_alloc(4096, bytes);
    memset(s->space[i], i == MK_SPACE_STATE ? 0 : 0xff, bytes);
  }
  for (int g = 0; g < plan->ngroups && !mk_failed(st); g++) {
    const mk_group *group = &plan->groups[g];
    int can = 0, want;
    bool any = group->ncandidates == 1;
    for (int c = 0; c < group->ncandidates; c++) can += host_may_pick(plan, &group->candidates[c], any);
    if (!can) mk_fail(st, MK_EUNSUPPORTED, "no candidate of %s runs on the host", group->name);
    want = can ? pick % can : 0;
    for (int c = 0; c < group->ncandidates; c++)
      if (host_may_pick(plan, &group->candidates[c], any) && want-- == 0) s->chosen[g] = c;
  }
  if (!mk_failed(st)) return &s->base;
  host_close(&s->base);
  return NULL;
}

static inline void host_session_add_kernels(const mk_session *base) {
  const host_session *s = (const host_session *)base;
  for (int g = 0; g < s->plan->ngroups; g++) {
    const mk_candidate *c = &s->plan->groups[g].candidates[s->chosen[g]];
    for (int i = 0; i < c->nlaunches; i++)
      if (c->launches[i].kind == MK_LAUNCH_KERNEL) host_library_add(s->library, &s->plan->kernels[c->launches[i].kernel]);
  }
}

/* A session with a library of its own, ready to run. */
static inline mk_session *host_session_open(const mk_plan *plan, const char *templates, int pick, mk_status *st) {
  mk_session *base = host_session_in(plan, NULL, pick, st);
  if (!base) return NULL;
  host_library *own = &((host_session *)base)->own;
  bool ok = host_library_open(own, templates, st);
  if (ok) host_session_add_kernels(base);
  pid_t child = ok ? host_library_start(own, st) : -1;
  if (child >= 0 && host_library_finish(own, child, st)) return base;
  host_close(base);
  return NULL;
}

#endif

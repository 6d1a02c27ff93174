/* Binding and running: entry programs run plainly once, which loads every library kernel, are captured as a CUDA graph on their
 * second run, and replayed from then on. */
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/gpu/executor.h"

static const char *const space_names[MK_SPACE_COUNT] = {"weights", "prompt values", "states", "inputs and outputs", "scratch"};

static bool fill(mk_gpu_device *d, const mk_gpu_block *b, unsigned char byte, mk_status *st) {
  return !b->ptr || MK_CU(d->cu, st, cuMemsetD8Async(b->ptr, byte, (size_t)b->bytes, d->stream));
}

bool mk_gpu_take_spaces(mk_gpu_session *s, mk_status *st) {
  mk_gpu_device *d = s->d;
  const int64_t *bytes = s->plan->space_bytes;
  mk_gpu_budget b = {.scratch = bytes[MK_SPACE_SCRATCH]};
  int64_t *parts[MK_SPACE_COUNT] = {&b.weights, &b.prompt, &b.state, &b.io, &b.scratch};
  bool missing = false;
  for (int i = 0; i < MK_SPACE_SCRATCH; i++) {
    if (s->spaces[i].ptr || !bytes[i]) continue;
    *parts[i] = bytes[i];
    missing = true;
  }
  if (!missing) return true;
  if (!mk_gpu_budget_check(d, &b, s->plan->name, st)) return false;
  s->bound = false;
  for (int i = 0; i < MK_SPACE_SCRATCH; i++) {
    if (s->spaces[i].ptr || !bytes[i]) continue;
    if (!mk_gpu_block_alloc(d, &s->spaces[i], bytes[i], space_names[i], st)) return false;
    unsigned char byte = s->options.poison && i != MK_SPACE_STATE ? 0xff : 0;
    if ((byte || i == MK_SPACE_STATE) && !fill(d, &s->spaces[i], byte, st)) return false;
  }
  return true;
}

void mk_gpu_graphs_drop(mk_gpu_session *s) {
  for (int i = 0; i < s->plan->nprograms; i++) {
    if (s->programs[i].graph) s->d->cu->cuGraphExecDestroy(s->programs[i].graph);
    s->programs[i].graph = NULL;
  }
}

bool mk_gpu_bind(mk_gpu_session *s, mk_status *st) {
  mk_gpu_device *d = s->d;
  if (!mk_gpu_scratch_reserve(d, s->plan->space_bytes[MK_SPACE_SCRATCH], st)) return false;
  if (s->bound && s->scratch_generation == d->scratch_generation) return true;
  if (!mk_gpu_wait(d, st)) return false; /* a graph that is dropped may still run */
  mk_gpu_graphs_drop(s);
  mk_gpu_spaces spaces;
  for (int i = 0; i < MK_SPACE_COUNT; i++) spaces.base[i] = s->spaces[i].ptr;
  spaces.base[MK_SPACE_SCRATCH] = d->scratch.ptr;
  for (int g = 0; g < s->plan->ngroups; g++)
    for (int i = 0; i < s->groups[g].nlaunches; i++)
      if (!mk_gpu_launch_bind(d, &s->groups[g].launches[i], &spaces, st)) {
        mk_fail_context(st, "%s", s->plan->groups[g].name);
        return false;
      }
  s->bound = true;
  s->scratch_generation = d->scratch_generation;
  return true;
}

mk_gpu_program *mk_gpu_find_program(mk_gpu_session *s, const char *name) {
  for (int i = 0; i < s->plan->nprograms; i++)
    if (!strcmp(s->plan->programs[i].name, name)) return &s->programs[i];
  return NULL;
}

bool mk_gpu_run_group(mk_gpu_session *s, int group, mk_status *st) {
  const mk_gpu_group *g = &s->groups[group];
  bool ok = true;
  for (int i = 0; ok && i < g->nlaunches; i++)
    ok = mk_gpu_launch_run(s->d, &g->launches[i], st) && (!s->options.sync || mk_gpu_wait(s->d, st));
  if (!ok) mk_fail_context(st, "%s (%s)", s->plan->groups[group].name, s->plan->groups[group].candidates[g->chosen].label);
  return ok;
}

static bool run_steps(mk_gpu_session *s, const mk_gpu_program *p, mk_status *st) {
  for (int i = 0; i < p->plan->nsteps; i++)
    if (p->plan->steps[i].kind == MK_STEP_GROUP && !mk_gpu_run_group(s, p->plan->steps[i].index, st)) return false;
  return true;
}

/* The first run with tuning: each library matmul is timed on its real operands just before it runs. */
static bool run_tuning(mk_gpu_session *s, const mk_gpu_program *p, mk_status *st) {
  for (int i = 0; i < p->plan->nsteps; i++) {
    if (p->plan->steps[i].kind != MK_STEP_GROUP) continue;
    const mk_gpu_group *g = &s->groups[p->plan->steps[i].index];
    for (int k = 0; k < g->nlaunches; k++) {
      const mk_gpu_launch *l = &g->launches[k];
      if (l->plan->kind == MK_LAUNCH_LT && !mk_gpu_lt_tune(s->d, &l->lt, st)) return false;
      if (!mk_gpu_launch_run(s->d, l, st)) return false;
    }
  }
  return true;
}

/* Captures the program's launches. On failure records why; the stream is out of capture mode either way. */
static bool capture(mk_gpu_session *s, mk_gpu_program *p, mk_status *st) {
  const mk_driver *cu = s->d->cu;
  CUgraph graph = NULL;
  if (!MK_CU(cu, st, cuStreamBeginCapture(s->d->stream, CU_STREAM_CAPTURE_MODE_RELAXED))) return false;
  bool ok = run_steps(s, p, st);
  ok = MK_CU(cu, st, cuStreamEndCapture(s->d->stream, &graph)) && ok;
  ok = ok && MK_CU(cu, st, cuGraphInstantiate(&p->graph, graph, 0));
  if (graph) cu->cuGraphDestroy(graph);
  return ok;
}

/* Replays the program's graph, making it if need be. False with a clean status: there is none and cannot be. */
static bool run_graph(mk_gpu_session *s, mk_gpu_program *p, mk_status *st) {
  if (!p->graph) {
    mk_status why = {0};
    if (!capture(s, p, &why)) {
      mk_log(MK_LOG_WARNING, "program %s of %s runs without a CUDA graph: %s", p->plan->name, s->plan->name, why.message);
      p->graph = NULL;
      p->no_graph = true;
      return false;
    }
  }
  return MK_CU(s->d->cu, st, cuGraphLaunch(p->graph, s->d->stream));
}

bool mk_gpu_run_program(mk_gpu_session *s, mk_gpu_program *p, mk_status *st) {
  if (!mk_gpu_bind(s, st)) return false;
  if (s->options.poison && !fill(s->d, &s->d->scratch, 0xff, st)) return false;
  bool repeated = p->plan->rate == MK_RATE_STEP && p->runs > 0;
  if (!p->runs++) mk_timeline("%s: %s is launched", s->plan->name, p->plan->name);
  if (repeated && !s->options.no_graph && !s->options.sync && !p->no_graph && run_graph(s, p, st)) return true;
  if (mk_failed(st)) return false;
  return s->options.tune && !repeated ? run_tuning(s, p, st) : run_steps(s, p, st);
}

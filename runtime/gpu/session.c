#include "runtime/gpu/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/base/log.h"
#include "runtime/gpu/executor.h"
#include "runtime/gpu/upload.h"

static mk_gpu_session *self(mk_session *s) { return (mk_gpu_session *)s; }

static const mk_binding *find(const mk_binding *list, int count, const char *name) {
  for (int i = 0; i < count; i++)
    if (!strcmp(list[i].name, name)) return &list[i];
  return NULL;
}

/* An input that shares its name with an output or state is the caller's to write; reads prefer outputs. */
static const mk_binding *find_written(const mk_plan *p, const char *name) {
  const mk_binding *b = find(p->inputs, p->ninputs, name);
  return b ? b : find(p->states, p->nstates, name);
}

static const mk_binding *find_read(const mk_plan *p, const char *name) {
  const mk_binding *b = find(p->outputs, p->noutputs, name);
  return b ? b : find(p->states, p->nstates, name);
}

static bool session_load(mk_session *base, const mk_source *weights, mk_progress_fn progress, void *user, mk_status *st) {
  mk_gpu_session *s = self(base);
  if (!mk_gpu_enter(s->d, st)) return false;
  s->is_parked = false; /* what was parked is replaced */
  if (s->parked) munmap(s->parked, (size_t)s->plan->space_bytes[MK_SPACE_LOAD]);
  s->parked = NULL;
  if (mk_gpu_load(s, weights, progress, user, st)) return true;
  mk_fail_context(st, "%s", s->plan->name);
  return false;
}

/* Takes the spaces when something is written before the weights are loaded. */
static bool ready(mk_gpu_session *s, mk_status *st) { return mk_gpu_enter(s->d, st) && mk_gpu_take_spaces(s, st); }

static bool session_write(mk_session *base, const mk_tensor *v, mk_status *st) {
  mk_gpu_session *s = self(base);
  const mk_binding *b = find_written(s->plan, v->name);
  char want[96], have[96];
  if (!b) {
    mk_fail(st, MK_EINPUT, "%s has no input or state named %s", s->plan->name, v->name);
    return false;
  }
  if (v->rank != b->rank || memcmp(v->dims, b->dims, sizeof *b->dims * (size_t)b->rank)) {
    mk_fail(st, MK_EINPUT, "%s: input %s has shape %s, not %s", s->plan->name, v->name,
            mk_dims_str(b->dims, b->rank, want, sizeof want), mk_dims_str(v->dims, v->rank, have, sizeof have));
    return false;
  }
  if ((v->dtype == MK_I32) != (b->dtype == MK_I32)) {
    mk_fail(st, MK_EINPUT, "%s: input %s is %s, not %s", s->plan->name, v->name, mk_dtype_name(b->dtype),
            mk_dtype_name(v->dtype));
    return false;
  }
  if (s->is_parked) {
    mk_fail(st, MK_EINTERNAL, "%s: written to while its weights are parked", s->plan->name);
    return false;
  }
  return ready(s, st) && mk_gpu_upload(s->d, s->d->stream, s->spaces[b->ref.space].ptr + (CUdeviceptr)b->ref.offset, b->dtype,
                                       v->data, v->dtype, mk_dims_count(b->dims, b->rank), NULL, NULL, st);
}

static bool session_run(mk_session *base, const char *name, mk_status *st) {
  mk_gpu_session *s = self(base);
  mk_gpu_program *p = mk_gpu_find_program(s, name);
  if (!p || p->plan->rate == MK_RATE_LOAD) {
    mk_fail(st, MK_EINPUT, "%s has no program named %s", s->plan->name, name);
    return false;
  }
  if (!s->loaded || s->is_parked) {
    mk_fail(st, MK_EINTERNAL, "%s: %s was run %s", s->plan->name, name,
            s->loaded ? "while its weights are parked" : "before load");
    return false;
  }
  if (mk_gpu_enter(s->d, st) && mk_gpu_run_program(s, p, st)) return true;
  mk_fail_context(st, "%s: %s", s->plan->name, name);
  return false;
}

static bool session_describe(mk_session *base, const char *name, mk_tensor *out) {
  const mk_plan *p = self(base)->plan;
  const mk_binding *b = find(p->inputs, p->ninputs, name);
  if (!b) b = find_read(p, name);
  if (!b) return false;
  *out = (mk_tensor){.name = b->name, .dtype = b->dtype, .rank = b->rank, .bytes = (size_t)b->bytes};
  memcpy(out->dims, b->dims, sizeof out->dims);
  return true;
}

static bool session_read(mk_session *base, const char *name, void *out, size_t bytes, mk_status *st) {
  mk_gpu_session *s = self(base);
  const mk_binding *b = find_read(s->plan, name);
  if (!b) {
    mk_fail(st, MK_EINPUT, "%s has no output or state named %s", s->plan->name, name);
    return false;
  }
  int64_t count = mk_dims_count(b->dims, b->rank);
  if (bytes != (size_t)count * 4) {
    mk_fail(st, MK_EINTERNAL, "%s: %s has %lld values, read into %zu bytes", s->plan->name, name, (long long)count, bytes);
    return false;
  }
  CUdeviceptr base_ptr = s->spaces[b->ref.space].ptr;
  if (!base_ptr) {
    mk_fail(st, MK_EINTERNAL, "%s: %s was read before anything was run", s->plan->name, name);
    return false;
  }
  if (mk_gpu_enter(s->d, st) && mk_gpu_download(s->d, out, b->dtype == MK_I32 ? MK_I32 : MK_F32,
                                                base_ptr + (CUdeviceptr)b->ref.offset, b->dtype, count, st))
    return true;
  mk_fail_context(st, "%s: reading %s", s->plan->name, name);
  return false;
}

static bool session_reset(mk_session *base, mk_status *st) {
  mk_gpu_session *s = self(base);
  const mk_gpu_block *b = &s->spaces[MK_SPACE_STATE];
  if (!b->ptr) return true; /* zero when taken */
  return mk_gpu_enter(s->d, st) && MK_CU(s->d->cu, st, cuMemsetD8Async(b->ptr, 0, (size_t)b->bytes, s->d->stream));
}

/* Prepared weights never change after load, so they are copied out once, by the first park; a later park only frees them. The
 * copy lies in ordinary memory: page-locking tens of gigabytes fails on many systems, and the staging ring reaches the bus's
 * speed anyway. */
static bool session_park(mk_session *base, mk_status *st) {
  mk_gpu_session *s = self(base);
  int64_t bytes = s->plan->space_bytes[MK_SPACE_LOAD];
  if (s->is_parked || !s->loaded || !bytes) return true;
  if (!mk_gpu_enter(s->d, st) || !mk_gpu_wait(s->d, st)) return false;
  if (!s->parked) {
    void *copy = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED) {
      char size[32];
      mk_fail(st, MK_ENOMEM, "%s: parking its weights takes %s of host memory, which the system refused", s->plan->name,
              mk_gpu_bytes_str(bytes, size));
      return false;
    }
    /* Offsets are multiples of 256, so the space is whole bf16 units: copied without conversion. */
    if (!mk_gpu_download(s->d, copy, MK_BF16, s->spaces[MK_SPACE_LOAD].ptr, MK_BF16, bytes / 2, st)) {
      munmap(copy, (size_t)bytes);
      return false;
    }
    s->parked = copy;
  }
  mk_gpu_graphs_drop(s);
  mk_gpu_block_free(s->d, &s->spaces[MK_SPACE_LOAD]);
  s->bound = false;
  s->is_parked = true;
  return true;
}

static bool session_unpark(mk_session *base, mk_status *st) {
  mk_gpu_session *s = self(base);
  if (!s->is_parked) return true;
  if (!ready(s, st)) return false;
  if (!mk_gpu_upload(s->d, s->d->stream, s->spaces[MK_SPACE_LOAD].ptr, MK_BF16, s->parked, MK_BF16,
                     s->plan->space_bytes[MK_SPACE_LOAD] / 2, NULL, NULL, st)) {
    mk_fail_context(st, "%s: bringing its weights back", s->plan->name);
    return false;
  }
  s->is_parked = false;
  return true;
}

static void session_close(mk_session *base) {
  mk_gpu_session *s = self(base);
  mk_gpu_device *d = s->d;
  d->cu->cuCtxSetCurrent(d->context);
  d->cu->cuStreamSynchronize(d->stream);
  if (s->programs) mk_gpu_graphs_drop(s);
  for (int g = 0; s->groups && g < s->plan->ngroups; g++) mk_gpu_group_free(d, &s->groups[g]);
  if (s->kernels) mk_gpu_kernels_free(d, s->kernels, s->plan->nkernels);
  mk_gpu_synthetic_close(d, &s->fill);
  for (int i = 0; i < MK_SPACE_COUNT; i++) mk_gpu_block_free(d, &s->spaces[i]);
  if (s->parked) munmap(s->parked, (size_t)s->plan->space_bytes[MK_SPACE_LOAD]);
  mk_arena_free(&s->arena);
  free(s);
}

static bool session_wait(mk_session *base, mk_status *st) { return mk_gpu_wait(((mk_gpu_session *)base)->d, st); }

static const mk_session_ops ops = {.load = session_load,
                                   .write = session_write,
                                   .run = session_run,
                                   .wait = session_wait,
                                   .describe = session_describe,
                                   .read = session_read,
                                   .reset = session_reset,
                                   .park = session_park,
                                   .unpark = session_unpark,
                                   .close = session_close};

static bool asks_library(const mk_plan *p) {
  for (int g = 0; g < p->ngroups; g++)
    for (int c = 0; c < p->groups[g].ncandidates; c++)
      for (int i = 0; i < p->groups[g].candidates[c].nlaunches; i++)
        if (p->groups[g].candidates[c].launches[i].kind == MK_LAUNCH_LT) return true;
  return false;
}

/* A matmul at every step that is worth the library's start. */
static bool has_large_matmul(const mk_graph *g) {
  for (int i = 0; i < g->count; i++) {
    const mk_node *n = &g->nodes[i];
    if (n->op != MK_OP_MATMUL || n->rate != MK_RATE_STEP) continue;
    const mk_node *b = &g->nodes[n->args[1]];
    if (2.0 * (double)mk_node_count(n) * (double)b->dims[1] > 1e9) return true;
  }
  return false;
}

/* The matmul library is opened while plans are made: should that fail, those that would use it are made again without. */
mk_plan *mk_gpu_draft(mk_gpu_device *d, const mk_graph *g, mk_plan_options *o, mk_status *st) {
  if (!mk_gpu_device_wait(d, MK_GPU_KNOWN, st)) return NULL;
  o->arch = d->arch;
  o->smem_limit = d->smem_limit;
  o->sms = d->sms;
  o->cublaslt = mk_gpu_device_has_lt(d);
  if (has_large_matmul(g)) mk_gpu_device_expect_lt(d);
  mk_plan *plan = mk_plan_build(g, o, st);
  if (!plan) return NULL;
  bool ready = mk_gpu_device_wait(d, asks_library(plan) ? MK_GPU_LIBRARY : MK_GPU_READY, st);
  if (ready && (mk_gpu_device_has_lt(d) || !asks_library(plan))) return plan;
  mk_plan_free(plan);
  o->cublaslt = false;
  return ready ? mk_plan_build(g, o, st) : NULL;
}

mk_session *mk_gpu_session_open(mk_gpu_device *d, const mk_plan *plan, const mk_gpu_session_options *options, mk_status *st) {
  mk_gpu_session *s = calloc(1, sizeof *s);
  if (!s) {
    mk_fail(st, MK_ENOMEM, "out of host memory");
    return NULL;
  }
  s->base = (mk_session){.ops = &ops, .backend = "cuda"};
  s->d = d;
  s->plan = plan;
  if (options) s->options = *options;
  s->kernels = MK_NEW_ARRAY(&s->arena, mk_gpu_kernel, plan->nkernels);
  s->groups = MK_NEW_ARRAY(&s->arena, mk_gpu_group, plan->ngroups);
  s->programs = MK_NEW_ARRAY(&s->arena, mk_gpu_program, plan->nprograms);
  for (int i = 0; i < plan->nprograms; i++) s->programs[i].plan = &plan->programs[i];
  mk_gpu_budget budget = {0};
  mk_gpu_budget_add(&budget, plan, true);
  if (mk_gpu_enter(d, st) && mk_gpu_budget_check(d, &budget, plan->name, st) && mk_gpu_select(s, st)) {
    mk_timeline("%s: launches ready", plan->name);
    mk_log(MK_LOG_INFO, "%s can launch kernels %.2f s after the program began", plan->name, mk_log_age());
    return &s->base;
  }
  mk_fail_context(st, "%s on GPU %d (%s)", plan->name, d->ordinal, d->name);
  session_close(&s->base);
  return NULL;
}

int mk_gpu_session_choice(const mk_session *s, int group) { return ((const mk_gpu_session *)s)->groups[group].chosen; }

mk_gpu_usage mk_gpu_session_usage(const mk_session *base, int group) {
  const mk_gpu_session *s = (const mk_gpu_session *)base;
  mk_gpu_usage most = {0};
  for (int i = 0; i < s->groups[group].nlaunches; i++) {
    const mk_gpu_launch *l = &s->groups[group].launches[i];
    int registers = 0, smem = 0;
    if (l->plan->kind != MK_LAUNCH_KERNEL) continue;
    s->d->cu->cuFuncGetAttribute(&registers, CU_FUNC_ATTRIBUTE_NUM_REGS, l->function);
    s->d->cu->cuFuncGetAttribute(&smem, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, l->function);
    smem += (int)l->plan->smem;
    if (registers > most.registers) most.registers = registers;
    if (smem > most.smem_bytes) most.smem_bytes = smem;
  }
  return most;
}

bool mk_gpu_session_covers(const mk_session *s, int group) {
  const mk_plan *p = ((const mk_gpu_session *)s)->plan;
  return group + 1 < p->ngroups && p->groups[group + 1].candidates[mk_gpu_session_choice(s, group + 1)].covers;
}

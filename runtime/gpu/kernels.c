#include "runtime/gpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/gpu/cache_claim.h"
#include "runtime/gpu/nvrtc_note.h"

enum { WAIT_MS = 20, PATIENCE_SECONDS = 10 };

typedef struct task { /* a kernel that the cache does not have */
  int kernel;
  bool done;
  mk_compile_job job;
  mk_text key;
} task;

typedef struct work {
  mk_compiler compiler;
  const mk_prepare_options *options;
  mk_cache *cache;
  mk_cache_claims claims;
  mk_prepared *out;
  task *tasks;
  mk_compile_job *batch; /* the jobs being compiled */
  int *batch_task;       /* their places in tasks */
  int ntasks, ndone, nstored;
} work;

/* ---- entries of the cache */

/* Everything that decides a cubin's bytes, as text: what the cache compares. */
static mk_text make_key(const mk_compiler *c, const mk_compile_job *job) {
  mk_text key = {0};
  mk_text_add(&key, "moonkiln cubin 2\n");
  mk_compiler_id(c, &key);
  mk_text_add(&key, "\n");
  mk_compile_options(c, job, &key);
  mk_text_add(&key, job->name);
  mk_text_add(&key, "\n\n");
  mk_text_add(&key, job->source);
  return key;
}

/* A crash is tried again: it is quick, and may be the machine's fault. */
static bool worth_a_note(const mk_compile_result *r) {
  return r->failure == MK_FAILURE_SOURCE || r->failure == MK_FAILURE_TIMEOUT;
}

/* A note of a failure: no payload, its message as the log. Time-outs are tried again with more time. */
static void note_failure(mk_failure failure, int timeout, mk_text *meta) {
  if (failure == MK_FAILURE_TIMEOUT)
    mk_text_addf(meta, "failed: not compiled in %d s", timeout);
  else
    mk_text_add(meta, "failed: does not compile");
}

static bool is_failure(const char *meta, int timeout) {
  int seconds;
  return !strncmp(meta, "failed: ", 8) && (sscanf(meta, "failed: not compiled in %d s", &seconds) != 1 || timeout <= seconds);
}

static char *known_failure(const char *message) {
  mk_text t = {0};
  mk_text_addf(&t, "%s\nit was not tried again; `moonkiln cache clear` forgets this", message);
  return t.data;
}

static bool look_up(work *w, const mk_text *key, mk_cubin *out) {
  mk_cache_entry e;
  if (key->failed || !mk_cache_lookup(w->cache, key->data, key->len, &e)) return false;
  mk_kernel_report report;
  bool ok = true;
  if (e.bytes && mk_report_scan(e.meta, &report)) {
    *out = (mk_cubin){.state = MK_CUBIN_HIT, .data = e.payload, .bytes = e.bytes, .report = report};
    e.payload = NULL; /* ownership moves to the cubin */
    w->out->hits++;
  } else if (!e.bytes && is_failure(e.meta, w->compiler.timeout)) {
    *out = (mk_cubin){.state = MK_CUBIN_FAILED, .message = known_failure(e.log)};
    w->out->failed++;
  } else {
    ok = false;
  }
  mk_cache_entry_free(&e);
  return ok;
}

static void store(work *w, const task *t, const mk_compile_result *r) {
  mk_text meta = {0}, label = {0};
  mk_cache_entry entry = {.log = r->log};
  if (r->ok) {
    mk_report_print(&r->report, &meta);
    entry.payload = r->cubin;
    entry.bytes = r->cubin_bytes;
  } else {
    note_failure(r->failure, w->compiler.timeout, &meta);
    entry.log = r->message;
  }
  mk_text_addf(&label, "%s %s", t->job.arch, t->job.name);
  entry.label = label.data;
  entry.meta = meta.data;
  bool whole = !t->key.failed && !meta.failed && !label.failed;
  if (whole && mk_cache_store(w->cache, t->key.data, t->key.len, &entry)) w->nstored++;
  mk_text_free(&meta);
  mk_text_free(&label);
}

/* ---- compiling what is missing */

/* A job ended: its result is kept at once, so that nothing is lost however this process ends. */
static void finish(void *user, int job, mk_compile_result *r) {
  work *w = user;
  task *t = &w->tasks[w->batch_task[job]];
  mk_cubin *cubin = &w->out->cubins[t->kernel];
  if (r->ok || worth_a_note(r)) store(w, t, r);
  mk_cache_unclaim(&w->claims, t->key.data, t->key.len);
  if (r->ok) {
    *cubin = (mk_cubin){.state = MK_CUBIN_COMPILED, .data = r->cubin, .bytes = r->cubin_bytes, .report = r->report};
    r->cubin = NULL;
    w->out->compiled++;
  } else {
    *cubin = (mk_cubin){.state = MK_CUBIN_FAILED};
    w->out->failed++;
  }
  cubin->message = r->message;
  r->message = NULL;
  w->out->compile_seconds += r->seconds;
  t->done = true;
  w->ndone++;
}

static bool compile_batch(work *w, int n, mk_status *st) {
  mk_compile_result *results = calloc((size_t)n, sizeof *results);
  if (!results) {
    mk_fail(st, MK_ENOMEM, "out of host memory for %d kernels", n);
    return false;
  }
  bool ok = mk_compile_batch(&w->compiler, w->batch, n, results, w->options->progress, w->options->user, st);
  for (int i = 0; i < n; i++) mk_compile_result_free(&results[i]);
  free(results);
  return ok;
}

/* Looks again for what others were to compile, and claims what is free (all, when there is no patience left). Returns the number
 * of jobs that are ours now. */
static int gather_batch(work *w, bool patient) {
  int n = 0;
  for (int i = 0; i < w->ntasks; i++) {
    task *t = &w->tasks[i];
    if (t->done) continue;
    bool ours = mk_cache_claim(&w->claims, t->key.data, t->key.len);
    /* After the claim, as the entry may have come just before it. */
    if (look_up(w, &t->key, &w->out->cubins[t->kernel])) {
      if (ours) mk_cache_unclaim(&w->claims, t->key.data, t->key.len);
      t->done = true;
      w->ndone++;
    } else if (ours || !patient) {
      w->batch_task[n] = i;
      w->batch[n++] = t->job;
    }
  }
  return n;
}

static bool wait_for_others(const work *w, mk_status *st) {
  const mk_prepare_options *o = w->options;
  nanosleep(&(struct timespec){.tv_nsec = WAIT_MS * 1000000l}, NULL);
  if (!o->progress || o->progress(o->user, "compiling kernels", w->ndone, w->ntasks)) return true;
  mk_fail(st, MK_EINTERRUPTED, "stopped while another process compiled kernels (%d of %d were there)", w->ndone, w->ntasks);
  return false;
}

/* Another process may be slow, or halted: when nothing comes from it for a while, its part is done here as well. */
static bool work_off(work *w, mk_status *st) {
  double since = mk_now();
  bool ok = true;
  mk_cache_claims_open(&w->claims, w->cache);
  while (ok && w->ndone < w->ntasks) {
    int before = w->ndone, n = gather_batch(w, mk_now() - since < PATIENCE_SECONDS);
    if (n)
      ok = compile_batch(w, n, st);
    else if (w->ndone < w->ntasks)
      ok = wait_for_others(w, st);
    if (w->ndone > before) since = mk_now();
  }
  mk_cache_claims_close(&w->claims);
  return ok;
}

/* Room for the next kernels, a tenth more than needed so that not every new kernel makes it again. */
static void trim(const work *w) {
  int64_t limit = mk_env_get()->cache_bytes;
  mk_status st = {0};
  mk_cache_size removed;
  if (!w->nstored || limit == INT64_MAX || mk_cache_measure(w->cache).bytes <= limit) return;
  if (!mk_cache_trim(w->cache, limit - limit / 10, &removed, &st)) mk_log(MK_LOG_WARNING, "trimming the cache: %s", st.message);
  mk_log(MK_LOG_INFO, "the cache had reached MOONKILN_CACHE_LIMIT; %d kernels that were not used for longest were deleted",
         removed.entries);
}

/* ---- all kernels of a plan */

/* NULL when the kernel can run on the architecture. */
static char *why_not(const mk_kernel *k, int arch) {
  mk_text t = {0};
  if (k->arch_specific && k->min_arch != arch)
    mk_text_addf(&t, "kernel %s is made for sm_%da alone, not for sm_%d", k->name, k->min_arch, arch);
  else if (k->min_arch > arch)
    mk_text_addf(&t, "kernel %s needs sm_%d or newer, not sm_%d", k->name, k->min_arch, arch);
  return t.data;
}

static void dump(const char *folder, const mk_compile_job *job, const mk_cubin *cubin) {
  char path[PATH_MAX];
  mk_status st = {0};
  mk_text report = {0};
  mk_report_print(&cubin->report, &report);
  mk_text_add(&report, "\n");
  if (cubin->message) mk_text_addf(&report, "%s\n", cubin->message);
  const struct {
    const char *suffix;
    const void *data;
    size_t bytes;
  } files[] = {{"cu", job->source, strlen(job->source)}, {"cubin", cubin->data, cubin->bytes}, {"txt", report.data, report.len}};
  bool ok = mk_dir_make(folder, 0777, &st);
  for (size_t i = 0; i < sizeof files / sizeof *files && ok; i++) {
    int n = snprintf(path, sizeof path, "%s/%s.%s.%s", folder, job->name, job->arch, files[i].suffix);
    ok = n < (int)sizeof path && (!files[i].data || mk_file_publish(path, files[i].data, files[i].bytes, &st));
  }
  if (!ok) mk_log(MK_LOG_WARNING, "MOONKILN_DUMP: %s", st.message);
  mk_text_free(&report);
}

static void dump_all(const mk_kernel *kernels, int n, const char *arch, const char *folder, const mk_prepared *out) {
  for (int i = 0; folder && i < n; i++)
    if (out->cubins[i].state != MK_CUBIN_NONE)
      dump(folder, &(mk_compile_job){.name = kernels[i].name, .source = kernels[i].source, .arch = arch}, &out->cubins[i]);
}

/* Looks up every kernel that is in the list (NULL: all) but not in the other one (NULL: none); what is missing becomes a task. */
static void look_up_all(work *w, const mk_kernel *kernels, int n, const bool *list, const bool *but, const char *arch) {
  for (int i = 0; i < n; i++) {
    mk_cubin *cubin = &w->out->cubins[i];
    if ((list && !list[i]) || (but && but[i])) continue;
    char *reason = why_not(&kernels[i], w->options->arch);
    if (reason) {
      *cubin = (mk_cubin){.state = MK_CUBIN_FAILED, .message = reason};
      w->out->failed++;
      continue;
    }
    task t = {
        .kernel = i,
        .job = {.name = kernels[i].name, .source = kernels[i].source, .arch = arch, .line_info = mk_env_get()->dump != NULL}};
    t.key = make_key(&w->compiler, &t.job);
    if (look_up(w, &t.key, cubin))
      mk_text_free(&t.key);
    else
      w->tasks[w->ntasks++] = t;
  }
}

/* What came along is in the cache, or failed, which nobody needs to know. */
static void forget_along(const mk_prepare_options *o, mk_prepared *out) {
  for (int i = 0; o->along && o->wanted && i < out->count; i++) {
    mk_cubin *c = &out->cubins[i];
    if (o->wanted[i] || c->state == MK_CUBIN_NONE) continue;
    out->hits -= c->state == MK_CUBIN_HIT;
    out->failed -= c->state == MK_CUBIN_FAILED;
    free(c->data);
    free(c->message);
    *c = (mk_cubin){.state = MK_CUBIN_NONE};
  }
}

bool mk_kernels_prepare(const mk_kernel *kernels, int n, const mk_prepare_options *o, mk_cache *cache, mk_prepared *out,
                        mk_status *st) {
  *out = (mk_prepared){.count = n};
  char arch[16];
  mk_nvrtc nvrtc;
  if (!mk_arch_name(o->arch, arch, st)) return false;
  bool ok = false;
  size_t room = n > 0 ? (size_t)n : 1;
  work *w = calloc(1, sizeof *w);
  task *tasks = calloc(room, sizeof *tasks);
  mk_compile_job *batch = calloc(room, sizeof *batch);
  int *batch_task = calloc(room, sizeof *batch_task);
  out->cubins = calloc(room, sizeof *out->cubins);
  if (!w || !tasks || !batch || !batch_task || !out->cubins) {
    mk_fail(st, MK_ENOMEM, "out of host memory for %d kernels", n);
  } else if (mk_nvrtc_identify(&nvrtc, cache, o->max_major, st)) {
    mk_compiler_with(&w->compiler, &nvrtc, cache->failed);
    w->compiler.done = finish;
    w->compiler.done_user = w;
    w->options = o;
    w->cache = cache;
    w->out = out;
    w->tasks = tasks;
    w->batch = batch;
    w->batch_task = batch_task;
    look_up_all(w, kernels, n, o->wanted, NULL, arch);
    if (w->ntasks && o->wanted && o->along) look_up_all(w, kernels, n, o->along, o->wanted, arch);
    ok = !w->ntasks || work_off(w, st);
    trim(w);
    if (ok) forget_along(o, out);
    if (ok) dump_all(kernels, n, arch, mk_env_get()->dump, out);
    for (int i = 0; i < w->ntasks; i++) mk_text_free(&tasks[i].key);
  }
  if (!ok) mk_prepared_free(out);
  free(batch_task);
  free(batch);
  free(tasks);
  free(w);
  return ok;
}

bool mk_prepared_check(const mk_prepared *p, mk_status *st) {
  if (p->failed == 0) return true;
  for (int i = 0; i < p->count; i++) {
    if (p->cubins[i].state != MK_CUBIN_FAILED) continue;
    if (p->failed > 1)
      mk_fail(st, MK_ECOMPILE, "%d kernels failed, the first: %s", p->failed, p->cubins[i].message);
    else
      mk_fail(st, MK_ECOMPILE, "%s", p->cubins[i].message);
    break;
  }
  return false;
}

void mk_prepared_free(mk_prepared *p) {
  for (int i = 0; p->cubins && i < p->count; i++) {
    free(p->cubins[i].data);
    free(p->cubins[i].message);
  }
  free(p->cubins);
  *p = (mk_prepared){0};
}

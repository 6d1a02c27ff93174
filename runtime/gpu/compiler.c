#include "runtime/gpu/compiler.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/gpu/pool.h"

enum { STATIC_SMEM = 48 << 10 }; /* of every architecture */

void mk_compiler_with(mk_compiler *c, const mk_nvrtc *nvrtc, const char *failed_dir) {
  const mk_env *env = mk_env_get();
  *c = (mk_compiler){.nvrtc = *nvrtc, .workers = env->worker_count, .timeout = env->compile_seconds};
  snprintf(c->failed_dir, sizeof c->failed_dir, "%s", failed_dir ? failed_dir : "");
}

bool mk_compiler_open(mk_compiler *c, int max_major, const char *failed_dir, mk_status *st) {
  mk_nvrtc nvrtc;
  bool found = mk_nvrtc_open(&nvrtc, NULL, max_major, st);
  mk_compiler_with(c, &nvrtc, failed_dir);
  return found;
}

static const int architectures[] = {80, 86, 87, 89, 90, 100, 103, 110, 120, 121};

bool mk_arch_name(int arch, char out[16], mk_status *st) {
  for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++) {
    if (architectures[i] != arch) continue;
    snprintf(out, 16, "sm_%d%s", arch, arch >= 90 ? "a" : "");
    return true;
  }
  mk_fail(st, MK_EUNSUPPORTED,
          "there are no kernels for the GPU architecture %d; known are 80, 86, 87, 89, 90, 100, 103, 110, 120, 121", arch);
  return false;
}

bool mk_arch_parse(const char *text, int *out, mk_status *st) {
  const char *digits = strncmp(text, "sm_", 3) ? text : text + 3;
  char *end, name[16];
  long v = isdigit((unsigned char)*digits) ? strtol(digits, &end, 10) : -1;
  if (v < 0 || v > 999 || (*end && strcmp(end, "a"))) {
    mk_fail(st, MK_EINPUT, "\"%.40s\" is no GPU architecture; write 90 or sm_90a", text);
    return false;
  }
  *out = (int)v;
  return mk_arch_name((int)v, name, st);
}

void mk_compile_options(const mk_compiler *c, const mk_compile_job *job, mk_text *out) {
  mk_text_addf(out, "-arch=%s\n--std=c++17\n-DNDEBUG\n-default-device\n--ptxas-options=-v\n", job->arch);
  if (c->nvrtc.major >= 13) mk_text_add(out, "--minimal\n"); /* leaves out built-in declarations we never use: quicker */
  if (job->line_info) mk_text_add(out, "-lineinfo\n");
  for (int i = 0; i < job->noptions; i++) mk_text_addf(out, "%s\n", job->options[i]);
}

void mk_compiler_id(const mk_compiler *c, mk_text *out) {
  mk_text_addf(out, "nvrtc %d.%d build %s", c->nvrtc.major, c->nvrtc.minor, c->nvrtc.build);
}

void mk_compile_keep(const char *folder, const char *name, const char *source, const char *message, char path[PATH_MAX]) {
  mk_status ignored = {0};
  char hex[MK_HASH_HEX], log[PATH_MAX];
  path[0] = 0;
  if (!folder[0] || !mk_dir_make(folder, 0700, &ignored)) return;
  mk_hash_hex(source, strlen(source), hex);
  int n = snprintf(path, PATH_MAX, "%s/%s-%.8s.cu", folder, name, hex);
  int m = snprintf(log, PATH_MAX, "%s/%s-%.8s.log", folder, name, hex);
  if (n >= PATH_MAX || m >= PATH_MAX || !mk_file_publish(path, source, strlen(source), &ignored)) {
    path[0] = 0;
    return;
  }
  mk_file_publish(log, message, strlen(message), &ignored);
}

/* Ends the message with where the source is kept, and gives it to the result. */
static void give_message(const mk_compiler *c, const mk_compile_job *job, mk_compile_result *r, const mk_text *message) {
  char path[PATH_MAX];
  mk_compile_keep(c->failed_dir, job->name, job->source, mk_text_str(message), path);
  mk_text whole = {0};
  mk_text_add(&whole, mk_text_str(message));
  while (whole.len && whole.data[whole.len - 1] == '\n') whole.data[--whole.len] = 0;
  if (path[0]) mk_text_addf(&whole, "\nits source is in %s", path);
  r->message = whole.data; /* ownership moves to the result */
}

/* What can be said about a worker that ended while it had a job. */
static void describe_end(const mk_compiler *c, const mk_compile_job *job, const mk_pool_event *e, mk_text *out) {
  if (e->kind == MK_POOL_TIMEOUT) {
    mk_text_addf(out,
                 "kernel %s (%s): compiling took longer than %d seconds and was stopped; MOONKILN_COMPILE_TIMEOUT allows more",
                 job->name, job->arch, c->timeout);
  } else if (e->signal) {
    mk_text_addf(out, "kernel %s (%s): the compiler crashed (signal %d, %s)", job->name, job->arch, e->signal,
                 strsignal(e->signal));
    if (e->signal == 9) mk_text_add(out, "; if memory ran out, MOONKILN_WORKERS=1 needs least");
  } else {
    mk_text_addf(out, "kernel %s (%s): the compiler ended without a result (exit code %d)", job->name, job->arch, e->exit_code);
  }
  if (e->output[0]) mk_text_addf(out, "\nit said: %s", e->output);
}

static char *take(char **part) {
  char *p = *part;
  *part = NULL;
  return p;
}

/* It works, and is slower than it should be. */
static void describe_slow(const mk_compile_job *job, const mk_kernel_report *k, mk_text *out) {
  if (k->spill_bytes)
    mk_text_addf(out, "kernel %s (%s) spills %d bytes of its registers (%d a thread) to memory\n", job->name, job->arch,
                 k->spill_bytes, k->registers);
  else
    mk_text_addf(out, "kernel %s (%s): its wgmma instructions wait for each other (C7510)\n", job->name, job->arch);
  mk_report_declarations(job->source, "__global__", out);
}

static void take_result(const mk_compiler *c, const mk_compile_job *job, mk_pool_event *e, mk_compile_result *r) {
  const mk_message *m = &e->message;
  r->seconds = m->seconds;
  r->log = take(&e->parts[2]);
  if (m->code == NVRTC_SUCCESS && m->bytes[0]) {
    r->ok = true;
    r->cubin = take(&e->parts[0]);
    r->cubin_bytes = (size_t)m->bytes[0];
    if (m->bytes[1]) r->ptx = take(&e->parts[1]);
    r->report = mk_report_parse_log(r->log);
    if (!r->report.spill_bytes && !r->report.wgmma_serialized) return;
    mk_text slow = {0};
    describe_slow(job, &r->report, &slow);
    give_message(c, job, r, &slow);
    mk_text_free(&slow);
    return;
  }
  mk_text text = {0};
  r->failure = m->code == NVRTC_ERROR_COMPILATION ? MK_FAILURE_SOURCE : MK_FAILURE_OTHER;
  mk_text_addf(&text, "kernel %s (%s) does not compile: %s\n", job->name, job->arch,
               m->code == NVRTC_SUCCESS ? "NVRTC gave no cubin" : e->parts[3]);
  if (m->code == NVRTC_ERROR_INVALID_OPTION)
    mk_text_addf(&text, "NVRTC is version %d.%d; an architecture newer than it needs a newer CUDA toolkit\n", c->nvrtc.major,
                 c->nvrtc.minor);
  mk_report_errors(r->log, job->source, m->bytes[1] ? e->parts[1] : NULL, &text);
  int smem = mk_report_parse_log(r->log).smem_bytes; /* NVRTC's log does not have ptxas's words on it */
  if (smem > STATIC_SMEM) {
    mk_text_addf(&text, "it declares %d bytes of static shared memory, and %d are the most; dynamic shared memory can be more\n",
                 smem, STATIC_SMEM);
    mk_report_declarations(job->source, "__shared__", &text);
  }
  give_message(c, job, r, &text);
  mk_text_free(&text);
}

static int by_length(const void *a, const void *b) {
  const mk_pool_job *x = a, *y = b;
  return x->weight != y->weight ? (x->weight < y->weight ? 1 : -1) : x->index - y->index;
}

static bool run_batch(const mk_compiler *c, const mk_compile_job *jobs, int n, mk_compile_result *results, mk_pool *pool,
                      mk_progress_fn progress, void *user, mk_status *st) {
  int done = 0;
  while (done < n) {
    if (progress && !progress(user, "compiling kernels", done, n)) {
      mk_fail(st, MK_EINTERRUPTED, "stopped while compiling kernels (%d of %d were done)", done, n);
      return false;
    }
    mk_pool_event e;
    if (!mk_pool_wait(pool, &e, st)) return false;
    if (e.kind == MK_POOL_NOTHING) continue;
    const mk_compile_job *job = &jobs[e.job];
    if (e.kind == MK_POOL_RESULT) {
      take_result(c, job, &e, &results[e.job]);
    } else {
      mk_text text = {0};
      describe_end(c, job, &e, &text);
      if (e.kind == MK_POOL_TIMEOUT) results[e.job].failure = MK_FAILURE_TIMEOUT;
      give_message(c, job, &results[e.job], &text);
      mk_text_free(&text);
    }
    mk_log(MK_LOG_DEBUG, "kernel %s: %s in %.2f s", job->name, results[e.job].ok ? "compiled" : "failed", results[e.job].seconds);
    mk_pool_event_free(&e);
    done++;
    if (c->done) c->done(c->done_user, (int)(job - jobs), &results[job - jobs]);
  }
  if (progress) progress(user, "compiling kernels", done, n);
  return true;
}

bool mk_compile_batch(const mk_compiler *c, const mk_compile_job *jobs, int n, mk_compile_result *results,
                      mk_progress_fn progress, void *user, mk_status *st) {
  memset(results, 0, sizeof *results * (size_t)n);
  if (n == 0) return true;
  bool ok = false;
  mk_text *options = calloc((size_t)n, sizeof *options);
  mk_pool_job *queue = calloc((size_t)n, sizeof *queue);
  if (!options || !queue) {
    mk_fail(st, MK_ENOMEM, "out of host memory for %d kernels", n);
    goto end;
  }
  for (int i = 0; i < n; i++) {
    mk_compile_options(c, &jobs[i], &options[i]);
    if (options[i].failed) {
      mk_fail(st, MK_ENOMEM, "out of host memory for %d kernels", n);
      goto end;
    }
    for (size_t k = 0; k < options[i].len; k++)
      if (options[i].data[k] == '\n') options[i].data[k] = 0;
    queue[i] = (mk_pool_job){.index = i,
                             .weight = strlen(jobs[i].source),
                             .name = jobs[i].name,
                             .source = jobs[i].source,
                             .options = options[i].data,
                             .options_bytes = options[i].len,
                             .want_ptx = jobs[i].want_ptx};
  }
  /* The longest sources first, so that no long one is left for the end. */
  qsort(queue, (size_t)n, sizeof *queue, by_length);
  mk_pool *pool = mk_pool_open(queue, n, c->workers, c->timeout, c->nvrtc.path, st);
  ok = pool && run_batch(c, jobs, n, results, pool, progress, user, st);
  mk_pool_close(pool);
end:
  for (int i = 0; options && i < n; i++) mk_text_free(&options[i]);
  free(options);
  free(queue);
  return ok;
}

void mk_compile_result_free(mk_compile_result *r) {
  free(r->cubin);
  free(r->ptx);
  free(r->log);
  free(r->message);
  *r = (mk_compile_result){0};
}

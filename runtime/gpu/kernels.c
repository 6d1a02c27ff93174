#include "runtime/gpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"

/* Everything that decides a cubin's bytes, as text: what the cache compares. */
static mk_text make_key(const mk_compiler *c, const mk_compile_job *job) {
  mk_text key = {0};
  mk_text_add(&key, "moonkiln cubin 1\n");
  mk_compiler_id(c, &key);
  mk_text_add(&key, "\n");
  mk_compile_options(c, job, &key);
  mk_text_addf(&key, "%s\n\n%s", job->name, job->source);
  return key;
}

static bool look_up(mk_cache *cache, const mk_text *key, mk_cubin *out) {
  mk_cache_entry e;
  if (key->failed || !mk_cache_lookup(cache, key->data, key->len, &e)) return false;
  bool ok = mk_report_scan(e.meta, &out->report) && e.bytes;
  if (ok) {
    *out = (mk_cubin){.state = MK_CUBIN_HIT, .data = e.payload, .bytes = e.bytes, .report = out->report};
    e.payload = NULL; /* ownership moves to the cubin */
  }
  mk_cache_entry_free(&e);
  return ok;
}

static void store(mk_cache *cache, const mk_text *key, const mk_compile_job *job, const mk_cubin *cubin) {
  mk_text meta = {0}, label = {0};
  mk_report_print(&cubin->report, &meta);
  mk_text_addf(&label, "%s %s", job->arch, job->name);
  if (!key->failed && !meta.failed && !label.failed)
    mk_cache_store(cache, key->data, key->len, &(mk_cache_entry){label.data, meta.data, cubin->data, cubin->bytes});
  mk_text_free(&meta);
  mk_text_free(&label);
}

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

/* Compiles jobs[0..n), whose results belong to cubins[which[i]]. */
static bool compile_missing(const mk_compiler *c, const mk_compile_job *jobs, const int *which, int n,
                            const mk_prepare_options *o, mk_cache *cache, mk_prepared *out, mk_status *st) {
  mk_compile_result *results = calloc((size_t)n, sizeof *results);
  if (!results) {
    mk_fail(st, MK_ENOMEM, "out of host memory for %d kernels", n);
    return false;
  }
  bool ok = mk_compile_batch(c, jobs, n, results, o->progress, o->user, st);
  for (int i = 0; i < n; i++) {
    mk_cubin *cubin = &out->cubins[which[i]];
    mk_compile_result *r = &results[i];
    out->compile_seconds += r->seconds;
    if (r->ok) { /* kept even when the batch was stopped: it need not be done again */
      *cubin = (mk_cubin){.state = MK_CUBIN_COMPILED, .data = r->cubin, .bytes = r->cubin_bytes, .report = r->report};
      r->cubin = NULL;
      out->compiled++;
      mk_text key = make_key(c, &jobs[i]);
      store(cache, &key, &jobs[i], cubin);
      mk_text_free(&key);
    } else if (ok) {
      *cubin = (mk_cubin){.state = MK_CUBIN_FAILED, .message = r->message};
      r->message = NULL;
      out->failed++;
    }
    mk_compile_result_free(r);
  }
  free(results);
  return ok;
}

static bool prepare(const mk_kernel *kernels, int n, const mk_prepare_options *o, const char *arch, const mk_compiler *c,
                    mk_cache *cache, mk_compile_job *jobs, int *which, mk_prepared *out, mk_status *st) {
  const char *dump_folder = mk_env_get()->dump;
  int missing = 0;
  for (int i = 0; i < n; i++) {
    if (o->wanted && !o->wanted[i]) continue;
    mk_cubin *cubin = &out->cubins[i];
    mk_compile_job job = {.name = kernels[i].name, .source = kernels[i].source, .arch = arch, .line_info = dump_folder != NULL};
    char *reason = why_not(&kernels[i], o->arch);
    if (reason) {
      *cubin = (mk_cubin){.state = MK_CUBIN_FAILED, .message = reason};
      out->failed++;
      continue;
    }
    mk_text key = make_key(c, &job);
    if (look_up(cache, &key, cubin)) {
      out->hits++;
    } else {
      jobs[missing] = job;
      which[missing++] = i;
    }
    mk_text_free(&key);
  }
  bool ok = missing == 0 || compile_missing(c, jobs, which, missing, o, cache, out, st);
  for (int i = 0; dump_folder && ok && i < n; i++)
    if (out->cubins[i].state != MK_CUBIN_NONE)
      dump(dump_folder, &(mk_compile_job){.name = kernels[i].name, .source = kernels[i].source, .arch = arch}, &out->cubins[i]);
  return ok;
}

bool mk_kernels_prepare(const mk_kernel *kernels, int n, const mk_prepare_options *o, mk_cache *cache, mk_prepared *out,
                        mk_status *st) {
  *out = (mk_prepared){.count = n};
  char arch[16];
  if (!mk_arch_name(o->arch, arch, st)) return false;
  bool ok = false;
  size_t room = n > 0 ? (size_t)n : 1;
  mk_compiler *c = calloc(1, sizeof *c);
  mk_compile_job *jobs = calloc(room, sizeof *jobs);
  int *which = calloc(room, sizeof *which);
  out->cubins = calloc(room, sizeof *out->cubins);
  if (!c || !jobs || !which || !out->cubins)
    mk_fail(st, MK_ENOMEM, "out of host memory for %d kernels", n);
  else
    ok = mk_compiler_open(c, o->max_major, cache->failed, st) && prepare(kernels, n, o, arch, c, cache, jobs, which, out, st);
  if (!ok) mk_prepared_free(out);
  free(which);
  free(jobs);
  free(c);
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

#include "runtime/gpu/module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/gpu/kernels.h"

static void fail(mk_gpu_kernel *k, const char *why, mk_arena *arena) {
  k->state = MK_GPU_KERNEL_FAILED;
  k->why = mk_strndup(arena, why, strcspn(why, "\n")); /* the whole of it was said */
}

void mk_gpu_kernel_blame(const mk_gpu_device *d, const mk_kernel *source, mk_gpu_kernel *k, const char *why) {
  mk_text text = {0};
  char path[PATH_MAX];
  if (k->blamed) return;
  k->blamed = true;
  mk_text_addf(&text, "kernel %s cannot be used: %s\n", source->name, why);
  mk_report_declarations(source->source, "__shared__", &text);
  mk_report_declarations(source->source, "__global__", &text);
  mk_compile_keep(d->cache.failed, source->name, source->source, mk_text_str(&text), path);
  mk_log(MK_LOG_WARNING, "%s%s%s", mk_text_str(&text), path[0] ? "its source is in " : "it is skipped", path);
  mk_text_free(&text);
}

/* A slow kernel's story is told when it is compiled; later starts know it. */
static void judge(mk_gpu_kernel *k, const char *name, const mk_cubin *cubin, mk_arena *arena) {
  const mk_kernel_report *r = &cubin->report;
  k->state = MK_GPU_KERNEL_READY;
  if (!r->spill_bytes && !r->wgmma_serialized) return;
  k->state = MK_GPU_KERNEL_SPILLS;
  k->why = r->spill_bytes ? mk_printf(arena, "spills %d bytes of registers to memory", r->spill_bytes)
                          : "its wgmma instructions wait for each other (C7510)";
  if (cubin->message)
    mk_log(MK_LOG_WARNING, "%s", cubin->message);
  else
    mk_log(MK_LOG_INFO, "kernel %s: %s", name, k->why);
}

/* Cubins hold the kernel's name in several places; its letters are left out. */
static uint64_t code_hash(const char *data, size_t bytes, const char *name) {
  enum { MAX_PIECES = 64 };
  mk_piece pieces[MAX_PIECES];
  int n = 0;
  size_t length = strlen(name);
  const char *end = data + bytes, *at = data, *next;
  while (n < MAX_PIECES - 1 && (next = memmem(at, (size_t)(end - at), name, length))) {
    pieces[n++] = (mk_piece){at, (size_t)(next - at)};
    at = next + length;
  }
  pieces[n++] = (mk_piece){at, (size_t)(end - at)};
  return mk_hash64_pieces(pieces, n);
}

static void load(mk_gpu_device *d, const mk_kernel *source, const mk_cubin *cubin, mk_gpu_kernel *k, mk_arena *arena) {
  mk_status why = {0};
  if (!MK_CU(d->cu, &why, cuModuleLoadData(&k->module, cubin->data))) {
    k->module = NULL;
  } else if (!MK_CU(d->cu, &why, cuModuleGetFunction(&k->function, k->module, source->name))) {
    d->cu->cuModuleUnload(k->module);
    k->module = NULL;
  }
  k->code = code_hash(cubin->data, cubin->bytes, source->name);
  if (k->module) {
    judge(k, source->name, cubin, arena);
  } else {
    mk_gpu_kernel_blame(d, source, k, why.message);
    fail(k, why.message, arena);
  }
}

bool mk_gpu_kernels_load(mk_gpu_device *d, const mk_kernel *sources, int count, const bool *wanted, const bool *along,
                         mk_gpu_kernel *kernels, mk_arena *arena, mk_progress_fn progress, void *user, mk_status *st) {
  bool *fresh = MK_NEW_ARRAY(arena, bool, count);
  int total = 0;
  for (int i = 0; i < count; i++) {
    fresh[i] = wanted[i] && kernels[i].state == MK_GPU_KERNEL_NEW;
    total += fresh[i];
  }
  if (!total) return true;
  mk_prepare_options options = {
      .arch = d->arch, .max_major = d->cu->version / 1000, .wanted = fresh, .along = along, .progress = progress, .user = user};
  mk_prepared prepared = {0};
  if (!mk_kernels_prepare(sources, count, &options, &d->cache, &prepared, st)) return false;
  mk_log(MK_LOG_INFO, "%d kernels: %d from the cache, %d compiled in %.1f s of work", total, prepared.hits, prepared.compiled,
         prepared.compile_seconds);
  d->compiled += prepared.compiled;
  mk_timeline("%d kernels from the cache, %d compiled", prepared.hits, prepared.compiled);
  for (int i = 0; i < count; i++) {
    const mk_cubin *c = &prepared.cubins[i];
    if (!fresh[i]) continue;
    if (c->data) {
      load(d, &sources[i], c, &kernels[i], arena);
    } else {
      const char *why = c->message ? c->message : "it was not compiled";
      mk_log(MK_LOG_WARNING, "%s", why);
      fail(&kernels[i], why, arena);
    }
  }
  mk_prepared_free(&prepared);
  mk_timeline("%d modules loaded", total);
  return true;
}

static bool add_file(mk_text *out, const char *file, mk_status *st) {
  char path[PATH_MAX], relative[128];
  size_t bytes;
  snprintf(relative, sizeof relative, "templates/%s", file);
  char *text = mk_env_data_path(relative, path, st) ? mk_file_read(path, &bytes, st) : NULL;
  if (!text) return false;
  mk_text_addf(out, "%s\n", text);
  free(text);
  if (out->failed) mk_fail(st, MK_ENOMEM, "out of host memory");
  return !out->failed;
}

bool mk_gpu_kernels_of_file(mk_gpu_device *d, const char *file, const char *const *names, int count, mk_gpu_kernel *kernel,
                            CUfunction *out, mk_arena *arena, mk_status *st) {
  mk_text source = {0};
  bool wanted = true, ok = add_file(&source, "prelude.cuh", st) && add_file(&source, file, st);
  mk_kernel k = {.source = mk_text_str(&source), .min_arch = 80};
  for (int i = 0; i < count && !k.name; i++) k.name = names[i];
  ok = ok && mk_gpu_kernels_load(d, &k, 1, &wanted, NULL, kernel, arena, NULL, NULL, st);
  mk_text_free(&source);
  if (ok && !kernel->module) ok = (mk_fail(st, MK_ECOMPILE, "templates/%s: %s", file, kernel->why), false);
  for (int i = 0; ok && i < count; i++)
    if (names[i]) ok = MK_CU(d->cu, st, cuModuleGetFunction(&out[i], kernel->module, names[i]));
  return ok;
}

void mk_gpu_kernels_free(mk_gpu_device *d, mk_gpu_kernel *kernels, int count) {
  for (int i = 0; i < count; i++) {
    if (kernels[i].module) d->cu->cuModuleUnload(kernels[i].module);
    kernels[i] = (mk_gpu_kernel){0};
  }
}

#include "runtime/gpu/info.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/gpu/cache.h"
#include "runtime/gpu/compiler.h"

void mk_info_add_bytes(mk_text *out, int64_t bytes) {
  static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    unit++;
  }
  mk_text_addf(out, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void add_gpu(const mk_driver *d, int ordinal, mk_text *out, mk_text *missing) {
  CUdevice device;
  char name[128] = "?";
  size_t bytes = 0;
  int major = 0, minor = 0, sms = 0;
  mk_status st = {0}, unsupported = {0};
  char arch[16];
  if (MK_CU(d, &st, cuDeviceGet(&device, ordinal)) && MK_CU(d, &st, cuDeviceGetName(name, sizeof name, device)) &&
      MK_CU(d, &st, cuDeviceTotalMem(&bytes, device)) &&
      MK_CU(d, &st, cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)) &&
      MK_CU(d, &st, cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)) &&
      MK_CU(d, &st, cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device))) {
    mk_text_addf(out, "GPU %-8d %s, sm_%d%d, %d multiprocessors, ", ordinal, name, major, minor, sms);
    mk_info_add_bytes(out, (int64_t)bytes);
    mk_text_add(out, "\n");
    if (!mk_arch_name(major * 10 + minor, arch, &unsupported))
      mk_text_addf(missing, "- GPU %d: %s\n", ordinal, unsupported.message);
  } else {
    mk_text_addf(missing, "- GPU %d: %s\n", ordinal, st.message);
  }
}

/* Returns the newest major CUDA version that the driver accepts; 0: any, as there is none. */
static int add_driver(mk_text *out, mk_text *missing) {
  mk_driver *d = calloc(1, sizeof *d);
  mk_status st = {0};
  int count = 0, version = 0;
  if (!d) return 0;
  bool usable = mk_driver_open(d, &st) && MK_CU(d, &st, cuDeviceGetCount(&count));
  for (int i = 0; i < count; i++) add_gpu(d, i, out, missing);
  if (count == 0) mk_text_add(out, "GPU          none that can be used; --backend cpu works without\n");
  if (d->version)
    mk_text_addf(out, "driver       supports CUDA %d.%d, %s\n", d->version / 1000, d->version % 1000 / 10, d->path);
  else
    mk_text_add(out, "driver       not found\n");
  if (!usable) mk_text_addf(missing, "- %s\n", st.message);
  if (usable) version = d->version;
  free(d);
  return version / 1000;
}

static void add_nvrtc(int max_major, mk_text *out, mk_text *missing) {
  mk_nvrtc *n = calloc(1, sizeof *n);
  mk_status st = {0};
  if (!n) return;
  if (mk_nvrtc_open(n, NULL, max_major, &st)) {
    mk_text_addf(out, "NVRTC        %d.%d, %s\n", n->major, n->minor, n->path);
  } else {
    mk_text_add(out, "NVRTC        not found\n");
    mk_text_addf(missing, "- %s\n", st.message);
  }
  free(n);
}

static void add_cublaslt(int max_major, mk_text *out, mk_text *missing) {
  mk_cublaslt *lt = calloc(1, sizeof *lt);
  mk_status st = {0};
  if (!lt) return;
  if (mk_cublaslt_open(lt, max_major, &st)) {
    mk_text_addf(out, "cuBLASLt     %zu.%zu.%zu, %s\n", lt->version / 10000, lt->version / 100 % 100, lt->version % 100,
                 lt->path);
  } else {
    mk_text_add(out, "cuBLASLt     not found; generated matmul kernels are used alone\n");
    mk_text_addf(missing, "- %s\n", st.message);
  }
  free(lt);
}

static void add_folders(mk_text *out, mk_text *missing) {
  const mk_env *env = mk_env_get();
  if (!env->cache_dir[0]) {
    mk_text_add(out, "cache        none\n");
    mk_text_add(missing, "- there is no home folder to keep compiled kernels in; set MOONKILN_CACHE\n");
  } else if (!mk_dir_exists(env->cache_dir)) {
    mk_text_addf(out, "cache        %s, not made yet\n", env->cache_dir);
  } else {
    mk_cache cache;
    mk_cache_open(&cache, NULL);
    mk_cache_size size = mk_cache_measure(&cache);
    mk_text_addf(out, "cache        %s, %d kernels, ", env->cache_dir, size.entries);
    mk_info_add_bytes(out, size.bytes);
    mk_text_add(out, cache.writable ? "\n" : ", cannot be written\n");
  }
  mk_text_addf(out, "data         %s\n", env->data_dir[0] ? env->data_dir : "not found");
  if (!env->data_dir[0])
    mk_text_add(missing, "- the folder with scripts/ and templates/ was not found beside the program; set MOONKILN_DATA\n");
  mk_text_addf(out, "cores        %d (%d compile workers, %d threads of the CPU backend)\n", env->cores, env->worker_count,
               env->thread_count);
}

void mk_info_print(mk_text *out) {
  mk_text missing = {0};
  int max_major = add_driver(out, &missing);
  add_nvrtc(max_major, out, &missing);
  add_cublaslt(max_major, out, &missing);
  add_folders(out, &missing);
  if (missing.len) mk_text_addf(out, "\nmissing:\n%s", missing.data);
  mk_text_free(&missing);
}

void mk_info_print_environment(mk_text *out) {
  int count;
  const mk_env_switch *switches = mk_env_switches(&count);
  mk_text_add(out, "| variable | default | meaning |\n|---|---|---|\n");
  for (int i = 0; i < count; i++)
    mk_text_addf(out, "| `%s` | %s | %s |\n", switches[i].name, switches[i].standard, switches[i].meaning);
}

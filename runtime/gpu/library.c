#include "runtime/gpu/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <glob.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"

/* Newest major version looked for; a future one is found under its unversioned name. */
enum { NEWEST_MAJOR = 16 };

typedef struct symbol {
  const char *name;
  void **slot;
} symbol;

static bool resolve(void *handle, const symbol *symbols, size_t count, const char *path, const char *advice, mk_status *st) {
  for (size_t i = 0; i < count; i++) {
    *symbols[i].slot = dlsym(handle, symbols[i].name);
    if (*symbols[i].slot) continue;
    mk_fail(st, MK_EGPU, "%s has no function %s; %s", path, symbols[i].name, advice);
    return false;
  }
  return true;
}

static void library_path(void *handle, char path[PATH_MAX]) {
  struct link_map *map = NULL;
  path[0] = 0;
  if (!dlinfo(handle, RTLD_DI_LINKMAP, &map) && map && !realpath(map->l_name, path)) snprintf(path, PATH_MAX, "%s", map->l_name);
}

/* ---- the driver ---- */

bool mk_driver_check(const mk_driver *driver, CUresult result, const char *call, mk_status *st) {
  if (result == CUDA_SUCCESS) return true;
  const char *name = NULL, *text = NULL;
  driver->cuGetErrorName(result, &name);
  driver->cuGetErrorString(result, &text);
  mk_fail(st, MK_EGPU, "%s failed: %s (%s)", call, text ? text : "unknown error", name ? name : "?");
  return false;
}

bool mk_driver_start(mk_driver *d, mk_status *st) {
  CUresult result = d->cuInit(0);
  mk_timeline("driver initialised");
  if (result == CUDA_SUCCESS) return true;
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (result == CUDA_ERROR_NO_DEVICE)
    mk_fail(st, MK_EGPU, "the NVIDIA driver sees no GPU%s%s", visible ? "; CUDA_VISIBLE_DEVICES is " : "",
            visible ? visible : "");
  else if (result == CUDA_ERROR_STUB_LIBRARY)
    mk_fail(st, MK_EGPU, "%s is the toolkit's stub, not the driver; take its folder out of LD_LIBRARY_PATH", d->path);
  else if (result == CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)
    mk_fail(st, MK_EGPU, "the NVIDIA kernel module and %s are of different versions; restart the machine after a driver update",
            d->path);
  else if (result == CUDA_ERROR_SYSTEM_NOT_READY)
    mk_fail(st, MK_EGPU, "the GPUs are not ready; on NVSwitch systems the service nvidia-fabricmanager must be running");
  else
    mk_driver_check(d, result, "cuInit(0)", st);
  return false;
}

bool mk_driver_load(mk_driver *d, mk_status *st) {
  *d = (mk_driver){0};
  void *handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!handle) handle = dlopen("/usr/lib/wsl/lib/libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    mk_fail(st, MK_EGPU,
            "no NVIDIA driver found (libcuda.so.1): install the NVIDIA driver, in a container start it with access to the GPU, "
            "or use "
            "--backend cpu");
    return false;
  }
  library_path(handle, d->path);
  /* The version first: an old driver lacks some of the other functions, and "too old" is the better message. */
  d->cuDriverGetVersion = (CUresult(*)(int *))dlsym(handle, "cuDriverGetVersion");
  if (!d->cuDriverGetVersion || d->cuDriverGetVersion(&d->version) != CUDA_SUCCESS) {
    mk_fail(st, MK_EGPU, "%s does not answer as an NVIDIA driver", d->path);
    return false;
  }
  if (d->version < MK_MIN_DRIVER) {
    mk_fail(st, MK_EGPU, "the NVIDIA driver supports CUDA %d.%d, but %d.%d or newer is needed: update the driver (525 or newer)",
            d->version / 1000, d->version % 1000 / 10, MK_MIN_DRIVER / 1000, MK_MIN_DRIVER % 1000 / 10);
    return false;
  }
  const symbol symbols[] = {
#define MK_DRIVER(result, field, name, parameters) {#name, (void **)&d->field},
#include "runtime/gpu/symbols.def"
  };
  if (!resolve(handle, symbols, sizeof symbols / sizeof *symbols, d->path, "update the NVIDIA driver", st)) return false;
  mk_timeline("driver loaded");
  return true;
}

bool mk_driver_open(mk_driver *d, mk_status *st) { return mk_driver_load(d, st) && mk_driver_start(d, st); }

/* ---- libraries of the toolkit ---- */

typedef struct search {
  const char *library; /* "libnvrtc" */
  int max_major;       /* 0: any */
  void *handle;
} search;

static bool try_file(search *s, const char *path) {
  s->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (s->handle) return true;
  if (mk_file_exists(path)) mk_log(MK_LOG_WARNING, "%s does not load: %s", path, dlerror());
  return false;
}

/* Folder NULL: the loader's own search. */
static bool try_folder(search *s, const char *folder) {
  char path[PATH_MAX];
  int newest = s->max_major ? s->max_major : NEWEST_MAJOR;
  for (int major = newest; major >= MK_MIN_NVRTC_MAJOR; major--) {
    int n = snprintf(path, sizeof path, "%s%s%s.so.%d", folder ? folder : "", folder ? "/" : "", s->library, major);
    if (n < (int)sizeof path && (!folder || mk_file_exists(path)) && try_file(s, path)) return true;
  }
  /* The unversioned name may be any version: only when any will do. */
  int n = snprintf(path, sizeof path, "%s%s%s.so", folder ? folder : "", folder ? "/" : "", s->library);
  return !s->max_major && n < (int)sizeof path && (!folder || mk_file_exists(path)) && try_file(s, path);
}

static bool try_glob(search *s, const char *base, const char *pattern) {
  char full[PATH_MAX];
  glob_t found;
  if (!base || !*base || snprintf(full, sizeof full, "%s%s", base, pattern) >= (int)sizeof full) return false;
  if (glob(full, GLOB_ONLYDIR, NULL, &found)) return false;
  for (size_t i = found.gl_pathc; i-- > 0 && !s->handle;) /* sorted by name: the newest toolkit is last */
    try_folder(s, found.gl_pathv[i]);
  globfree(&found);
  return s->handle != NULL;
}

static bool try_everywhere(search *s) {
  const char *set = mk_env_get()->cuda;
  if (set) return try_glob(s, set, "") || try_glob(s, set, "/lib64") || try_glob(s, set, "/lib");
  return try_folder(s, NULL) || try_glob(s, getenv("CUDA_HOME"), "/lib64") || try_glob(s, getenv("CUDA_PATH"), "/lib64") ||
         try_glob(s, "/usr/local", "/cuda/lib64") || try_glob(s, "/usr/local", "/cuda-*/lib64") ||
         try_glob(s, "/opt/cuda", "/lib64") || try_glob(s, getenv("VIRTUAL_ENV"), "/lib/python3*/site-packages/nvidia/*/lib") ||
         try_glob(s, getenv("CONDA_PREFIX"), "/lib") ||
         try_glob(s, getenv("HOME"), "/.local/lib/python3*/site-packages/nvidia/*/lib") ||
         try_glob(s, "/usr/local", "/lib/python3*/*-packages/nvidia/*/lib") ||
         try_glob(s, "/usr", "/lib/python3*/*-packages/nvidia/*/lib");
}

static void *open_library(const char *library, const char *what, const char *path, int max_major, const char *packages,
                          mk_status *st) {
  search s = {library, max_major, NULL};
  if (path) {
    if (!try_file(&s, path)) mk_fail(st, MK_EGPU, "%s does not load", path);
    return s.handle;
  }
  if (try_everywhere(&s)) return s.handle;
  const char *set = mk_env_get()->cuda;
  char limit[96] = "";
  if (max_major) snprintf(limit, sizeof limit, " of CUDA %d or older (the newest that the driver accepts)", max_major);
  if (set)
    mk_fail(st, MK_EGPU, "%s (%s.so)%s is not in MOONKILN_CUDA, %s", what, library, limit, set);
  else
    mk_fail(st, MK_EGPU,
            "%s (%s.so)%s was not found: install CUDA's libraries (%s), or set MOONKILN_CUDA to the folder that holds them", what,
            library, limit, packages);
  return NULL;
}

typedef struct note_search {
  ElfW(Addr) base;
  char *out;
  size_t size;
} note_search;

static int read_build_id(struct dl_phdr_info *info, size_t size, void *user) {
  (void)size;
  note_search *s = user;
  if (info->dlpi_addr != s->base) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type != PT_NOTE) continue;
    const char *p = (const char *)(s->base + segment->p_vaddr), *end = p + segment->p_memsz;
    while (p + sizeof(ElfW(Nhdr)) <= end) {
      const ElfW(Nhdr) *note = (const ElfW(Nhdr) *)p;
      const char *name = p + sizeof *note;
      const unsigned char *id = (const unsigned char *)name + ((note->n_namesz + 3) & ~3u);
      if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
        size_t n = 0;
        for (uint32_t k = 0; k < note->n_descsz && n + 3 <= s->size; k++)
          n += (size_t)snprintf(s->out + n, s->size - n, "%02x", id[k]);
        return 1;
      }
      p = (const char *)id + ((note->n_descsz + 3) & ~3u);
    }
  }
  return 1;
}

static void identify(void *handle, const char *path, char *out, size_t size) {
  struct link_map *map = NULL;
  struct stat info;
  out[0] = 0;
  if (!dlinfo(handle, RTLD_DI_LINKMAP, &map) && map) dl_iterate_phdr(read_build_id, &(note_search){map->l_addr, out, size});
  if (!out[0] && !stat(path, &info)) snprintf(out, size, "%lld-%lld", (long long)info.st_size, (long long)info.st_mtime);
}

/* NVRTC opens its builtins by name only: with NVRTC outside the loader's folders, they must be there already. */
static void load_builtins(const mk_nvrtc *n) {
  char path[PATH_MAX + 64];
  const char *slash = strrchr(n->path, '/');
  if (!slash) return;
  snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - n->path), n->path, n->major, n->minor);
  if (mk_file_exists(path) && !dlopen(path, RTLD_NOW | RTLD_GLOBAL))
    mk_log(MK_LOG_WARNING, "%s does not load: %s", path, dlerror());
}

bool mk_nvrtc_open(mk_nvrtc *n, const char *path, int max_major, mk_status *st) {
  *n = (mk_nvrtc){0};
  void *handle = open_library("libnvrtc", "NVIDIA's runtime compiler NVRTC", path, max_major,
                              "for Debian and Ubuntu from NVIDIA: cuda-nvrtc-13-0", st);
  if (!handle) return false;
  library_path(handle, n->path);
  const symbol symbols[] = {
#define MK_NVRTC(result, field, name, parameters) {#name, (void **)&n->field},
#include "runtime/gpu/symbols.def"
  };
  if (!resolve(handle, symbols, sizeof symbols / sizeof *symbols, n->path, "install CUDA 12 or newer", st)) return false;
  if (n->nvrtcVersion(&n->major, &n->minor) != NVRTC_SUCCESS || n->major < MK_MIN_NVRTC_MAJOR) {
    mk_fail(st, MK_EGPU, "%s is NVRTC %d.%d; %d.0 or newer is needed", n->path, n->major, n->minor, MK_MIN_NVRTC_MAJOR);
    return false;
  }
  identify(handle, n->path, n->build, sizeof n->build);
  load_builtins(n);
  mk_timeline("NVRTC loaded");
  return true;
}

bool mk_cublaslt_open(mk_cublaslt *lt, int max_major, mk_status *st) {
  *lt = (mk_cublaslt){0};
  void *handle =
      open_library("libcublasLt", "cuBLASLt", NULL, max_major, "for Debian and Ubuntu from NVIDIA: libcublas-13-0", st);
  if (!handle) return false;
  library_path(handle, lt->path);
  const symbol symbols[] = {
#define MK_CUBLASLT(result, field, name, parameters) {#name, (void **)&lt->field},
#include "runtime/gpu/symbols.def"
  };
  if (!resolve(handle, symbols, sizeof symbols / sizeof *symbols, lt->path, "install CUDA 12 or newer", st)) return false;
  lt->version = lt->cublasLtGetVersion();
  return true;
}

bool mk_cublaslt_check(const mk_cublaslt *lt, cublasStatus_t result, const char *call, mk_status *st) {
  if (result == CUBLAS_STATUS_SUCCESS) return true;
  mk_fail(st, MK_EGPU, "%s failed: %s (%s)", call, lt->cublasLtGetStatusString(result), lt->cublasLtGetStatusName(result));
  return false;
}

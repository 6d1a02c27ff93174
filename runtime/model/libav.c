#include "runtime/model/libav.h"

#if MK_HAS_LIBAV

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static void *load(const char *folder, const char *name, int major, mk_status *st) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s%slib%s.so.%d", folder ? folder : "", folder ? "/" : "", name, major);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library)
    mk_fail(st, MK_EUNSUPPORTED, "lib%s.so.%d does not load (%s); install FFmpeg's libraries of that version", name, major,
            dlerror());
  return library;
}

static void *symbol(void *library, const char *name, mk_status *st) {
  void *p = library ? dlsym(library, name) : NULL;
  if (!p) mk_fail(st, MK_EUNSUPPORTED, "FFmpeg's libraries lack %s", name);
  return p;
}

bool mk_libav_load(const char *folder, mk_libav *out, mk_status *st) {
  void *avutil = load(folder, "avutil", LIBAVUTIL_VERSION_MAJOR, st);
  void *avcodec = avutil ? load(folder, "avcodec", LIBAVCODEC_VERSION_MAJOR, st) : NULL;
  void *avformat = avcodec ? load(folder, "avformat", LIBAVFORMAT_VERSION_MAJOR, st) : NULL;
#define X(library, function) out->function = (__typeof__(out->function))symbol(library, #function, st);
#include "runtime/model/libav.def"
#undef X
  return !mk_failed(st);
}

bool mk_libav_failed(const mk_libav *av, const char *path, const char *what, int code, mk_status *st) {
  char text[128] = "unknown error";
  av->av_strerror(code, text, sizeof text);
  mk_fail(st, code == AVERROR(ENOMEM) ? MK_ENOMEM : MK_EIO, "cannot write %s: %s: %s", path, what, text);
  return false;
}

#else
typedef int mk_libav_absent; /* a translation unit must not be empty */
#endif

/* FFmpeg's libraries, loaded when first needed: the program starts and works without them. */
#ifndef MK_MODEL_LIBAV_H
#define MK_MODEL_LIBAV_H

#include "runtime/base/status.h"

#if __has_include(<libavcodec/avcodec.h>) && __has_include(<libavformat/avformat.h>)
#define MK_HAS_LIBAV 1
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>

typedef struct mk_libav {
#define X(library, function) __typeof__(&(function)) function;
#include "runtime/model/libav.def"
#undef X
} mk_libav;

/* Fills the table from the major versions that this program was built with: structs differ between them. folder NULL: where the
 * system looks. False with MK_EUNSUPPORTED and the names of what is missing. Libraries stay loaded. */
bool mk_libav_load(const char *folder, mk_libav *out, mk_status *st);

/* Records that FFmpeg refused while writing path; `what` was being done. False, for `return`. */
bool mk_libav_failed(const mk_libav *av, const char *path, const char *what, int code, mk_status *st);
#else
#define MK_HAS_LIBAV 0
#endif

#endif

/* Which NVRTC there is, noted in the cache's folder: with all kernels in the cache nothing is compiled, and looking for the
 * library and loading it would be a good part of the start. */
#ifndef MK_GPU_NVRTC_NOTE_H
#define MK_GPU_NVRTC_NOTE_H

#include "runtime/gpu/cache.h"
#include "runtime/gpu/library.h"

/* Path, version and build of what mk_nvrtc_open would load, without its functions. The note counts for a day, in the same
 * environment, as long as the library's file stays as it was; otherwise NVRTC is loaded, and noted. */
bool mk_nvrtc_identify(mk_nvrtc *nvrtc, const mk_cache *cache, int max_major, mk_status *st);

#endif

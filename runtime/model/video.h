/* Frames to a file: .mp4 where libav is found at run time, .y4m, .safetensors, or a contact sheet as .png (libav again). The file
 * appears when it is whole. */
#ifndef MK_MODEL_VIDEO_H
#define MK_MODEL_VIDEO_H

#include "runtime/base/tensor.h"

typedef struct mk_video mk_video;

typedef struct mk_video_options {
  int64_t width, height, frames;
  double fps;               /* 0: 16 */
  double quality;           /* of .mp4: 1..10, better is larger; 0: 8, which is H.264 at a constant rate factor of 10 */
  bool planar;              /* frames come as [3, n, height, width]; else [n, height, width, 3] */
  const mk_tensor *latents; /* .safetensors: saved beside "frames" as "latents" if not NULL; borrowed until the end */
  const char *libav_folder; /* of libavcodec, libavformat and libavutil; NULL: where the system looks */
} mk_video_options;

/* Format by the path's extension. An .mp4 that cannot be encoded here becomes a .y4m beside it, with a warning that says why.
 * The folder is tried now, before hours of work. NULL on failure. */
mk_video *mk_video_open(const char *path, const mk_video_options *options, mk_status *st);
const char *mk_video_path(const mk_video *v); /* where the file will be */

/* The next n frames: f32 red, green, blue in -1..1 (clamped; NaN is black). Stored in .safetensors as given, as
 * "frames" [frames, height, width, 3]; elsewhere in 8 bits, truncated as Wan's own writer does. */
bool mk_video_frames(mk_video *v, const float *frames, int64_t n, mk_status *st);

/* Ends v in every case. False if something failed or frames are missing; then nothing is left behind. */
bool mk_video_finish(mk_video *v, mk_status *st);
void mk_video_discard(mk_video *v); /* NULL is fine */

/* Whether .mp4 can be written, and with what: one line into text ("H.264 (libx264), libavcodec 59"; or what is missing). */
bool mk_video_mp4_available(const char *libav_folder, char *text, size_t size);

#endif

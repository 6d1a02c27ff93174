/* The formats behind video.c. Each takes 8-bit frames [height, width, 3] one by one, except safetensors, which takes floats. */
#ifndef MK_MODEL_VIDEO_SINK_H
#define MK_MODEL_VIDEO_SINK_H

#include "runtime/model/video.h"

typedef struct mk_rate { /* frames a second as a fraction */
  int num, den;
} mk_rate;

typedef struct mk_video_sink mk_video_sink;
struct mk_video_sink { /* formats embed this first */
  bool floats;         /* `frame` takes const float *, else const uint8_t * */
  bool (*frame)(mk_video_sink *s, const void *rgb, mk_status *st);
  bool (*finish)(mk_video_sink *s, mk_status *st); /* ends s in every case; the file appears or nothing is left */
  void (*discard)(mk_video_sink *s);
};

mk_video_sink *mk_y4m_open(const char *path, const mk_video_options *o, mk_rate rate, mk_status *st);
mk_video_sink *mk_mp4_open(const char *path, const mk_video_options *o, mk_rate rate,
                           mk_status *st); /* MK_EUNSUPPORTED: no encoder */
/* A contact sheet. MK_EUNSUPPORTED: no encoder. */
mk_video_sink *mk_png_open(const char *path, const mk_video_options *o, mk_status *st);

/* One picture to planes of luma and half-size chroma (limited range, chroma sited left as MPEG-2 and H.264 have it). */
typedef enum mk_matrix { MK_BT601, MK_BT709 } mk_matrix;
void mk_rgb_to_yuv420(const uint8_t *rgb, int64_t width, int64_t height, mk_matrix matrix, uint8_t *const planes[3],
                      const int strides[3]);

#endif

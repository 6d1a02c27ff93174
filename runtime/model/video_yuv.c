/* RGB to YUV 4:2:0, and the one format that is nothing more: .y4m, uncompressed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/out_file.h"
#include "runtime/model/video_sink.h"

typedef struct weights { /* of red and blue in luma */
  float red, blue;
} weights;

static const weights matrices[] = {[MK_BT601] = {0.299f, 0.114f}, [MK_BT709] = {0.2126f, 0.0722f}};

static float luma(weights k, float r, float g, float b) { return k.red * r + (1 - k.red - k.blue) * g + k.blue * b; }

/* Sum over a row's pixels x - 1, x, x + 1 with weights 1, 2, 1: the chroma sample sits on pixel x. Pixels beyond an edge repeat
 * it. */
static void sum_row(const uint8_t *row, int64_t width, int64_t x, float sum[3]) {
  const uint8_t *left = row + 3 * (x > 0 ? x - 1 : x), *here = row + 3 * x, *right = row + 3 * (x + 1 < width ? x + 1 : x);
  for (int c = 0; c < 3; c++) sum[c] += (float)(left[c] + 2 * here[c] + right[c]);
}

void mk_rgb_to_yuv420(const uint8_t *rgb, int64_t width, int64_t height, mk_matrix matrix, uint8_t *const planes[3],
                      const int strides[3]) {
  weights k = matrices[matrix];
  const float to_blue = 224.0f / 255 / (2 * (1 - k.blue)), to_red = 224.0f / 255 / (2 * (1 - k.red));
  for (int64_t y = 0; y < height; y++) {
    const uint8_t *row = rgb + 3 * width * y;
    for (int64_t x = 0; x < width; x++) {
      const uint8_t *p = row + 3 * x;
      planes[0][y * strides[0] + x] = (uint8_t)(16.5f + 219.0f / 255 * luma(k, p[0], p[1], p[2]));
    }
  }
  for (int64_t y = 0; y < height; y += 2)
    for (int64_t x = 0; x < width; x += 2) {
      float sum[3] = {0};
      sum_row(rgb + 3 * width * y, width, x, sum);
      sum_row(rgb + 3 * width * (y + 1 < height ? y + 1 : y), width, x, sum);
      float r = sum[0] / 8, g = sum[1] / 8, b = sum[2] / 8, l = luma(k, r, g, b);
      planes[1][y / 2 * strides[1] + x / 2] = (uint8_t)(128.5f + to_blue * (b - l));
      planes[2][y / 2 * strides[2] + x / 2] = (uint8_t)(128.5f + to_red * (r - l));
    }
}

typedef struct y4m_sink {
  mk_video_sink base;
  mk_out_file *file;
  int64_t width, height;
  uint8_t *picture; /* "FRAME\n" and the three planes */
  size_t bytes;
} y4m_sink;

static const char FRAME[] = "FRAME\n";
enum { FRAME_BYTES = sizeof FRAME - 1 };

static void y4m_drop(y4m_sink *s) {
  free(s->picture);
  free(s);
}

static bool y4m_frame(mk_video_sink *base, const void *rgb, mk_status *st) {
  y4m_sink *s = (y4m_sink *)base;
  int64_t half_width = (s->width + 1) / 2, half_height = (s->height + 1) / 2;
  uint8_t *luma_plane = s->picture + FRAME_BYTES, *blue = luma_plane + s->width * s->height;
  mk_rgb_to_yuv420(rgb, s->width, s->height, MK_BT601, (uint8_t *const[3]){luma_plane, blue, blue + half_width * half_height},
                   (const int[3]){(int)s->width, (int)half_width, (int)half_width});
  return mk_out_write(s->file, s->picture, s->bytes, st);
}

static bool y4m_finish(mk_video_sink *base, mk_status *st) {
  y4m_sink *s = (y4m_sink *)base;
  bool ok = mk_out_commit(s->file, st);
  y4m_drop(s);
  return ok;
}

static void y4m_discard(mk_video_sink *base) {
  y4m_sink *s = (y4m_sink *)base;
  mk_out_discard(s->file);
  y4m_drop(s);
}

mk_video_sink *mk_y4m_open(const char *path, const mk_video_options *o, mk_rate rate, mk_status *st) {
  size_t chroma = (size_t)((o->width + 1) / 2 * ((o->height + 1) / 2));
  size_t bytes = FRAME_BYTES + (size_t)(o->width * o->height) + 2 * chroma;
  y4m_sink *s = calloc(1, sizeof *s);
  if (s) s->picture = malloc(bytes);
  if (!s || !s->picture) {
    mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path);
    free(s);
    return NULL;
  }
  s->base = (mk_video_sink){false, y4m_frame, y4m_finish, y4m_discard};
  s->width = o->width;
  s->height = o->height;
  s->bytes = bytes;
  memcpy(s->picture, FRAME, FRAME_BYTES);
  char header[128]; /* the matrix has no field: readers take BT.601 */
  int n = snprintf(header, sizeof header, "YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED\n",
                   (int)o->width, (int)o->height, rate.num, rate.den);
  s->file = mk_out_open(path, st);
  if (s->file && mk_out_write(s->file, header, (size_t)n, st)) return &s->base;
  mk_out_discard(s->file);
  y4m_drop(s);
  return NULL;
}

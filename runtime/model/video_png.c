/* .png: a contact sheet, frames evenly spaced from the first to the last in a grid, through libav's encoder. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/out_file.h"
#include "runtime/model/libav.h"
#include "runtime/model/video_sink.h"

#if MK_HAS_LIBAV

enum { TILES = 9, BORDER = 2, BORDER_GREY = 128, LARGEST_TILE = 640 };

typedef struct png_sink {
  mk_video_sink base;
  mk_libav av;
  mk_out_file *file;
  AVCodecContext *codec;
  AVFrame *sheet;
  AVPacket *packet;
  int64_t width, frames, done;               /* of the clip */
  int tiles, columns, shrink, border, shown; /* a pixel of a tile is the mean of shrink × shrink */
  int64_t tile_width, tile_height;
} png_sink;

static bool failed(png_sink *s, const char *what, int code, mk_status *st) {
  return mk_libav_failed(&s->av, mk_out_path(s->file), what, code, st);
}

static void drop(png_sink *s) {
  if (s->sheet) s->av.av_frame_free(&s->sheet);
  if (s->packet) s->av.av_packet_free(&s->packet);
  if (s->codec) s->av.avcodec_free_context(&s->codec);
  free(s);
}

/* The frame that a tile shows. */
static int64_t frame_of(const png_sink *s, int tile) {
  return s->tiles < 2 ? 0 : (tile * (s->frames - 1) + (s->tiles - 1) / 2) / (s->tiles - 1);
}

static void place(png_sink *s, const uint8_t *rgb, int tile) {
  int64_t n = s->shrink, x0 = s->border + tile % s->columns * (s->tile_width + s->border),
          y0 = s->border + tile / s->columns * (s->tile_height + s->border);
  for (int64_t y = 0; y < s->tile_height; y++) {
    uint8_t *to = s->sheet->data[0] + (y0 + y) * s->sheet->linesize[0] + 3 * x0;
    for (int64_t x = 0; x < s->tile_width; x++)
      for (int64_t c = 0; c < 3; c++) {
        int64_t sum = n * n / 2;
        for (int64_t i = 0; i < n * n; i++) sum += rgb[((y * n + i / n) * s->width + x * n + i % n) * 3 + c];
        *to++ = (uint8_t)(sum / (n * n));
      }
  }
}

static bool png_frame(mk_video_sink *base, const void *rgb, mk_status *st) {
  (void)st;
  png_sink *s = (png_sink *)base;
  if (s->shown < s->tiles && frame_of(s, s->shown) == s->done) place(s, rgb, s->shown++);
  s->done++;
  return true;
}

static bool png_finish(mk_video_sink *base, mk_status *st) {
  png_sink *s = (png_sink *)base;
  int code = s->av.avcodec_send_frame(s->codec, s->sheet);
  if (code >= 0) code = s->av.avcodec_receive_packet(s->codec, s->packet);
  bool ok = code >= 0 || failed(s, "encoding", code, st);
  if (ok && mk_out_write(s->file, s->packet->data, (size_t)s->packet->size, st))
    ok = mk_out_commit(s->file, st);
  else
    mk_out_discard(s->file), ok = false;
  drop(s);
  return ok;
}

static void png_discard(mk_video_sink *base) {
  mk_out_discard(((png_sink *)base)->file);
  drop((png_sink *)base);
}

static void lay_out(png_sink *s, const mk_video_options *o) {
  int64_t larger = o->width > o->height ? o->width : o->height, smaller = o->width + o->height - larger;
  s->width = o->width;
  s->frames = o->frames;
  s->tiles = o->frames < TILES ? (int)o->frames : TILES;
  s->border = s->tiles > 1 ? BORDER : 0;
  s->columns = 1;
  while (s->columns * s->columns < s->tiles) s->columns++;
  int64_t shrink = (larger + LARGEST_TILE - 1) / LARGEST_TILE;
  s->shrink = (int)(shrink < smaller ? shrink : smaller);
  s->tile_width = o->width / s->shrink;
  s->tile_height = o->height / s->shrink;
}

static bool open_encoder(png_sink *s, const AVCodec *codec, mk_status *st) {
  int rows = (s->tiles + s->columns - 1) / s->columns;
  s->codec = s->av.avcodec_alloc_context3(codec);
  s->sheet = s->av.av_frame_alloc();
  s->packet = s->av.av_packet_alloc();
  if (!s->codec || !s->sheet || !s->packet) return failed(s, "setting up", AVERROR(ENOMEM), st);
  s->sheet->format = s->codec->pix_fmt = AV_PIX_FMT_RGB24;
  s->sheet->width = s->codec->width = (int)(s->border + s->columns * (s->tile_width + s->border));
  s->sheet->height = s->codec->height = (int)(s->border + rows * (s->tile_height + s->border));
  s->codec->time_base = (AVRational){1, 1};
  s->codec->flags |= AV_CODEC_FLAG_BITEXACT;
  int code = s->av.avcodec_open2(s->codec, codec, NULL);
  if (code >= 0) code = s->av.av_frame_get_buffer(s->sheet, 0);
  if (code < 0) return failed(s, "the encoder does not start", code, st);
  memset(s->sheet->data[0], BORDER_GREY, (size_t)s->sheet->linesize[0] * (size_t)s->sheet->height);
  return true;
}

mk_video_sink *mk_png_open(const char *path, const mk_video_options *o, mk_status *st) {
  mk_libav av;
  if (!mk_libav_load(o->libav_folder, &av, st)) return mk_fail_context(st, "cannot write %s", path), NULL;
  av.av_log_set_level(AV_LOG_ERROR);
  const AVCodec *codec = av.avcodec_find_encoder(AV_CODEC_ID_PNG);
  if (!codec) return mk_fail(st, MK_EUNSUPPORTED, "cannot write %s: FFmpeg's libraries have no PNG encoder", path), NULL;
  png_sink *s = calloc(1, sizeof *s);
  if (!s) return mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path), NULL;
  s->base = (mk_video_sink){false, png_frame, png_finish, png_discard};
  s->av = av;
  lay_out(s, o);
  s->file = mk_out_open(path, st);
  if (s->file && open_encoder(s, codec, st)) return &s->base;
  mk_out_discard(s->file);
  drop(s);
  return NULL;
}

#else

mk_video_sink *mk_png_open(const char *path, const mk_video_options *o, mk_status *st) {
  (void)o;
  mk_fail(st, MK_EUNSUPPORTED, "cannot write %s: this program was built without FFmpeg's headers", path);
  return NULL;
}

#endif

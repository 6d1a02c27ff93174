/* .mp4 through libav: encoded in memory, a clip being small, and written at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/libav.h"
#include "runtime/base/out_file.h"
#include "runtime/model/video_sink.h"

#if MK_HAS_LIBAV

typedef struct mp4_sink {
  mk_video_sink base;
  mk_libav av;
  mk_out_file *file;
  AVFormatContext *format;
  AVCodecContext *codec;
  AVStream *stream;
  AVFrame *frame;
  AVPacket *packet;
  int64_t done;
} mp4_sink;

static bool failed(mp4_sink *s, const char *what, int code, mk_status *st) {
  return mk_libav_failed(&s->av, mk_out_path(s->file), what, code, st);
}

static void drop(mp4_sink *s) {
  if (s->format && s->format->pb) {
    uint8_t *data = NULL;
    s->av.avio_close_dyn_buf(s->format->pb, &data);
    s->av.av_free(data);
  }
  if (s->frame) s->av.av_frame_free(&s->frame);
  if (s->packet) s->av.av_packet_free(&s->packet);
  if (s->codec) s->av.avcodec_free_context(&s->codec);
  if (s->format) s->av.avformat_free_context(s->format);
  free(s);
}

static const AVCodec *find_encoder(const mk_libav *av) {
  const AVCodec *h264 = av->avcodec_find_encoder_by_name("libx264");
  return h264 ? h264 : av->avcodec_find_encoder(AV_CODEC_ID_MPEG4);
}

static bool open_codec(mp4_sink *s, const AVCodec *codec, const mk_video_options *o, mk_rate rate, mk_status *st) {
  AVCodecContext *c = s->codec;
  c->width = (int)o->width;
  c->height = (int)o->height;
  c->pix_fmt = AV_PIX_FMT_YUV420P;
  c->time_base = (AVRational){rate.den, rate.num};
  c->framerate = (AVRational){rate.num, rate.den};
  c->color_range = AVCOL_RANGE_MPEG;
  c->colorspace = AVCOL_SPC_BT709;
  c->color_primaries = AVCOL_PRI_BT709;
  c->color_trc = AVCOL_TRC_BT709;
  c->chroma_sample_location = AVCHROMA_LOC_LEFT;
  c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
  c->thread_count = 0; /* one per core */
  if (codec->id == AV_CODEC_ID_H264) {
    char crf[16];
    snprintf(crf, sizeof crf, "%d", (int)(51 * (1 - o->quality / 10)));
    s->av.av_opt_set(c->priv_data, "crf", crf, 0);
    s->av.av_opt_set(c->priv_data, "preset", "medium", 0);
  } else {
    c->flags |= AV_CODEC_FLAG_QSCALE;
    c->global_quality = FF_QP2LAMBDA * ((int)(30 * (1 - o->quality / 10)) + 1);
  }
  int code = s->av.avcodec_open2(c, codec, NULL);
  return code >= 0 || failed(s, "the encoder does not start", code, st);
}

static bool open_stream(mp4_sink *s, const AVCodec *codec, const mk_video_options *o, mk_rate rate, mk_status *st) {
  int code = s->av.avformat_alloc_output_context2(&s->format, NULL, "mp4", NULL);
  if (code >= 0) code = s->av.avio_open_dyn_buf(&s->format->pb);
  if (code < 0) return failed(s, "no mp4 writer", code, st);
  s->format->flags |= AVFMT_FLAG_BITEXACT; /* no date, no version: the same frames give the same file */
  s->stream = s->av.avformat_new_stream(s->format, NULL);
  s->codec = s->av.avcodec_alloc_context3(codec);
  s->frame = s->av.av_frame_alloc();
  s->packet = s->av.av_packet_alloc();
  if (!s->stream || !s->codec || !s->frame || !s->packet) return failed(s, "setting up", AVERROR(ENOMEM), st);
  if (!open_codec(s, codec, o, rate, st)) return false;
  s->frame->format = AV_PIX_FMT_YUV420P;
  s->frame->width = (int)o->width;
  s->frame->height = (int)o->height;
  s->stream->time_base = s->codec->time_base;
  s->stream->avg_frame_rate = s->codec->framerate;
  code = s->av.avcodec_parameters_from_context(s->stream->codecpar, s->codec);
  if (code >= 0) code = s->av.av_frame_get_buffer(s->frame, 0);
  if (code >= 0) code = s->av.avformat_write_header(s->format, NULL);
  return code >= 0 || failed(s, "the file's head", code, st);
}

/* Gives one frame (NULL: the end) to the encoder and writes what comes out. */
static bool encode(mp4_sink *s, const AVFrame *frame, mk_status *st) {
  int code = s->av.avcodec_send_frame(s->codec, frame);
  while (code >= 0) {
    code = s->av.avcodec_receive_packet(s->codec, s->packet);
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return true;
    if (code < 0) break;
    s->packet->stream_index = s->stream->index;
    s->packet->duration = 1;
    s->av.av_packet_rescale_ts(s->packet, s->codec->time_base, s->stream->time_base);
    code = s->av.av_interleaved_write_frame(s->format, s->packet);
  }
  return failed(s, "encoding", code, st);
}

static bool mp4_frame(mk_video_sink *base, const void *rgb, mk_status *st) {
  mp4_sink *s = (mp4_sink *)base;
  int code = s->av.av_frame_make_writable(s->frame);
  if (code < 0) return failed(s, "encoding", code, st);
  mk_rgb_to_yuv420(rgb, s->codec->width, s->codec->height, MK_BT709, s->frame->data, s->frame->linesize);
  s->frame->pts = s->done++;
  s->frame->quality = s->codec->global_quality; /* MPEG-4 reads it here */
  return encode(s, s->frame, st);
}

static bool mp4_finish(mk_video_sink *base, mk_status *st) {
  mp4_sink *s = (mp4_sink *)base;
  bool ok = encode(s, NULL, st);
  int code = ok ? s->av.av_write_trailer(s->format) : 0;
  if (code < 0) ok = failed(s, "the file's end", code, st);
  uint8_t *data = NULL;
  int bytes = s->av.avio_close_dyn_buf(s->format->pb, &data);
  s->format->pb = NULL;
  ok = ok && mk_out_write(s->file, data, (size_t)bytes, st);
  if (ok)
    ok = mk_out_commit(s->file, st);
  else
    mk_out_discard(s->file);
  s->av.av_free(data);
  drop(s);
  return ok;
}

static void mp4_discard(mk_video_sink *base) {
  mp4_sink *s = (mp4_sink *)base;
  mk_out_discard(s->file);
  drop(s);
}

mk_video_sink *mk_mp4_open(const char *path, const mk_video_options *o, mk_rate rate, mk_status *st) {
  mk_libav av;
  if (!mk_libav_load(o->libav_folder, &av, st)) return mk_fail_context(st, "no .mp4 can be written"), NULL;
  av.av_log_set_level(AV_LOG_ERROR);
  const AVCodec *codec = find_encoder(&av);
  if (!codec) {
    mk_fail(st, MK_EUNSUPPORTED, "no .mp4 can be written: FFmpeg's libraries have neither libx264 nor mpeg4");
    return NULL;
  }
  if (o->width % 2 || o->height % 2) {
    mk_fail(st, MK_EINPUT, "cannot write %s: %lldx%lld; .mp4 needs an even width and height", path, (long long)o->width,
            (long long)o->height);
    return NULL;
  }
  mp4_sink *s = calloc(1, sizeof *s);
  if (!s) return mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path), NULL;
  s->base = (mk_video_sink){false, mp4_frame, mp4_finish, mp4_discard};
  s->av = av;
  s->file = mk_out_open(path, st);
  if (s->file && open_stream(s, codec, o, rate, st)) return &s->base;
  mk_out_discard(s->file);
  drop(s);
  return NULL;
}

bool mk_video_mp4_available(const char *libav_folder, char *text, size_t size) {
  mk_status st = {0};
  mk_libav av;
  if (!mk_libav_load(libav_folder, &av, &st)) {
    snprintf(text, size, "%s", st.message);
    return false;
  }
  const AVCodec *codec = find_encoder(&av);
  unsigned version = av.avcodec_version();
  snprintf(text, size, "%s, libavcodec %u.%u",
           !codec                          ? "no encoder"
           : codec->id == AV_CODEC_ID_H264 ? "H.264 (libx264)"
                                           : "MPEG-4",
           version >> 16, version >> 8 & 255);
  return codec != NULL;
}

#else

mk_video_sink *mk_mp4_open(const char *path, const mk_video_options *o, mk_rate rate, mk_status *st) {
  (void)o, (void)rate;
  mk_fail(st, MK_EUNSUPPORTED, "cannot write %s: this program was built without FFmpeg's headers", path);
  return NULL;
}

bool mk_video_mp4_available(const char *libav_folder, char *text, size_t size) {
  (void)libav_folder;
  snprintf(text, size, "built without FFmpeg's headers");
  return false;
}

#endif

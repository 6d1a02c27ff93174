#include "runtime/model/video.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/model/safetensors.h"
#include "runtime/model/video_sink.h"

static const int64_t MAX_SIZE = 1 << 16, MAX_FRAMES = 1 << 20;

struct mk_video {
  mk_video_options o;
  char *path;
  mk_video_sink *sink;
  int64_t done;  /* frames */
  void *picture; /* one frame as the sink takes it */
  bool failed;
};

/* ---- .safetensors ---- */

typedef struct st_sink {
  mk_video_sink base;
  mk_st_writer *writer;
  const mk_tensor *latents;
  size_t frame_bytes;
} st_sink;

static bool st_frame(mk_video_sink *base, const void *rgb, mk_status *st) {
  st_sink *s = (st_sink *)base;
  return mk_st_write(s->writer, rgb, s->frame_bytes, st);
}

static bool st_finish(mk_video_sink *base, mk_status *st) {
  st_sink *s = (st_sink *)base;
  bool ok = !s->latents || mk_st_write(s->writer, s->latents->data, s->latents->bytes, st);
  ok = mk_st_commit(s->writer, st) && ok;
  free(s);
  return ok;
}

static void st_discard(mk_video_sink *base) {
  mk_st_discard(((st_sink *)base)->writer);
  free(base);
}

static mk_video_sink *st_open(const char *path, const mk_video_options *o, mk_rate rate, mk_status *st) {
  st_sink *s = malloc(sizeof *s);
  if (!s) {
    mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path);
    return NULL;
  }
  size_t frame_bytes = (size_t)(o->width * o->height) * 3 * sizeof(float);
  mk_tensor tensors[2] = {{.name = "frames",
                           .dtype = MK_F32,
                           .rank = 4,
                           .dims = {o->frames, o->height, o->width, 3},
                           .bytes = (size_t)o->frames * frame_bytes}};
  if (o->latents) {
    tensors[1] = *o->latents;
    tensors[1].name = "latents";
  }
  char fps[64];
  snprintf(fps, sizeof fps, "%d/%d", rate.num, rate.den);
  const char *metadata[] = {"fps", fps};
  *s = (st_sink){{true, st_frame, st_finish, st_discard}, NULL, o->latents, frame_bytes};
  s->writer = mk_st_create(path, tensors, o->latents ? 2 : 1, metadata, 1, st);
  if (s->writer) return &s->base;
  free(s);
  return NULL;
}

/* ---- opening ---- */

static mk_rate to_rate(double fps) {
  static const int dens[] = {1, 1001, 1000};
  for (size_t i = 0; i < sizeof dens / sizeof *dens; i++) {
    double num = fps * dens[i]; /* 23.976 is meant to be 24000/1001 */
    double rounded = dens[i] == 1001 ? 1000 * round(num / 1000) : round(num);
    if (fabs(num - rounded) < 5e-5 * num || dens[i] == 1000) return (mk_rate){(int)rounded, dens[i]};
  }
  return (mk_rate){16, 1};
}

static bool check(const char *path, const mk_video_options *o, mk_status *st) {
  if (o->width < 1 || o->height < 1 || o->width > MAX_SIZE || o->height > MAX_SIZE)
    mk_fail(st, MK_EINPUT, "cannot write %s: a size of %lldx%lld is not in 1..%lld", path, (long long)o->width,
            (long long)o->height, (long long)MAX_SIZE);
  else if (o->frames < 1 || o->frames > MAX_FRAMES)
    mk_fail(st, MK_EINPUT, "cannot write %s: %lld frames are not in 1..%lld", path, (long long)o->frames, (long long)MAX_FRAMES);
  else if (!(o->fps >= 0.1 && o->fps <= 1000))
    mk_fail(st, MK_EINPUT, "cannot write %s: %g frames a second are not in 0.1..1000", path, o->fps);
  else if (!(o->quality >= 1 && o->quality <= 10))
    mk_fail(st, MK_EINPUT, "cannot write %s: a quality of %g is not in 1..10", path, o->quality);
  return !mk_failed(st);
}

static bool open_sink(mk_video *v, const char *path, mk_status *st) {
  const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
  if (!dot || (slash && dot < slash)) dot = "";
  mk_rate rate = to_rate(v->o.fps);
  if (!strcmp(dot, ".safetensors")) return (v->sink = st_open(path, &v->o, rate, st)) != NULL;
  if (!strcmp(dot, ".png")) return (v->sink = mk_png_open(path, &v->o, st)) != NULL;
  if (!strcmp(dot, ".y4m")) return (v->sink = mk_y4m_open(path, &v->o, rate, st)) != NULL;
  if (strcmp(dot, ".mp4")) {
    mk_fail(st, MK_EINPUT, "cannot write %s: its name must end in .mp4, .y4m, .png or .safetensors", path);
    return false;
  }
  mk_status encoder = {0};
  v->sink = mk_mp4_open(path, &v->o, rate, &encoder);
  if (v->sink) return true;
  if (encoder.code != MK_EUNSUPPORTED) {
    mk_fail(st, encoder.code, "%s", encoder.message);
    return false;
  }
  memcpy(v->path + (dot - path), ".y4m", 4);
  mk_log(MK_LOG_WARNING, "%s; writing %s instead", encoder.message, v->path);
  return (v->sink = mk_y4m_open(v->path, &v->o, rate, st)) != NULL;
}

static void drop(mk_video *v) {
  free(v->path);
  free(v->picture);
  free(v);
}

mk_video *mk_video_open(const char *path, const mk_video_options *options, mk_status *st) {
  mk_video_options o = *options;
  if (o.fps == 0) o.fps = 16;
  if (o.quality == 0) o.quality = 8;
  if (!check(path, &o, st)) return NULL;
  mk_video *v = calloc(1, sizeof *v);
  if (v) {
    v->o = o;
    v->path = strdup(path);
    v->picture = malloc((size_t)(o.width * o.height) * 3 * sizeof(float));
  }
  if (!v || !v->path || !v->picture)
    mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path);
  else if (open_sink(v, path, st))
    return v;
  if (v) drop(v);
  return NULL;
}

const char *mk_video_path(const mk_video *v) { return v->path; }

/* ---- frames ---- */

static uint8_t to_byte(float x) {
  float y = (x + 1) * 0.5f * 255;
  return y > 0 ? (uint8_t)(y < 255 ? y : 255) : 0; /* NaN fails the first comparison */
}

/* One frame whose channel c of pixel p is at from[c * channel + p * pixel]. */
static void gather_frame(mk_video *v, const float *from, int64_t channel, int64_t pixel) {
  int64_t pixels = v->o.width * v->o.height;
  if (v->sink->floats) {
    float *to = v->picture;
    for (int64_t p = 0; p < pixels; p++)
      for (int c = 0; c < 3; c++) *to++ = from[c * channel + p * pixel];
  } else {
    uint8_t *to = v->picture;
    for (int64_t p = 0; p < pixels; p++)
      for (int c = 0; c < 3; c++) *to++ = to_byte(from[c * channel + p * pixel]);
  }
}

bool mk_video_frames(mk_video *v, const float *frames, int64_t n, mk_status *st) {
  if (n < 0 || n > v->o.frames - v->done) {
    mk_fail(st, MK_EINTERNAL, "%s: more frames than the %lld announced", v->path, (long long)v->o.frames);
    v->failed = true;
  }
  int64_t pixels = v->o.width * v->o.height;
  for (int64_t i = 0; i < n && !v->failed; i++, v->done++) {
    if (v->o.planar)
      gather_frame(v, frames + i * pixels, n * pixels, 1);
    else
      gather_frame(v, frames + i * pixels * 3, 1, 3);
    v->failed = !v->sink->frame(v->sink, v->picture, st);
  }
  return !v->failed;
}

bool mk_video_finish(mk_video *v, mk_status *st) {
  bool ok = !v->failed;
  if (ok && v->done < v->o.frames) {
    mk_fail(st, MK_EINTERNAL, "%s: only %lld of %lld frames were given", v->path, (long long)v->done, (long long)v->o.frames);
    ok = false;
  }
  if (ok)
    ok = v->sink->finish(v->sink, st);
  else
    v->sink->discard(v->sink);
  drop(v);
  return ok;
}

void mk_video_discard(mk_video *v) {
  if (!v) return;
  v->sink->discard(v->sink);
  drop(v);
}

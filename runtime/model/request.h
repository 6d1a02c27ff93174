/* What was asked of `generate`, checked and completed before any heavy work: sizes, schedule, token ids, where each weight comes
 * from. */
#ifndef MK_MODEL_REQUEST_H
#define MK_MODEL_REQUEST_H

#include "runtime/model/checkpoint.h"
#include "runtime/model/schedule.h"
#include "runtime/model/tokenizer.h"
#include "runtime/moonkiln.h"

typedef struct mk_part {   /* one network's description */
  const char *config;      /* JSON text; NULL: the script's own sizes */
  const mk_source *source; /* for loading */
  const mk_source *shapes; /* for building the graph; NULL: weights are taken as declared */
  const char *path;        /* for messages; NULL with made-up weights */
} mk_part;

typedef struct mk_request {
  mk_model *model; /* NULL with made-up weights */
  mk_source synthetic;
  mk_part text, vae, dit[2]; /* dit[0]: high noise or the only expert */
  bool guided;               /* some step needs the negative branch */
  mk_schedule schedule;
  float *timesteps;               /* f32 per step */
  int32_t ids[2][MK_TEXT_LENGTH]; /* prompt, negative */
  int id_count[2];
  int64_t width, height, frames, latent_frames, latent_height, latent_width;
  double fps;
} mk_request;

enum { MK_LATENT_CHANNELS = 16 };

/* False with the status set, and nothing to close, if something asked for is wrong or missing. */
bool mk_request_open(mk_request *r, const mk_generate_options *o, mk_status *st);
void mk_request_close(mk_request *r);

/* Whether a video may have this size. */
bool mk_request_size(int64_t width, int64_t height, int64_t frames, mk_status *st);

#endif

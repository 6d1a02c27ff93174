/* What was asked of `generate`, checked and completed before any heavy work: sizes, schedule, token ids, where each weight comes
 * from. */
#ifndef MK_MODEL_REQUEST_H
#define MK_MODEL_REQUEST_H

#include <pthread.h>
#include <stdatomic.h>

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

/* Reading the vocabulary takes long: token ids are made on a thread of their own, beside the rest of the start. */
typedef struct mk_prompt_tokens {
  const char *vocabulary, *text[2]; /* prompt, negative; borrowed */
  int32_t ids[2][MK_TEXT_LENGTH];
  int count[2];
  pthread_t thread;
  bool running;
  atomic_bool made;
  mk_status st;
} mk_prompt_tokens;

typedef struct mk_request {
  mk_model *model; /* NULL with made-up weights */
  mk_source synthetic;
  mk_part text, vae, dit[2]; /* dit[0]: high noise or the only expert */
  bool guided;               /* some step needs the negative branch */
  mk_schedule schedule;
  float *timesteps; /* f32 per step */
  mk_prompt_tokens tokens;
  int64_t width, height, frames, latent_frames, latent_height, latent_width;
  double fps;
} mk_request;

enum { MK_LATENT_CHANNELS = 16 };

/* False with the status set, and nothing to close, if something asked for is wrong or missing. The request must stay where it is,
 * and so must the options' texts. */
bool mk_request_open(mk_request *r, const mk_generate_options *o, mk_status *st);

/* Waits for the token ids; false with the status set when the prompts or the vocabulary are wrong. May be called again. */
bool mk_request_tokens(mk_request *r, mk_status *st);
/* Whether that would not wait. */
static inline bool mk_request_tokens_made(const mk_request *r) { return atomic_load(&r->tokens.made); }

void mk_request_close(mk_request *r);

/* Whether a video may have this size. */
bool mk_request_size(int64_t width, int64_t height, int64_t frames, mk_status *st);

#endif

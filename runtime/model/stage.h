/* One network in use: its graph, and its session on a backend with the weights loaded. And what each network is asked. */
#ifndef MK_MODEL_STAGE_H
#define MK_MODEL_STAGE_H

#include "runtime/backend.h"
#include "runtime/model/networks.h"

typedef struct mk_stage {
  const mk_graph *graph;
  mk_graph *own; /* the graph, unless it is the caller's */
  mk_session *session;
} mk_stage; /* zero-initialise */

/* Builds the graph, opens a session, loads the weights. On failure the stage is closed. */
bool mk_stage_open(mk_stage *s, mk_backend *b, mk_network network, const mk_network_options *options, const mk_source *weights,
                   mk_progress_fn progress, void *user, mk_status *st);
/* The same with a graph, and its plan or NULL, that stay the caller's, until the stage is closed. */
bool mk_stage_open_graph(mk_stage *s, mk_backend *b, const mk_graph *g, const mk_plan *plan, const mk_source *weights,
                         mk_progress_fn progress, void *user, mk_status *st);
void mk_stage_close(mk_stage *s); /* twice is fine */

/* Writes a dense tensor of f32 (or i32) values to an input or state; its dims are those the graph declares. */
bool mk_stage_write(mk_stage *s, const char *name, const void *data, mk_status *st);
/* Reads an output or state as f32 into out, which must hold it; its element count, 0 on failure. */
int64_t mk_stage_read(mk_stage *s, const char *name, float *out, int64_t room, mk_status *st);
/* Elements of an input, output or state; 0 if there is none of that name. */
int64_t mk_stage_count(mk_stage *s, const char *name);

/* TEXT: hidden states, f32 [length, dim], of `count` ids padded to `length`; rows from count on are zero. */
bool mk_encode_text(mk_stage *s, const int32_t *ids, int count, int length, float *hidden, int64_t room, mk_status *st);

/* DIT: the latents and the solver's history, kept in host memory while experts change. Zero-initialise; free with
 * mk_history_free. */
typedef struct mk_history {
  float *values; /* latents, last, m1, m2, one after the other */
  int64_t count; /* elements of one */
} mk_history;
bool mk_expert_save(mk_stage *s, mk_history *h, mk_status *st);
bool mk_expert_restore(mk_stage *s, const mk_history *h, mk_status *st);
void mk_history_free(mk_history *h);

/* DIT: one diffusion step. coefficients: sigma, c[5], d[4], guidance (runtime/model/schedule.h), then zeros. Waits for its end.
 */
bool mk_expert_step(mk_stage *s, int32_t step, const float coefficients[16], mk_status *st);

/* VAE: latent frame `index` of z (f32 [channels, frames, height, width]) becomes 1 (index 0) or 4 frames, f32
 * [n, 8 height, 8 width, 3] in [-1, 1], written to out. Frames must be asked for in order. Returns n, 0 on failure. */
int mk_decode_frame(mk_stage *s, const float *z, int64_t channels, int64_t frames, int64_t plane, int64_t index, float *out,
                    int64_t room, mk_status *st);

#endif

#include "runtime/model/stage.h"

#include <stdlib.h>
#include <string.h>

bool mk_stage_open(mk_stage *s, mk_backend *b, mk_network network, const mk_network_options *options, const mk_source *weights,
                   mk_progress_fn progress, void *user, mk_status *st) {
  s->own = mk_network_graph(network, options, st);
  return s->own && mk_stage_open_graph(s, b, s->own, NULL, weights, progress, user, st);
}

bool mk_stage_open_graph(mk_stage *s, mk_backend *b, const mk_graph *g, const mk_plan *plan, const mk_source *weights,
                         mk_progress_fn progress, void *user, mk_status *st) {
  s->graph = g;
  s->session = mk_backend_session(b, g, plan, st);
  if (s->session && s->session->ops->load(s->session, weights, progress, user, st)) return true;
  mk_stage_close(s);
  return false;
}

void mk_stage_close(mk_stage *s) {
  if (s->session) s->session->ops->close(s->session);
  mk_graph_free(s->own);
  *s = (mk_stage){0};
}

bool mk_stage_write(mk_stage *s, const char *name, const void *data, mk_status *st) {
  mk_tensor t;
  if (!s->session->ops->describe(s->session, name, &t))
    return mk_fail(st, MK_EINTERNAL, "graph %s has no tensor '%s'", s->graph->name, name), false;
  if (t.dtype != MK_I32) t.dtype = MK_F32;
  t.data = data;
  t.bytes = (size_t)mk_dims_count(t.dims, t.rank) * 4;
  return s->session->ops->write(s->session, &t, st);
}

int64_t mk_stage_count(mk_stage *s, const char *name) {
  mk_tensor t;
  return s->session->ops->describe(s->session, name, &t) ? mk_dims_count(t.dims, t.rank) : 0;
}

int64_t mk_stage_read(mk_stage *s, const char *name, float *out, int64_t room, mk_status *st) {
  int64_t count = mk_stage_count(s, name);
  if (count == 0 || count > room)
    return mk_fail(st, MK_EINTERNAL, "'%s' has %lld elements, %lld fit", name, (long long)count, (long long)room), 0;
  return s->session->ops->read(s->session, name, out, (size_t)count * sizeof *out, st) ? count : 0;
}

bool mk_encode_text(mk_stage *s, const int32_t *ids, int count, int length, float *hidden, int64_t room, mk_status *st) {
  float *mask = calloc((size_t)length, sizeof *mask);
  if (!mask) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  for (int i = 0; i < count; i++) mask[i] = 1.0f;
  int32_t real = count;
  bool ok = mk_stage_write(s, "ids", ids, st) && mk_stage_write(s, "length", &real, st) && mk_stage_write(s, "mask", mask, st) &&
            s->session->ops->run(s->session, "prompt", st) && s->session->ops->run(s->session, "step", st) &&
            mk_stage_read(s, "hidden", hidden, room, st) > 0;
  free(mask);
  return ok;
}

static const char *const history_states[] = {"latents", "last", "m1", "m2"};
enum { HISTORY = sizeof history_states / sizeof *history_states };

bool mk_expert_save(mk_stage *s, mk_history *h, mk_status *st) {
  if (!h->values) {
    h->count = mk_stage_count(s, history_states[0]);
    h->values = malloc((size_t)(h->count * HISTORY) * sizeof *h->values);
    if (!h->values) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  }
  bool ok = true;
  for (int i = 0; ok && i < HISTORY; i++)
    ok = mk_stage_read(s, history_states[i], h->values + i * h->count, h->count, st) == h->count;
  return ok;
}

bool mk_expert_restore(mk_stage *s, const mk_history *h, mk_status *st) {
  bool ok = true;
  for (int i = 0; ok && i < HISTORY; i++) ok = mk_stage_write(s, history_states[i], h->values + i * h->count, st);
  return ok;
}

void mk_history_free(mk_history *h) {
  free(h->values);
  *h = (mk_history){0};
}

bool mk_expert_step(mk_stage *s, int32_t step, const float coefficients[16], mk_status *st) {
  return mk_stage_write(s, "step", &step, st) && mk_stage_write(s, "coefficients", coefficients, st) &&
         s->session->ops->run(s->session, "step", st) && s->session->ops->wait(s->session, st);
}

int mk_decode_frame(mk_stage *s, const float *z, int64_t channels, int64_t frames, int64_t plane, int64_t index, float *out,
                    int64_t room, mk_status *st) {
  float *latent = malloc((size_t)(channels * plane) * sizeof *latent);
  if (!latent) return mk_fail(st, MK_ENOMEM, "out of host memory"), 0;
  for (int64_t c = 0; c < channels; c++)
    memcpy(latent + c * plane, z + (c * frames + index) * plane, (size_t)plane * sizeof *latent);
  bool ok = index > 0 || (s->session->ops->reset(s->session, st) && s->session->ops->run(s->session, "prompt", st));
  ok = ok && mk_stage_write(s, "latent", latent, st) && s->session->ops->run(s->session, index ? "next" : "first", st) &&
       mk_stage_read(s, index ? "frames" : "frame", out, room, st) > 0;
  free(latent);
  return !ok ? 0 : index ? 4 : 1;
}

#include "runtime/cli/subject.h"

#include <string.h>

#include "runtime/base/file.h"
#include "runtime/cli/load_graph.h"
#include "runtime/model/model_graphs.h"
#include "runtime/model/networks.h"
#include "runtime/model/request.h"

enum { USUAL_WIDTH = 1280, USUAL_HEIGHT = 720, USUAL_FRAMES = 81, USUAL_STEPS = 40 };

static bool is_script(const char *what) {
  size_t n = strlen(what);
  return n > 4 && !strcmp(what + n - 4, ".lua");
}

static bool open_script(mk_subject *s, const mk_measure *m, mk_arena *arena, mk_status *st) {
  if (m->size.width || m->frames || m->policy)
    return mk_fail(st, MK_EINPUT, "--size, --frames and --policy are for models; a script's parameters are given with --set"),
           false;
  s->name = mk_strdup(arena, m->what);
  s->weights = mk_weights_open(&m->weights, st);
  if (!s->weights) return false;
  const mk_source *source = mk_weights_source(s->weights);
  if (source) s->source = *source;
  s->has_source = source != NULL;
  s->graph = mk_cli_load_graph(m->what, &m->sets, source, false, st);
  return s->graph != NULL;
}

/* The step of the expert that works first, in both branches of the guidance. */
static bool open_model(mk_subject *s, const mk_measure *m, mk_arena *arena, mk_status *st) {
  int64_t width = m->size.width ? m->size.width : USUAL_WIDTH, height = m->size.width ? m->size.height : USUAL_HEIGHT;
  int64_t frames = m->frames ? m->frames : USUAL_FRAMES;
  if (m->sets.count || m->weights.count || m->entry)
    return mk_fail(st, MK_EINPUT, "--set, --weights and --entry are for scripts; a model's step is given by --size and --frames"),
           false;
  if (!mk_request_size(width, height, frames, st)) return false;
  const char *published = mk_dir_exists(m->what) ? NULL : mk_published_config(m->what);
  mk_network_options o = {.config_json = published,
                          .frames = (frames - 1) / 4 + 1,
                          .height = height / 8,
                          .width = width / 8,
                          .steps = USUAL_STEPS,
                          .guided = true,
                          .policy = m->policy};
  if (!published) {
    s->model = mk_model_open(m->what, st);
    if (!s->model) return mk_fail_context(st, "neither a script (.lua) nor a14b, 14b, 1.3b"), false;
    o.config_json = mk_checkpoint_config(s->model->dit[0]);
    o.weights = mk_checkpoint_source(s->model->dit[0]);
    s->source = *o.weights;
  }
  if (published && !m->seed) s->source.synthetic_seed = 1; /* there are no others */
  s->has_source = true;
  s->name = mk_printf(arena, "%s, %lldx%lld, %lld frames", m->what, (long long)width, (long long)height, (long long)frames);
  s->graph = mk_network_graph(MK_NET_DIT, &o, st);
  return s->graph != NULL;
}

bool mk_subject_open(mk_subject *s, const mk_measure *m, mk_arena *arena, mk_status *st) {
  *s = (mk_subject){0};
  if (!(is_script(m->what) ? open_script(s, m, arena, st) : open_model(s, m, arena, st))) return false;
  if (m->seed) s->source.synthetic_seed = (uint64_t)m->seed;
  s->has_source |= m->seed != 0;
  return true;
}

void mk_subject_close(mk_subject *s) {
  mk_graph_free(s->graph);
  mk_weights_close(s->weights);
  mk_model_close(s->model);
  *s = (mk_subject){0};
}

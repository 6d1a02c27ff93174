#include "runtime/model/model_graphs.h"

#include <string.h>

#include "runtime/base/file.h"
#include "runtime/model/checkpoint.h"

const char *mk_published_config(const char *name) {
  static const char *const configs[][2] = {
      {"a14b",
       "{\"model_type\": \"t2v\", \"dim\": 5120, \"num_heads\": 40, \"ffn_dim\": 13824, \"num_layers\": 40, \"in_dim\": 16, "
       "\"out_dim\": 16}"},
      {"14b",
       "{\"model_type\": \"t2v\", \"dim\": 5120, \"num_heads\": 40, \"ffn_dim\": 13824, \"num_layers\": 40, \"in_dim\": 16, "
       "\"out_dim\": 16}"},
      {"1.3b",
       "{\"model_type\": \"t2v\", \"dim\": 1536, \"num_heads\": 12, \"ffn_dim\": 8960, \"num_layers\": 30, \"in_dim\": 16, "
       "\"out_dim\": 16}"},
  };
  for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
    if (!strcmp(name, configs[i][0])) return configs[i][1];
  return NULL;
}

typedef struct listing {
  const mk_model_size *size;
  mk_graph **graphs;
  mk_network *networks; /* may be NULL */
  int count;
} listing;

static bool add(listing *l, mk_network network, const char *config, const mk_source *weights, mk_status *st) {
  mk_network_options o = {.config_json = config,
                          .weights = weights,
                          .frames = (l->size->frames - 1) / 4 + 1,
                          .height = l->size->height / 8,
                          .width = l->size->width / 8,
                          .steps = 40,
                          .guided = true};
  l->graphs[l->count] = mk_network_graph(network, &o, st);
  if (!l->graphs[l->count]) return false;
  if (l->networks) l->networks[l->count] = network;
  l->count++;
  return true;
}

static bool check_size(const mk_model_size *s, mk_status *st) {
  if (s->width % 16 || s->height % 16)
    mk_fail(st, MK_EINPUT, "size %lldx%lld: width and height must be multiples of 16", (long long)s->width, (long long)s->height);
  if (s->frames % 4 != 1) mk_fail(st, MK_EINPUT, "%lld frames: must be 4n + 1, as 81", (long long)s->frames);
  return !mk_failed(st);
}

int mk_model_graphs(const char *what, const mk_model_size *size, mk_graph *graphs[MK_MODEL_GRAPHS],
                    mk_network networks[MK_MODEL_GRAPHS], mk_status *st) {
  listing l = {.size = size, .graphs = graphs, .networks = networks};
  bool ok;
  const char *config = mk_published_config(what);
  if (!check_size(size, st)) return 0;
  if (config && !mk_dir_exists(what)) {
    ok = add(&l, MK_NET_TEXT, NULL, NULL, st) && add(&l, MK_NET_DIT, config, NULL, st) && add(&l, MK_NET_VAE, NULL, NULL, st);
  } else {
    mk_model *m = mk_model_open(what, st);
    ok = m != NULL;
    const mk_checkpoint *parts[] = {m ? m->text_encoder : NULL, m ? m->dit[0] : NULL, m ? m->dit[1] : NULL, m ? m->vae : NULL};
    static const mk_network kinds[] = {MK_NET_TEXT, MK_NET_DIT, MK_NET_DIT, MK_NET_VAE};
    for (int i = 0; ok && i < MK_MODEL_GRAPHS; i++)
      if (parts[i]) ok = add(&l, kinds[i], mk_checkpoint_config(parts[i]), mk_checkpoint_source((mk_checkpoint *)parts[i]), st);
    mk_model_close(m);
  }
  for (int i = 0; !ok && i < l.count; i++) mk_graph_free(graphs[i]);
  return ok ? l.count : 0;
}

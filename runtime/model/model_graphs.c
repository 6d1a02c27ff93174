#include "runtime/model/model_graphs.h"

#include <string.h>

#include "runtime/base/file.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/networks.h"

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

static bool add(mk_graph **graphs, int *n, mk_network network, const char *config, const mk_source *weights, int64_t width,
                int64_t height, mk_status *st) {
  mk_network_options o = {.config_json = config,
                          .weights = weights,
                          .frames = 21,
                          .height = height / 8,
                          .width = width / 8,
                          .steps = 40,
                          .guided = true};
  graphs[*n] = mk_network_graph(network, &o, st);
  *n += graphs[*n] != NULL;
  return !mk_failed(st);
}

int mk_model_graphs(const char *what, int64_t width, int64_t height, mk_graph *graphs[MK_MODEL_GRAPHS], mk_status *st) {
  int n = 0;
  bool ok;
  const char *config = mk_published_config(what);
  if (width % 16 || height % 16)
    return mk_fail(st, MK_EINPUT, "size %lldx%lld: width and height must be multiples of 16", (long long)width,
                   (long long)height),
           0;
  if (config && !mk_dir_exists(what)) {
    ok = add(graphs, &n, MK_NET_TEXT, NULL, NULL, width, height, st) &&
         add(graphs, &n, MK_NET_DIT, config, NULL, width, height, st) &&
         add(graphs, &n, MK_NET_VAE, NULL, NULL, width, height, st);
  } else {
    mk_model *m = mk_model_open(what, st);
    ok = m != NULL;
    const mk_checkpoint *parts[] = {m ? m->text_encoder : NULL, m ? m->dit[0] : NULL, m ? m->dit[1] : NULL, m ? m->vae : NULL};
    static const mk_network networks[] = {MK_NET_TEXT, MK_NET_DIT, MK_NET_DIT, MK_NET_VAE};
    for (int i = 0; ok && i < MK_MODEL_GRAPHS; i++)
      if (parts[i])
        ok = add(graphs, &n, networks[i], mk_checkpoint_config(parts[i]), mk_checkpoint_source((mk_checkpoint *)parts[i]), width,
                 height, st);
    mk_model_close(m);
  }
  for (int i = 0; !ok && i < n; i++) mk_graph_free(graphs[i]);
  return ok ? n : 0;
}

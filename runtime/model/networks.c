#include "runtime/model/networks.h"

#include <jansson.h>
#include <stdlib.h>

#include "codegen/graph.h"
#include "runtime/base/env.h"
#include "runtime/base/log.h"

static json_t *params(mk_network network, const mk_network_options *o, mk_status *st) {
  json_t *p = json_object();
  if (o->config_json) {
    json_error_t e;
    json_t *config = json_loads(o->config_json, JSON_REJECT_DUPLICATES, &e);
    if (!config) {
      mk_fail(st, MK_EINPUT, "config.json:%d:%d: %s", e.line, e.column, e.text);
      json_decref(p);
      return NULL;
    }
    json_object_set_new(p, "config", config);
  }
  json_object_set_new(p, "policy", json_string(o->policy ? o->policy : "exact"));
  if (network == MK_NET_TEXT) return p;
  json_object_set_new(p, "height", json_integer(o->height));
  json_object_set_new(p, "width", json_integer(o->width));
  if (network == MK_NET_VAE) return p;
  json_object_set_new(p, "frames", json_integer(o->frames));
  json_object_set_new(p, "steps", json_integer(o->steps));
  json_object_set_new(p, "guided", json_boolean(o->guided));
  if (o->forward) json_object_set_new(p, "mode", json_string("forward"));
  return p;
}

mk_graph *mk_network_graph(mk_network network, const mk_network_options *options, mk_status *st) {
  static const char *const scripts[] = {"scripts/models/umt5.lua", "scripts/models/wan_dit.lua", "scripts/models/wan_vae.lua"};
  char path[PATH_MAX];
  if (!mk_env_data_path(scripts[network], path, st)) return NULL;
  json_t *p = params(network, options, st);
  if (!p) return NULL;
  char *text = json_dumps(p, JSON_COMPACT);
  json_decref(p);
  if (!text) return mk_fail(st, MK_ENOMEM, "out of host memory"), NULL;
  mk_script_options script = {.path = path, .params_json = text, .weights = options->weights};
  mk_graph *g = mk_graph_from_script(&script, st);
  free(text);
  if (g) mk_timeline("%s: graph", g->name);
  if (g && !mk_optimize(g, st)) {
    mk_graph_free(g);
    g = NULL;
  }
  if (g) mk_timeline("%s: passes", g->name);
  return g;
}

mk_graph *mk_network_checked(mk_network network, const mk_network_options *options, mk_status *st) {
  const mk_source *s = options->weights;
  mk_graph *g = mk_network_graph(network, options, st);
  for (int i = 0; g && s && i < g->count; i++) {
    const mk_node *n = &g->nodes[i];
    mk_tensor t;
    if (n->op != MK_OP_INPUT || n->attr.rate != MK_RATE_LOAD || s->fetch(s->self, n->name, &t, st)) continue;
    mk_graph_free(g);
    return NULL;
  }
  return g;
}

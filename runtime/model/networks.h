/* The networks of Wan as optimized graphs: which script, which parameters. */
#ifndef MK_MODEL_NETWORKS_H
#define MK_MODEL_NETWORKS_H

#include "codegen/ir.h"

typedef enum mk_network { MK_NET_TEXT, MK_NET_DIT, MK_NET_VAE } mk_network;

typedef struct mk_network_options {
  const char *config_json;       /* the component's config.json as text; NULL: the script's defaults */
  const mk_source *weights;      /* for names, shapes and dtypes; NULL: as declared */
  int64_t frames, height, width; /* of the latent (DIT; VAE without frames) */
  int64_t steps;                 /* DIT: timesteps of the schedule */
  bool guided;                   /* DIT: both branches */
  bool forward;                  /* DIT: velocities only, no sampler */
  const char *policy;            /* "exact", "fp32", "tf32" */
} mk_network_options;

/* NULL with the status set on failure. Free with mk_graph_free. */
mk_graph *mk_network_graph(mk_network network, const mk_network_options *options, mk_status *st);

/* The same, after a look at every weight that it needs: missing, of another shape, or of a dtype that cannot be read. */
mk_graph *mk_network_checked(mk_network network, const mk_network_options *options, mk_status *st);

#endif

/* All networks of a model as graphs: of a checkpoint folder, or of a published size by name. */
#ifndef MK_MODEL_MODEL_GRAPHS_H
#define MK_MODEL_MODEL_GRAPHS_H

#include "codegen/ir.h"
#include "runtime/model/networks.h"

enum { MK_MODEL_GRAPHS = 4 }; /* text encoder, two experts, VAE */

/* Config of a published model's component as JSON text; NULL if the name is unknown. Names: "a14b", "14b", "1.3b". */
const char *mk_published_config(const char *name);

typedef struct mk_model_size { /* of a video */
  int64_t width, height, frames;
} mk_model_size;

/* Fills graphs for videos of this size; `what` is a folder or a name. Which network each one is goes to networks (unless NULL).
 * Returns how many, 0 with the status set on failure. */
int mk_model_graphs(const char *what, const mk_model_size *size, mk_graph *graphs[MK_MODEL_GRAPHS],
                    mk_network networks[MK_MODEL_GRAPHS], mk_status *st);

#endif

/* Several safetensors files and checkpoint folders as one source of named tensors: the first that has a name wins. */
#ifndef MK_CLI_WEIGHTS_H
#define MK_CLI_WEIGHTS_H

#include "runtime/base/tensor.h"
#include "runtime/cli/options.h"

typedef struct mk_weights mk_weights;

/* Opens each path of the list. An empty list gives an empty set. NULL with the status set on failure. */
mk_weights *mk_weights_open(const mk_text_list *paths, mk_status *st);
void mk_weights_close(mk_weights *w); /* NULL is fine */
/* Borrowed; NULL if no path was given, so that graphs take weights as declared. */
const mk_source *mk_weights_source(mk_weights *w);

#endif

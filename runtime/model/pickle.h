/* The small part of Python's pickle language that torch.save uses for a dictionary of tensors. Data only: nothing is executed. */
#ifndef MK_MODEL_PICKLE_H
#define MK_MODEL_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/status.h"

typedef struct mk_pickled_tensor {
  const char *name;
  const char *dtype;             /* as safetensors names it: "F32", "BF16" */
  const char *storage;           /* key of the archive member with its bytes */
  int64_t storage_count, offset; /* in elements */
  int rank;
  const int64_t *dims, *strides;
} mk_pickled_tensor;

/* Reads a pickled (ordered) dictionary of name -> tensor. Anything else in it is refused with a message that starts with `path`.
 * Results live in the arena. */
bool mk_pickle_read(mk_arena *arena, const uint8_t *data, size_t bytes, const char *path, mk_pickled_tensor **out, int *count,
                    mk_status *st);

#endif

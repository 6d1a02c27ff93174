/* Storage types and borrowed host tensors: what crosses between files, backends and callers. */
#ifndef MK_BASE_TENSOR_H
#define MK_BASE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/status.h"

enum { MK_MAX_RANK = 6 };

typedef enum mk_dtype {
#define X(name, id, bytes) id,
#include "runtime/base/dtype.def"
#undef X
  MK_DTYPE_COUNT
} mk_dtype;

size_t mk_dtype_size(mk_dtype t);
const char *mk_dtype_name(mk_dtype t);                /* "f32" */
bool mk_dtype_parse(const char *name, mk_dtype *out); /* accepts "f32", "F32", "bf16", "BF16" ... */

float mk_f16_to_f32(uint16_t h);
uint16_t mk_f32_to_f16(float f); /* round to nearest even */
float mk_bf16_to_f32(uint16_t h);
uint16_t mk_f32_to_bf16(float f); /* round to nearest even, NaN stays NaN */

/* A dense row-major tensor in host memory, borrowed from whoever made it (a mapped file, a backend, the caller). */
typedef struct mk_tensor {
  const char *name;  /* borrowed */
  const char *where; /* the file it came from, for messages; may be NULL; borrowed */
  mk_dtype dtype;
  int rank;
  int64_t dims[MK_MAX_RANK];
  const void *data;
  size_t bytes; /* always elements × dtype size */
} mk_tensor;

int64_t mk_dims_count(const int64_t *dims, int rank); /* product; 1 for rank 0 */
/* "[75600, 5120]" into buf; returns buf. */
const char *mk_dims_str(const int64_t *dims, int rank, char *buf, size_t size);

/* Converts count elements between any two float dtypes (i32 only to i32). */
void mk_convert(void *dst, mk_dtype dst_type, const void *src, mk_dtype src_type, size_t count);

/* Where named tensors come from: a checkpoint, a file, a test's table, a synthetic generator.
 * `describe` fills everything but data, for shape and dtype checks at graph-building time; returns false if there is no such
 * tensor. `fetch` fills data too; the pointer stays valid until the source is closed. Records an error and returns false on
 * failure. */
typedef struct mk_source {
  void *self;
  bool (*describe)(void *self, const char *name, mk_tensor *out);
  bool (*fetch)(void *self, const char *name, mk_tensor *out, mk_status *st);
  /* Nonzero seed: data is NULL in every fetch, and the backend makes N(0, 1/fan_in)-like values itself. */
  uint64_t synthetic_seed;
} mk_source;

#endif

/* Movement: copies of 4-byte elements under permutation, repetition, slicing, concatenation, upsampling, gathering. */
#include <string.h>

#include "runtime/cpu/kernels.h"

static void dense_strides(const mk_node *n, int64_t *strides) {
  int64_t s = 1;
  for (int d = n->rank - 1; d >= 0; d--) {
    strides[d] = s;
    s *= n->dims[d];
  }
}

/* out (dense, dims) = in[offset + index · strides]. */
static void copy_strided(float *out, const float *in, const int64_t *dims, const int64_t *strides, int rank) {
  int64_t cols = rank ? dims[rank - 1] : 1, step = rank ? strides[rank - 1] : 0, rows = 1;
  for (int d = 0; d < rank - 1; d++) rows *= dims[d];
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    int64_t at = 0, rest = r;
    for (int d = rank - 2; d >= 0; d--) {
      at += rest % dims[d] * strides[d];
      rest /= dims[d];
    }
    float *y = out + r * cols;
    if (step == 1) {
      memcpy(y, in + at, (size_t)cols * sizeof *y);
    } else {
      for (int64_t i = 0; i < cols; i++) y[i] = in[at + i * step];
    }
  }
}

void mk_cpu_permute(const mk_cpu_call *c) {
  const mk_node *n = c->node, *arg = &c->g->nodes[n->args[0]];
  int64_t in[MK_MAX_RANK], strides[MK_MAX_RANK];
  dense_strides(arg, in);
  for (int d = 0; d < n->rank; d++) strides[d] = in[n->attr.perm[d]];
  copy_strided(c->out, c->in[0], n->dims, strides, n->rank);
}

void mk_cpu_expand(const mk_cpu_call *c) {
  const mk_node *n = c->node, *arg = &c->g->nodes[n->args[0]];
  int64_t strides[MK_MAX_RANK];
  dense_strides(arg, strides);
  for (int d = 0; d < n->rank; d++)
    if (arg->dims[d] == 1) strides[d] = 0;
  copy_strided(c->out, c->in[0], n->dims, strides, n->rank);
}

void mk_cpu_slice(const mk_cpu_call *c) {
  const mk_node *n = c->node;
  int64_t strides[MK_MAX_RANK], offset = 0;
  dense_strides(&c->g->nodes[n->args[0]], strides);
  for (int d = 0; d < n->rank; d++) offset += n->attr.start[d] * strides[d];
  copy_strided(c->out, c->in[0] + offset, n->dims, strides, n->rank);
}

void mk_cpu_concat(const mk_cpu_call *c) {
  const mk_node *n = c->node;
  int64_t outer = mk_dims_count(n->dims, n->attr.axis);
  int64_t row = mk_node_count(n) / outer, at = 0;
  for (int a = 0; a < n->nargs; a++) {
    int64_t piece = mk_node_count(&c->g->nodes[n->args[a]]) / outer;
    for (int64_t o = 0; o < outer; o++) memcpy(c->out + o * row + at, c->in[a] + o * piece, (size_t)piece * sizeof *c->out);
    at += piece;
  }
}

void mk_cpu_upsample(const mk_cpu_call *c) {
  const mk_node *n = c->node;
  int64_t h = n->dims[1], w = n->dims[2], ch = n->dims[3], rows = n->dims[0] * h;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    const float *x = c->in[0] + (r / h * (h / 2) + r % h / 2) * (w / 2) * ch;
    float *y = c->out + r * w * ch;
    for (int64_t i = 0; i < w; i++) memcpy(y + i * ch, x + i / 2 * ch, (size_t)ch * sizeof *y);
  }
}

bool mk_cpu_gather(const mk_cpu_call *c, mk_status *st) {
  const mk_node *n = c->node, *table = &c->g->nodes[n->args[0]], *ids_node = &c->g->nodes[n->args[1]];
  const int32_t *ids = (const int32_t *)(const void *)c->in[1];
  int64_t row = mk_node_count(table) / table->dims[0], count = mk_node_count(ids_node);
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= table->dims[0]) {
      mk_fail(st, MK_EINPUT, "%s: gather: id %d at position %lld is outside the table of %lld rows", n->where ? n->where : "?",
              ids[i], (long long)i, (long long)table->dims[0]);
      return false;
    }
    memcpy(c->out + i * row, c->in[0] + ids[i] * row, (size_t)row * sizeof *c->out);
  }
  return true;
}

/* Matrix products, attention and convolution through BLAS. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpu/kernels.h"

void mk_cpu_matmul(const mk_cpu_call *c) {
  const mk_node *a = &c->g->nodes[c->node->args[0]], *b = &c->g->nodes[c->node->args[1]];
  int64_t k = b->dims[1], n = b->dims[0], m = mk_node_count(a) / k;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1.0f, c->in[0], (int)k, c->in[1], (int)k, 0.0f,
              c->out, (int)n);
}

/* Scales, biases, masks and normalises one row of scores. */
static void softmax_row(float *s, int64_t keys, int64_t limit, float scale, const float *bias) {
  float top = -INFINITY;
  for (int64_t k = 0; k < limit; k++) {
    s[k] = s[k] * scale + (bias ? bias[k] : 0.0f);
    top = fmaxf(top, s[k]);
  }
  double sum = 0;
  for (int64_t k = 0; k < limit; k++) {
    s[k] = expf(s[k] - top);
    sum += (double)s[k];
  }
  float inv = (float)(1.0 / sum);
  for (int64_t k = 0; k < limit; k++) s[k] *= inv;
  memset(s + limit, 0, (size_t)(keys - limit) * sizeof *s);
}

bool mk_cpu_attention(const mk_cpu_call *c, mk_status *st) {
  enum { QUERIES = 256 };
  const mk_node *n = c->node, *kn = &c->g->nodes[n->args[1]];
  int r = n->rank;
  int64_t batch = r == 4 ? n->dims[0] : 1, sq = n->dims[r - 3], heads = n->dims[r - 2], dim = n->dims[r - 1],
          sk = kn->dims[r - 3];
  const float *bias = n->attr.has_bias ? c->in[3] : NULL;
  bool relative = bias && c->g->nodes[n->args[3]].rank == 2;
  int64_t kv_len = sk, row = heads * dim;
  if (n->attr.has_kv_len) {
    kv_len = *(const int32_t *)(const void *)c->in[n->nargs - 1];
    if (kv_len < 1 || kv_len > sk) {
      mk_fail(st, MK_EINPUT, "%s: attention: kv_len is %lld; it must be between 1 and %lld", n->where ? n->where : "?",
              (long long)kv_len, (long long)sk);
      return false;
    }
  }
  float *scores = malloc(sizeof *scores * QUERIES * (size_t)sk);
  if (!scores) {
    mk_fail(st, MK_ENOMEM, "attention: out of host memory (%lld keys)", (long long)sk);
    return false;
  }
  for (int64_t b = 0; b < batch; b++) {
    for (int64_t h = 0; h < heads; h++) {
      const float *k = c->in[1] + b * sk * row + h * dim, *v = c->in[2] + b * sk * row + h * dim;
      for (int64_t q0 = 0; q0 < sq; q0 += QUERIES) {
        int64_t count = sq - q0 < QUERIES ? sq - q0 : QUERIES;
        const float *q = c->in[0] + (b * sq + q0) * row + h * dim;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)count, (int)sk, (int)dim, 1.0f, q, (int)row, k, (int)row, 0.0f,
                    scores, (int)sk);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < count; i++) {
          int64_t limit = n->attr.causal && q0 + i + 1 < kv_len ? q0 + i + 1 : kv_len;
          const float *bias_row = !bias      ? NULL
                                  : relative ? bias + h * (sq + sk - 1) - (q0 + i) + sq - 1
                                             : bias + (h * sq + q0 + i) * sk;
          softmax_row(scores + i * sk, sk, limit, n->attr.scale, bias_row);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)count, (int)dim, (int)sk, 1.0f, scores, (int)sk, v, (int)row,
                    0.0f, c->out + (b * sq + q0) * row + h * dim, (int)row);
      }
    }
  }
  free(scores);
  return true;
}

/* One output pixel's patch in the weights' order (kt, kh, kw, cin); zeros outside the input. */
static void gather_patch(float *patch, const float *x, const mk_node *in, const mk_node *w, const int16_t *pad,
                         const int64_t *at) {
  int64_t ch = in->dims[3];
  for (int64_t t = 0; t < w->dims[1]; t++)
    for (int64_t i = 0; i < w->dims[2]; i++)
      for (int64_t j = 0; j < w->dims[3]; j++, patch += ch) {
        int64_t ti = at[0] + t - pad[0], hi = at[1] + i - pad[2], wi = at[2] + j - pad[4];
        bool inside = ti >= 0 && ti < in->dims[0] && hi >= 0 && hi < in->dims[1] && wi >= 0 && wi < in->dims[2];
        if (inside)
          memcpy(patch, x + ((ti * in->dims[1] + hi) * in->dims[2] + wi) * ch, (size_t)ch * sizeof *patch);
        else
          memset(patch, 0, (size_t)ch * sizeof *patch);
      }
}

bool mk_cpu_conv(const mk_cpu_call *c, mk_status *st) {
  const mk_node *n = c->node, *in = &c->g->nodes[n->args[0]], *w = &c->g->nodes[n->args[1]];
  int64_t k = mk_node_count(w) / w->dims[0], cout = w->dims[0], pixels = mk_node_count(n) / cout;
  if (k == in->dims[3] && pixels * k == mk_node_count(in)) { /* 1x1x1 without padding: a matmul */
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)pixels, (int)cout, (int)k, 1.0f, c->in[0], (int)k, c->in[1], (int)k,
                0.0f, c->out, (int)cout);
    return true;
  }
  int64_t block = (1 << 20) / k + 1;
  if (block > pixels) block = pixels;
  float *patches = malloc((size_t)(block * k) * sizeof *patches);
  if (!patches) {
    mk_fail(st, MK_ENOMEM, "convolution: out of host memory");
    return false;
  }
  for (int64_t p0 = 0; p0 < pixels; p0 += block) {
    int64_t count = pixels - p0 < block ? pixels - p0 : block;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < count; p++) {
      int64_t pixel = p0 + p, at[3] = {pixel / (n->dims[1] * n->dims[2]), pixel / n->dims[2] % n->dims[1], pixel % n->dims[2]};
      gather_patch(patches + p * k, c->in[0], in, w, n->attr.pad, at);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)count, (int)cout, (int)k, 1.0f, patches, (int)k, c->in[1], (int)k,
                0.0f, c->out + p0 * cout, (int)cout);
  }
  free(patches);
  return true;
}

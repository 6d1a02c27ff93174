/* Elementwise operations, reductions over the last axis, rotary embedding. */
#include <math.h>

#include "runtime/cpu/kernels.h"

static float gelu(float x) { return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

static float apply(const mk_node *n, float x) {
  switch (n->op) {
    case MK_OP_CAST:
      if (n->dtype == MK_BF16) return mk_bf16_to_f32(mk_f32_to_bf16(x));
      if (n->dtype == MK_F16) return mk_f16_to_f32(mk_f32_to_f16(x));
      return x;
    case MK_OP_NEG: return -x;
    case MK_OP_ABS: return fabsf(x);
    case MK_OP_EXP: return expf(x);
    case MK_OP_LOG: return logf(x);
    case MK_OP_SQRT: return sqrtf(x);
    case MK_OP_RSQRT: return 1.0f / sqrtf(x);
    case MK_OP_RECIP: return 1.0f / x;
    case MK_OP_SIN: return sinf(x);
    case MK_OP_COS: return cosf(x);
    case MK_OP_TANH: return tanhf(x);
    case MK_OP_SIGMOID: return 1.0f / (1.0f + expf(-x));
    case MK_OP_SILU: return x / (1.0f + expf(-x));
    case MK_OP_GELU: return gelu(x);
    default: return NAN; /* not a unary op: shows at once */
  }
}

void mk_cpu_unary(const mk_cpu_call *c) {
  int64_t n = mk_node_count(c->node);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) c->out[i] = apply(c->node, c->in[0][i]);
}

static void binary_run(mk_op op, float *y, const float *a, const float *b, int64_t n, int64_t sa, int64_t sb) {
  switch (op) {
    case MK_OP_ADD:
      for (int64_t i = 0; i < n; i++) y[i] = a[i * sa] + b[i * sb];
      break;
    case MK_OP_SUB:
      for (int64_t i = 0; i < n; i++) y[i] = a[i * sa] - b[i * sb];
      break;
    case MK_OP_MUL:
      for (int64_t i = 0; i < n; i++) y[i] = a[i * sa] * b[i * sb];
      break;
    case MK_OP_DIV:
      for (int64_t i = 0; i < n; i++) y[i] = a[i * sa] / b[i * sb];
      break;
    case MK_OP_MAX:
      for (int64_t i = 0; i < n; i++) y[i] = fmaxf(a[i * sa], b[i * sb]);
      break;
    case MK_OP_MIN:
      for (int64_t i = 0; i < n; i++) y[i] = fminf(a[i * sa], b[i * sb]);
      break;
    default: break;
  }
}

/* Strides of an argument over the output's dims: 0 where it is broadcast. */
static void broadcast_strides(const mk_node *arg, const mk_node *out, int64_t *strides) {
  int64_t s = 1;
  for (int o = out->rank - 1, i = arg->rank - 1; o >= 0; o--, i--) {
    strides[o] = i < 0 || arg->dims[i] == 1 ? 0 : s;
    if (i >= 0) s *= arg->dims[i];
  }
}

void mk_cpu_binary(const mk_cpu_call *c) {
  const mk_node *n = c->node;
  const float *a = c->in[0], *b = c->in[1];
  int64_t sa[MK_MAX_RANK], sb[MK_MAX_RANK];
  broadcast_strides(&c->g->nodes[n->args[0]], n, sa);
  broadcast_strides(&c->g->nodes[n->args[1]], n, sb);
  int64_t cols = 1, total = mk_node_count(n);
  int inner = n->rank; /* axes from here on form one run with constant strides for both */
  while (inner > 0) {
    int d = inner - 1;
    bool joins = inner == n->rank || ((sa[d] == sa[n->rank - 1] * cols) && (sb[d] == sb[n->rank - 1] * cols)) || n->dims[d] == 1;
    if (!joins) break;
    cols *= n->dims[d];
    inner = d;
  }
  int64_t ia = n->rank ? sa[n->rank - 1] : 0, ib = n->rank ? sb[n->rank - 1] : 0;
  int64_t chunk = inner == 0 ? 1 << 16 : cols, runs = (total + chunk - 1) / chunk;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < runs; r++) {
    int64_t oa = 0, ob = 0, len = chunk;
    if (inner == 0) {
      oa = r * chunk * ia;
      ob = r * chunk * ib;
      if (r == runs - 1) len = total - r * chunk;
    } else {
      int64_t rest = r;
      for (int d = inner - 1; d >= 0; d--) {
        oa += rest % n->dims[d] * sa[d];
        ob += rest % n->dims[d] * sb[d];
        rest /= n->dims[d];
      }
    }
    binary_run(n->op, c->out + r * chunk, a + oa, b + ob, len, ia, ib);
  }
}

void mk_cpu_reduce(const mk_cpu_call *c) {
  const mk_node *arg = &c->g->nodes[c->node->args[0]];
  int64_t cols = arg->dims[arg->rank - 1], rows = mk_node_count(arg) / cols;
  bool is_max = c->node->op == MK_OP_AMAX;
  double scale = c->node->op == MK_OP_MEAN ? 1.0 / (double)cols : 1.0;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    const float *x = c->in[0] + r * cols;
    if (is_max) {
      float m = x[0];
      for (int64_t i = 1; i < cols; i++) m = fmaxf(m, x[i]);
      c->out[r] = m;
    } else {
      double s = 0;
      for (int64_t i = 0; i < cols; i++) s += (double)x[i];
      c->out[r] = (float)(s * scale);
    }
  }
}

void mk_cpu_rope(const mk_cpu_call *c) {
  const mk_node *n = c->node;
  int64_t dim = n->dims[n->rank - 1], heads = n->dims[n->rank - 2], half = dim / 2;
  int64_t tokens = n->dims[n->rank - 3], rows = mk_node_count(n) / dim;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    int64_t token = r / heads % tokens;
    const float *x = c->in[0] + r * dim, *co = c->in[1] + token * half, *si = c->in[2] + token * half;
    float *y = c->out + r * dim;
    for (int64_t i = 0; i < half; i++) {
      float x0 = x[2 * i], x1 = x[2 * i + 1];
      y[2 * i] = x0 * co[i] - x1 * si[i];
      y[2 * i + 1] = x0 * si[i] + x1 * co[i];
    }
  }
}

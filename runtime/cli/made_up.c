#include "runtime/cli/made_up.h"

#include <math.h>
#include <string.h>

#include "runtime/base/hash.h"
#include "runtime/gpu/synthetic.h"

static bool is_weight(const mk_node *n) { return n->op == MK_OP_INPUT && n->rate == MK_RATE_LOAD; }

int64_t mk_made_up_bytes(const mk_graph *g) {
  int64_t bytes = 0;
  for (int i = 0; i < g->count; i++)
    if (is_weight(&g->nodes[i])) bytes += mk_node_bytes(&g->nodes[i]);
  return bytes;
}

/* Uniform, with the mean and deviation that such weights have in trained models; integers are 0. */
static mk_tensor make(mk_made_up *m, const mk_node *n, uint64_t seed) {
  mk_tensor t = {
      .name = n->name, .where = "made-up values", .dtype = n->dtype, .rank = n->rank, .bytes = (size_t)mk_node_bytes(n)};
  memcpy(t.dims, n->dims, sizeof t.dims);
  char *data = mk_alloc(&m->arena, t.bytes);
  memset(data, 0, t.bytes);
  mk_gpu_synthetic_rule rule = mk_gpu_synthetic_rule_of(n->name, n->dims, n->rank);
  float width = rule.deviation * sqrtf(3);
  uint64_t x = seed ^ mk_hash64(n->name, strlen(n->name));
  for (size_t i = 0, size = mk_dtype_size(n->dtype); n->dtype != MK_I32 && i < t.bytes / size; i++) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    float f = rule.mean + width * (float)(int32_t)(x >> 32) / 2147483648.0f;
    mk_convert(data + i * size, n->dtype, &f, MK_F32, 1);
  }
  t.data = data;
  return t;
}

void mk_made_up_open(mk_made_up *m, const mk_graph *g, uint64_t seed) {
  *m = (mk_made_up){0};
  m->tensors = MK_NEW_ARRAY(&m->arena, mk_tensor, g->count);
  for (int i = 0; i < g->count; i++)
    if (is_weight(&g->nodes[i])) m->tensors[m->count++] = make(m, &g->nodes[i], seed);
}

static bool describe(void *self, const char *name, mk_tensor *out) {
  const mk_made_up *m = self;
  for (int i = 0; i < m->count; i++) {
    if (strcmp(m->tensors[i].name, name) != 0) continue;
    *out = m->tensors[i];
    return true;
  }
  return false;
}

static bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  return describe(self, name, out) || (mk_fail(st, MK_EINTERNAL, "no weight %s was made up", name), false);
}

mk_source mk_made_up_source(mk_made_up *m) { return (mk_source){.self = m, .describe = describe, .fetch = fetch}; }

void mk_made_up_close(mk_made_up *m) {
  mk_arena_free(&m->arena);
  *m = (mk_made_up){0};
}

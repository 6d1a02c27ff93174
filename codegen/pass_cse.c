/* Common subexpressions: nodes of one operation, dtype, dims, attributes and arguments become one, the first. With both guidance
 * branches in a graph this is what shares all that they have in common.
 *
 * Requires a verified graph; keeps it so. Inputs and states are told apart by name and stay. */
#include <string.h>

#include "codegen/rewrite.h"
#include "runtime/base/hash.h"

enum { KEY_FIXED = 64 };

typedef struct key { /* a node as numbers: equal keys (and constant data) mean equal values */
  int64_t v[KEY_FIXED + MK_MAX_ARGS];
  int n;
} key;

static void put(key *k, int64_t v) { k->v[k->n++] = v; }

static void key_of(const mk_node *n, key *k) {
  k->n = 0;
  put(k, n->op);
  put(k, n->dtype);
  put(k, n->rank);
  for (int i = 0; i < MK_MAX_RANK; i++) put(k, n->dims[i]);
  for (int i = 0; i < MK_MAX_RANK; i++) put(k, n->attr.start[i]);
  for (int i = 0; i < MK_MAX_RANK; i++) put(k, n->attr.perm[i]);
  for (int i = 0; i < 6; i++) put(k, n->attr.pad[i]);
  int32_t scale;
  memcpy(&scale, &n->attr.scale, sizeof scale);
  put(k, scale);
  put(k, n->attr.axis);
  put(k, n->attr.tf32 | n->attr.has_bias << 1 | n->attr.has_kv_len << 2 | n->attr.causal << 3);
  bool swap = (n->op == MK_OP_ADD || n->op == MK_OP_MUL) && n->args[0] > n->args[1]; /* a + b is b + a */
  for (int i = 0; i < n->nargs; i++) put(k, n->args[swap ? 1 - i : i]);
}

static uint64_t hash_of(const mk_node *n, const key *k) {
  mk_piece pieces[2] = {{k->v, sizeof *k->v * (size_t)k->n}, {NULL, 0}};
  if (n->op == MK_OP_CONST) pieces[1] = (mk_piece){n->attr.data, (size_t)mk_node_bytes(n)};
  return mk_hash64_pieces(pieces, n->op == MK_OP_CONST ? 2 : 1);
}

static bool equal(const mk_node *a, const key *ka, const mk_node *b) {
  key kb;
  key_of(b, &kb);
  if (ka->n != kb.n || memcmp(ka->v, kb.v, sizeof *ka->v * (size_t)ka->n) != 0) return false;
  return a->op != MK_OP_CONST || a->attr.data == b->attr.data || !memcmp(a->attr.data, b->attr.data, (size_t)mk_node_bytes(a));
}

typedef struct slot {
  uint64_t hash;
  int id; /* of a new node, plus one; 0: free */
} slot;

void mk_pass_cse(mk_graph *g) {
  mk_rewrite rw = mk_rewrite_begin(g);
  size_t slots = 16;
  while (slots < 2 * (size_t)rw.count) slots *= 2;
  slot *table = MK_NEW_ARRAY(&g->arena, slot, slots);
  for (int i = 0; i < rw.count; i++) {
    mk_node n = rw.old[i];
    n.args = mk_rewrite_args(&rw, &n);
    if (n.op != MK_OP_INPUT && n.op != MK_OP_STATE) {
      key k;
      key_of(&n, &k);
      uint64_t hash = hash_of(&n, &k);
      size_t at = hash & (slots - 1);
      while (table[at].id && (table[at].hash != hash || !equal(&n, &k, &g->nodes[table[at].id - 1]))) at = (at + 1) & (slots - 1);
      if (table[at].id) {
        int id = rw.map[i] = table[at].id - 1;
        if (!g->nodes[id].name) g->nodes[id].name = n.name;
        continue;
      }
      table[at] = (slot){hash, g->count + 1};
    }
    rw.map[i] = g->count;
    MK_PUSH(&g->arena, g->nodes, g->count, g->cap, n);
  }
  mk_rewrite_end(&rw);
}

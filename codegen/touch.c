/* What a group is, apart from how it is realised: the memory that every candidate reads and writes, and a hash of its operation
 * that stays the same when only lengths change. For tuning. */
#include <string.h>

#include "codegen/planner.h"
#include "runtime/base/hash.h"

enum { MAX_EXTENTS = 256 }; /* as many buffers as one piece of work may have */

/* ---- memory */

typedef struct extents {
  int n;
  mk_extent items[MAX_EXTENTS];
} extents;

static mk_extent *extent_of(mk_planner *p, const mk_draft *d, int buffer, mk_dtype dtype, extents *e) {
  mk_ref ref = mk_locate(p, d, buffer, 0, dtype);
  int64_t bytes = mk_node_bytes(&p->g->nodes[p->flow->buffer_node[buffer]]);
  for (int i = 0; i < e->n; i++)
    if (e->items[i].ref.space == ref.space && e->items[i].ref.offset == ref.offset && e->items[i].bytes == bytes)
      return &e->items[i];
  if (e->n == MAX_EXTENTS) {
    mk_fail(p->st, MK_EUNSUPPORTED, "program %s: a group of more than %d buffers", d->name, MAX_EXTENTS);
    return NULL;
  }
  e->items[e->n] = (mk_extent){.ref = ref, .dtype = dtype, .bytes = bytes};
  return &e->items[e->n++];
}

static void touch_body(mk_planner *p, const mk_draft *d, const mk_body *b, int handed, extents *e) {
  for (int i = 0; i < b->naccesses; i++) {
    const mk_access *a = &b->accesses[i];
    if (a->buffer == handed) continue;
    mk_extent *x = extent_of(p, d, a->buffer, a->dtype, e);
    if (!x) return;
    x->read |= !a->store;
    x->written |= a->store;
  }
}

/* The length of the keys is the one integer operand whose value decides how much there is to do. */
static void touch_root(mk_planner *p, const mk_draft *d, int root, int handed, extents *e) {
  const mk_node *n = &p->g->nodes[p->flow->units[root].node];
  for (int k = 0; k < mk_unit_nargs(p->flow, root); k++) {
    int node;
    const mk_view *v = mk_unit_arg(p->flow, root, k, &node);
    if (v->source == handed) continue;
    mk_extent *x = extent_of(p, d, v->source, p->g->nodes[node].dtype, e);
    if (!x) return;
    x->read = true;
    if (n->op != MK_OP_ATTENTION || x->dtype != MK_I32) continue;
    const mk_node *keys = &p->g->nodes[n->args[1]];
    x->integer = (int32_t)keys->dims[keys->rank - 3];
  }
}

/* ---- the operation */

static bool is_length(const char *fact) {
  static const char *const lengths[] = {"m",  "to", "ho",    "wo",      "ti",      "hi",     "wi",
                                        "sq", "sk", "batch", "q_batch", "k_batch", "v_batch"};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
    if (!strcmp(fact, lengths[i])) return true;
  return false;
}

static uint64_t signature_of_one(mk_planner *p, const mk_work *w, int root) {
  mk_text t = {0};
  if (root >= 0) {
    mk_problem problem, constant;
    mk_root_problem(p->flow, root, w->body, &problem);
    constant = problem;
    constant.nfacts = 0;
    for (int i = 0; i < problem.nfacts; i++)
      if (!is_length(problem.facts[i].name)) constant.facts[constant.nfacts++] = problem.facts[i];
    mk_problem_key(&constant, &t);
  }
  mk_text_add(&t, "\n");
  mk_body_key(w->body, &t);
  uint64_t hash = mk_hash64(mk_text_str(&t), t.len);
  mk_text_free(&t);
  return hash;
}

uint64_t mk_signature(mk_planner *p, const mk_draft *d, const mk_work *w, bool with_before) {
  uint64_t one = signature_of_one(p, w, d->gr->clusters[w->cluster].root);
  if (!with_before) return one;
  uint64_t both[2] = {one, signature_of_one(p, w - 1, -1)};
  return mk_hash64(both, sizeof both);
}

/* The row group of a site is part of what is tuned; what it hands to the matmul is not: it may be another value each time. */
static void touch_rows(mk_planner *p, const mk_draft *d, const mk_work *rows, int handed, extents *e) {
  touch_body(p, d, rows->body, handed, e);
  mk_extent *x = mk_failed(p->st) ? NULL : extent_of(p, d, handed, p->g->nodes[handed].dtype, e);
  if (x) x->spoilt = true;
}

void mk_touch(mk_planner *p, const mk_draft *d, const mk_work *w, bool with_before, mk_group *out) {
  int root = d->gr->clusters[w->cluster].root;
  const mk_work *rows = with_before ? w - 1 : NULL;
  int handed = rows ? w->site->norm.value : -1;
  extents e = {0};
  touch_body(p, d, w->body, -1, &e);
  if (root >= 0 && !mk_failed(p->st)) touch_root(p, d, root, handed, &e);
  if (rows && !mk_failed(p->st)) touch_rows(p, d, rows, handed, &e);
  mk_extent *kept = MK_NEW_ARRAY(p->arena, mk_extent, e.n);
  memcpy(kept, e.items, sizeof *kept * (size_t)e.n);
  out->extents = kept;
  out->nextents = e.n;
  out->signature = mk_signature(p, d, w, with_before);
}

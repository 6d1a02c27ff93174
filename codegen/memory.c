/* Where buffers lie. What outlives a program is laid out once; scratch is shared by lifetime, largest buffers first, and a row
 * program may leave its result in the place of what it read for the last time. */
#include <stdlib.h>
#include <string.h>

#include "codegen/planner.h"

enum { ALIGN = 256 };

static int64_t aligned(int64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static mk_ref take(mk_planner *p, mk_space space, int64_t bytes) {
  mk_ref r = {space, p->plan->space_bytes[space]};
  p->plan->space_bytes[space] += aligned(bytes);
  return r;
}

static int64_t buffer_bytes(const mk_flow *f, int buffer) { return mk_node_bytes(&f->g->nodes[f->buffer_node[buffer]]); }

/* Per root buffer: whether a program of a later rate reads it, itself or a part. */
static bool *find_crossing(const mk_planner *p) {
  const mk_flow *f = p->flow;
  bool *crosses = MK_NEW_ARRAY(p->temp, bool, f->nbuffers);
  for (int b = 0; b < f->g->count; b++) {
    int64_t at;
    int root = mk_flow_root(f, b, &at);
    for (int i = f->first_reader[b]; i < f->first_reader[b + 1]; i++)
      crosses[root] |= f->units[f->readers[i]].rate != f->g->nodes[b].rate;
  }
  return crosses;
}

static mk_binding binding(const mk_planner *p, const char *name, const mk_node *n) {
  mk_binding b = {.name = mk_strdup(p->arena, name), .dtype = n->dtype, .rank = n->rank, .bytes = mk_node_bytes(n)};
  memcpy(b.dims, n->dims, sizeof b.dims);
  return b;
}

static bool has_readers(const mk_flow *f, int b) { return f->first_reader[b] < f->first_reader[b + 1]; }

/* Elementwise code takes a scalar constant as a number; others read it from memory. */
static bool in_memory(const mk_flow *f, int node) {
  if (!mk_is_scalar_const(f->g, node)) return has_readers(f, node);
  for (int i = f->first_reader[node]; i < f->first_reader[node + 1]; i++) {
    const mk_unit *u = &f->units[f->readers[i]];
    mk_op op = f->g->nodes[u->node].op;
    if (!u->copy && !u->move && (mk_op_class_of(op) == MK_CLASS_ROOT || op == MK_OP_GATHER)) return true;
  }
  return false;
}

static void place_leaf(mk_planner *p, int id, bool crosses) {
  mk_plan *plan = p->plan;
  const mk_flow *f = p->flow;
  const mk_node *n = &p->g->nodes[id];
  int64_t at;
  bool root = mk_flow_root(f, id, &at) == id;
  if (n->op == MK_OP_CONST) {
    if (!in_memory(f, id)) return;
    p->fixed[id] = take(p, MK_SPACE_LOAD, mk_node_bytes(n));
    void *data = mk_alloc(p->arena, (size_t)mk_node_bytes(n));
    memcpy(data, n->attr.data, (size_t)mk_node_bytes(n));
    plan->consts[plan->nconsts++] = (struct mk_const_data){p->fixed[id], data, mk_node_bytes(n)};
    return;
  }
  mk_binding b = binding(p, n->name, n);
  if (n->op == MK_OP_STATE) {
    b.ref = p->fixed[id] = take(p, MK_SPACE_STATE, b.bytes);
    plan->states[plan->nstates++] = b;
  } else if (n->rate != MK_RATE_LOAD) {
    b.ref = p->fixed[id] = take(p, MK_SPACE_IO, b.bytes);
    plan->inputs[plan->ninputs++] = b;
  } else if (!root || has_readers(f, id)) {
    if (root && crosses) p->fixed[id] = take(p, MK_SPACE_LOAD, b.bytes);
    plan->weights[plan->nweights++] = b; /* its place is filled in when the load program is laid out */
  }
}

void mk_place_fixed(mk_planner *p) {
  mk_plan *plan = p->plan;
  const mk_flow *f = p->flow;
  const mk_graph *g = p->g;
  int leaves = 0;
  for (int id = 0; id < g->count; id++) leaves += mk_op_class_of(g->nodes[id].op) == MK_CLASS_LEAF;
  plan->weights = MK_NEW_ARRAY(p->arena, mk_binding, leaves);
  plan->inputs = MK_NEW_ARRAY(p->arena, mk_binding, leaves);
  plan->states = MK_NEW_ARRAY(p->arena, mk_binding, leaves);
  plan->consts = mk_alloc(p->arena, sizeof *plan->consts * (size_t)(leaves ? leaves : 1));
  plan->outputs = MK_NEW_ARRAY(p->arena, mk_binding, g->noutputs);
  p->fixed = MK_NEW_ARRAY(p->temp, mk_ref, f->nbuffers);
  for (int b = 0; b < f->nbuffers; b++) p->fixed[b].offset = -1;
  bool *crosses = find_crossing(p);
  for (int id = 0; id < g->count; id++) {
    const mk_node *n = &g->nodes[id];
    int64_t at;
    if (mk_op_class_of(n->op) == MK_CLASS_LEAF)
      place_leaf(p, id, crosses[id]);
    else if (crosses[id] && mk_flow_root(f, id, &at) == id)
      p->fixed[id] = take(p, n->rate == MK_RATE_LOAD ? MK_SPACE_LOAD : MK_SPACE_PROMPT, mk_node_bytes(n));
  }
  for (int i = 0; i < g->noutputs; i++) {
    int b = f->output_buffer[i];
    mk_binding o = binding(p, g->outputs[i].name, &g->nodes[g->outputs[i].node]);
    o.ref = p->fixed[b] = take(p, MK_SPACE_IO, o.bytes);
    plan->outputs[plan->noutputs++] = o;
  }
}

/* ---- scratch */

static void add_buffer(const mk_flow *f, int buffer, int *out, int *n, int max) {
  int64_t at;
  if (buffer < f->nbuffers) buffer = mk_flow_root(f, buffer, &at);
  for (int i = 0; i < *n; i++)
    if (out[i] == buffer) return;
  if (*n < max) out[(*n)++] = buffer;
}

int mk_work_buffers(const mk_draft *d, const mk_work *w, int *out, int max) {
  const mk_flow *f = d->gr->f;
  int n = 0, node;
  const mk_cluster *c = &d->gr->clusters[w->cluster];
  for (int i = 0; i < w->body->naccesses; i++) add_buffer(f, w->body->accesses[i].buffer, out, &n, max);
  for (int k = 0; c->root >= 0 && k < mk_unit_nargs(f, c->root); k++)
    add_buffer(f, mk_unit_arg(f, c->root, k, &node)->source, out, &n, max);
  if (w->workspace >= 0) add_buffer(f, w->workspace, out, &n, max);
  for (int i = 0; w->site && i < w->site->nreads && c->root >= 0; i++) add_buffer(f, w->site->reads[i], out, &n, max);
  if (w->site) add_buffer(f, w->site->workspace, out, &n, max);
  return n;
}

int mk_new_workspace(mk_planner *p, mk_draft *d, int64_t bytes) {
  MK_PUSH(p->temp, d->own_bytes, d->nown, d->own_cap, bytes);
  return d->nbuffers++;
}

typedef struct life {
  int buffer, first, last;
  int heir; /* the life that goes on in this one's memory, or -1 */
  bool inherits;
  int64_t bytes, at;
} life;

static bool same_walk(const mk_body *b, const mk_access *x, const mk_access *y) {
  if (x->gather || y->gather || x->offset || y->offset || mk_dtype_size(x->dtype) != mk_dtype_size(y->dtype)) return false;
  for (int i = 0; i < b->naxes; i++)
    if (x->stride[i] != y->stride[i]) return false;
  return true;
}

/* Whether work i may leave what it stores through `to` where it reads `from`: a row program loads an element once, in the thread
 * that stores it, and this is the last anyone reads of it. */
static bool in_place(const mk_planner *p, const mk_body *b, const mk_access *from, const mk_access *to) {
  int64_t at;
  int root = mk_flow_root(p->flow, from->buffer, &at), users = 0;
  if (at || mk_flow_root(p->flow, to->buffer, &at) == root || at) return false;
  for (int i = 0; i < b->naccesses; i++) users += mk_flow_root(p->flow, b->accesses[i].buffer, &at) == root;
  return users == 1 && same_walk(b, from, to);
}

/* Stores that may take the place of a load's buffer: a residual stream stays where it is. slot: a buffer's life, from 1. */
static void join_lives(const mk_planner *p, const mk_draft *d, life *lives, const int *slot) {
  for (int i = 0; i < d->nwork; i++) {
    const mk_body *b = d->work[i].body;
    if (d->gr->clusters[d->work[i].cluster].root >= 0) continue;
    for (int k = 0; k < b->naccesses * b->naccesses; k++) {
      const mk_access *to = &b->accesses[k / b->naccesses], *from = &b->accesses[k % b->naccesses];
      int64_t at;
      if (!to->store || from->store) continue;
      int heir = slot[mk_flow_root(p->flow, to->buffer, &at)] - 1, giver = slot[mk_flow_root(p->flow, from->buffer, &at)] - 1;
      if (heir < 0 || giver < 0 || lives[heir].first != i || lives[giver].last != i || lives[heir].inherits ||
          lives[giver].heir >= 0 || lives[heir].bytes != lives[giver].bytes || !in_place(p, b, from, to))
        continue;
      lives[giver].heir = heir;
      lives[heir].inherits = true;
    }
  }
}

static int by_bytes(const void *x, const void *y) {
  const life *a = x, *b = y;
  if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
  return a->first != b->first ? a->first - b->first : a->buffer - b->buffer;
}

static int by_place(const void *x, const void *y) {
  const life *a = *(life *const *)x, *b = *(life *const *)y;
  return a->at < b->at ? -1 : a->at > b->at;
}

/* Places the lives, largest first, each in the tightest gap that those beside it leave; returns the bytes in all. */
static int64_t pack(life *lives, int n, mk_arena *arena) {
  int64_t total = 0;
  life **beside = MK_NEW_ARRAY(arena, life *, n);
  qsort(lives, (size_t)n, sizeof *lives, by_bytes);
  for (int i = 0; i < n; i++) {
    int count = 0;
    for (int j = 0; j < i; j++)
      if (lives[j].first <= lives[i].last && lives[i].first <= lives[j].last) beside[count++] = &lives[j];
    qsort(beside, (size_t)count, sizeof(life *), by_place);
    int64_t at = 0, best = -1, gap = INT64_MAX;
    for (int j = 0; j < count; j++) {
      int64_t space = beside[j]->at - at;
      if (space >= lives[i].bytes && space < gap) {
        gap = space;
        best = at;
      }
      if (beside[j]->at + beside[j]->bytes > at) at = beside[j]->at + beside[j]->bytes;
    }
    lives[i].at = best >= 0 ? best : at;
    if (lives[i].at + lives[i].bytes > total) total = lives[i].at + lives[i].bytes;
  }
  return total;
}

/* One life for each chain of heirs; `chain` says which a life became. */
static int merge_chains(const life *lives, int n, life *merged, int *chain) {
  int count = 0;
  for (int i = 0; i < n; i++) {
    if (lives[i].inherits) continue;
    merged[count] = lives[i];
    merged[count].buffer = count;
    for (int k = i; k >= 0; k = lives[k].heir) {
      merged[count].last = lives[k].last;
      chain[k] = count;
    }
    count++;
  }
  return count;
}

void mk_place_scratch(mk_planner *p, mk_draft *d) {
  const mk_flow *f = p->flow;
  int *slot = MK_NEW_ARRAY(p->temp, int, d->nbuffers), n = 0, used[256];
  life *lives = MK_NEW_ARRAY(p->temp, life, d->nbuffers);
  d->ref = MK_NEW_ARRAY(p->temp, mk_ref, d->nbuffers);
  for (int b = 0; b < d->nbuffers; b++) d->ref[b] = b < f->nbuffers ? p->fixed[b] : (mk_ref){MK_SPACE_SCRATCH, -1};
  for (int i = 0; i < d->nwork; i++) {
    int count = mk_work_buffers(d, &d->work[i], used, 256);
    for (int k = 0; k < count; k++) {
      int b = used[k];
      if (d->ref[b].offset >= 0) continue;
      if (!slot[b]) {
        int64_t bytes = b < f->nbuffers ? buffer_bytes(f, b) : d->own_bytes[b - f->nbuffers];
        lives[n++] = (life){.buffer = b, .first = i, .last = i, .heir = -1, .bytes = aligned(bytes)};
        slot[b] = n;
      }
      lives[slot[b] - 1].last = i;
    }
  }
  join_lives(p, d, lives, slot);
  life *merged = MK_NEW_ARRAY(p->temp, life, n);
  int *chain = MK_NEW_ARRAY(p->temp, int, n), count = merge_chains(lives, n, merged, chain);
  int64_t total = pack(merged, count, p->temp), *at = MK_NEW_ARRAY(p->temp, int64_t, count);
  for (int i = 0; i < count; i++) at[merged[i].buffer] = merged[i].at;
  for (int i = 0; i < n; i++) d->ref[lives[i].buffer] = (mk_ref){MK_SPACE_SCRATCH, at[chain[i]]};
  if (total > p->plan->space_bytes[MK_SPACE_SCRATCH]) p->plan->space_bytes[MK_SPACE_SCRATCH] = total;
}

mk_ref mk_locate(const mk_planner *p, const mk_draft *d, int buffer, int64_t offset, mk_dtype dtype) {
  int64_t at = 0;
  if (buffer < d->gr->f->nbuffers) buffer = mk_flow_root(d->gr->f, buffer, &at);
  mk_ref r = d->ref[buffer];
  if (r.offset < 0) {
    mk_fail(p->st, MK_EINTERNAL, "program %s: buffer %d has no place", d->name, buffer);
    return (mk_ref){0};
  }
  r.offset += (at + offset) * (int64_t)mk_dtype_size(dtype);
  return r;
}

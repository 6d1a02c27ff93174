/* The other realisations of a normalised, modulated operand and its matmul, made by algebra on the graph.
 *
 *   usual     h = cast((x - mean) scale S + B);                         epilogue(h W^T)
 *   folded    W' = cast(S W), c = the sums of W' rows, d = B W^T;       epilogue(scale (x W'^T - mean c) + d)
 *   prologue  the row statistics;                                       epilogue(h W^T), h made while the matmul loads x
 *
 * c is the sum of the rounded W', and x goes in uncentred only where it has the operand's type anyway: mean c is then exactly
 * what the product has too much, but for f32 summation. Where x has to be copied into that type, the copy is x - mean.
 *
 * And one of a matmul whose result is added to a residual, x + gate cast(y W^T + b), by the library, which adds but does not
 * scale:
 *
 *   in place  W' = cast(gate W), b' = gate b;                           x + (y W'^T + b')
 *
 * W' is rounded once more, and the product once less.
 *
 * Each is planned as one or two small graphs, whose inputs and outputs are buffers of the large one: first the rows (what the
 * row group stored besides h, statistics, the folded weight), then the matmul with its epilogue. So fusing and emitting them
 * is what is done with every graph. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/planner.h"

enum { MAX_BORDERS = 64, MAX_LAUNCHES = 8, EACH = MK_MAX_REALISED / 2 };

typedef struct piece { /* a small graph */
  mk_planner *p;
  const mk_draft *d; /* the large one's */
  const mk_site *site;
  int inside; /* a cluster of d, whose values are computed again here; -1: none */
  mk_graph *g;
  int *map; /* per node of the large graph: the node here, or -1 */
  int ninputs, noutputs;
  mk_ref inputs[MAX_BORDERS], outputs[MAX_BORDERS];
  bool ok;
} piece;

static const mk_flow *flow_of(const piece *x) { return x->d->gr->f; }
static const mk_node *outer(const piece *x, int id) { return &flow_of(x)->g->nodes[id]; }

static piece open_piece(mk_planner *p, const mk_draft *d, const mk_site *site, int inside) {
  piece x = {.p = p, .d = d, .site = site, .inside = inside, .g = mk_graph_new("realisation")};
  x.ok = x.g != NULL;
  if (!x.g) mk_fail(p->st, MK_ENOMEM, "no memory for a graph");
  x.map = MK_NEW_ARRAY(x.g ? &x.g->arena : p->temp, int, d->gr->f->g->count);
  memset(x.map, -1, sizeof *x.map * (size_t)d->gr->f->g->count);
  return x;
}

/* ---- nodes */

static int build(piece *x, const mk_node *n, const int *args) {
  if (!x->ok) return -1;
  int id = mk_build(x->g, n->op, args, n->nargs, n->dtype, n->dims, n->rank, &n->attr, n->name, n->where, x->p->st);
  x->ok = id >= 0;
  return id;
}

static int unary(piece *x, mk_op op, int a, mk_dtype dtype) {
  return build(x, &(mk_node){.op = op, .dtype = dtype, .nargs = 1}, &a);
}

static int binary(piece *x, mk_op op, int a, int b) { return build(x, &(mk_node){.op = op, .nargs = 2}, (const int[]){a, b}); }

static int cast(piece *x, int a, mk_dtype dtype) {
  return x->ok && x->g->nodes[a].dtype != dtype ? unary(x, MK_OP_CAST, a, dtype) : a;
}

/* A tensor that is in memory at this place. */
static int input(piece *x, mk_ref ref, mk_dtype dtype, const int64_t *dims, int rank) {
  char name[16];
  if (x->ninputs == MAX_BORDERS) x->ok = false;
  if (!x->ok) return -1;
  mk_node n = {.op = MK_OP_INPUT, .dtype = dtype, .rank = rank, .attr.rate = MK_RATE_STEP, .name = name};
  memcpy(n.dims, dims, sizeof *dims * (size_t)rank);
  snprintf(name, sizeof name, "%d", x->ninputs);
  x->inputs[x->ninputs++] = ref;
  return build(x, &n, NULL);
}

static void output(piece *x, int id, mk_ref ref) {
  char name[16];
  if (x->noutputs == MAX_BORDERS) x->ok = false;
  if (!x->ok) return;
  snprintf(name, sizeof name, "out%d", x->noutputs);
  x->outputs[x->noutputs++] = ref;
  mk_graph_output(x->g, "step", name, id);
}

/* The place of a node of the large graph. Vectors are as wide as the place is aligned, and small graphs know no offsets inside
 * other buffers. */
static mk_ref place_of(piece *x, int node) {
  int64_t at, size = (int64_t)mk_dtype_size(outer(x, node)->dtype);
  int root = mk_flow_root(flow_of(x), node, &at);
  mk_ref r = x->d->ref[root];
  x->ok = x->ok && r.offset >= 0 && at * size % 16 == 0;
  r.offset += at * size;
  return r;
}

static mk_ref workspace(const piece *x, int64_t at) {
  mk_ref r = x->d->ref[x->site->workspace];
  r.offset += at;
  return r;
}

static bool is_inside(const piece *x, int node) {
  const mk_flow *f = flow_of(x);
  if (f->kind[node] == MK_VALUE_VIEW || f->kind[node] == MK_VALUE_INLINE) return true;
  return f->kind[node] == MK_VALUE_UNIT && x->inside >= 0 && x->d->gr->cluster_of[f->unit_of[node]] == x->inside;
}

/* The node here that has the value of a node of the large graph. */
static int copy(piece *x, int node) {
  const mk_node *n = outer(x, node);
  if (!x->ok || x->map[node] >= 0) return x->map[node];
  int id;
  if (mk_is_scalar_const(flow_of(x)->g, node)) {
    id = build(x, n, NULL);
  } else if (is_inside(x, node)) {
    int *args = MK_NEW_ARRAY(&x->g->arena, int, n->nargs);
    for (int k = 0; k < n->nargs; k++) args[k] = copy(x, n->args[k]);
    id = build(x, n, args);
  } else {
    id = input(x, place_of(x, node), n->dtype, n->dims, n->rank);
  }
  return x->map[node] = id;
}

/* Computes the members of the cluster again, and stores what it stored, but for one node. */
static void copy_cluster(piece *x, int but) {
  const mk_cluster *c = &x->d->gr->clusters[x->inside];
  for (int i = 0; i < c->nmembers; i++) {
    int unit = c->members[i].unit, node = flow_of(x)->units[unit].node;
    if (node == but) continue;
    int id = copy(x, node);
    if (mk_is_stored(x->d->gr, unit)) output(x, id, place_of(x, node));
  }
}

/* ---- planning */

/* A residual stream may lie where it was read from. In one row program that is so of each element by itself; but no later one may
 * want what was there before. */
static bool reads_overwritten(const mk_draft *d, int store_work, int load_work) {
  const mk_body *x = d->work[store_work].body, *y = d->work[load_work].body;
  for (int i = 0; i < x->naccesses; i++)
    for (int j = 0; j < y->naccesses && x->accesses[i].store; j++) {
      int a = x->accesses[i].buffer, b = y->accesses[j].buffer;
      if (a != b && !y->accesses[j].store && d->ref[a].space == d->ref[b].space && d->ref[a].offset == d->ref[b].offset)
        return true;
    }
  return false;
}

/* Groups the graph and gives its buffers their places. False: it needs more memory than its borders. */
static bool plan_piece(piece *x, mk_draft *d) {
  if (!x->ok) return false;
  mk_pass_cse(x->g);
  mk_pass_dce(x->g);
  mk_flow *f = mk_flow_build(x->g, &x->g->arena, x->p->st);
  if (!f) return false;
  *d = (mk_draft){.name = x->d->name, .rate = MK_RATE_STEP, .nbuffers = f->nbuffers};
  d->gr = mk_group_units(f, MK_RATE_STEP, 0, NULL, NULL);
  d->ref = MK_NEW_ARRAY(&x->g->arena, mk_ref, f->nbuffers);
  for (int b = 0; b < f->nbuffers; b++) d->ref[b].offset = -1;
  for (int i = 0; i < x->g->count; i++)
    if (x->g->nodes[i].op == MK_OP_INPUT) d->ref[i] = x->inputs[atoi(x->g->nodes[i].name)];
  for (int i = 0; i < x->noutputs; i++) d->ref[f->output_buffer[i]] = x->outputs[i];
  d->work = MK_NEW_ARRAY(&x->g->arena, mk_work, d->gr->norder);
  for (int i = 0; i < d->gr->norder; i++) {
    int buffers[256], c = d->gr->order[i];
    mk_work *w = &d->work[d->nwork++];
    *w = (mk_work){.cluster = c, .workspace = -1};
    w->body = mk_body_build(d->gr, &d->gr->clusters[c], &x->g->arena, x->p->st);
    if (!w->body) return false;
    for (int n = mk_work_buffers(d, w, buffers, 256) - 1; n >= 0; n--)
      if (d->ref[buffers[n]].offset < 0) return false;
    for (int earlier = 0; earlier < i; earlier++)
      if (reads_overwritten(d, earlier, i)) return false;
  }
  return true;
}

typedef struct launches {
  int n;
  mk_launch items[MAX_LAUNCHES];
  double cost;
} launches;

/* The row programs of a graph with nothing else in it. */
static bool launch_rows(piece *x, launches *out) {
  mk_draft d;
  if (!plan_piece(x, &d) || d.nwork >= MAX_LAUNCHES) return false;
  for (int i = 0; i < d.nwork; i++) {
    mk_candidate c;
    if (d.gr->clusters[d.work[i].cluster].root >= 0 || !mk_row_candidates(x->p, &d, d.work[i].body, &c, 1)) return false;
    out->items[out->n++] = c.launches[0];
    out->cost += c.cost;
  }
  return true;
}

/* Makes the row programs part of a candidate of one launch. */
static void put_before(mk_planner *p, const char *name, const launches *rows, mk_candidate *c) {
  mk_launch *all = MK_NEW_ARRAY(p->arena, mk_launch, rows->n + 1);
  memcpy(all, rows->items, sizeof *all * (size_t)rows->n);
  all[rows->n] = c->launches[0];
  c->label = mk_printf(p->arena, "%s, %s", name, c->label);
  c->nlaunches = rows->n + 1;
  c->launches = all;
  c->cost += rows->cost;
}

/* Candidates: the row programs, then the graph's one group. */
static int launch_matmul(piece *x, const char *name, const launches *rows, const mk_hook *prologue, mk_candidate *out) {
  mk_draft d;
  if (!plan_piece(x, &d) || d.nwork != 1 || d.gr->clusters[d.work[0].cluster].root < 0) return 0;
  d.work[0].prologue = prologue;
  d.work[0].realises = name;
  int n = mk_template_candidates(x->p, &d, &d.work[0], out, EACH);
  n += mk_precedent_candidates(x->p, &d, &d.work[0], out + n, EACH);
  for (int i = 0; i < n; i++) {
    put_before(x->p, name, rows, &out[i]);
    out[i].covers = 1;
  }
  return n;
}

/* ---- what the realisations share */

static int row_vector(piece *x, int node, int64_t at) {
  const mk_node *n = outer(x, node);
  return input(x, workspace(x, at), MK_F32, n->dims, n->rank);
}

static int column_vector(piece *x, int node) {
  int id = copy(x, node);
  int64_t cols = x->site->norm.cols;
  if (!x->ok || mk_is_scalar_const(x->g, id) || x->g->nodes[id].rank == 1) return id;
  return build(x, &(mk_node){.op = MK_OP_RESHAPE, .rank = 1, .dims = {cols}, .nargs = 1}, &id);
}

static int weight_of(const mk_draft *d, int matmul) {
  return d->gr->f->g->nodes[d->gr->f->units[d->gr->clusters[matmul].root].node].args[1];
}

/* The row group without its h: whatever else it stored, and the statistics. */
static piece open_rows(mk_planner *p, const mk_draft *d, const mk_site *s, int cluster, bool mean) {
  const mk_normed *n = &s->norm;
  piece x = open_piece(p, d, s, cluster);
  if (s->copies && s->in_memory && outer(&x, n->x)->dtype == MK_F32) { /* a cast to nothing: who reads x then is of one group */
    int read = copy(&x, n->x);
    x.map[n->x] = unary(&x, MK_OP_CAST, read, MK_F32);
  }
  copy_cluster(&x, n->value);
  int scale = copy(&x, n->scale);
  if (n->divides) scale = unary(&x, MK_OP_RECIP, scale, MK_F32);
  output(&x, scale, workspace(&x, s->scale));
  if (mean) output(&x, copy(&x, n->mean), workspace(&x, s->mean));
  return x;
}

/* The matmul of a and b with a correction, and the whole group's epilogue. */
static void finish_matmul(piece *x, int product) {
  const mk_cluster *c = &x->d->gr->clusters[x->inside];
  int node = flow_of(x)->units[c->root].node;
  x->map[node] = product;
  copy_cluster(x, -1);
}

static int matmul(piece *x, int a, int b) {
  const mk_node *n = outer(x, flow_of(x)->units[x->d->gr->clusters[x->inside].root].node);
  return build(x, &(mk_node){.op = MK_OP_MATMUL, .attr = n->attr, .nargs = 2, .where = n->where}, (const int[]){a, b});
}

static int operand(piece *x) {
  const mk_node *n = outer(x, x->site->norm.value);
  return input(x, place_of(x, x->site->norm.value), n->dtype, n->dims, n->rank);
}

/* ---- folded */

static mk_ref folded_place(piece *x) {
  return x->site->weight_in_value ? place_of(x, x->site->norm.value) : workspace(x, x->site->weight);
}

/* W' and the column vectors, of one read of W: the cast, which does nothing, is what makes them one group. */
static void fold(piece *x, int weight) {
  const mk_site *s = x->site;
  const mk_normed *n = &s->norm;
  int w = unary(x, MK_OP_CAST, copy(x, weight), MK_F32), scale = -1, shift = -1;
  for (int i = 0; i < n->nsteps; i++) {
    int v = column_vector(x, n->step[i].vector);
    mk_op op = n->step[i].op;
    if (op == MK_OP_ADD || op == MK_OP_SUB) {
      shift = shift >= 0 ? binary(x, op, shift, v) : op == MK_OP_SUB ? unary(x, MK_OP_NEG, v, MK_F32) : v;
      continue;
    }
    if (shift >= 0) shift = binary(x, op, shift, v);
    scale = scale >= 0 ? binary(x, op, scale, v) : op == MK_OP_DIV ? unary(x, MK_OP_RECIP, v, MK_F32) : v;
  }
  if (s->modulation >= 0 && scale >= 0) output(x, scale, workspace(x, s->modulation));
  if (s->modulation >= 0 && shift >= 0) output(x, shift, workspace(x, s->modulation + (n->cols + 63) / 64 * 256));
  if (shift >= 0) output(x, unary(x, MK_OP_SUM, binary(x, MK_OP_MUL, w, shift), MK_F32), workspace(x, s->shift));
  if (scale >= 0) {
    w = cast(x, binary(x, MK_OP_MUL, w, scale), outer(x, n->value)->dtype);
    output(x, w, folded_place(x));
  }
  if (s->colsum >= 0) output(x, unary(x, MK_OP_SUM, w, MK_F32), workspace(x, s->colsum));
}

static int folded(mk_planner *p, const mk_draft *d, const mk_work *w, int rows_cluster, mk_candidate *out) {
  const mk_site *s = w->site;
  const mk_normed *n = &s->norm;
  int weight = weight_of(d, w->cluster), found = 0;
  launches rows = {0};
  if (!s->folds) return 0;
  piece x = open_rows(p, d, s, rows_cluster, s->colsum >= 0);
  if (s->copies) {
    int centred = copy(&x, n->x);
    if (n->mean >= 0) centred = binary(&x, MK_OP_SUB, centred, copy(&x, n->mean));
    output(&x, cast(&x, centred, outer(&x, n->value)->dtype), place_of(&x, n->value));
  }
  fold(&x, weight);
  if (launch_rows(&x, &rows)) {
    piece y = open_piece(p, d, s, w->cluster);
    const mk_node *wn = outer(&y, weight);
    int a = s->copies ? operand(&y) : copy(&y, n->x);
    bool scaled = s->weight >= 0 || s->weight_in_value;
    int b = scaled ? input(&y, folded_place(&y), wn->dtype, wn->dims, wn->rank) : copy(&y, weight);
    int product = matmul(&y, a, b);
    if (s->colsum >= 0) {
      int excess =
          binary(&y, MK_OP_MUL, row_vector(&y, n->mean, s->mean), input(&y, workspace(&y, s->colsum), MK_F32, wn->dims, 1));
      product = binary(&y, MK_OP_SUB, product, excess);
    }
    product = binary(&y, MK_OP_MUL, product, row_vector(&y, n->scale, s->scale));
    if (s->shift >= 0) product = binary(&y, MK_OP_ADD, product, input(&y, workspace(&y, s->shift), MK_F32, wn->dims, 1));
    finish_matmul(&y, product);
    found = launch_matmul(&y, "folded modulation", &rows, NULL, out);
    for (int i = 0; i < found; i++) out[i].rounds = outer(&y, n->value)->dtype != MK_F32;
    mk_graph_free(y.g);
  }
  mk_graph_free(x.g);
  return found;
}

/* ---- prologue */

/* h from x and the statistics, as rows and columns. */
static bool open_hook(piece *x, mk_draft *d, mk_hook *out) {
  const mk_site *s = x->site;
  const mk_normed *n = &s->norm;
  int h = copy(x, n->x);
  if (n->mean >= 0) h = binary(x, MK_OP_SUB, h, row_vector(x, n->mean, s->mean));
  h = binary(x, MK_OP_MUL, h, row_vector(x, n->scale, s->scale));
  for (int i = 0; i < n->nsteps; i++) h = binary(x, n->step[i].op, h, copy(x, n->step[i].vector));
  h = cast(x, h, outer(x, n->value)->dtype);
  output(x, h, place_of(x, n->value));
  if (!plan_piece(x, d) || d->nwork != 1) return false;
  mk_cluster *c = &d->gr->clusters[d->work[0].cluster];
  const mk_axes *map = &c->members[c->nmembers - 1].map; /* of the last in unit order: h itself */
  c->cols = mk_axes_dim(map, map->rank - 1);
  *out = (mk_hook){d, mk_body_build(d->gr, c, &x->g->arena, x->p->st)};
  return out->body != NULL;
}

static int prologue(mk_planner *p, const mk_draft *d, const mk_work *w, int rows_cluster, mk_candidate *out) {
  const mk_site *s = w->site;
  int found = 0;
  launches rows = {0};
  if (!s->in_memory) return 0;
  piece x = open_rows(p, d, s, rows_cluster, s->mean >= 0), h = open_piece(p, d, s, -1);
  mk_draft dh;
  mk_hook hook;
  if (launch_rows(&x, &rows) && open_hook(&h, &dh, &hook)) {
    piece y = open_piece(p, d, s, w->cluster);
    finish_matmul(&y, matmul(&y, operand(&y), copy(&y, weight_of(d, w->cluster))));
    found = launch_matmul(&y, "prologue", &rows, &hook, out);
    mk_graph_free(y.g);
  }
  mk_graph_free(h.g);
  mk_graph_free(x.g);
  return found;
}

int mk_site_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out) {
  const mk_cluster *c = &d->gr->clusters[w->cluster];
  if (!w->site || c->root < 0) return 0;
  int rows = d->gr->cluster_of[d->gr->f->unit_of[w->site->norm.value]];
  int n = folded(p, d, w, rows, out);
  return mk_failed(p->st) ? n : n + prologue(p, d, w, rows, out + n);
}

/* ---- a residual */

static int64_t folded_bytes(const mk_flow *f, const mk_residual *r) {
  const mk_node *w = &f->g->nodes[f->g->nodes[r->matmul].args[1]];
  return r->gate < 0 ? 0 : (mk_node_bytes(w) + 255) / 256 * 256;
}

int64_t mk_residual_workspace(const mk_draft *d, const mk_residual *r) {
  const mk_node *n = &d->gr->f->g->nodes[r->matmul];
  return folded_bytes(d->gr->f, r) + n->dims[n->rank - 1] * 4;
}

int mk_residual_candidate(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out) {
  const mk_residual *r = w->residual;
  if (!r) return 0;
  const mk_node *product = &d->gr->f->g->nodes[r->matmul], *wn = &d->gr->f->g->nodes[product->args[1]];
  int64_t cols = product->dims[product->rank - 1], bias_at = folded_bytes(d->gr->f, r);
  const mk_site place = {.workspace = w->workspace, .norm.cols = cols};
  launches rows = {0};
  int found = 0;
  piece x = open_piece(p, d, &place, -1), y = open_piece(p, d, &place, w->cluster);
  int gate = r->gate < 0 ? -1 : column_vector(&x, r->gate);
  if (gate >= 0) {
    int column = build(&x, &(mk_node){.op = MK_OP_RESHAPE, .rank = 2, .dims = {cols, 1}, .nargs = 1}, &gate);
    output(&x, cast(&x, binary(&x, MK_OP_MUL, copy(&x, product->args[1]), column), wn->dtype), workspace(&x, 0));
  }
  if (r->bias >= 0) {
    int bias = column_vector(&x, r->bias);
    output(&x, gate < 0 ? cast(&x, bias, MK_F32) : binary(&x, MK_OP_MUL, bias, gate), workspace(&x, bias_at));
  }
  int sum = matmul(&y, copy(&y, product->args[0]),
                   gate < 0 ? copy(&y, product->args[1]) : input(&y, workspace(&y, 0), wn->dtype, wn->dims, wn->rank));
  if (r->bias >= 0) sum = binary(&y, MK_OP_ADD, sum, input(&y, workspace(&y, bias_at), MK_F32, &cols, 1));
  output(&y, binary(&y, MK_OP_ADD, copy(&y, r->x), sum), place_of(&y, r->value));
  mk_draft dy;
  if (launch_rows(&x, &rows) && plan_piece(&y, &dy) && dy.nwork == 1) {
    mk_lt_plan(p, &dy, &dy.work[0]);
    if (dy.work[0].workspace < 0 && mk_lt_candidates(p, &dy, &dy.work[0], out, 1)) {
      put_before(p, gate < 0 ? "residual in place" : "gate in the weight, residual in place", &rows, out);
      out->rounds = true;
      found = 1;
    }
  }
  mk_graph_free(x.g);
  mk_graph_free(y.g);
  return found;
}

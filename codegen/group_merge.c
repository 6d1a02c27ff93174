/* Merging two groups: their domains become one set of axes, and every value that passes between them must be the same element of
 * that domain on both sides, so that it can stay in a register. */
#include "codegen/group_internal.h"

#include <string.h>

enum { MAX_MEMBERS = 96, MAX_READS = 40, SIDE_A = 1, SIDE_B = 2 };

typedef struct side {
  const mk_cluster *c;
  int index; /* cluster number */
  int base;  /* of its axes in the weave */
} side;

typedef struct merger {
  mk_grouping *gr;
  const mk_flow *f;
  mk_weave w;
  side side[2];
} merger;

static const mk_node *node_of(const merger *m, int id) { return &m->f->g->nodes[id]; }

static mk_axes shifted(const mk_axes *in, int base) {
  mk_axes out = *in;
  for (int i = 0; i < in->first[in->rank]; i++) out.axis[i] = (uint8_t)(in->axis[i] + base);
  return out;
}

static mk_list shifted_list(const mk_list *in, int base) {
  mk_list out = *in;
  for (int i = 0; i < in->n; i++) out.axis[i] = (uint8_t)(in->axis[i] + base);
  return out;
}

static const mk_member *find_member(const mk_cluster *c, int unit) {
  for (int i = c->nmembers - 1; i >= 0; i--)
    if (c->members[i].unit == unit) return &c->members[i];
  return NULL;
}

int mk_arg_unit(const mk_flow *f, int unit, int k) {
  int node;
  const mk_unit *u = &f->units[unit];
  const mk_view *v = mk_unit_arg(f, unit, k, &node);
  const mk_node *n = &f->g->nodes[u->node];
  bool from_memory = !u->copy && !u->move && (mk_op_class_of(n->op) == MK_CLASS_ROOT || n->op == MK_OP_GATHER);
  if (from_memory || v->source >= f->g->count || f->kind[v->source] != MK_VALUE_UNIT) return -1;
  return f->unit_of[v->source];
}

/* The map of `node`, which stands behind views of `start`, from start's map. */
static bool push_map(merger *m, const mk_axes *start_map, int start, int node, mk_axes *out) {
  if (node == start) {
    *out = *start_map;
    return true;
  }
  const mk_node *n = node_of(m, node);
  mk_axes arg;
  return push_map(m, start_map, start, n->args[0], &arg) && mk_weave_move(&m->w, &arg, n, node_of(m, n->args[0]), out);
}

static bool push_arg(merger *m, const mk_axes *source_map, int unit, int k, mk_axes *out) {
  int node;
  const mk_view *v = mk_unit_arg(m->f, unit, k, &node);
  const mk_unit *u = &m->f->units[unit];
  if (!u->move) return push_map(m, source_map, v->source, node, out);
  const mk_node *n = node_of(m, node); /* a move made real: its own step comes on top */
  mk_axes arg;
  return push_map(m, source_map, v->source, n->args[0], &arg) && mk_weave_move(&m->w, &arg, n, node_of(m, n->args[0]), out);
}

/* Two maps of one tensor name the same elements. Repeated dims (empty on one side) agree with anything. */
static bool equate_maps(merger *m, const mk_axes *a, const mk_axes *b) {
  for (int i = 0; i < a->rank; i++) {
    mk_list p = mk_axes_dim(a, i), q = mk_axes_dim(b, i);
    if (p.n && q.n && !mk_weave_equate(&m->w, &p, &q)) return false;
  }
  return true;
}

static bool same_leaves(const merger *m, const mk_list *a, const mk_list *b) {
  mk_list p, q;
  return mk_weave_leaves(&m->w, a, &p) && mk_weave_leaves(&m->w, b, &q) && p.n == q.n && !memcmp(p.axis, q.axis, (size_t)p.n);
}

/* Reader and updater of one state in one kernel: safe if each element is read by the thread that writes it. */
static bool same_place(merger *m, const side *rs, const mk_member *reader, const side *us, const mk_member *update) {
  const mk_unit *u = &m->f->units[update->unit];
  if (rs->c->root >= 0 && reader->unit == rs->c->root) return false;
  for (int k = 0; k < mk_unit_nargs(m->f, reader->unit); k++) {
    int node;
    const mk_view *v = mk_unit_arg(m->f, reader->unit, k, &node);
    if (v->source != u->to.source) {
      if (v->source < m->f->g->count && m->f->kind[v->source] == MK_VALUE_INLINE) return false;
      continue;
    }
    mk_axes map;
    if (memcmp(v->first, u->to.first, sizeof v->first) || v->rank != u->to.rank || v->offset != u->to.offset) return false;
    if (memcmp(v->digit, u->to.digit, sizeof *v->digit * v->first[v->rank])) return false;
    if (!mk_arg_map(m->f, rs->c, reader, k, &map)) return false;
    map = shifted(&map, rs->base);
    mk_axes to = shifted(&update->map, us->base);
    for (int i = 0; i < map.rank; i++) {
      mk_list p = mk_axes_dim(&map, i), q = mk_axes_dim(&to, i);
      if (!same_leaves(m, &p, &q)) return false;
    }
  }
  return true;
}

/* Every dependency between the two groups must go through registers. */
static bool link_sides(merger *m, int reader_side, bool states) {
  const side *rs = &m->side[reader_side], *ws = &m->side[1 - reader_side];
  for (int i = 0; i < rs->c->nmembers; i++) {
    const mk_member *r = &rs->c->members[i];
    const mk_unit *u = &m->f->units[r->unit];
    for (int d = 0; d < u->ndeps; d++) {
      int dep = u->deps[d];
      if (m->gr->cluster_of[dep] != ws->index) continue;
      const mk_member *w = find_member(ws->c, dep);
      bool linked = false;
      for (int k = 0; k < mk_unit_nargs(m->f, r->unit); k++) {
        if (mk_arg_unit(m->f, r->unit, k) != dep) continue;
        mk_axes want, have, from = shifted(&w->map, ws->base);
        if (!mk_arg_map(m->f, rs->c, r, k, &want) || !push_arg(m, &from, r->unit, k, &have)) return false;
        want = shifted(&want, rs->base);
        if (!states && !equate_maps(m, &want, &have)) return false;
        linked = true;
      }
      if (!linked && u->state < 0) return false;
      if (u->state >= 0 && states && !same_place(m, ws, w, rs, r)) return false;
    }
  }
  return true;
}

/* Axes that only one side has: fine if they are a row's columns and the other side works on whole rows, or if they are both
 * sides' columns, which then are one and the same loop. */
static bool link_rows(merger *m) {
  mk_list only[2] = {{0}, {0}}, cols[2];
  for (int s = 0; s < 2; s++) {
    const mk_cluster *c = m->side[s].c;
    mk_list cs = shifted_list(&c->cols, m->side[s].base);
    if (!mk_weave_leaves(&m->w, &cs, &cols[s])) return false;
    for (int i = 0; i < c->naxes; i++) {
      mk_list one = {1, {(uint8_t)(m->side[s].base + i)}}, leaves;
      if (!mk_weave_leaves(&m->w, &one, &leaves)) return false;
      for (int j = 0; j < leaves.n; j++) {
        if (m->w.axis[leaves.axis[j]].sides != (s ? SIDE_B : SIDE_A)) continue;
        if (only[s].n == MK_MAX_AXES) return false;
        only[s].axis[only[s].n++] = leaves.axis[j];
      }
    }
  }
  for (int s = 0; s < 2; s++) { /* what is alone must be columns, where there are columns */
    if (!cols[s].n) continue;
    for (int i = 0; i < only[s].n; i++)
      if (!memchr(cols[s].axis, only[s].axis[i], (size_t)cols[s].n)) return false;
  }
  if (only[0].n && only[1].n) {
    if (!cols[0].n && !cols[1].n) return false;
    for (int s = 0; s < 2; s++)
      if (cols[s].n && cols[s].n != only[s].n) return false;
    const mk_list *a = cols[0].n ? &cols[0] : &only[0], *b = cols[1].n ? &cols[1] : &only[1];
    if (!mk_weave_equate(&m->w, a, b)) return false;
  } else {
    for (int s = 0; s < 2; s++)
      if (only[s].n && !cols[s].n) return false;
  }
  return !cols[0].n || !cols[1].n || same_leaves(m, &cols[0], &cols[1]);
}

/* Rotations work on adjacent lanes: one axis of pairs, innermost. */
static bool link_pairs(const merger *m) {
  int pair = -1;
  for (int s = 0; s < 2; s++) {
    const mk_cluster *c = m->side[s].c;
    if (c->pair < 0) continue;
    mk_list one = {1, {(uint8_t)(m->side[s].base + c->pair)}}, leaf;
    if (!mk_weave_leaves(&m->w, &one, &leaf) || leaf.n != 1 || (pair >= 0 && pair != leaf.axis[0])) return false;
    pair = leaf.axis[0];
  }
  for (int s = 0; s < 2 && pair >= 0; s++) {
    mk_list cols = shifted_list(&m->side[s].c->cols, m->side[s].base);
    if (!mk_weave_leaves(&m->w, &cols, &cols) || (cols.n && cols.axis[cols.n - 1] != pair)) return false;
  }
  return true;
}

static bool fit_views(merger *m, const side *s) {
  for (int i = 0; i < s->c->nmembers; i++) {
    const mk_member *r = &s->c->members[i];
    for (int k = 0; k < mk_unit_nargs(m->f, r->unit); k++) {
      int node;
      const mk_view *v = mk_unit_arg(m->f, r->unit, k, &node);
      bool several = false;
      for (int d = 0; d < v->rank; d++) several |= v->first[d + 1] - v->first[d] > 1;
      mk_axes map;
      if (!several || !mk_arg_map(m->f, s->c, r, k, &map)) continue;
      map = shifted(&map, s->base);
      for (int d = 0; d < v->rank; d++) {
        mk_list dim = mk_axes_dim(&map, d);
        if (dim.n && !mk_weave_fit_digits(&m->w, &dim, v->digit + v->first[d], v->first[d + 1] - v->first[d])) return false;
      }
    }
  }
  return true;
}

/* Numbers the weave's leaves as the axes of `to`, side by side. */
static bool number_axes(const merger *m, mk_cluster *to, int8_t number[MK_MAX_WEAVE]) {
  memset(number, -1, MK_MAX_WEAVE);
  to->naxes = 0;
  for (int s = 0; s < 2; s++)
    for (int i = 0; m->side[s].c && i < m->side[s].c->naxes; i++) {
      mk_list one = {1, {(uint8_t)(m->side[s].base + i)}}, leaves;
      if (!mk_weave_leaves(&m->w, &one, &leaves)) return false;
      for (int j = 0; j < leaves.n; j++) {
        int x = leaves.axis[j];
        if (number[x] >= 0) continue;
        if (to->naxes == MK_MAX_AXES) return false;
        number[x] = (int8_t)to->naxes;
        to->extent[to->naxes++] = m->w.axis[x].extent;
      }
    }
  return true;
}

static bool renumber(const merger *m, const mk_list *in, const int8_t *number, mk_list *out) {
  if (!mk_weave_leaves(&m->w, in, out)) return false;
  for (int i = 0; i < out->n; i++) out->axis[i] = (uint8_t)number[out->axis[i]];
  return true;
}

static bool renumber_map(const merger *m, const mk_axes *in, int base, const int8_t *number, mk_axes *out) {
  *out = (mk_axes){0};
  for (int i = 0; i < in->rank; i++) {
    mk_list dim = mk_axes_dim(in, i);
    dim = shifted_list(&dim, base);
    if (!renumber(m, &dim, number, &dim) || !mk_axes_push_dim(out, &dim)) return false;
  }
  return true;
}

static void by_unit(mk_member *members, int n) {
  for (int i = 1; i < n; i++)
    for (int j = i; j > 0 && members[j - 1].unit > members[j].unit; j--) {
      mk_member t = members[j];
      members[j] = members[j - 1];
      members[j - 1] = t;
    }
}

/* Builds the merged group beside the old ones; false leaves them as they were. */
static bool build(const merger *m, mk_cluster *out) {
  int8_t number[MK_MAX_WEAVE];
  if (!number_axes(m, out, number)) return false;
  out->members = MK_NEW_ARRAY(m->gr->arena, mk_member, m->side[0].c->nmembers + (m->side[1].c ? m->side[1].c->nmembers : 0));
  out->root = -1;
  out->pair = -1;
  for (int s = 0; s < 2 && m->side[s].c; s++) {
    const mk_cluster *c = m->side[s].c;
    if (c->root >= 0) out->root = c->root;
    out->reduces |= c->reduces;
    mk_list pair = {c->pair >= 0, {(uint8_t)(m->side[s].base + c->pair)}};
    if (c->pair >= 0 && renumber(m, &pair, number, &pair)) out->pair = pair.axis[0];
    mk_list cols = shifted_list(&c->cols, m->side[s].base);
    if (c->cols.n && !renumber(m, &cols, number, &out->cols)) return false;
    for (int i = 0; i < c->nmembers; i++) {
      mk_member *to = &out->members[out->nmembers++];
      to->unit = c->members[i].unit;
      if (!renumber_map(m, &c->members[i].map, m->side[s].base, number, &to->map)) return false;
    }
  }
  by_unit(out->members, out->nmembers);
  out->cap = out->nmembers;
  return true;
}

static void open_side(merger *m, int s, int cluster) {
  const mk_cluster *c = &m->gr->clusters[cluster];
  m->side[s] = (side){c, cluster, m->w.n};
  for (int i = 0; i < c->naxes; i++) mk_weave_add(&m->w, c->extent[i], s ? SIDE_B : SIDE_A);
}

static int count_reads(const mk_flow *f, const mk_cluster *c) {
  int n = 0;
  for (int i = 0; i < c->nmembers; i++)
    for (int k = 0; k < mk_unit_nargs(f, c->members[i].unit); k++) {
      int u = mk_arg_unit(f, c->members[i].unit, k), node;
      const mk_view *v = mk_unit_arg(f, c->members[i].unit, k, &node);
      bool literal = v->source < f->g->count && mk_is_scalar_const(f->g, v->source);
      n += !literal && (u < 0 || !find_member(c, u));
    }
  return n;
}

int mk_cluster_merge(mk_grouping *gr, int a, int b) {
  mk_cluster *ca = &gr->clusters[a], *cb = &gr->clusters[b];
  if ((ca->root >= 0 && cb->root >= 0) || ca->nmembers + cb->nmembers > MAX_MEMBERS) return -1;
  if (count_reads(gr->f, ca) + count_reads(gr->f, cb) > MAX_READS) return -1;
  merger m = {.gr = gr, .f = gr->f};
  open_side(&m, 0, a);
  open_side(&m, 1, b);
  mk_cluster out = {0};
  if (!link_sides(&m, 0, false) || !link_sides(&m, 1, false) || !link_rows(&m)) return -1;
  if (!link_sides(&m, 0, true) || !link_sides(&m, 1, true) || !link_pairs(&m)) return -1;
  if (!fit_views(&m, &m.side[0]) || !fit_views(&m, &m.side[1]) || !build(&m, &out)) return -1;
  if (!mk_order_join(gr, a, b)) return -1;
  for (int i = 0; i < cb->nmembers; i++) gr->cluster_of[cb->members[i].unit] = a;
  out.place = ca->place;
  *ca = out;
  *cb = (mk_cluster){.root = -1, .pair = -1, .dead = true, .place = cb->place};
  return a;
}

/* A group of one unit: an axis a dim, refined by how it reads. */
int mk_cluster_add(mk_grouping *gr, int unit) {
  const mk_flow *f = gr->f;
  const mk_unit *u = &f->units[unit];
  const mk_node *n = &f->g->nodes[u->node];
  bool plain = u->copy || u->move;
  mk_op_class class = plain ? MK_CLASS_MOVE : mk_op_class_of(n->op);
  merger m = {.gr = gr, .f = f};
  mk_cluster c = {.root = class == MK_CLASS_ROOT ? unit : -1, .pair = -1}, out = {0};
  mk_member self = {.unit = unit};
  for (int i = 0; i < n->rank; i++) {
    mk_list dim = {0};
    int64_t extent = class == MK_CLASS_REDUCE ? f->g->nodes[n->args[0]].dims[i] : n->dims[i];
    if (extent > 1) {
      mk_weave_add(&m.w, extent, SIDE_A);
      dim = (mk_list){1, {(uint8_t)c.naxes}};
      c.extent[c.naxes++] = extent;
    }
    bool last = i == n->rank - 1;
    if (class == MK_CLASS_REDUCE && last) {
      c.cols = dim;
      c.reduces = dim.n > 0;
      dim.n = 0;
    }
    if (class == MK_CLASS_ROOT && (last || (n->op == MK_OP_ATTENTION && i == n->rank - 2)) && dim.n)
      c.cols.axis[c.cols.n++] = dim.axis[0];
    mk_axes_push_dim(&self.map, &dim);
  }
  c.members = &self;
  c.nmembers = 1;
  m.side[0] = (side){&c, -1, 0};
  mk_list rest;
  if (!plain && n->op == MK_OP_ROPE) { /* pairs are an axis of their own, so that the tables do not vary over it */
    mk_list last = mk_axes_dim(&self.map, n->rank - 1);
    mk_weave_split_last(&m.w, &last, 2, &rest);
  }
  fit_views(&m, &m.side[0]);
  build(&m, &out);
  if (!plain && n->op == MK_OP_ROPE) {
    mk_list last = mk_axes_dim(&out.members[0].map, n->rank - 1);
    out.pair = last.axis[last.n - 1];
  }
  out.place = gr->norder;
  MK_PUSH(gr->arena, gr->clusters, gr->nclusters, gr->cap, out);
  MK_PUSH(gr->arena, gr->order, gr->norder, gr->order_cap, gr->nclusters - 1);
  gr->cluster_of[unit] = gr->nclusters - 1;
  return gr->nclusters - 1;
}

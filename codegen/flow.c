#include "codegen/flow_internal.h"

#include <string.h>

typedef struct link {
  int unit;
  struct link *next;
} link;

typedef struct ctx {
  mk_flow *f;
  mk_view **copied;          /* per node: of a move made real, the view it copies */
  link **readers, **writers; /* per buffer, newest first */
  int *deps;                 /* of the unit being made */
  int ndeps, deps_cap;
  mk_status *st;
} ctx;

static const mk_node *node_of(const mk_flow *f, int id) { return &f->g->nodes[id]; }

static bool is_view_op(mk_op op) { return mk_op_class_of(op) == MK_CLASS_MOVE && op != MK_OP_CONCAT && op != MK_OP_GATHER; }

/* ---- views */

/* Gives a movement node a buffer of its own, filled by a unit. What is derived from it later sees a dense value. */
static void make_real(ctx *c, int id) {
  mk_flow *f = c->f;
  if (f->kind[id] != MK_VALUE_VIEW) return;
  c->copied[id] = MK_NEW(f->arena, mk_view);
  *c->copied[id] = f->view[id];
  f->kind[id] = MK_VALUE_UNIT;
  f->view[id] = mk_view_dense(id, node_of(f, id)->dims, node_of(f, id)->rank);
}

static bool starts_aligned(const mk_flow *f, int id) {
  return f->view[id].offset * (int64_t)mk_dtype_size(node_of(f, id)->dtype) % 16 == 0;
}

static bool dense_operand(const mk_flow *f, int id) { return mk_view_contiguous(&f->view[id]) && starts_aligned(f, id); }

/* Rows of contiguous elements, evenly spaced. */
static bool matrix_operand(const mk_flow *f, int id) {
  const mk_view *v = &f->view[id];
  mk_digit rows, cols;
  return starts_aligned(f, id) && mk_view_joined(v, 0, v->rank - 1, &rows) && mk_view_joined(v, v->rank - 1, v->rank, &cols) &&
         (cols.extent == 1 || cols.stride == 1) && (rows.extent == 1 || rows.stride >= cols.extent);
}

static bool heads_operand(const mk_flow *f, int id) {
  const mk_view *v = &f->view[id];
  mk_digit d;
  if (!starts_aligned(f, id)) return false;
  for (int i = 0; i < v->rank; i++)
    if (!mk_view_joined(v, i, i + 1, &d) || (d.extent > 1 && d.stride == 0)) return false;
  return d.extent == 1 || d.stride == 1;
}

bool mk_conv_upsamples(const mk_flow *f, int node) {
  int x = node_of(f, node)->args[0];
  return node_of(f, x)->op == MK_OP_UPSAMPLE && f->kind[x] == MK_VALUE_VIEW;
}

static void root_operands(ctx *c, const mk_node *n) {
  mk_flow *f = c->f;
  if (n->op == MK_OP_MATMUL) {
    for (int i = 0; i < 2; i++)
      if (!matrix_operand(f, n->args[i])) make_real(c, n->args[i]);
  } else if (n->op == MK_OP_CONV) {
    int x = n->args[0];
    if (node_of(f, x)->op == MK_OP_UPSAMPLE && f->kind[x] == MK_VALUE_VIEW) x = node_of(f, x)->args[0];
    if (!dense_operand(f, x)) make_real(c, x);
    if (!dense_operand(f, n->args[1])) make_real(c, n->args[1]);
  } else {
    for (int i = 0; i < n->nargs; i++)
      if (i < 3 ? !heads_operand(f, n->args[i]) : !dense_operand(f, n->args[i])) make_real(c, n->args[i]);
  }
}

static void find_views(ctx *c) {
  mk_flow *f = c->f;
  for (int id = 0; id < c->f->g->count; id++) {
    const mk_node *n = node_of(f, id);
    f->view[id] = mk_view_dense(id, n->dims, n->rank);
    mk_op_class class = mk_op_class_of(n->op);
    f->kind[id] = class == MK_CLASS_LEAF ? MK_VALUE_LEAF : n->op == MK_OP_CONCAT ? MK_VALUE_CONCAT : MK_VALUE_UNIT;
    if (class == MK_CLASS_ROOT) root_operands(c, n);
    if (n->op == MK_OP_GATHER) { /* the gathered axis must be evenly spaced */
      mk_digit d;
      if (!mk_view_joined(&f->view[n->args[0]], 0, 1, &d)) make_real(c, n->args[0]);
    }
    if (!is_view_op(n->op)) continue;
    int arg = n->args[0];
    mk_view v = f->view[arg];
    if (!mk_view_move(&v, n, node_of(f, arg)->dims)) {
      make_real(c, arg);
      v = f->view[arg];
      if (!mk_view_move(&v, n, node_of(f, arg)->dims)) continue; /* more digits than a view holds: a copy of its own */
    }
    f->view[id] = v;
    f->kind[id] = MK_VALUE_VIEW;
  }
}

/* ---- what is needed, and where */

static int entry_index(const mk_graph *g, const char *entry) {
  for (int i = 0; i < g->nentries; i++)
    if (!strcmp(g->entries[i], entry)) return i;
  return 0;
}

static void find_entries(ctx *c) {
  mk_flow *f = c->f;
  for (int i = 0; i < c->f->g->noutputs; i++)
    f->entries[c->f->g->outputs[i].node] |= 1ull << entry_index(c->f->g, c->f->g->outputs[i].entry);
  for (int i = 0; i < c->f->g->nupdates; i++)
    f->entries[c->f->g->updates[i].node] |= 1ull << entry_index(c->f->g, c->f->g->updates[i].entry);
  for (int id = c->f->g->count - 1; id >= 0; id--) {
    const mk_node *n = node_of(f, id);
    if (!f->entries[id]) {
      if (f->kind[id] != MK_VALUE_LEAF) f->kind[id] = MK_VALUE_UNUSED;
      continue;
    }
    for (int k = 0; k < n->nargs; k++) f->entries[n->args[k]] |= f->entries[id];
  }
}

/* ---- inline expressions */

int mk_chain_start(const mk_flow *f, int node) {
  while (f->kind[node] == MK_VALUE_VIEW) node = node_of(f, node)->args[0];
  return node;
}

bool mk_is_elementwise(mk_op op) {
  mk_op_class class = mk_op_class_of(op);
  return class == MK_CLASS_UNARY || (class == MK_CLASS_BINARY && op != MK_OP_ROPE);
}

static bool apply_chain(const mk_flow *f, int from, int to, mk_view *v) {
  if (from == to) return true;
  const mk_node *n = node_of(f, to);
  return apply_chain(f, from, n->args[0], v) && mk_view_move(v, n, node_of(f, n->args[0])->dims);
}

bool mk_inline_view(const mk_flow *f, int arg, const mk_stage *path, int length, mk_view *out) {
  *out = f->view[arg];
  for (int i = 0; i < length; i++) {
    const mk_node *a = node_of(f, arg), *n = node_of(f, path[i].inlined);
    if (!mk_view_broadcast(out, a->dims, a->rank, n->dims, n->rank)) return false;
    if (!apply_chain(f, path[i].inlined, path[i].seen_as, out)) return false;
    arg = path[i].seen_as;
  }
  return true;
}

static void index_users(const mk_graph *g, mk_arena *arena, int **first, int **users) {
  int total = 0;
  *first = MK_NEW_ARRAY(arena, int, g->count + 2);
  for (int id = 0; id < g->count; id++)
    for (int k = 0; k < g->nodes[id].nargs; k++, total++) (*first)[g->nodes[id].args[k] + 2]++;
  for (int id = 0; id <= g->count; id++) (*first)[id + 1] += (*first)[id];
  *users = MK_NEW_ARRAY(arena, int, total);
  for (int id = 0; id < g->count; id++)
    for (int k = 0; k < g->nodes[id].nargs; k++) (*users)[(*first)[g->nodes[id].args[k] + 1]++] = id;
}

/* ---- units, in an order that respects what each reads */

static void add_link(ctx *c, link **list, int unit) {
  if (*list && (*list)->unit == unit) return;
  link *l = MK_NEW(c->f->arena, link);
  *l = (link){unit, *list};
  *list = l;
}

static void add_dep(ctx *c, int unit) {
  for (int i = 0; i < c->ndeps; i++)
    if (c->deps[i] == unit) return;
  MK_PUSH(c->f->arena, c->deps, c->ndeps, c->deps_cap, unit);
}

/* Notes that the unit being made reads node `id` or, if that is inline, what its expression reads. */
static void reads(ctx *c, int unit, int buffer) {
  mk_flow *f = c->f;
  if (buffer < f->g->count && f->kind[buffer] == MK_VALUE_INLINE) {
    const mk_node *n = node_of(f, buffer);
    for (int k = 0; k < n->nargs; k++) reads(c, unit, f->view[n->args[k]].source);
    return;
  }
  add_link(c, &c->readers[buffer], unit);
  for (const link *l = c->writers[buffer]; l; l = l->next)
    if (f->units[l->unit].entries & f->units[unit].entries) add_dep(c, l->unit);
}

static int add_unit(ctx *c, mk_unit unit, int writes) {
  mk_flow *f = c->f;
  int u = f->nunits, node;
  MK_PUSH(f->arena, f->units, f->nunits, f->units_cap, unit);
  c->ndeps = 0;
  for (int k = 0; k < mk_unit_nargs(f, u); k++) reads(c, u, mk_unit_arg(f, u, k, &node)->source);
  if (unit.state >= 0) /* what reads the old value comes first */
    for (const link *l = c->readers[unit.state]; l; l = l->next)
      if (l->unit != u && (f->units[l->unit].entries & unit.entries)) add_dep(c, l->unit);
  int *deps = MK_NEW_ARRAY(f->arena, int, c->ndeps);
  if (c->ndeps) memcpy(deps, c->deps, sizeof *deps * (size_t)c->ndeps);
  f->units[u].deps = deps;
  f->units[u].ndeps = c->ndeps;
  if (unit.state < 0) add_link(c, &c->writers[writes], u); /* a state's new value is for the next run */
  return u;
}

static uint64_t entries_of(const mk_flow *f, int id) { return node_of(f, id)->rate == MK_RATE_STEP ? f->entries[id] : ~0ull; }

static void add_copy(ctx *c, int node, mk_view from, mk_view to, mk_rate rate, uint64_t entries, int state) {
  mk_unit u = {.node = node, .copy = true, .from = from, .to = to, .state = state, .rate = rate, .entries = entries};
  add_unit(c, u, to.source);
}

/* The value of `node` is, element for element, a whole buffer that may still move: that buffer, else -1. */
static int movable(const mk_flow *f, int node) {
  const mk_view *v = &f->view[node];
  int s = v->source;
  if (s >= f->g->count || f->home[s].buffer != s || !mk_view_contiguous(v)) return -1;
  if (v->offset || mk_node_count(node_of(f, s)) != mk_node_count(node_of(f, node))) return -1;
  bool weight = node_of(f, s)->op == MK_OP_INPUT && node_of(f, s)->rate == MK_RATE_LOAD;
  return weight || f->kind[s] == MK_VALUE_UNIT || f->kind[s] == MK_VALUE_CONCAT ? s : -1;
}

/* The parts of a concatenation are made in place where they lie in one piece, else copied. */
static void add_concat(ctx *c, int id) {
  mk_flow *f = c->f;
  const mk_node *n = node_of(f, id);
  int axis = n->attr.axis;
  bool outermost = mk_dims_count(n->dims, axis) == 1;
  int64_t at = 0, inner = mk_dims_count(n->dims + axis + 1, n->rank - axis - 1);
  for (int k = 0; k < n->nargs; k++) {
    const mk_node *a = node_of(f, n->args[k]);
    int s = movable(f, n->args[k]);
    bool same_run = s >= 0 && node_of(f, s)->rate == n->rate && entries_of(f, s) == entries_of(f, id);
    if (outermost && same_run) {
      f->home[s] = (mk_home){id, at * inner};
      for (const link *l = c->writers[s]; l; l = l->next) add_link(c, &c->writers[id], l->unit);
    } else {
      mk_node part = *a;
      part.op = MK_OP_SLICE;
      part.attr = (mk_attr){0};
      part.attr.start[axis] = at;
      mk_view to = mk_view_dense(id, n->dims, n->rank);
      mk_view_move(&to, &part, n->dims);
      add_copy(c, n->args[k], f->view[n->args[k]], to, n->rate, entries_of(f, id), -1);
    }
    at += a->dims[axis];
  }
}

static int new_buffer(ctx *c, int node) {
  mk_flow *f = c->f;
  int b = f->nbuffers++;
  f->home[b] = (mk_home){b, 0};
  f->buffer_node[b] = node;
  return b;
}

static void add_outputs(ctx *c) {
  mk_flow *f = c->f;
  const mk_graph *g = f->g;
  f->output_buffer = MK_NEW_ARRAY(f->arena, int, g->noutputs);
  for (int i = 0; i < g->noutputs; i++) {
    const mk_output *o = &g->outputs[i];
    const mk_node *n = node_of(f, o->node);
    uint64_t entries = n->rate == MK_RATE_STEP ? 1ull << entry_index(g, o->entry) : ~0ull;
    int s = movable(f, o->node), b = f->output_buffer[i] = new_buffer(c, o->node);
    if (s >= 0 && f->kind[s] != MK_VALUE_LEAF && entries_of(f, s) == entries)
      f->home[s] = (mk_home){b, 0};
    else
      add_copy(c, o->node, f->view[o->node], mk_view_dense(b, n->dims, n->rank), n->rate, entries, -1);
  }
}

/* Updates of one entry happen at once: one that reads a state goes before the one that writes it, and rings are cut by a
 * temporary. */
static void add_updates(ctx *c) {
  mk_flow *f = c->f;
  const mk_graph *g = f->g;
  bool *done = MK_NEW_ARRAY(f->arena, bool, g->nupdates);
  mk_view *from = MK_NEW_ARRAY(f->arena, mk_view, g->nupdates);
  for (int i = 0; i < g->nupdates; i++) from[i] = f->view[g->updates[i].node];
  for (int left = g->nupdates; left > 0;) {
    int before = left, waiting = -1;
    for (int i = 0; i < g->nupdates; i++) {
      const mk_update *up = &g->updates[i];
      if (done[i]) continue;
      const mk_node *n = node_of(f, up->node);
      bool blocked = false;
      for (int j = 0; j < g->nupdates && !blocked; j++)
        blocked = !done[j] && !strcmp(g->updates[j].entry, up->entry) && from[j].source == up->state &&
                  (j != i || up->node != up->state);
      if (blocked) {
        waiting = i;
        continue;
      }
      done[i] = true;
      left--;
      if (up->node == up->state) continue;
      add_copy(c, up->node, from[i], mk_view_dense(up->state, n->dims, n->rank), MK_RATE_STEP, 1ull << entry_index(g, up->entry),
               up->state);
    }
    if (left < before || waiting < 0) continue;
    const mk_node *n = node_of(f, g->updates[waiting].node); /* no free one: stage what the waiting one's blockers read */
    for (int j = 0; j < g->nupdates; j++) {
      const mk_update *up = &g->updates[j];
      if (done[j] || from[j].source != g->updates[waiting].state || strcmp(up->entry, g->updates[waiting].entry)) continue;
      n = node_of(f, up->node);
      mk_view to = mk_view_dense(new_buffer(c, up->node), n->dims, n->rank);
      add_copy(c, up->node, from[j], to, MK_RATE_STEP, 1ull << entry_index(g, up->entry), -1);
      from[j] = to;
    }
  }
}

static void index_links(mk_flow *f, int count, link **lists, int **first, int **items) {
  int total = 0;
  *first = MK_NEW_ARRAY(f->arena, int, count + 1);
  for (int i = 0; i < count; i++) {
    (*first)[i] = total;
    for (const link *l = lists[i]; l; l = l->next) total++;
  }
  (*first)[count] = total;
  *items = MK_NEW_ARRAY(f->arena, int, total);
  for (int i = 0; i < count; i++) {
    int at = (*first)[i + 1];
    for (const link *l = lists[i]; l; l = l->next) (*items)[--at] = l->unit;
  }
}

int mk_unit_nargs(const mk_flow *f, int u) {
  const mk_unit *unit = &f->units[u];
  return unit->copy || unit->move ? 1 : node_of(f, unit->node)->nargs;
}

const mk_view *mk_unit_arg(const mk_flow *f, int u, int k, int *node) {
  const mk_unit *unit = &f->units[u];
  if (unit->copy || unit->move) {
    *node = unit->node;
    return &unit->from;
  }
  int arg = node_of(f, unit->node)->args[k];
  if (k == 0 && node_of(f, unit->node)->op == MK_OP_CONV && mk_conv_upsamples(f, unit->node)) arg = node_of(f, arg)->args[0];
  *node = arg;
  return &f->view[arg];
}

int mk_flow_root(const mk_flow *f, int buffer, int64_t *offset) {
  *offset = 0;
  while (f->home[buffer].buffer != buffer) {
    *offset += f->home[buffer].offset;
    buffer = f->home[buffer].buffer;
  }
  return buffer;
}

static void add_units(ctx *c) {
  mk_flow *f = c->f;
  for (int id = 0; id < f->g->count; id++) {
    if (f->kind[id] == MK_VALUE_CONCAT) add_concat(c, id);
    if (f->kind[id] != MK_VALUE_UNIT) continue;
    mk_unit u = {.node = id, .state = -1, .rate = node_of(f, id)->rate, .entries = entries_of(f, id)};
    u.move = c->copied[id] != NULL;
    if (u.move) u.from = *c->copied[id];
    f->unit_of[id] = add_unit(c, u, id);
  }
  add_outputs(c);
  add_updates(c);
}

mk_flow *mk_flow_build(const mk_graph *g, mk_arena *arena, mk_status *st) {
  mk_flow *f = MK_NEW(arena, mk_flow);
  int buffers = g->count + g->noutputs + g->nupdates;
  *f = (mk_flow){.g = g, .arena = arena, .nbuffers = g->count};
  f->kind = MK_NEW_ARRAY(arena, mk_value_kind, g->count);
  f->view = MK_NEW_ARRAY(arena, mk_view, g->count);
  f->entries = MK_NEW_ARRAY(arena, uint64_t, g->count);
  f->unit_of = MK_NEW_ARRAY(arena, int, g->count);
  f->home = MK_NEW_ARRAY(arena, mk_home, buffers);
  f->buffer_node = MK_NEW_ARRAY(arena, int, buffers);
  f->units = MK_NEW_ARRAY(arena, mk_unit, buffers); /* they are large: growing would copy megabytes */
  f->units_cap = buffers;
  ctx c = {.f = f, .st = st};
  c.copied = MK_NEW_ARRAY(arena, mk_view *, g->count);
  c.readers = MK_NEW_ARRAY(arena, link *, buffers);
  c.writers = MK_NEW_ARRAY(arena, link *, buffers);
  for (int i = 0; i < g->count; i++) {
    f->unit_of[i] = -1;
    f->home[i] = (mk_home){i, 0};
    f->buffer_node[i] = i;
  }
  if (g->nentries > 64) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: %d entries; at most 64", g->name, g->nentries);
    return NULL;
  }
  find_views(&c);
  find_entries(&c);
  int *first, *users;
  index_users(g, arena, &first, &users);
  mk_find_inline(f, first, users);
  add_units(&c);
  index_links(f, f->nbuffers, c.readers, &f->first_reader, &f->readers);
  link **by_unit = MK_NEW_ARRAY(arena, link *, f->nunits);
  for (int u = 0; u < f->nunits; u++)
    for (int i = 0; i < f->units[u].ndeps; i++) add_link(&c, &by_unit[f->units[u].deps[i]], u);
  index_links(f, f->nunits, by_unit, &f->first_user, &f->users);
  return mk_failed(st) ? NULL : f;
}

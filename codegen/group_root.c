/* What the epilogue of a matmul, convolution or attention takes along.
 *
 * It follows the single reader of the root's value through elementwise operations. A matmul stops before a residual that a norm
 * reads soon: gate, residual and norm are one row program then, and the matmul stores its value at the narrowest dtype on the
 * way. A convolution takes residuals along, as its consumer is another convolution, and the norm between the two where a template
 * finishes whole rows. */
#include "codegen/group_internal.h"

enum { MAX_CHAIN = 16, MAX_FULL = 2, MAX_LOOK = 24 };

typedef enum stop {
  STOP_MEMORY,
  STOP_ROW
} stop; /* what reads the end of the chain: something that needs it stored; a row program */

static const mk_node *node_of(const mk_flow *f, int id) { return &f->g->nodes[id]; }

/* The units of this program that read the buffer; *elsewhere: other programs do, or it lies inside another buffer. */
static int readers_here(const mk_grouping *gr, int node, int out[2], bool *elsewhere) {
  const mk_flow *f = gr->f;
  int n = 0;
  *elsewhere = f->home[node].buffer != node;
  for (int i = f->first_reader[node]; i < f->first_reader[node + 1]; i++) {
    int r = f->readers[i];
    if (f->units[r].rate != gr->rate)
      *elsewhere = true;
    else if (mk_in_program(f, r, gr->rate, gr->entry) && n++ < 2)
      out[n - 1] = r;
  }
  return n;
}

static bool is_row_work(const mk_flow *f, int unit) {
  const mk_unit *u = &f->units[unit];
  mk_op op = node_of(f, u->node)->op;
  return !u->copy && !u->move && (mk_is_elementwise(op) || op == MK_OP_ROPE || mk_op_class_of(op) == MK_CLASS_REDUCE);
}

static bool is_elementwise_unit(const mk_flow *f, int unit) {
  const mk_unit *u = &f->units[unit];
  return !u->copy && !u->move && mk_is_elementwise(node_of(f, u->node)->op);
}

/* A reduction reads the value within a few elementwise steps. */
static bool feeds_reduction(const mk_grouping *gr, int node, int *budget) {
  const mk_flow *f = gr->f;
  for (int i = f->first_reader[node]; i < f->first_reader[node + 1]; i++) {
    int r = f->readers[i], n = f->units[r].node;
    if (!mk_in_program(f, r, gr->rate, gr->entry) || f->units[r].copy || f->units[r].move) continue;
    if (mk_op_class_of(node_of(f, n)->op) == MK_CLASS_REDUCE) return true;
    if (--*budget > 0 && mk_is_elementwise(node_of(f, n)->op) && feeds_reduction(gr, n, budget)) return true;
  }
  return false;
}

/* Operands of n other than `chain` that are as large as n itself. */
static int full_operands(const mk_flow *f, int unit, int chain) {
  const mk_node *n = node_of(f, f->units[unit].node);
  int full = 0;
  for (int k = 0; k < n->nargs; k++)
    full += f->view[n->args[k]].source != chain && mk_node_count(node_of(f, n->args[k])) == mk_node_count(n) &&
            mk_node_count(n) > n->dims[n->rank - 1];
  return full;
}

/* The values of one row that a whole-row epilogue may work on: the root's own, and what is computed from them, from vectors along
 * the row and from numbers. */
static bool row_operands(const mk_grouping *gr, int unit, int root) {
  const mk_flow *f = gr->f;
  const mk_node *n = node_of(f, f->units[unit].node), *r = node_of(f, f->units[root].node);
  int64_t columns = r->dims[r->rank - 1], count = mk_node_count(n), rows = mk_node_count(r) / columns;
  if (count != rows && count != rows * columns) return false;
  for (int k = 0; k < n->nargs; k++) {
    int from = mk_arg_unit(f, unit, k);
    if (from >= 0 && (from == root || gr->absorb[from] == root)) continue;
    if (mk_node_count(node_of(f, n->args[k])) > columns) return false;
  }
  return true;
}

/* After the chain, the norm that follows: reductions over the root's columns and what is done with them. */
static void absorb_rows(mk_grouping *gr, int root, int end) {
  const mk_flow *f = gr->f;
  int queue[MAX_LOOK] = {end}, head = 0, tail = 1;
  bool reduces = false;
  while (head < tail) {
    int node = queue[head++];
    for (int i = f->first_reader[node]; i < f->first_reader[node + 1] && tail < MAX_LOOK; i++) {
      int r = f->readers[i];
      if (!mk_in_program(f, r, gr->rate, gr->entry) || !is_row_work(f, r) || gr->absorb[r] == root || !row_operands(gr, r, root))
        continue;
      gr->absorb[r] = root;
      reduces |= mk_op_class_of(node_of(f, f->units[r].node)->op) == MK_CLASS_REDUCE;
      queue[tail++] = f->units[r].node;
    }
  }
  for (int i = 1; i < tail && !reduces; i++) gr->absorb[f->unit_of[queue[i]]] = -1;
}

void mk_plan_epilogue(mk_grouping *gr, int root, bool row_epilogue) {
  const mk_flow *f = gr->f;
  mk_op op = node_of(f, f->units[root].node)->op;
  int chain[MAX_CHAIN], n = 0, full = 0, cur = f->units[root].node;
  stop why = STOP_MEMORY;
  for (; n < MAX_CHAIN; n++) {
    int r[2];
    bool elsewhere;
    int count = readers_here(gr, cur, r, &elsewhere);
    if (elsewhere || count != 1 || !is_elementwise_unit(f, r[0])) {
      bool row = !elsewhere && count > 0;
      for (int i = 0; i < count && i < 2; i++) row &= is_row_work(f, r[i]);
      why = row ? STOP_ROW : STOP_MEMORY;
      break;
    }
    const mk_node *next = node_of(f, f->units[r[0]].node);
    int more = full_operands(f, r[0], cur), budget = MAX_LOOK;
    if (mk_node_count(next) != mk_node_count(node_of(f, cur)) || full + more > MAX_FULL ||
        (more && (op == MK_OP_ATTENTION || (op == MK_OP_MATMUL && feeds_reduction(gr, f->units[r[0]].node, &budget))))) {
      why = STOP_ROW;
      break;
    }
    full += more;
    chain[n] = r[0];
    cur = f->units[r[0]].node;
  }
  if (why == STOP_ROW && !row_epilogue) { /* the rest of the way is free in the row program: store at the narrowest point */
    int best = n;
    size_t bytes = n ? mk_dtype_size(node_of(f, cur)->dtype) : 0;
    for (int i = n - 1; i > 0; i--) {
      size_t b = mk_dtype_size(node_of(f, f->units[chain[i - 1]].node)->dtype);
      if (b < bytes) {
        bytes = b;
        best = i;
      }
    }
    n = best;
  }
  for (int i = 0; i < n; i++) gr->absorb[chain[i]] = root;
  if (row_epilogue) absorb_rows(gr, root, cur);
}

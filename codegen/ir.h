/* The intermediate representation: a graph of tensor operations in SSA form, the one header all passes share.
 *
 * Nodes stand in topological order: an argument's id is smaller than its user's. Everything is owned by the graph's arena. */
#ifndef MK_CODEGEN_IR_H
#define MK_CODEGEN_IR_H

#include "runtime/base/arena.h"
#include "runtime/base/status.h"
#include "runtime/base/tensor.h"
#include "runtime/base/text.h"

typedef enum mk_op {
#define X(id, name, class, nargs) MK_OP_##id,
#include "codegen/ops.def"
#undef X
  MK_OP_COUNT
} mk_op;

typedef enum mk_op_class {
  MK_CLASS_LEAF,
  MK_CLASS_UNARY,
  MK_CLASS_BINARY,
  MK_CLASS_REDUCE,
  MK_CLASS_MOVE,
  MK_CLASS_ROOT
} mk_op_class;

/* Binding time: when a value can first be computed. A node's rate is the highest of its arguments'. */
typedef enum mk_rate {
  MK_RATE_LOAD,   /* from weights and constants alone: once per checkpoint */
  MK_RATE_PROMPT, /* once per prompt */
  MK_RATE_STEP    /* every step */
} mk_rate;

typedef struct mk_attr {             /* only the fields of the node's op are meaningful; all others are zero */
  mk_rate rate;                      /* INPUT */
  const void *data;                  /* CONST: count × 4 bytes, f32 or i32 */
  int64_t start[MK_MAX_RANK];        /* SLICE */
  int8_t perm[MK_MAX_RANK];          /* PERMUTE */
  int8_t axis;                       /* CONCAT */
  int16_t pad[6];                    /* CONV */
  bool tf32;                         /* MATMUL, CONV */
  bool has_bias, has_kv_len, causal; /* ATTENTION */
  float scale;                       /* ATTENTION */
} mk_attr;

typedef struct mk_node {
  mk_op op;
  mk_dtype dtype;
  int rank;
  int64_t dims[MK_MAX_RANK]; /* all >= 1 */
  mk_rate rate;
  int nargs;
  const int *args;
  mk_attr attr;
  const char *name;  /* INPUT, STATE: the binding's name. Elsewhere an optional label ("blocks.0.norm1"), else NULL */
  const char *where; /* "wan_dit.lua:42", for messages */
} mk_node;

typedef struct mk_output { /* what `entry` returns to the caller */
  const char *entry;       /* program that makes it; see mk_graph.entries */
  const char *name;
  int node;
} mk_output;

typedef struct mk_update { /* after a run of `entry`, state takes the value of node (same dtype and dims) */
  const char *entry;
  int state; /* a STATE node */
  int node;
} mk_update;

typedef struct mk_graph {
  mk_arena arena;
  const char *name; /* e.g. "wan_dit" */
  mk_node *nodes;
  int count, cap;
  /* Step-rate programs that share weights, prompt values and states; most graphs have one, "step". A graph whose outputs are
   * all below step rate still lists its outputs under its one entry. */
  const char **entries;
  int nentries, entries_cap;
  mk_output *outputs;
  int noutputs, outputs_cap;
  mk_update *updates;
  int nupdates, updates_cap;
} mk_graph;

const char *mk_op_name(mk_op op);
mk_op_class mk_op_class_of(mk_op op);
int mk_op_arity(mk_op op); /* -1: variable */
const char *mk_rate_name(mk_rate rate);
bool mk_is_scalar_const(const mk_graph *g, int id); /* a CONST with one element */
float mk_scalar_value(const mk_graph *g, int id);
int64_t mk_node_count(const mk_node *n); /* elements */
int64_t mk_node_bytes(const mk_node *n);

/* Whether both compute the same from inputs, states and weights of the same names: labels and lines of the script do not count.
 * Only graphs that were made alike are found to be. */
bool mk_graph_same(const mk_graph *a, const mk_graph *b);

mk_graph *mk_graph_new(const char *name);
void mk_graph_free(mk_graph *g); /* NULL is fine */
/* Append to outputs and updates; names are copied, the entry is registered on first use. */
void mk_graph_output(mk_graph *g, const char *entry, const char *name, int node);
void mk_graph_update(mk_graph *g, const char *entry, int state, int node);

/* ---- building (codegen/build.c): infers dtype, dims and rate; checks; returns the node id, or -1 with the status set.
 * `where` names the Lua line for messages; args are copied. */
int mk_build(mk_graph *g, mk_op op, const int *args, int nargs, mk_dtype dtype, const int64_t *dims, int rank,
             const mk_attr *attr, const char *name, const char *where, mk_status *st);
/* dtype is read for leaves and CAST; dims and rank for leaves, RESHAPE, EXPAND and SLICE; others infer them. A CONST's data and
 * all strings are copied; fields of attr that the op does not use are dropped. attr, dims, name and where may be NULL. */

/* ---- passes, in the order of codegen/passes.c. Each replaces the graph's nodes by a new list in topological order.
 * All keep outputs, updates and names of leaves. */
bool mk_verify(const mk_graph *g, mk_status *st);
void mk_pass_simplify(mk_graph *g);           /* constant folding, identities, no-op movement removed */
void mk_pass_cse(mk_graph *g);                /* common subexpressions become one node */
void mk_pass_dce(mk_graph *g);                /* what no output or update needs is dropped */
bool mk_optimize(mk_graph *g, mk_status *st); /* the list, with the verifier between passes */

/* One line per node: "%12 f32 [75600,5120] step  add %10 %11   ; blocks.0.mod  wan_dit.lua:42". Deterministic. */
void mk_graph_print(const mk_graph *g, mk_text *out);

#endif

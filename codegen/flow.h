/* Data flow of a graph in terms of memory: which nodes have buffers, which are views of others', and which pieces of work (units)
 * make them. The base of grouping and layout. */
#ifndef MK_CODEGEN_FLOW_H
#define MK_CODEGEN_FLOW_H

#include "codegen/view.h"

/* Buffers are named by numbers: a node's id for its own dense buffer, then one per output, then temporaries. */

typedef enum mk_value_kind {
  MK_VALUE_UNUSED, /* nothing needs it */
  MK_VALUE_LEAF,   /* bound from outside, state or constant */
  MK_VALUE_UNIT,   /* made by a unit: arithmetic, gather, roots, and moves that had to be copied */
  MK_VALUE_CONCAT, /* a buffer that several units write into */
  MK_VALUE_VIEW,   /* a movement node: its source's elements */
  MK_VALUE_INLINE  /* a short expression that every reader evaluates by itself */
} mk_value_kind;

typedef struct mk_unit { /* the smallest piece of work; groups are sets of units */
  int node;              /* the node it computes; of a copy: the node whose dims and dtype it has */
  bool copy;             /* to <- from, one element each */
  mk_view from, to;      /* COPY; `from` also of a copied move */
  bool move;             /* a movement node that had to be copied into a buffer of its own */
  int state;             /* COPY that updates this STATE node, else -1 */
  mk_rate rate;
  uint64_t entries; /* step rate: in which entries it runs; all ones below */
  int ndeps;
  const int *deps; /* units to run before, of any rate */
} mk_unit;

typedef struct mk_home { /* a buffer inside another */
  int buffer;            /* itself: a root, which layout places */
  int64_t offset;        /* elements */
} mk_home;

typedef struct mk_flow {
  const mk_graph *g;
  mk_arena *arena;
  mk_value_kind *kind; /* per node */
  mk_view *view;       /* per node: where its value is. UNIT, CONCAT, LEAF: itself */
  uint64_t *entries;   /* per node: entries that need it */
  int *unit_of;        /* per node: the unit that makes it, or -1 */
  int nunits, units_cap;
  mk_unit *units; /* in topological order, ordering of state included */
  int nbuffers, buffers_cap;
  mk_home *home;     /* per buffer */
  int *buffer_node;  /* per buffer: the node whose dims and dtype it has */
  int *first_reader; /* CSR per buffer: the units that read it */
  int *readers;
  int *first_user; /* CSR per unit: units that depend on it */
  int *users;
  int *output_buffer; /* per graph output */
} mk_flow;

mk_flow *mk_flow_build(const mk_graph *g, mk_arena *arena, mk_status *st);

/* What unit u reads as argument k: the view, and in *node the node whose dims the view has. */
int mk_unit_nargs(const mk_flow *f, int u);
const mk_view *mk_unit_arg(const mk_flow *f, int u, int k, int *node);
/* conv reads its argument k through an upsample that the template does by itself. */
bool mk_conv_upsamples(const mk_flow *f, int node);
/* The buffer's root and its offset there in elements of the buffer's dtype. */
int mk_flow_root(const mk_flow *f, int buffer, int64_t *offset);
/* The node that a chain of views starts from: no view itself. */
int mk_chain_start(const mk_flow *f, int node);
bool mk_is_elementwise(mk_op op);

/* An inline expression may stand behind views, and inside another one: from the innermost outwards, each stage is an inline node
 * and the view of it that the next one (at last the reader) takes. */
enum { MK_MAX_STAGES = 8 };
typedef struct mk_stage {
  int inlined, seen_as;
} mk_stage;

/* How the reader at the end of the path sees `arg`, an argument of path[0].inlined. */
bool mk_inline_view(const mk_flow *f, int arg, const mk_stage *path, int length, mk_view *out);

#endif

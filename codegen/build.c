/* Adding nodes to a graph: what does not fit is refused before anything of the graph changes. */
#include <string.h>

#include "codegen/infer.h"
#include "codegen/ir.h"

static bool room_for(const mk_graph *g, size_t bytes, const char *where, mk_status *st) {
  const char *at = where ? where : "graph";
  if (g->count >= MK_MAX_NODES)
    mk_fail(st, MK_EINPUT, "%s: the graph has more than %d nodes; is a loop running away?", at, MK_MAX_NODES);
  else if (g->arena.used + bytes > MK_MAX_GRAPH_BYTES || bytes > MK_MAX_GRAPH_BYTES)
    mk_fail(st, MK_EINPUT, "%s: the graph needs more than %zu MiB for its nodes and constants", at, MK_MAX_GRAPH_BYTES >> 20);
  else
    return true;
  return false;
}

int mk_append(mk_graph *g, mk_node *n, mk_status *st) {
  if (!mk_infer(g, g->count, n, st)) return -1;
  MK_PUSH(&g->arena, g->nodes, g->count, g->cap, *n);
  return g->count - 1;
}

int mk_build(mk_graph *g, mk_op op, const int *args, int nargs, mk_dtype dtype, const int64_t *dims, int rank,
             const mk_attr *attr, const char *name, const char *where, mk_status *st) {
  mk_attr zero = {0};
  mk_node n = {.op = op, .dtype = dtype, .rank = rank, .nargs = nargs, .args = args, .name = name, .where = where};
  n.attr = mk_attr_clean(op, attr ? attr : &zero);
  if (dims && rank > 0) memcpy(n.dims, dims, sizeof *dims * (size_t)(rank < MK_MAX_RANK ? rank : MK_MAX_RANK));
  if (name && strlen(name) > MK_MAX_NAME) {
    mk_fail(st, MK_EINPUT, "%s: the name '%.32s...' is longer than %d bytes", where ? where : mk_op_name(op), name, MK_MAX_NAME);
    return -1;
  }
  if (!room_for(g, sizeof n, where, st)) return -1;
  int id = mk_append(g, &n, st); /* still with borrowed args and strings, which are copied once all is known to be right */
  if (id < 0) return -1;
  size_t data_bytes = op == MK_OP_CONST ? (size_t)mk_node_bytes(&n) : 0;
  if (!room_for(g, data_bytes, where, st)) {
    g->count--;
    return -1;
  }
  mk_node *own = &g->nodes[id];
  if (data_bytes) own->attr.data = memcpy(mk_alloc(&g->arena, data_bytes), n.attr.data, data_bytes);
  own->args = nargs ? memcpy(MK_NEW_ARRAY(&g->arena, int, nargs), args, sizeof *args * (size_t)nargs) : NULL;
  own->name = name ? mk_strdup(&g->arena, name) : NULL;
  own->where = where ? mk_strdup(&g->arena, where) : NULL;
  return id;
}

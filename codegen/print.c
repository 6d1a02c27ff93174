/* The printed form of a graph: one line per node, the same on every machine. */
#include <inttypes.h>
#include <string.h>

#include "codegen/ir.h"
#include "runtime/base/hash.h"

static void add_i64s(mk_text *out, const char *label, const int64_t *v, int n) {
  mk_text_addf(out, " %s[", label);
  for (int i = 0; i < n; i++) mk_text_addf(out, i ? ",%" PRId64 : "%" PRId64, v[i]);
  mk_text_add(out, "]");
}

/* A few values in full; beyond that the first ones and a hash, so that different constants never print alike. */
static void add_data(mk_text *out, const mk_node *n) {
  int64_t count = mk_node_count(n), shown = count <= 8 ? count : 4;
  mk_text_add(out, " {");
  for (int64_t i = 0; i < shown; i++) {
    if (i) mk_text_add(out, " ");
    if (n->dtype == MK_I32)
      mk_text_addf(out, "%" PRId32, ((const int32_t *)n->attr.data)[i]);
    else
      mk_text_addf(out, "%.9g", (double)((const float *)n->attr.data)[i]);
  }
  if (shown < count) mk_text_addf(out, " ... #%016" PRIx64, mk_hash64(n->attr.data, (size_t)mk_node_bytes(n)));
  mk_text_add(out, "}");
}

static void add_args(mk_text *out, const mk_node *n) {
  for (int i = 0; i < n->nargs; i++) {
    const char *label = "";
    if (n->op == MK_OP_ATTENTION && i >= 3) label = i == 3 && n->attr.has_bias ? "bias=" : "kv_len=";
    mk_text_addf(out, " %s%%%d", label, n->args[i]);
  }
}

static void add_attr(mk_text *out, const mk_node *n) {
  int64_t v[MK_MAX_RANK];
  switch (n->op) {
    case MK_OP_CONST: add_data(out, n); break;
    case MK_OP_SLICE: add_i64s(out, "start=", n->attr.start, n->rank); break;
    case MK_OP_PERMUTE:
      for (int i = 0; i < n->rank; i++) v[i] = n->attr.perm[i];
      add_i64s(out, "perm=", v, n->rank);
      break;
    case MK_OP_CONCAT: mk_text_addf(out, " axis=%d", n->attr.axis); break;
    case MK_OP_CONV:
      for (int i = 0; i < 6; i++) v[i] = n->attr.pad[i];
      add_i64s(out, "pad=", v, 6);
      break;
    case MK_OP_ATTENTION: mk_text_addf(out, " scale=%.9g%s", (double)n->attr.scale, n->attr.causal ? " causal" : ""); break;
    default: break;
  }
  if (n->attr.tf32) mk_text_add(out, " tf32");
}

void mk_graph_print(const mk_graph *g, mk_text *out) {
  mk_text_addf(out, "graph %s\n", g->name);
  for (int id = 0; id < g->count; id++) {
    const mk_node *n = &g->nodes[id];
    mk_text_addf(out, "%%%d %s", id, mk_dtype_name(n->dtype));
    add_i64s(out, "", n->dims, n->rank);
    mk_text_addf(out, " %s  %s", mk_rate_name(n->rate), mk_op_name(n->op));
    add_args(out, n);
    add_attr(out, n);
    bool leaf = n->op == MK_OP_INPUT || n->op == MK_OP_STATE;
    if (leaf) mk_text_addf(out, " \"%s\"", n->name);
    const char *label = leaf ? NULL : n->name;
    if (label || n->where)
      mk_text_addf(out, "   ; %s%s%s", label ? label : "", label && n->where ? "  " : "", n->where ? n->where : "");
    mk_text_add(out, "\n");
  }
  for (int e = 0; e < g->nentries; e++) {
    mk_text_addf(out, "entry %s\n", g->entries[e]);
    for (int i = 0; i < g->noutputs; i++)
      if (!strcmp(g->outputs[i].entry, g->entries[e]))
        mk_text_addf(out, "  output \"%s\" %%%d\n", g->outputs[i].name, g->outputs[i].node);
    for (int i = 0; i < g->nupdates; i++)
      if (!strcmp(g->updates[i].entry, g->entries[e]))
        mk_text_addf(out, "  update \"%s\" %%%d <- %%%d\n", g->nodes[g->updates[i].state].name, g->updates[i].state,
                     g->updates[i].node);
  }
}

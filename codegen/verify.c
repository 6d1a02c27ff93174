/* Everything an executor relies on: nodes in order and as inference gives them, names that identify, and borders that exist. */
#include <stdlib.h>
#include <string.h>

#include "codegen/infer.h"
#include "codegen/ir.h"

typedef struct named {
  const char *name;
  int kind; /* names are unique within a kind: 0 weights, 1 what the host reads and writes */
  const char *what;
  int node;
} named;

static int by_name(const void *pa, const void *pb) {
  const named *a = pa, *b = pb;
  int order = a->kind != b->kind ? a->kind - b->kind : strcmp(a->name, b->name);
  return order ? order : a->node - b->node;
}

static bool check_names(const mk_graph *g, mk_status *st) {
  named *all = calloc((size_t)(g->count + g->noutputs + 1), sizeof *all);
  if (!all) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  int n = 0;
  for (int id = 0; id < g->count; id++) {
    const mk_node *node = &g->nodes[id];
    bool weight = node->op == MK_OP_INPUT && node->rate == MK_RATE_LOAD;
    if (node->op == MK_OP_INPUT || node->op == MK_OP_STATE)
      all[n++] = (named){node->name, weight ? 0 : 1, weight ? "weight" : mk_op_name(node->op), id};
  }
  for (int i = 0; i < g->noutputs; i++) all[n++] = (named){g->outputs[i].name, 1, "output", g->outputs[i].node};
  qsort(all, (size_t)n, sizeof *all, by_name);
  bool ok = true;
  for (int i = 1; ok && i < n; i++)
    if (all[i].kind == all[i - 1].kind && !strcmp(all[i].name, all[i - 1].name)) {
      ok = false;
      mk_fail(st, MK_EINTERNAL, "graph: the name '%s' stands for %s %%%d and for %s %%%d", all[i].name, all[i - 1].what,
              all[i - 1].node, all[i].what, all[i].node);
    }
  free(all);
  return ok;
}

static bool check_node(const mk_graph *g, int id, mk_status *st) {
  const mk_node *n = &g->nodes[id];
  mk_node again = *n;
  mk_status why = {0};
  if (!mk_infer(g, id, &again, &why)) {
    mk_fail(st, MK_EINTERNAL, "graph: %%%d: %s", id, why.message);
    return false;
  }
  mk_attr clean = mk_attr_clean(n->op, &n->attr);
  const char *field = again.dtype != n->dtype                       ? "dtype"
                      : again.rank != n->rank                       ? "rank"
                      : memcmp(again.dims, n->dims, sizeof n->dims) ? "dims"
                      : again.rate != n->rate                       ? "rate"
                      : !mk_attr_same(&clean, &n->attr)             ? "attr"
                                                                    : NULL;
  if (field) mk_fail(st, MK_EINTERNAL, "graph: %%%d %s: %s is not what its arguments give", id, mk_op_name(n->op), field);
  return !field;
}

static bool check_entry(const mk_graph *g, const char *entry, mk_status *st) {
  for (int i = 0; i < g->nentries; i++)
    if (!strcmp(g->entries[i], entry)) return true;
  mk_fail(st, MK_EINTERNAL, "graph: entry '%s' is not in the list", entry);
  return false;
}

static bool check_update(const mk_graph *g, int i, mk_status *st) {
  const mk_update *u = &g->updates[i];
  if (u->state < 0 || u->state >= g->count || u->node < 0 || u->node >= g->count || g->nodes[u->state].op != MK_OP_STATE)
    return mk_fail(st, MK_EINTERNAL, "graph: update %d: %%%d <- %%%d names no state or no value", i, u->state, u->node), false;
  const mk_node *s = &g->nodes[u->state], *v = &g->nodes[u->node];
  if (s->dtype != v->dtype || s->rank != v->rank || memcmp(s->dims, v->dims, sizeof s->dims))
    return mk_fail(st, MK_EINTERNAL, "graph: update %d: state '%s' and its value %%%d differ in dtype or dims", i, s->name,
                   u->node),
           false;
  for (int k = 0; k < i; k++)
    if (g->updates[k].state == u->state && !strcmp(g->updates[k].entry, u->entry))
      return mk_fail(st, MK_EINTERNAL, "graph: entry '%s' updates state '%s' twice", u->entry, s->name), false;
  return check_entry(g, u->entry, st);
}

bool mk_verify(const mk_graph *g, mk_status *st) {
  for (int id = 0; id < g->count; id++)
    if (!check_node(g, id, st)) return false;
  for (int i = 0; i < g->nentries; i++) {
    bool reserved = !*g->entries[i] || !strcmp(g->entries[i], "load") || !strcmp(g->entries[i], "prompt");
    for (int k = 0; k < i; k++) reserved |= !strcmp(g->entries[i], g->entries[k]);
    if (reserved)
      return mk_fail(st, MK_EINTERNAL, "graph: entry name '%s' is empty, reserved or used twice", g->entries[i]), false;
  }
  for (int i = 0; i < g->noutputs; i++) {
    const mk_output *o = &g->outputs[i];
    if (!o->name || !*o->name || o->node < 0 || o->node >= g->count)
      return mk_fail(st, MK_EINTERNAL, "graph: output %d ('%s') is %%%d, no node", i, o->name ? o->name : "", o->node), false;
    if (!check_entry(g, o->entry, st)) return false;
  }
  for (int i = 0; i < g->nupdates; i++)
    if (!check_update(g, i, st)) return false;
  return check_names(g, st);
}

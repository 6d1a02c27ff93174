/* The passes over the graph, in order. */
#include "codegen/ir.h"

bool mk_optimize(mk_graph *g, mk_status *st) {
  static const struct {
    const char *name;
    void (*run)(mk_graph *g);
  } passes[] = {
      {"simplify", mk_pass_simplify},
      {"cse", mk_pass_cse},
      {"dce", mk_pass_dce},
  };
  if (!mk_verify(g, st)) return false;
  for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
    passes[i].run(g);
    if (mk_verify(g, st)) continue;
    mk_fail_context(st, "after pass %s", passes[i].name);
    return false;
  }
  return true;
}

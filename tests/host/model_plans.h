/* The plans of a published model's networks for sm_90. */
#ifndef TESTS_MODEL_PLANS_H
#define TESTS_MODEL_PLANS_H

#include "runtime/gpu/tuning.h"
#include "runtime/model/model_graphs.h"
#include "tests/host/script.h"

typedef struct model_plans {
  int count;
  mk_plan *items[64];
} model_plans;

/* known: whose choices the planner keeps among the candidates; NULL: of nothing. */
static inline void add_model_plans(model_plans *p, const char *model, mk_model_size size, const mk_tuning *known) {
  mk_status st = {0};
  mk_graph *graphs[MK_MODEL_GRAPHS];
  mk_plan_options options = options_for(90);
  if (known) options.precedents = mk_tuning_precedents(known);
  int n = mk_model_graphs(model, &size, graphs, NULL, &st);
  if (!n) fail_msg("%s", st.message);
  for (int i = 0; i < n; i++) {
    mk_plan *plan = mk_plan_build(graphs[i], &options, &st);
    if (!plan) fail_msg("%s: %s", model, st.message);
    p->items[p->count++] = plan;
    mk_graph_free(graphs[i]);
  }
}

static inline void free_model_plans(model_plans *p) {
  for (int i = 0; i < p->count; i++) mk_plan_free(p->items[i]);
}

#endif

/* The plans of a published model's networks for sm_90. */
#ifndef TESTS_MODEL_PLANS_H
#define TESTS_MODEL_PLANS_H

#include "runtime/base/env.h"
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

static inline void take_shipped_file(void *user, const char *path, const mk_records *r, const mk_status *why) {
  (void)why;
  if (strstr(path, "/nvidia-h200-")) mk_records_merge(user, r);
}

/* The tuning records of the H200 that come with the program; false: there are none. */
static inline bool take_shipped_records(mk_records *out) {
  char folder[PATH_MAX];
  assert_true(mk_env_data_path("scripts/tuning", folder, &(mk_status){0}));
  mk_records_visit(folder, take_shipped_file, out);
  return out->count > 0;
}

static inline void free_model_plans(model_plans *p) {
  for (int i = 0; i < p->count; i++) mk_plan_free(p->items[i]);
}

#endif

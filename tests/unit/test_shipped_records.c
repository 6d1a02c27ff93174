/* The tuning records that come with the program: readable, in the file that their card looks for, and of groups that its plans
 * have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/env.h"
#include "runtime/gpu/tuning.h"
#include "runtime/model/model_graphs.h"
#include "tests/host/script.h"

enum { MAX_PLANS = 64 };

typedef struct plans {
  int count;
  mk_plan *items[MAX_PLANS];
  int files;
} plans;

static void add_plans(plans *p, const char *model, int64_t width, int64_t height) {
  mk_status st = {0};
  mk_model_size size = {width, height, 81};
  mk_graph *graphs[MK_MODEL_GRAPHS];
  mk_plan_options options = options_for(90);
  options.cublaslt = true;
  int n = mk_model_graphs(model, &size, graphs, NULL, &st);
  if (!n) fail_msg("%s", st.message);
  for (int i = 0; i < n; i++) {
    mk_plan *plan = mk_plan_build(graphs[i], &options, &st);
    if (!plan) fail_msg("%s: %s", model, st.message);
    p->items[p->count++] = plan;
    mk_graph_free(graphs[i]);
  }
}

/* Whether some plan has the record's group, and whether it still has the candidate with the code that was measured. */
static bool is_there(const plans *p, const mk_record *r, bool *usable) {
  bool there = false;
  *usable = false;
  for (int i = 0; i < p->count; i++)
    for (int g = 0; g < p->items[i]->ngroups; g++) {
      const mk_group *group = &p->items[i]->groups[g];
      if (group->signature != r->signature || !mk_tuning_matters(group)) continue;
      there = true;
      *usable |= mk_tuning_candidate(p->items[i], group, &r->entries[0]) >= 0;
    }
  return there;
}

static void check_file(void *user, const char *path, const mk_records *r, const mk_status *why) {
  plans *p = user;
  char name[NAME_MAX + 1];
  int changed = 0;
  if (mk_failed(why)) fail_msg("%s: %s", path, why->message);
  mk_tune_file_name(&r->environment, name);
  assert_string_equal(strrchr(path, '/') + 1, name);
  assert_int_equal(r->damaged, 0);
  assert_true(r->count > 0);
  if (!p->files++) {
    static const char *const models[] = {"a14b", "1.3b"};
    for (int i = 0; i < 2; i++) {
      add_plans(p, models[i], 832, 480);
      add_plans(p, models[i], 1280, 720);
    }
  }
  for (int i = 0; i < r->count; i++) {
    bool usable;
    if (!is_there(p, &r->items[i], &usable))
      fail_msg("%s: no plan has %s (%016llx)", path, r->items[i].name, (unsigned long long)r->items[i].signature);
    changed += !usable;
  }
  print_message("# %s: %d records, %d of them of kernels that have changed since\n", name, r->count, changed);
}

static void shipped_records(void **state) {
  (void)state;
  char folder[PATH_MAX];
  plans p = {0};
  mk_status st = {0};
  assert_true(mk_env_data_path("scripts/tuning", folder, &st));
  mk_records_visit(folder, check_file, &p);
  for (int i = 0; i < p.count; i++) mk_plan_free(p.items[i]);
  if (!p.files) skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_records)};
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

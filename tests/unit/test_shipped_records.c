/* The tuning records that come with the program: readable, in the file that their card looks for, of groups that its plans have,
 * and enough for a first run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/env.h"
#include "runtime/gpu/tune_problems.h"
#include "tests/host/model_plans.h"

typedef struct shipped {
  int files;
  model_plans plans; /* of all models and sizes that the files may tell about */
} shipped;

/* Whether some plan has the record's group, and whether it still has the candidate with the code that was measured. */
static bool is_there(const model_plans *p, const mk_record *r, bool *usable) {
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
  shipped *all = user;
  char name[NAME_MAX + 1];
  int changed = 0;
  if (mk_failed(why)) fail_msg("%s: %s", path, why->message);
  mk_tune_file_name(&r->environment, name);
  assert_string_equal(strrchr(path, '/') + 1, name);
  assert_int_equal(r->damaged, 0);
  assert_true(r->count > 0);
  if (!all->files++) {
    static const char *const models[] = {"a14b", "1.3b"};
    for (int i = 0; i < 2; i++) {
      add_model_plans(&all->plans, models[i], (mk_model_size){832, 480, 81}, NULL);
      add_model_plans(&all->plans, models[i], (mk_model_size){1280, 720, 81}, NULL);
    }
  }
  for (int i = 0; i < r->count; i++) {
    bool usable;
    if (!is_there(&all->plans, &r->items[i], &usable))
      fail_msg("%s: no plan has %s (%016llx)", path, r->items[i].name, (unsigned long long)r->items[i].signature);
    changed += !usable;
  }
  print_message("# %s: %d records, %d of them of kernels that have changed since\n", name, r->count, changed);
}

static void shipped_records(void **state) {
  (void)state;
  char folder[PATH_MAX];
  shipped all = {0};
  mk_status st = {0};
  assert_true(mk_env_data_path("scripts/tuning", folder, &st));
  mk_records_visit(folder, check_file, &all);
  free_model_plans(&all.plans);
  if (!all.files) skip();
}

/* On an H200 a first run of A14B finds all that it would measure. */
static void nothing_is_left_to_tune(void **state) {
  (void)state;
  static const mk_model_size sizes[] = {{832, 480, 81}, {1280, 720, 81}, {704, 384, 81}};
  const mk_tune_options first_run = {.near_is_ok = true};
  mk_tuning known = {0};
  mk_arena arena = {0};
  if (!take_shipped_records(&known.shipped)) skip();
  for (int size = 0; size < 3; size++) {
    model_plans p = {0};
    mk_tune_job jobs[MK_MODEL_GRAPHS];
    add_model_plans(&p, "a14b", sizes[size], &known);
    for (int i = 0; i < p.count; i++) jobs[i] = (mk_tune_job){p.items[i], 1};
    mk_tune_problems left = mk_tune_problems_of(&known, jobs, p.count, &first_run, &arena);
    for (int i = 0; i < left.count; i++) print_message("# size %d: %s\n", size, left.items[i].group->name);
    assert_int_equal(left.count, 0);
    free_model_plans(&p);
  }
  mk_records_free(&known.shipped);
  mk_arena_free(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_records), cmocka_unit_test(nothing_is_left_to_tune)};
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

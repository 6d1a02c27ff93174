/* What the tuner sets out to measure: which problems plans pose, in which order, and what is known of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/gpu/tune_problems.h"
#include "tests/host/script.h"

static mk_plan *chain(int layers, int tokens) {
  mk_status st = {0};
  mk_plan_options options = options_for(90);
  char lua[512];
  snprintf(lua, sizeof lua,
           "local h = input{name='x', shape={%d, 256}, dtype='bf16'}\n"
           "for i = 1, %d do h = matmul(h, weight('w' .. i, {256, 256}):cast'bf16'):gelu():cast'bf16' end\n"
           "output('y', h:exp())",
           tokens, layers);
  mk_graph *g = graph_of(lua, &st);
  mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
  mk_graph_free(g);
  if (!p) fail_msg("%s", st.message);
  return p;
}

static const mk_tune_options usual = {.near_is_ok = true};

static void equal_groups_are_one_problem(void **state) {
  (void)state;
  mk_arena arena = {0};
  mk_tuning nothing = {0};
  mk_plan *p = chain(5, 4096);
  mk_tune_job job = {p, 10};
  mk_tune_problems x = mk_tune_problems_of(&nothing, &job, 1, &usual, &arena);
  const mk_group *first = group_at(p, "step", 0);
  assert_true(x.count < groups_in(p, "step"));
  assert_ptr_equal(x.items[0].group, first);
  assert_true(x.items[0].value > 39 * first->candidates[0].cost); /* four or five of them, ten times */
  for (int i = 1; i < x.count; i++) assert_true(x.items[i].value <= x.items[i - 1].value);
  mk_plan_free(p);
  mk_arena_free(&arena);
}

static void plans_share_problems(void **state) {
  (void)state;
  mk_arena arena = {0};
  mk_tuning nothing = {0};
  mk_plan *a = chain(3, 4096), *b = chain(4, 4096), *c = chain(4, 64);
  mk_tune_job jobs[] = {{a, 1}, {NULL, 1}, {b, 1}, {c, 1000000}};
  mk_tune_problems x = mk_tune_problems_of(&nothing, jobs, 4, &usual, &arena);
  for (int i = 0; i < x.count; i++) assert_int_not_equal(x.items[i].job, 2); /* a's records will do */
  assert_true(x.known > 0);
  assert_int_equal(x.items[0].job, 3); /* the most valuable job first, and all of it */
  for (int i = 1; i < x.count; i++) assert_true(x.items[i].job == x.items[i - 1].job || x.items[i].job == 0);
  mk_plan_free(a);
  mk_plan_free(b);
  mk_plan_free(c);
  mk_arena_free(&arena);
}

/* A record of the group's candidate `best`, as if it had been measured. */
static void know(mk_tuning *t, const mk_plan *p, const mk_group *g, int best) {
  mk_record_entry entries[MK_CONTEST_MAX];
  mk_record r = {g->signature, mk_record_class(g->flop), mk_record_class(g->bytes), "2026-11-22T12:00:00Z", g->name, 0, entries};
  for (int i = 0; i < g->ncandidates; i++) {
    const mk_candidate *c = &g->candidates[(best + i) % g->ncandidates];
    bool lt = c->launches[0].kind == MK_LAUNCH_LT;
    mk_text label = {0};
    mk_tuning_label(c->label, lt ? "1-2-3" : "", &label);
    entries[r.count++] = (mk_record_entry){i ? MK_RUNNER_IN : MK_RUNNER_BEST, 1 + i, 0, mk_tuning_code(p, c),
                                           mk_strdup(&t->user.arena, mk_text_str(&label))};
    mk_text_free(&label);
  }
  mk_records_add(&t->user, &r);
}

static void records_choose(void **state) {
  (void)state;
  mk_tuning t = {0};
  mk_plan *p = chain(2, 4096), *longer = chain(2, 20000);
  mk_group *g = &p->groups[group_at(p, "step", 0) - p->groups];
  assert_true(g->ncandidates >= 3);
  assert_int_equal(mk_tuning_knows(&t, p, g), MK_KNOWN_NOT);
  know(&t, p, g, 2);
  assert_int_equal(mk_tuning_knows(&t, p, g), MK_KNOWN_EXACT);
  assert_int_equal(mk_tuning_knows(&t, longer, group_at(longer, "step", 0)), MK_KNOWN_NEAR);
  mk_tuning_apply(&t, p);
  assert_int_equal(g->chosen, 2);
  mk_tuning_apply(&t, longer);
  const mk_group *far = group_at(longer, "step", 0);
  assert_string_equal(far->candidates[far->chosen].label, g->candidates[2].label);
  assert_null(g->algorithm);
  int lt = 0;
  while (g->candidates[lt].launches[0].kind != MK_LAUNCH_LT) lt++;
  mk_tuning again = {0};
  know(&again, p, g, lt);
  mk_tuning_apply(&again, p);
  assert_int_equal(g->chosen, lt);
  assert_string_equal(g->algorithm, "1-2-3");
  mk_tuning_apply(&again, longer);
  assert_int_equal(far->chosen, lt);
  assert_null(far->algorithm); /* it is what the library chose at that size */
  ((mk_record_entry *)again.user.items[0].entries)[0].state = MK_RUNNER_KEPT;
  mk_tuning_apply(&again, longer);
  assert_string_equal(far->algorithm, "1-2-3");
  mk_tuning_close(&again);
  mk_tuning_close(&t);
  mk_plan_free(p);
  mk_plan_free(longer);
}

static void changed_code_is_not_known(void **state) {
  (void)state;
  mk_tuning t = {0};
  mk_plan *p = chain(1, 4096);
  mk_group *g = &p->groups[group_at(p, "step", 0) - p->groups];
  know(&t, p, g, 0);
  for (int c = 0; c < g->ncandidates; c++) {
    const mk_launch *l = &g->candidates[c].launches[0];
    if (l->kind != MK_LAUNCH_KERNEL) continue;
    uint64_t before = p->kernels[l->kernel].hash;
    p->kernels[l->kernel].hash++;
    assert_int_equal(mk_tuning_knows(&t, p, g), MK_KNOWN_NOT); /* the chosen one or another */
    p->kernels[l->kernel].hash = before;
  }
  assert_int_equal(mk_tuning_knows(&t, p, g), MK_KNOWN_EXACT);
  mk_tuning_close(&t);
  mk_plan_free(p);
}

static void labels(void **state) {
  (void)state;
  static const struct {
    const char *label;
    int length;
    const char *algorithm;
  } cases[] = {{"cublaslt @66-1", 8, "66-1"},
               {"cublaslt, then a row program @7", 28, "7"},
               {"matmul_mma a=1", 14, ""},
               {"a@b", 3, ""},
               {"@b", 2, ""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int length;
    const char *algorithm;
    mk_tuning_split(cases[i].label, &length, &algorithm);
    assert_int_equal(length, cases[i].length);
    assert_string_equal(algorithm, cases[i].algorithm);
  }
}

static void shares(void **state) {
  (void)state;
  mk_tune_problem items[] = {{.value = 6}, {.value = 3}, {.value = 1}, {.value = 30, .job = 1}};
  mk_tune_problems p = {.count = 4, .items = items};
  assert_float_equal(mk_tune_job_share(&p, 0, 80), 30 + 10, 1e-9); /* half equally, half by value */
  assert_float_equal(mk_tune_job_share(&p, 1, 80), 10 + 30, 1e-9);
  assert_float_equal(mk_tune_share(&p, 0, 12), 2 + 3.6, 1e-9);
  items[0].done = true;
  assert_float_equal(mk_tune_share(&p, 1, 4), 1 + 1.5, 1e-9); /* of what is left, among those left */
  items[1].done = items[3].done = true;
  assert_float_equal(mk_tune_share(&p, 2, 5), 5, 1e-9);
  assert_float_equal(mk_tune_job_share(&p, 0, 5), 5, 1e-9);
  assert_float_equal(mk_tune_job_share(&p, 1, 5), 0, 0);
  assert_float_equal(mk_tune_share(&p, 2, -1), 0, 0);
  items[2].value = 0; /* nothing but what never runs is left */
  assert_float_equal(mk_tune_share(&p, 2, 5), 5, 1e-9);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(equal_groups_are_one_problem),
      cmocka_unit_test(plans_share_problems),
      cmocka_unit_test(records_choose),
      cmocka_unit_test(changed_code_is_not_known),
      cmocka_unit_test(labels),
      cmocka_unit_test(shares),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

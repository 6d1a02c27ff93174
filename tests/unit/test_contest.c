/* The tuner's choice among realisations, over made-up times. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/gpu/contest.h"

static mk_contest contest(int count, const double *costs) {
  mk_contest c = {.count = count};
  for (int i = 0; i < count; i++) c.runners[i] = (mk_runner){.cost = costs[i], .error = -1};
  return c;
}

/* Runs rounds until it is decided; runner i takes ms[i] times (1 + drift per round begun). Returns how many runs there were. */
static int hold(mk_contest *c, const double *ms, double drift, double seconds) {
  int order[MK_CONTEST_MAX], n, runs = 0;
  for (int round = 0; (n = mk_contest_round(c, seconds, order)) > 0; round++) {
    assert_true(round < 100);
    for (int i = 0; i < n; i++, runs++) {
      double at = round + (double)i / n;
      mk_contest_sample(c, order[i], ms[order[i]] * (1 + drift * at));
      seconds -= ms[order[i]] * 1e-3;
    }
  }
  return runs;
}

static const double equal_costs[] = {1, 1, 1, 1, 1, 1};

static void fastest_wins(void **state) {
  (void)state;
  mk_contest c = contest(4, equal_costs);
  const double ms[] = {10, 8, 6, 9};
  bool complete;
  mk_contest_begin(&c);
  assert_int_equal(mk_contest_winner(&c, &complete), -1);
  assert_false(complete);
  hold(&c, ms, 0, 1000);
  assert_int_equal(mk_contest_winner(&c, &complete), 2);
  assert_true(complete);
}

static void near_ties_go_to_the_first(void **state) {
  (void)state;
  bool complete;
  const double within[] = {10.09, 10.05, 10.0}, beyond[] = {10.2, 10.05, 10.0};
  mk_contest c = contest(3, equal_costs), d = c;
  mk_contest_begin(&c);
  hold(&c, within, 0, 1000);
  assert_int_equal(mk_contest_winner(&c, &complete), 0);
  mk_contest_begin(&d);
  hold(&d, beyond, 0, 1000);
  assert_int_equal(mk_contest_winner(&d, &complete), 1);
  assert_true(complete);
}

static void losers_stop_early(void **state) {
  (void)state;
  mk_contest c = contest(4, equal_costs);
  const double ms[] = {10, 10.3, 12, 20};
  mk_contest_begin(&c);
  hold(&c, ms, 0, 1000);
  assert_int_equal(c.runners[0].samples, MK_CONTEST_SAMPLES);
  assert_int_equal(c.runners[1].samples, MK_CONTEST_SAMPLES); /* 3 % behind: a finalist */
  assert_int_equal(c.runners[2].state, MK_RUNNER_SLOW);
  assert_int_equal(c.runners[2].samples, 2);
  assert_int_equal(c.runners[3].state, MK_RUNNER_SLOW);
  assert_int_equal(c.runners[3].samples, 1);
}

static void alone_runs_once(void **state) {
  (void)state;
  mk_contest c = contest(1, equal_costs);
  const double ms[] = {5};
  bool complete;
  mk_contest_begin(&c);
  assert_int_equal(hold(&c, ms, 0, 1000), 1);
  assert_int_equal(mk_contest_winner(&c, &complete), 0);
  assert_true(complete);
}

static void drift_does_not_decide(void **state) {
  (void)state;
  const double ms[] = {10, 9.8, 10};
  bool complete;
  for (int way = -1; way <= 1; way += 2) { /* a clock that falls or rises by 3 % a round */
    mk_contest c = contest(3, equal_costs);
    mk_contest_begin(&c);
    hold(&c, ms, 0.03 * way, 1000);
    assert_int_equal(mk_contest_winner(&c, &complete), 1);
  }
}

static void rounds_go_back_and_forth(void **state) {
  (void)state;
  mk_contest c = contest(3, equal_costs);
  int order[MK_CONTEST_MAX];
  mk_contest_begin(&c);
  assert_int_equal(mk_contest_round(&c, 1, order), 3);
  assert_int_equal(order[0], 0);
  for (int i = 0; i < 3; i++) mk_contest_sample(&c, i, 1);
  assert_int_equal(mk_contest_round(&c, 1, order), 3);
  assert_int_equal(order[0], 2);
  assert_int_equal(order[2], 0);
}

static void hopeless_and_equal_are_not_run(void **state) {
  (void)state;
  const double costs[] = {1, 2.4, 2.6, 1, 1};
  const double ms[] = {1, 1, 1, 1, 1};
  mk_contest c = contest(5, costs);
  c.runners[0].code = c.runners[3].code = 7; /* the same kernel */
  c.runners[4].state = MK_RUNNER_BROKEN;
  mk_contest_begin(&c);
  hold(&c, ms, 0, 1000);
  assert_int_equal(c.runners[1].state, MK_RUNNER_IN);
  assert_int_equal(c.runners[2].state, MK_RUNNER_MODEL);
  assert_int_equal(c.runners[3].state, MK_RUNNER_SAME);
  assert_int_equal(c.runners[4].state, MK_RUNNER_BROKEN);
  for (int i = 2; i < 5; i++) assert_int_equal(c.runners[i].samples, 0);
  mk_contest own = contest(3, (const double[]){1, 9, 9});
  own.runners[2].own = true; /* the user's template, whatever its formulas say */
  mk_contest_begin(&own);
  assert_int_equal(own.runners[1].state, MK_RUNNER_MODEL);
  assert_int_equal(own.runners[2].state, MK_RUNNER_IN);
  mk_contest unknown = contest(2, equal_costs); /* 0 is no code */
  mk_contest_begin(&unknown);
  assert_int_equal(unknown.runners[1].state, MK_RUNNER_IN);
}

static void budget(void **state) {
  (void)state;
  const double ms[] = {100, 101, 102};
  bool complete;
  mk_contest c = contest(3, equal_costs);
  mk_contest_begin(&c);
  assert_int_equal(hold(&c, ms, 0, 0), 12); /* what was begun is decided: without it nothing is known */
  assert_int_equal(mk_contest_winner(&c, &complete), 0);
  assert_true(complete);
  c = contest(3, equal_costs);
  mk_contest_begin(&c);
  assert_int_equal(hold(&c, ms, 0, 1000), 12); /* long rounds are not repeated more often, whatever the budget */
  const double shorter[] = {10, 10.1, 10.2};
  c = contest(3, equal_costs);
  mk_contest_begin(&c);
  assert_int_equal(hold(&c, shorter, 0, 0.16), 15); /* five rounds of 30 ms */
}

static void wrong_results_are_out(void **state) {
  (void)state;
  mk_contest c = contest(5, equal_costs);
  const double ms[] = {10, 1, 1, 1, 11};
  bool complete;
  mk_contest_begin(&c);
  assert_true(mk_contest_judge(&c, 0, 0, 0, 1e-2));
  assert_false(mk_contest_judge(&c, 1, 2e-2, 2e-2, 1e-2)); /* as a whole */
  assert_false(mk_contest_judge(&c, 2, 5e-3, 0.06, 1e-2)); /* in one place */
  assert_false(mk_contest_judge(&c, 3, NAN, NAN, 1e-2));
  assert_true(mk_contest_judge(&c, 4, 1e-2, 5e-2, 1e-2));
  assert_true(isinf(c.runners[3].error));
  hold(&c, ms, 0, 1000);
  assert_int_equal(mk_contest_winner(&c, &complete), 0);
}

static void one_outlier_does_not_decide(void **state) {
  (void)state;
  mk_contest c = contest(2, equal_costs);
  const double first[MK_CONTEST_SAMPLES] = {9, 10, 10, 10, 10, 10, 10, 10, 10, 10};
  int order[MK_CONTEST_MAX];
  bool complete;
  mk_contest_begin(&c);
  for (int round = 0; round < MK_CONTEST_SAMPLES; round++) {
    mk_contest_round(&c, 100, order);
    mk_contest_sample(&c, 0, first[round]);
    mk_contest_sample(&c, 1, 9.5);
  }
  assert_int_equal(mk_contest_winner(&c, &complete), 1);
}

/* A card that falls from its highest clock to that of its power limit while the contest begins. */
static void those_that_ran_on_a_cool_card_are_not_ahead(void **state) {
  (void)state;
  mk_contest c = contest(3, equal_costs);
  const double ms[] = {10, 9.8, 9.95};
  int order[MK_CONTEST_MAX], n;
  bool complete;
  mk_contest_begin(&c);
  for (int round = 0, runs = 0; (n = mk_contest_round(&c, 1000, order)) > 0; round++)
    for (int i = 0; i < n; i++, runs++) mk_contest_sample(&c, order[i], ms[order[i]] * (1.2 - 0.2 * exp(-runs / 6.0)));
  for (int i = 0; i < 3; i++) assert_int_equal(c.runners[i].state, MK_RUNNER_IN);
  assert_int_equal(mk_contest_winner(&c, &complete), 1);
  assert_true(fabs(mk_contest_ms(&c, 0, 1) / mk_contest_ms(&c, 1, 1) - 10 / 9.8) < 5e-3);
}

static void a_change_needs_more_than_noise(void **state) {
  (void)state;
  bool complete;
  for (int loud = 0; loud < 2; loud++) {
    mk_contest c = contest(2, equal_costs);
    int order[MK_CONTEST_MAX];
    mk_contest_begin(&c);
    for (int round = 0; mk_contest_round(&c, 1000, order) > 0; round++) { /* 2 % faster, in pairs of rounds by -2 to 6 % */
      mk_contest_sample(&c, 0, 10);
      mk_contest_sample(&c, 1, 9.8 * (1 + (loud ? 0.04 : 0.002) * (round / 2 % 3 - 1)));
    }
    assert_int_equal(mk_contest_winner(&c, &complete), loud ? 0 : 1);
  }
}

static void paired_ratios(void **state) {
  (void)state;
  const double a[] = {2, 8, 4, 4, 4, 4}, b[] = {4, 4, 4, 4, 2, 2};
  double error;
  assert_true(fabs(mk_paired_ratio(a, b, 1, &error) - 0.5) < 1e-12);
  assert_true(fabs(mk_paired_ratio(a, b, 2, &error) - 1) < 1e-12); /* there and back */
  assert_true(error == 0);
  assert_true(fabs(mk_paired_ratio(a, b, 5, &error) - 1) < 1e-12); /* the odd one is left out */
  assert_true(fabs(mk_paired_ratio(a, b, 6, &error) - 1) < 1e-12);
  const double c[] = {1, 1, 2, 2, 4, 4};
  assert_true(fabs(mk_paired_ratio(c, a + 2, 4, &error) - 0.375) < 1e-12);
  assert_true(error > 0.1);
}

static void names(void **state) {
  (void)state;
  for (int i = 0; i < MK_RUNNER_STATES; i++) {
    mk_runner_state s;
    assert_true(mk_runner_state_parse(mk_runner_state_name((mk_runner_state)i), &s));
    assert_int_equal(s, i);
  }
  mk_runner_state s;
  assert_false(mk_runner_state_parse("nothing", &s));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fastest_wins),
      cmocka_unit_test(near_ties_go_to_the_first),
      cmocka_unit_test(losers_stop_early),
      cmocka_unit_test(alone_runs_once),
      cmocka_unit_test(drift_does_not_decide),
      cmocka_unit_test(rounds_go_back_and_forth),
      cmocka_unit_test(hopeless_and_equal_are_not_run),
      cmocka_unit_test(budget),
      cmocka_unit_test(wrong_results_are_out),
      cmocka_unit_test(one_outlier_does_not_decide),
      cmocka_unit_test(those_that_ran_on_a_cool_card_are_not_ahead),
      cmocka_unit_test(a_change_needs_more_than_noise),
      cmocka_unit_test(paired_ratios),
      cmocka_unit_test(names),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

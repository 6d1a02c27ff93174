/* Once one size was tuned, others use its kernels: those stay among the candidates, and groups are made as there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/host/model_plans.h"

enum { MAX_CODES = 512 };

typedef struct codes { /* of kernels */
  int count;
  uint64_t items[MAX_CODES];
} codes;

static bool has_code(const codes *c, uint64_t code) {
  for (int i = 0; i < c->count; i++)
    if (c->items[i] == code) return true;
  return false;
}

/* The codes of a candidate's kernels; returns how many were not there. */
static int add_codes(const mk_plan *p, const mk_candidate *x, codes *c) {
  int before = c->count;
  for (int i = 0; i < x->nlaunches; i++) {
    const mk_launch *l = &x->launches[i];
    if (l->kind != MK_LAUNCH_KERNEL || has_code(c, p->kernels[l->kernel].hash)) continue;
    assert_true(c->count < MAX_CODES);
    c->items[c->count++] = p->kernels[l->kernel].hash;
  }
  return c->count - before;
}

/* A record of the group, as if `best` had been the fastest and the others slower by their cost. */
static void know(mk_tuning *t, const mk_plan *p, const mk_group *g, int best) {
  mk_record_entry entries[MK_CONTEST_MAX];
  mk_record r = {g->signature, mk_record_class(g->flop), mk_record_class(g->bytes), "2026-11-22T12:00:00Z", g->name, 0, entries};
  for (int i = 0; i < g->ncandidates; i++) {
    const mk_candidate *c = &g->candidates[(best + i) % g->ncandidates];
    entries[r.count++] = (mk_record_entry){i ? MK_RUNNER_IN : MK_RUNNER_BEST, 1e3 * c->cost, 0, mk_tuning_code(p, c), c->label};
  }
  mk_records_add(&t->user, &r);
}

/* t: of a card, or NULL. */
static mk_plan *plan(const char *format, int arch, int size, const mk_tuning *t) {
  mk_status st = {0};
  char lua[1024];
  mk_plan_options options = options_for(arch);
  if (t) options.precedents = mk_tuning_precedents(t);
  snprintf(lua, sizeof lua, format, size);
  mk_graph *g = graph_of(lua, &st);
  mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
  if (!p) fail_msg("%s", st.message);
  if (t) mk_tuning_apply(t, p);
  mk_graph_free(g);
  return p;
}

/* ---- the published model */

typedef struct gpu { /* that was tuned at one size */
  mk_tuning tuning;
  codes compiled; /* to be measured, or chosen where there was nothing to measure */
} gpu;

/* The best-th of each group's candidates was the fastest. */
static gpu tuned_at(mk_model_size size, int best) {
  gpu card = {0};
  model_plans plans = {0};
  add_model_plans(&plans, "a14b", size, NULL);
  for (int i = 0; i < plans.count; i++)
    for (int g = 0; g < plans.items[i]->ngroups; g++) {
      const mk_group *x = &plans.items[i]->groups[g];
      bool tuned = mk_tuning_matters(x);
      if (tuned) know(&card.tuning, plans.items[i], x, best < x->ncandidates ? best : x->ncandidates - 1);
      for (int c = 0; c < (tuned ? x->ncandidates : 1); c++) add_codes(plans.items[i], &x->candidates[c], &card.compiled);
    }
  free_model_plans(&plans);
  return card;
}

/* Nothing was measured: the cost model's choices were used. */
static gpu used_at(mk_model_size size) {
  gpu card = {0};
  model_plans plans = {0};
  add_model_plans(&plans, "a14b", size, NULL);
  for (int i = 0; i < plans.count; i++)
    for (int g = 0; g < plans.items[i]->ngroups; g++) {
      const mk_group *x = &plans.items[i]->groups[g];
      mk_tuning_use(&card.tuning, plans.items[i], x, &card.tuning.user);
      add_codes(plans.items[i], &x->candidates[0], &card.compiled);
    }
  free_model_plans(&plans);
  return card;
}

/* How many kernels another size needs beside. early: its candidates are made with the records; then, if the first size was
 * measured, nothing is left to be. */
static int kernels_added(const gpu *card, mk_model_size size, bool early) {
  codes compiled = card->compiled;
  const mk_records *own = &card->tuning.user;
  bool measured = own->count && own->items[0].entries[0].state != MK_RUNNER_USED;
  model_plans plans = {0};
  int added = 0;
  add_model_plans(&plans, "a14b", size, early ? &card->tuning : NULL);
  for (int i = 0; i < plans.count; i++) {
    mk_plan *p = plans.items[i];
    mk_tuning_apply(&card->tuning, p);
    for (int g = 0; g < p->ngroups; g++) {
      added += add_codes(p, &p->groups[g].candidates[p->groups[g].chosen], &compiled);
      if (early && measured && mk_tuning_matters(&p->groups[g]))
        assert_int_not_equal(mk_tuning_knows(&card->tuning, p, &p->groups[g]), MK_KNOWN_NOT);
    }
  }
  free_model_plans(&plans);
  return added;
}

static void other_sizes_of_the_model_add_no_kernel(void **state) {
  (void)state;
  const mk_model_size small = {832, 480, 81}, large = {1280, 720, 81},
                      others[] = {{704, 384, 9}, {768, 384, 5}, {832, 480, 21}, {480, 272, 5}};
  gpu a = tuned_at(small, 0), b = tuned_at(small, 2), c = tuned_at(large, 0);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_int_equal(kernels_added(&a, others[i], true), 0);
  assert_int_equal(kernels_added(&a, large, true), 0);
  assert_int_equal(kernels_added(&b, large, true), 0);
  assert_int_equal(kernels_added(&c, small, true), 0);
  assert_int_equal(kernels_added(&c, others[0], true), 0);
  assert_true(kernels_added(&a, large, false) > 3);
  mk_tuning_close(&a.tuning);
  mk_tuning_close(&b.tuning);
  mk_tuning_close(&c.tuning);
}

static void nor_where_nothing_was_measured(void **state) {
  (void)state;
  const mk_model_size first = {832, 480, 81}, others[] = {{1280, 720, 81}, {704, 384, 9}, {768, 384, 5}, {832, 480, 21}};
  gpu card = used_at(first);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_int_equal(kernels_added(&card, others[i], true), 0);
  mk_tuning_close(&card.tuning);
}

/* With the records that come along, of two sizes, a first run compiles what any size will choose. */
static void nor_after_a_first_run_with_shipped_records(void **state) {
  (void)state;
  const mk_model_size first = {832, 480, 5},
                      others[] = {{1280, 720, 5}, {704, 384, 9}, {832, 480, 21}, {832, 480, 81}, {1280, 720, 81}};
  gpu card = {0};
  model_plans plans = {0};
  mk_records used = {0};
  if (!take_shipped_records(&card.tuning.shipped)) skip();
  add_model_plans(&plans, "a14b", first, &card.tuning);
  for (int i = 0; i < plans.count; i++) {
    mk_plan *p = plans.items[i];
    mk_tuning_apply(&card.tuning, p);
    for (int g = 0; g < p->ngroups; g++) {
      mk_group *x = &p->groups[g];
      add_codes(p, &x->candidates[x->chosen], &card.compiled);
      for (int c = 0; c < x->ncandidates; c++)
        if (x->candidates[c].precedent) add_codes(p, &x->candidates[c], &card.compiled);
      mk_tuning_use(&card.tuning, p, x, &used);
    }
  }
  free_model_plans(&plans);
  mk_records_merge(&card.tuning.user, &used);
  mk_records_free(&used);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_int_equal(kernels_added(&card, others[i], true), 0);
  mk_tuning_close(&card.tuning);
}

/* ---- one group */

#define CONV                                                          \
  "local x = input{name='x', shape={9, %d, 64, 384}, dtype='bf16'}\n" \
  "local w = weight('w', {384, 3, 3, 3, 384}):cast'bf16'\n"           \
  "output('y', conv(x, w, {t = {2, 0}, h = {1, 1}, w = {1, 1}}) + weight('b', {384}))"
#define ATTENTION                                                                           \
  "local function t(name) return input{name=name, shape={%d, 40, 128}, dtype='bf16'} end\n" \
  "output('y', attention(t'q', t'k', t'v', {scale = 0.125}):cast'bf16')"

static bool has_label(const mk_group *g, const char *label) {
  for (int c = 0; c < g->ncandidates; c++)
    if (!strcmp(g->candidates[c].label, label)) return true;
  return false;
}

static const mk_group *root_group(const mk_plan *p, const char *kind) {
  for (int g = 0; g < p->ngroups; g++)
    if (!strcmp(p->groups[g].kind, kind)) return &p->groups[g];
  fail_msg("no %s", kind);
  return NULL;
}

/* A candidate of one size that is too dear for another stays once it was chosen; how many there are. */
static int what_was_chosen_stays(const char *kind, const char *format, int arch, int from, int to) {
  int gone = 0;
  mk_plan *tuned = plan(format, arch, from, NULL), *other = plan(format, arch, to, NULL);
  const mk_group *g = root_group(tuned, kind), *there = root_group(other, kind);
  assert_true(g->signature == there->signature);
  for (int c = 0; c < g->ncandidates; c++) {
    mk_tuning t = {0};
    if (has_label(there, g->candidates[c].label)) continue;
    know(&t, tuned, g, c);
    mk_plan *p = plan(format, arch, to, &t);
    const mk_group *x = root_group(p, kind);
    assert_string_equal(x->candidates[x->chosen].label, g->candidates[c].label);
    assert_true(mk_tuning_code(p, &x->candidates[x->chosen]) == mk_tuning_code(tuned, &g->candidates[c]));
    assert_int_equal(x->ncandidates, there->ncandidates + 1);
    for (int k = 0; k < there->ncandidates; k++) assert_true(has_label(x, there->candidates[k].label));
    mk_plan_free(p);
    mk_tuning_close(&t);
    gone++;
  }
  mk_plan_free(tuned);
  mk_plan_free(other);
  return gone;
}

static void convolutions_stay(void **state) {
  (void)state;
  assert_true(what_was_chosen_stays("conv", CONV, 90, 104, 48) > 0);
  int gone = 0; /* of the few that sm_80 has */
  for (int from = 50; from < 112; from += 6) gone += what_was_chosen_stays("conv", CONV, 80, from, 48);
  assert_true(gone > 0);
}

static void attentions_stay(void **state) {
  (void)state;
  assert_true(what_was_chosen_stays("attention", ATTENTION, 90, 32760, 2112) > 0);
}

/* Tuned as an image of a few pixels, where the model expects the opposite of what it does for a large one. */
static void what_is_far_behind_goes(void **state) {
  (void)state;
  mk_plan *tuned = plan(ATTENTION, 90, 64, NULL), *plain = plan(ATTENTION, 90, 32760, NULL);
  const mk_group *g = root_group(tuned, "attention"), *there = root_group(plain, "attention");
  int mma = 0;
  while (strncmp(g->candidates[mma].label, "attention_mma", 13) != 0) mma++;
  mk_tuning t = {0};
  know(&t, tuned, g, mma);
  ((mk_record *)t.user.items)[0].count = 1; /* nothing else was measured */
  mk_plan *p = plan(ATTENTION, 90, 32760, &t), *again = plan(ATTENTION, 90, 64, &t);
  const mk_group *x = root_group(p, "attention"), *same = root_group(again, "attention");
  assert_true(has_label(x, g->candidates[mma].label)); /* it was among the cheapest by chance */
  assert_int_equal(x->chosen, 0);
  assert_int_equal(x->ncandidates, there->ncandidates);
  assert_int_equal(mk_tuning_knows(&t, p, x), MK_KNOWN_NOT); /* so it will be measured */
  assert_int_equal(same->chosen, mma);                       /* whatever the model says */
  mk_plan_free(p);
  mk_plan_free(again);
  mk_plan_free(tuned);
  mk_plan_free(plain);
  mk_tuning_close(&t);
}

static void far_behind(void **state) {
  (void)state;
  assert_false(mk_is_far_behind(1.4, 1));
  assert_true(mk_is_far_behind(1.6, 1));
  assert_false(mk_is_far_behind(1.6e-4, 1e-4)); /* little is lost */
  assert_true(mk_is_far_behind(3.1e-4, 1e-4));
}

/* Two tiles across the rows of a cluster: not for so few rows. */
static void the_next_best_stands_in(void **state) {
  (void)state;
  mk_plan *tuned = plan(ATTENTION, 90, 2112, NULL);
  const mk_group *g = root_group(tuned, "attention");
  int pair = 0, next = -1;
  while (!strstr(g->candidates[pair].label, "cluster=2")) pair++;
  mk_tuning t = {0};
  know(&t, tuned, g, pair);
  mk_plan *p = plan(ATTENTION, 90, 128, &t);
  const mk_group *x = root_group(p, "attention");
  assert_false(has_label(x, g->candidates[pair].label));
  for (int c = 0; c < g->ncandidates; c++) /* the fastest by the record, which know makes of costs */
    if (has_label(x, g->candidates[c].label) && (next < 0 || g->candidates[c].cost < g->candidates[next].cost)) next = c;
  assert_string_equal(x->candidates[x->chosen].label, g->candidates[next].label);
  ((mk_record_entry *)t.user.items[0].entries)[0].code++; /* not there because it was changed: */
  mk_plan *changed = plan(ATTENTION, 90, 2112, &t);
  assert_int_equal(mk_tuning_knows(&t, changed, root_group(changed, "attention")), MK_KNOWN_NOT);
  assert_int_equal(root_group(changed, "attention")->chosen, 0);
  mk_plan_free(changed);
  mk_plan_free(p);
  mk_plan_free(tuned);
  mk_tuning_close(&t);
}

/* An unmeasured choice goes where the cost model is sure of another, and gives way to what was measured. */
static void what_was_used(void **state) {
  (void)state;
  mk_plan *p = plan(ATTENTION, 90, 32760, NULL);
  mk_group *g = (mk_group *)root_group(p, "attention");
  mk_tuning t = {0};
  g->chosen = 1;
  mk_tuning_use(&t, p, g, &t.user);
  assert_int_equal(t.user.count, 1);
  assert_false(mk_record_is_measured(&t.user.items[0]));
  mk_tuning_use(&t, p, g, &t.user); /* there is one */
  assert_int_equal(t.user.count, 1);
  assert_int_equal(mk_tuning_knows(&t, p, g), MK_KNOWN_NOT);
  mk_plan *same = plan(ATTENTION, 90, 32760, &t), *near = plan(ATTENTION, 90, 40000, &t);
  const mk_group *x = root_group(near, "attention");
  assert_int_equal(root_group(same, "attention")->chosen, 1);
  assert_string_equal(x->candidates[x->chosen].label, g->candidates[1].label);
  mk_tuning other = {0};
  g->chosen = g->ncandidates - 1; /* by far the dearest */
  mk_tuning_use(&other, p, g, &other.user);
  mk_plan *far = plan(ATTENTION, 90, 40000, &other);
  assert_int_equal(root_group(far, "attention")->chosen, 0);
  know(&t, p, g, 2);
  assert_int_equal(t.user.count, 1); /* in place of the other, whatever their dates */
  mk_tuning_apply(&t, p);
  assert_int_equal(g->chosen, 2);
  mk_tuning_use(&t, p, g, &t.user);
  assert_true(t.user.count == 1 && mk_record_is_measured(&t.user.items[0]));
  mk_plan_free(far);
  mk_plan_free(near);
  mk_plan_free(same);
  mk_plan_free(p);
  mk_tuning_close(&other);
  mk_tuning_close(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(other_sizes_of_the_model_add_no_kernel),
      cmocka_unit_test(nor_where_nothing_was_measured),
      cmocka_unit_test(nor_after_a_first_run_with_shipped_records),
      cmocka_unit_test(convolutions_stay),
      cmocka_unit_test(attentions_stay),
      cmocka_unit_test(far_behind),
      cmocka_unit_test(what_is_far_behind_goes),
      cmocka_unit_test(the_next_best_stands_in),
      cmocka_unit_test(what_was_used),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

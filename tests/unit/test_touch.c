/* What tuning is told of groups: the memory they read and write, and signatures that only the operation changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/host/script.h"

static mk_plan *plan(const char *format, int length) {
  mk_status st = {0};
  mk_plan_options options = options_for(90);
  char lua[1024];
  snprintf(lua, sizeof lua, format, length);
  mk_graph *g = graph_of(lua, &st);
  mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
  mk_graph_free(g);
  if (!p) fail_msg("%s", st.message);
  return p;
}

static const mk_extent *extent_at(const mk_group *g, mk_ref ref) {
  for (int i = 0; i < g->nextents; i++)
    if (g->extents[i].ref.space == ref.space && g->extents[i].ref.offset == ref.offset) return &g->extents[i];
  return NULL;
}

#define MATMUL                                                \
  "local x = input{name='x', shape={%d, 64}, dtype='bf16'}\n" \
  "output('y', matmul(x, weight('w', {128, 64}):cast'bf16'):gelu():cast'bf16')"

static void reads_and_writes(void **state) {
  (void)state;
  mk_plan *p = plan(MATMUL, 100);
  const mk_group *g = group_at(p, "step", 0);
  const mk_extent *x = extent_at(g, binding_of(p->inputs, p->ninputs, "x")->ref);
  const mk_extent *y = extent_at(g, binding_of(p->outputs, p->noutputs, "y")->ref);
  assert_int_equal(g->nextents, 3);
  assert_true(x && x->read && !x->written && x->bytes == 100 * 64 * 2 && x->dtype == MK_BF16);
  assert_true(y && y->written && !y->read && y->bytes == 100 * 128 * 2);
  assert_int_equal(group_at(p, "load", 0)->nextents, 0); /* runs once: nothing to tune */
  mk_plan_free(p);
}

static void updates_in_place_are_read_and_written(void **state) {
  (void)state;
  mk_plan *p = plan("local s = state{name='s', shape={%d}}\nupdate(s, s * 2 + input{name='x', shape={1}})", 64);
  const mk_group *g = group_at(p, "step", 0);
  const mk_extent *s = extent_at(g, p->states[0].ref);
  assert_true(s && s->read && s->written);
  mk_plan_free(p);
}

static void lengths_of_keys_are_whole(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local function t(name) return input{name=name, shape={96, 2, 64}, dtype='bf16'} end\n"
      "local n = input{name='length', shape={1}, dtype='i32'}\n"
      "local ids = input{name='ids', shape={%d}, dtype='i32'}\n"
      "output('y', attention(t'q', t'k', t'v', {kv_len = n}):cast'bf16')\n"
      "output('z', gather(weight('table', {10, 64}), ids) * 2)",
      32);
  int lengths = 0, indices = 0;
  for (int g = 0; g < p->ngroups; g++)
    for (int i = 0; i < p->groups[g].nextents; i++) {
      const mk_extent *e = &p->groups[g].extents[i];
      if (e->dtype != MK_I32) continue;
      lengths += e->bytes == 4 && e->integer == 96;
      indices += e->bytes == 128 && e->integer == 0;
    }
  assert_int_equal(lengths, 1);
  assert_int_equal(indices, 1);
  mk_plan_free(p);
}

static uint64_t signature(const char *format, int length) {
  mk_plan *p = plan(format, length);
  uint64_t s = group_at(p, "step", 0)->signature;
  mk_plan_free(p);
  assert_true(s != 0);
  return s;
}

static void only_the_operation_changes_signatures(void **state) {
  (void)state;
  static const char *const matmuls[] = {
      MATMUL,
      "local x = input{name='x', shape={%d, 64}, dtype='bf16'}\n"
      "output('y', matmul(x, weight('w', {128, 64}):cast'bf16'):silu():cast'bf16')", /* another epilogue */
      "local x = input{name='x', shape={%d, 64}, dtype='bf16'}\n"
      "output('y', matmul(x, weight('w', {256, 64}):cast'bf16'):gelu():cast'bf16')", /* another width */
      "local x = input{name='x', shape={%d, 64}, dtype='f16'}\n"
      "output('y', matmul(x, weight('w', {128, 64}):cast'f16'):gelu():cast'f16')",
      "local x = input{name='x', shape={%d, 64}, dtype='bf16'}\n"
      "output('y', matmul(x, weight('w', {128, 64}):cast'bf16'):gelu())"};
  for (int i = 0; i < 5; i++) {
    assert_true(signature(matmuls[i], 1000) == signature(matmuls[i], 75600));
    for (int k = 0; k < i; k++) assert_true(signature(matmuls[i], 1000) != signature(matmuls[k], 1000));
  }
  static const char attention[] =
      "local function t(name) return input{name=name, shape={%1$d, 2, 64}, dtype='bf16'} end\n"
      "output('y', attention(t'q', t'k', t'v'):cast'bf16')";
  assert_true(signature(attention, 96) == signature(attention, 4000));
  static const char row[] = "local x = input{name='x', shape={%d, 640}}\noutput('y', x * ((x * x):mean() + 1e-6):rsqrt())";
  assert_true(signature(row, 96) == signature(row, 4000));
}

static void equal_groups_have_equal_signatures(void **state) {
  (void)state;
  mk_plan *p = plan(
      "local h = input{name='x', shape={%d, 64}, dtype='bf16'}\n"
      "for i = 1, 3 do h = matmul(h, weight('w' .. i, {64, 64}):cast'bf16'):gelu():cast'bf16' end\noutput('y', h)",
      500);
  assert_int_equal(groups_in(p, "step"), 3);
  for (int i = 1; i < 3; i++) assert_true(group_at(p, "step", i)->signature == group_at(p, "step", 0)->signature);
  mk_plan_free(p);
}

/* A norm and its matmul are tuned together, as some candidates do the work of both: what passes between the two is no operand. */
static void covered_groups_belong_to_it(void **state) {
  (void)state;
  static const char norm[] =
      "local x = input{name='x', shape={%%d, 64}}\nx = x + input{name='branch', shape={1, 64}}\noutput('sum', x)\n"
      "local h = x * ((x * x):mean() + 1e-6):%s\n%s\n"
      "output('y', matmul(h:cast'bf16', weight('w', {128, 64}):cast'bf16'))";
  char lua[1024];
  snprintf(lua, sizeof lua, norm, "rsqrt()", "");
  mk_plan *p = plan(lua, 100);
  const mk_group *rows = group_at(p, "step", 0), *g = group_at(p, "step", 1);
  const mk_extent *x = extent_at(g, binding_of(p->inputs, p->ninputs, "x")->ref);
  const mk_extent *sum = extent_at(g, binding_of(p->outputs, p->noutputs, "sum")->ref);
  const mk_extent *h = NULL;
  for (int i = 0; i < g->nextents; i++)
    if (g->extents[i].spoilt) h = &g->extents[i];
  assert_int_equal(groups_in(p, "step"), 2);
  assert_true(x && x->read && !x->written);
  assert_true(sum && sum->written);
  assert_true(h && !h->read && !h->written && h->bytes == 100 * 64 * 2);
  assert_true(extent_at(rows, h->ref) && extent_at(rows, h->ref)->written && !extent_at(rows, h->ref)->spoilt);
  mk_plan_free(p);
  uint64_t same[2];
  for (int i = 0; i < 2; i++) { /* the norm is part of the operation */
    snprintf(lua, sizeof lua, norm, i ? "sqrt():recip()" : "rsqrt()", "");
    p = plan(lua, 100);
    same[i] = group_at(p, "step", 1)->signature;
    mk_plan_free(p);
  }
  assert_true(same[0] != same[1]);
  snprintf(lua, sizeof lua, norm, "rsqrt()", "output('h', h:cast'bf16')"); /* read by others, too: nothing covers it */
  p = plan(lua, 100);
  g = group_at(p, "step", groups_in(p, "step") - 1);
  for (int i = 0; i < g->nextents; i++) assert_false(g->extents[i].spoilt);
  mk_plan_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_and_writes),
      cmocka_unit_test(updates_in_place_are_read_and_written),
      cmocka_unit_test(lengths_of_keys_are_whole),
      cmocka_unit_test(only_the_operation_changes_signatures),
      cmocka_unit_test(equal_groups_have_equal_signatures),
      cmocka_unit_test(covered_groups_belong_to_it),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

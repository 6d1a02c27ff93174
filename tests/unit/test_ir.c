/* Building, inference messages, printing and the verifier. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "codegen/ir.h"

#define DIMS(...) ((const int64_t[]){__VA_ARGS__}), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define ARGS(...) ((const int[]){__VA_ARGS__}), (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))

static int input_of(mk_graph *g, const char *name, mk_dtype t, mk_rate rate, const int64_t *dims, int rank) {
  mk_status st = {0};
  mk_attr attr = {.rate = rate};
  int id = mk_build(g, MK_OP_INPUT, NULL, 0, t, dims, rank, &attr, name, "t.lua:1", &st);
  assert_string_equal(st.message, "");
  return id;
}

static int op(mk_graph *g, mk_op o, const int *args, int nargs, const mk_attr *attr) {
  mk_status st = {0};
  int id = mk_build(g, o, args, nargs, MK_F32, NULL, 0, attr, NULL, "t.lua:2", &st);
  assert_string_equal(st.message, "");
  return id;
}

static void expect_shape(const mk_graph *g, int id, mk_dtype t, const int64_t *dims, int rank) {
  assert_true(id >= 0);
  assert_int_equal(g->nodes[id].dtype, t);
  assert_int_equal(g->nodes[id].rank, rank);
  for (int i = 0; i < rank; i++) assert_int_equal(g->nodes[id].dims[i], dims[i]);
}

static void expect_refused(mk_graph *g, mk_op o, const int *args, int nargs, const int64_t *dims, int rank, const mk_attr *attr,
                           const char *message) {
  mk_status st = {0};
  int before = g->count;
  assert_int_equal(mk_build(g, o, args, nargs, MK_F32, dims, rank, attr, NULL, "t.lua:9", &st), -1);
  assert_int_equal(g->count, before);
  assert_int_equal(st.code, MK_EINPUT);
  assert_string_equal(st.message, message);
}

static void infers_shapes(void **state) {
  (void)state;
  mk_graph *g = mk_graph_new("g");
  int x = input_of(g, "x", MK_BF16, MK_RATE_STEP, DIMS(7, 4, 6));
  int b = input_of(g, "b", MK_F32, MK_RATE_PROMPT, DIMS(4, 1));
  int w = input_of(g, "w", MK_BF16, MK_RATE_LOAD, DIMS(10, 6));
  int ids = input_of(g, "ids", MK_I32, MK_RATE_PROMPT, DIMS(2, 3));
  expect_shape(g, op(g, MK_OP_ADD, ARGS(x, b), NULL), MK_F32, DIMS(7, 4, 6));
  expect_shape(g, op(g, MK_OP_EXP, ARGS(x), NULL), MK_F32, DIMS(7, 4, 6));
  expect_shape(g, op(g, MK_OP_MEAN, ARGS(x), NULL), MK_F32, DIMS(7, 4, 1));
  expect_shape(g, op(g, MK_OP_MATMUL, ARGS(x, w), NULL), MK_F32, DIMS(7, 4, 10));
  expect_shape(g, op(g, MK_OP_GATHER, ARGS(w, ids), NULL), MK_BF16, DIMS(2, 3, 6));
  expect_shape(g, op(g, MK_OP_PERMUTE, ARGS(x), &(mk_attr){.perm = {2, 0, 1}}), MK_BF16, DIMS(6, 7, 4));
  expect_shape(g, op(g, MK_OP_CONCAT, ARGS(x, x, x), &(mk_attr){.axis = 1}), MK_BF16, DIMS(7, 12, 6));
  expect_shape(g, op(g, MK_OP_ATTENTION, ARGS(x, x, x), &(mk_attr){.scale = 1}), MK_F32, DIMS(7, 4, 6));
  int v = input_of(g, "v", MK_F32, MK_RATE_STEP, DIMS(3, 5, 6, 2));
  int k = input_of(g, "k", MK_F32, MK_RATE_LOAD, DIMS(8, 3, 3, 3, 2));
  expect_shape(g, op(g, MK_OP_CONV, ARGS(v, k), &(mk_attr){.pad = {2, 0, 1, 1, 1, 0}}), MK_F32, DIMS(3, 5, 5, 8));
  expect_shape(g, op(g, MK_OP_UPSAMPLE, ARGS(v), NULL), MK_F32, DIMS(3, 10, 12, 2));
  mk_status st = {0};
  expect_shape(g, mk_build(g, MK_OP_CAST, ARGS(x), MK_F16, NULL, 0, NULL, NULL, NULL, &st), MK_F16, DIMS(7, 4, 6));
  expect_shape(g, mk_build(g, MK_OP_RESHAPE, ARGS(x), MK_F32, DIMS(28, 6), NULL, NULL, NULL, &st), MK_BF16, DIMS(28, 6));
  assert_int_equal(g->nodes[g->count - 1].rate, MK_RATE_STEP);
  assert_int_equal(g->nodes[op(g, MK_OP_NEG, ARGS(b), NULL)].rate, MK_RATE_PROMPT);
  assert_true(mk_verify(g, &st));
  mk_graph_free(g);
}

static void names_both_shapes(void **state) {
  (void)state;
  mk_graph *g = mk_graph_new("g");
  int x = input_of(g, "x", MK_F32, MK_RATE_STEP, DIMS(7, 4, 6));
  int w = input_of(g, "w", MK_F32, MK_RATE_LOAD, DIMS(10, 5));
  int h = input_of(g, "h", MK_BF16, MK_RATE_LOAD, DIMS(10, 6));
  int i = input_of(g, "i", MK_I32, MK_RATE_LOAD, DIMS(7, 4, 6));
  expect_refused(g, MK_OP_MATMUL, ARGS(x, w), NULL, 0, NULL,
                 "t.lua:9: matmul: a [7, 4, 6] and b [10, 5] differ in the last axis, which is summed (b is [N, K])");
  expect_refused(g, MK_OP_MATMUL, ARGS(x, h), NULL, 0, NULL, "t.lua:9: matmul: a is f32 and b is bf16; cast one");
  expect_refused(g, MK_OP_ADD, ARGS(x, w), NULL, 0, NULL,
                 "t.lua:9: add: [7, 4, 6] and [10, 5] do not broadcast: axis 1 from the end has 6 and 5");
  expect_refused(g, MK_OP_EXP, ARGS(i), NULL, 0, NULL, "t.lua:9: exp: x [7, 4, 6] is i32; arithmetic takes f32, f16 or bf16");
  expect_refused(g, MK_OP_RESHAPE, ARGS(x), DIMS(7, 25), NULL,
                 "t.lua:9: reshape: [7, 4, 6] has 168 elements and [7, 25] has 175");
  expect_refused(g, MK_OP_EXPAND, ARGS(w), DIMS(10, 10), NULL,
                 "t.lua:9: expand: [10, 5] does not expand to [10, 10]: the rank stays, and only extents of 1 are repeated");
  expect_refused(g, MK_OP_SLICE, ARGS(w), DIMS(3, 5), &(mk_attr){.start = {8, 0}},
                 "t.lua:9: slice: axis 1 of [10, 5] has no elements 8 to 10");
  expect_refused(g, MK_OP_CONCAT, ARGS(w, x), NULL, 0, &(mk_attr){.axis = 0},
                 "t.lua:9: concat: [10, 5] and [7, 4, 6] (piece 2) do not join along axis 1");
  expect_refused(g, MK_OP_ATTENTION, ARGS(x, x, x, w), NULL, 0, &(mk_attr){.scale = 1, .has_bias = true},
                 "t.lua:9: attention: bias is f32 [10, 5]; it must be f32 [4, 7, 7], or relative [4, 13]");
  expect_refused(g, MK_OP_PERMUTE, ARGS(x), NULL, 0, &(mk_attr){.perm = {0, 0, 1}},
                 "t.lua:9: permute: the axes of [7, 4, 6] must each stand once in the permutation");
  expect_refused(g, MK_OP_NEG, ARGS(99), NULL, 0, NULL, "t.lua:9: neg: argument 1 is no earlier node: %99");
  expect_refused(g, MK_OP_NEG, ARGS(x, x), NULL, 0, NULL, "t.lua:9: neg: 2 arguments; it takes 1");
  expect_refused(g, MK_OP_RESHAPE, ARGS(x), DIMS(0, 5), NULL, "t.lua:9: reshape: extent 0 of [0, 5] is less than 1");
  expect_refused(g, MK_OP_RESHAPE, ARGS(x), DIMS(1LL << 62, 1LL << 62), NULL,
                 "t.lua:9: reshape: [4611686018427387904, 4611686018427387904] has more than 2^40 elements");
  mk_graph_free(g);
}

static void prints(void **state) {
  (void)state;
  mk_graph *g = mk_graph_new("demo");
  mk_status st = {0};
  int x = input_of(g, "x", MK_F32, MK_RATE_STEP, DIMS(2, 3));
  float one = 1.5f;
  int c = mk_build(g, MK_OP_CONST, NULL, 0, MK_F32, NULL, 0, &(mk_attr){.data = &one}, NULL, NULL, &st);
  one = 7; /* the data was copied */
  int y = mk_build(g, MK_OP_MUL, ARGS(x, c), MK_F32, NULL, 0, NULL, "scaled", "t.lua:3", &st);
  int s = mk_build(g, MK_OP_STATE, NULL, 0, MK_F32, DIMS(2, 3), NULL, "s", "t.lua:4", &st);
  mk_graph_output(g, "step", "y", y);
  mk_graph_update(g, "step", s, y);
  assert_true(mk_verify(g, &st));
  mk_text out = {0};
  mk_graph_print(g, &out);
  assert_string_equal(mk_text_str(&out),
                      "graph demo\n"
                      "%0 f32 [2,3] step  input \"x\"   ; t.lua:1\n"
                      "%1 f32 [] load  const {1.5}\n"
                      "%2 f32 [2,3] step  mul %0 %1   ; scaled  t.lua:3\n"
                      "%3 f32 [2,3] step  state \"s\"   ; t.lua:4\n"
                      "entry step\n"
                      "  output \"y\" %2\n"
                      "  update \"s\" %3 <- %2\n");
  mk_text_free(&out);
  mk_graph_free(g);
}

static void expect_broken(const mk_graph *g, const char *message) {
  mk_status st = {0};
  assert_false(mk_verify(g, &st));
  assert_int_equal(st.code, MK_EINTERNAL);
  assert_string_equal(st.message, message);
}

static void verifier_notices(void **state) {
  (void)state;
  mk_graph *g = mk_graph_new("g");
  int x = input_of(g, "x", MK_F32, MK_RATE_STEP, DIMS(2, 3));
  int y = op(g, MK_OP_NEG, ARGS(x), NULL);
  int s = mk_build(g, MK_OP_STATE, NULL, 0, MK_F32, DIMS(3, 2), NULL, "s", NULL, &(mk_status){0});
  mk_graph_output(g, "step", "y", y);
  mk_node keep = g->nodes[y];
  g->nodes[y].dims[0] = 5;
  expect_broken(g, "graph: %1 neg: dims is not what its arguments give");
  g->nodes[y] = keep;
  g->nodes[y].rate = MK_RATE_LOAD;
  expect_broken(g, "graph: %1 neg: rate is not what its arguments give");
  g->nodes[y] = keep;
  g->nodes[y].attr.axis = 1;
  expect_broken(g, "graph: %1 neg: attr is not what its arguments give");
  g->nodes[y] = keep;
  g->nodes[y].args = (const int[]){1};
  expect_broken(g, "graph: %1: t.lua:2: neg: argument 1 is no earlier node: %1");
  g->nodes[y] = keep;
  g->outputs[0].node = 9;
  expect_broken(g, "graph: output 0 ('y') is %9, no node");
  g->outputs[0].node = y;
  g->outputs[0].name = "x";
  expect_broken(g, "graph: the name 'x' stands for input %0 and for output %1");
  g->outputs[0].name = "y";
  g->outputs[0].entry = "other";
  expect_broken(g, "graph: entry 'other' is not in the list");
  g->outputs[0].entry = "step";
  mk_graph_update(g, "step", s, y);
  expect_broken(g, "graph: update 0: state 's' and its value %1 differ in dtype or dims");
  g->updates[0].state = x;
  expect_broken(g, "graph: update 0: %0 <- %1 names no state or no value");
  g->nupdates = 0;
  g->entries[0] = "load";
  g->outputs[0].entry = "load";
  expect_broken(g, "graph: entry name 'load' is empty, reserved or used twice");
  mk_graph_free(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(infers_shapes), cmocka_unit_test(names_both_shapes),
                                     cmocka_unit_test(prints), cmocka_unit_test(verifier_notices)};
  return cmocka_run_group_tests_name("ir", tests, NULL, NULL);
}

/* Emitted row programs: goldens, one kernel for what must be one, sources that do not depend on lengths, parameter structs that
 * both compilers lay out alike, and no spills. A golden is a graph whose last comment holds the expected CUDA; GOLDEN_UPDATE=1
 * rewrites. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/base/file.h"
#include "runtime/base/text.h"
#include "runtime/gpu/compiler.h"
#include "tests/host/script.h"
#include "tests/unit/golden.h"

static mk_plan *plan_of(const char *path, const char *params, int arch) {
  mk_status st = {0};
  mk_graph *g = graph_of_file(path, params, &st);
  mk_plan_options options = options_for(arch);
  mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
  if (!p) fail_msg("%s: %s", path, st.message);
  mk_graph_free(g);
  return p;
}

/* ---- goldens */

static int count(const char *text, const char *word) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, word)); at += strlen(word)) n++;
  return n;
}

/* One kernel; every pointer of its struct is used at one place, which is outside of any loop over the row but the one walk. */
static void one_pass(const char *path, int inputs, int outputs) {
  mk_plan *p = plan_of(path, "{\"tokens\": 75600}", 90);
  assert_int_equal(groups_in(p, "step"), 1);
  const mk_candidate *c = &group_at(p, "step", 0)->candidates[0];
  assert_int_equal(c->nlaunches, 1);
  const char *text = emitted_part(p->kernels[c->launches[0].kernel].source);
  for (int i = 0; i < inputs + outputs; i++) {
    char word[32];
    snprintf(word, sizeof word, i < inputs ? "(p.in%d + " : "(p.out%d + ", i < inputs ? i : i - inputs);
    assert_int_equal(count(text, word), 1);
  }
  assert_int_equal(count(text, "load_lanes<") + count(text, "load_pairs<") + count(text, "fetch_lanes<"), inputs);
  assert_int_equal(count(text, "store_lanes<"), outputs);
  compare_golden(path, text);
  mk_plan_free(p);
}

static void ln_modulate(void **state) {
  (void)state;
  one_pass("tests/golden/ln_modulate.lua", 3, 1);
}

static void gate_residual_norm(void **state) {
  (void)state;
  one_pass("tests/golden/gate_residual_norm.lua", 5, 2);
}

static void qk_norm_rope(void **state) {
  (void)state;
  one_pass("tests/golden/qk_norm_rope.lua", 4, 1);
}

/* ---- blocks that walk over rows */

static mk_plan *rope_plan(int tokens, int arch, const mk_group **group) {
  char params[32];
  snprintf(params, sizeof params, "{\"tokens\": %d}", tokens);
  mk_plan *p = plan_of("tests/golden/qk_norm_rope.lua", params, arch);
  *group = group_at(p, "step", 0);
  return p;
}

static bool walks(const mk_candidate *c) { return strstr(c->label, ", ahead=") != NULL; }

/* Where a block of one row would be done before memory is busy. */
static void many_rows_are_walked_over(void **state) {
  (void)state;
  const mk_group *g;
  mk_plan *p = rope_plan(75600, 90, &g);
  assert_true(walks(&g->candidates[0]));
  mk_plan_free(p);
  p = rope_plan(33, 90, &g); /* no block would have a second row */
  assert_false(walks(&g->candidates[0]));
  mk_plan_free(p);
}

/* All blocks are on the card at a time: none waits for another's end. */
static void walking_blocks_fit(void **state) {
  (void)state;
  static const struct {
    int arch, sms, smem; /* of a multiprocessor */
  } cards[] = {{80, 108, 164 << 10}, {86, 82, 100 << 10}, {90, 132, 228 << 10}};
  for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
    const mk_group *g;
    mk_plan *p = rope_plan(75600, cards[i].arch, &g);
    int found = 0;
    for (int c = 0; c < g->ncandidates; c++) {
      if (!walks(&g->candidates[c])) continue;
      const mk_launch *l = &g->candidates[c].launches[0];
      int blocks = (int)l->grid[0] / cards[i].sms;
      assert_int_equal(l->grid[0], blocks * cards[i].sms);
      assert_true(blocks >= 1 && blocks * ((int)l->smem + 2048) <= cards[i].smem && blocks * (int)l->block[0] <= 2048);
      found++;
    }
    assert_true(found > 0);
    mk_plan_free(p);
  }
}

/* ---- lengths */

static void lengths_are_arguments(void **state) {
  (void)state;
  static const char *const paths[] = {"tests/golden/ln_modulate.lua", "tests/golden/gate_residual_norm.lua",
                                      "tests/golden/qk_norm_rope.lua"};
  for (int i = 0; i < 3; i++) {
    mk_plan *a = plan_of(paths[i], "{\"tokens\": 75600}", 90), *b = plan_of(paths[i], "{\"tokens\": 33}", 90);
    assert_int_equal(a->nkernels, b->nkernels);
    for (int k = 0; k < a->nkernels; k++) assert_string_equal(a->kernels[k].source, b->kernels[k].source);
    mk_plan_free(a);
    mk_plan_free(b);
  }
}

static void same_work_is_one_kernel(void **state) {
  (void)state;
  mk_status st = {0};
  mk_graph *g = graph_of(
      "for i = 1, 3 do\n local x = input{name = 'x' .. i, shape = {40 + i, 96}}\n"
      " output('y' .. i, x * ((x * x):mean() + 1e-6):rsqrt() * weight('w' .. i, {96}))\nend",
      &st);
  mk_plan_options options = options_for(80);
  mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
  assert_string_equal(st.message, "");
  assert_int_equal(groups_in(p, "step"), 3);
  for (int i = 1; i < 3; i++)
    assert_int_equal(group_at(p, "step", i)->candidates[0].launches[0].kernel,
                     group_at(p, "step", 0)->candidates[0].launches[0].kernel);
  mk_plan_free(p);
  mk_graph_free(g);
}

/* ---- NVRTC */

/* What the device compiler makes of the struct: a kernel that stores every field's offset, read back from its PTX. The struct's
 * fields stand in the order of their offsets. */
static void check_offsets(const mk_compiler *c, const mk_kernel *k, const mk_launch *l, const char *arch) {
  mk_text t = {0};
  mk_status st = {0};
  const char *at = strstr(k->source, "\nstruct Params {\n");
  assert_non_null(at);
  at += strlen("\nstruct Params {\n");
  mk_text_add(&t, k->source);
  mk_text_add(&t, "\nextern \"C\" __global__ void offsets(u32 *out) {\n  const Params *p = (const Params *)0;\n");
  for (int i = 0; i < l->nargs; i++) {
    const char *end = strstr(at, ";\n"), *name = end;
    assert_non_null(end);
    while (name[-1] != ' ' && name[-1] != '*') name--;
    mk_text_addf(&t, "  out[%d] = 0xabc000 + (u32)(u64)&p->%.*s;\n", i, (int)(end - name), name);
    at = end + 2;
  }
  assert_true(!strncmp(at, "};", 2));
  mk_text_add(&t, "}\n");
  mk_compile_job job = {.name = k->name, .source = mk_text_str(&t), .arch = arch, .want_ptx = true};
  mk_compile_result r = {0};
  assert_true(mk_compile_batch(c, &job, 1, &r, NULL, NULL, &st));
  if (!r.ok) fail_msg("%s", r.message);
  for (int i = 0; i < l->nargs; i++) {
    char plain[64];
    snprintf(plain, sizeof plain, "%u;", 0xabc000 + l->args[i].offset);
    if (!strstr(r.ptx, plain)) fail_msg("%s: the device has no field at offset %u", k->name, l->args[i].offset);
  }
  mk_compile_result_free(&r);
  mk_text_free(&t);
}

static void structs_agree(void **state) {
  (void)state;
  mk_compiler c;
  mk_status st = {0};
  if (!mk_compiler_open(&c, 0, NULL, &st)) skip();
  mk_graph *g = graph_of(
      "local x = input{name='x', shape={300, 256}, dtype='bf16'}\n"
      "output('y', matmul(x, weight('w', {512, 256}):cast'bf16') * 2 + input{name='r', shape={300, 512}})\n"
      "output('n', x * ((x * x):mean() + 1e-6):rsqrt())",
      &st);
  mk_plan_options options = options_for(90);
  mk_plan *p = g ? mk_plan_build(g, &options, &st) : NULL;
  assert_string_equal(st.message, "");
  bool maps = false;
  for (int i = 0; i < p->ngroups; i++)
    for (int j = 0; j < p->groups[i].ncandidates; j++) {
      const mk_launch *l = &p->groups[i].candidates[j].launches[0];
      if (l->kind != MK_LAUNCH_KERNEL) continue;
      for (int a = 0; a < l->nargs; a++) maps |= l->args[a].kind == MK_ARG_TMAP;
      check_offsets(&c, &p->kernels[l->kernel], l, "sm_90a");
    }
  assert_true(maps);
  mk_plan_free(p);
  mk_graph_free(g);
}

static void no_spills(const char *path, const char *params) {
  static const int archs[] = {80, 90};
  mk_compiler c;
  mk_status st = {0};
  if (!mk_compiler_open(&c, 0, NULL, &st)) {
    print_message("# no NVRTC: %s\n", st.message);
    skip();
  }
  for (int a = 0; a < 2; a++) {
    mk_plan *p = plan_of(path, params, archs[a]);
    mk_compile_job *jobs = calloc((size_t)p->nkernels + 1, sizeof *jobs);
    mk_compile_result *results = calloc((size_t)p->nkernels + 1, sizeof *results);
    bool *taken = calloc((size_t)p->nkernels + 1, 1);
    int n = 0, bad = 0;
    for (int g = 0; g < p->ngroups; g++)
      for (int i = 0; i < p->groups[g].ncandidates; i++)
        for (int l = 0; l < p->groups[g].candidates[i].nlaunches; l++) {
          const mk_launch *launch = &p->groups[g].candidates[i].launches[l];
          if (launch->kind != MK_LAUNCH_KERNEL || taken[launch->kernel]) continue;
          bool row = !strncmp(p->kernels[launch->kernel].name, "row_", 4);
          if (!row && i > 0) continue; /* templates have a test of their own */
          taken[launch->kernel] = true;
          jobs[n++] = (mk_compile_job){.name = p->kernels[launch->kernel].name,
                                       .source = p->kernels[launch->kernel].source,
                                       .arch = a ? "sm_90a" : "sm_80"};
        }
    assert_true(n > 0);
    bool ran = mk_compile_batch(&c, jobs, n, results, NULL, NULL, &st);
    for (int i = 0; i < n; i++) {
      if (!results[i].ok) print_error("%s\n", results[i].message ? results[i].message : "not compiled");
      if (results[i].report.spill_bytes) print_error("%s: %d bytes spilled\n", jobs[i].name, (int)results[i].report.spill_bytes);
      bad += !results[i].ok || results[i].report.spill_bytes;
      mk_compile_result_free(&results[i]);
    }
    free(taken);
    free(results);
    free(jobs);
    mk_plan_free(p);
    assert_true(ran);
    assert_int_equal(bad, 0);
  }
}

static void goldens_compile(void **state) {
  (void)state;
  no_spills("tests/golden/ln_modulate.lua", "{\"tokens\": 75600}");
  no_spills("tests/golden/gate_residual_norm.lua", "{\"tokens\": 75600}");
  no_spills("tests/golden/qk_norm_rope.lua", "{\"tokens\": 75600}");
}

static void corners_compile(void **state) {
  (void)state;
  no_spills("tests/golden/plan_corners.lua", "{\"n\": 12}");
  no_spills("tests/gpu/graphs/row.lua", "{\"rows\": 19, \"width\": 51}");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(ln_modulate),
                                     cmocka_unit_test(gate_residual_norm),
                                     cmocka_unit_test(qk_norm_rope),
                                     cmocka_unit_test(many_rows_are_walked_over),
                                     cmocka_unit_test(walking_blocks_fit),
                                     cmocka_unit_test(lengths_are_arguments),
                                     cmocka_unit_test(same_work_is_one_kernel),
                                     cmocka_unit_test(structs_agree),
                                     cmocka_unit_test(goldens_compile),
                                     cmocka_unit_test(corners_compile)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

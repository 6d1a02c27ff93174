/* What the compiler says of every kernel that Wan2.2 A14B may run on Hopper: the diffusion step, the text encoder and the VAE at
 * full size, first choices and all further candidates. No registers are spilled, no wgmma waits for another (C7510 and its like,
 * C7512 among them), setmaxnreg is not ignored. (A stack alone is no spill: sin and cos of large arguments need one.) No GPU is
 * needed. What was compiled before comes from the cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codegen/plan.h"
#include "runtime/gpu/kernels.h"
#include "runtime/model/model_graphs.h"

typedef struct tally {
  int kernels, wgmma, bad;
} tally;

static void judge(const mk_kernel *k, const mk_cubin *c, tally *t) {
  const mk_kernel_report *r = &c->report;
  const char *fault = c->state == MK_CUBIN_FAILED ? "does not compile"
                      : r->spill_bytes            ? "spills registers"
                      : r->wgmma_serialized       ? "has wgmma instructions that wait for each other"
                      : r->setmaxnreg_ignored     ? "has its setmaxnreg ignored"
                                                  : NULL;
  t->kernels++;
  t->wgmma += strstr(k->name, "wgmma") != NULL;
  if (!fault) return;
  t->bad++;
  mk_text line = {0};
  mk_report_print(r, &line);
  print_error("%s %s: %s%s%s\n", k->name, fault, mk_text_str(&line), c->message ? "\n" : "", c->message ? c->message : "");
  mk_text_free(&line);
}

static void judge_graph(const mk_graph *g, mk_cache *cache, tally *t) {
  mk_status st = {0};
  mk_prepared done = {0};
  mk_plan *p = mk_plan_build(g, &(mk_plan_options){.arch = 90, .templates = "templates", .cublaslt = true}, &st);
  if (!p || !mk_kernels_prepare(p->kernels, p->nkernels, &(mk_prepare_options){.arch = 90}, cache, &done, &st))
    fail_msg("%s", st.message);
  for (int k = 0; k < done.count; k++) judge(&p->kernels[k], &done.cubins[k], t);
  mk_prepared_free(&done);
  mk_plan_free(p);
}

static void nothing_spills(void **state) {
  (void)state;
  mk_status st = {0};
  mk_compiler compiler;
  if (!mk_compiler_open(&compiler, 0, NULL, &st)) {
    print_message("# no NVRTC: %s\n", st.message);
    skip();
  }
  mk_cache cache;
  mk_cache_open(&cache, NULL);
  mk_graph *graphs[MK_MODEL_GRAPHS] = {NULL};
  int n = mk_model_graphs("a14b", &(mk_model_size){1280, 720, 81}, graphs, NULL, &st);
  if (!n) fail_msg("%s", st.message);
  tally t = {0};
  for (int i = 0; i < n; i++) {
    judge_graph(graphs[i], &cache, &t);
    mk_graph_free(graphs[i]);
  }
  print_message("# %d kernels, %d with wgmma\n", t.kernels, t.wgmma);
  assert_true(t.kernels > 100 && t.wgmma > 10);
  assert_int_equal(t.bad, 0);
}

int main(void) {
  setenv("MOONKILN_DATA", ".", 0);
  const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_spills)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* moonkiln emit: prints what was made of a graph, stage by stage. */
#include <stdio.h>
#include <string.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/load_graph.h"
#include "runtime/cli/weights.h"

typedef enum stage { STAGE_IR, STAGE_GROUPS, STAGE_PLAN, STAGE_CUDA, STAGE_COUNT } stage;
static const char *const stage_names[] = {"ir", "groups", "plan", "cuda"};

static bool wanted(const mk_kernel *k, const char *pattern) { return !pattern || strstr(k->name, pattern); }

static void print_cuda(const mk_plan *p, const char *pattern, bool all, mk_status *st) {
  int shown = 0;
  for (int k = 0; k < p->nkernels; k++) {
    bool used = all;
    for (int g = 0; !used && g < p->ngroups; g++) {
      const mk_candidate *c = &p->groups[g].candidates[p->groups[g].chosen];
      for (int l = 0; l < c->nlaunches; l++) used |= c->launches[l].kind == MK_LAUNCH_KERNEL && c->launches[l].kernel == k;
    }
    if (!used || !wanted(&p->kernels[k], pattern)) continue;
    printf("// ---- %s\n%s\n", p->kernels[k].name, p->kernels[k].source);
    shown++;
  }
  if (!shown && pattern)
    mk_fail(st, MK_EINPUT, "--kernel %s: no kernel of this graph has that in its name; --stage plan lists them", pattern);
}

int cmd_emit(int argc, char **argv) {
  mk_text_list sets = {0}, weights = {0};
  const char *stage_text = "plan", *arch_text = "sm_90a", *kernel = NULL;
  bool all = false, no_lt = false;
  const mk_option options[] = {
      {"set", MK_OPT_LIST, &sets, "K=V", "parameter of the script: JSON, text or @FILE.json", 0, 0},
      {"weights", MK_OPT_LIST, &weights, "PATH", "safetensors file or checkpoint folder, for shapes and dtypes", 0, 0},
      {"stage", MK_OPT_TEXT, &stage_text, "NAME", "ir, groups, plan (default) or cuda", 0, 0},
      {"arch", MK_OPT_TEXT, &arch_text, "ARCH", "target, as sm_90a (default)", 0, 0},
      {"kernel", MK_OPT_TEXT, &kernel, "NAME", "with --stage cuda: kernels whose name holds NAME", 0, 0},
      {"all", MK_OPT_FLAG, &all, NULL, "with --stage cuda: every candidate's kernel, not just the first choice's", 0, 0},
      {"no-cublaslt", MK_OPT_FLAG, &no_lt, NULL, "generated matmuls only", 0, 0},
  };
  const mk_command_line line = {"moonkiln emit GRAPH.lua [options]",
                                "Shows what was made of a graph, after each stage.",
                                options,
                                sizeof options / sizeof *options,
                                1,
                                1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;

  mk_status st = {0};
  mk_arena arena = {0};
  mk_text out = {0};
  mk_graph *g = NULL;
  mk_plan *plan = NULL;
  mk_weights *w = NULL;
  int arch = 0, count = 0, which = 0;
  while (which < STAGE_COUNT && strcmp(stage_names[which], stage_text)) which++;
  if (which == STAGE_COUNT) mk_fail(&st, MK_EINPUT, "--stage %s: give ir, groups, plan or cuda", stage_text);
  mk_plan_options po = {0};
  if (!mk_failed(&st)) mk_cli_parse_arch(arch_text, &arch, 1, &count, &st);
  if (!mk_failed(&st)) w = mk_weights_open(&weights, &st);
  if (!mk_failed(&st)) g = mk_cli_load_graph(argv[first], &sets, mk_weights_source(w), false, &st);
  if (g && which != STAGE_IR) mk_cli_plan_options(arch, &arena, &po, &st);
  po.cublaslt = !no_lt;
  if (g && !mk_failed(&st)) {
    if (which == STAGE_IR) {
      mk_graph_print(g, &out);
    } else if (which == STAGE_GROUPS) {
      mk_groups_print(g, &po, &out, &st);
    } else if ((plan = mk_plan_build(g, &po, &st))) {
      if (which == STAGE_PLAN) mk_plan_print(plan, &out);
      if (which == STAGE_CUDA) print_cuda(plan, kernel, all, &st);
    }
  }
  if (!mk_failed(&st)) fputs(mk_text_str(&out), stdout);
  mk_plan_free(plan);
  mk_graph_free(g);
  mk_weights_close(w);
  mk_text_free(&out);
  mk_arena_free(&arena);
  return mk_exit_code(&st);
}

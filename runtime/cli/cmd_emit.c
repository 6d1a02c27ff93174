/* moonkiln emit: prints what was made of a graph, stage by stage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/dump.h"
#include "runtime/cli/load_graph.h"
#include "runtime/cli/weights.h"
#include "runtime/gpu/compiler.h"

typedef enum stage { STAGE_IR, STAGE_GROUPS, STAGE_PLAN, STAGE_CUDA, STAGE_PTX, STAGE_REPORT, STAGE_COUNT } stage;
static const char *const stage_names[] = {"ir", "groups", "plan", "cuda", "ptx", "sass-report"};

/* What the compiler makes of the wanted kernels: PTX, or registers, memory and spills of the machine code. Not cached: this is
 * for looking. */
static void print_compiled(const mk_plan *p, const bool *wanted, bool ptx, mk_text *out, mk_status *st) {
  mk_compiler compiler;
  mk_compile_job *jobs = calloc((size_t)p->nkernels + 1, sizeof *jobs);
  mk_compile_result *results = calloc((size_t)p->nkernels + 1, sizeof *results);
  int n = 0;
  bool ok = jobs && results;
  if (!ok) mk_fail(st, MK_ENOMEM, "out of host memory");
  ok = ok && mk_compiler_open(&compiler, 0, NULL, st);
  char arch[16];
  ok = ok && mk_arch_name(p->arch, arch, st);
  for (int k = 0; ok && k < p->nkernels; k++)
    if (wanted[k])
      jobs[n++] = (mk_compile_job){.name = p->kernels[k].name, .source = p->kernels[k].source, .arch = arch, .want_ptx = ptx};
  ok = ok && mk_compile_batch(&compiler, jobs, n, results, NULL, NULL, st);
  for (int i = 0; ok && i < n; i++) {
    const mk_compile_result *r = &results[i];
    if (!r->ok) {
      mk_fail(st, MK_ECOMPILE, "%s", r->message ? r->message : "a kernel did not compile");
    } else if (ptx) {
      mk_text_addf(out, "// ---- %s\n%s\n", jobs[i].name, r->ptx);
    } else {
      mk_text_addf(out, "%-48s ", jobs[i].name);
      mk_report_print(&r->report, out);
      mk_text_addf(out, " cubin=%zu\n", r->cubin_bytes);
    }
  }
  for (int i = 0; i < n; i++) mk_compile_result_free(&results[i]);
  free(results);
  free(jobs);
}

static void print_kernels(const mk_plan *p, stage what, const char *pattern, bool all, mk_text *out, mk_status *st) {
  bool *wanted = mk_cli_wanted_kernels(p, all, pattern, st);
  for (int k = 0; wanted && what == STAGE_CUDA && k < p->nkernels; k++)
    if (wanted[k]) mk_text_addf(out, "// ---- %s\n%s\n", p->kernels[k].name, p->kernels[k].source);
  if (wanted && what != STAGE_CUDA) print_compiled(p, wanted, what == STAGE_PTX, out, st);
  free(wanted);
}

typedef struct request {
  const char *script, *kernel, *dump;
  mk_text_list sets, weights;
  mk_trial_request trial;
  int stage, arch;
  bool all, no_lt;
} request;

/* The graph's part of the command line, for a shell. */
static void describe(const request *r, mk_text *out) {
  mk_text_add(out, r->script);
  for (int i = 0; i < r->sets.count; i++) mk_text_addf(out, " --set '%s'", r->sets.items[i]);
  for (int i = 0; i < r->weights.count; i++) mk_text_addf(out, " --weights '%s'", r->weights.items[i]);
  for (int i = 0; i < r->trial.templates.count; i++) mk_text_addf(out, " --templates '%s'", r->trial.templates.items[i]);
}

static void dump(const request *r, const mk_graph *g, const mk_plan *p, const mk_plan_options *po, mk_status *st) {
  bool *wanted = mk_cli_wanted_kernels(p, r->all, r->kernel, st);
  mk_text command = {0};
  describe(r, &command);
  if (wanted) mk_dump_write(&(mk_dump){g, p, po, wanted, mk_text_str(&command)}, r->dump, st);
  mk_text_free(&command);
  free(wanted);
}

static void emit(const request *r, const mk_graph *g, mk_arena *arena, mk_text *out, mk_status *st) {
  mk_plan_options po;
  if (!r->dump && r->stage == STAGE_IR) {
    mk_graph_print(g, out);
    return;
  }
  if (!mk_cli_plan_options(r->arch, arena, &po, st)) return;
  po.cublaslt = !r->no_lt;
  po.trial = mk_cli_trial(&r->trial, arena);
  if (!r->dump && r->stage == STAGE_GROUPS) {
    mk_groups_print(g, &po, out, st);
    return;
  }
  mk_plan *plan = mk_plan_build(g, &po, st);
  if (plan && r->dump) {
    dump(r, g, plan, &po, st);
  } else if (plan && r->stage == STAGE_PLAN) {
    mk_plan_print(plan, out);
  } else if (plan) {
    print_kernels(plan, (stage)r->stage, r->kernel, r->all, out, st);
  }
  mk_plan_free(plan);
}

int cmd_emit(int argc, char **argv) {
  const char *stage_text = "plan", *arch_text = "sm_90a";
  request r = {0};
  const mk_option options[] = {
      {"set", MK_OPT_LIST, &r.sets, "K=V", "parameter of the script: JSON, text or @FILE.json", 0, 0},
      {"weights", MK_OPT_LIST, &r.weights, "PATH", "safetensors file or checkpoint folder, for shapes and dtypes", 0, 0},
      {"stage", MK_OPT_TEXT, &stage_text, "NAME", "ir, groups, plan (default), cuda, ptx or sass-report", 0, 0},
      {"dump", MK_OPT_TEXT, &r.dump, "DIR", "write all stages and the kernels' .cu files to a new folder", 0, 0},
      {"load", MK_OPT_TEXT, &r.trial.load, "DIR", "use the kernels, NAME.cu, of a folder that --dump wrote", 0, 0},
      {"templates", MK_OPT_LIST, &r.trial.templates, "DIR", "folder of your own templates", 0, 0},
      {"arch", MK_OPT_TEXT, &arch_text, "ARCH", "target, as sm_90a (default)", 0, 0},
      {"kernel", MK_OPT_TEXT, &r.kernel, "NAME", "with cuda, ptx, sass-report, --dump: kernels whose name holds NAME", 0, 0},
      {"all", MK_OPT_FLAG, &r.all, NULL, "with these: every candidate's kernel, not just the first choice's", 0, 0},
      {"no-cublaslt", MK_OPT_FLAG, &r.no_lt, NULL, "generated matmuls only", 0, 0},
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
  mk_weights *w = NULL;
  int count = 0;
  r.script = argv[first];
  while (r.stage < STAGE_COUNT && strcmp(stage_names[r.stage], stage_text)) r.stage++;
  if (r.stage == STAGE_COUNT) mk_fail(&st, MK_EINPUT, "--stage %s: give ir, groups, plan, cuda, ptx or sass-report", stage_text);
  if (!mk_failed(&st)) mk_cli_parse_arch(arch_text, &r.arch, 1, &count, &st);
  if (!mk_failed(&st)) w = mk_weights_open(&r.weights, &st);
  if (w) g = mk_cli_load_graph(r.script, &r.sets, mk_weights_source(w), false, &st);
  if (g) emit(&r, g, &arena, &out, &st);
  if (mk_text_failures()) mk_fail(&st, MK_ENOMEM, "out of host memory");
  if (!mk_failed(&st)) fputs(mk_text_str(&out), stdout);
  mk_graph_free(g);
  mk_weights_close(w);
  mk_text_free(&out);
  mk_arena_free(&arena);
  return mk_exit_code(&st);
}

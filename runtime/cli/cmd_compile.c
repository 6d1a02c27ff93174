/* moonkiln compile: fills the kernel cache ahead of time; needs NVRTC but no GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/env.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/load_graph.h"
#include "runtime/cli/weights.h"
#include "runtime/gpu/kernels.h"
#include "runtime/model/model_graphs.h"

typedef struct totals {
  int kernels, hits, compiled, failed, spilling;
  int64_t spill_bytes;
} totals;

typedef struct request {
  bool all, report;
  mk_trial_request trial;
  mk_graph *graphs[MK_MODEL_GRAPHS];
  int ngraphs;
} request;

typedef struct kernel_list {
  mk_arena arena;
  mk_kernel *items;
  int count, cap;
} kernel_list;

/* Adds the plan's wanted kernels that are not there yet: names tell sources apart. */
static bool add_kernels(kernel_list *l, const mk_plan *p, bool all, mk_status *st) {
  bool *wanted = mk_cli_wanted_kernels(p, all, NULL, st);
  for (int k = 0; wanted && k < p->nkernels; k++) {
    bool known = !wanted[k];
    for (int i = 0; i < l->count && !known; i++) known = !strcmp(l->items[i].name, p->kernels[k].name);
    if (!known) MK_PUSH(&l->arena, l->items, l->count, l->cap, p->kernels[k]);
  }
  free(wanted);
  return wanted != NULL;
}

static bool compile_kernels(const kernel_list *l, int arch, bool report, mk_cache *cache, totals *t, mk_status *st) {
  mk_prepare_options options = {.arch = arch};
  mk_prepared done = {0};
  bool ok = mk_kernels_prepare(l->items, l->count, &options, cache, &done, st);
  for (int k = 0; ok && k < done.count; k++) {
    const mk_cubin *c = &done.cubins[k];
    t->kernels++;
    if (c->state == MK_CUBIN_FAILED) fprintf(stderr, "moonkiln: %s\n", c->message);
    bool spills = c->report.spill_bytes > 0 || c->report.wgmma_serialized;
    t->spilling += spills;
    if (report || spills)
      printf("%-64s sm_%d  %3d registers  %6d bytes static shared  %4d spilled%s\n", l->items[k].name, arch, c->report.registers,
             c->report.smem_bytes, c->report.spill_bytes, c->report.wgmma_serialized ? "  wgmma serialised" : "");
  }
  t->hits += done.hits;
  t->compiled += done.compiled;
  t->failed += done.failed;
  mk_prepared_free(&done);
  return ok;
}

/* All graphs' kernels in one go: no worker waits for the last kernel of a network. */
static void compile_arch(const request *r, int arch, mk_cache *cache, totals *t, mk_status *st) {
  mk_arena arena = {0};
  kernel_list list = {0};
  mk_plan *plans[MK_MODEL_GRAPHS] = {NULL};
  mk_plan_options po;
  bool ok = mk_cli_plan_options(arch, &arena, &po, st);
  if (ok) po.trial = mk_cli_trial(&r->trial, &arena);
  for (int i = 0; ok && i < r->ngraphs; i++)
    ok = (plans[i] = mk_plan_build(r->graphs[i], &po, st)) && add_kernels(&list, plans[i], r->all, st);
  if (ok) compile_kernels(&list, arch, r->report, cache, t, st);
  for (int i = 0; i < r->ngraphs; i++) mk_plan_free(plans[i]);
  mk_arena_free(&list.arena);
  mk_arena_free(&arena);
}

int cmd_compile(int argc, char **argv) {
  mk_text_list sets = {0}, weights = {0};
  request r = {0};
  const char *arch_text = "sm_90a";
  mk_size size = {1280, 720};
  const mk_option options[] = {
      {"arch", MK_OPT_TEXT, &arch_text, "LIST", "targets, as sm_80,sm_90a (default sm_90a)", 0, 0},
      {"all", MK_OPT_FLAG, &r.all, NULL, "every candidate's kernels, not just the first choices", 0, 0},
      {"report", MK_OPT_FLAG, &r.report, NULL, "registers, shared memory and spills of each kernel", 0, 0},
      {"set", MK_OPT_LIST, &sets, "K=V", "parameter of a graph's script", 0, 0},
      {"weights", MK_OPT_LIST, &weights, "PATH", "safetensors file or checkpoint folder of a graph", 0, 0},
      {"templates", MK_OPT_LIST, &r.trial.templates, "DIR", "folder of your own templates", 0, 0},
      {"size", MK_OPT_SIZE, &size, "WxH", "video size of a model (kernels do not depend on it)", 16, 16384},
  };
  const mk_command_line line = {
      "moonkiln compile MODEL_DIR|GRAPH.lua|a14b|14b|1.3b [options]",
      "Fills the kernel cache for the networks of a model (a folder, or a size by name), or for one graph.\n"
      "Needs NVRTC, but no GPU.",
      options,
      sizeof options / sizeof *options,
      1,
      1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;

  mk_status st = {0};
  mk_cache cache;
  mk_cache_open(&cache, NULL);
  totals t = {0};
  int archs[8], narchs = 0;
  const char *what = argv[first];
  mk_weights *w = NULL;
  if (mk_cli_parse_arch(arch_text, archs, 8, &narchs, &st)) {
    size_t len = strlen(what);
    if (len > 4 && !strcmp(what + len - 4, ".lua")) {
      w = mk_weights_open(&weights, &st);
      if (w) r.graphs[0] = mk_cli_load_graph(what, &sets, mk_weights_source(w), false, &st);
      r.ngraphs = r.graphs[0] != NULL;
    } else {
      r.ngraphs = mk_model_graphs(what, &(mk_model_size){size.width, size.height, 81}, r.graphs, NULL, &st);
    }
  }
  for (int a = 0; a < narchs && !mk_failed(&st); a++) compile_arch(&r, archs[a], &cache, &t, &st);
  if (!mk_failed(&st))
    printf("%d kernels: %d from the cache, %d compiled, %d failed, %d with spills\n", t.kernels, t.hits, t.compiled, t.failed,
           t.spilling);
  if (!mk_failed(&st) && t.compiled && !cache.writable)
    mk_fail(&st, MK_EIO, "the cache folder %s could not be filled", mk_env_get()->cache_dir);
  if (!mk_failed(&st) && t.failed) mk_fail(&st, MK_ECOMPILE, "%d kernels did not compile", t.failed);
  for (int i = 0; i < r.ngraphs; i++) mk_graph_free(r.graphs[i]);
  mk_weights_close(w);
  return mk_exit_code(&st);
}

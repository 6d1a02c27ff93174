/* moonkiln bench: times of a program's steps; every realisation of its groups side by side, again at every save; sweeps. */
#include <string.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/measure.h"
#include "runtime/cli/sweep.h"
#include "runtime/cli/watch.h"

typedef struct request {
  mk_measure measure;
  mk_text_list sweeps;
  const char *csv, *html, *arch;
  int64_t rounds;
  bool json, variants, watch;
} request;

static bool check(const request *r, mk_status *st) {
  if (r->watch + r->variants + (r->sweeps.count > 0) + r->json > 1)
    mk_fail(st, MK_EINPUT, "of --variants, --watch, --sweep and --json only one can be given");
  else if (r->rounds && !r->watch)
    mk_fail(st, MK_EINPUT, "--watch-count goes with --watch");
  else if ((r->csv || r->html) && !r->sweeps.count)
    mk_fail(st, MK_EINPUT, "--csv and --html are for --sweep; moonkiln profile makes a page of one run");
  return !mk_failed(st);
}

static void time_once(const request *r, mk_status *st) {
  mk_profile p = {0};
  if (mk_profile_measure(&p, &r->measure, st)) mk_profile_print(&p, r->json);
  mk_profile_free(&p);
}

int cmd_bench(int argc, char **argv) {
  request r = {.measure.iterations = 5, .arch = "sm_90a"};
  mk_measure *m = &r.measure;
  const mk_option own[] = {
      {"json", MK_OPT_FLAG, &r.json, NULL, "print JSON", 0, 0},
      {"variants", MK_OPT_FLAG, &r.variants, NULL, "every candidate of every group: time, error, registers, spills", 0, 0},
      {"watch", MK_OPT_FLAG, &r.watch, NULL, "the same, again whenever the graph or a template is saved; Ctrl-C ends it", 0, 0},
      {"watch-count", MK_OPT_INT, &r.rounds, "N", "end after N tables", 1, 1e9},
      {"sweep", MK_OPT_LIST, &r.sweeps, "NAME=V,V..V", "for each value of a tunable or a parameter of the script", 0, 0},
      {"csv", MK_OPT_TEXT, &r.csv, "FILE", "where a sweep's numbers go (default: standard output)", 0, 0},
      {"html", MK_OPT_TEXT, &r.html, "FILE", "a page with a sweep's plots", 0, 0},
      {"arch", MK_OPT_TEXT, &r.arch, "ARCH", "without a GPU: what to compile for (default sm_90a)", 0, 0},
  };
  enum { OWN = sizeof own / sizeof *own };
  mk_option options[MK_MEASURE_OPTIONS + OWN];
  int count = mk_measure_options(m, options);
  memcpy(options + count, own, sizeof own);
  const mk_command_line line = {
      "moonkiln bench GRAPH.lua|MODEL_DIR|a14b|14b|1.3b [options]",
      "Times every step of a graph's plan, or of a model's guided diffusion step, on the GPU. --variants, --watch and\n"
      "--sweep also work without a GPU, and then say what the compiler made of the kernels.",
      options,
      count + OWN,
      1,
      1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;
  mk_status st = {0};
  m->what = argv[first];
  if (!check(&r, &st)) return mk_exit_code(&st);
  if (r.watch || r.variants) {
    mk_watch(m, r.arch, r.variants ? 1 : r.rounds, &st);
  } else if (r.sweeps.count) {
    mk_sweep(m, &(mk_sweep_request){r.sweeps, r.arch, r.csv, r.html}, &st);
  } else {
    time_once(&r, &st);
  }
  return mk_exit_code(&st);
}

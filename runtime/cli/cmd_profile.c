/* moonkiln profile: where the time of a program goes, and how far each part is from what the card can do. moonkiln bench: the
 * same without the measurements of the card and without the page. */
#include <stdio.h>

#include "runtime/base/file.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/measure.h"

typedef struct request {
  mk_measure measure;
  mk_number_pair ceilings;
  const char *from, *html;
  bool json;
} request;

static void print_json(const mk_profile *p) {
  json_t *root = mk_profile_to_json(p);
  if (root) json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
  puts("");
  json_decref(root);
}

static bool write_page(const mk_profile *p, const char *path, mk_status *st) {
  mk_text page = {0};
  mk_profile_page(p, &page, st);
  bool ok = !mk_failed(st) && mk_file_publish(path, mk_text_str(&page), page.len, st);
  mk_text_free(&page);
  return ok;
}

static bool obtain(const request *r, mk_profile *p, mk_status *st) {
  if (r->ceilings.count == 1)
    return mk_fail(st, MK_EINPUT, "--ceilings: give both rates, as in 760,4.2 (TFLOP/s of matmuls, TB/s of copies)"), false;
  bool ok = r->from ? mk_profile_read(p, r->from, st) : mk_profile_measure(p, &r->measure, st);
  if (ok && r->ceilings.count) p->ceilings = (mk_gpu_ceilings){r->ceilings.values[0], r->ceilings.values[1]};
  return ok;
}

static void show(const request *r, const mk_profile *p) {
  mk_text table = {0};
  if (r->json) {
    print_json(p);
    return;
  }
  mk_profile_table(p, &table);
  fputs(mk_text_str(&table), stdout);
  mk_text_free(&table);
}

static int answer(const request *r) {
  mk_status st = {0};
  mk_profile p = {0};
  if (obtain(r, &p, &st)) {
    show(r, &p);
    if (r->html) write_page(&p, r->html, &st);
  }
  mk_profile_free(&p);
  return mk_exit_code(&st);
}

static int command(const char *usage, const char *summary, bool bench, int argc, char **argv) {
  request r = {.measure.iterations = 5};
  mk_measure *m = &r.measure;
  const mk_option options[] = {
      {"set", MK_OPT_LIST, &m->sets, "K=V", "parameter of a script: JSON, text or @FILE.json", 0, 0},
      {"weights", MK_OPT_LIST, &m->weights, "PATH", "of a script: safetensors file or checkpoint folder", 0, 0},
      {"entry", MK_OPT_TEXT, &m->entry, "NAME", "of a script: program to time (default: the first)", 0, 0},
      {"size", MK_OPT_SIZE, &m->size, "WxH", "of a model's video: 1280x720 (default); multiples of 16", 1, 100000},
      {"frames", MK_OPT_INT, &m->frames, "N", "of a model's video: 81 (default); 4n + 1", 1, 1e6},
      {"policy", MK_OPT_TEXT, &m->policy, "NAME", "of a model: exact (default), fp32 or tf32", 0, 0},
      {"synthetic", MK_OPT_INT, &m->seed, "SEED", "made-up weights instead of a checkpoint's values", 1, 9e15},
      {"inputs", MK_OPT_TEXT, &m->inputs, "FILE", "safetensors file with inputs, by name; the others are made up", 0, 0},
      {"iterations", MK_OPT_INT, &m->iterations, "N", "timed runs, of which the median counts (default 5)", 1, 10000},
      {"no-tune", MK_OPT_FLAG, &m->no_tune, NULL, "take the cost model's choices and the matmul library's first suggestions", 0,
       0},
      {"templates", MK_OPT_LIST, &m->trial.templates, "DIR", "folder of your own templates", 0, 0},
      {"load", MK_OPT_TEXT, &m->trial.load, "DIR", "use the kernels, NAME.cu, of a folder that emit --dump wrote", 0, 0},
      {"json", MK_OPT_FLAG, &r.json, NULL, "print JSON", 0, 0},
      /* the rest: profile alone */
      {"html", MK_OPT_TEXT, &r.html, "FILE", "write a page with charts, too", 0, 0},
      {"ceilings", MK_OPT_PAIR, &r.ceilings, "MATMUL,COPY", "TFLOP/s and TB/s to hold against, instead of measuring them", 1e-3,
       1e6},
      {"from", MK_OPT_TEXT, &r.from, "FILE.json", "show what --json printed before; needs no GPU", 0, 0},
  };
  enum { OPTIONS = sizeof options / sizeof *options, PROFILE_ALONE = 3 };
  const mk_command_line line = {usage, summary, options, bench ? OPTIONS - PROFILE_ALONE : OPTIONS, bench ? 1 : 0, 1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;
  mk_status st = {0};
  m->what = first < argc ? argv[first] : NULL;
  m->wants_ceilings = !bench && !r.ceilings.count;
  if (!m->what == !r.from)
    mk_fail(&st, MK_EINPUT, "give either a graph or a model, or --from FILE.json; see moonkiln profile --help");
  return mk_failed(&st) ? mk_exit_code(&st) : answer(&r);
}

int cmd_profile(int argc, char **argv) {
  return command(
      "moonkiln profile GRAPH.lua|MODEL_DIR|a14b|14b|1.3b [options]",
      "Shows where the time of a graph's program, or of a model's guided diffusion step, goes on the GPU, and how far\n"
      "each part is from the rates of matmuls and copies that it measures on the card first.",
      false, argc, argv);
}

int cmd_bench(int argc, char **argv) {
  return command("moonkiln bench GRAPH.lua|MODEL_DIR|a14b|14b|1.3b [options]",
                 "Times every step of a graph's plan, or of a model's guided diffusion step, on the GPU.", true, argc, argv);
}

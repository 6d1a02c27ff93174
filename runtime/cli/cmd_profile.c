/* moonkiln profile: where the time of a program goes, and how far each part is from what the card can do. */
#include <string.h>

#include "runtime/base/file.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/measure.h"

typedef struct request {
  mk_measure measure;
  mk_number_pair ceilings;
  const char *from, *html;
  bool json;
} request;

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

static int answer(const request *r) {
  mk_status st = {0};
  mk_profile p = {0};
  if (obtain(r, &p, &st)) {
    mk_profile_print(&p, r->json);
    if (r->html) write_page(&p, r->html, &st);
  }
  mk_profile_free(&p);
  return mk_exit_code(&st);
}

int cmd_profile(int argc, char **argv) {
  request r = {.measure.iterations = 5};
  mk_measure *m = &r.measure;
  const mk_option own[] = {
      {"json", MK_OPT_FLAG, &r.json, NULL, "print JSON", 0, 0},
      {"html", MK_OPT_TEXT, &r.html, "FILE", "write a page with charts, too", 0, 0},
      {"ceilings", MK_OPT_PAIR, &r.ceilings, "MATMUL,COPY", "TFLOP/s and TB/s to hold against, instead of measuring them", 1e-3,
       1e6},
      {"from", MK_OPT_TEXT, &r.from, "FILE.json", "show what --json printed before; needs no GPU", 0, 0},
  };
  enum { OWN = sizeof own / sizeof *own };
  mk_option options[MK_MEASURE_OPTIONS + OWN];
  int count = mk_measure_options(m, options);
  memcpy(options + count, own, sizeof own);
  const mk_command_line line = {
      "moonkiln profile GRAPH.lua|MODEL_DIR|a14b|14b|1.3b [options]",
      "Shows where the time of a graph's program, or of a model's guided diffusion step, goes on the GPU, and how far\n"
      "each part is from the rates of matmuls and copies that it measures on the card first.",
      options,
      count + OWN,
      0,
      1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;
  mk_status st = {0};
  m->what = first < argc ? argv[first] : NULL;
  m->wants_ceilings = !r.ceilings.count;
  if (!m->what == !r.from)
    mk_fail(&st, MK_EINPUT, "give either a graph or a model, or --from FILE.json; see moonkiln profile --help");
  return mk_failed(&st) ? mk_exit_code(&st) : answer(&r);
}

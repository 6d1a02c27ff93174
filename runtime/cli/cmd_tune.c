/* moonkiln tune: measures every realisation of a model's groups on the GPU; --explain prints what was found. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/backend.h"
#include "runtime/base/env.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/load_graph.h"
#include "runtime/cli/weights.h"
#include "runtime/model/model_graphs.h"
#include "runtime/model/progress.h"

/* ---- what was found */

typedef struct search {
  const char *pattern;
  int found;
} search;

static bool fits(const mk_record *r, const char *pattern) {
  char signature[20];
  snprintf(signature, sizeof signature, "%016llx", (unsigned long long)r->signature);
  return strstr(r->name, pattern) || !strncmp(signature, pattern, strlen(pattern));
}

static void print_number(double value, const char *format, int width) {
  if (value < 0)
    printf("  %*s", width, "-");
  else
    printf(format, width, value);
}

static void print_record(const mk_record *r) {
  printf("%s\n  %016llx, 2^%.2f operations, 2^%.2f bytes, measured %s\n", r->name, (unsigned long long)r->signature,
         r->flop / 4.0, r->bytes / 4.0, r->date);
  printf("  %-7s %9s %8s %9s  %s\n", "state", "ms", "to best", "error", "candidate");
  for (int i = 0; i < r->count; i++) {
    const mk_record_entry *e = &r->entries[i];
    bool timed = e->ms >= 0 && r->entries[0].ms > 0;
    printf("  %-6s", mk_runner_state_name(e->state));
    print_number(e->ms, "  %*.4f", 9);
    print_number(timed ? e->ms / r->entries[0].ms : -1, "  %*.3f", 7);
    print_number(e->error, "  %*.1e", 8);
    printf("  %s\n", e->label);
  }
}

static void explain_file(void *user, const char *path, const mk_records *r, const mk_status *why) {
  search *s = user;
  bool headed = false;
  if (mk_failed(why)) fprintf(stderr, "moonkiln: %s is not used: %s\n", path, why->message);
  for (int i = 0; i < r->count; i++) {
    if (!fits(&r->items[i], s->pattern)) continue;
    if (!headed)
      printf("%s, %d multiprocessors, driver %d, NVRTC %d.%d (%s)\n", r->environment.gpu, r->environment.sms,
             r->environment.driver, r->environment.nvrtc_major, r->environment.nvrtc_minor, path);
    headed = true;
    print_record(&r->items[i]);
    s->found++;
  }
}

static void explain(const char *pattern, mk_status *st) {
  char user[PATH_MAX + 8], shipped[PATH_MAX];
  search s = {.pattern = pattern};
  snprintf(user, sizeof user, "%s/tuning", mk_env_get()->cache_dir);
  mk_records_visit(user, explain_file, &s);
  if (mk_env_data_path("scripts/tuning", shipped, &(mk_status){0})) mk_records_visit(shipped, explain_file, &s);
  if (!s.found)
    mk_fail(st, MK_EINPUT, "--explain %s: no record in %s or the program's own has that in a group's name or signature", pattern,
            user);
}

/* ---- tuning */

static volatile sig_atomic_t stop_asked;

static void on_interrupt(int signal_number) {
  (void)signal_number;
  stop_asked = 1;
}

static bool show(void *user, const mk_tune_progress *p) {
  char phase[128] = "tuning: compiling";
  mk_progress *line = user;
  if (p->group) snprintf(phase, sizeof phase, "tuning: %.80s", p->group);
  if (p->best) snprintf(phase, sizeof phase, "tuning: %.3f ms %.80s", p->best_ms, p->best);
  line->left = p->left;
  mk_progress_show(line, phase, p->done, p->total, p->seconds);
  return !stop_asked;
}

typedef struct request {
  const char *what;
  mk_text_list sets, weights;
  mk_trial_request trial;
  mk_model_size size;
  double seconds;
  bool again;
} request;

typedef struct loaded {
  mk_weights *weights;
  mk_graph *graphs[MK_MODEL_GRAPHS];
  mk_network networks[MK_MODEL_GRAPHS];
  int count;
  bool model; /* else one graph */
} loaded;

static bool load(const request *r, loaded *l, mk_status *st) {
  size_t length = strlen(r->what);
  l->model = length <= 4 || strcmp(r->what + length - 4, ".lua") != 0;
  if (l->model) {
    l->count = mk_model_graphs(r->what, &r->size, l->graphs, l->networks, st);
  } else {
    l->weights = mk_weights_open(&r->weights, st);
    if (l->weights) l->graphs[0] = mk_cli_load_graph(r->what, &r->sets, mk_weights_source(l->weights), false, st);
    l->count = l->graphs[0] != NULL;
  }
  return l->count > 0;
}

/* How often the network's entries run for a video: two prompts, the usual steps, and the latent frames. */
static double runs_of(const loaded *l, int i, const mk_model_size *size) {
  if (!l->model) return 1;
  if (l->networks[i] == MK_NET_TEXT) return 2;
  return l->networks[i] == MK_NET_DIT ? 40 : (double)((size->frames - 1) / 4 + 1);
}

static bool tune(const request *r, const loaded *l, mk_backend *b, mk_tune_report *report, mk_status *st) {
  mk_tune_job jobs[MK_MODEL_GRAPHS] = {{0}};
  mk_progress line = {0};
  mk_tune_options o = {.seconds = r->seconds, .again = r->again, .progress = show, .user = &line};
  for (int i = 0; i < l->count; i++) {
    jobs[i] = (mk_tune_job){mk_backend_plan(b, l->graphs[i], st), runs_of(l, i, &r->size)};
    if (!jobs[i].plan) break;
  }
  struct sigaction action = {.sa_handler = on_interrupt}, before;
  sigaction(SIGINT, &action, &before);
  bool ok = !mk_failed(st) && mk_backend_tune(b, jobs, l->count, &o, report, st);
  sigaction(SIGINT, &before, NULL);
  mk_progress_end(&line);
  for (int i = 0; i < l->count; i++) mk_plan_free(jobs[i].plan);
  return ok;
}

static void print_report(const mk_tune_report *r) {
  printf("%d kinds of groups: %d known before, %d measured in %.1f s, %d not reached; %d candidates excluded for wrong results\n",
         r->problems, r->known, r->measured, r->seconds, r->unreached, r->excluded);
  printf("%d with another choice than the cost model's that is faster by itself, %d of them in whole runs, too\n", r->changed,
         r->kept);
  for (int i = 0; i < r->ntrials; i++) {
    const mk_tune_verdict *v = &r->trials[i];
    printf("  whole runs of %s: %d of %d kept, which take %.4f +- %.4f of the time without\n", v->plan, v->kept, v->changed,
           v->ratio, v->error);
  }
  if (r->compared)
    printf("against the earlier record: %d of %d the same winner, %d more within 1 %%\n", r->same, r->compared, r->close);
}

int cmd_tune(int argc, char **argv) {
  request r = {.size = {1280, 720, 81}, .seconds = 60};
  const char *explained = NULL;
  mk_size size = {1280, 720};
  const mk_option options[] = {
      {"size", MK_OPT_SIZE, &size, "WxH", "of a model's videos: 1280x720 (default); multiples of 16", 16, 16384},
      {"frames", MK_OPT_INT, &r.size.frames, "N", "81 (default); 4n + 1", 1, 1e6},
      {"tune-budget", MK_OPT_NUMBER, &r.seconds, "SECONDS", "60 (default), compiling included", 1, 86400},
      {"again", MK_OPT_FLAG, &r.again, NULL, "measure what is known, too", 0, 0},
      {"set", MK_OPT_LIST, &r.sets, "K=V", "parameter of a graph's script", 0, 0},
      {"weights", MK_OPT_LIST, &r.weights, "PATH", "safetensors file or checkpoint folder of a graph (for shapes only)", 0, 0},
      {"templates", MK_OPT_LIST, &r.trial.templates, "DIR", "folder of your own templates", 0, 0},
      {"explain", MK_OPT_TEXT, &explained, "GROUP", "print the candidates of groups with this in their name or signature", 0, 0},
  };
  const mk_command_line line = {
      "moonkiln tune MODEL_DIR|GRAPH.lua|a14b|14b|1.3b [options], or moonkiln tune --explain GROUP",
      "Measures every realisation of a model's groups on the GPU and keeps the fastest for later runs, in\n"
      "tuning/ of the cache folder. Needs no weights. Ctrl-C ends it; what was measured is kept.",
      options,
      sizeof options / sizeof *options,
      0,
      1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;
  mk_status st = {0};
  if ((first < argc) == (explained != NULL))
    mk_fail(&st, MK_EINPUT, "give a model's folder, a graph or a published size; or --explain GROUP alone");
  else if (explained)
    explain(explained, &st);
  if (mk_failed(&st) || explained) return mk_exit_code(&st);

  r.what = argv[first];
  r.size.width = size.width;
  r.size.height = size.height;
  loaded l = {0};
  mk_tune_report report = {0};
  mk_backend *b = NULL;
  mk_arena arena = {0};
  mk_trial trial = mk_cli_trial(&r.trial, &arena);
  if (load(&r, &l, &st)) b = mk_backend_open("cuda", &st);
  if (b) mk_backend_try(b, &trial);
  if (b && tune(&r, &l, b, &report, &st)) {
    print_report(&report);
    if (report.stopped) mk_fail(&st, MK_EINTERRUPTED, "stopped; what was measured is kept");
  }
  mk_backend_close(b);
  for (int i = 0; i < l.count; i++) mk_graph_free(l.graphs[i]);
  mk_weights_close(l.weights);
  mk_arena_free(&arena);
  return mk_exit_code(&st);
}

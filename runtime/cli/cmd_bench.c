/* moonkiln bench: times every step of a graph's plan on the GPU, and the whole program as it normally runs. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/load_graph.h"
#include "runtime/cli/weights.h"
#include "runtime/gpu/session.h"
#include "runtime/gpu/timing.h"
#include "runtime/model/tensor_file.h"

typedef struct row {               /* steps that do the same work in the same way */
  const char *kind, *label, *name; /* name: of the first such group */
  double flop, bytes, ms, ideal_ms;
  int calls;
} row;

typedef struct bench {
  mk_arena arena;
  mk_gpu_device *device;
  mk_gpu_peaks peaks;
  mk_graph *graph;
  mk_plan *plan;
  mk_weights *weights;
  mk_tensor_file *inputs; /* NULL: all are made up */
  mk_session *session;
  mk_gpu_times times;
  row *rows;
  int nrows, rows_cap;
} bench;

static const mk_program *find_entry(const mk_plan *p, const char *name, mk_status *st) {
  for (int i = 0; i < p->nprograms; i++)
    if (name ? !strcmp(p->programs[i].name, name) : p->programs[i].rate == MK_RATE_STEP) return &p->programs[i];
  if (name) return mk_fail(st, MK_EINPUT, "--entry %s: the graph has no such program", name), NULL;
  return mk_fail(st, MK_EINPUT, "the graph has nothing to run at every step"), NULL;
}

/* The file's tensor of that name, or values in [-1, 1) from a fixed sequence: zeros would run faster than real data does.
 * Made-up integers are 0, a valid index everywhere, but for lengths, which are at least 1. */
static bool write_value(bench *b, const mk_binding *in, uint32_t *x, mk_status *st) {
  mk_entry *given = b->inputs ? mk_tensor_file_find(b->inputs, in->name) : NULL;
  if (given) {
    mk_tensor value;
    return mk_entry_fetch(b->inputs, given, &value, st) &&
           (b->session->ops->write(b->session, &value, st) || (mk_fail_context(st, "%s", b->inputs->path), false));
  }
  int64_t count = mk_dims_count(in->dims, in->rank);
  bool whole = in->dtype == MK_I32;
  void *data = calloc((size_t)count, 4);
  if (!data) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  for (int64_t k = 0; k < count; k++) {
    *x = *x * 1664525 + 1013904223;
    if (whole) {
      ((int32_t *)data)[k] = strstr(in->name, "len") != NULL;
    } else {
      ((float *)data)[k] = (float)(int32_t)*x / 2147483648.0f;
    }
  }
  mk_tensor t = {.name = in->name, .dtype = whole ? MK_I32 : MK_F32, .rank = in->rank, .data = data, .bytes = (size_t)count * 4};
  memcpy(t.dims, in->dims, sizeof t.dims);
  bool ok = b->session->ops->write(b->session, &t, st);
  free(data);
  return ok;
}

static bool write_values(bench *b, mk_status *st) {
  uint32_t x = 1;
  for (int i = 0; i < b->plan->ninputs; i++)
    if (!write_value(b, &b->plan->inputs[i], &x, st)) return false;
  for (int i = 0; i < b->plan->nstates; i++)
    if (!write_value(b, &b->plan->states[i], &x, st)) return false;
  return true;
}

/* The seconds below which no kernel can be: its arithmetic at the card's rate for its kind, or its traffic. Matmuls, attention
 * and convolutions are held against the bf16 rate, but for library matmuls in f32, whose type the plan tells. */
static double ideal_ms(const mk_gpu_peaks *p, const mk_group *g) {
  double rate = p->bf16_tflops;
  if (!strcmp(g->kind, "row") || !strcmp(g->kind, "copy")) rate = p->f32_tflops;
  for (int c = 0; c < g->ncandidates; c++)
    for (int i = 0; i < g->candidates[c].nlaunches; i++) {
      const mk_launch *l = &g->candidates[c].launches[i];
      if (l->kind == MK_LAUNCH_LT && l->lt->ab_type == MK_F32) rate = l->lt->tf32 ? p->tf32_tflops : p->f32_tflops;
    }
  return 1e3 * fmax(g->flop / (rate * 1e12), g->bytes / (p->memory_tbs * 1e12));
}

static void collect(bench *b, const mk_program *p) {
  for (int i = 0; i < p->nsteps; i++) {
    if (p->steps[i].kind != MK_STEP_GROUP) continue;
    const mk_group *g = &b->plan->groups[p->steps[i].index];
    const char *label = g->candidates[mk_gpu_session_choice(b->session, p->steps[i].index)].label;
    row *r = NULL;
    for (int k = 0; k < b->nrows && !r; k++) {
      row *old = &b->rows[k];
      if (!strcmp(old->kind, g->kind) && !strcmp(old->label, label) && old->flop == g->flop && old->bytes == g->bytes) r = old;
    }
    if (!r) {
      row fresh = {.kind = g->kind, .label = label, .name = g->name, .flop = g->flop, .bytes = g->bytes};
      MK_PUSH(&b->arena, b->rows, b->nrows, b->rows_cap, fresh);
      r = &b->rows[b->nrows - 1];
    }
    r->calls++;
    r->ms += b->times.step_ms[i];
    r->ideal_ms += ideal_ms(&b->peaks, g);
  }
}

static int by_time(const void *a, const void *b) {
  double x = ((const row *)a)->ms, y = ((const row *)b)->ms;
  return (x < y) - (x > y);
}

static double per_ms(double amount, double ms) { return ms > 0 ? amount / (ms * 1e-3) : 0; }

static void print_table(const bench *b, const char *entry) {
  double total = 0, ideal = 0, flop = 0;
  for (int i = 0; i < b->nrows; i++) total += b->rows[i].ms;
  printf("%-10s %6s %10s %10s %7s %9s %9s %9s  %s\n", "kind", "calls", "ms each", "ms", "share", "TFLOP/s", "GB/s", "roofline",
         "candidate; first group");
  for (int i = 0; i < b->nrows; i++) {
    const row *r = &b->rows[i];
    printf("%-10s %6d %10.4f %10.3f %6.1f%% %9.1f %9.0f %8.0f%%  %s; %.60s\n", r->kind, r->calls, r->ms / r->calls, r->ms,
           100 * r->ms / (total > 0 ? total : 1), per_ms(r->flop * r->calls, r->ms) / 1e12,
           per_ms(r->bytes * r->calls, r->ms) / 1e9, r->ms > 0 ? 100 * r->ideal_ms / r->ms : 0, r->label, r->name);
    ideal += r->ideal_ms;
    flop += r->flop * r->calls;
  }
  printf("%s: %.3f ms as a whole, %.3f ms step by step; %.3f TFLOP, %.1f TFLOP/s; roofline %.3f ms (%.0f%%)\n", entry,
         b->times.graph_ms, b->times.sum_ms, flop / 1e12, per_ms(flop, b->times.graph_ms) / 1e12, ideal,
         b->times.graph_ms > 0 ? 100 * ideal / b->times.graph_ms : 0);
  printf("%s, %d multiprocessors; roofline from %s: bf16 %.0f, tf32 %.0f, f32 %.0f TFLOP/s, %.2f TB/s\n", b->device->name,
         b->device->sms, b->peaks.estimated ? "units and clocks (estimated)" : "the maker's data sheet", b->peaks.bf16_tflops,
         b->peaks.tf32_tflops, b->peaks.f32_tflops, b->peaks.memory_tbs);
}

static void print_json(const bench *b, const char *entry) {
  json_t *rows = json_array();
  for (int i = 0; i < b->nrows; i++) {
    const row *r = &b->rows[i];
    json_array_append_new(
        rows, json_pack("{ss ss ss si sf sf sf sf}", "kind", r->kind, "candidate", r->label, "group", r->name, "calls", r->calls,
                        "ms", r->ms, "flop", r->flop * r->calls, "bytes", r->bytes * r->calls, "roofline_ms", r->ideal_ms));
  }
  json_t *root = json_pack("{ss ss ss sf sf so}", "gpu", b->device->name, "graph", b->plan->name, "entry", entry, "graph_ms",
                           b->times.graph_ms, "steps_ms", b->times.sum_ms, "groups", rows);
  if (root) json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(7));
  puts("");
  json_decref(root);
}

static bool run(bench *b, const char *script, const mk_text_list *sets, const mk_text_list *paths, const char *inputs,
                int64_t seed, const char *entry_name, int64_t iterations, bool tune, bool json, mk_status *st) {
  static const mk_source nothing = {0};
  if (inputs && !(b->inputs = mk_tensor_file_open(inputs, st))) return false;
  b->device = mk_gpu_device_open(0, st);
  if (!b->device) return false;
  b->peaks = mk_gpu_peaks_of(b->device);
  b->weights = mk_weights_open(paths, st);
  if (!b->weights) return false;
  const mk_source *source = mk_weights_source(b->weights);
  mk_source synthetic = source ? *source : nothing;
  if (seed) synthetic.synthetic_seed = (uint64_t)seed;
  b->graph = mk_cli_load_graph(script, sets, source, false, st);
  mk_plan_options options;
  if (!b->graph || !mk_cli_plan_options(b->device->arch, &b->arena, &options, st)) return false;
  options.smem_limit = b->device->smem_limit;
  options.sms = b->device->sms;
  options.cublaslt = b->device->lt != NULL;
  b->plan = mk_plan_build(b->graph, &options, st);
  if (!b->plan) return false;
  if (b->plan->nweights && !source && !seed)
    return mk_fail(st, MK_EINPUT, "the graph has weights: give --weights PATH, or --synthetic SEED"), false;
  const mk_program *entry = find_entry(b->plan, entry_name, st);
  if (!entry) return false;
  b->session = mk_gpu_session_open(b->device, b->plan, &(mk_gpu_session_options){.tune = tune}, st);
  if (!b->session || !b->session->ops->load(b->session, &synthetic, NULL, NULL, st) || !write_values(b, st)) return false;
  if (!b->session->ops->run(b->session, "prompt", st)) return false;
  if (!mk_gpu_time_program(b->session, entry->name, (int)iterations, &b->times, st)) return false;
  collect(b, entry);
  qsort(b->rows, (size_t)b->nrows, sizeof *b->rows, by_time);
  if (json) {
    print_json(b, entry->name);
  } else {
    print_table(b, entry->name);
  }
  return true;
}

int cmd_bench(int argc, char **argv) {
  mk_text_list sets = {0}, weights = {0};
  const char *entry = NULL, *inputs = NULL;
  int64_t seed = 0, iterations = 5;
  bool json = false, no_tune = false;
  const mk_option options[] = {
      {"set", MK_OPT_LIST, &sets, "K=V", "parameter of the script: JSON, text or @FILE.json", 0, 0},
      {"weights", MK_OPT_LIST, &weights, "PATH", "safetensors file or checkpoint folder", 0, 0},
      {"synthetic", MK_OPT_INT, &seed, "SEED", "made-up weights instead of a checkpoint's values", 1, 9e15},
      {"inputs", MK_OPT_TEXT, &inputs, "FILE", "safetensors file with inputs, by name; the others are made up", 0, 0},
      {"entry", MK_OPT_TEXT, &entry, "NAME", "program to time (default: the graph's first)", 0, 0},
      {"iterations", MK_OPT_INT, &iterations, "N", "timed runs, of which the median counts (default 5)", 1, 10000},
      {"no-tune", MK_OPT_FLAG, &no_tune, NULL, "take the matmul library's first suggestion untimed", 0, 0},
      {"json", MK_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
  };
  const mk_command_line line = {"moonkiln bench GRAPH.lua [options]",
                                "Times every step of a graph's plan on the GPU.",
                                options,
                                sizeof options / sizeof *options,
                                1,
                                1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;
  mk_status st = {0};
  bench b = {0};
  run(&b, argv[first], &sets, &weights, inputs, seed, entry, iterations, !no_tune, json, &st);
  mk_gpu_times_free(&b.times);
  if (b.session) b.session->ops->close(b.session);
  mk_plan_free(b.plan);
  mk_graph_free(b.graph);
  mk_tensor_file_close(b.inputs);
  mk_weights_close(b.weights);
  mk_gpu_device_close(b.device);
  mk_arena_free(&b.arena);
  return mk_exit_code(&st);
}

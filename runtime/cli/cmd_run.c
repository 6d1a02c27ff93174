/* moonkiln run: any graph on tensors from safetensors files. */
#include <stdlib.h>
#include <string.h>

#include "runtime/backend.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/load_graph.h"
#include "runtime/cli/weights.h"
#include "runtime/model/safetensors.h"

typedef struct run_job {
  const mk_graph *g;
  mk_session *session;
  const char *entry;
  mk_tensor_file *inputs;
} run_job;

/* Every input the graph declares above load rate must be in the file; states are optional. */
static bool write_inputs(const run_job *job, mk_status *st) {
  for (int i = 0; i < job->g->count; i++) {
    const mk_node *n = &job->g->nodes[i];
    bool input = n->op == MK_OP_INPUT && n->attr.rate > MK_RATE_LOAD;
    if (!input && n->op != MK_OP_STATE) continue;
    mk_entry *e = job->inputs ? mk_tensor_file_find(job->inputs, n->name) : NULL;
    if (!e && !input) continue;
    if (!e)
      return mk_fail(st, MK_EINPUT, "%s: the graph's input '%s' is not there; give it with --inputs",
                     job->inputs ? job->inputs->path : "no --inputs file", n->name),
             false;
    mk_tensor t;
    if (!mk_entry_fetch(job->inputs, e, &t, st)) return false;
    if (!job->session->ops->write(job->session, &t, st)) return mk_fail_context(st, "%s", job->inputs->path), false;
  }
  return true;
}

/* Outputs of the entry that ran, f32 (i32 stays i32). */
static bool save_outputs(const run_job *job, const char *path, mk_status *st) {
  int count = 0;
  mk_tensor *outs = calloc((size_t)job->g->noutputs + 1, sizeof *outs);
  bool ok = outs != NULL || (mk_fail(st, MK_ENOMEM, "out of host memory"), false);
  for (int i = 0; ok && i < job->g->noutputs; i++) {
    const mk_output *o = &job->g->outputs[i];
    if (strcmp(o->entry, job->entry)) continue;
    const mk_node *n = &job->g->nodes[o->node];
    mk_tensor *t = &outs[count];
    *t = (mk_tensor){.name = o->name, .dtype = n->dtype == MK_I32 ? MK_I32 : MK_F32, .rank = n->rank};
    memcpy(t->dims, n->dims, sizeof t->dims);
    t->bytes = (size_t)mk_node_count(n) * 4;
    void *data = malloc(t->bytes);
    if (!data) {
      ok = (mk_fail(st, MK_ENOMEM, "out of host memory: output '%s' has %zu bytes", o->name, t->bytes), false);
      break;
    }
    t->data = data;
    count++;
    ok = job->session->ops->read(job->session, o->name, data, t->bytes, st);
  }
  if (ok && path) ok = mk_safetensors_save(path, outs, count, NULL, 0, st);
  for (int i = 0; i < count; i++) free((void *)outs[i].data);
  free(outs);
  return ok;
}

int cmd_run(int argc, char **argv) {
  mk_text_list sets = {0}, weights = {0};
  mk_trial_request trial = {0};
  const char *inputs = NULL, *outputs = NULL, *backend = NULL, *entry = "step";
  const mk_option options[] = {
      {"set", MK_OPT_LIST, &sets, "K=V", "parameter of the script: JSON, text or @FILE.json", 0, 0},
      {"weights", MK_OPT_LIST, &weights, "PATH", "safetensors file or checkpoint folder", 0, 0},
      {"inputs", MK_OPT_TEXT, &inputs, "FILE", "safetensors file with the graph's inputs, by name", 0, 0},
      {"outputs", MK_OPT_TEXT, &outputs, "FILE", "safetensors file to write the outputs to", 0, 0},
      {"backend", MK_OPT_TEXT, &backend, "NAME", "cuda or cpu; default: cuda where there is a GPU", 0, 0},
      {"templates", MK_OPT_LIST, &trial.templates, "DIR", "folder of your own templates", 0, 0},
      {"load", MK_OPT_TEXT, &trial.load, "DIR", "use the kernels, NAME.cu, of a folder that emit --dump wrote", 0, 0},
      {"entry", MK_OPT_TEXT, &entry, "NAME", "which of the graph's entries to run (step)", 0, 0},
  };
  const mk_command_line line = {"moonkiln run GRAPH.lua [options]",
                                "Runs any graph once on tensors from safetensors files.",
                                options,
                                sizeof options / sizeof *options,
                                1,
                                1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;

  mk_status st = {0};
  mk_graph *g = NULL;
  mk_plan *plan = NULL;
  run_job job = {.entry = entry};
  mk_backend *b = mk_backend_begin(backend, &st); /* a GPU starts while the graph is made */
  mk_weights *w = b ? mk_weights_open(&weights, &st) : NULL;
  if (w) g = mk_cli_load_graph(argv[first], &sets, mk_weights_source(w), false, &st);
  job.g = g;
  if (g && inputs) job.inputs = mk_tensor_file_open(inputs, &st);
  mk_arena arena = {0};
  mk_trial tried = mk_cli_trial(&trial, &arena);
  if (b) mk_backend_try(b, &tried);
  if (!mk_failed(&st)) plan = mk_backend_draft(b, g, &st);
  if (!mk_failed(&st) && mk_backend_ready(b, &st) && trial.load && !strcmp(mk_backend_name(b), "cpu"))
    mk_fail(&st, MK_EINPUT, "--load %s: the CPU backend runs no kernels; this needs a GPU", trial.load);
  if (!mk_failed(&st)) job.session = mk_backend_session(b, g, plan, &st);
  mk_session *s = job.session;
  bool ok = s && s->ops->load(s, mk_weights_source(w), NULL, NULL, &st) && write_inputs(&job, &st) &&
            s->ops->run(s, "prompt", &st) && s->ops->run(s, entry, &st);
  if (ok) save_outputs(&job, outputs, &st);
  if (s) s->ops->close(s);
  mk_plan_free(plan);
  mk_backend_close(b);
  mk_arena_free(&arena);
  mk_tensor_file_close(job.inputs);
  mk_graph_free(g);
  mk_weights_close(w);
  return mk_exit_code(&st);
}

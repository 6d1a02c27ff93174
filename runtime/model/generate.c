/* Prompt in, video out: the order of the phases, and who owns what in each. */
#include "runtime/moonkiln.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/backend.h"
#include "runtime/base/clock.h"
#include "runtime/base/env.h"
#include "runtime/base/log.h"
#include "runtime/model/noise.h"
#include "runtime/model/request.h"
#include "runtime/model/stage.h"
#include "runtime/model/video.h"

enum { TEXT, HIGH, LOW, VAE, NETWORKS };

typedef struct network { /* zero: there is none */
  struct job *job;
  int which;
  const mk_part *part;
  pthread_t thread; /* makes what follows */
  bool running, ended;
  atomic_bool made;
  bool has_graph; /* or there is none to come; under the job's lock */
  mk_graph *graph;
  bool shares;   /* the high-noise expert's plan, as its graph is the same */
  mk_plan *plan; /* NULL on the CPU */
  mk_status st;
} network;

typedef struct job {
  const mk_generate_options *o;
  const mk_callbacks *callbacks;
  mk_result *result;
  mk_status st;
  mk_request request;
  mk_backend *backend;
  network networks[NETWORKS];
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool tuned;
  mk_status unusable; /* what is wrong with another network than the one at work */
  const char *policy;
  mk_history history;      /* the solver's, while experts change */
  mk_video *video, *sheet; /* sheet: NULL when none was asked for */
  mk_tensor final;         /* the latents, for the video's writer */
  int64_t context_values;
  float *context[2]; /* hidden states of prompt and negative prompt, [512, text_dim] */
  float *latents;    /* [channels, frames, height, width] */
  pthread_t noise;   /* draws them */
  bool drawing;
  const char *phase;
  double phase_start;
} job;

static void begin(job *j, const char *phase) {
  j->phase = phase;
  j->phase_start = mk_now();
}

/* Reports progress; false when the caller asked to stop. */
static bool tick(job *j, int64_t done, int64_t total) {
  const mk_callbacks *c = j->callbacks;
  if (c && c->progress) c->progress(c->user, j->phase, done, total, mk_now() - j->phase_start);
  if (!c || !c->stop || !c->stop(c->user)) return true;
  mk_fail(&j->st, MK_EINTERRUPTED, "stopped while %s; no video was written, compiled kernels are kept", j->phase);
  return false;
}

static void take(double *slot, const job *j) { *slot += mk_now() - j->phase_start; }

static int64_t latent_values(const mk_request *r) {
  return MK_LATENT_CHANNELS * r->latent_frames * r->latent_height * r->latent_width;
}

static bool no_memory(job *j) { return mk_fail(&j->st, MK_ENOMEM, "out of host memory"), false; }

/* Files are opened before any heavy work, so that a folder that cannot be written is known at once. */
static bool open_output(job *j) {
  const mk_request *r = &j->request;
  j->final = (mk_tensor){.name = "latents",
                         .dtype = MK_F32,
                         .rank = 4,
                         .dims = {MK_LATENT_CHANNELS, r->latent_frames, r->latent_height, r->latent_width},
                         .data = j->latents};
  j->final.bytes = (size_t)mk_dims_count(j->final.dims, 4) * sizeof(float);
  mk_video_options o = {.width = r->width, .height = r->height, .frames = r->frames, .fps = r->fps, .latents = &j->final};
  j->video = mk_video_open(j->o->out, &o, &j->st);
  if (j->video && j->o->sheet) j->sheet = mk_video_open(j->o->sheet, &o, &j->st);
  return !mk_failed(&j->st);
}

static bool finish_output(job *j) {
  snprintf(j->result->path, sizeof j->result->path, "%s", mk_video_path(j->video));
  j->result->width = j->request.width;
  j->result->height = j->request.height;
  j->result->frames = j->request.frames;
  bool ok = mk_video_finish(j->video, &j->st);
  j->video = NULL;
  if (!ok || !j->sheet) return ok;
  ok = mk_video_finish(j->sheet, &j->st);
  j->sheet = NULL;
  if (!ok) mk_fail_context(&j->st, "%s is written; its contact sheet is not", j->result->path);
  return ok;
}

/* What a network's graph is made from; each network takes what it needs. */
static mk_network_options options_for(const job *j, const mk_part *part) {
  const mk_request *r = &j->request;
  return (mk_network_options){.config_json = part->config,
                              .weights = part->shapes,
                              .frames = r->latent_frames,
                              .height = r->latent_height,
                              .width = r->latent_width,
                              .steps = r->schedule.steps,
                              .guided = r->guided,
                              .policy = j->policy};
}

static int steps_of(const mk_schedule *s, int expert) {
  int n = 0;
  for (int i = 0; i < s->steps; i++) n += s->step[i].expert == expert;
  return n;
}

static bool expert_used(const mk_schedule *s, int which) { return steps_of(s, which) > 0; }

/* ---- the networks' graphs and plans. Each is made on a thread of its own, beside the GPU's start; the text encoder goes to work
 * as soon as its own is there, while the others are made. What is wrong with any of them or with the prompt, or too large for the
 * GPU, ends the run at the next sign of progress: a second or so into the loading of the first weights. */

static void graph_is_there(network *n) {
  pthread_mutex_lock(&n->job->lock);
  n->has_graph = true;
  pthread_cond_broadcast(&n->job->changed);
  pthread_mutex_unlock(&n->job->lock);
}

static void wait_for_graph(network *n) {
  pthread_mutex_lock(&n->job->lock);
  while (!n->has_graph) pthread_cond_wait(&n->job->changed, &n->job->lock);
  pthread_mutex_unlock(&n->job->lock);
}

static bool is_like(const mk_graph *graph, network *other) {
  if (!graph || !other->job) return false;
  wait_for_graph(other);
  return other->graph && mk_graph_same(graph, other->graph);
}

static void *make_network(void *user) {
  network *n = user;
  static const mk_network kinds[NETWORKS] = {MK_NET_TEXT, MK_NET_DIT, MK_NET_DIT, MK_NET_VAE};
  mk_network_options o = options_for(n->job, n->part);
  n->graph = mk_network_checked(kinds[n->which], &o, &n->st);
  graph_is_there(n);
  n->shares = n->which == LOW && is_like(n->graph, &n->job->networks[HIGH]);
  if (n->graph && !n->shares)
    n->plan = mk_backend_draft(n->job->backend, n->graph, &n->st);
  else if (!n->graph && n->part->path)
    mk_fail_context(&n->st, "%s", n->part->path);
  atomic_store(&n->made, true);
  return NULL;
}

static void begin_networks(job *j) {
  const mk_request *r = &j->request;
  const mk_part *parts[NETWORKS] = {&r->text, &r->dit[0], &r->dit[1], &r->vae};
  j->policy = j->o->policy ? j->o->policy : strcmp(mk_backend_name(j->backend), "cpu") ? "exact" : "fp32";
  for (int i = 0; i < NETWORKS; i++) {
    network *n = &j->networks[i];
    if (!parts[i]->source) continue;
    *n = (network){.job = j, .which = i, .part = parts[i]};
    n->running = !pthread_create(&n->thread, NULL, make_network, n);
    if (!n->running) make_network(n);
  }
}

static void join_network(network *n) {
  if (n->running) pthread_join(n->thread, NULL);
  n->running = false;
}

static void drop_networks(job *j) {
  for (int i = 0; i < NETWORKS; i++) {
    network *n = &j->networks[i];
    join_network(n);
    if (!n->shares) mk_plan_free(n->plan);
  }
  for (int i = 0; i < NETWORKS; i++) {
    mk_graph_free(j->networks[i].graph);
    j->networks[i] = (network){0};
  }
}

/* The experts are in memory together, unless they are offloaded, and judged when both are known; the others are alone. */
static bool fits(job *j, int which, mk_status *st) {
  static const char *const names[NETWORKS] = {"text encoder", "transformer", "transformer", "decoder"};
  mk_plan *plans[2];
  int n = 0;
  if (which == HIGH) return true;
  for (int i = which == LOW ? HIGH : which; i <= which; i++)
    if (which != LOW || expert_used(&j->request.schedule, i - HIGH)) plans[n++] = j->networks[i].plan;
  return mk_backend_fits(j->backend, plans, n, which == LOW && j->o->offload, names[which], st);
}

/* The networks up to `last`; false with the status set when one could not be made or does not fit. */
static bool end_networks(job *j, int last, mk_status *st) {
  for (int i = TEXT; i <= last; i++) {
    network *n = &j->networks[i];
    if (n->ended) continue;
    n->ended = true;
    join_network(n);
    if (n->shares) n->plan = j->networks[HIGH].plan;
    if (mk_failed(&n->st)) return mk_fail(st, n->st.code, "%s", n->st.message), false;
    if (!fits(j, i, st)) return false;
  }
  return true;
}

static bool networks_made(const job *j, int last) {
  for (int i = TEXT; i <= last; i++)
    if (j->networks[i].job && !atomic_load(&j->networks[i].made)) return false;
  return true;
}

/* What is missing in a checkpoint is known once the graphs are there, long before their plans. */
static bool graphs_are_right(job *j) {
  for (int i = TEXT; i < NETWORKS; i++) {
    network *n = &j->networks[i];
    if (!n->job) continue;
    wait_for_graph(n);
    if (n->graph) continue;
    join_network(n);
    return mk_fail(&j->st, n->st.code, "%s", n->st.message), false;
  }
  return true;
}

/* A GPU that does not start after all leaves the CPU, whose policy is another. */
static bool begin_text(job *j) {
  if (!mk_backend_as_begun(j->backend)) drop_networks(j);
  if (!mk_backend_ready(j->backend, &j->st)) return false;
  if (!j->networks[TEXT].job) begin_networks(j);
  return graphs_are_right(j) && end_networks(j, TEXT, &j->st);
}

static bool tune_tick(void *user, const mk_tune_progress *p) {
  job *j = user;
  char phase[128];
  snprintf(phase, sizeof phase, "tuning for this GPU: %s", p->best ? p->best : p->group ? "checking" : "compiling");
  if (p->best) snprintf(phase, sizeof phase, "tuning for this GPU: %.3f ms %.80s", p->best_ms, p->best);
  j->phase = "tuning for this GPU";
  const mk_callbacks *c = j->callbacks;
  if (c && c->progress) c->progress(c->user, phase, p->done, p->total, p->seconds);
  return !c || !c->stop || !c->stop(c->user);
}

static void tune_jobs(const job *j, int last, mk_tune_job jobs[NETWORKS]) {
  const mk_schedule *s = &j->request.schedule;
  const double runs[NETWORKS] = {1 + j->request.guided, steps_of(s, 0), steps_of(s, 1), (double)j->request.latent_frames};
  for (int i = TEXT; i <= last; i++) jobs[i] = (mk_tune_job){j->networks[i].shares ? NULL : j->networks[i].plan, runs[i]};
  if (last >= LOW && j->networks[LOW].shares) jobs[HIGH].runs += jobs[LOW].runs;
}

/* Before network `last` is used: what no record knows of is measured, once for a card, and then of all networks together; where
 * all is known of those so far, the others are not waited for. */
static bool tune(job *j, int last) {
  mk_tune_options o = {.seconds = j->o->tune_seconds, .near_is_ok = true, .progress = tune_tick, .user = j};
  mk_tune_job jobs[NETWORKS];
  mk_tune_report report;
  if (!end_networks(j, last, &j->unusable)) return false;
  tune_jobs(j, last, jobs);
  if (o.seconds <= 0 || j->tuned || mk_backend_knows(j->backend, jobs, last + 1, &o)) return true;
  if (!end_networks(j, VAE, &j->unusable)) return false;
  tune_jobs(j, VAE, jobs);
  j->tuned = true;
  if (!mk_backend_tune(j->backend, jobs, NETWORKS, &o, &report, &j->st)) return false;
  if (report.stopped)
    return mk_fail(&j->st, MK_EINTERRUPTED, "stopped while tuning for this GPU; no video was written, what was measured is kept"),
           false;
  if (report.unreached)
    mk_log(MK_LOG_WARNING, "tuning measured %d of %d groups in %.0f s; `moonkiln tune` goes on where it ended", report.measured,
           report.measured + report.unreached, report.seconds);
  return true;
}

static bool load_tick(void *user, const char *what, int64_t done, int64_t total) {
  (void)what;
  job *j = user;
  return tick(j, done, total) && (!mk_request_tokens_made(&j->request) || mk_request_tokens(&j->request, &j->unusable)) &&
         (!networks_made(j, LOW) || end_networks(j, LOW, &j->unusable)) &&
         (!networks_made(j, VAE) || end_networks(j, VAE, &j->unusable));
}

static bool open_stage(job *j, mk_stage *s, int which) {
  const network *n = &j->networks[which];
  return mk_stage_open_graph(s, j->backend, n->graph, n->plan, n->part->source, load_tick, j, &j->st);
}

/* ---- phases */

static bool encode_prompts(job *j) {
  const mk_request *r = &j->request;
  const mk_prompt_tokens *tokens = &r->tokens;
  mk_stage text = {0};
  begin(j, "loading the text encoder");
  if (!open_stage(j, &text, TEXT)) return false;
  take(&j->result->load_seconds, j);
  begin(j, "encoding the prompt");
  int64_t room = mk_stage_count(&text, "hidden");
  bool ok = mk_request_tokens(&j->request, &j->st);
  for (int i = 0; ok && i < 1 + r->guided; i++) {
    j->context[i] = malloc((size_t)room * sizeof(float));
    ok = j->context[i] ? mk_encode_text(&text, tokens->ids[i], tokens->count[i], MK_TEXT_LENGTH, j->context[i], room, &j->st)
                       : no_memory(j);
    ok = ok && tick(j, i + 1, 1 + r->guided);
  }
  j->context_values = room;
  mk_stage_close(&text);
  take(&j->result->text_seconds, j);
  return ok;
}

static bool open_expert(job *j, int which, mk_stage *s) {
  const mk_request *r = &j->request;
  begin(j, !r->dit[1].source ? "loading the transformer"
           : which           ? "loading the low-noise expert"
                             : "loading the high-noise expert");
  if (!open_stage(j, s, HIGH + which)) return false;
  int64_t room = mk_stage_count(s, "context");
  bool ok = room == j->context_values;
  if (!ok)
    mk_fail(&j->st, MK_EINPUT,
            "the text encoder gives %lld values a token and the transformer reads %lld: they are of different models",
            (long long)(j->context_values / MK_TEXT_LENGTH), (long long)(room / MK_TEXT_LENGTH));
  ok = ok && mk_stage_write(s, "timesteps", r->timesteps, &j->st) && mk_stage_write(s, "context", j->context[0], &j->st) &&
       (!r->guided || mk_stage_write(s, "context_negative", j->context[1], &j->st)) &&
       s->session->ops->run(s->session, "prompt", &j->st);
  if (!ok) mk_stage_close(s);
  take(&j->result->load_seconds, j);
  return ok;
}

/* Brings expert `which` to work: opens it at its first step, takes over the other one's state, frees or parks the other one. */
static bool switch_expert(job *j, mk_stage experts[2], int from, int which) {
  mk_stage *to = &experts[which];
  if (from >= 0 && j->o->offload && !mk_expert_save(&experts[from], &j->history, &j->st)) return false;
  if (from >= 0 && j->o->offload) mk_stage_close(&experts[from]);
  if (!to->session && !open_expert(j, which, to)) return false;
  if (from < 0) return mk_stage_write(to, "latents", j->latents, &j->st);
  if (!j->o->offload && !mk_expert_save(&experts[from], &j->history, &j->st)) return false;
  return mk_expert_restore(to, &j->history, &j->st);
}

static bool denoise(job *j) {
  const mk_request *r = &j->request;
  const mk_schedule *s = &r->schedule;
  mk_stage experts[2] = {{0}};
  bool ok = true;
  int64_t count = latent_values(r);
  for (int e = 0; ok && !j->o->offload && e < 2; e++) /* all resident before the first step */
    if (expert_used(s, e)) ok = open_expert(j, e, &experts[e]);
  double loaded = j->result->load_seconds, start = mk_now();
  int active = -1;
  for (int i = 0; ok && i < s->steps; i++) {
    int which = s->step[i].expert;
    if (which != active) ok = switch_expert(j, experts, active, which);
    active = which;
    j->phase = "denoising"; /* loading an expert on the way is not the steps' time */
    j->phase_start = start + (j->result->load_seconds - loaded);
    float coefficients[MK_COEFFICIENTS];
    mk_schedule_coefficients(&s->step[i], coefficients);
    ok = ok && mk_expert_step(&experts[which], i, coefficients, &j->st);
    if (ok) j->result->steps_done = i + 1;
    ok = ok && end_networks(j, VAE, &j->unusable) && tick(j, i + 1, s->steps);
  }
  take(&j->result->denoise_seconds, j);
  ok = ok && mk_stage_read(&experts[active], "latents", j->latents, count, &j->st) == count;
  for (int e = 0; e < 2; e++) mk_stage_close(&experts[e]);
  return ok;
}

/* Decodes frame by frame into the video file, which appears when it is whole. */
static bool decode(job *j) {
  const mk_request *r = &j->request;
  int64_t plane = r->latent_height * r->latent_width, pixels = r->width * r->height;
  mk_stage vae = {0};
  begin(j, "loading the decoder");
  if (!open_stage(j, &vae, VAE)) return false;
  take(&j->result->load_seconds, j);
  begin(j, "decoding");
  float *chunk = malloc((size_t)(pixels * 3 * 4) * sizeof *chunk);
  bool ok = chunk != NULL || no_memory(j);
  for (int64_t f = 0; ok && f < r->latent_frames; f++) {
    int n = mk_decode_frame(&vae, j->latents, MK_LATENT_CHANNELS, r->latent_frames, plane, f, chunk, pixels * 3 * 4, &j->st);
    ok = n > 0 && mk_video_frames(j->video, chunk, n, &j->st) && (!j->sheet || mk_video_frames(j->sheet, chunk, n, &j->st)) &&
         tick(j, f + 1, r->latent_frames);
  }
  free(chunk);
  mk_stage_close(&vae);
  take(&j->result->decode_seconds, j);
  return ok;
}

static void *draw_noise(void *user) {
  const job *j = user;
  size_t count = (size_t)latent_values(&j->request);
  if (j->o->rng && !strcmp(j->o->rng, "cuda"))
    mk_noise_cuda((uint64_t)j->o->seed, MK_NOISE_GRID_H100, j->latents, count);
  else
    mk_noise_cpu((uint64_t)j->o->seed, j->latents, count);
  return NULL;
}

/* The noise takes a while and is not needed before the first step: it is drawn beside what comes first. */
static bool begin_noise(job *j) {
  j->latents = malloc((size_t)latent_values(&j->request) * sizeof *j->latents);
  if (!j->latents) return no_memory(j);
  j->drawing = !pthread_create(&j->noise, NULL, draw_noise, j);
  if (!j->drawing) draw_noise(j);
  return true;
}

static bool end_noise(job *j) {
  if (j->drawing) pthread_join(j->noise, NULL);
  j->drawing = false;
  return true;
}

/* ---- the public functions */

void mk_generate_defaults(mk_generate_options *o) {
  *o = (mk_generate_options){.out = "video.mp4", .guidance_low = -1, .guidance_high = -1, .tune_seconds = 60};
}

int mk_generate(const mk_generate_options *o, const mk_callbacks *callbacks, mk_result *result) {
  mk_result ignored = {0};
  job j = {.o = o,
           .callbacks = callbacks,
           .result = result ? result : &ignored,
           .lock = PTHREAD_MUTEX_INITIALIZER,
           .changed = PTHREAD_COND_INITIALIZER};
  *j.result = (mk_result){0};
  const mk_status *why = &j.st;
  bool ok = (j.backend = mk_backend_begin(o->backend, &j.st)) != NULL; /* first: a GPU takes long to start */
  if (ok && o->no_tune) mk_backend_ignore_records(j.backend);
  ok = ok && mk_request_open(&j.request, o, &j.st) && begin_noise(&j) && open_output(&j);
  mk_timeline("request and checkpoint read");
  char scripts[PATH_MAX];
  ok = ok && mk_env_data_path("scripts/models", scripts, &j.st);
  if (ok) begin_networks(&j);
  ok = ok && begin_text(&j) && tune(&j, TEXT) && encode_prompts(&j) && tune(&j, LOW) && end_noise(&j) && denoise(&j) &&
       tune(&j, VAE) && decode(&j) && finish_output(&j);
  end_noise(&j);
  mk_video_discard(j.video);
  mk_video_discard(j.sheet);
  drop_networks(&j);
  mk_backend_close(j.backend);
  mk_history_free(&j.history);
  for (int i = 0; i < 2; i++) free(j.context[i]);
  free(j.latents);
  mk_request_close(&j.request);
  if (mk_failed(&j.unusable)) why = &j.unusable;
  snprintf(j.result->message, sizeof j.result->message, "%s", ok ? "" : why->message);
  return ok ? 0 : (int)why->code;
}

const char *mk_version(void) { return "0.1.0"; }

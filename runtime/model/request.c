#include "runtime/model/request.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/log.h"
#include "runtime/model/model_graphs.h"
#include "runtime/model/text_clean.h"

bool mk_request_size(int64_t width, int64_t height, int64_t frames, mk_status *st) {
  if (width < 16 || height < 16 || width % 16 || height % 16 || width > 16384 || height > 16384)
    return mk_fail(st, MK_EINPUT, "size %lldx%lld: width and height must be multiples of 16, from 16 to 16384", (long long)width,
                   (long long)height),
           false;
  if (frames < 1 || frames > 4096 || frames % 4 != 1)
    return mk_fail(st, MK_EINPUT, "frames %lld: must be 4n + 1 (1, 5, ... 81, ...), at most 4093", (long long)frames), false;
  return true;
}

static bool check_sizes(const mk_generate_options *o, mk_status *st) {
  if (!mk_request_size(o->width ? o->width : 16, o->height ? o->height : 16, o->frames ? o->frames : 1, st)) return false;
  if (o->steps < 0 || o->steps > 1000)
    return mk_fail(st, MK_EINPUT, "steps %lld: must be from 1 to 1000", (long long)o->steps), false;
  if (o->seed < 0) return mk_fail(st, MK_EINPUT, "seed %lld: must not be negative", (long long)o->seed), false;
  const double guidance[2] = {o->guidance_low, o->guidance_high};
  for (int i = 0; i < 2; i++)
    if (!isfinite(guidance[i]) || guidance[i] > 1000)
      return mk_fail(st, MK_EINPUT, "guidance %g: must be a number from 0 to 1000", guidance[i]), false;
  if (!isfinite(o->shift) || o->shift < 0 || o->shift > 1000)
    return mk_fail(st, MK_EINPUT, "shift %g: must be greater than 0, at most 1000", o->shift), false;
  if (!isfinite(o->fps) || o->fps < 0 || o->fps > 1000)
    return mk_fail(st, MK_EINPUT, "fps %g: must be from 1 to 1000", o->fps), false;
  if (o->rng && strcmp(o->rng, "cpu") && strcmp(o->rng, "cuda"))
    return mk_fail(st, MK_EINPUT, "rng '%s' is unknown; use cpu or cuda", o->rng), false;
  return true;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* The folder of a path, behind links. */
static const char *real_folder(const char *path, char real[PATH_MAX]) {
  char folder[PATH_MAX];
  size_t n = (size_t)(base_name(path) - path);
  snprintf(folder, sizeof folder, "%.*s", n ? (int)n : 1, n ? path : ".");
  return realpath(folder, real);
}

/* Whether two names mean one file, which need not be there yet. */
static bool same_file(const char *a, const char *b) {
  char real_a[PATH_MAX], real_b[PATH_MAX];
  if (realpath(a, real_a) && realpath(b, real_b)) return !strcmp(real_a, real_b);
  return !strcmp(base_name(a), base_name(b)) && real_folder(a, real_a) && real_folder(b, real_b) && !strcmp(real_a, real_b);
}

static bool check_sheet(const mk_generate_options *o, mk_status *st) {
  if (!o->sheet) return true;
  size_t n = strlen(o->sheet);
  if (n < 4 || strcmp(o->sheet + n - 4, ".png"))
    return mk_fail(st, MK_EINPUT, "sheet '%s': the contact sheet's name must end in .png", o->sheet), false;
  if (!same_file(o->sheet, o->out)) return true;
  return mk_fail(st, MK_EINPUT, "sheet %s: is the video's file, too; give the two different names", o->sheet), false;
}

/* Cleans and tokenizes one prompt. */
static bool tokenize(mk_prompt_tokens *p, int which, const mk_tokenizer *t) {
  const char *what = which ? "negative prompt" : "prompt", *text = p->text[which];
  mk_arena arena = {0};
  bool truncated = false;
  const char *clean = mk_text_clean(&arena, text, strlen(text), what, &p->st);
  if (clean) p->count[which] = mk_tokenizer_encode(t, clean, p->ids[which], MK_TEXT_LENGTH, &truncated, &p->st);
  mk_arena_free(&arena);
  if (!clean || p->count[which] < 0) return mk_fail_context(&p->st, "%s", what), false;
  if (truncated) mk_log(MK_LOG_WARNING, "the %s is longer than %d tokens: the end is cut off", what, MK_TEXT_LENGTH);
  return true;
}

static void *make_tokens(void *user) {
  mk_prompt_tokens *p = user;
  mk_tokenizer *t = mk_tokenizer_open(p->vocabulary, &p->st);
  if (t && tokenize(p, 0, t)) tokenize(p, 1, t);
  mk_tokenizer_close(t);
  mk_timeline("prompt tokenized");
  atomic_store(&p->made, true);
  return NULL;
}

static void begin_tokens(mk_prompt_tokens *p, const char *vocabulary, const char *prompt, const char *negative) {
  p->vocabulary = vocabulary;
  p->text[0] = prompt;
  p->text[1] = negative;
  p->running = !pthread_create(&p->thread, NULL, make_tokens, p);
  if (!p->running) make_tokens(p);
}

static void end_tokens(mk_prompt_tokens *p) {
  if (p->running) pthread_join(p->thread, NULL);
  p->running = false;
}

bool mk_request_tokens(mk_request *r, mk_status *st) {
  mk_prompt_tokens *p = &r->tokens;
  end_tokens(p);
  return !mk_failed(&p->st) || (mk_fail(st, p->st.code, "%s", p->st.message), false);
}

/* With made-up weights there is no vocabulary: bytes stand in for tokens. */
static void byte_ids(mk_prompt_tokens *p, int which, const char *text) {
  int n = 0;
  for (; n < MK_TEXT_LENGTH - 1 && text[n]; n++) p->ids[which][n] = 4 + (unsigned char)text[n];
  p->ids[which][n] = 1;
  p->count[which] = n + 1;
  atomic_store(&p->made, true);
}

static bool no_tensor(void *self, const char *name, mk_tensor *out) { return (void)self, (void)name, (void)out, false; }
static bool no_fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  (void)self, (void)out;
  return mk_fail(st, MK_EINTERNAL, "made-up weights have no tensor '%s' in host memory", name), false;
}

static bool open_synthetic(mk_request *r, const mk_generate_options *o, mk_model_defaults *defaults, double *boundary,
                           mk_status *st) {
  const char *name = o->config ? o->config : "a14b", *config = mk_published_config(name);
  if (!config) return mk_fail(st, MK_EINPUT, "config '%s' is unknown; use a14b, 14b or 1.3b", name), false;
  bool two = !strcmp(name, "a14b");
  r->synthetic = (mk_source){.describe = no_tensor, .fetch = no_fetch, .synthetic_seed = o->synthetic_seed};
  r->text = r->vae = (mk_part){.source = &r->synthetic};
  r->dit[0] = (mk_part){.config = config, .source = &r->synthetic};
  if (two) r->dit[1] = r->dit[0];
  *boundary = two ? 0.875 : 0;
  *defaults = mk_usual_defaults(two);
  byte_ids(&r->tokens, 0, o->prompt);
  byte_ids(&r->tokens, 1, o->negative ? o->negative : "");
  return true;
}

static mk_part part_of(mk_checkpoint *c) {
  if (!c) return (mk_part){0};
  return (mk_part){mk_checkpoint_config(c), mk_checkpoint_source(c), mk_checkpoint_source(c), mk_checkpoint_path(c)};
}

static bool open_model(mk_request *r, const mk_generate_options *o, mk_model_defaults *defaults, double *boundary,
                       mk_status *st) {
  if (!o->model) return mk_fail(st, MK_EINPUT, "a model folder is missing"), false;
  r->model = mk_model_open(o->model, st);
  if (!r->model) return false;
  r->text = part_of(r->model->text_encoder);
  r->vae = part_of(r->model->vae);
  r->dit[0] = part_of(r->model->dit[0]);
  r->dit[1] = part_of(r->model->dit[1]);
  *defaults = r->model->defaults;
  *boundary = r->model->boundary;
  const char *negative = o->negative ? o->negative : defaults->negative ? defaults->negative : mk_default_negative_prompt;
  begin_tokens(&r->tokens, r->model->tokenizer, o->prompt, negative);
  return true;
}

static bool choose_size(mk_request *r, const mk_generate_options *o, const mk_model_defaults *defaults, mk_status *st) {
  r->width = o->width ? o->width : defaults->width;
  r->height = o->height ? o->height : defaults->height;
  r->frames = o->frames ? o->frames : defaults->frames;
  r->latent_frames = (r->frames - 1) / 4 + 1;
  r->latent_height = r->height / 8;
  r->latent_width = r->width / 8;
  if (mk_request_size(r->width, r->height, r->frames, st)) return true;
  mk_fail_context(st, "%s/moonkiln.json", o->model);
  return false;
}

static bool build_schedule(mk_request *r, const mk_generate_options *o, const mk_model_defaults *defaults, double boundary,
                           mk_status *st) {
  mk_schedule_options so = {.steps = (int)(o->steps ? o->steps : defaults->steps),
                            .boundary = boundary,
                            .guidance = {o->guidance_high >= 0 ? o->guidance_high : defaults->guidance[0],
                                         o->guidance_low >= 0 ? o->guidance_low : defaults->guidance[1]}};
  const char *sampler = o->sampler ? o->sampler : "unipc", *grid = o->grid ? o->grid : defaults->grid;
  bool diffusers = grid && !strcmp(grid, "diffusers");
  if (!mk_sampler_parse(sampler, &so.sampler))
    return mk_fail(st, MK_EINPUT, "sampler '%s' is unknown; use unipc, dpm++ or euler", sampler), false;
  if (grid && !diffusers && strcmp(grid, "original")) {
    mk_fail(st, MK_EINPUT, "grid '%s' is unknown; use original or diffusers", grid);
    if (!o->grid) mk_fail_context(st, "%s/moonkiln.json", o->model);
    return false;
  }
  so.grid = diffusers ? MK_GRID_DIFFUSERS : MK_GRID_ORIGINAL;
  double flow_shift = diffusers && r->model ? r->model->scheduler_shift : 0;
  so.shift = o->shift > 0 ? o->shift : flow_shift > 0 ? flow_shift : defaults->shift;
  if (!mk_schedule_build(&so, &r->schedule, st)) return false;
  r->timesteps = malloc((size_t)r->schedule.steps * sizeof *r->timesteps);
  if (!r->timesteps) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  for (int i = 0; i < r->schedule.steps; i++) {
    r->timesteps[i] = (float)r->schedule.step[i].timestep;
    r->guided |= r->schedule.step[i].guidance != 1.0f;
  }
  return true;
}

bool mk_request_open(mk_request *r, const mk_generate_options *o, mk_status *st) {
  *r = (mk_request){0};
  mk_model_defaults defaults = {0};
  double boundary = 0;
  bool ok = check_sizes(o, st) && check_sheet(o, st);
  if (ok && !o->prompt) ok = (mk_fail(st, MK_EINPUT, "a prompt is missing"), false);
  ok = ok && (o->synthetic_seed ? open_synthetic(r, o, &defaults, &boundary, st) : open_model(r, o, &defaults, &boundary, st));
  ok = ok && choose_size(r, o, &defaults, st) && build_schedule(r, o, &defaults, boundary, st);
  if (!ok) {
    mk_request_close(r);
    return false;
  }
  r->fps = o->fps > 0 ? o->fps : (double)defaults.fps;
  return true;
}

void mk_request_close(mk_request *r) {
  end_tokens(&r->tokens);
  mk_model_close(r->model);
  mk_schedule_free(&r->schedule);
  free(r->timesteps);
  *r = (mk_request){0};
}

/* moonkiln as a library: a prompt in, a video file out. The one public header; no CUDA or Lua type in it.
 *
 *   mk_generate_options o;
 *   mk_generate_defaults(&o);
 *   o.model = "Wan2.2-T2V-A14B", o.prompt = "a red ball", o.out = "ball.mp4";
 *   mk_result r;
 *   if (mk_generate(&o, NULL, &r)) fprintf(stderr, "%s\n", r.message);
 *
 * All strings are UTF-8 and borrowed for the call. Functions are thread-safe as long as each thread has its own structs.
 *
 * A GPU starts 70 ms sooner with CUDA_DEVICE_MAX_CONNECTIONS=1 in the environment before the first call: one stream is all that
 * is used. The moonkiln program sets it; a library leaves that to its host. */
#ifndef MOONKILN_H
#define MOONKILN_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MK_API __attribute__((visibility("default")))

typedef struct mk_generate_options {
  const char *model; /* checkpoint folder, original or Diffusers layout; NULL with synthetic_seed and config */
  const char *prompt;
  const char *negative; /* NULL: the model's default; "": an empty one */
  const char *out;      /* .mp4, .y4m (frames), .safetensors (frames f32 [frames, height, width, 3], and latents), .png */
  const char *sheet;    /* .png: a contact sheet beside the video; NULL: none */
  int64_t width, height, frames;      /* multiples of 16; frames = 4n + 1; 0: the model's default */
  int64_t steps;                      /* 0: the model's default */
  double guidance_low, guidance_high; /* negative: the model's default; 1 switches the second pass off for that expert */
  double shift;                       /* 0: the model's default; on Diffusers' grid the flow_shift of its scheduler_config.json */
  const char *sampler;                /* "unipc", "dpm++", "euler" */
  const char *grid;        /* where the steps lie: as in "original", Wan's own code, or "diffusers"; NULL: the model's default */
  int64_t seed;            /* >= 0 */
  const char *rng;         /* "cpu" or "cuda": PyTorch's generators */
  const char *backend;     /* "cpu", "cuda", or NULL: cuda if there is a GPU */
  const char *policy;      /* NULL: "exact" on a GPU, "fp32" on the CPU */
  double fps;              /* 0: the model's default */
  bool offload;            /* keep one expert at a time in device memory */
  uint64_t synthetic_seed; /* nonzero: made-up weights of the full size of `config`, no checkpoint */
  double tune_seconds;     /* what the first run on a card may spend on finding its fastest kernels; 0: nothing */
  bool no_tune;            /* leaves out what earlier runs have found, too */
  const char *config;      /* with synthetic_seed: "a14b", "14b" or "1.3b" */
} mk_generate_options;

/* Progress and cancellation; every member may be NULL. */
typedef struct mk_callbacks {
  void *user;
  /* `done` of `total` steps of a phase ("loading the decoder", "denoising", ...) took `seconds`; loading may count bytes. */
  void (*progress)(void *user, const char *phase, int64_t done, int64_t total, double seconds);
  bool (*stop)(void *user); /* asked between steps; true: stop cleanly */
} mk_callbacks;

typedef struct mk_result {
  char message[2048]; /* what went wrong, "" if nothing did */
  char path[1024];    /* the file written: `out`, or a .y4m beside it where .mp4 cannot be encoded */
  double text_seconds, load_seconds, denoise_seconds, decode_seconds; /* where the time went */
  int64_t steps_done, width, height, frames;
} mk_result;

MK_API void mk_generate_defaults(mk_generate_options *o);
/* Returns 0, or nonzero with result->message set: 1 wrong input, 2-7 failures, as runtime/base/status.h lists them. Nothing is
 * left at `out` unless the whole video was written. */
MK_API int mk_generate(const mk_generate_options *o, const mk_callbacks *callbacks, mk_result *result);

MK_API const char *mk_version(void);

#ifdef __cplusplus
}
#endif

#endif

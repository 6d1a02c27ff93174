/* moonkiln generate: prompt in, video out. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"
#include "runtime/model/progress.h"
#include "runtime/moonkiln.h"

static volatile sig_atomic_t stop_asked;

static void on_interrupt(int signal_number) {
  (void)signal_number;
  stop_asked = 1;
}

static bool stop(void *user) { return (void)user, stop_asked != 0; }

static void show(void *user, const char *phase, int64_t done, int64_t total, double seconds) {
  mk_progress_show(user, phase, done, total, seconds);
}

int cmd_generate(int argc, char **argv) {
  mk_generate_options o;
  mk_generate_defaults(&o);
  mk_size size = {o.width, o.height};
  mk_number_pair guidance = {0};
  int64_t synthetic = 0;
  const mk_option options[] = {
      {"prompt", MK_OPT_TEXT, &o.prompt, "TEXT", "what the video shows (required)", 0, 0},
      {"negative", MK_OPT_TEXT, &o.negative, "TEXT", "what it should not show (default: the model's; \"\" for none)", 0, 0},
      {"out", MK_OPT_TEXT, &o.out, "FILE", "video.mp4 (default), or .y4m, or .safetensors with frames and latents", 0, 0},
      {"sheet", MK_OPT_TEXT, &o.sheet, "FILE", "x.png: evenly spaced frames of the video in one picture", 0, 0},
      {"size", MK_OPT_SIZE, &size, "WxH", "multiples of 16 (default: the model's, 1280x720)", 1, 100000},
      {"frames", MK_OPT_INT, &o.frames, "N", "4n + 1 (default: the model's, 81)", 1, 1e6},
      {"steps", MK_OPT_INT, &o.steps, "N", "diffusion steps (default: the model's, 40)", 1, 1000},
      {"guidance", MK_OPT_PAIR, &guidance, "LOW[,HIGH]", "guidance scale of the low- and high-noise expert (3.0,4.0); 1: off", 0,
       1000},
      {"shift", MK_OPT_NUMBER, &o.shift, "S", "timestep shift of the schedule (default: the model's, 12)", 1e-3, 1000},
      {"sampler", MK_OPT_TEXT, &o.sampler, "NAME", "unipc (default), dpm++ or euler", 0, 0},
      {"grid", MK_OPT_TEXT, &o.grid, "NAME", "where the steps lie: original or diffusers (default: the model's, original)", 0, 0},
      {"seed", MK_OPT_INT, &o.seed, "N", "of the initial noise (default 0)", 0, 9.2e18},
      {"rng", MK_OPT_TEXT, &o.rng, "NAME", "cpu (default) or cuda: which of PyTorch's generators", 0, 0},
      {"backend", MK_OPT_TEXT, &o.backend, "NAME", "cuda or cpu; default: cuda where there is a GPU", 0, 0},
      {"policy", MK_OPT_TEXT, &o.policy, "NAME", "precision: exact (default on a GPU), fp32 (default on the CPU), tf32", 0, 0},
      {"fps", MK_OPT_NUMBER, &o.fps, "N", "frames a second of the file (default: the model's, 16)", 1, 1000},
      {"offload", MK_OPT_FLAG, &o.offload, NULL, "one expert at a time in GPU memory", 0, 0},
      {"tune-budget", MK_OPT_NUMBER, &o.tune_seconds, "SECONDS", "for finding this GPU's fastest kernels in the first run (60)",
       0, 86400},
      {"no-tune", MK_OPT_FLAG, &o.no_tune, NULL, "take the cost model's kernels, whatever was measured", 0, 0},
      {"synthetic", MK_OPT_INT, &synthetic, "SEED", "made-up weights of a published model's size, no checkpoint: for timing", 1,
       9e15},
      {"config", MK_OPT_TEXT, &o.config, "NAME", "with --synthetic: a14b (default), 14b or 1.3b", 0, 0},
  };
  const mk_command_line line = {
      "moonkiln generate MODEL_DIR --prompt TEXT [options]",
      "Makes a video of what the prompt says. MODEL_DIR is a Wan text-to-video checkpoint, in the original or\n"
      "the Diffusers layout.",
      options,
      sizeof options / sizeof *options,
      0,
      1};
  int first, exit_code;
  if (!mk_options_parse(&line, argc, argv, &first, &exit_code)) return exit_code;
  mk_status st = {0};
  if (first == argc && !synthetic)
    mk_fail(&st, MK_EINPUT, "give the model's folder, or --synthetic SEED; see moonkiln generate --help");
  if (first < argc && synthetic) mk_fail(&st, MK_EINPUT, "--synthetic takes no model folder");
  if (mk_failed(&st)) return mk_exit_code(&st);
  if (o.no_tune) o.tune_seconds = 0;
  o.model = first < argc ? argv[first] : NULL;
  o.synthetic_seed = (uint64_t)synthetic;
  o.width = size.width;
  o.height = size.height;
  if (guidance.count) {
    o.guidance_low = guidance.values[0];
    o.guidance_high = guidance.values[1];
  }

  struct sigaction action = {.sa_handler = on_interrupt}, before;
  sigaction(SIGINT, &action, &before);
  mk_progress progress = {0};
  mk_callbacks callbacks = {.user = &progress, .progress = show, .stop = stop};
  mk_result r;
  int code = mk_generate(&o, &callbacks, &r);
  mk_progress_end(&progress);
  sigaction(SIGINT, &before, NULL);
  if (code) {
    mk_fail(&st, (mk_code)code, "%s", r.message);
    return mk_exit_code(&st);
  }
  fprintf(stderr, "%s%s%s: %lld frames, %lldx%lld; text %.1f s, weights %.1f s, %lld steps %.1f s, decoding %.1f s\n", r.path,
          o.sheet ? ", " : "", o.sheet ? o.sheet : "", (long long)r.frames, (long long)r.width, (long long)r.height,
          r.text_seconds, r.load_seconds, (long long)r.steps_done, r.denoise_seconds, r.decode_seconds);
  return 0;
}

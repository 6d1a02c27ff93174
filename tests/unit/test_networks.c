/* The three networks on the CPU backend against diffusers' and transformers' own outputs, both checkpoint layouts. */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "runtime/model/checkpoint.h"
#include "runtime/model/stage.h"
#include "runtime/model/tensor_file.h"

static mk_status status; /* of the running test */

#define MUST(condition)                                               \
  do {                                                                \
    if (!(condition)) fail_msg("%s: %s", #condition, status.message); \
  } while (0)

static int setup(void **state) {
  (void)state;
  status = (mk_status){0};
  setenv("MOONKILN_DATA", ".", 0);
  return 0;
}

static mk_tensor fetch(mk_tensor_file *io, const char *prefix, const char *name) {
  char full[64];
  snprintf(full, sizeof full, "%s.%s", prefix, name);
  mk_entry *e = mk_tensor_file_find(io, full);
  if (!e) fail_msg("no tensor %s in the vectors", full);
  mk_tensor t = {0};
  MUST(mk_entry_fetch(io, e, &t, &status));
  return t;
}

static double relative_error(const float *got, const float *want, size_t n) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < n; i++) {
    double d = (double)got[i] - (double)want[i];
    difference += d * d;
    norm += (double)want[i] * (double)want[i];
  }
  return sqrt(difference / norm);
}

#define ASSERT_CLOSE(got, want, n, bound)                                       \
  do {                                                                          \
    double e_ = relative_error(got, want, n);                                   \
    if (!(e_ <= (bound))) fail_msg("relative error %g, at most %g", e_, bound); \
  } while (0)

static void write_context(mk_stage *s, const char *input, mk_tensor rows) {
  float *padded = calloc((size_t)mk_stage_count(s, input), sizeof *padded);
  memcpy(padded, rows.data, rows.bytes);
  MUST(mk_stage_write(s, input, padded, &status));
  free(padded);
}

static void check_dit(const char *folder, const char *prefix, float timestep) {
  mk_backend *b = mk_backend_open("cpu", &status);
  mk_checkpoint *c = mk_checkpoint_open(folder, &status);
  MUST(c);
  mk_tensor_file *io = mk_tensor_file_open("tests/vectors/dit_io.safetensors", &status);
  MUST(io);
  mk_tensor latents = fetch(io, prefix, "latents");
  mk_network_options o = {.config_json = mk_checkpoint_config(c),
                          .weights = mk_checkpoint_source(c),
                          .frames = latents.dims[1],
                          .height = latents.dims[2],
                          .width = latents.dims[3],
                          .steps = 1,
                          .guided = true,
                          .forward = true,
                          .policy = "fp32"};
  mk_stage s = {0};
  MUST(mk_stage_open(&s, b, MK_NET_DIT, &o, o.weights, NULL, NULL, &status));
  int32_t step = 0;
  MUST(mk_stage_write(&s, "timesteps", &timestep, &status) && mk_stage_write(&s, "step", &step, &status));
  MUST(mk_stage_write(&s, "latents", latents.data, &status));
  write_context(&s, "context", fetch(io, prefix, "context_cond"));
  write_context(&s, "context_negative", fetch(io, prefix, "context_uncond"));
  MUST(s.session->ops->run(s.session, "prompt", &status) && s.session->ops->run(s.session, "step", &status));
  size_t count = latents.bytes / sizeof(float);
  float *v = malloc(latents.bytes);
  MUST(mk_stage_read(&s, "velocity", v, (int64_t)count, &status));
  ASSERT_CLOSE(v, (const float *)fetch(io, prefix, "out_cond").data, count, 1e-5);
  MUST(mk_stage_read(&s, "velocity_negative", v, (int64_t)count, &status));
  ASSERT_CLOSE(v, (const float *)fetch(io, prefix, "out_uncond").data, count, 1e-5);
  free(v);
  mk_stage_close(&s);
  mk_tensor_file_close(io);
  mk_checkpoint_close(c);
  mk_backend_close(b);
}

static void dit_diffusers(void **state) {
  (void)state;
  check_dit("tests/vectors/dit_diffusers", "a", 999);
}
static void dit_diffusers_ragged(void **state) {
  (void)state;
  check_dit("tests/vectors/dit_diffusers", "b", 377);
}
static void dit_original(void **state) {
  (void)state;
  check_dit("tests/vectors/dit_original", "a", 999);
}
static void dit_original_ragged(void **state) {
  (void)state;
  check_dit("tests/vectors/dit_original", "b", 377);
}

static void check_umt5(const char *path, const char *prefix) {
  mk_backend *b = mk_backend_open("cpu", &status);
  mk_checkpoint *c = mk_checkpoint_open(path, &status);
  MUST(c);
  mk_tensor_file *io = mk_tensor_file_open("tests/vectors/umt5_io.safetensors", &status);
  MUST(io);
  mk_network_options o = {.config_json = mk_checkpoint_config(c), .weights = mk_checkpoint_source(c), .policy = "fp32"};
  mk_stage s = {0};
  MUST(mk_stage_open(&s, b, MK_NET_TEXT, &o, o.weights, NULL, NULL, &status));
  mk_tensor ids = fetch(io, prefix, "ids"), want = fetch(io, prefix, "hidden");
  int32_t padded[512] = {0}, n = (int32_t)ids.dims[0];
  memcpy(padded, ids.data, (size_t)n * sizeof *padded);
  int64_t dim = want.dims[1];
  float *hidden = malloc(sizeof *hidden * 512 * (size_t)dim);
  MUST(mk_encode_text(&s, padded, n, 512, hidden, 512 * dim, &status));
  ASSERT_CLOSE(hidden, (const float *)want.data, (size_t)(n * dim), 1e-5);
  for (int64_t i = n * dim; i < 512 * dim; i++) assert_true(hidden[i] == 0.0f);
  free(hidden);
  mk_stage_close(&s);
  mk_tensor_file_close(io);
  mk_checkpoint_close(c);
  mk_backend_close(b);
}

static void umt5_prompt(void **state) {
  (void)state;
  check_umt5("tests/vectors/umt5", "a");
}
static void umt5_long(void **state) {
  (void)state;
  check_umt5("tests/vectors/umt5", "b");
}
static void umt5_single_token(void **state) {
  (void)state;
  check_umt5("tests/vectors/umt5", "c");
}
static void umt5_original(void **state) {
  (void)state;
  check_umt5("tests/vectors/umt5_original/models_t5_umt5-xxl-enc-bf16.safetensors", "a");
}

static void check_vae(const char *path, const char *prefix) {
  mk_backend *b = mk_backend_open("cpu", &status);
  mk_checkpoint *c = mk_checkpoint_open(path, &status);
  MUST(c);
  mk_tensor_file *io = mk_tensor_file_open("tests/vectors/vae_io.safetensors", &status);
  MUST(io);
  mk_tensor z = fetch(io, prefix, "latents"), want = fetch(io, prefix, "frames");
  int64_t channels = z.dims[0], frames = z.dims[1], plane = z.dims[2] * z.dims[3], pixels = want.dims[2] * want.dims[3];
  mk_network_options o = {.config_json = mk_checkpoint_config(c),
                          .weights = mk_checkpoint_source(c),
                          .height = z.dims[2],
                          .width = z.dims[3],
                          .policy = "fp32"};
  mk_stage s = {0};
  MUST(mk_stage_open(&s, b, MK_NET_VAE, &o, o.weights, NULL, NULL, &status));
  float *got = malloc(want.bytes), *chunk = malloc(sizeof *chunk * (size_t)pixels * 12), *clamped = malloc(want.bytes);
  for (size_t i = 0; i < want.bytes / 4; i++) clamped[i] = fminf(fmaxf(((const float *)want.data)[i], -1), 1);
  int64_t made = 0;
  for (int64_t f = 0; f < frames; f++) {
    int n = mk_decode_frame(&s, z.data, channels, frames, plane, f, chunk, pixels * 12, &status);
    MUST(n);
    for (int k = 0; k < n; k++, made++) /* [frame, pixel, channel] into [channel, frame, pixel] */
      for (int64_t p = 0; p < pixels; p++)
        for (int ch = 0; ch < 3; ch++) got[(ch * want.dims[1] + made) * pixels + p] = chunk[(k * pixels + p) * 3 + ch];
  }
  assert_int_equal(made, want.dims[1]);
  ASSERT_CLOSE(got, clamped, want.bytes / 4, 1e-5);
  free(got);
  free(chunk);
  free(clamped);
  mk_stage_close(&s);
  mk_tensor_file_close(io);
  mk_checkpoint_close(c);
  mk_backend_close(b);
}

static void vae_21_frames(void **state) {
  (void)state;
  check_vae("tests/vectors/vae_diffusers", "a");
}
static void vae_one_frame(void **state) {
  (void)state;
  check_vae("tests/vectors/vae_diffusers", "b");
}
static void vae_original(void **state) {
  (void)state;
  check_vae("tests/vectors/vae_original/Wan2.1_VAE.safetensors", "a");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(dit_diffusers, setup),     cmocka_unit_test_setup(dit_diffusers_ragged, setup),
      cmocka_unit_test_setup(dit_original, setup),      cmocka_unit_test_setup(dit_original_ragged, setup),
      cmocka_unit_test_setup(umt5_prompt, setup),       cmocka_unit_test_setup(umt5_long, setup),
      cmocka_unit_test_setup(umt5_single_token, setup), cmocka_unit_test_setup(umt5_original, setup),
      cmocka_unit_test_setup(vae_21_frames, setup),     cmocka_unit_test_setup(vae_one_frame, setup),
      cmocka_unit_test_setup(vae_original, setup),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

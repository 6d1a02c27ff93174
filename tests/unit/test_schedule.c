/* Whole sampler runs against diffusers' schedulers, with the recurrence in f32 as the graph computes it. */
#include "runtime/model/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/model/tensor_file.h"

enum { WIDTH = 32 };

static mk_tensor_file *vectors;

static const mk_entry *entry(const char *name, const char *field) {
  char full[64];
  snprintf(full, sizeof full, "%s%s%s", name, *name ? "." : "", field);
  const mk_entry *e = mk_tensor_file_find(vectors, full);
  if (!e) fail_msg("no %s", full);
  return e;
}

static void step_in_f32(const mk_schedule_step *s, const float *v, float *x, float *last, float *m1, float *m2) {
  float k[MK_COEFFICIENTS];
  mk_schedule_coefficients(s, k);
  for (int j = 0; j < WIDTH; j++) {
    float m0 = x[j] - k[0] * v[j];
    float xc = k[1] * x[j] + k[2] * last[j] + k[3] * m0 + k[4] * m1[j] + k[5] * m2[j];
    x[j] = k[6] * xc + k[7] * m0 + k[8] * m1[j] + k[9] * m2[j];
    last[j] = xc, m2[j] = m1[j], m1[j] = m0;
  }
}

static double relative(const float *a, const double *b) {
  double difference = 0, norm = 0;
  for (int j = 0; j < WIDTH; j++) difference += pow((double)a[j] - b[j], 2), norm += b[j] * b[j];
  return sqrt(difference / norm);
}

static void whole_run(const char *name, const mk_schedule *s) {
  const float *a = (const float *)entry("", "a")->data, *b = (const float *)entry("", "b")->data,
              *c = (const float *)entry("", "c")->data;
  const float *scale = (const float *)entry(name, "s")->data, *xs = (const float *)entry(name, "xs")->data;
  const double *xs64 = (const double *)entry(name, "xs64")->data;
  float x[WIDTH], v[WIDTH], last[WIDTH] = {0}, m1[WIDTH] = {0}, m2[WIDTH] = {0};
  memcpy(x, entry("", "x")->data, sizeof x);
  for (int i = 0; i < s->steps; i++) {
    for (int j = 0; j < WIDTH; j++) v[j] = (a[j] * x[j] + b[j] * scale[i]) + (c[j] * x[j]) / (1 + x[j] * x[j]);
    step_in_f32(&s->step[i], v, x, last, m1, m2);
    double class[WIDTH];
    for (int j = 0; j < WIDTH; j++) class[j] = (double)xs[(i + 1) * WIDTH + j];
    double exact = relative(x, xs64 + (i + 1) * WIDTH), ran = relative(x, class);
    if (!(exact <= 1e-6)) fail_msg("%s, step %d: %.2e from the float64 run", name, i, exact);
    if (!(ran <= 1e-6)) fail_msg("%s, step %d: %.2e from the class", name, i, ran);
  }
}

static void runs(void **state) {
  (void)state;
  static const struct {
    const char *name;
    mk_sampler sampler;
    mk_grid grid;
  } kinds[] = {{"unipc.d", MK_SAMPLER_UNIPC, MK_GRID_DIFFUSERS},
               {"unipc.o", MK_SAMPLER_UNIPC, MK_GRID_ORIGINAL},
               {"dpmpp.o", MK_SAMPLER_DPMPP, MK_GRID_ORIGINAL},
               {"euler.d", MK_SAMPLER_EULER, MK_GRID_DIFFUSERS},
               {"euler.u", MK_SAMPLER_EULER, MK_GRID_GIVEN}};
  double given[MK_MAX_STEPS];
  int checked = 0;
  for (int e = 0; e < vectors->count; e++) {
    char name[32], kind[16];
    int shift, steps, end = 0;
    if (sscanf(vectors->entries[e].name, "%7[a-z.].s%d.n%d.sigmas%n", kind, &shift, &steps, &end) != 3 || !end) continue;
    snprintf(name, sizeof name, "%s.s%d.n%d", kind, shift, steps);
    size_t k = 0;
    while (k < sizeof kinds / sizeof *kinds && strcmp(kinds[k].name, kind)) k++;
    if (k == sizeof kinds / sizeof *kinds) fail_msg("unknown case %s", name);
    for (int i = 0; i < steps; i++) given[i] = 1 + i * ((0.001 - 1) / steps);
    mk_schedule_options o = {kinds[k].sampler, kinds[k].grid, steps, shift, 0.875, {4, 3}, given};
    mk_schedule s;
    mk_status st = {0};
    if (!mk_schedule_build(&o, &s, &st)) fail_msg("%s", st.message);
    const float *sigmas = (const float *)entry(name, "sigmas")->data;
    const mk_entry *t = entry(name, "timesteps");
    for (int i = 0; i < steps; i++) {
      if (fabsf(s.step[i].sigma - sigmas[i]) > 6.1e-8f) fail_msg("%s: sigma %d is %.9g", name, i, (double)s.step[i].sigma);
      double wanted = strcmp(t->stored, "I64") ? (double)((const float *)t->data)[i] : (double)((const int64_t *)t->data)[i];
      if (fabs(s.step[i].timestep - wanted) > (strcmp(t->stored, "I64") ? 1e-4 : 0)) fail_msg("%s: t %d", name, i);
    }
    whole_run(name, &s);
    mk_schedule_free(&s);
    checked++;
  }
  assert_int_equal(checked, 14);
}

static mk_schedule build(mk_sampler sampler, mk_grid grid, int steps, double shift, double boundary) {
  mk_schedule_options o = {sampler, grid, steps, shift, boundary, {4, 3}, NULL};
  mk_schedule s;
  mk_status st = {0};
  if (!mk_schedule_build(&o, &s, &st)) fail_msg("%s", st.message);
  return s;
}

/* Wan2.2's own schedule: 40 steps, shift 12, 26 of them on the high-noise expert. */
static void original_timesteps(void **state) {
  (void)state;
  static const int wanted[] = {999, 997, 995, 993, 990, 988, 985, 982, 979, 976, 972, 969, 965, 961,
                               956, 952, 947, 941, 936, 929, 922, 915, 907, 898, 888, 877, 865, 852,
                               837, 819, 799, 776, 749, 717, 678, 631, 571, 492, 386, 235};
  mk_schedule s = build(MK_SAMPLER_UNIPC, MK_GRID_ORIGINAL, 40, 12, 0.875);
  for (int i = 0; i < 40; i++) {
    assert_int_equal((int)s.step[i].timestep, wanted[i]);
    assert_int_equal(s.step[i].expert, i >= 26);
    assert_true(s.step[i].guidance == (i < 26 ? 4.0f : 3.0f));
  }
  mk_schedule_free(&s);
  s = build(MK_SAMPLER_UNIPC, MK_GRID_ORIGINAL, 40, 12, 0);
  for (int i = 0; i < 40; i++) assert_true(s.step[i].expert == 0 && s.step[i].guidance == 4.0f);
  mk_schedule_free(&s);
  s = build(MK_SAMPLER_DPMPP, MK_GRID_ORIGINAL, 40, 12, 0.875);
  assert_true(s.step[0].timestep == 1000 && s.step[0].sigma == 1);
  mk_schedule_free(&s);
}

/* Whatever the sampler, grid and count: a model that always predicts the same clean latents ends exactly there, and on the way
 * the samples are (1 - sigma) clean + sigma noise, which every solver reproduces. */
static void constant_prediction(void **state) {
  (void)state;
  static const int counts[] = {1, 2, 3, 4, 5, 17, 40, 91, 200, 1000};
  for (int sampler = MK_SAMPLER_UNIPC; sampler <= MK_SAMPLER_EULER; sampler++)
    for (int grid = MK_GRID_ORIGINAL; grid <= MK_GRID_DIFFUSERS; grid++)
      for (size_t n = 0; n < sizeof counts / sizeof *counts; n++) {
        mk_schedule s = build((mk_sampler)sampler, (mk_grid)grid, counts[n], 5, 0.9);
        const double clean = 0.7, noise = -1.3;
        double x = (1 - (double)s.step[0].sigma) * clean + (double)s.step[0].sigma * noise, last = 0, m1 = 0, m2 = 0;
        for (int i = 0; i < s.steps; i++) {
          const mk_schedule_step *p = &s.step[i];
          for (int k = 0; k < 5; k++) assert_true(isfinite(p->c[k]));
          for (int k = 0; k < 4; k++) assert_true(isfinite(p->d[k]));
          double xc = (double)p->c[0] * x + (double)p->c[1] * last + (double)p->c[2] * clean + (double)p->c[3] * m1 +
                      (double)p->c[4] * m2;
          x = (double)p->d[0] * xc + (double)p->d[1] * clean + (double)p->d[2] * m1 + (double)p->d[3] * m2;
          last = xc, m2 = m1, m1 = clean;
          double sigma = i + 1 < s.steps ? (double)s.step[i + 1].sigma : 0, wanted = (1 - sigma) * clean + sigma * noise;
          if (!(fabs(x - wanted) < 2e-5))
            fail_msg("%s, grid %d, %d steps, step %d: %g, %g", mk_sampler_name((mk_sampler)sampler), grid, s.steps, i, x, wanted);
        }
        assert_true(x == clean);
        mk_schedule_free(&s);
      }
}

static void bad_options(void **state) {
  (void)state;
  static const double falling[] = {1, 0.5, 0.5}, zero[] = {1, 0.5, 0}, above[] = {1.5, 0.5, 0.2};
  const mk_schedule_options good = {MK_SAMPLER_UNIPC, MK_GRID_ORIGINAL, 3, 12, 0.875, {4, 3}, NULL};
  mk_schedule_options o[12];
  for (int i = 0; i < 12; i++) o[i] = good;
  o[0].steps = 0, o[1].steps = -1, o[2].steps = 1001, o[3].shift = 0, o[4].shift = NAN, o[5].shift = -3, o[6].boundary = 1.5;
  o[7].guidance[1] = INFINITY, o[8].guidance[0] = NAN;
  o[9].grid = o[10].grid = o[11].grid = MK_GRID_GIVEN;
  o[9].given = falling, o[10].given = zero, o[11].given = above;
  static const char *const words[] = {"steps",    "steps",    "steps",    "shift",  "shift",  "shift",
                                      "boundary", "guidance", "guidance", "sigmas", "sigmas", "sigmas"};
  for (int i = 0; i < 12; i++) {
    mk_schedule s;
    mk_status st = {0};
    assert_false(mk_schedule_build(&o[i], &s, &st));
    assert_int_equal(st.code, MK_EINPUT);
    if (!strstr(st.message, words[i])) fail_msg("no %s in: %s", words[i], st.message);
    assert_null(s.step);
  }
  mk_schedule_options crowded = good;
  crowded.shift = 1000, crowded.steps = 1000;
  mk_schedule s;
  mk_status st = {0};
  if (mk_schedule_build(&crowded, &s, &st))
    mk_schedule_free(&s);
  else
    assert_non_null(strstr(st.message, "shift"));
}

static void names(void **state) {
  (void)state;
  mk_sampler s;
  assert_true(mk_sampler_parse("dpm++", &s) && s == MK_SAMPLER_DPMPP);
  assert_true(mk_sampler_parse(mk_sampler_name(MK_SAMPLER_EULER), &s) && s == MK_SAMPLER_EULER);
  assert_false(mk_sampler_parse("ddim", &s));
}

static int open_vectors(void **state) {
  (void)state;
  mk_status st = {0};
  vectors = mk_tensor_file_open("tests/vectors/schedulers.safetensors", &st);
  if (!vectors) print_error("%s\n", st.message);
  return vectors ? 0 : -1;
}

static int close_vectors(void **state) {
  (void)state;
  mk_tensor_file_close(vectors);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(runs), cmocka_unit_test(original_timesteps),
                                     cmocka_unit_test(constant_prediction), cmocka_unit_test(bad_options),
                                     cmocka_unit_test(names)};
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, open_vectors, close_vectors);
}

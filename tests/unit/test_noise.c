/* The noise of PyTorch's generators: the CPU's against its own output, CUDA's against known values. */
#include "runtime/model/noise.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/hash.h"
#include "runtime/model/tensor_file.h"

static double relative(const float *a, const float *b, size_t n) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < n; i++) {
    difference += pow((double)a[i] - (double)b[i], 2);
    norm += pow((double)b[i], 2);
  }
  return sqrt(difference / norm);
}

static void cpu_vectors(void **state) {
  (void)state;
  mk_status st = {0};
  mk_tensor_file *f = mk_tensor_file_open("tests/vectors/noise.safetensors", &st);
  if (!f) fail_msg("%s", st.message);
  int checked = 0;
  for (int i = 0; i < f->count; i++, checked++) {
    mk_tensor t;
    unsigned long long seed;
    assert_int_equal(sscanf(f->entries[i].name, "seed%llu.", &seed), 1);
    assert_true(mk_entry_fetch(f, &f->entries[i], &t, &st));
    size_t n = t.bytes / sizeof(float);
    float *mine = malloc(t.bytes);
    mk_noise_cpu(seed, mine, n);
    double error = relative(mine, t.data, n);
    if (!(error <= 1e-6)) fail_msg("%s: relative error %.2e", t.name, error);
    free(mine);
  }
  assert_true(checked >= 12);
  mk_tensor_file_close(f);
}

/* Bits, not values: what a seed means must not change from build to build. */
static void same_seed_same_bits(void **state) {
  (void)state;
  static float noise[16 * 5 * 8 * 8 + 5], again[16 * 5 * 8 * 8 + 5];
  char hex[MK_HASH_HEX];
  mk_noise_cpu(42, noise, sizeof noise / sizeof *noise);
  mk_noise_cpu(42, again, sizeof again / sizeof *again);
  assert_memory_equal(noise, again, sizeof noise);
  mk_noise_cpu(42 + (1ull << 32), again, sizeof again / sizeof *again);
  assert_memory_equal(noise, again, sizeof noise);
  assert_string_equal(mk_hash_hex(noise, sizeof noise, hex), "e4e455e9547e7148cd15f84e6259d704");
  mk_noise_cpu(43, again, sizeof again / sizeof *again);
  assert_memory_not_equal(noise, again, sizeof noise);
  mk_noise_cuda(42, MK_NOISE_GRID_H100, noise, sizeof noise / sizeof *noise);
  assert_string_equal(mk_hash_hex(noise, sizeof noise, hex), "29dbd7e02ae3dcb2b835a53ef0c252da");
  mk_noise_cuda(42 + (1ull << 32), MK_NOISE_GRID_H100, again, sizeof again / sizeof *again);
  assert_memory_not_equal(noise, again, sizeof noise);
}

static void near(float value, double wanted, double tolerance) {
  if (!(fabs((double)value - wanted) <= tolerance)) fail_msg("%.7f, wanted %.7f", (double)value, wanted);
}

static void cpu_known_values(void **state) {
  (void)state;
  static const double seed0[] = {-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152, 0.3223, -1.2633};
  float noise[16];
  mk_noise_cpu(0, noise, 16);
  for (int i = 0; i < 10; i++) near(noise[i], seed0[i], 6e-5);
  near(noise[15], -0.2473, 6e-5);
  static const double few[] = {1.5409960746765137, -0.293428897857666, -2.1787893772125244, 0.5684312582015991,
                               -1.0845223665237427}; /* fewer than 16: another rule */
  mk_noise_cpu(0, noise, 5);
  for (int i = 0; i < 5; i++) near(noise[i], few[i], 1e-6);
}

static void cuda_known_values(void **state) {
  (void)state;
  static const double seed0[] = {-0.9247, -0.4253, -2.6438, 0.1452, -0.1209},
                      seed42[] = {0.1940, 2.1614, -0.1721, 0.8491, -1.9244};
  float small[5];
  mk_noise_cuda(0, MK_NOISE_GRID_H100, small, 5);
  for (int i = 0; i < 5; i++) near(small[i], seed0[i], 6e-5);
  mk_noise_cuda(42, MK_NOISE_GRID_H100, small, 5);
  for (int i = 0; i < 5; i++) near(small[i], seed42[i], 6e-5);
  size_t count = 16 * 21 * 90 * 160;
  float *noise = malloc(count * sizeof *noise);
  mk_noise_cuda(42, MK_NOISE_GRID_H100, noise, count);
  near(noise[270336], -0.970190, 2e-6);
  near(noise[1081344], 0.139138, 2e-6);
  near(noise[count - 1], -0.074092, 2e-6);
  double sum = 0, squares = 0;
  for (size_t i = 0; i < count; i++) sum += (double)noise[i], squares += pow((double)noise[i], 2);
  assert_true(fabs(sum / (double)count) < 2e-3 && fabs(squares / (double)count - 1) < 2e-3);
  free(noise);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(cpu_vectors), cmocka_unit_test(same_seed_same_bits),
                                     cmocka_unit_test(cpu_known_values), cmocka_unit_test(cuda_known_values)};
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The tuner's comparison (templates/compare.cu) on the host against sums made here. Exits with 0 when they agree. */
#include "tests/host/cuda_host.hh"

#include <cstdio>

inline double __longlong_as_double(long long x) {
  double y;
  memcpy(&y, &x, 8);
  return y;
}

#include "templates/compare.cu"

static int bad;

static void expect(bool ok, const char *what) {
  if (!ok) printf("wrong: %s\n", what), bad = 1;
}

template <typename T, void (*KERNEL)(CompareParams)>
static void check(const char *name) {
  const int count = 2 * CHUNK + 77, chunks = 3;
  std::vector<T> want(count), have(count);
  std::vector<double> sums(2 * chunks + 1, -7);
  for (int i = 0; i < count; i++) have[i] = want[i] = from_f32<T>((float)(i % 61 - 30));
  CompareParams p = {want.data(), have.data(), sums.data(), count};
  auto run = [&] {
    u32 grid[3] = {chunks, 1, 1};
    host::launch([](const void *q) { KERNEL(*(const CompareParams *)q); }, &p, grid, THREADS, true);
  };
  run();
  for (int c = 0; c < chunks; c++) {
    double norm = 0;
    for (int i = c * CHUNK; i < count && i < (c + 1) * CHUNK; i++) norm += (double)to_f32(want[i]) * to_f32(want[i]);
    expect(sums[2 * c] == 0, name);
    expect(fabs(sums[2 * c + 1] - norm) <= 1e-9 * norm, name);
  }
  expect(sums[2 * chunks] == -7, "nothing is written beyond the last chunk");
  have[CHUNK + 5] = from_f32<T>(to_f32(want[CHUNK + 5]) + 4); /* one element, seen in its own chunk alone */
  run();
  expect(sums[0] == 0 && sums[2] == 16 && sums[4] == 0, name);
  have[count - 1] = from_f32<T>(to_f32(want[count - 1]) - 2); /* the last one counts, too */
  run();
  expect(sums[4] == 4, name);
}

template <typename T, void (*KERNEL)(CompareParams)>
static void check_numbers(const char *name) {
  std::vector<T> want(100), have(100);
  double sums[2];
  CompareParams p = {want.data(), have.data(), sums, 100};
  u32 grid[3] = {1, 1, 1};
  auto run = [&] { host::launch([](const void *q) { KERNEL(*(const CompareParams *)q); }, &p, grid, THREADS, true); };
  for (int i = 0; i < 100; i++) have[i] = want[i] = from_f32<T>(1);
  want[3] = have[3] = from_f32<T>(NAN); /* poison that neither wrote */
  run();
  expect(sums[0] == 0 && sums[1] == 99, name);
  have[4] = from_f32<T>(NAN); /* poison that the candidate left */
  run();
  expect(std::isinf(sums[0]), name);
  have[4] = want[4];
  have[3] = from_f32<T>(1); /* the candidate wrote where the reference did not */
  run();
  expect(std::isinf(sums[0]), name);
  have[3] = want[3];
  want[5] = from_f32<T>(INFINITY);
  run();
  expect(std::isinf(sums[0]), name);
}

int main() {
  check<float, compare_f32>("f32");
  check<bf16, compare_bf16>("bf16");
  check<f16, compare_f16>("f16");
  check<i32, compare_i32>("i32");
  check_numbers<float, compare_f32>("f32, not a number");
  check_numbers<bf16, compare_bf16>("bf16, not a number");
  check_numbers<f16, compare_f16>("f16, not a number");
  return bad;
}

/* A matmul's operands, small whole numbers, and what it must give. */
#pragma once
#include <cstdio>
#include <string>

template <typename T, typename OUT>
struct matmul_check {
  int m, n, k;
  std::string fused; /* as template_dump.lua's: bias, residual */
  std::vector<T> a, b;
  std::vector<float> bias;
  std::vector<OUT> out;

  void fill() {
    u32 seed = 1;
    auto next = [&] { return (float)((int)((seed = seed * 1664525 + 1013904223) >> 24) % 5 - 2); };
    a.resize((size_t)m * k);
    b.resize((size_t)n * k);
    bias.resize(n);
    out.resize((size_t)m * n, from_f32<OUT>(NAN));
    for (T &v : a) v = from_f32<T>(next());
    for (T &v : b) v = from_f32<T>(next());
    for (float &v : bias) v = next();
    for (size_t i = 0; i < out.size() && fused == "residual"; i++) out[i] = from_f32<OUT>((float)(i % 7));
  }

  bool compare(const char *name) const {
    for (int row = 0; row < m; row++)
      for (int col = 0; col < n; col++) {
        float sum = 0;
        for (int i = 0; i < k; i++) sum += to_f32(a[(size_t)row * k + i]) * to_f32(b[(size_t)col * k + i]);
        size_t at = (size_t)row * n + col;
        float want = fused == "residual" ? (float)(at % 7) + bias[col] * sum : sum + bias[col], got = to_f32(out[at]);
        if (got == to_f32(from_f32<OUT>(want))) continue;
        fprintf(stderr, "%s: row %d column %d is %g, not %g\n", name, row, col, got, want);
        return false;
      }
    return true;
  }
};

/* A convolution's operands, small whole numbers, and what it must give: the definition, element by element. */
#pragma once
#include <cstdio>
#include <string>

template <typename T>
struct check {
  int ti, hi, wi, cin, cout, kt, kh, kw, pad_t, pad_h, pad_w, upsample, to, ho, wo;
  std::string fused; /* as template_dump.lua's: bias, residual, norm */
  std::vector<T> x, w;
  std::vector<float> bias, out;

  void fill() {
    u32 seed = 1;
    auto next = [&] { return (float)((int)((seed = seed * 1664525 + 1013904223) >> 24) % 5 - 2); };
    x.resize((size_t)ti * hi * wi * cin);
    w.resize((size_t)cout * kt * kh * kw * cin);
    bias.resize(cout);
    out.resize((size_t)to * ho * wo * cout, NAN);
    for (T &v : x) v = from_f32<T>(next());
    for (T &v : w) v = from_f32<T>(next());
    for (float &v : bias) v = next();
    for (size_t i = 0; i < out.size() && fused == "residual"; i++) out[i] = (float)(i % 7);
  }

  double product(int t, int h, int v, int n) const {
    double sum = 0;
    for (int a = 0; a < kt; a++)
      for (int b = 0; b < kh; b++)
        for (int c = 0; c < kw; c++) {
          int it = t + a - pad_t, ih = h + b - pad_h, iw = v + c - pad_w;
          if (it < 0 || it >= ti || ih < 0 || ih >= hi * upsample || iw < 0 || iw >= wi * upsample) continue;
          const T *pixel = &x[(((size_t)it * hi + ih / upsample) * wi + iw / upsample) * cin];
          const T *tap = &w[((((size_t)n * kt + a) * kh + b) * kw + c) * cin];
          for (int k = 0; k < cin; k++) sum += (double)to_f32(pixel[k]) * to_f32(tap[k]);
        }
    return sum;
  }

  bool compare(const char *name) const {
    std::vector<double> row(cout);
    for (int i = 0; i < to * ho * wo; i++) {
      double squares = 0;
      for (int n = 0; n < cout; n++) {
        row[n] = product(i / wo / ho, i / wo % ho, i % wo, n);
        squares += row[n] * row[n];
      }
      for (int n = 0; n < cout; n++) {
        size_t at = (size_t)i * cout + n;
        double want = row[n] + bias[n];
        if (fused == "residual") want = (double)(at % 7) + bias[n] * row[n];
        if (fused == "norm") {
          double y = row[n] / sqrt(squares / cout + 1e-6) * bias[n];
          want = y / (1 + exp(-y));
        }
        if (fabs(out[at] - want) <= (fused == "norm" ? 1e-5 : 0)) continue;
        fprintf(stderr, "%s: frame %d pixel %d,%d channel %d is %g, not %g\n", name, i / wo / ho, i / wo % ho, i % wo, n, out[at],
                want);
        return false;
      }
    }
    return true;
  }
};

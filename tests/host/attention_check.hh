/* Attention's operands, what it must give in double precision, and what the usual kernel gives that keeps the running maximum over
 * tiles of 128 keys, rounds the weights to the result's type and sums them unrounded: the error to compare with. */
#pragma once
#include <cstdio>
#include <random>
#include <string>

template <typename T, typename Out>
struct attention_check {
  int batch, heads, sq, sk, channels;
  double scale;
  std::string data; /* normal; dominant: a key takes most of a row; low: scores far below 0; falling, rising: along the keys */
  std::vector<T> q, k, v;
  std::vector<Out> out;

  size_t at(int b, int tokens, int token, int head) const { return (((size_t)b * tokens + token) * heads + head) * channels; }

  void fill() {
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    q.resize((size_t)batch * sq * heads * channels);
    k.resize((size_t)batch * sk * heads * channels);
    v.resize(k.size());
    out.resize(q.size(), from_f32<Out>(NAN));
    for (auto *operand : {&q, &k, &v})
      for (T &x : *operand) x = from_f32<T>(round_to<Out>(normal(bits)));
    for (int b = 0; b < batch; b++)
      for (int h = 0; h < heads; h++) {
        for (int i = 0; data == "dominant" && i < sq; i++)
          memcpy(&k[at(b, sk, i * 7 % sk, h)], &q[at(b, sq, i, h)], channels * sizeof(T));
        // One channel adds the same to all scores of a key.
        for (int i = 0; data != "normal" && data != "dominant" && i < sq; i++) q[at(b, sq, i, h)] = from_f32<T>(1.f);
        for (int i = 0; i < sk; i++) {
          double x = data == "low" ? -800 : data == "falling" ? -400. * i / sk : data == "rising" ? 400. * i / sk : 0;
          if (x != 0) k[at(b, sk, i, h)] = from_f32<T>(round_to<Out>((float)(x / scale)));
        }
      }
  }

  /* Whether the error is at most `limit` times the usual kernel's. */
  bool compare(const char *name, double limit) const {
    double ours = 0, theirs = 0, all = 0;
    std::vector<double> s(sk), want(channels), library(channels);
    for (int b = 0; b < batch; b++)
      for (int h = 0; h < heads; h++)
        for (int i = 0; i < sq; i++) {
          double top = -INFINITY, running = -INFINITY, sum = 0, library_sum = 0;
          for (int j = 0; j < sk; j++) {
            double x = 0;
            for (int c = 0; c < channels; c++) x += (double)to_f32(q[at(b, sq, i, h) + c]) * to_f32(k[at(b, sk, j, h) + c]);
            s[j] = x * scale;
            top = s[j] > top ? s[j] : top;
          }
          for (int c = 0; c < channels; c++) want[c] = library[c] = 0;
          for (int j = 0; j < sk; j++) {
            if (j % 128 == 0)
              for (int n = j; n < sk && n < j + 128; n++) running = s[n] > running ? s[n] : running;
            double w = exp(s[j] - top), fade = exp(running - top), rounded = fade * round_to<Out>((float)exp(s[j] - running));
            sum += w;
            library_sum += w;
            for (int c = 0; c < channels; c++) {
              double y = to_f32(v[at(b, sk, j, h) + c]);
              want[c] += w * y;
              library[c] += rounded * y;
            }
          }
          for (int c = 0; c < channels; c++) {
            double x = want[c] / sum, y = to_f32(out[at(b, sq, i, h) + c]), z = round_to<Out>((float)(library[c] / library_sum));
            all += x * x;
            ours += (y - x) * (y - x);
            theirs += (z - x) * (z - x);
          }
        }
    if (ours <= theirs * limit * limit) return true;
    fprintf(stderr, "%s, %d x %d, %s: error %.4g, the usual kernel's %.4g\n", name, sq, sk, data.c_str(), sqrt(ours / all),
            sqrt(theirs / all));
    return false;
  }
};

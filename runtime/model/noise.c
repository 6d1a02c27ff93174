#include "runtime/model/noise.h"

#include <math.h>

/* Logarithm, sine and cosine are taken in double and rounded once: their last bits differ between C libraries and processors,
 * but practically never enough to change the float. */

/* ---- CPU: MT19937 and Box-Muller over blocks of 16 ---- */

enum { WORDS = 624, MIDDLE = 397, BLOCK = 16 };

typedef struct twister {
  uint32_t word[WORDS];
  int next;
} twister;

static void twister_seed(twister *t, uint32_t seed) {
  t->word[0] = seed;
  for (uint32_t i = 1; i < WORDS; i++) t->word[i] = 1812433253u * (t->word[i - 1] ^ t->word[i - 1] >> 30) + i;
  t->next = WORDS;
}

static void twister_refill(twister *t) {
  for (int i = 0; i < WORDS; i++) {
    uint32_t y = (t->word[i] & 0x80000000u) | (t->word[(i + 1) % WORDS] & 0x7fffffffu);
    t->word[i] = t->word[(i + MIDDLE) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
  }
  t->next = 0;
}

static uint32_t twister_next(twister *t) {
  if (t->next == WORDS) twister_refill(t);
  uint32_t y = t->word[t->next++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ y >> 18;
}

static float uniform24(twister *t) { return (float)(twister_next(t) & 0xffffff) * 0x1p-24f; }

static double uniform53(twister *t) {
  uint64_t high = twister_next(t), low = twister_next(t);
  return (double)((high << 32 | low) & 0x1fffffffffffffull) * 0x1p-53;
}

/* 16 uniforms in [0, 1) to 16 normals, in place: the first half gives radii, the second angles. */
static void normal_block(float *u) {
  for (int j = 0; j < BLOCK / 2; j++) {
    double radius = sqrt(-2 * log(1 - (double)u[j]));
    double angle = (double)((float)(2 * M_PI) * u[j + BLOCK / 2]); /* rounded to float, as PyTorch's vector code does */
    u[j] = (float)(radius * cos(angle));
    u[j + BLOCK / 2] = (float)(radius * sin(angle));
  }
}

/* Fewer than a block: pairs in double, one radius and angle for two values. */
static void normal_pairs(twister *t, float *out, size_t count) {
  for (size_t i = 0; i < count; i += 2) {
    double u = uniform53(t), v = uniform53(t);
    double radius = sqrt(-2 * log1p(-v)), angle = 2 * M_PI * u;
    out[i] = (float)(radius * cos(angle));
    if (i + 1 < count) out[i + 1] = (float)(radius * sin(angle));
  }
}

void mk_noise_cpu(uint64_t seed, float *out, size_t count) {
  twister t;
  twister_seed(&t, (uint32_t)seed);
  if (count < BLOCK) {
    normal_pairs(&t, out, count);
    return;
  }
  for (size_t i = 0; i < count; i++) out[i] = uniform24(&t);
  for (size_t i = 0; i + BLOCK <= count; i += BLOCK) normal_block(out + i);
  if (count % BLOCK) { /* the last 16 are drawn again, over what was there */
    for (size_t i = count - BLOCK; i < count; i++) out[i] = uniform24(&t);
    normal_block(out + count - BLOCK);
  }
}

/* ---- CUDA: Philox4x32-10, four normals per thread and turn ---- */

enum { THREADS = 256, UNROLL = 4 };

static void philox(uint64_t key, uint64_t low, uint64_t high, uint32_t out[4]) {
  uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    uint64_t a = 0xd2511f53ull * c[0], b = 0xcd9e8d57ull * c[2];
    uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
    for (int i = 0; i < 4; i++) c[i] = next[i];
  }
  for (int i = 0; i < 4; i++) out[i] = c[i];
}

/* Two words to two normals, in the single-precision steps of the device code; sine first. */
static void normal_pair(const uint32_t word[2], float out[2]) {
  const float scale = 0x1p-32f, turn = 0x1p-32f * (float)(2 * M_PI);
  float u = fmaf((float)word[0], scale, scale / 2), angle = fmaf((float)word[1], turn, turn / 2);
  float radius = sqrtf(-2 * (float)log((double)u));
  out[0] = radius * (float)sin((double)angle);
  out[1] = radius * (float)cos((double)angle);
}

void mk_noise_cuda(uint64_t seed, uint32_t grid, float *out, size_t count) {
  uint64_t blocks = (count + THREADS - 1) / THREADS;
  uint64_t threads = THREADS * (blocks < grid ? blocks : grid);
  for (uint64_t turn = 0; turn * UNROLL * threads < count; turn++)
    for (uint64_t thread = 0; thread < threads; thread++) {
      uint64_t at = turn * UNROLL * threads + thread;
      if (at >= count) break;
      uint32_t word[4];
      float value[4];
      philox(seed, turn, thread, word);
      normal_pair(word, value);
      normal_pair(word + 2, value + 2);
      for (int i = 0; i < UNROLL && at < count; i++, at += threads) out[at] = value[i];
    }
}

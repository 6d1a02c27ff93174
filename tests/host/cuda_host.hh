/* Enough of a GPU to run generated kernels on the host: the prelude's names in plain C++, and blocks of threads as fibers that
 * take turns at barriers and shuffles. Asynchronous copies happen when they are waited for. Kernels that use tensor cores cannot run
 * here. */
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static /* one block runs at a time */

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using i16 = short;
using u32 = unsigned int;
using i32 = int;
using u64 = unsigned long long;
using i64 = long long;

constexpr int WARP = 32;
constexpr u32 FULL_WARP = 0xffffffffu;
constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* ---- threads */

struct index3 {
  u32 x, y, z;
};
inline index3 threadIdx, blockIdx, blockDim, gridDim;
alignas(1024) inline u8 dynamic_smem[256 << 10];

namespace host {
enum state { RUNS, AT_BLOCK, AT_WARP, DONE };
struct fiber {
  ucontext_t context;
  std::vector<char> stack;
  state at = RUNS;
};
inline std::vector<fiber> fibers;
inline ucontext_t scheduler;
inline u32 current;
inline void (*body)(const void *);
inline const void *params;
inline u64 lanes[1024];

struct copy { /* 16 bytes to shared memory, under way */
  u32 to;
  const void *from;
  bool valid;
  int group;
};
inline std::vector<copy> asynchronous[1024]; /* per thread, oldest first */
inline int groups[1024];

inline void enter() {
  body(params);
  fibers[current].at = DONE;
  swapcontext(&fibers[current].context, &scheduler);
}
inline void wait(state at) {
  fibers[current].at = at;
  u32 self = current;
  swapcontext(&fibers[self].context, &scheduler);
}
/* Releases those of first..last that all wait at the same kind of barrier. */
inline void release(u32 first, u32 last, state at) {
  for (u32 i = first; i < last; i++)
    if (fibers[i].at != at && fibers[i].at != DONE) return;
  for (u32 i = first; i < last; i++)
    if (fibers[i].at == at) fibers[i].at = RUNS;
}
inline void run_block(u32 threads) {
  if (fibers.size() < threads) fibers.resize(threads);
  for (u32 i = 0; i < threads; i++) {
    fiber &f = fibers[i];
    f.at = RUNS;
    asynchronous[i].clear();
    groups[i] = 0;
    if (f.stack.empty()) f.stack.resize(256 << 10);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  for (u32 done = 0; done < threads;) {
    bool moved = false;
    for (u32 i = 0; i < threads; i++) {
      if (fibers[i].at != RUNS) continue;
      moved = true;
      current = i;
      threadIdx = {i, 0, 0};
      swapcontext(&scheduler, &fibers[i].context);
    }
    done = 0;
    for (u32 i = 0; i < threads; i++) done += fibers[i].at == DONE;
    for (u32 i = 0; i < threads; i += 32) release(i, i + 32 < threads ? i + 32 : threads, AT_WARP);
    release(0, threads, AT_BLOCK);
    if (!moved && done < threads) abort(); /* some wait at a barrier that others have left */
  }
}
template <typename T>
T exchange(T x, u32 partner) {
  u64 bits = 0;
  memcpy(&bits, &x, sizeof x);
  lanes[current] = bits;
  wait(AT_WARP);
  bits = lanes[partner];
  wait(AT_WARP);
  memcpy(&x, &bits, sizeof x);
  return x;
}
/* waits: the kernel has barriers or shuffles, so its threads need stacks of their own. */
inline void launch(void (*kernel)(const void *), const void *p, const u32 *grid, u32 threads, bool waits) {
  body = kernel;
  params = p;
  blockDim = {threads, 1, 1};
  gridDim = {grid[0], grid[1], grid[2]};
  for (u32 z = 0; z < grid[2]; z++)
    for (u32 y = 0; y < grid[1]; y++)
      for (u32 x = 0; x < grid[0]; x++) {
        blockIdx = {x, y, z};
        memset(dynamic_smem, 0xff, sizeof dynamic_smem); /* NaN: what is not written is seen */
        if (waits) {
          run_block(threads);
          continue;
        }
        for (u32 i = 0; i < threads; i++) {
          threadIdx = {i, 0, 0};
          kernel(p);
        }
      }
}
}  // namespace host

inline void __syncthreads() { host::wait(host::AT_BLOCK); }
inline void __syncwarp(u32 = FULL_WARP) { host::wait(host::AT_WARP); }
template <typename T>
T __shfl_xor_sync(u32, T x, int mask) {
  return host::exchange(x, host::current ^ (u32)mask);
}
template <typename T>
T __shfl_sync(u32, T x, int lane) {
  return host::exchange(x, host::current / 32 * 32 + (u32)lane % 32);
}
inline int __any_sync(u32, bool x) {
  int any = x;
  for (int d = WARP / 2; d > 0; d /= 2) any |= __shfl_xor_sync(FULL_WARP, any, d);
  return any;
}

inline u32 smem_address(const void *p) { return (u32)((const u8 *)p - dynamic_smem); }
inline void cp_async16(u32 to, const void *from, bool valid) {
  if (to % 16 || (valid && (uintptr_t)from % 16)) abort();
  host::asynchronous[host::current].push_back({to, from, valid, host::groups[host::current]});
}
inline void cp_async_commit() { host::groups[host::current]++; }
template <int N>
void cp_async_wait() {
  std::vector<host::copy> &all = host::asynchronous[host::current];
  size_t done = 0;
  for (; done < all.size() && all[done].group < host::groups[host::current] - N; done++) {
    memset(dynamic_smem + all[done].to, 0, 16);
    if (all[done].valid) memcpy(dynamic_smem + all[done].to, all[done].from, 16);
  }
  all.erase(all.begin(), all.begin() + done);
}

/* ---- the prelude */

inline float __int_as_float(i32 x) {
  float y;
  memcpy(&y, &x, 4);
  return y;
}
inline u32 bits_of(float x) {
  u32 y;
  memcpy(&y, &x, 4);
  return y;
}
template <typename A, typename B>
auto max(A a, B b) { return a > b ? a : b; }
template <typename A, typename B>
auto min(A a, B b) { return a < b ? a : b; }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }

struct alignas(2) bf16 {
  u16 bits;
};
struct alignas(2) f16 {
  u16 bits;
};
inline float to_f32(float x) { return x; }
inline float to_f32(i32 x) { return (float)x; }
inline float to_f32(bf16 x) { return __int_as_float((i32)((u32)x.bits << 16)); }
inline float to_f32(f16 x) {
  _Float16 h;
  memcpy(&h, &x, 2);
  return (float)h;
}
template <typename T>
T from_f32(float x);
template <>
inline float from_f32<float>(float x) { return x; }
template <>
inline i32 from_f32<i32>(float x) { return (i32)x; }
template <>
inline bf16 from_f32<bf16>(float x) {
  u32 b = bits_of(x);
  if (x != x) return bf16{0x7fff};
  return bf16{(u16)((b + 0x7fff + (b >> 16 & 1)) >> 16)};
}
template <>
inline f16 from_f32<f16>(float x) {
  _Float16 h = (_Float16)x;
  f16 y;
  memcpy(&y, &h, 2);
  return y;
}
template <typename T>
u32 pack2(float lo, float hi) { return (u32)from_f32<T>(hi).bits << 16 | from_f32<T>(lo).bits; }
template <typename T>
void unpack2(u32 x, float &lo, float &hi) {
  lo = to_f32(T{(u16)x});
  hi = to_f32(T{(u16)(x >> 16)});
}
template <typename T>
float round_to(float x) { return to_f32(from_f32<T>(x)); }

/* Aborts where the GPU would fault: a piece must lie at a multiple of its size. */
template <int V, typename T>
void check_aligned(const T *p) {
  constexpr int BYTES = V * (int)sizeof(T), PIECE = BYTES < 16 ? BYTES : 16;
  if ((uintptr_t)p % PIECE) abort();
}
template <int V, typename T>
void load_vec(const T *p, float (&v)[V]) {
  check_aligned<V>(p);
  for (int i = 0; i < V; i++) v[i] = to_f32(p[i]);
}
template <int V, typename T>
void store_vec(T *p, const float (&v)[V]) {
  check_aligned<V>(p);
  for (int i = 0; i < V; i++) p[i] = from_f32<T>(v[i]);
}
template <typename T>
void prefetch_vec(const T *p, int count) {
  if ((uintptr_t)p % 16 || count <= 0 || count * sizeof(T) % 16) abort();
}

inline float ex2(float x) { return exp2f(x); }
inline float fast_recip(float x) { return 1.f / x; }
inline float op_neg(float x) { return -x; }
inline float op_abs(float x) { return fabsf(x); }
inline float op_exp(float x) { return expf(x); }
inline float op_log(float x) { return logf(x); }
inline float op_sqrt(float x) { return sqrtf(x); }
inline float op_rsqrt(float x) { return rsqrtf(x); }
inline float op_recip(float x) { return 1.f / x; }
inline float op_sin(float x) { return sinf(x); }
inline float op_cos(float x) { return cosf(x); }
inline float op_tanh(float x) { return tanhf(x); }
inline float op_sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
inline float op_silu(float x) { return x * op_sigmoid(x); }
inline float op_gelu(float x) { return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); }
inline float op_max(float a, float b) { return fmaxf(a, b); }
inline float op_min(float a, float b) { return fminf(a, b); }

inline float warp_sum(float x) {
  for (int d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(FULL_WARP, x, d);
  return x;
}
inline float warp_max(float x) {
  for (int d = WARP / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, d));
  return x;
}
struct alignas(64) tmap {
  u8 bytes[128];
};

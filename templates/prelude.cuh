/* The device prelude: what every generated kernel starts with. Own types, conversions by PTX, wide loads and stores, warp
 * reductions, the asynchronous copy and the tensor-core instructions of sm_80, and one function per elementwise IR operation.
 *
 * No CUDA or C++ header is included and none is needed, so a kernel compiles in tens of milliseconds. NVRTC itself provides
 * threadIdx and its kin, the shuffles, and the accurate device functions (expf, logf, sinf, tanhf, sqrtf, rsqrtf, fmaf, ...). */

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using i16 = short;
using u32 = unsigned int;
using i32 = int;
using u64 = unsigned long long;
using i64 = long long;

static_assert(sizeof(i32) == 4 && sizeof(i64) == 8 && sizeof(u16) == 2, "unexpected integer sizes");

constexpr int WARP = 32;
constexpr u32 FULL_WARP = 0xffffffffu;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* ---- 16-bit floats: storage only, arithmetic is f32 ---- */

struct alignas(2) bf16 {
  u16 bits;
};
struct alignas(2) f16 {
  u16 bits;
};

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(i32 x) { return (float)x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __int_as_float((i32)((u32)x.bits << 16)); }
__device__ __forceinline__ float to_f32(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

/* Two f32 to two packed 16-bit values, rounded to nearest even; lo goes to the lower address. */
template <typename T>
__device__ __forceinline__ u32 pack2(float lo, float hi);
template <>
__device__ __forceinline__ u32 pack2<bf16>(float lo, float hi) {
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
template <>
__device__ __forceinline__ u32 pack2<f16>(float lo, float hi) {
  u32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}

/* The two halves of a packed pair as f32. */
template <typename T>
__device__ __forceinline__ void unpack2(u32 x, float &lo, float &hi);
template <>
__device__ __forceinline__ void unpack2<bf16>(u32 x, float &lo, float &hi) {
  lo = __int_as_float((i32)(x << 16));
  hi = __int_as_float((i32)(x & 0xffff0000u));
}
template <>
__device__ __forceinline__ void unpack2<f16>(u32 x, float &lo, float &hi) {
  lo = to_f32(f16{(u16)x});
  hi = to_f32(f16{(u16)(x >> 16)});
}

template <typename T>
__device__ __forceinline__ T from_f32(float x);
template <>
__device__ __forceinline__ float from_f32<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ i32 from_f32<i32>(float x) {
  return (i32)x;
}
template <>
__device__ __forceinline__ bf16 from_f32<bf16>(float x) {
  return bf16{(u16)pack2<bf16>(x, 0.f)};
}
template <>
__device__ __forceinline__ f16 from_f32<f16>(float x) {
  return f16{(u16)pack2<f16>(x, 0.f)};
}

/* What a cast node means where both sides stay in registers: the value an f32 has after a round trip through T. */
template <typename T>
__device__ __forceinline__ float round_to(float x) {
  return to_f32(from_f32<T>(x));
}

/* ---- vectors: V adjacent elements as f32, moved in pieces of up to 16 bytes ----
 * The address must be a multiple of the piece, min(16, V * sizeof(T)) bytes. */

template <int BYTES>
struct piece_of;
template <>
struct piece_of<2> {
  using type = u16;
};
template <>
struct piece_of<4> {
  using type = u32;
};
template <>
struct piece_of<8> {
  struct alignas(8) type {
    u32 w[2];
  };
};
template <>
struct piece_of<16> {
  struct alignas(16) type {
    u32 w[4];
  };
};

template <typename T, int V>
union vec {
  static constexpr int BYTES = V * (int)sizeof(T);
  static constexpr int PIECE = BYTES < 16 ? BYTES : 16;
  static constexpr int PIECES = BYTES / PIECE;
  using piece = typename piece_of<PIECE>::type;
  static_assert(V == 1 || V == 2 || V == 4 || V == 8 || V == 16, "a vector has a power of two of elements");

  piece pieces[PIECES];
  u32 words[BYTES < 4 ? 1 : BYTES / 4];
  T elements[V];
};

template <int V, typename T>
__device__ __forceinline__ void load_vec(const T *p, float (&v)[V]) {
  vec<T, V> x;
#pragma unroll
  for (int i = 0; i < vec<T, V>::PIECES; i++) x.pieces[i] = reinterpret_cast<const typename vec<T, V>::piece *>(p)[i];
  if constexpr (sizeof(T) == 2 && V >= 2) {
#pragma unroll
    for (int i = 0; i < V / 2; i++) unpack2<T>(x.words[i], v[2 * i], v[2 * i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = to_f32(x.elements[i]);
  }
}

template <int V, typename T>
__device__ __forceinline__ void store_vec(T *p, const float (&v)[V]) {
  vec<T, V> x;
  if constexpr (sizeof(T) == 2 && V >= 2) {
#pragma unroll
    for (int i = 0; i < V / 2; i++) x.words[i] = pack2<T>(v[2 * i], v[2 * i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) x.elements[i] = from_f32<T>(v[i]);
  }
#pragma unroll
  for (int i = 0; i < vec<T, V>::PIECES; i++) reinterpret_cast<typename vec<T, V>::piece *>(p)[i] = x.pieces[i];
}

/* Asks for adjacent elements to be in L2 soon (sm_90); both ends are multiples of 16 bytes. */
template <typename T>
__device__ __forceinline__ void prefetch_vec(const T *p, int count) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(count * (int)sizeof(T)) : "memory");
}

/* ---- elementwise operations of the IR: op_NAME for every NAME of class unary (but cast) and binary ----
 * Relative error at most 1e-6 against exact arithmetic on the same f32 input (gelu's tail, below -5, loses a digit or two to
 * its argument's rounding). The exponential forms saturate correctly at both ends without a branch. */

/* 2^x, error 2 ulp, tiny results flushed to zero; for softmax with log2(e) folded in its scale. */
__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/* 1/x, error 1 ulp, for normal x and 1/x. */
__device__ __forceinline__ float fast_recip(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float op_neg(float x) { return -x; }
__device__ __forceinline__ float op_abs(float x) { return fabsf(x); }
__device__ __forceinline__ float op_exp(float x) { return expf(x); }
__device__ __forceinline__ float op_log(float x) { return logf(x); }
__device__ __forceinline__ float op_sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ float op_rsqrt(float x) { return rsqrtf(x); }
__device__ __forceinline__ float op_recip(float x) { return 1.f / x; }
__device__ __forceinline__ float op_sin(float x) { return sinf(x); }
__device__ __forceinline__ float op_cos(float x) { return cosf(x); }
__device__ __forceinline__ float op_tanh(float x) { return tanhf(x); }
__device__ __forceinline__ float op_sigmoid(float x) { return fast_recip(1.f + expf(-x)); }
__device__ __forceinline__ float op_silu(float x) { return x * op_sigmoid(x); }
/* tanh form; 0.5 (1 + tanh u) = sigmoid(2u) keeps the negative tail, where 1 + tanh cancels. */
__device__ __forceinline__ float op_gelu(float x) { return x * op_sigmoid(x * fmaf(0.0713548162726f, x * x, 1.5957691216057f)); }
__device__ __forceinline__ float op_add(float a, float b) { return a + b; }
__device__ __forceinline__ float op_sub(float a, float b) { return a - b; }
__device__ __forceinline__ float op_mul(float a, float b) { return a * b; }
__device__ __forceinline__ float op_div(float a, float b) { return a / b; }
__device__ __forceinline__ float op_max(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ float op_min(float a, float b) { return fminf(a, b); }

/* ---- warp reductions: every lane gets the result; the order is fixed, so is the result ---- */

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(FULL_WARP, x, d);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, d));
  return x;
}

/* ---- shared memory and asynchronous copies ---- */

/* All dynamic shared memory of a block; templates cast it to what they keep there. */
extern __shared__ __align__(1024) u8 dynamic_smem[];

__device__ __forceinline__ u32 smem_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

/* 16 bytes global to shared past L1. Not valid: src, which may then point anywhere, is not read, and zeros are written. */
__device__ __forceinline__ void cp_async16(u32 dst, const void *src, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most N of this thread's newest groups are still under way. */
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- tensor cores ---- */

/* Four 8x8 matrices of 16-bit elements (or 8x4 of 32-bit ones); lanes 8i..8i+7 name the rows of matrix i, 16 bytes each. */
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/* d += a b for one 16x8 tile, f32 accumulation. a is 16 rows by 32 bytes of k, b is 32 bytes of k by 8 columns:
 * k = 16 for bf16 and f16, k = 8 for f32 taken as TF32 (round the operands with to_tf32 first). */
template <typename T>
__device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]);
template <>
__device__ __forceinline__ void mma<bf16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma<f16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma<float>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* f32 bits to TF32 bits, rounded to nearest: the tensor core alone would truncate, which biases long sums. */
__device__ __forceinline__ u32 to_tf32(u32 x) {
  u32 y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(__int_as_float((i32)x)));
  return y;
}

/* ---- a TMA tensor map, as the driver encodes it; passed by value in Params ---- */

struct alignas(64) tmap {
  u8 bytes[128];
};

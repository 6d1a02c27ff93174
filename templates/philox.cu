/* Random normals by Philox4x32-10 counters: no state, every element's value follows from its index. Composed behind the prelude
 * by the runtime; both kernels are grid-stride loops, so any launch geometry gives the same result. Bound: writing, about.
 *
 * normal_torch      PyTorch's CUDA generator, bit for bit. What it draws depends on its own launch geometry: `threads` is the
 *                   number of threads of that launch, 256 min(multiprocessors * (threads per multiprocessor / 256), ceil(count /
 * 256)). normal_fill_*     weights for timing without a checkpoint: mean + scale * N(0, 1), another stream for each tensor. */

struct u32x4 {
  u32 x, y, z, w;
};

__device__ __forceinline__ u32x4 philox(u64 position, u64 stream, u64 key) {
  u32x4 c = {(u32)position, (u32)(position >> 32), (u32)stream, (u32)(stream >> 32)};
  u32 k0 = (u32)key, k1 = (u32)(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u32 hi0 = __umulhi(0xD2511F53u, c.x), lo0 = 0xD2511F53u * c.x;
    const u32 hi1 = __umulhi(0xCD9E8D57u, c.z), lo1 = 0xCD9E8D57u * c.z;
    c = {hi1 ^ c.y ^ k0, lo1, hi0 ^ c.w ^ k1, lo0};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/* Box-Muller with the operations, constants and contractions of cuRAND's curand_normal4: the logarithm is the accurate one, the
 * sine and cosine are the hardware's approximations. */
__device__ __forceinline__ void box_muller(u32 a, u32 b, float &first, float &second) {
  constexpr float INV_2POW32 = 2.3283064e-10f, TAU_INV_2POW32 = 2.3283064e-10f * 6.2831855f;
  const float u = fmaf((float)a, INV_2POW32, INV_2POW32 / 2);
  const float v = fmaf((float)b, TAU_INV_2POW32, TAU_INV_2POW32 / 2);
  const float s = sqrtf(-2.f * logf(u));
  float sine, cosine;
  asm("sin.approx.f32 %0, %1;" : "=f"(sine) : "f"(v));
  asm("cos.approx.f32 %0, %1;" : "=f"(cosine) : "f"(v));
  first = sine * s;
  second = cosine * s;
}

__device__ __forceinline__ void normal4(u64 position, u64 stream, u64 key, float (&v)[4]) {
  const u32x4 r = philox(position, stream, key);
  box_muller(r.x, r.y, v[0], v[1]);
  box_muller(r.z, r.w, v[2], v[3]);
}

__device__ __forceinline__ i64 thread_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 thread_count() { return (i64)gridDim.x * blockDim.x; }

struct TorchNormalParams {
  float *out;
  i64 count;
  u64 seed;
  u64 offset; /* the generator's: a multiple of 4; a draw adds 4 * (1 + (count - 1) / (4 * threads)) to it */
  i64 threads;
};

/* Thread t of the imitated launch draws four values in each of its turns, for the elements `threads` apart. */
extern "C" __global__ void __launch_bounds__(256) normal_torch(const __grid_constant__ TorchNormalParams p) {
  const i64 turns = (p.count + 4 * p.threads - 1) / (4 * p.threads);
  for (i64 i = thread_index(); i < turns * p.threads; i += thread_count()) {
    const i64 turn = i / p.threads, thread = i % p.threads;
    float v[4];
    normal4(p.offset / 4 + turn, thread, p.seed, v);
#pragma unroll
    for (int x = 0; x < 4; x++) {
      const i64 element = (turn * 4 + x) * p.threads + thread;
      if (element < p.count) p.out[element] = v[x] + 0.f; /* times the deviation 1, plus the mean 0: -0 becomes 0 */
    }
  }
}

struct NormalFillParams {
  void *out; /* 16-byte aligned */
  i64 count;
  u64 seed;
  u64 stream; /* tells tensors apart: a hash of the name, say */
  float mean, scale;
};

template <typename T>
__device__ __forceinline__ void normal_fill(const NormalFillParams &p) {
  T *out = static_cast<T *>(p.out);
  for (i64 four = thread_index(); 4 * four < p.count; four += thread_count()) {
    float v[4];
    normal4(four, p.stream, p.seed, v);
#pragma unroll
    for (int x = 0; x < 4; x++) v[x] = fmaf(v[x], p.scale, p.mean);
    if (4 * four + 4 <= p.count) {
      store_vec<4>(out + 4 * four, v);
    } else {
#pragma unroll
      for (int x = 0; x < 3; x++)
        if (4 * four + x < p.count) out[4 * four + x] = from_f32<T>(v[x]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(256) normal_fill_f32(const __grid_constant__ NormalFillParams p) {
  normal_fill<float>(p);
}
extern "C" __global__ void __launch_bounds__(256) normal_fill_f16(const __grid_constant__ NormalFillParams p) {
  normal_fill<f16>(p);
}
extern "C" __global__ void __launch_bounds__(256) normal_fill_bf16(const __grid_constant__ NormalFillParams p) {
  normal_fill<bf16>(p);
}

/* Two tensors against each other, for the tuner: composed behind the prelude by the runtime. Each block takes CHUNK elements in
 * order and leaves two sums, of (have - want)² and of want², so that one wrong tile among thousands is seen in its own place.
 * Where neither is a number, nothing is added; where only one is, the difference is infinite. Bound: reading. */

constexpr int CHUNK = 4096, THREADS = 256;

struct CompareParams {
  const void *want;
  const void *have;
  double *sums; /* two per block */
  i64 count;
};

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

__device__ __forceinline__ bool is_number(float x) { return fabsf(x) <= 3.4028235e38f; }

template <typename T>
__device__ __forceinline__ void compare(const CompareParams &p) {
  __shared__ double parts[2][THREADS / 32];
  const T *want = static_cast<const T *>(p.want), *have = static_cast<const T *>(p.have);
  const i64 first = (i64)blockIdx.x * CHUNK;
  double difference = 0, norm = 0;
  for (int i = threadIdx.x; i < CHUNK && first + i < p.count; i += THREADS) {
    const float w = to_f32(want[first + i]), h = to_f32(have[first + i]);
    if (is_number(w) && is_number(h)) {
      const double d = (double)h - (double)w;
      difference += d * d;
      norm += (double)w * (double)w;
    } else if (is_number(w) || is_number(h)) {
      difference += __longlong_as_double(0x7ff0000000000000ll);
    }
  }
  difference = warp_sum(difference);
  norm = warp_sum(norm);
  if (threadIdx.x % 32 == 0) {
    parts[0][threadIdx.x / 32] = difference;
    parts[1][threadIdx.x / 32] = norm;
  }
  __syncthreads();
  if (threadIdx.x < 2) {
    double sum = 0;
    for (int i = 0; i < THREADS / 32; i++) sum += parts[threadIdx.x][i];
    p.sums[2 * (i64)blockIdx.x + threadIdx.x] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) compare_f32(const __grid_constant__ CompareParams p) { compare<float>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) compare_f16(const __grid_constant__ CompareParams p) { compare<f16>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) compare_bf16(const __grid_constant__ CompareParams p) { compare<bf16>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) compare_i32(const __grid_constant__ CompareParams p) { compare<i32>(p); }

/* Attention with every product and sum in f32: softmax(scale · q kᵀ + bias) v per head, any number of channels up to 512, any
 * number of queries and keys, any strides. For f32 operands and for sizes that the tensor-core kernels do not take.
 *
 * A block of 16 x 16 threads holds 64 queries and walks the keys 64 at a time. Scores: thread (ty, tx) has queries 4 ty.. and keys
 * 4 tx.., from 32 channels of q and k at a time, channel-major in shared memory. Sums: the same queries, channels tx, tx + 16, ...,
 * from 16 keys of v at a time. The lines of shared memory are read as float4, or 16 neighbouring floats, without bank conflicts.
 * Bound by the f32 units and shared memory's issue rate; q, k and v come through L1 and L2 again for each tile. */

constexpr int TILE = 64, CHANNELS = 32, KEYS = 16;
constexpr int LINE = TILE + 4;                  // floats; the pad spreads a warp's 8 channels by 4 rows over all banks
constexpr int COLUMNS = ceil_div(HEAD_DIM, 16); // output channels of a thread

/* 64 rows by 32 channels, channel-major; zeros outside. A warp reads 4 rows by 8 channels at a time. */
__device__ __forceinline__ void load_panel(float *dst, const T *src, i64 stride, int first_row, int rows, int first_channel) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int row = 8 * warp + i / 4 * 4 + lane / 8, channel = i % 4 * 8 + lane % 8;
    const bool valid = first_row + row < rows && first_channel + channel < HEAD_DIM;
    dst[channel * LINE + row] = valid ? to_f32(src[(first_row + row) * stride + first_channel + channel]) : 0.f;
  }
}

struct alignas(16) Four {
  float x[4];
};
__device__ __forceinline__ Four four_at(const float *p) { return *(const Four *)p; }

/* Reductions over the 16 threads that share queries. */
__device__ __forceinline__ float half_max(float x) {
#pragma unroll
  for (int d = 8; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, d));
  return x;
}
__device__ __forceinline__ float half_sum(float x) {
#pragma unroll
  for (int d = 8; d > 0; d /= 2) x += __shfl_xor_sync(FULL_WARP, x, d);
  return x;
}

extern "C" __global__ void __launch_bounds__(256) KERNEL(const __grid_constant__ Params p) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int first_query = blockIdx.x * TILE, head = blockIdx.y, batch = blockIdx.z;
  const T *q = (const T *)p.q + batch * p.q_batch + head * p.q_head;
  const T *k = (const T *)p.k + batch * p.k_batch + head * p.k_head;
  const T *v = (const T *)p.v + batch * p.v_batch + head * p.v_head;
  const float *bias = (const float *)p.bias;
  float *queries = (float *)dynamic_smem, *keys_at = queries + CHANNELS * LINE, *prob = keys_at + CHANNELS * LINE;
  float *values = prob + TILE * LINE;

  int keys = p.sk;
  if constexpr (HAS_KV_LEN) keys = max(1, min(keys, *(const i32 *)p.kv_len));
  const int reach = CAUSAL ? min(keys, first_query + TILE) : keys;
  const float never = __int_as_float((i32)0xff800000);
  float o[4][COLUMNS], top[4], sum[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    top[i] = never, sum[i] = 0.f;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) o[i][j] = 0.f;
  }

#pragma unroll 1
  for (int first_key = 0; first_key < reach; first_key += TILE) {
    float s[4][4] = {};
#pragma unroll 1
    for (int c = 0; c < HEAD_DIM; c += CHANNELS) {
      __syncthreads();
      load_panel(queries, q, p.q_token, first_query, p.sq, c);
      load_panel(keys_at, k, p.k_token, first_key, keys, c);
      __syncthreads();
#pragma unroll 8
      for (int i = 0; i < CHANNELS; i++) {
        const Four a = four_at(queries + i * LINE + 4 * ty), b = four_at(keys_at + i * LINE + 4 * tx);
#pragma unroll
        for (int y = 0; y < 4; y++)
#pragma unroll
          for (int x = 0; x < 4; x++) s[y][x] = fmaf(a.x[y], b.x[x], s[y][x]);
      }
    }

#pragma unroll
    for (int y = 0; y < 4; y++) {
      const int query = first_query + 4 * ty + y;
#pragma unroll
      for (int x = 0; x < 4; x++) {
        const int key = first_key + 4 * tx + x;
        s[y][x] *= p.scale;
        if (key >= keys || (CAUSAL && key > query))
          s[y][x] = never;
        else if (BIAS != 0 && query < p.sq)
          s[y][x] += BIAS == 1 ? bias[((i64)head * p.sq + query) * p.sk + key] : bias[(i64)head * (p.sq + p.sk - 1) + key - query + p.sq - 1];
      }
      const float now = fmaxf(top[y], half_max(fmaxf(fmaxf(s[y][0], s[y][1]), fmaxf(s[y][2], s[y][3]))));
      const float base = now == never ? 0.f : now; // a row with nothing to see yet
      const float fade = expf(top[y] - base);
      top[y] = now;
#pragma unroll
      for (int x = 0; x < 4; x++) s[y][x] = expf(s[y][x] - base);
      sum[y] = fmaf(sum[y], fade, half_sum((s[y][0] + s[y][1]) + (s[y][2] + s[y][3])));
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) o[y][j] *= fade;
    }
#pragma unroll
    for (int x = 0; x < 4; x++) *(Four *)(prob + (4 * tx + x) * LINE + 4 * ty) = {{s[0][x], s[1][x], s[2][x], s[3][x]}};

#pragma unroll 1
    for (int from = 0; from < TILE && first_key + from < reach; from += KEYS) {
      __syncthreads();
      for (int at = threadIdx.x; at < KEYS * HEAD_DIM; at += 256) {
        const int key = first_key + from + at / HEAD_DIM;
        values[at / HEAD_DIM * (16 * COLUMNS) + at % HEAD_DIM] = key < keys ? to_f32(v[key * p.v_token + at % HEAD_DIM]) : 0.f;
      }
      __syncthreads();
#pragma unroll 2
      for (int i = 0; i < KEYS; i++) {
        const Four a = four_at(prob + (from + i) * LINE + 4 * ty);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
          const float b = HEAD_DIM % 16 == 0 || tx + 16 * j < HEAD_DIM ? values[i * (16 * COLUMNS) + tx + 16 * j] : 0.f;
#pragma unroll
          for (int y = 0; y < 4; y++) o[y][j] = fmaf(a.x[y], b, o[y][j]);
        }
      }
    }
  }

#pragma unroll
  for (int y = 0; y < 4; y++) {
    const int query = first_query + 4 * ty + y;
    const float scale = sum[y] > 0.f ? 1.f / sum[y] : 0.f;
    if (query < p.sq) {
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) {
        const float out[1] = {o[y][j] * scale};
        if (HEAD_DIM % 16 == 0 || tx + 16 * j < HEAD_DIM) epilogue<1>(p, (i64)batch * p.sq + query, head * HEAD_DIM + tx + 16 * j, out);
      }
    }
  }
}

/* Attention on mma.sync (sm_80 and up): softmax(scale · q kᵀ + bias) v per head for any multiple of 16 channels, any number of
 * queries and keys, with an optional bias, key length and causal mask.
 *
 * Tile: 16 or 32 queries a warp, four warps, by 32 or 64 keys; above 128 channels two warps share 16 queries, since one thread cannot
 * hold the sums: each repeats the scores and sums half of the channels. K and V tiles take turns in a ring of STAGES slots filled by
 * cp.async, rows padded by 16 bytes; one barrier a slot both publishes the next tile and frees the last. Scores, weights and sums
 * stay in registers, queries too where there is room. Keys behind the end arrive as zeros; only tiles that need a mask apply one.
 *
 * Bound by the tensor cores' older path and by shared memory: a fragment of keys or values serves 16 queries' products, 32 with
 * WARP_TILES = 2, which is worth 15-20 %. On an H200, in TFLOP/s: 307-315 at 40 heads of 128 and 28,800-75,600 tokens (FlashAttention-2:
 * 352), 144 at 384 channels and 21 x 14,400 tokens (PyTorch's own: 129), of which the repeated scores cost a third.
 *
 * Tried and lost: leaving the register target to ptxas (on sm_100 it aims at 80 registers for 32 channels, and spills). */

constexpr int LINE = HEAD_DIM + 8;                     // elements of a row in shared memory: padded, so ldmatrix meets no bank twice
constexpr int ROW_WARPS = TILE_M / (16 * WARP_TILES);  // a warp has WARP_TILES tiles of 16 queries
constexpr int THREADS = 32 * ROW_WARPS * SPLIT;        // SPLIT warps share the queries: each repeats the scores, sums its own channels
constexpr int SLICE = HEAD_DIM / SPLIT;
constexpr int SLOT = TILE_N * LINE * 2;                // bytes of a tile of keys or values
constexpr bool KEEP_Q = HEAD_DIM * WARP_TILES <= 128;  // query fragments stay in registers
constexpr float LOG2E = 1.4426950408889634f;

static_assert(HEAD_DIM % 16 == 0 && SLICE % 16 == 0 && TILE_N % 16 == 0, "whole mma tiles");

/* ROWS rows of HEAD_DIM channels from row `first` on, zeros at and behind `limit`. */
template <int ROWS>
__device__ __forceinline__ void load_rows(u32 dst, const T *src, i64 stride, int first, int limit) {
  constexpr int CHUNKS = HEAD_DIM / 8, ALL = ROWS * CHUNKS;
#pragma unroll
  for (int i = 0; i < ceil_div(ALL, THREADS); i++) {
    const int at = i * THREADS + threadIdx.x, row = at / CHUNKS, chunk = at % CHUNKS;
    if (ALL % THREADS == 0 || at < ALL) {
      const bool valid = first + row < limit;
      cp_async16(dst + (row * LINE + chunk * 8) * 2, src + (valid ? first + row : 0) * stride + chunk * 8, valid);
    }
  }
}

__device__ __forceinline__ void load_query(u32 (&a)[WARP_TILES][4], u32 q, int step, int lane) {
#pragma unroll
  for (int m = 0; m < WARP_TILES; m++) ldmatrix_x4(a[m], q + ((16 * m + lane % 16) * LINE + 16 * step + lane / 16 * 8) * 2);
}

/* Bias of one score, in units of log2. */
__device__ __forceinline__ float bias_at(const Params &p, int head, int query, int key) {
  const float *bias = (const float *)p.bias;
  if constexpr (BIAS == 1) return LOG2E * bias[((i64)head * p.sq + query) * p.sk + key];
  return LOG2E * bias[(i64)head * (p.sq + p.sk - 1) + key - query + p.sq - 1];
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quad = lane % 4;
  const int first_query = blockIdx.x * TILE_M, head = blockIdx.y, batch = blockIdx.z;
  const int warp_query = warp % ROW_WARPS * (16 * WARP_TILES), slice = warp / ROW_WARPS * SLICE;
  const T *q = (const T *)p.q + batch * p.q_batch + head * p.q_head;
  const T *k = (const T *)p.k + batch * p.k_batch + head * p.k_head;
  const T *v = (const T *)p.v + batch * p.v_batch + head * p.v_head;
  const u32 q_at = smem_address(dynamic_smem), ring_at = q_at + TILE_M * LINE * 2;

  int keys = p.sk;
  if constexpr (HAS_KV_LEN) keys = max(1, min(keys, *(const i32 *)p.kv_len));
  const int reach = CAUSAL ? min(keys, first_query + TILE_M) : keys; // no query of the block looks further
  const int steps = 2 * ceil_div(reach, TILE_N);                      // K and V of each tile by turns

  const auto load_step = [&](int step) {
    if (step < steps)
      load_rows<TILE_N>(ring_at + step % STAGES * SLOT, step % 2 ? v : k, step % 2 ? p.v_token : p.k_token, step / 2 * TILE_N, keys);
    cp_async_commit();
  };

  load_rows<TILE_M>(q_at, q, p.q_token, first_query, p.sq);
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) load_step(i);

  // With no bias the scale is folded into the exponent's multiply-add; with one, scores are brought to log2 units first.
  const float c = p.scale * LOG2E, unit = BIAS ? 1.f : c;
  const float never = __int_as_float((i32)0xff800000);
  float o[WARP_TILES][SLICE / 2], top[WARP_TILES][2], sum[WARP_TILES][2];
  u32 kept[KEEP_Q ? HEAD_DIM / 16 : 1][WARP_TILES][4];
#pragma unroll
  for (int m = 0; m < WARP_TILES; m++) {
#pragma unroll
    for (int i = 0; i < SLICE / 2; i++) o[m][i] = 0.f;
#pragma unroll
    for (int h = 0; h < 2; h++) top[m][h] = never, sum[m][h] = 0.f;
  }

  for (int step = 0; step < steps; step += 2) {
    const int first_key = step / 2 * TILE_N;
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load_step(step + STAGES - 1);
    const u32 k_at = ring_at + step % STAGES * SLOT;
    if constexpr (KEEP_Q) {
      if (step == 0) {
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 16; i++) load_query(kept[KEEP_Q ? i : 0], q_at + warp_query * LINE * 2, i, lane);
      }
    }

    float s[WARP_TILES][TILE_N / 8][4];
#pragma unroll
    for (int m = 0; m < WARP_TILES; m++)
#pragma unroll
      for (int n = 0; n < TILE_N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[m][n][i] = 0.f;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; i++) {
      u32 now[WARP_TILES][4];
      if constexpr (!KEEP_Q) load_query(now, q_at + warp_query * LINE * 2, i, lane);
#pragma unroll
      for (int n = 0; n < TILE_N / 16; n++) {
        u32 b[4];
        ldmatrix_x4(b, k_at + ((16 * n + lane % 8 + lane / 16 * 8) * LINE + 16 * i + lane / 8 % 2 * 8) * 2);
#pragma unroll
        for (int m = 0; m < WARP_TILES; m++) {
          const u32(&a)[4] = KEEP_Q ? kept[KEEP_Q ? i : 0][m] : now[m];
          mma<T>(s[m][2 * n], a, {b[0], b[1]});
          mma<T>(s[m][2 * n + 1], a, {b[2], b[3]});
        }
      }
    }

    u32 prob[WARP_TILES][TILE_N / 16][4];
#pragma unroll
    for (int m = 0; m < WARP_TILES; m++) {
      const int query = first_query + warp_query + 16 * m + lane / 4;
      if constexpr (BIAS != 0) {
#pragma unroll
        for (int n = 0; n < TILE_N / 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) // a clamped index reads a bias that the mask below drops
            s[m][n][i] = fmaf(s[m][n][i], c,
                              bias_at(p, head, min(query + i / 2 * 8, p.sq - 1), min(first_key + 8 * n + 2 * quad + i % 2, p.sk - 1)));
      }
      if (first_key + TILE_N > keys || (CAUSAL && first_key + TILE_N > first_query + warp_query + 16 * m)) {
#pragma unroll
        for (int n = 0; n < TILE_N / 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int key = first_key + 8 * n + 2 * quad + i % 2;
            if (key >= keys || (CAUSAL && key > query + i / 2 * 8)) s[m][n][i] = never;
          }
      }
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float x = top[m][h];
#pragma unroll
        for (int n = 0; n < TILE_N / 8; n++) x = fmaxf(x, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
        x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
        const float base = x == never ? 0.f : x * unit; // a row with nothing to see yet
        const float fade = ex2(fmaf(top[m][h], unit, -base));
        top[m][h] = x;
        float total = 0.f;
#pragma unroll
        for (int n = 0; n < TILE_N / 8; n++)
#pragma unroll
          for (int e = 0; e < 2; e++) {
            s[m][n][2 * h + e] = ex2(fmaf(s[m][n][2 * h + e], unit, -base));
            total += s[m][n][2 * h + e];
          }
        sum[m][h] = fmaf(sum[m][h], fade, total);
#pragma unroll
        for (int i = 0; i < SLICE / 8; i++) o[m][4 * i + 2 * h] *= fade, o[m][4 * i + 2 * h + 1] *= fade;
      }
#pragma unroll
      for (int n = 0; n < TILE_N / 16; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) prob[m][n][i] = pack2<T>(s[m][2 * n + i / 2][i % 2 * 2], s[m][2 * n + i / 2][i % 2 * 2 + 1]);
    }

    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load_step(step + STAGES);
    const u32 v_at = ring_at + (step + 1) % STAGES * SLOT;
#pragma unroll
    for (int n = 0; n < TILE_N / 16; n++)
#pragma unroll
      for (int i = 0; i < SLICE / 16; i++) {
        u32 b[4];
        ldmatrix_x4_trans(b, v_at + ((16 * n + lane % 16) * LINE + slice + 16 * i + lane / 16 * 8) * 2);
#pragma unroll
        for (int m = 0; m < WARP_TILES; m++) {
          mma<T>(*(float(*)[4]) & o[m][8 * i], prob[m][n], {b[0], b[1]});
          mma<T>(*(float(*)[4]) & o[m][8 * i + 4], prob[m][n], {b[2], b[3]});
        }
      }
  }

#pragma unroll
  for (int m = 0; m < WARP_TILES; m++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      sum[m][h] += __shfl_xor_sync(FULL_WARP, sum[m][h], 1);
      sum[m][h] += __shfl_xor_sync(FULL_WARP, sum[m][h], 2);
      sum[m][h] = sum[m][h] > 0.f ? 1.f / sum[m][h] : 0.f;
    }
    attention_store<SLICE>(p, o[m], sum[m], (i64)batch * p.sq, first_query + warp_query + 16 * m + lane / 4, p.sq,
                           head * HEAD_DIM + slice, lane);
  }
}

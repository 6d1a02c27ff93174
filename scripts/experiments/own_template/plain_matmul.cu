/* Matmul that can be read in a minute: epilogue(A[m, K] B[N, K]^T) in plain f32, for f32, bf16 or f16 operands.
 *
 * A block makes TILE_M x TILE_N results with 16 x 16 threads; a thread makes ROWS x 4 of them, its rows 16 apart. Both operands
 * pass through shared memory, TILE_K of K at a time: loaded, a barrier, multiplied, a barrier. Nothing overlaps, which is what
 * makes it slow, and a good place to begin.
 *
 * Constants (from plain_matmul.lua): T, N, K, ROWS, TILE_K. */

constexpr int SIDE = 16, TILE_M = SIDE * ROWS, TILE_N = SIDE * 4;
constexpr int A_LD = TILE_K + 1; /* one more than a power of two: rows begin in different banks */

extern "C" __global__ void __launch_bounds__(SIDE *SIDE, 1) KERNEL(const __grid_constant__ Params p) {
  float *as = reinterpret_cast<float *>(dynamic_smem); /* [TILE_M][A_LD] */
  float *bs = as + TILE_M * A_LD;                      /* [TILE_K][TILE_N] */
  const int tx = (int)threadIdx.x % SIDE, ty = (int)threadIdx.x / SIDE;
  const i32 tiles_n = ceil_div(N, TILE_N);
  const i64 row0 = (i64)((i32)blockIdx.x / tiles_n) * TILE_M;
  const i32 col0 = (i32)blockIdx.x % tiles_n * TILE_N;

  float acc[ROWS][4];
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) acc[i][j] = 0.f;

  for (int k0 = 0; k0 < K; k0 += TILE_K) {
    for (int i = (int)threadIdx.x; i < TILE_M * TILE_K; i += SIDE * SIDE) { /* neighbours read neighbouring k of a row */
      const int r = i / TILE_K, k = i % TILE_K;
      as[r * A_LD + k] = row0 + r < p.m && k0 + k < K ? to_f32(p.a[(row0 + r) * p.lda + k0 + k]) : 0.f;
    }
    for (int i = (int)threadIdx.x; i < TILE_N * TILE_K; i += SIDE * SIDE) {
      const int c = i / TILE_K, k = i % TILE_K;
      bs[k * TILE_N + c] = col0 + c < N && k0 + k < K ? to_f32(p.b[(col0 + c) * p.ldb + k0 + k]) : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE_K; k++) {
      float b[4];
      load_vec<4>(bs + k * TILE_N + tx * 4, b);
#pragma unroll
      for (int i = 0; i < ROWS; i++) {
        const float a = as[(ty + i * SIDE) * A_LD + k];
#pragma unroll
        for (int j = 0; j < 4; j++) acc[i][j] = fmaf(a, b[j], acc[i][j]);
      }
    }
    __syncthreads();
  }

  const i32 col = col0 + tx * 4;
#pragma unroll
  for (int i = 0; i < ROWS; i++)
    if (row0 + ty + i * SIDE < p.m && col < N) epilogue<4>(p, row0 + ty + i * SIDE, col, acc[i]);
}

/* Matmul with at most MAX_M rows: epilogue(A[m, K] B[N, K]^T) in plain f32, for f32, bf16 or f16 operands. The timestep's, the
 * modulation's and other one-row layers.
 *
 * A warp takes COLS columns and all rows: its lanes read the weight in adjacent pieces of VEC elements, once, and meet the rows
 * of A, which stay in L1; a sum over the lanes ends each dot product. Bound: the weight's bytes from device memory.
 *
 * Constants: T, N, K, COLS (divides N), VEC (divides K, lda and ldb; 16 bytes where they allow it), MAX_M = 8, THREADS. */

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const int lane = (int)threadIdx.x % WARP;
  const i32 col = ((i32)blockIdx.x * (THREADS / WARP) + (i32)threadIdx.x / WARP) * COLS;
  if (col >= N) return;

  float acc[MAX_M][COLS];
#pragma unroll
  for (int r = 0; r < MAX_M; r++)
#pragma unroll
    for (int c = 0; c < COLS; c++) acc[r][c] = 0.f;

#pragma unroll 2
  for (int k = lane * VEC; k < K; k += WARP * VEC) {
    float b[COLS][VEC];
#pragma unroll
    for (int c = 0; c < COLS; c++) load_vec<VEC>(p.b + (col + c) * p.ldb + k, b[c]);
#pragma unroll
    for (int r = 0; r < MAX_M; r++)
      if (r < p.m) {
        float a[VEC];
        load_vec<VEC>(p.a + r * p.lda + k, a);
#pragma unroll
        for (int c = 0; c < COLS; c++)
#pragma unroll
          for (int x = 0; x < VEC; x++) acc[r][c] = fmaf(a[x], b[c][x], acc[r][c]);
      }
  }

  float mine[COLS]; /* lane r finishes row r */
#pragma unroll
  for (int r = 0; r < MAX_M; r++)
    if (r < p.m) {
#pragma unroll
      for (int c = 0; c < COLS; c++) {
        const float sum = warp_sum(acc[r][c]);
        if (lane == r) mine[c] = sum;
      }
    }
  if (lane < p.m) epilogue<COLS>(p, lane, col, mine);
}

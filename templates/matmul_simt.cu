/* Matmul in plain f32: epilogue(A[m, K] B[N, K]^T) for f32, bf16 or f16 operands of any size, leading dimension and alignment.
 * What full precision asks for, and what takes the shapes that matmul_mma cannot.
 *
 * Tile and pipeline: simt_tile.cuh. Bound: the FMA units. */

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const i32 tiles_n = ceil_div(N, TILE_N);
  const i32 row0 = (i32)blockIdx.x / tiles_n * TILE_M, col0 = (i32)blockIdx.x % tiles_n * TILE_N;
  accumulators acc;
  accumulate(acc, row_fetcher<T, TILE_M>(p.a, p.lda, row0, p.m), row_fetcher<T, TILE_N>(p.b, p.ldb, col0, N));
  finish(p, acc, row0, col0, p.m);
}

/* Matmul on tensor cores: epilogue(A[m, K] B[N, K]^T), f32 accumulation; bf16, f16, or f32 operands taken as TF32. sm_80 and up.
 *
 * Tile and pipeline: mma_tile.cuh. One block a tile, 64x64 or 64x32 a warp; cp.async three or four stages deep; any m, any N; K
 * and both leading dimensions must be whole 16-byte chunks (the sidecar says so; other shapes are matmul_simt's).
 *
 * Bound: tensor cores for m, N beyond a few hundred, else the weight's bytes. On an H200 (28800x5120x5120, bf16) 461 TFLOP/s with
 * 128x256x64 tiles, of the 610 or so that mma.sync is said to reach; cuBLAS with wgmma: 725. TF32: 191, cuBLAS 344.
 * Tried: copies in a rolled loop (421); 128x128 tiles, two blocks a multiprocessor (434); 64x64 (295). */

constexpr bool MANY_ROWS = (TILE_M + TILE_N) / ROWS_A_PASS > 8; /* a thread */

struct matmul_loader {
  row_stream<TILE_M, MANY_ROWS> a;
  row_stream<TILE_N, MANY_ROWS> b;

  __device__ __forceinline__ void operator()(u32 stage, int k_tile) const {
    a.load(stage, k_tile);
    b.load(stage + A_BYTES, k_tile);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const tile_index tile = tile_of((i32)blockIdx.x, ceil_div(p.m, TILE_M));
  const matmul_loader load = {{p.a, p.lda, tile.m * TILE_M, p.m}, {p.b, p.ldb, tile.n * TILE_N, N}};
  accumulators acc;
  accumulate(acc, load);
  finish(p, acc, (i64)tile.m * TILE_M, tile.n * TILE_N, p.m);
}

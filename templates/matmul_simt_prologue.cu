/* matmul_simt with a left operand that is made while it is loaded: epilogue(A B[N, K]^T), A[m, K] from the prologue hook, rounded
 * to T. Any size and alignment.
 *
 * Tile and pipeline: simt_tile.cuh. Bound: the FMA units. */

struct made_fetcher {
  const Params &p;
  i32 first; /* this thread's first row */

  __device__ __forceinline__ void operator()(int k, float (&r)[TILE_M / SIDE]) const {
#pragma unroll
    for (int i = 0; i < TILE_M / SIDE; i++) {
      float one[1] = {0.f};
      if (k < K && first + i * SIDE < p.m) prologue<1>(p, first + i * SIDE, k, one);
      r[i] = to_f32(from_f32<T>(one[0]));
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const i32 tiles_n = ceil_div(N, TILE_N);
  const i32 row0 = (i32)blockIdx.x / tiles_n * TILE_M, col0 = (i32)blockIdx.x % tiles_n * TILE_N;
  accumulators acc;
  accumulate(acc, made_fetcher{p, row0 + fetch_row()}, row_fetcher<T, TILE_N>(p.b, p.ldb, col0, N));
  finish(p, acc, row0, col0, p.m);
}

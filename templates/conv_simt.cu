/* Convolution in plain f32, as an implicit matmul: for f32 operands that must not become TF32, and for bf16 and f16 just as well.
 * Any channel counts, any padding, any kernel size; the input may be read through a nearest x2 upsampling.
 *
 * Tile and pipeline: simt_tile.cuh, where 16 threads fetch 16 adjacent elements of k: adjacent channels of one tap, so accesses
 * coalesce. Bound: the FMA units. */

struct pixel_fetcher {
  window<TILE_M / SIDE, SIDE> pixels;

  __device__ __forceinline__ pixel_fetcher(const Params &p, i32 first_pixel) : pixels(p, first_pixel + fetch_row()) {}

  __device__ __forceinline__ void operator()(int k, float (&r)[TILE_M / SIDE]) const {
    const tap at_k(k);
#pragma unroll
    for (int i = 0; i < TILE_M / SIDE; i++) r[i] = to_f32(pixels.value(i, at_k));
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const i32 tiles_n = ceil_div(N, TILE_N);
  const i32 row0 = (i32)blockIdx.x / tiles_n * TILE_M, col0 = (i32)blockIdx.x % tiles_n * TILE_N;
  accumulators acc;
  accumulate(acc, pixel_fetcher(p, row0), row_fetcher<T, TILE_N>(p.w, K, col0, N));
  finish(p, acc, row0, col0, p.m);
}

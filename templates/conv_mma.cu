/* Convolution on tensor cores, as an implicit matmul: output pixels by KT*KH*KW*CIN by output channels, channels last, stride 1,
 * f32 accumulation; bf16, f16, or f32 taken as TF32. sm_80 and up. Reading through a x2 upsampling costs a shift of h and w.
 *
 * Tile and pipeline: mma_tile.cuh. k runs over (kt, kh, kw, cin), cin fastest, as the weight is stored; a 16-byte chunk of k lies
 * within one tap where CIN is a multiple of CHUNK, so a chunk is one cp.async, or zeros where the tap leaves the image. Other CIN
 * (3, 4, ...) gather element by element: right, not fast; and no network spends time there.
 *
 * Bound: tensor cores. On an H200, bf16, 3x3x3: 350 TFLOP/s at 96 channels (cuDNN 432), 401 at 192 (cuDNN 627), 417 at 384
 * (cuDNN 764), of the 610 or so that mma.sync is said to reach; with the norm fused 288 at 96, 361 at 384. TF32: 162 and 183.
 * Tried: fetching pixels through L1, where neighbouring taps meet: no difference. */

constexpr bool WHOLE_CHUNKS = CIN % CHUNK == 0;

/* Streams the taps of TILE_M output pixels. */
struct pixel_stream {
  window<ceil_div(TILE_M, ROWS_A_PASS), ROWS_A_PASS> pixels;

  __device__ __forceinline__ pixel_stream(const Params &p, i32 first_pixel) : pixels(p, first_pixel + my_first_row()) {}

  __device__ __forceinline__ void load(u32 stage_rows, int k_tile) const {
    const int k = k_tile * TILE_K + my_chunk() * CHUNK;
#pragma unroll
    for (int i = 0; i < ceil_div(TILE_M, ROWS_A_PASS); i++) {
      const int row = my_first_row() + i * ROWS_A_PASS;
      if (TILE_M % ROWS_A_PASS != 0 && row >= TILE_M) break;
      const u32 dst = stage_rows + chunk_offset(row, my_chunk());
      if constexpr (WHOLE_CHUNKS) {
        const T *src = pixels.at(i, tap(k));
        cp_async16(dst, src, src != nullptr);
      } else {
        store_chunk(dst, [&](int e) { return pixels.value(i, tap(k + e)); });
      }
    }
  }
};

/* Streams the weight's rows: whole chunks only where K is made of them. */
struct weight_stream {
  row_stream<TILE_N, false> rows;
  const T *w;
  i32 first;

  __device__ __forceinline__ weight_stream(const T *weight, i32 first_row)
      : rows(weight, K, first_row, N), w(weight), first(first_row) {}

  __device__ __forceinline__ void load(u32 stage_rows, int k_tile) const {
    if constexpr (K % CHUNK == 0) {
      rows.load(stage_rows, k_tile);
    } else {
      const int k = k_tile * TILE_K + my_chunk() * CHUNK;
      for (int row = my_first_row(); row < TILE_N; row += ROWS_A_PASS)
        store_chunk(stage_rows + chunk_offset(row, my_chunk()),
                    [&](int e) { return first + row < N && k + e < K ? w[(i64)(first + row) * K + k + e] : from_f32<T>(0.f); });
    }
  }
};

struct conv_loader {
  pixel_stream x;
  weight_stream w;

  __device__ __forceinline__ void operator()(u32 stage, int k_tile) const {
    x.load(stage, k_tile);
    w.load(stage + A_BYTES, k_tile);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const tile_index tile = tile_of((i32)blockIdx.x, ceil_div(p.m, TILE_M));
  const conv_loader load = {{p, tile.m * TILE_M}, {p.w, tile.n * TILE_N}};
  accumulators acc;
  accumulate(acc, load);
  finish(p, acc, (i64)tile.m * TILE_M, tile.n * TILE_N, p.m);
}

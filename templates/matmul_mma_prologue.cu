/* Matmul on tensor cores whose left operand is made while it is loaded: epilogue(A B[N, K]^T), A[m, K] from the prologue hook. For
 * a normalised and modulated operand that should not pass through memory. bf16, f16, or f32 operands taken as TF32. sm_80 and up.
 *
 * Tile and pipeline: mma_tile.cuh. B comes by cp.async as in matmul_mma. A's values are computed in registers, ROWS_AT_ONCE chunks
 * at a time so that their loads are under way together and share what the columns have in common, and stored to the stage that
 * is filled STAGES - 1 tiles ahead.
 *
 * Bound: the tensor cores, and beside them what the hook costs: every block of a row of tiles computes A again, ceil(N / TILE_N)
 * times in all, so wide tiles. */

constexpr bool MANY_ROWS = (TILE_M + TILE_N) / ROWS_A_PASS > 8; /* a thread */
constexpr int A_ROWS = ceil_div(TILE_M, ROWS_A_PASS);           /* of a thread */
constexpr int ROWS_AT_ONCE = A_ROWS % 2 == 0 ? 2 : 1;

static_assert(K % CHUNK == 0, "a chunk lies within a row");

struct made_loader {
  const Params &p;
  i32 first_row;
  row_stream<TILE_N, MANY_ROWS> b;

  __device__ __forceinline__ void operator()(u32 stage, int k_tile) const {
    b.load(stage + A_BYTES, k_tile);
    const int k = k_tile * TILE_K + my_chunk() * CHUNK;
#pragma unroll 1
    for (int i = 0; i < A_ROWS; i += ROWS_AT_ONCE) {
      float a[ROWS_AT_ONCE][CHUNK];
#pragma unroll
      for (int j = 0; j < ROWS_AT_ONCE; j++) {
        const i32 row = first_row + my_first_row() + (i + j) * ROWS_A_PASS;
        fill_lanes(0.f, a[j]);
        if (row < p.m && (K % TILE_K == 0 || k < K)) prologue<CHUNK>(p, row, k, a[j]);
      }
#pragma unroll
      for (int j = 0; j < ROWS_AT_ONCE; j++) {
        const int row = my_first_row() + (i + j) * ROWS_A_PASS;
        if (TILE_M % ROWS_A_PASS == 0 || row < TILE_M)
          store_chunk(stage + chunk_offset(row, my_chunk()), [&](int e) { return from_f32<T>(a[j][e]); });
      }
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const tile_index tile = tile_of((i32)blockIdx.x, ceil_div(p.m, TILE_M));
  const made_loader load = {p, tile.m * TILE_M, {p.b, p.ldb, tile.n * TILE_N, N}};
  accumulators acc;
  accumulate(acc, load);
  finish(p, acc, (i64)tile.m * TILE_M, tile.n * TILE_N, p.m);
}

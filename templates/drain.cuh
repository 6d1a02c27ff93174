/* The end of every tiled template: finished f32 rows stand in shared memory, the fused code takes them from there. So it is
 * compiled in one rolled loop and meets whole rows: wide, coalesced accesses, or one warp a row where it reduces over the row.
 *
 * Constants: N, TILE_N, THREADS. */

constexpr int SLAB_LD = TILE_N + 8; /* floats a row; the pad puts the rows that one store writes in different banks */

/* Slab row r is row row_of(r) of an [m, N] result, its first column is col0. All threads; a barrier must stand before it. */
template <int ROWS, typename RowOf>
__device__ __forceinline__ void drain(const Params &p, const float *slab, int col0, i64 m, const RowOf &row_of) {
#if MK_ROW_EPILOGUE
  static_assert(TILE_N >= N, "a row's reduction needs the whole row in one tile");
#pragma unroll 1
  for (int r = (int)threadIdx.x / WARP; r < ROWS; r += THREADS / WARP) {
    const i64 row = row_of(r);
    if (row < m) epilogue_row(p, row, slab + r * SLAB_LD, (int)threadIdx.x % WARP);
  }
#else
  constexpr int V = N % 8 == 0 ? 8 : N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1;
  constexpr int PIECES = TILE_N / V; /* of a row */
#pragma unroll 1
  for (int i = (int)threadIdx.x; i < ROWS * PIECES; i += THREADS) {
    const int r = i / PIECES, c = i % PIECES * V;
    const i64 row = row_of(r);
    if (row < m && col0 + c < N) {
      float v[V];
      load_vec<V>(slab + r * SLAB_LD + c, v);
      epilogue<V>(p, row, col0 + c, v);
    }
  }
#endif
}

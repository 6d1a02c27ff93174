/* The f32 tile that matmul_simt and conv_simt share: acc[TILE_M, TILE_N] = A[TILE_M, K] B[TILE_N, K]^T on the ordinary units,
 * every product and sum in f32. A template brings one fetcher for each operand, so any size and any alignment will do.
 *
 * Constants: N, K, TILE_M and TILE_N (multiples of 64), TILE_K = 16, THREADS = 256. Uses drain.cuh.
 *
 * 16x16 threads. A thread holds 4x4 pieces 64 rows and columns apart, so that its operands are float4 reads without bank
 * conflicts; tiles stand k-major in two buffers, and the next tile travels through registers while this one is multiplied. */

constexpr int SIDE = 16; /* threads along each side of the tile; also how many rows apart a thread's fetches lie */
constexpr int FOURS_M = TILE_M / 64;
constexpr int FOURS_N = TILE_N / 64;
constexpr int K_TILES = ceil_div(K, TILE_K);
constexpr int A_LD = TILE_M + 4; /* floats; the pad spreads the transposing stores over the banks */
constexpr int B_LD = TILE_N + 4;
constexpr int BUFFER = TILE_K * (A_LD + B_LD);

static_assert(THREADS == SIDE * SIDE && TILE_K == SIDE, "a thread fetches one k of every 16th row");
static_assert(TILE_M % 64 == 0 && TILE_N % 64 == 0, "a thread's pieces lie 64 apart");

using accumulators = float[4 * FOURS_M][4 * FOURS_N];

__device__ __forceinline__ int fetch_k() { return (int)threadIdx.x % SIDE; }
__device__ __forceinline__ int fetch_row() { return (int)threadIdx.x / SIDE; }

/* a(k, r) and b(k, r) fetch r[i] = element k of row fetch_row() + i SIDE, zero outside of the operand. */
template <typename FetchA, typename FetchB>
__device__ __forceinline__ void accumulate(accumulators &acc, const FetchA &a, const FetchB &b) {
  float *buffers = reinterpret_cast<float *>(dynamic_smem);
  const int ty = (int)threadIdx.x / SIDE, tx = (int)threadIdx.x % SIDE;
  float next_a[TILE_M / SIDE], next_b[TILE_N / SIDE];

#pragma unroll
  for (int i = 0; i < 4 * FOURS_M; i++)
#pragma unroll
    for (int j = 0; j < 4 * FOURS_N; j++) acc[i][j] = 0.f;

  a(fetch_k(), next_a);
  b(fetch_k(), next_b);
#pragma unroll 1
  for (int tile = 0; tile < K_TILES; tile++) {
    float *as = buffers + tile % 2 * BUFFER, *bs = as + TILE_K * A_LD;
#pragma unroll
    for (int i = 0; i < TILE_M / SIDE; i++) as[fetch_k() * A_LD + fetch_row() + i * SIDE] = next_a[i];
#pragma unroll
    for (int i = 0; i < TILE_N / SIDE; i++) bs[fetch_k() * B_LD + fetch_row() + i * SIDE] = next_b[i];
    __syncthreads(); /* one a tile: the other buffer's readers have passed the barrier before they can meet its writers */
    if (tile + 1 < K_TILES) {
      a((tile + 1) * TILE_K + fetch_k(), next_a);
      b((tile + 1) * TILE_K + fetch_k(), next_b);
    }
#pragma unroll
    for (int k = 0; k < TILE_K; k++) {
      float av[4 * FOURS_M], bv[4];
#pragma unroll
      for (int i = 0; i < FOURS_M; i++) load_vec<4>(as + k * A_LD + i * 64 + ty * 4, reinterpret_cast<float(&)[4]>(av[4 * i]));
#pragma unroll
      for (int j = 0; j < FOURS_N; j++) {
        load_vec<4>(bs + k * B_LD + j * 64 + tx * 4, bv);
#pragma unroll
        for (int i = 0; i < 4 * FOURS_M; i++)
#pragma unroll
          for (int x = 0; x < 4; x++) acc[i][4 * j + x] = fmaf(av[i], bv[x], acc[i][4 * j + x]);
      }
    }
  }
  __syncthreads();
}

/* Gives the finished tile, whose corner is (row0, col0) of an [m, N] result, to the fused code, 64 rows at a time. */
__device__ __forceinline__ void finish(const Params &p, const accumulators &acc, i64 row0, int col0, i64 m) {
  float *slab = reinterpret_cast<float *>(dynamic_smem);
  const int ty = (int)threadIdx.x / SIDE, tx = (int)threadIdx.x % SIDE;
#pragma unroll
  for (int part = 0; part < FOURS_M; part++) {
    if (part > 0) __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < FOURS_N; j++)
        store_vec<4>(slab + (ty * 4 + i) * SLAB_LD + j * 64 + tx * 4,
                     reinterpret_cast<const float(&)[4]>(acc[4 * part + i][4 * j]));
    __syncthreads();
    drain<64>(p, slab, col0, m, [=](int r) { return row0 + part * 64 + r; });
  }
}

/* Fetches rows of a row-major matrix. */
template <typename T, int ROWS>
struct row_fetcher {
  const T *mine; /* this thread's first row */
  i64 ld;
  i32 left; /* rows from there to the matrix's end */

  __device__ __forceinline__ row_fetcher(const T *matrix, i64 leading, i32 first_row, i32 rows)
      : mine(matrix + (first_row + fetch_row()) * leading), ld(leading), left(rows - first_row - fetch_row()) {}

  __device__ __forceinline__ void operator()(int k, float (&r)[ROWS / SIDE]) const {
#pragma unroll
    for (int i = 0; i < ROWS / SIDE; i++) r[i] = k < K && i * SIDE < left ? to_f32(mine[i * SIDE * ld + k]) : 0.f;
  }
};

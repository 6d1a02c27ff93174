/* The tensor-core tile that matmul_mma and conv_mma share: acc[TILE_M, TILE_N] = A[TILE_M, K] B[TILE_N, K]^T in f32, operands
 * streamed through a ring of STAGES shared-memory stages by cp.async. A template brings a loader that fills one stage.
 *
 * Constants: T (bf16, f16, or float taken as TF32), N, K, TILE_M, TILE_N, TILE_K, STAGES, WARPS_M, WARPS_N, THREADS, GROUP_M.
 * Uses drain.cuh.
 *
 * All three dtypes share one data path, because it is written in bytes: a stage row is TILE_K elements = 64 or 128 bytes, cut
 * into 16-byte chunks (the unit of cp.async and of an ldmatrix row); a step of the multiplication takes 32 bytes of k, which is
 * k16 of a 16-bit type and k8 of TF32, and ldmatrix hands 32-bit elements to the very lanes that the TF32 mma wants them in. */

constexpr int WARP_M = TILE_M / WARPS_M;
constexpr int WARP_N = TILE_N / WARPS_N;
constexpr int BLOCKS_M = WARP_M / 16; /* 16x8 accumulator blocks of a warp */
constexpr int BLOCKS_N = WARP_N / 8;
constexpr int K_TILES = ceil_div(K, TILE_K);

constexpr int CHUNK = 16 / (int)sizeof(T); /* elements of a chunk */
constexpr int ROW_BYTES = TILE_K * (int)sizeof(T);
constexpr int CHUNKS = ROW_BYTES / 16;
constexpr int STEPS = ROW_BYTES / 32;
constexpr int A_BYTES = TILE_M * ROW_BYTES; /* a stage is A's rows, then B's */
constexpr int STAGE_BYTES = (TILE_M + TILE_N) * ROW_BYTES;

static_assert(ROW_BYTES == 64 || ROW_BYTES == 128, "the swizzle knows rows of 64 and 128 bytes");
static_assert(THREADS == WARP * WARPS_M * WARPS_N, "one warp for each part of the tile");
static_assert(WARP_M % 16 == 0 && WARP_N % 16 == 0, "a warp's tile is made of 16x16 blocks");
static_assert(THREADS % CHUNKS == 0 && STAGES >= 2, "whole rows a pass, and one stage to fill while one is read");

using accumulators = float[BLOCKS_M][BLOCKS_N][4];

/* ---- shared memory layout ----
 * Chunk c of row r lies at position c ^ key(r). Eight rows that ldmatrix reads at one chunk, and the chunks of the rows that a
 * quarter warp writes, then fall in eight different groups of banks. */

__device__ __forceinline__ constexpr int swizzle_key(int row) { return ROW_BYTES == 128 ? row & 7 : (row >> 1) & 3; }
__device__ __forceinline__ u32 chunk_offset(int row, int chunk) {
  return (u32)(row * ROW_BYTES + ((chunk ^ swizzle_key(row)) << 4));
}

/* ---- loading ----
 * A thread always handles the same chunk of a row, and every ROWS_A_PASS-th row. */

constexpr int ROWS_A_PASS = THREADS / CHUNKS;
__device__ __forceinline__ int my_chunk() { return (int)threadIdx.x % CHUNKS; }
__device__ __forceinline__ int my_first_row() { return (int)threadIdx.x / CHUNKS; }

/* Writes a chunk whose element e is element(e), for loaders that cannot copy 16 bytes at once. */
template <typename Element>
__device__ __forceinline__ void store_chunk(u32 dst, const Element &element) {
  vec<T, CHUNK> x;
#pragma unroll
  for (int e = 0; e < CHUNK; e++) x.elements[e] = element(e);
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(dst), "r"(x.words[0]), "r"(x.words[1]), "r"(x.words[2]),
               "r"(x.words[3])
               : "memory");
}

/* Streams ROWS rows of a row-major matrix; rows at `rows` and beyond, and k at K and beyond, arrive as zeros. STEPWISE finds each
 * row's address from the last one's: with a run-time leading dimension and many rows a thread, the multiples of it that the
 * compiler would keep do not fit beside 64x64 accumulators. */
template <int ROWS, bool STEPWISE>
struct row_stream {
  const T *mine; /* this thread's chunk of its first row, at k = 0 */
  i64 ld;
  i32 left; /* rows from this thread's first one to the matrix's end */

  __device__ __forceinline__ row_stream(const T *matrix, i64 leading, i32 first_row, i32 rows)
      : mine(matrix + (first_row + my_first_row()) * leading + my_chunk() * CHUNK),
        ld(leading),
        left(rows - first_row - my_first_row()) {}

  __device__ __forceinline__ void load(u32 stage_rows, int k_tile) const {
    constexpr int UNROLL = sizeof(T) == 4 ? 4 : 16; /* TF32's rounding needs the registers: 17% slower with all copies at once */
    const bool in_k = K % TILE_K == 0 || k_tile * TILE_K + my_chunk() * CHUNK < K;
    const T *src = mine + k_tile * TILE_K;
#pragma unroll UNROLL
    for (int i = 0; i < ceil_div(ROWS, ROWS_A_PASS); i++) {
      const int row = my_first_row() + i * ROWS_A_PASS;
      if (ROWS % ROWS_A_PASS != 0 && row >= ROWS) break;
      cp_async16(stage_rows + chunk_offset(row, my_chunk()), src, in_k && i * ROWS_A_PASS < left);
      src += ROWS_A_PASS * ld;
      if constexpr (STEPWISE) asm volatile("" : "+l"(src));
    }
  }
};

/* ---- multiplying ---- */

struct fragments { /* one step's operands of a warp */
  u32 a[BLOCKS_M][4], b[BLOCKS_N][2];
};

__device__ __forceinline__ int warp_row() { return (int)threadIdx.x / WARP / WARPS_N * WARP_M; }
__device__ __forceinline__ int warp_col() { return (int)threadIdx.x / WARP % WARPS_N * WARP_N; }

/* a_lane, b_lane: where this lane's ldmatrix rows lie in a stage at step 0; a later step only flips bits of the chunk. */
__device__ __forceinline__ void load_fragments(fragments &f, u32 a_lane, u32 b_lane, int step) {
#pragma unroll
  for (int i = 0; i < BLOCKS_M; i++) ldmatrix_x4(f.a[i], (a_lane ^ (u32)(step * 32)) + i * 16 * ROW_BYTES);
#pragma unroll
  for (int j = 0; j < BLOCKS_N; j += 2) {
    u32 two[4];
    ldmatrix_x4(two, (b_lane ^ (u32)(step * 32)) + j * 8 * ROW_BYTES);
    f.b[j][0] = two[0], f.b[j][1] = two[1], f.b[j + 1][0] = two[2], f.b[j + 1][1] = two[3];
  }
}

__device__ __forceinline__ void multiply(accumulators &acc, fragments &f) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < BLOCKS_M; i++)
#pragma unroll
      for (int x = 0; x < 4; x++) f.a[i][x] = to_tf32(f.a[i][x]);
#pragma unroll
    for (int j = 0; j < BLOCKS_N; j++)
#pragma unroll
      for (int x = 0; x < 2; x++) f.b[j][x] = to_tf32(f.b[j][x]);
  }
#pragma unroll
  for (int i = 0; i < BLOCKS_M; i++)
#pragma unroll
    for (int j = 0; j < BLOCKS_N; j++) mma<T>(acc[i][j], f.a[i], f.b[j]);
}

/* The whole product. load(stage, k_tile) copies tile k_tile to the stage at that shared address. Each step multiplies while the
 * next step's fragments come from shared memory; each tile multiplies while STAGES - 1 tiles are under way from global memory. */
template <typename Load>
__device__ __forceinline__ void accumulate(accumulators &acc, const Load &load) {
  const u32 ring = smem_address(dynamic_smem);
  const int lane = (int)threadIdx.x % WARP;
  const u32 a_lane = chunk_offset(warp_row() + lane % 16, lane / 16);
  const u32 b_lane = A_BYTES + chunk_offset(warp_col() + lane % 8 + lane / 16 * 8, lane / 8 % 2);

#pragma unroll
  for (int i = 0; i < BLOCKS_M; i++)
#pragma unroll
    for (int j = 0; j < BLOCKS_N; j++)
#pragma unroll
      for (int x = 0; x < 4; x++) acc[i][j][x] = 0.f;

#pragma unroll
  for (int tile = 0; tile < STAGES - 1; tile++) {
    if (tile < K_TILES) load(ring + tile * STAGE_BYTES, tile);
    cp_async_commit();
  }
  cp_async_wait<STAGES - 2>();
  __syncthreads();

  fragments f[2];
  u32 reading = ring, filling = ring + (STAGES - 1) * STAGE_BYTES;
  load_fragments(f[0], reading + a_lane, reading + b_lane, 0);
#pragma unroll 1
  for (int tile = 0; tile < K_TILES; tile++) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      if (step == STEPS - 1) { /* the next tile has landed, and every warp has read the last of this one */
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        filling = reading;
        reading = reading == ring + (STAGES - 1) * STAGE_BYTES ? ring : reading + STAGE_BYTES;
      }
      load_fragments(f[(step + 1) % 2], reading + a_lane, reading + b_lane, (step + 1) % STEPS);
      if (step == 0) {
        if (tile + STAGES - 1 < K_TILES) load(filling, tile + STAGES - 1);
        cp_async_commit(); /* an empty group too: waiting counts groups */
      }
      multiply(acc, f[step % 2]);
    }
  }
  cp_async_wait<0>();
  __syncthreads();
}

/* ---- finishing ----
 * Accumulators pass through shared memory to drain, as many 16-row blocks of each warp at once as the ring's space takes. */

constexpr int BLOCK_SLAB_BYTES = WARPS_M * 16 * SLAB_LD * 4;
constexpr int BLOCKS_THAT_FIT = STAGES * STAGE_BYTES / BLOCK_SLAB_BYTES;
__host__ __device__ constexpr int largest_divisor(int n, int limit) {
  return limit >= n ? n : n % limit == 0 ? limit : largest_divisor(n, limit - 1);
}
static_assert(BLOCKS_THAT_FIT >= 1, "the ring must hold 16 rows of accumulators of every warp");
constexpr int SLAB_BLOCKS = largest_divisor(BLOCKS_M, BLOCKS_THAT_FIT);
constexpr int SLAB_WARP_ROWS = 16 * SLAB_BLOCKS;

/* Gives the finished tile, whose corner is (row0, col0) of an [m, N] result, to the fused code. */
__device__ __forceinline__ void finish(const Params &p, const accumulators &acc, i64 row0, int col0, i64 m) {
  float *slab = reinterpret_cast<float *>(dynamic_smem);
  const int lane = (int)threadIdx.x % WARP;
  float *mine = slab + (warp_row() / WARP_M * SLAB_WARP_ROWS + lane / 4) * SLAB_LD + warp_col() + lane % 4 * 2;
#pragma unroll
  for (int first = 0; first < BLOCKS_M; first += SLAB_BLOCKS) {
    if (first > 0) __syncthreads();
#pragma unroll
    for (int i = 0; i < SLAB_BLOCKS; i++)
#pragma unroll
      for (int j = 0; j < BLOCKS_N; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float two[2] = {acc[first + i][j][2 * half], acc[first + i][j][2 * half + 1]};
          store_vec<2>(mine + (i * 16 + half * 8) * SLAB_LD + j * 8, two);
        }
    __syncthreads();
    drain<WARPS_M * SLAB_WARP_ROWS>(p, slab, col0, m,
                                    [=](int r) { return row0 + r / SLAB_WARP_ROWS * WARP_M + first * 16 + r % SLAB_WARP_ROWS; });
  }
}

/* ---- tile order ----
 * Blocks that run together should share operand rows in L2: tiles go down columns of groups GROUP_M tiles high. */

struct tile_index {
  i32 m, n;
};
__device__ __forceinline__ tile_index tile_of(i32 id, i32 tiles_m) {
  constexpr i32 TILES_N = ceil_div(N, TILE_N);
  const i32 first = id / (GROUP_M * TILES_N) * GROUP_M;
  const i32 height = min(tiles_m - first, (i32)GROUP_M);
  const i32 inside = id % (GROUP_M * TILES_N);
  return {first + inside % height, inside / height};
}

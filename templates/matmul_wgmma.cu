/* Matmul on Hopper's wgmma: epilogue(A[m, K] B[N, K]^T), bf16 or f16 operands, f32 accumulation.
 *
 * Tile: 192x256 with three consumer warpgroups, or 128x256, 256x128, 128x128 with two, by 64 of k; each consumer has its share of
 * the rows, all accumulators in registers. A producer thread keeps STAGES slots of A and B under way by TMA, 128-byte swizzled. The
 * two blocks of a cluster take tiles that share their longer operand: each loads half of it for both. A block stays for the whole
 * problem and walks tiles in bands of GROUP along m, all of n in a band, so that the blocks at work share A and B through L2. Any
 * m; N and K multiples of 8: what lies out of bounds arrives as zeros and is not stored.
 *
 * Pipeline of a warpgroup: one slot's wgmmas are always queued behind the one under way; a slot is given back once the next one's
 * are issued. Warpgroups are not tied to each other but through the ring: one may be STAGES slots ahead, and its epilogue runs
 * while the others still multiply. The producer loads the next tile's first slots during both.
 *
 * Epilogue: from registers, in chunks of columns. The pairs of columns a thread has are exchanged within its quad, so that the
 * fused code gets 8 adjacent ones, or 4 where it stores f32: 64 bytes of a row by a quad, no half sectors. No load of the fused
 * code may pass a store of it, so its operands are fetched apart: a chunk's together, with two consumers a chunk ahead. The
 * producer has brought what lies along the rows (a residual: as many bytes as the result) to L2 before, over the last slots.
 *
 * Bound: the tensor cores, under the card's power cap. In a clock of full rate a block takes 48 bytes from L2 with 128x256 alone,
 * 37 with 192x256, 32 and 27 in a cluster, and reads 80 of at most 128 bytes of shared memory, 96 where a wgmma has 128 columns.
 * On an H200 in TFLOP/s beside cuBLAS's product alone in the same run, 192x256 in a cluster (alone): 28,800 x 5120 x 5120 681 (669) :
 * 694, x 13824 x 5120 with GELU 660 (623) : 658, x 5120 x 13824 685 (685) : 665; 75,600 x 5120 x 5120 652 (677) : 683, x 13824 x 5120
 * with GELU 636 (629) : 707, x 5120 x 13824 664 (672) : 674. 128x256 is 2-5 % behind.
 * With an f32 residual and its gate, 28,800 x 5120 x 5120 and x 13824, in clusters: 192x256 630 and 695, 256x128 621 and 666,
 * 128x256 626 : 687 and 703. So the residual costs 8 % at K 5120, the more the shorter K: what is left is the time in which a tile's
 * 131 KB come and go while only the other warpgroups' queued slots multiply.
 *
 * Tried and lost: operands fetched by each call for itself, 590-607 and 658 with a residual, 574 where a load waits for the last
 * store. With three consumers, a chunk ahead from the second quarter on, where registers come free: 547 and 612. Evict-first
 * loads and stores: 446-624 and 556-649. Without the prefetch to L2, 256x128 is as fast: 629 and 668. Arrivals at the neighbour's
 * barriers with release.cluster, 550 in a cluster: each is a fence of the whole GPU. 256 columns a wgmma with three consumers: ptxas
 * counts 512 threads' 128 registers and refuses. */

constexpr int ROW = 128;  // bytes of a tile's row: 64 of k, one swizzled panel
constexpr int TILE_K = 64;
constexpr int K_TILES = ceil_div(K, TILE_K);
constexpr int A_BYTES = TILE_M * ROW, B_BYTES = TILE_N * ROW, STAGE_BYTES = A_BYTES + B_BYTES;
constexpr int CONSUMERS = TILE_M == 192 ? 3 : 2, THREADS = 128 * (CONSUMERS + 1);
constexpr int BLOCKS = TILE_M / (64 * CONSUMERS);  // of 64 rows, a consumer
constexpr int WIDTH = CONSUMERS == 3 ? TILE_N / 2 : TILE_N;  // of a wgmma: with 512 threads, 256 columns are too many registers for ptxas
constexpr int PIECES = BLOCKS * (TILE_N / WIDTH);            // wgmmas of a consumer by 16 of k
constexpr int CLUSTER_M = TILE_N >= TILE_M ? CLUSTER : 1, CLUSTER_N = CLUSTER / CLUSTER_M;
constexpr int CONSUMER_REGISTERS = CONSUMERS == 3 ? 160 : 232, PRODUCER_REGISTERS = CONSUMERS == 3 ? 32 : 40;
constexpr int CHUNK = CONSUMERS == 3 && V == 4 ? 16 : 32;  // columns, as many as there are registers for
constexpr int CHUNKS = TILE_N / CHUNK * BLOCKS;            // of a consumer
constexpr int RUNS = CHUNK / 2 / V;                        // of V columns that a thread has of a chunk, in two rows
constexpr int SERIAL = CONSUMERS == 2 ? 0 : V == 4 ? CHUNKS : CHUNKS / 4;  // so many chunks first fetch for themselves only
constexpr int PREFETCH = K_TILES < 16 ? K_TILES : 16;      // slots of a tile, its last, over which its operands are brought to L2
constexpr int PREFETCH_ROWS = ceil_div(TILE_M, PREFETCH);  // a slot

static_assert(CLUSTER == 1 || CLUSTER == 2, "the shared operand comes in halves");
static_assert(N % 8 == 0 && K % 8 == 0, "16-byte rows for TMA, whole vectors for the epilogue");

using Accumulators = float[PIECES][WIDTH / 2];

struct Ring {  // addresses
  u32 data, full, empty;
};

__device__ __forceinline__ Ring layout() {
  const u32 data = smem_address(dynamic_smem);
  return {data, data + STAGES * STAGE_BYTES, data + STAGES * (STAGE_BYTES + 8)};
}

/* This block's number in its cluster. */
__device__ __forceinline__ int block_rank() { return CLUSTER > 1 ? (int)cluster_rank() : 0; }

/* A cluster's tiles are neighbours along m or n. Past the last row everything is out of bounds, which is harmless. */
struct Tile {
  int row, col;
};
__device__ __forceinline__ int clusters_down(const Params &p) { return ceil_div(p.m, TILE_M * CLUSTER_M); }
constexpr int CLUSTERS_ACROSS = ceil_div(N, TILE_N *CLUSTER_N);

__device__ __forceinline__ Tile tile_at(int index, int down, int rank) {
  constexpr int BAND = GROUP * CLUSTERS_ACROSS;
  const int band = index / BAND, within = index - band * BAND, height = min(GROUP, down - band * GROUP);
  const int n = within / height, m = band * GROUP + within - n * height;
  return {(m * CLUSTER_M + (CLUSTER_M > 1 ? rank : 0)) * TILE_M, (n * CLUSTER_N + (CLUSTER_N > 1 ? rank : 0)) * TILE_N};
}

/* ROWS rows of one operand; shared by the cluster: this block's half of them, for both. */
template <int ROWS, bool SHARED>
__device__ __forceinline__ void load(u32 dst, const tmap &map, u32 bar, int k, int row, int rank) {
  if constexpr (SHARED)
    tma_load_2d_to(3, dst + rank * (ROWS / 2 * ROW), map, bar, k, row + rank * (ROWS / 2));
  else
    tma_load_2d(dst, map, bar, k, row);
}

__device__ __forceinline__ void produce(const Params &p, const Ring &s) {
  const int rank = block_rank(), down = clusters_down(p), tiles = down * CLUSTERS_ACROSS;
  ring<STAGES> at;
  tma_prefetch(p.tm_a);
  tma_prefetch(p.tm_b);
  for (int index = (int)blockIdx.x / CLUSTER; index < tiles; index += (int)gridDim.x / CLUSTER) {
    const Tile tile = tile_at(index, down, rank);
#pragma unroll 1
    for (int k = 0; k < K_TILES; k++) {
      const u32 slot = s.data + at.slot * STAGE_BYTES, full = s.full + 8 * at.slot;
      mbar_wait(s.empty + 8 * at.slot, at.phase ^ 1);
      mbar_expect(full, STAGE_BYTES);
      load<TILE_M, (CLUSTER_N > 1)>(slot, p.tm_a, full, k * TILE_K, tile.row, rank);
      load<TILE_N, (CLUSTER_M > 1)>(slot + A_BYTES, p.tm_b, full, k * TILE_K, tile.col, rank);
      const int share = k - (K_TILES - PREFETCH);
      for (int r = max(share, 0) * PREFETCH_ROWS; r < (share + 1) * PREFETCH_ROWS; r++)
        if (tile.row + r < p.m && tile.col < N) prefetch(p, tile.row + r, tile.col, min(TILE_N, N - tile.col));
      at.advance();
    }
  }
}

/* A warp has read all it needs of a slot, which the producers of the whole cluster fill. */
__device__ __forceinline__ void release(u32 empty) {
  const int lane = thread_afresh() % WARP;
  if constexpr (CLUSTER == 1) {
    if (lane == 0) mbar_arrive(empty);
  } else {
    if (lane < CLUSTER) mbar_arrive_at(empty, (u32)lane);
  }
}

/* acc (+)= one slot's product, issued and committed, not awaited. */
__device__ __forceinline__ void multiply(Accumulators &acc, u32 slot, int group, bool accumulate) {
  const u64 a = wgmma_operand(slot + group * (BLOCKS * 64 * ROW), 16, 8 * ROW), b = wgmma_operand(slot + A_BYTES, 16, 8 * ROW);
#pragma unroll
  for (int j = 0; j < PIECES; j++) pin(acc[j]);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < TILE_K / 16; i++)
#pragma unroll
    for (int j = 0; j < PIECES; j++)
      wgmma<T, WIDTH>::template shared_a<false>(acc[j], wgmma_advance(a, j % BLOCKS * (64 * ROW) + 32 * i),
                                                wgmma_advance(b, j / BLOCKS * (WIDTH * ROW) + 32 * i), accumulate || i > 0);
  wgmma_commit();
}

/* Until at most PENDING slots' products are under way. */
template <int PENDING>
__device__ __forceinline__ void settle(Accumulators &acc) {
  wgmma_wait<PENDING>();
#pragma unroll
  for (int j = 0; j < PIECES; j++) pin(acc[j]);
}

/* Each lane of a quad has four pairs of a row, one of every 8 columns; afterwards it has runs of V adjacent columns. */
__device__ __forceinline__ void transpose(float (&v)[CHUNK / 8][2], int quad) {
#pragma unroll
  for (int bit = 1; bit <= V / 4; bit *= 2)
#pragma unroll
    for (int i = 0; i < CHUNK / 8; i++)
      if (!(i & bit))
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const bool upper = quad & bit;
          const float got = __shfl_xor_sync(FULL_WARP, upper ? v[i][e] : v[i | bit][e], bit);
          v[i][e] = upper ? got : v[i][e];
          v[i | bit][e] = upper ? v[i | bit][e] : got;
        }
}

/* Where a thread's runs lie: run i of chunk c, for the thread's first row and its first column's place in a tile. */
struct Corner {
  int row, col;
  __device__ __forceinline__ int row_of(int c, int i) const { return row + c / (TILE_N / CHUNK) * 64 + i / (RUNS / 2) * 8; }
  __device__ __forceinline__ int col_of(int c, int i) const { return col + c % (TILE_N / CHUNK) * CHUNK + i % (RUNS / 2) * 16; }
};
__device__ __forceinline__ Corner corner(Tile tile) {
  const int thread = thread_afresh(), quad = thread % 4;
  return {tile.row + thread / 128 * (64 * BLOCKS) + thread / WARP % 4 * 16 + thread % WARP / 4,
          tile.col + (V == 8 ? 8 * quad : quad % 2 * 8 + quad / 2 * 4)};
}

using Chunk = Operands<V>[RUNS];

/* What the fused code reads for a chunk. No branch: what lies out of bounds is read at the border. */
__device__ __forceinline__ void fetch(const Params &p, const Corner &at, int c, Chunk &o) {
#pragma unroll
  for (int i = 0; i < RUNS; i++) fetch(p, min(at.row_of(c, i), p.m - 1), N % TILE_N ? min(at.col_of(c, i), N - V) : at.col_of(c, i), o[i]);
}

/* A chunk's accumulators through the fused code; all lanes of the consumer. */
__device__ __forceinline__ void store(const Params &p, const Corner &at, int c, const Accumulators &acc, const Chunk &o) {
  const int quad = thread_afresh() % 4;
  float v[2][CHUNK / 8][2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
#pragma unroll
    for (int i = 0; i < CHUNK / 8; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) v[h][i][e] = acc[c / (WIDTH / CHUNK)][c % (WIDTH / CHUNK) * (CHUNK / 2) + 4 * i + 2 * h + e];
    transpose(v[h], quad);
  }
#pragma unroll
  for (int i = 0; i < RUNS; i++) {
    float run[V];
#pragma unroll
    for (int j = 0; j < V; j++) run[j] = v[i / (RUNS / 2)][i % (RUNS / 2) * 2 + j / 2][j % 2];
    if (at.row_of(c, i) < p.m && (N % TILE_N == 0 || at.col_of(c, i) < N)) epilogue<V>(p, at.row_of(c, i), at.col_of(c, i), run, o[i]);
  }
}

__device__ __forceinline__ void consume(const Params &p, const Ring &s, int group) {
  ring<STAGES> at;
  for (int index = (int)blockIdx.x / CLUSTER; index < clusters_down(p) * CLUSTERS_ACROSS; index += (int)gridDim.x / CLUSTER) {
    Accumulators acc;
    u32 last = at.slot;
    mbar_wait(s.full + 8 * at.slot, at.phase);
    multiply(acc, s.data + at.slot * STAGE_BYTES, group, false);
    at.advance();
#pragma unroll 1
    for (int k = 1; k < K_TILES; k++) {
      mbar_wait(s.full + 8 * at.slot, at.phase);
      multiply(acc, s.data + at.slot * STAGE_BYTES, group, true);
      settle<1>(acc);
      release(s.empty + 8 * last);
      last = at.slot;
      at.advance();
    }
    const Corner here = corner(tile_at(index, clusters_down(p), block_rank()));
    Chunk o[2];
    if constexpr (SERIAL == 0) fetch(p, here, 0, o[0]);
    settle<0>(acc);
    release(s.empty + 8 * last);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      if (c < SERIAL) fetch(p, here, c, o[c % 2]);
      if (c + 1 >= SERIAL && c + 1 < CHUNKS) fetch(p, here, c + 1, o[(c + 1) % 2]);
      store(p, here, c, acc, o[c % 2]);
    }
    __syncwarp();
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const Ring s = layout();
  const int warp = __shfl_sync(FULL_WARP, (int)threadIdx.x / WARP, 0), group = warp / 4;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      mbar_init(s.full + 8 * i, 1);
      mbar_init(s.empty + 8 * i, 4 * CONSUMERS * CLUSTER);
    }
    mbar_init_fence();
  }
  __syncthreads();
  if constexpr (CLUSTER > 1) cluster_sync();  // the other block's barriers too

  if (group == CONSUMERS) {
    registers_shrink<PRODUCER_REGISTERS>();
    if (warp == 4 * CONSUMERS && threadIdx.x % WARP == 0) produce(p, s);
  } else {
    registers_grow<CONSUMER_REGISTERS>();
    consume(p, s, group);
  }
  if constexpr (CLUSTER > 1) cluster_sync();  // the other block still arrives at this one's barriers
}

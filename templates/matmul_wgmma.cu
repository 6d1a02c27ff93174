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
 * Epilogue: from registers. The pairs of columns a thread has are transposed within its quad by shuffles, so that the fused code
 * gets 8 adjacent columns. With two consumers a rolled loop over 64-column chunks holds that code twice (inside, at the border),
 * not once per chunk; three have no registers for the copy that takes.
 * Operands of the fused code should be read with ld.global.nc: then the loads of four calls overlap, else each waits for the last
 * one's store.
 *
 * Bound: the tensor cores, under the card's power cap. In a clock of full rate a block takes 48 bytes from L2 with 128x256 alone,
 * 37 with 192x256, 32 and 27 in a cluster, and reads 80 of at most 128 bytes of shared memory, 96 where a wgmma has 128 columns.
 * On an H200 in TFLOP/s beside cuBLAS's product alone in the same run, 192x256 in a cluster (alone): 28,800 x 5120 x 5120 681 (669) :
 * 694, x 13824 x 5120 with GELU 660 (623) : 658, x 5120 x 13824 685 (685) : 665; 75,600 x 5120 x 5120 652 (677) : 683, x 13824 x 5120
 * with GELU 636 (629) : 707, x 5120 x 13824 664 (672) : 674. 128x256 is 2-5 % behind.
 *
 * Tried and lost: arrivals at the neighbour's barriers with release.cluster, 550 in a cluster: each is a fence of the whole GPU.
 * 256 columns a wgmma with three consumers: ptxas counts 512 threads' 128 registers and refuses. */

constexpr int ROW = 128;  // bytes of a tile's row: 64 of k, one swizzled panel
constexpr int TILE_K = 64;
constexpr int K_TILES = ceil_div(K, TILE_K);
constexpr int A_BYTES = TILE_M * ROW, B_BYTES = TILE_N * ROW, STAGE_BYTES = A_BYTES + B_BYTES;
constexpr int CONSUMERS = TILE_M == 192 ? 3 : 2, THREADS = 128 * (CONSUMERS + 1);
constexpr int BLOCKS = TILE_M / (64 * CONSUMERS);  // of 64 rows, a consumer
constexpr int WIDTH = CONSUMERS == 3 ? TILE_N / 2 : TILE_N;  // of a wgmma: with 512 threads, 256 columns are too many registers for ptxas
constexpr int PIECES = BLOCKS * (TILE_N / WIDTH);            // wgmmas of a consumer by 16 of k
constexpr int CLUSTER_M = TILE_N >= TILE_M ? CLUSTER : 1, CLUSTER_N = CLUSTER / CLUSTER_M;
constexpr int CONSUMER_REGISTERS = CONSUMERS == 3 ? 160 : 240, PRODUCER_REGISTERS = CONSUMERS == 3 ? 32 : 24;
constexpr int CHUNK = CONSUMERS == 3 ? 32 : 64;  // columns an epilogue takes at a time
constexpr int CHUNKS = TILE_N / CHUNK * BLOCKS;  // of a consumer
constexpr int UNROLLED = CONSUMERS == 3 ? CHUNKS : 1;  // unrolled, chunks need no copy: registers are short with three

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
__device__ __forceinline__ int rank() { return CLUSTER > 1 ? (int)cluster_rank() : 0; }

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
  const int rank = ::rank(), down = clusters_down(p), tiles = down * CLUSTERS_ACROSS;
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

template <int I>
__device__ __forceinline__ void pick(float (&v)[CHUNK / 2], const Accumulators &acc) {
  if constexpr (I < CHUNKS) {
#pragma unroll
    for (int i = 0; i < CHUNK / 2; i++) v[i] = acc[I / (WIDTH / CHUNK)][I % (WIDTH / CHUNK) * (CHUNK / 2) + i];
  }
}

/* Each lane of a quad has four pairs of a row, one of every 8 columns; afterwards it has the 8 columns of its number. */
__device__ __forceinline__ void transpose(float (&v)[4][2], int quad) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (!(i & bit))
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const bool upper = quad & bit;
          const float got = __shfl_xor_sync(FULL_WARP, upper ? v[i][e] : v[i | bit][e], bit);
          v[i][e] = upper ? got : v[i][e];
          v[i | bit][e] = upper ? v[i | bit][e] : got;
        }
}

__device__ __forceinline__ void store(const Params &p, int row, int col, const float (&x)[4][2]) {
  const float v[8] = {x[0][0], x[0][1], x[1][0], x[1][1], x[2][0], x[2][1], x[3][0], x[3][1]};
  epilogue<8>(p, row, col, v);
}

/* A consumer's rows through the fused code; all its lanes. `row` is the thread's first. */
__device__ __forceinline__ void finish(const Params &p, const Accumulators &acc, int row, int col, int quad) {
  static_assert(CHUNKS <= 8, "as many cases");
#pragma unroll(UNROLLED)
  for (int c = 0; c < CHUNKS; c++) {
    float o[CHUNK / 2], v[CHUNK / 32][2][4][2];
    switch (c) {
      case 0: pick<0>(o, acc); break;
      case 1: pick<1>(o, acc); break;
      case 2: pick<2>(o, acc); break;
      case 3: pick<3>(o, acc); break;
      case 4: pick<4>(o, acc); break;
      case 5: pick<5>(o, acc); break;
      case 6: pick<6>(o, acc); break;
      default: pick<7>(o, acc); break;
    }
#pragma unroll
    for (int g = 0; g < CHUNK / 32; g++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int e = 0; e < 2; e++) v[g][h][i][e] = o[16 * g + 4 * i + 2 * h + e];
        transpose(v[g][h], quad);
      }
    const int r = row + c / (TILE_N / CHUNK) * 64, first = col + c % (TILE_N / CHUNK) * CHUNK + 8 * quad;
    if (r + 8 < p.m && first + CHUNK - 32 < N) {  // no branch in between, so that one call's loads may start before another's end
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int g = 0; g < CHUNK / 32; g++) store(p, r + 8 * h, first + 32 * g, v[g][h]);
    } else {
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int g = 0; g < CHUNK / 32; g++)
          if (r + 8 * h < p.m && first + 32 * g < N) store(p, r + 8 * h, first + 32 * g, v[g][h]);
    }
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
    settle<0>(acc);
    release(s.empty + 8 * last);
    const Tile tile = tile_at(index, clusters_down(p), rank());
    const int thread = thread_afresh();
    finish(p, acc, tile.row + thread / 128 * (64 * BLOCKS) + thread / WARP % 4 * 16 + thread % WARP / 4, tile.col, thread % 4);
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

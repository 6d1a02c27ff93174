/* Attention on Hopper's wgmma: softmax(scale · q kᵀ) v per head, no mask, no bias, any number of queries and keys.
 *
 * Tile: 192 queries, 64 for each of three consumer warpgroups, by 80 or 64 keys. A producer thread keeps four tiles of K and of V
 * under way by TMA, 128-byte swizzled; scores, weights and sums stay in registers. The two blocks of a cluster have neighbouring
 * query tiles and share K and V: each brings one 64-channel panel of a tile for both. A block stays for the whole problem; the query
 * tiles of one head follow each other, so that the blocks at work share its K and V through L2.
 *
 * Pipeline of a warpgroup: q kᵀ of this tile is issued before P v of the last one, and the exponentials run while P v does; named
 * barriers let the warpgroups issue by turns. Keys are walked backwards: only the first tile needs a mask. That tile sets the row
 * maximum, and later ones reuse it, which is exact as long as nothing overflows: weights and their sum have the same factor. A
 * tile whose weights grow past LARGEST gets its scores again (by mma, one warp alone) and a new maximum. So maximum, shuffles
 * and rescaling leave the inner loop.
 *
 * Bound by power. On an H200 at 40 heads of 128, the card at its 700 W, in TFLOP/s, in f16 : in bf16 : cuDNN in bf16, one run:
 * 756 : 762 : 615 at 28,800 tokens, 763 : 768 : 564 at 75,600 (in a cluster; alone 722 at 28,800 in bf16); 584 : 559 : 513 at 75,600
 * queries by 512 keys (alone, 64 keys a tile). The clock falls to 1.5-1.6 GHz, where the tensor cores could do about 840: 88 % of
 * them are used. By short keys a third of the time is the tile's beginning and end: the first scores and the last product overlap
 * with other warpgroups' work only.
 *
 * Error against fp32, over that of cuDNN in bf16, same numbers, bf16 result: 0.72 with operands and weights in f16 (0.76 by 512 keys;
 * 1.006 where one key has nearly all the weight), little but the result's rounding. In bf16 1.01 (1.05 by 512 keys): there a running
 * maximum makes the greatest weight exactly 1, which needs no rounding; after a stale one it is rounded like the others.
 *
 * Tried and lost, at 28,800 tokens: 128 queries by 128 keys with q in registers, 693-710, since it moves half as much again from
 * L2; by 176 keys, 697; by 96 keys three warpgroups spill. Arrivals at the neighbour's barriers with release.cluster, 473-630: each is
 * a fence of the whole GPU. Row sums by mma with a matrix of ones, 620. Three stages instead of four, weights cut off instead of
 * rounded, leaving out the turns, adding up rounded weights only where one could dominate: within 1 %. In bf16 sums of unrounded
 * weights gain 1.3 %, but rows with one dominant key get 1.6 times the error.
 *
 * For bf16's error, also lost. A new maximum wherever a warp sees a weight above 1 (the greatest of 40 packed weights takes ten
 * three-input integer maxima): error 1.000 of cuDNN's, 655 where this kernel does 742, in cross 446 of 547; above 0.9: 0.998, 637. Each
 * tile its own maximum, so that each has an exact greatest weight, and a rescaled o: 0.91, 641, or 678 with sums of unrounded weights;
 * in cross 0.95, 520 of 552. To that, within 2 % each: three-input maxima; exponentials forced before the wait for P v (the compiler
 * puts half of them behind it); o scaled behind the issue of the next scores; the next query tile's first scores issued before this
 * one's last product. */

constexpr int CONSUMERS = 3;                       // warpgroups
constexpr int TILE_M = 64 * CONSUMERS;             // 64 queries a consumer warpgroup
constexpr int Q_BYTES = 64 * HEAD_DIM * 2;         // of one warpgroup
constexpr int KV_BYTES = TILE_N * HEAD_DIM * 2;    // of one slot
constexpr int THREADS = 128 * (CONSUMERS + 1);
constexpr int READERS = 4 * CONSUMERS * CLUSTER;   // warps that read a slot of keys or values, in all blocks
constexpr int PANEL_BYTES = TILE_N * 128;          // 64 channels of a slot
constexpr float LOG2E = 1.4426950408889634f;

/* Sum of a thread's exponentials over a tile that asks for a new maximum: far from what the packed type can hold. */
template <typename U>
constexpr float LARGEST = 0x1p15f;
template <>
constexpr float LARGEST<bf16> = 0x1p64f;
template <typename U>
constexpr bool COARSE = false;
template <>
constexpr bool COARSE<bf16> = true;

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "one or two swizzled panels a row");
static_assert(CLUSTER == 1 || (CLUSTER == 2 && HEAD_DIM == 128), "each block of a cluster brings one panel for both");

struct Shared { // addresses
  u32 q, k, v, q_full, q_empty, k_full, k_empty, v_full, v_empty;
};

__device__ __forceinline__ Shared layout() {
  Shared s;
  s.q = smem_address(dynamic_smem);
  s.k = s.q + CONSUMERS * Q_BYTES;
  s.v = s.k + STAGES * KV_BYTES;
  s.q_full = s.v + STAGES * KV_BYTES;
  s.q_empty = s.q_full + 8 * CONSUMERS;
  s.k_full = s.q_empty + 8 * CONSUMERS;
  s.k_empty = s.k_full + 8 * STAGES;
  s.v_full = s.k_empty + 8 * STAGES;
  s.v_empty = s.v_full + 8 * STAGES;
  return s;
}

/* The value of x, which the compiler can then neither know nor compute early: what is needed once a tile must not occupy
 * registers throughout, or the inner loop spills. */
__device__ __forceinline__ int afresh(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/* Query tiles of one head are neighbours, so that the blocks at work at one time share its keys and values through L2. A cluster's
 * tiles count as one; past the last query a block works on zeros and stores nothing. */
struct Tile {
  int query, head, batch;
};
__device__ __forceinline__ int rank() { return CLUSTER > 1 ? (int)cluster_rank() : 0; }
__device__ __forceinline__ int tiles_per_head(const Params &p) { return ceil_div(afresh(p.sq), TILE_M * CLUSTER); }
__device__ __forceinline__ int tile_count(const Params &p) { return tiles_per_head(p) * HEADS * p.batch; }
__device__ __forceinline__ Tile tile_at(const Params &p, int index) {
  const int per_head = tiles_per_head(p), head = index / per_head;
  return {((index - head * per_head) * CLUSTER + rank()) * TILE_M, head % HEADS, head / HEADS};
}

/* A tile of keys or values: this block's panel of it, for all blocks of the cluster. */
__device__ __forceinline__ void load_tile(u32 slot, const tmap &map, u32 full, int key, const Tile &t) {
  mbar_expect(full, KV_BYTES);
  if constexpr (CLUSTER > 1)
    tma_load_5d_to((1 << CLUSTER) - 1, slot + rank() * PANEL_BYTES, map, full, 0, key * TILE_N, rank(), t.head, t.batch);
  else
    tma_load_5d(slot, map, full, 0, key * TILE_N, 0, t.head, t.batch);
}

/* One thread feeds the block: per tile K[n-1], Q, then K[t-1] and V[t] in the order the consumers use them. */
__device__ __forceinline__ void produce(const Params &p, const Shared &s) {
  const int key_tiles = ceil_div(p.sk, TILE_N);
  ring<STAGES> k, v;
  u32 q_phase = 0;
  for (int index = blockIdx.x / CLUSTER; index < tile_count(p); index += gridDim.x / CLUSTER) {
    const Tile t = tile_at(p, index);
#pragma unroll 1
    for (int key = key_tiles - 1; key >= -1; key--) {
      if (key >= 0) {
        mbar_wait(s.k_empty + 8 * k.slot, k.phase ^ 1);
        load_tile(s.k + k.slot * KV_BYTES, p.tm_k, s.k_full + 8 * k.slot, key, t);
        k.advance();
      }
      if (key == key_tiles - 1) {
        for (int w = 0; w < CONSUMERS; w++) {
          mbar_wait(s.q_empty + 8 * w, q_phase ^ 1);
          mbar_expect(s.q_full + 8 * w, Q_BYTES);
          tma_load_5d(s.q + w * Q_BYTES, p.tm_q, s.q_full + 8 * w, 0, t.query + 64 * w, 0, t.head, t.batch);
        }
        q_phase ^= 1;
      } else {
        mbar_wait(s.v_empty + 8 * v.slot, v.phase ^ 1);
        load_tile(s.v + v.slot * KV_BYTES, p.tm_v, s.v_full + 8 * v.slot, key + 1, t);
        v.advance();
      }
    }
  }
}

/* A warp has read all it needs of a tile, which the producers of the whole cluster fill. */
__device__ __forceinline__ void release(u32 empty, int lane) {
  if constexpr (CLUSTER == 1) {
    if (lane == 0) mbar_arrive(empty);
  } else {
    if (lane < CLUSTER) mbar_arrive_at(empty, (u32)lane);
  }
}

/* s = q kᵀ, issued and committed, not awaited. */
__device__ __forceinline__ void scores(float (&s)[TILE_N / 2], u32 q, u32 k) {
  const u64 a = wgmma_operand(q, 16, 1024), b = wgmma_operand(k, 16, 1024);
  pin(s);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < HEAD_DIM / 16; i++) {
    const u32 panel = i / 4, within = i % 4 * 32;
    wgmma<T, TILE_N>::template shared_a<false>(s, wgmma_advance(a, panel * (64 * 128) + within),
                                               wgmma_advance(b, panel * (TILE_N * 128) + within), i > 0);
  }
  wgmma_commit();
}

/* Where TMA puts 16-byte piece `piece` of a panel's row. */
__device__ __forceinline__ u32 swizzled(u32 panel, int row, int piece) { return panel + row * 128 + (piece ^ (row % 8)) * 16; }

/* The same for one warp's 16 rows by mma: for the rare tile that needs its scores again, when the other warps do not. */
__device__ __forceinline__ void scores_again(float (&s)[TILE_N / 2], u32 q, u32 k) {
  const int thread = thread_afresh(), lane = thread % 32, warp_row = 16 * (thread / 32 % 4), row = lane % 8 + lane / 16 * 8;
#pragma unroll
  for (int n = 0; n < TILE_N / 16; n++) {
    float d[2][4] = {};
#pragma unroll 1
    for (int i = 0; i < HEAD_DIM / 16; i++) {
      u32 a[4], b[4];
      ldmatrix_x4(a, swizzled(q + (i / 4) * (64 * 128), warp_row + lane % 16, i % 4 * 2 + lane / 16));
      ldmatrix_x4(b, swizzled(k + (i / 4) * (TILE_N * 128), 16 * n + row, i % 4 * 2 + lane / 8 % 2));
      mma<T>(d[0], a, {b[0], b[1]});
      mma<T>(d[1], a, {b[2], b[3]});
    }
#pragma unroll
    for (int i = 0; i < 8; i++) s[8 * n + i] = d[i / 4][i % 4];
  }
}

/* o += P v, issued and committed, not awaited. */
__device__ __forceinline__ void weighted_sum(float (&o)[HEAD_DIM / 2], const u32 (&prob)[TILE_N / 16][4], u32 v) {
  const u64 b = wgmma_operand(v, TILE_N * 128, 1024);
  pin(o);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < TILE_N / 16; i++) wgmma<T, HEAD_DIM>::template register_a<true>(o, prob[i], wgmma_advance(b, i * 2048), true);
  wgmma_commit();
}

/* Maximum over the tile of the thread's two rows. */
__device__ __forceinline__ void row_max(const float (&s)[TILE_N / 2], float (&top)[2]) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float a = fmaxf(s[2 * h], s[2 * h + 1]), b = fmaxf(s[2 * h + 4], s[2 * h + 5]);
#pragma unroll
    for (int i = 8; i < TILE_N / 2; i += 8) {
      a = fmaxf(a, fmaxf(s[i + 2 * h], s[i + 2 * h + 1]));
      b = fmaxf(b, fmaxf(s[i + 2 * h + 4], s[i + 2 * h + 5]));
    }
    a = fmaxf(a, b);
    a = fmaxf(a, __shfl_xor_sync(FULL_WARP, a, 1));
    top[h] = fmaxf(a, __shfl_xor_sync(FULL_WARP, a, 2));
  }
}

/* s becomes 2^(c s - c max). */
__device__ __forceinline__ void exponentiate(float (&s)[TILE_N / 2], const float (&top)[2], float c) {
  const float shift[2] = {top[0] * c, top[1] * c};
#pragma unroll
  for (int i = 0; i < TILE_N / 2; i++) s[i] = ex2(fmaf(s[i], c, -shift[i / 2 % 2]));
}

/* The exponentials, rounded, as the A operand of the next product; part: sums over the thread's own columns. With a stale maximum
 * the largest weight is no longer exactly 1: of bf16 weights the rounded ones are added up, which cancels its rounding. f16 is eight
 * times finer. */
__device__ __forceinline__ void pack(u32 (&prob)[TILE_N / 16][4], const float (&s)[TILE_N / 2], float (&part)[2]) {
  float even[2] = {}, odd[2] = {};
#pragma unroll
  for (int i = 0; i < TILE_N / 4; i++) {
    float lo = s[2 * i], hi = s[2 * i + 1];
    prob[i / 4][i % 4] = pack2<T>(lo, hi);
    if constexpr (COARSE<T>) unpack2<T>(prob[i / 4][i % 4], lo, hi);
    even[i % 2] += lo;
    odd[i % 2] += hi;
  }
#pragma unroll
  for (int h = 0; h < 2; h++) part[h] = even[h] + odd[h];
}

__device__ __forceinline__ void consume(const Params &p, const Shared &s, int group, int lane) {
  const int key_tiles = ceil_div(p.sk, TILE_N);
  const float c = p.scale * LOG2E;
  const int ready = 1 + group, next_ready = 1 + (group + 1) % CONSUMERS;
  ring<STAGES> k, v;
  u32 q_phase = 0;
  if (group == CONSUMERS - 1) named_arrive(1, 256);
  for (int index = blockIdx.x / CLUSTER; index < tile_count(p); index += gridDim.x / CLUSTER) {
    const u32 q = s.q + group * Q_BYTES;
    float o[HEAD_DIM / 2], x[TILE_N / 2], top[2], sum[2] = {};
    u32 prob[TILE_N / 16][4];

    mbar_wait(s.q_full + 8 * group, q_phase);
    q_phase ^= 1;

    // The last keys come first: only they can be out of range.
    mbar_wait(s.k_full + 8 * k.slot, k.phase);
    scores(x, q, s.k + k.slot * KV_BYTES);
    wgmma_wait<0>();
    pin(x);
    release(s.k_empty + 8 * k.slot, lane);
    k.advance();
    const int valid = p.sk - (key_tiles - 1) * TILE_N - 2 * (lane % 4);
    if (valid < TILE_N) {
#pragma unroll
      for (int i = 0; i < TILE_N / 2; i++)
        if (8 * (i / 4) + i % 2 >= valid) x[i] = __int_as_float((i32)0xff800000);
    }
    row_max(x, top);
    exponentiate(x, top, c);
    pack(prob, x, sum);
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; i++) o[i] = 0.f;

    for (int key = key_tiles - 2; key >= 0; key--) {
      mbar_wait(s.k_full + 8 * k.slot, k.phase);
      named_sync(ready, 256);
      scores(x, q, s.k + k.slot * KV_BYTES);
      mbar_wait(s.v_full + 8 * v.slot, v.phase);
      weighted_sum(o, prob, s.v + v.slot * KV_BYTES);
      named_arrive(next_ready, 256);
      wgmma_wait<1>();
      pin(x);

      exponentiate(x, top, c);
      pin(x); // the exponentials run while the product does
      wgmma_wait<0>();
      pin(o);
      release(s.v_empty + 8 * v.slot, lane);
      v.advance();

      float part[2];
      pack(prob, x, part);
      if (__any_sync(FULL_WARP, !(part[0] + part[1] <= LARGEST<T>))) {
        float now[2];
        scores_again(x, q, s.k + k.slot * KV_BYTES);
        row_max(x, now);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          now[h] = fmaxf(now[h], top[h]);
          const float fade = ex2((top[h] - now[h]) * c);
          top[h] = now[h];
          sum[h] *= fade;
#pragma unroll
          for (int i = 0; i < HEAD_DIM / 8; i++) o[4 * i + 2 * h] *= fade, o[4 * i + 2 * h + 1] *= fade;
        }
        exponentiate(x, top, c);
        pack(prob, x, part);
      }
      release(s.k_empty + 8 * k.slot, lane);
      k.advance();
      sum[0] += part[0];
      sum[1] += part[1];
    }
    if (lane == 0) mbar_arrive(s.q_empty + 8 * group);

    mbar_wait(s.v_full + 8 * v.slot, v.phase);
    weighted_sum(o, prob, s.v + v.slot * KV_BYTES);
    wgmma_wait<0>();
    pin(o);
    release(s.v_empty + 8 * v.slot, lane);
    v.advance();
#pragma unroll
    for (int h = 0; h < 2; h++) {
      sum[h] += __shfl_xor_sync(FULL_WARP, sum[h], 1);
      sum[h] = 1.f / (sum[h] + __shfl_xor_sync(FULL_WARP, sum[h], 2));
    }
    const Tile done = tile_at(p, index);
    const int thread = thread_afresh();
    attention_store<HEAD_DIM>(p, o, sum, (i64)done.batch * p.sq, done.query + thread / 32 * 16 + thread % 32 / 4, p.sq,
                              done.head * HEAD_DIM, thread % 32);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const Shared s = layout();
  const int warp = __shfl_sync(FULL_WARP, threadIdx.x / 32, 0), group = warp / 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < CONSUMERS; i++) {
      mbar_init(s.q_full + 8 * i, 1);
      mbar_init(s.q_empty + 8 * i, 4);
    }
    for (int i = 0; i < STAGES; i++) {
      mbar_init(s.k_full + 8 * i, 1);
      mbar_init(s.k_empty + 8 * i, READERS);
      mbar_init(s.v_full + 8 * i, 1);
      mbar_init(s.v_empty + 8 * i, READERS);
    }
    mbar_init_fence();
  }
  __syncthreads();
  if constexpr (CLUSTER > 1) cluster_sync(); // the other block's barriers too

  if (group == CONSUMERS) {
    registers_shrink<32>();
    if (warp == 4 * CONSUMERS && lane == 0) produce(p, s);
  } else {
    registers_grow<160>(); // with the producer's, all of the register file
    consume(p, s, group, lane);
  }
  if constexpr (CLUSTER > 1) cluster_sync(); // the other block still arrives at this one's barriers
}

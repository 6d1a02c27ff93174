/* Convolution on Hopper's wgmma, as an implicit matmul: output pixels by (KT, KH, KW, CIN) by output channels; channels last,
 * stride 1, bf16 or f16 operands, f32 accumulation. Reading through a x2 upsampling is a matter of coordinates.
 *
 * Tile: TILE_H x TILE_W pixels of one frame by TILE_N channels, two consumer warpgroups with half of its rows of pixels each. A
 * step takes TILE_K channels of one tap. TMA brings a box of the input for (kt, channels, kw) that is KH - 1 rows higher than the
 * tile: the taps along h are the same box, read from a later row on, so the input crosses L2 three times for 3x3 taps, not nine.
 * Padding, in time too, is what lies out of bounds and arrives as zeros. With upsampling a tile has output pixels of one phase (h
 * and w even or odd): their taps are neighbours in the input as it is stored.
 *
 * Pipeline: a producer thread keeps two rings under way, boxes of the input and slices of the weight, both swizzled in rows of
 * 2 TILE_K bytes. One step's wgmmas are always queued behind those under way. A block stays for the whole problem. Tiles that
 * meet in L2 follow one another: the channels of one box, then along w, then frames (which share two thirds of their input), then
 * h.
 *
 * Epilogue: accumulators go to the consumer warp's own strip of shared memory, the fused code reads whole rows from there.
 * DRAINERS more warpgroups, and what the producer leaves of its own, do that while the consumers multiply the next tile, where
 * accumulators leave registers for them and the strips hold a whole tile; otherwise (0) a warp drains its own rows, STRIP_ROWS at
 * a time, and only the other consumer's wgmmas hide it in part. A norm over the channels needs them all in one tile.
 *
 * Bound: the tensor cores, under the card's power cap; shared memory is next: in a clock of full rate 64x96 by 16 takes 107 of
 * 128 bytes for operands (192 columns: 85), and the rings are filled at 20 to 40 bytes a clock. */

constexpr int ROW = 2 * TILE_K;  // bytes of a row in shared memory, one swizzled panel
constexpr int TILE_M = TILE_H * TILE_W;
constexpr int CONSUMERS = 2, CONSUMER_WARPS = 4 * CONSUMERS;
constexpr int BLOCKS = TILE_M / (64 * CONSUMERS);  // of 64 pixels, a consumer
constexpr int PARTS = ceil_div(TILE_N, 256);       // of a tile's channels: what one wgmma can do
constexpr int PART_N = TILE_N / PARTS;
constexpr int HALO = UPSAMPLE == 1 ? KH - 1 : KH / 2;  // rows of a box below the tile's own
constexpr int A_BYTES = (TILE_H + HALO) * TILE_W * ROW, A_SLOT = ceil_div(A_BYTES, 1024) * 1024, B_BYTES = TILE_N * ROW;
constexpr int BOXES = KT * (CIN / TILE_K) * KW;  // a tile's
constexpr int TILES_N = ceil_div(N, TILE_N), PHASES = UPSAMPLE * UPSAMPLE;

constexpr int STRIP_LD = TILE_N + 8;  // floats a row; the pad puts the rows that one store writes in different banks
constexpr int STRIP_BYTES = STRIP_ROWS * STRIP_LD * 4;
constexpr int DRAIN_WARPS = 4 * DRAINERS + 3;  // the producer's warpgroup has three to spare

constexpr int GROUPS = CONSUMERS + 1 + DRAINERS, THREADS = 128 * GROUPS;
constexpr int REGISTERS = 65536 / THREADS / 8 * 8;  // a thread's at entry
constexpr int OTHER_REGISTERS = DRAINERS >= 3 ? 40 : DRAINERS == 2 ? 56 : DRAINERS == 1 ? 72 : 24;
constexpr int LEFT_REGISTERS = (REGISTERS * GROUPS - (1 + DRAINERS) * OTHER_REGISTERS) / CONSUMERS / 8 * 8;
constexpr int CONSUMER_REGISTERS = LEFT_REGISTERS < 240 ? LEFT_REGISTERS : 240;

static_assert(TILE_M % (64 * CONSUMERS) == 0 && TILE_W % 8 == 0, "whole wgmmas; taps along h start at whole atoms");
static_assert(CIN % TILE_K == 0 && PART_N * PARTS == TILE_N, "whole panels");
static_assert(DRAINERS == 0 ? 8 % STRIP_ROWS == 0 : STRIP_ROWS == 16 * BLOCKS, "a warp's strip");
static_assert(!MK_ROW_EPILOGUE || TILES_N == 1, "a row's reduction needs the whole row in one tile");

using Accumulators = float[BLOCKS * PARTS][PART_N / 2];

struct Layout {  // addresses
  u32 boxes, slices, strips, box_full, box_empty, slice_full, slice_empty, strip_full, strip_empty;
};

__device__ __forceinline__ Layout layout() {
  Layout s;
  s.boxes = smem_address(dynamic_smem);
  s.slices = s.boxes + BOX_STAGES * A_SLOT;
  s.strips = s.slices + SLICE_STAGES * B_BYTES;
  s.box_full = s.strips + CONSUMER_WARPS * STRIP_BYTES;
  s.box_empty = s.box_full + 8 * BOX_STAGES;
  s.slice_full = s.box_empty + 8 * BOX_STAGES;
  s.slice_empty = s.slice_full + 8 * SLICE_STAGES;
  s.strip_full = s.slice_empty + 8 * SLICE_STAGES;
  s.strip_empty = s.strip_full + 8 * CONSUMER_WARPS;
  return s;
}
__device__ __forceinline__ float *strip_of(int warp) {
  return reinterpret_cast<float *>(dynamic_smem + BOX_STAGES * A_SLOT + SLICE_STAGES * B_BYTES + warp * STRIP_BYTES);
}

/* Where a tile lies. h and w are the first pixel's, of its phase's pixels, so that output pixel (i, j) of it is
 * (UPSAMPLE (h + i) + phase_h, UPSAMPLE (w + j) + phase_w). */
struct Tile {
  int t, h, w, channel, phase_h, phase_w;

  /* The output row of the tile's pixel, or -1 if the image ends before it. */
  __device__ __forceinline__ i64 row(const Params &p, int pixel) const {
    const int y = UPSAMPLE * (h + pixel / TILE_W) + phase_h, x = UPSAMPLE * (w + pixel % TILE_W) + phase_w;
    return y < p.ho && x < p.wo ? ((i64)t * p.ho + y) * p.wo + x : -1;
  }
};

struct Tiles {
  int across, frames, count;

  __device__ __forceinline__ explicit Tiles(const Params &p)
      : across(ceil_div(ceil_div(p.wo, UPSAMPLE), TILE_W)),
        frames(p.to),
        count(TILES_N * PHASES * across * frames * ceil_div(ceil_div(p.ho, UPSAMPLE), TILE_H)) {}

  __device__ __forceinline__ Tile at(int index) const {
    const int n = index % TILES_N, phase = index / TILES_N % PHASES, rest = index / (TILES_N * PHASES);
    const int w = rest % across, t = rest / across % frames, h = rest / across / frames;
    return {t, h * TILE_H, w * TILE_W, n * TILE_N, phase / UPSAMPLE, phase % UPSAMPLE};
  }
};

/* The stored pixel under tap k of an upsampled one, counted from the tile's own. */
__device__ __forceinline__ int stored(int phase, int k) { return UPSAMPLE == 1 ? k : (phase + k) >> 1; }

__device__ __forceinline__ void produce(const Params &p, const Layout &s) {
  const Tiles tiles(p);
  ring<BOX_STAGES> box;
  ring<SLICE_STAGES> slice;
  tma_prefetch(p.tm_x);
  tma_prefetch(p.tm_w);
  for (int index = (int)blockIdx.x; index < tiles.count; index += (int)gridDim.x) {
    const Tile tile = tiles.at(index);
    const int h = tile.h + stored(tile.phase_h, -PAD_H);
#pragma unroll 1
    for (int i = 0; i < BOXES; i++) {
      const int kw = i % KW, c = i / KW % (CIN / TILE_K) * TILE_K, kt = i / (KW * (CIN / TILE_K));
      const u32 full = s.box_full + 8 * box.slot;
      mbar_wait(s.box_empty + 8 * box.slot, box.phase ^ 1);
      mbar_expect(full, A_BYTES);
      tma_load_4d(s.boxes + box.slot * A_SLOT, p.tm_x, full, c, tile.w + stored(tile.phase_w, kw - PAD_W), h,
                  tile.t + kt - PAD_T);
      box.advance();
#pragma unroll 1
      for (int kh = 0; kh < KH; kh++) {
        const u32 to = s.slices + slice.slot * B_BYTES, arrived = s.slice_full + 8 * slice.slot;
        mbar_wait(s.slice_empty + 8 * slice.slot, slice.phase ^ 1);
        mbar_expect(arrived, B_BYTES);
#pragma unroll
        for (int part = 0; part < PARTS; part++)
          tma_load_2d(to + part * (PART_N * ROW), p.tm_w, arrived, ((kt * KH + kh) * KW + kw) * CIN + c,
                      tile.channel + part * PART_N);
        slice.advance();
      }
    }
  }
}

/* acc (+)= one tap's product, issued and committed, not awaited. */
__device__ __forceinline__ void multiply(Accumulators &acc, u32 pixels, u32 slice, bool accumulate) {
  const u64 a = wgmma_operand<ROW>(pixels, 16, 8 * ROW), b = wgmma_operand<ROW>(slice, 16, 8 * ROW);
#pragma unroll
  for (int j = 0; j < BLOCKS * PARTS; j++) pin(acc[j]);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < TILE_K / 16; i++)
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
      for (int part = 0; part < PARTS; part++)
        wgmma<T, PART_N>::template shared_a<false>(acc[j * PARTS + part], wgmma_advance(a, j * (64 * ROW) + 32 * i),
                                                   wgmma_advance(b, part * (PART_N * ROW) + 32 * i), accumulate || i > 0);
  wgmma_commit();
}

/* Until at most PENDING taps' products are under way. */
template <int PENDING>
__device__ __forceinline__ void settle(Accumulators &acc) {
  wgmma_wait<PENDING>();
#pragma unroll
  for (int j = 0; j < BLOCKS * PARTS; j++) pin(acc[j]);
}

/* A warp has read all it needs of a slot. */
__device__ __forceinline__ void release(u32 empty, int lane) {
  if (lane == 0) mbar_arrive(empty);
}

/* A warp's rows 8 I .. 8 I + 7 (of its 16 in each block), those of which `wanted` is true on their lanes, to `to` of the
 * thread's. */
template <int I>
__device__ __forceinline__ void dump(float *to, const Accumulators &acc, bool wanted) {
  if constexpr (I < 2 * BLOCKS) {
    if (wanted) {
#pragma unroll
      for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int i = 0; i < PART_N / 8; i++) {
          const float *pair = acc[I / 2 * PARTS + part] + 4 * i + 2 * (I % 2);
          const float v[2] = {pair[0], pair[1]};
          store_vec<2>(to + part * PART_N + 8 * i, v);
        }
    }
  }
}

/* Rows of a strip through the fused code; this warp takes the `share`th row of every `shares`. The first row is the tile's pixel
 * `first`, and after 16 rows comes the next block of 64. */
__device__ __forceinline__ void drain(const Params &p, const Tile &tile, const float *strip, int first, int share, int shares,
                                      int lane) {
#if MK_ROW_EPILOGUE
#pragma unroll 1
  for (int r = share; r < STRIP_ROWS; r += shares) {
    const i64 row = tile.row(p, first + r / 16 * 64 + r % 16);
    if (row >= 0) epilogue_row(p, row, strip + r * STRIP_LD, lane);
  }
#else
  constexpr int V = N % 8 == 0 ? 8 : N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1, VECTORS = TILE_N / V;  // of a row
#pragma unroll 1
  for (int i = share * WARP + lane; i < STRIP_ROWS * VECTORS; i += shares * WARP) {
    const int r = i / VECTORS, c = i % VECTORS * V;
    const i64 row = tile.row(p, first + r / 16 * 64 + r % 16);
    if (row >= 0 && tile.channel + c < N) {
      float v[V];
      load_vec<V>(strip + r * STRIP_LD + c, v);
      epilogue<V>(p, row, tile.channel + c, v);
    }
  }
#endif
}

/* The tile's first pixel that a consumer warp has. */
__device__ __forceinline__ int first_pixel(int warp) { return warp / 4 * (64 * BLOCKS) + warp % 4 * 16; }

/* What follows the products: the strip is handed to the drainers, or drained here. */
__device__ __forceinline__ void finish(const Params &p, const Layout &s, const Tile &tile, const Accumulators &acc, int warp,
                                       int lane, u32 turn) {
  float *strip = strip_of(warp), *mine = strip + 2 * (lane % 4);
  if constexpr (DRAINERS > 0) {
    mine += lane / 4 * STRIP_LD;
    mbar_wait(s.strip_empty + 8 * warp, turn ^ 1);
    dump<0>(mine, acc, true);
    dump<1>(mine + 8 * STRIP_LD, acc, true);
    dump<2>(mine + 16 * STRIP_LD, acc, true);
    dump<3>(mine + 24 * STRIP_LD, acc, true);
    __syncwarp();
    release(s.strip_full + 8 * warp, lane);
  } else {
    static_assert(BLOCKS <= 2, "as many cases");
    mine += lane / 4 % STRIP_ROWS * STRIP_LD;
#pragma unroll 1
    for (int row = 0; row < 16 * BLOCKS; row += STRIP_ROWS) {
      const bool wanted = lane / 4 / STRIP_ROWS == row % 8 / STRIP_ROWS;
      switch (row / 8) {
        case 0: dump<0>(mine, acc, wanted); break;
        case 1: dump<1>(mine, acc, wanted); break;
        case 2: dump<2>(mine, acc, wanted); break;
        default: dump<3>(mine, acc, wanted); break;
      }
      __syncwarp();
      drain(p, tile, strip, first_pixel(warp) + row / 16 * 64 + row % 16, 0, 1, lane);
      __syncwarp();
    }
  }
}

__device__ __forceinline__ void consume(const Params &p, const Layout &s, int warp) {
  const Tiles tiles(p);
  const int lane = (int)threadIdx.x % WARP;
  const u32 block_rows = (u32)(warp / 4 * (BLOCKS * 64 * ROW));
  ring<BOX_STAGES> box;
  ring<SLICE_STAGES> slice;
  u32 turn = 0;
  for (int index = (int)blockIdx.x; index < tiles.count; index += (int)gridDim.x, turn ^= 1) {
    const Tile tile = tiles.at(index);
    Accumulators acc;
    u32 last_box = 0, last_slice = 0;
#pragma unroll 1
    for (int i = 0; i < BOXES; i++) {
      const u32 pixels = s.boxes + box.slot * A_SLOT + block_rows;
      mbar_wait(s.box_full + 8 * box.slot, box.phase);
#pragma unroll
      for (int kh = 0; kh < KH; kh++) {
        const int down = stored(tile.phase_h, kh - PAD_H) - stored(tile.phase_h, -PAD_H);
        mbar_wait(s.slice_full + 8 * slice.slot, slice.phase);
        multiply(acc, pixels + down * (TILE_W * ROW), s.slices + slice.slot * B_BYTES, i > 0 || kh > 0);
        settle<1>(acc);
        if (i > 0 || kh > 0) release(s.slice_empty + 8 * last_slice, lane);
        if (i > 0 && kh == 0) release(s.box_empty + 8 * last_box, lane);
        last_slice = slice.slot;
        slice.advance();
      }
      last_box = box.slot;
      box.advance();
    }
    settle<0>(acc);
    release(s.slice_empty + 8 * last_slice, lane);
    release(s.box_empty + 8 * last_box, lane);
    finish(p, s, tile, acc, warp, lane, turn);
  }
}

/* All strips of every tile, shared among the drain warps; who begins differs from strip to strip. */
__device__ __forceinline__ void drain_strips(const Params &p, const Layout &s, int warp) {
  const Tiles tiles(p);
  const int lane = (int)threadIdx.x % WARP;
  u32 turn = 0;
  for (int index = (int)blockIdx.x; index < tiles.count; index += (int)gridDim.x, turn ^= 1) {
    const Tile tile = tiles.at(index);
    int share = warp;
#pragma unroll 1
    for (int strip = 0; strip < CONSUMER_WARPS; strip++) {
      mbar_wait(s.strip_full + 8 * strip, turn);
      drain(p, tile, strip_of(strip), first_pixel(strip), share, DRAIN_WARPS, lane);
      __syncwarp();
      release(s.strip_empty + 8 * strip, lane);
      share = (share + (DRAIN_WARPS - STRIP_ROWS % DRAIN_WARPS)) % DRAIN_WARPS;
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL(const __grid_constant__ Params p) {
  const Layout s = layout();
  const int warp = __shfl_sync(FULL_WARP, (int)threadIdx.x / WARP, 0);
  if (threadIdx.x == 0) {
    for (int i = 0; i < BOX_STAGES; i++) {
      mbar_init(s.box_full + 8 * i, 1);
      mbar_init(s.box_empty + 8 * i, CONSUMER_WARPS);
    }
    for (int i = 0; i < SLICE_STAGES; i++) {
      mbar_init(s.slice_full + 8 * i, 1);
      mbar_init(s.slice_empty + 8 * i, CONSUMER_WARPS);
    }
    for (int i = 0; i < CONSUMER_WARPS && DRAINERS > 0; i++) {
      mbar_init(s.strip_full + 8 * i, 1);
      mbar_init(s.strip_empty + 8 * i, DRAIN_WARPS);
    }
    mbar_init_fence();
  }
  __syncthreads();

  if (warp < CONSUMER_WARPS) {
    registers_grow<CONSUMER_REGISTERS>();
    consume(p, s, warp);
  } else {
    registers_shrink<OTHER_REGISTERS>();
    if (warp == CONSUMER_WARPS) {
      if (threadIdx.x % WARP == 0) produce(p, s);
    } else if constexpr (DRAINERS > 0) {
      drain_strips(p, s, warp - CONSUMER_WARPS - 1);
    }
  }
}

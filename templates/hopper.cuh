/* Hopper's own instructions (sm_90a): mbarriers, the bulk tensor copy (TMA), wgmma and setmaxnreg. Composed behind the
 * prelude for templates whose sidecar says uses = {"hopper.cuh"}.
 *
 * Traps met here: a wgmma whose descriptors are compile-time constants crashes ptxas, so build them from run-time addresses;
 * touching an accumulator between wgmma_fence and the matching wait makes ptxas serialise the pipeline (warning C7510);
 * setmaxnreg counts only with a register cap at entry (__launch_bounds__(threads, 1)). */

/* ---- mbarriers in shared memory; `bar` is a shared address of 8 bytes ---- */

__device__ __forceinline__ void mbar_init(u32 bar, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
/* Makes the inits visible to the copy engine; a block barrier must follow. */
__device__ __forceinline__ void mbar_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void mbar_arrive(u32 bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* The same on the barrier at this address in another block of the cluster, or in this one. No .release.cluster: that is a fence of the
 * whole GPU's memory, 500 clocks in each warp for each slot, and what was read through wgmma has been waited for. */
__device__ __forceinline__ void mbar_arrive_at(u32 bar, u32 rank) {
  asm volatile("{\n\t.reg .b32 there;\n\t"
               "mapa.shared::cluster.u32 there, %0, %1;\n\t"
               "mbarrier.arrive.shared::cluster.b64 _, [there];\n\t}" ::"r"(bar),
               "r"(rank)
               : "memory");
}
/* One arrival that also announces bytes to come by TMA. */
__device__ __forceinline__ void mbar_expect(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
/* Returns once the phase of this parity has completed; a fresh barrier counts as having completed phase 1. */
__device__ __forceinline__ void mbar_wait(u32 bar, u32 parity) {
  asm volatile("{\n\t.reg .pred done;\n\t"
               "again:\n\t"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
               "@done bra ready;\n\t"
               "bra again;\n\t"
               "ready:\n\t}" ::"r"(bar),
               "r"(parity)
               : "memory");
}

/* Position in a ring of `N` slots: consumers wait for full[slot] at `phase`, the producer for empty[slot] at `phase ^ 1`. */
template <int N>
struct ring {
  u32 slot = 0, phase = 0;
  __device__ __forceinline__ void advance() {
    if (++slot == N) {
      slot = 0;
      phase ^= 1;
    }
  }
};

/* ---- TMA: coordinates innermost first; elements out of bounds arrive as zeros ---- */

__device__ __forceinline__ void tma_load_5d(u32 dst, const tmap &map, u32 bar, int x0, int x1, int x2, int x3, int x4) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(dst),
               "l"(&map), "r"(bar), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
               : "memory");
}
/* To the same place in every block of the cluster whose bit is set; each block's own barrier at `bar` counts the bytes. */
__device__ __forceinline__ void tma_load_5d_to(u16 blocks, u32 dst, const tmap &map, u32 bar, int x0, int x1, int x2, int x3, int x4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4, %5, %6, %7}], [%2], "
      "%8;" ::"r"(dst),
      "l"(&map), "r"(bar), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "h"(blocks)
      : "memory");
}
__device__ __forceinline__ void tma_load_4d(u32 dst, const tmap &map, u32 bar, int x0, int x1, int x2, int x3) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(dst),
               "l"(&map), "r"(bar), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
               : "memory");
}
__device__ __forceinline__ void tma_load_2d(u32 dst, const tmap &map, u32 bar, int x0, int x1) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(dst), "l"(&map),
               "r"(bar), "r"(x0), "r"(x1)
               : "memory");
}
__device__ __forceinline__ void tma_load_2d_to(u16 blocks, u32 dst, const tmap &map, u32 bar, int x0, int x1) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(
                   dst),
               "l"(&map), "r"(bar), "r"(x0), "r"(x1), "h"(blocks)
               : "memory");
}
/* Fetches the map itself ahead of its first use. */
__device__ __forceinline__ void tma_prefetch(const tmap &map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

/* ---- clusters ---- */

__device__ __forceinline__ u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/* All threads of all blocks of the cluster; a warp need not come together. */
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

/* ---- named barriers ---- */

/* `threads` counts those that sync and those that only arrive. */
__device__ __forceinline__ void named_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void named_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

/* ---- registers of a warpgroup ---- */

/* threadIdx.x, read again each time: what is needed once a tile must not occupy a register throughout. */
__device__ __forceinline__ int thread_afresh() {
  int t;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
  return t;
}

template <int N>
__device__ __forceinline__ void registers_grow() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void registers_shrink() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma: D (64 x N, f32 registers) += A (64 x 16) B (16 x N) by one warpgroup ----
 * Thread t = 32 w + 4 g + q of the group holds d[4 i + 2 h + e] = D(16 w + g + 8 h, 8 i + 2 q + e). A comes from shared memory or
 * from registers, packed as mma's a of the warp's 16 rows; B from shared memory. */

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
/* Keeps the compiler from moving uses of accumulators over a fence or a wait. */
template <int N>
__device__ __forceinline__ void pin(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

/* Matrix descriptor of an operand in shared memory, swizzled within rows of SWIZZLE bytes (128 or 64); atoms are 8 such rows.
 * Contiguous along k (Q, K of attention; both operands of x W^T): stride = bytes between groups of 8 rows (8 SWIZZLE), lead unused; 16 k are 32 bytes.
 * Contiguous along m or n (V of attention): lead = bytes between 64-column panels, stride = bytes between groups of 8 k (1024). */
template <int SWIZZLE = 128>
__device__ __forceinline__ u64 wgmma_operand(u32 address, u32 lead, u32 stride) {
  static_assert(SWIZZLE == 128 || SWIZZLE == 64, "what the templates use");
  return ((SWIZZLE == 128 ? 1ull : 2ull) << 62) | ((u64)(stride >> 4) << 32) | ((u64)(lead >> 4) << 16) | ((address & 0x3ffffu) >> 4);
}

/* The operand `bytes` further on: one add instead of a new descriptor. */
__device__ __forceinline__ u64 wgmma_advance(u64 operand, u32 bytes) { return operand + (bytes >> 4); }

template <typename T, int N>
struct wgmma;

#define MK_P8(t) "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7"
#define MK_P10(t) MK_P8(t) ", %" #t "8, %" #t "9"
#define MK_P2(t) "%" #t "0, %" #t "1"
#define MK_P4 MK_P2() ", %2, %3"
#define MK_P30 MK_P10() ", " MK_P10(1) ", " MK_P10(2)
#define MK_P60 MK_P30 ", " MK_P10(3) ", " MK_P10(4) ", " MK_P10(5)
#define MK_P32 MK_P30 ", " MK_P2(3)
#define MK_P40 MK_P30 ", " MK_P10(3)
#define MK_P48 MK_P40 ", " MK_P8(4)
#define MK_P64 MK_P60 ", %60, %61, %62, %63"
#define MK_P80 MK_P60 ", " MK_P10(6) ", " MK_P10(7)
#define MK_P90 MK_P80 ", " MK_P10(8)
#define MK_P96 MK_P90 ", %90, %91, %92, %93, %94, %95"
#define MK_P128 MK_P90 ", " MK_P10(9) ", " MK_P10(10) ", " MK_P10(11) ", " MK_P8(12)
#define MK_D4 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define MK_D8(i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define MK_D16(i) MK_D8(i), MK_D8(i + 8)
#define MK_D32 MK_D16(0), MK_D16(16)
#define MK_D40 MK_D32, MK_D8(32)
#define MK_D48 MK_D32, MK_D16(32)
#define MK_D64 MK_D32, MK_D16(32), MK_D16(48)
#define MK_D80 MK_D64, MK_D16(64)
#define MK_D96 MK_D64, MK_D16(64), MK_D16(80)
#define MK_D128 MK_D64, MK_D16(64), MK_D16(80), MK_D16(96), MK_D16(112)

/* The accumulators are operands 0 .. R-1 (R = N / 2); n0 .. n6 are the numbers of those behind them. */
#define MK_WGMMA(T, N, R, n0, n1, n2, n3, n4, n5, n6)                                                                          \
  template <>                                                                                                                  \
  struct wgmma<T, N> {                                                                                                         \
    template <bool B_ALONG_N>                                                                                                  \
    static __device__ __forceinline__ void shared_a(float (&d)[R], u64 a, u64 b, bool accumulate) {                            \
      asm volatile("{\n\t.reg .pred acc;\n\tsetp.ne.b32 acc, %" #n2 ", 0;\n\t"                                                 \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" MK_P##R "}, %" #n0 ", %" #n1               \
                   ", acc, 1, 1, 0, %" #n3 ";\n\t}"                                                                            \
                   : MK_D##R                                                                                                   \
                   : "l"(a), "l"(b), "r"((int)accumulate), "n"((int)B_ALONG_N));                                               \
    }                                                                                                                          \
    template <bool B_ALONG_N>                                                                                                  \
    static __device__ __forceinline__ void register_a(float (&d)[R], const u32 (&a)[4], u64 b, bool accumulate) {              \
      asm volatile("{\n\t.reg .pred acc;\n\tsetp.ne.b32 acc, %" #n5 ", 0;\n\t"                                                 \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" MK_P##R "}, {%" #n0 ", %" #n1 ", %" #n2    \
                   ", %" #n3 "}, %" #n4 ", acc, 1, 1, %" #n6 ";\n\t}"                                                          \
                   : MK_D##R                                                                                                   \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)accumulate), "n"((int)B_ALONG_N));           \
    }                                                                                                                          \
  };
#define MK_WGMMA_TYPES(...) MK_WGMMA(bf16, __VA_ARGS__) MK_WGMMA(f16, __VA_ARGS__)
MK_WGMMA_TYPES(8, 4, 4, 5, 6, 7, 8, 9, 10)
MK_WGMMA_TYPES(64, 32, 32, 33, 34, 35, 36, 37, 38)
MK_WGMMA_TYPES(80, 40, 40, 41, 42, 43, 44, 45, 46)
MK_WGMMA_TYPES(96, 48, 48, 49, 50, 51, 52, 53, 54)
MK_WGMMA_TYPES(128, 64, 64, 65, 66, 67, 68, 69, 70)
MK_WGMMA_TYPES(192, 96, 96, 97, 98, 99, 100, 101, 102)
MK_WGMMA_TYPES(256, 128, 128, 129, 130, 131, 132, 133, 134)

/* hopper.cuh for the host: mbarriers, TMA copies and wgmma as one block of fibers sees them. As unkind as the hardware may be:
 * copies arrive at random times in any order, and a product is computed when it is waited for, so a slot given back too early is
 * read late. Swizzles and descriptors are followed bit by bit. After cuda_host.hh. */
#pragma once
#include <cstdio>
#include <deque>
#include <functional>
#include <map>

namespace host {
[[noreturn]] inline void complain(const char *what) {
  fprintf(stderr, "block %u thread %u: %s\n", blockIdx.x, current, what);
  exit(3);
}

/* ---- mbarriers */

struct barrier {
  int expected = 0, pending = 0;
  i64 bytes = 0;
  u32 phase = 0;
};
inline std::map<u32, barrier> barriers;
inline u64 idle; /* waits in vain since anything last moved */

inline barrier &barrier_at(u32 address) {
  auto b = barriers.find(address);
  if (b == barriers.end()) complain("no mbarrier there");
  return b->second;
}
inline void settle(barrier &b) {
  idle = 0;
  if (b.pending < 0) complain("an arrival too many");
  if (b.pending || b.bytes) return;
  b.pending = b.expected;
  b.phase ^= 1;
}
inline u32 chance(u32 sides) {
  static u32 seed = 1;
  return ((seed = seed * 1664525 + 1013904223) >> 12) % sides;
}
inline std::vector<std::function<void()>> copies; /* under way */

/* Lets others run, and a copy arrive now and then. */
inline void yield() {
  u32 self = current;
  if (++idle > 20000000) complain("everyone waits");
  if (!copies.empty() && !chance(64)) {
    std::swap(copies[chance((u32)copies.size())], copies.back());
    auto arrive = std::move(copies.back());
    copies.pop_back();
    arrive();
  }
  swapcontext(&fibers[self].context, &scheduler);
}

/* ---- what the lanes of a warp have in hand, shown to each other until all have seen it */

inline u32 shown[1024][4];
inline void show(const u32 *x, int n) {
  memcpy(shown[current], x, (size_t)n * 4);
  wait(AT_WARP);
}
inline void seen() { wait(AT_WARP); }

/* ---- named barriers */

struct meeting {
  int arrived = 0;
  u32 times = 0;
};
inline meeting meetings[16];
inline void arrive(int id, int threads) {
  meeting &m = meetings[id];
  if (++m.arrived < threads) return;
  idle = 0;
  m.arrived = 0;
  m.times++;
}

/* ---- tensor maps */

struct map {
  const u8 *base;
  int rank, swizzle;
  i64 dims[5], strides[5]; /* bytes; strides[0] is an element's */
  int box[5];
};
inline tmap make_map(const map &m) {
  tmap t;
  map *kept = new map(m); /* a test's few, never freed */
  memcpy(t.bytes, &kept, sizeof kept);
  return t;
}
inline u32 swizzled(u32 address, int bytes) { return address ^ (address >> 7 & (u32)(bytes / 16 - 1)) << 4; }

inline void copy(u32 dst, const map *m, u32 bar, const std::vector<int> &at) {
  i64 count = 1;
  for (int d = 0; d < m->rank; d++) count *= m->box[d];
  for (i64 i = 0; i < count; i++) {
    i64 rest = i, offset = 0;
    bool inside = true;
    for (int d = 0; d < m->rank; d++) {
      i64 x = at[d] + rest % m->box[d];
      rest /= m->box[d];
      inside = inside && x >= 0 && x < m->dims[d];
      offset += x * m->strides[d];
    }
    u16 value = 0;
    if (inside) memcpy(&value, m->base + offset, 2);
    memcpy(dynamic_smem + swizzled(dst + (u32)i * 2, m->swizzle), &value, 2);
  }
  barrier &b = barrier_at(bar);
  b.bytes -= 2 * count;
  settle(b);
}
inline void load(u32 dst, const tmap &t, u32 bar, std::vector<int> at) {
  const map *m;
  memcpy(&m, t.bytes, sizeof m);
  if ((int)at.size() != m->rank) complain("a copy of another rank than its map's");
  if (dst % (u32)(8 * m->swizzle)) complain("a copy to the middle of a swizzle atom");
  if (m->box[0] * 2 != m->swizzle) complain("a box that is not one swizzled row wide");
  copies.push_back([=] { copy(dst, m, bar, at); });
}

/* ---- wgmma */

struct products { /* of one thread */
  std::vector<std::function<void()>> open;
  std::deque<std::vector<std::function<void()>>> groups;
};
inline products under_way[1024];

/* Row `row` of an operand, 16 of k. */
template <typename T>
void operand_row(u64 operand, int row, float (&v)[16]) {
  int bytes = operand >> 62 == 1 ? 128 : operand >> 62 == 2 ? 64 : 32;
  u32 start = (u32)(operand & 0x3fff) << 4, stride = (u32)(operand >> 32 & 0x3fff) << 4;
  if (start / 128 % (u32)(bytes / 16)) complain("an operand that starts in the middle of a swizzle atom");
  for (int k = 0; k < 16; k++) {
    T x;
    memcpy(&x, dynamic_smem + swizzled(start + (u32)(row / 8) * stride + (u32)(row % 8 * bytes + 2 * k), bytes), 2);
    v[k] = to_f32(x);
  }
}
/* Column `column` of an operand that is contiguous along n, 16 of k. */
template <typename T>
void operand_column(u64 operand, int column, float (&v)[16]) {
  if (operand >> 62 != 1) complain("an operand along n in another swizzle than 128 bytes");
  u32 start = (u32)(operand & 0x3fff) << 4, lead = (u32)(operand >> 16 & 0x3fff) << 4, stride = (u32)(operand >> 32 & 0x3fff) << 4;
  for (int k = 0; k < 16; k++) {
    T x;
    u32 at = start + (u32)(column / 64) * lead + (u32)(k / 8) * stride + (u32)(k % 8 * 128 + column % 64 * 2);
    memcpy(&x, dynamic_smem + swizzled(at, 128), 2);
    v[k] = to_f32(x);
  }
}
/* Rows g and g + 8 of a left operand, 16 of k, from the registers of the four lanes that have them. */
struct fragments {
  float rows[2][16];
};
template <typename T>
void quad_rows(const u32 (&a)[4], fragments &f) {
  show(a, 4);
  for (u32 lane = 0; lane < 4; lane++)
    for (int i = 0; i < 4; i++) {
      float *pair = f.rows[i % 2] + i / 2 * 8 + 2 * lane;
      unpack2<T>(shown[current / 4 * 4 + lane][i], pair[0], pair[1]);
    }
  seen();
}
/* d (+)= x b, where the thread's rows of the left operand are x. */
template <typename T, int N, bool B_ALONG_N>
void product(float *d, const float (&x)[2][16], u64 b, bool accumulate, u32 thread) {
  float y[16];
  for (int i = 0; i < N / 8; i++)
    for (int e = 0; e < 2; e++) {
      int column = 8 * i + 2 * (int)(thread % 4) + e;
      if (B_ALONG_N)
        operand_column<T>(b, column, y);
      else
        operand_row<T>(b, column, y);
      for (int h = 0; h < 2; h++) {
        float sum = accumulate ? d[4 * i + 2 * h + e] : 0.f;
        for (int k = 0; k < 16; k++) sum += x[h][k] * y[k];
        d[4 * i + 2 * h + e] = sum;
      }
    }
}
}  // namespace host

inline void mbar_init(u32 bar, u32 arrivals) { host::barriers[bar] = {(int)arrivals, (int)arrivals, 0, 0}; }
inline void mbar_init_fence() {
  for (host::meeting &m : host::meetings) m.arrived = 0; /* a block begins; the last one may have left arrivals nobody waited for */
}
inline void mbar_arrive(u32 bar) {
  host::barrier &b = host::barrier_at(bar);
  b.pending--;
  host::settle(b);
}
inline void mbar_expect(u32 bar, u32 bytes) {
  host::barrier_at(bar).bytes += bytes;
  mbar_arrive(bar);
}
inline void mbar_wait(u32 bar, u32 parity) {
  do host::yield(); /* even where there is nothing to wait for: others may be ahead */
  while (host::barrier_at(bar).phase == parity);
}

template <int N>
struct ring {
  u32 slot = 0, phase = 0;
  void advance() {
    if (++slot == N) {
      slot = 0;
      phase ^= 1;
    }
  }
};

inline void tma_load_5d(u32 dst, const tmap &map, u32 bar, int x0, int x1, int x2, int x3, int x4) {
  host::load(dst, map, bar, {x0, x1, x2, x3, x4});
}
inline void tma_load_4d(u32 dst, const tmap &map, u32 bar, int x0, int x1, int x2, int x3) {
  host::load(dst, map, bar, {x0, x1, x2, x3});
}
inline void tma_load_2d(u32 dst, const tmap &map, u32 bar, int x0, int x1) { host::load(dst, map, bar, {x0, x1}); }
inline void tma_prefetch(const tmap &) {}

/* There is one block at a time: what a cluster does must not be reached. */
inline u32 cluster_rank() { return 0; }
inline void cluster_sync() { host::complain("a cluster"); }
inline void mbar_arrive_at(u32, u32) { host::complain("a cluster"); }
inline void tma_load_2d_to(u16, u32, const tmap &, u32, int, int) { host::complain("a cluster"); }

inline void tma_load_5d_to(u16, u32, const tmap &, u32, int, int, int, int, int) { host::complain("a cluster"); }

inline int thread_afresh() { return (int)host::current; }

inline void named_arrive(int id, int threads) { host::arrive(id, threads); }
inline void named_sync(int id, int threads) {
  u32 times = host::meetings[id].times;
  host::arrive(id, threads);
  while (host::meetings[id].times == times) host::yield();
}

template <int N>
void registers_grow() {
  static_assert(N % 8 == 0 && N <= 256, "setmaxnreg");
}
template <int N>
void registers_shrink() {
  static_assert(N % 8 == 0 && N >= 24, "setmaxnreg");
}

inline void wgmma_fence() {}
inline void wgmma_commit() {
  host::products &p = host::under_way[host::current];
  p.groups.push_back(std::move(p.open));
  p.open.clear();
}
template <int PENDING>
void wgmma_wait() {
  host::products &p = host::under_way[host::current];
  for (; p.groups.size() > PENDING; p.groups.pop_front())
    for (auto &f : p.groups.front()) f();
}
template <int N>
void pin(float (&)[N]) {}

template <int SWIZZLE = 128>
u64 wgmma_operand(u32 address, u32 lead, u32 stride) {
  return ((SWIZZLE == 128 ? 1ull : 2ull) << 62) | ((u64)(stride >> 4) << 32) | ((u64)(lead >> 4) << 16) |
         ((address & 0x3ffffu) >> 4);
}
inline u64 wgmma_advance(u64 operand, u32 bytes) { return operand + (bytes >> 4); }

template <typename T, int N>
struct wgmma {
  template <bool B_ALONG_N>
  static void shared_a(float (&d)[N / 2], u64 a, u64 b, bool accumulate) {
    u32 thread = host::current;
    host::under_way[thread].open.push_back([&d, a, b, accumulate, thread] {
      float x[2][16];
      int row = (int)(thread / 32 % 4 * 16 + thread % 32 / 4);
      host::operand_row<T>(a, row, x[0]);
      host::operand_row<T>(a, row + 8, x[1]);
      host::product<T, N, B_ALONG_N>(d, x, b, accumulate, thread);
    });
  }
  /* The rows are taken here; hardware reads them as late as the rest. */
  template <bool B_ALONG_N>
  static void register_a(float (&d)[N / 2], const u32 (&a)[4], u64 b, bool accumulate) {
    u32 thread = host::current;
    host::fragments f;
    host::quad_rows<T>(a, f);
    host::under_way[thread].open.push_back(
        [&d, f, b, accumulate, thread] { host::product<T, N, B_ALONG_N>(d, f.rows, b, accumulate, thread); });
  }
};

/* ---- mma of one warp */

inline void ldmatrix_x4(u32 (&r)[4], u32 address) {
  for (u32 i = 0; i < 4; i++) {
    u32 at = __shfl_sync(FULL_WARP, address, (int)(8 * i + host::current % 32 / 4)) + 4 * (host::current % 4);
    memcpy(&r[i], dynamic_smem + at, 4);
  }
}
template <typename T>
void mma(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  host::fragments f;
  host::quad_rows<T>(a, f);
  host::show(b, 2);
  for (u32 e = 0; e < 2; e++)
    for (u32 lane = 0; lane < 4; lane++)
      for (int i = 0; i < 2; i++) {
        const u32 column = 2 * (host::current % 4) + e;
        float y[2];
        unpack2<T>(host::shown[host::current / 32 * 32 + 4 * column + lane][i], y[0], y[1]);
        for (u32 h = 0; h < 2; h++)
          for (u32 k = 0; k < 2; k++) d[2 * h + e] += f.rows[h][8 * i + 2 * lane + k] * y[k];
      }
  host::seen();
}

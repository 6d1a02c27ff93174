-- RMS norm over all channels of q, weight, split into heads, rotation, cast; q is a slice of the joined projection: one kernel, each
-- tensor read and written once.
local tokens = params.tokens
local qkv = input{name = "qkv", shape = {tokens, 3 * 5120}, dtype = "bf16"}
local cos, sin = input{name = "cos", shape = {tokens, 64}, rate = "prompt"}, input{name = "sin", shape = {tokens, 64}, rate = "prompt"}
local q = qkv:slice(2, 0, 5120)
q = q * ((q * q):mean() + 1e-6):rsqrt() * weight("norm_q", {5120})
output("q", rope(q:reshape{tokens, 40, 128}, cos, sin):cast"bf16")

--[==[ expected:
/* A row program: each row's values stay in registers between its reductions.
 *   v0 = in0 bf16 [row, 40, 64, 2]
 *   v1 = mul v0 v0
 *   v2 = mean v1
 *   v4 = add v2 9.99999997e-07
 *   v5 = rsqrt v4
 *   v6 = mul v0 v5
 *   v7 = in1 f32 [40, 64, 2]
 *   v8 = mul v6 v7
 *   v9 = in2 f32 [row, 64]
 *   v10 = in3 f32 [row, 64]
 *   v11 = rope v8 v9 v10
 *   out0 bf16 [row, 40, 64, 2] = v11
 */
constexpr int COLS = 5120, V = 8, THREADS = 320, ITEMS = 2, STAGES = 2;
struct Params {
  const bf16 *in0;
  const float *in1;
  const float *in2;
  const float *in3;
  bf16 *out0;
  i64 in0_stride0;
  i64 in2_stride0;
  i64 in3_stride0;
  i64 out0_stride0;
  u32 rows;
};
static_assert(sizeof(Params) == 80, "the host fills this struct");

extern "C" __global__ void __launch_bounds__(320, 2) KERNEL(const __grid_constant__ Params p) {
  const int lane = threadIdx.x;
  __shared__ float scratch[STAGES][1][THREADS / WARP];
  constexpr int PIECES = 4, PIECE = THREADS * 16;
  float v7[ITEMS][V];
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
    load_lanes<8>(p.in1 + c, v7[k]);
  }
  const auto fetch = [&](u32 row, int stage) {
    const bool valid = row < p.rows;
    u8 *to = dynamic_smem + (stage * PIECES * THREADS + lane) * 16;
    const i64 at_in0 = row * p.in0_stride0;
    const i64 at_in2 = row * p.in2_stride0;
    const i64 at_in3 = row * p.in3_stride0;
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
      const int c = (k * THREADS + lane) * V;
      fetch_lanes<V, PIECE>(p.in0 + at_in0 + c, to + (0 + k) * PIECE, valid);
      if (k == 0) fetch_lanes<V / 2, PIECE>(p.in2 + at_in2 + c / 2 % 64, to + 2 * PIECE, valid);
      if (k == 0) fetch_lanes<V / 2, PIECE>(p.in3 + at_in3 + c / 2 % 64, to + 3 * PIECE, valid);
    }
    cp_async_commit();
  };
  for (int i = 0; i < STAGES - 1; i++) fetch(blockIdx.x + i * gridDim.x, i);
  int stage = 0;
  for (u32 row = blockIdx.x; row < p.rows; row += gridDim.x) {
    fetch(row + (STAGES - 1) * gridDim.x, stage ? stage - 1 : STAGES - 1);
    cp_async_wait<STAGES - 1>();
    const u8 *ready = dynamic_smem + (stage * PIECES * THREADS + lane) * 16;
    const i64 at_out0 = row * p.out0_stride0;
    float v0[ITEMS][V];
    float v2 = 0.f;
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
      fetched_lanes<bf16, PIECE>(ready + (0 + k) * PIECE, v0[k]);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float v1 = v0[k][i] * v0[k][i];
        v2 += v1;
      }
    }
    v2 = combine_block<THREADS>(v2, scratch[stage][0], add_values());
    v2 *= 1.f / COLS;
    const float v4 = v2 + 9.99999997e-07f;
    const float v5 = op_rsqrt(v4);
    float v9[ITEMS][V];
    float v10[ITEMS][V];
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
      fetched_pairs<float, PIECE>(ready + 2 * PIECE, v9[k]);
      fetched_pairs<float, PIECE>(ready + 3 * PIECE, v10[k]);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
      const int c = (k * THREADS + lane) * V;
      float v8[V];
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float v6 = v0[k][i] * v5;
        v8[i] = v6 * v7[k][i];
      }
      float v11[V];
#pragma unroll
      for (int i = 0; i < V; i += 2) {
        v11[i] = v8[i] * v9[k][i] - v8[i + 1] * v10[k][i];
        v11[i + 1] = v8[i] * v10[k][i] + v8[i + 1] * v9[k][i];
      }
      store_lanes<8>(p.out0 + at_out0 + c, v11);
    }
    stage = stage + 1 < STAGES ? stage + 1 : 0;
  }
}
]==]

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
constexpr int COLS = 5120, V = 8, THREADS = 320, ITEMS = 2;
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
};
static_assert(sizeof(Params) == 72, "the host fills this struct");

extern "C" __global__ void __launch_bounds__(320, 4) KERNEL(const __grid_constant__ Params p) {
  const int lane = threadIdx.x;
  const u32 row = blockIdx.x;
  __shared__ float scratch[1][THREADS / WARP];
  const i64 at_in0 = row * p.in0_stride0;
  const i64 at_in2 = row * p.in2_stride0;
  const i64 at_in3 = row * p.in3_stride0;
  const i64 at_out0 = row * p.out0_stride0;
  float v0[ITEMS][V];
  float v2 = 0.f;
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
    load_lanes<8>(p.in0 + at_in0 + c, v0[k]);
  }
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float v1 = v0[k][i] * v0[k][i];
      v2 += v1;
    }
  }
  v2 = combine_block<THREADS>(v2, scratch[0], add_values());
  v2 *= 1.f / COLS;
  const float v4 = v2 + 9.99999997e-07f;
  const float v5 = op_rsqrt(v4);
  float v7[ITEMS][V];
  float v9[ITEMS][V];
  float v10[ITEMS][V];
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
    load_lanes<8>(p.in1 + c, v7[k]);
    load_pairs<4>(p.in2 + at_in2 + c / 2 % 64, v9[k]);
    load_pairs<4>(p.in3 + at_in3 + c / 2 % 64, v10[k]);
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
}
]==]

-- Gate, residual, LayerNorm and modulation: one kernel with two results, each tensor read and written once.
local x = input{name = "x", shape = {params.tokens, 5120}}
local y = input{name = "y", shape = {params.tokens, 5120}, dtype = "bf16"}
local m = input{name = "m", shape = {6, 5120}}
x = x + y * m:slice(1, 2, 1)
output("x_next", x)
local centred = x - x:mean()
local normed = centred * ((centred * centred):mean() + 1e-6):rsqrt()
output("h", (normed * (m:slice(1, 4, 1) + 1) + m:slice(1, 3, 1)):cast"bf16")

--[==[ expected:
/* A row program: each row's values stay in registers between its reductions.
 *   v0 = in0 bf16 [row, 5120]
 *   v1 = in1 f32 [5120]
 *   v2 = mul v0 v1
 *   v3 = in2 f32 [row, 5120]
 *   v4 = add v3 v2
 *   out0 f32 [row, 5120] = v4
 *   v6 = mean v4
 *   v7 = sub v4 v6
 *   v8 = mul v7 v7
 *   v9 = mean v8
 *   v11 = add v9 9.99999997e-07
 *   v12 = rsqrt v11
 *   v13 = mul v7 v12
 *   v14 = in3 f32 [5120]
 *   v16 = add v14 1
 *   v17 = mul v13 v16
 *   v18 = in4 f32 [5120]
 *   v19 = add v17 v18
 *   out1 bf16 [row, 5120] = v19
 */
constexpr int COLS = 5120, V = 8, THREADS = 320, ITEMS = 2;
struct Params {
  const bf16 *in0;
  const float *in1;
  const float *in2;
  float *out0;
  const float *in3;
  const float *in4;
  bf16 *out1;
  i64 in0_stride0;
  i64 in2_stride0;
  i64 out0_stride0;
  i64 out1_stride0;
};
static_assert(sizeof(Params) == 88, "the host fills this struct");

extern "C" __global__ void __launch_bounds__(320, 4) KERNEL(const __grid_constant__ Params p) {
  const int lane = threadIdx.x;
  const u32 row = blockIdx.x;
  __shared__ float scratch[2][THREADS / WARP];
  const i64 at_in0 = row * p.in0_stride0;
  const i64 at_in2 = row * p.in2_stride0;
  const i64 at_out0 = row * p.out0_stride0;
  const i64 at_out1 = row * p.out1_stride0;
  float v0[ITEMS][V];
  float v1[ITEMS][V];
  float v3[ITEMS][V];
  float v4[ITEMS][V];
  float v6 = 0.f;
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
    load_lanes<8>(p.in0 + at_in0 + c, v0[k]);
    load_lanes<8>(p.in1 + c, v1[k]);
    load_lanes<8>(p.in2 + at_in2 + c, v3[k]);
  }
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float v2 = v0[k][i] * v1[k][i];
      v4[k][i] = v3[k][i] + v2;
      v6 += v4[k][i];
    }
    store_lanes<8>(p.out0 + at_out0 + c, v4[k]);
  }
  v6 = combine_block<THREADS>(v6, scratch[0], add_values());
  v6 *= 1.f / COLS;
  float v7[ITEMS][V];
  float v9 = 0.f;
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      v7[k][i] = v4[k][i] - v6;
      const float v8 = v7[k][i] * v7[k][i];
      v9 += v8;
    }
  }
  v9 = combine_block<THREADS>(v9, scratch[1], add_values());
  v9 *= 1.f / COLS;
  const float v11 = v9 + 9.99999997e-07f;
  const float v12 = op_rsqrt(v11);
  float v14[ITEMS][V];
  float v18[ITEMS][V];
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
    load_lanes<8>(p.in3 + c, v14[k]);
    load_lanes<8>(p.in4 + c, v18[k]);
  }
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * THREADS + lane) * V;
    float v19[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float v13 = v7[k][i] * v12;
      const float v16 = v14[k][i] + 1.f;
      const float v17 = v13 * v16;
      v19[i] = v17 + v18[k][i];
    }
    store_lanes<8>(p.out1 + at_out1 + c, v19);
  }
}
]==]

/* Attention of a few queries to many keys, as templates/README.md tells a stranger to write it.
 *
 * A block has one query of one head. Its warps take the keys in turns, a lane holds CHANNELS neighbours of the head's channels, and
 * every warp keeps a running maximum, sum and result of its own; they are joined at the end. With a query or two this uses a
 * whole multiprocessor per head where tiles of queries would be empty; with many, every key is read again for each of them.
 *
 * Constants (from few_queries.lua): T, HEADS, HEAD_DIM, WARPS. */

constexpr int CHANNELS = HEAD_DIM / 32;

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) KERNEL(const __grid_constant__ Params p) {
  __shared__ float most[WARPS], total[WARPS], result[WARPS][HEAD_DIM];
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, head = (int)blockIdx.y;
  const i64 query = blockIdx.x, batch = blockIdx.z;
  const T *q = p.q + batch * p.q_batch + query * p.q_token + head * p.q_head + lane * CHANNELS;
  const T *k = p.k + batch * p.k_batch + head * p.k_head + lane * CHANNELS;
  const T *v = p.v + batch * p.v_batch + head * p.v_head + lane * CHANNELS;

  float mine[CHANNELS], acc[CHANNELS], m = -1e30f, sum = 0.f;
  for (int c = 0; c < CHANNELS; c++) {
    mine[c] = to_f32(q[c]) * p.scale * 1.44269504f; /* ex2 takes powers of two */
    acc[c] = 0.f;
  }
#pragma unroll 4
  for (i32 key = warp; key < p.sk; key += WARPS) {
    float score = 0.f;
    for (int c = 0; c < CHANNELS; c++) score = fmaf(mine[c], to_f32(k[key * p.k_token + c]), score);
    for (int d = 16; d > 0; d /= 2) score += __shfl_xor_sync(0xffffffffu, score, d);
    const float next = fmaxf(m, score), keep = ex2(m - next), weight = ex2(score - next);
    for (int c = 0; c < CHANNELS; c++) acc[c] = fmaf(weight, to_f32(v[key * p.v_token + c]), acc[c] * keep);
    sum = fmaf(sum, keep, weight);
    m = next;
  }

  for (int c = 0; c < CHANNELS; c++) result[warp][lane * CHANNELS + c] = acc[c];
  if (lane == 0) {
    most[warp] = m;
    total[warp] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= HEAD_DIM) return;
  float highest = most[0], all = 0.f, value = 0.f;
  for (int w = 1; w < WARPS; w++) highest = fmaxf(highest, most[w]);
  for (int w = 0; w < WARPS; w++) {
    const float share = ex2(most[w] - highest);
    all = fmaf(total[w], share, all);
    value = fmaf(result[w][threadIdx.x], share, value);
  }
  const float out[1] = {value / all};
  epilogue<1>(p, batch * p.sq + query, head * HEAD_DIM + (int)threadIdx.x, out);
}

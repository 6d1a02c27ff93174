/* The end of an attention kernel whose accumulators lie as mma and wgmma leave them. */

/* A warp's 16 rows by CHANNELS: o[4 i + 2 h + e] is row + 8 h, channel 8 i + 2 (lane % 4) + e, row counting from lane / 4. Each row is
 * scaled and handed to the fused code 8 channels a call; a quad's 4 x 4 pairs are transposed by shuffles first. Channels behind
 * the last 32 go in pairs. Rows from `rows` on are not stored; `first` is row 0's place in the output. All lanes must call. */
template <int CHANNELS>
__device__ __forceinline__ void attention_store(const Params &p, float (&o)[CHANNELS / 2], const float (&scale)[2], i64 first, int row,
                                                int rows, int col, int lane) {
  const int quad = lane % 4;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const bool inside = row + 8 * h < rows;
#pragma unroll
    for (int group = 0; group < CHANNELS / 32; group++) {
      float v[4][2];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) v[i][e] = o[16 * group + 4 * i + 2 * h + e] * scale[h];
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
      const float out[8] = {v[0][0], v[0][1], v[1][0], v[1][1], v[2][0], v[2][1], v[3][0], v[3][1]};
      if (inside) epilogue<8>(p, first + row + 8 * h, col + 32 * group + 8 * quad, out);
    }
#pragma unroll
    for (int i = CHANNELS / 32 * 4; i < CHANNELS / 8; i++) {
      const float out[2] = {o[4 * i + 2 * h] * scale[h], o[4 * i + 2 * h + 1] * scale[h]};
      if (inside) epilogue<2>(p, first + row + 8 * h, col + 8 * i + 2 * quad, out);
    }
  }
}

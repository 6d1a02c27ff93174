-- Attention in f32 on the ordinary units: f32 operands, and 16-bit ones with sizes or strides that mma cannot take.

return {
  implements = "attention",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = false,
  accepts = function(p) return p.head_dim <= 512 end,
  tunables = {},
  valid = function() return true end,
  constants = function(p)
    local bias = { none = 0, full = 1, relative = 2 }
    return {
      { "T", p.dtype == "f32" and "float" or p.dtype }, { "HEADS", p.heads }, { "HEAD_DIM", p.head_dim }, { "BIAS", bias[p.bias_mode] },
      { "CAUSAL", p.causal and 1 or 0 }, { "HAS_KV_LEN", p.has_kv_len and 1 or 0 },
    }
  end,
  params = {
    { "q", "ptr" }, { "k", "ptr" }, { "v", "ptr" }, { "bias", "ptr" }, { "kv_len", "ptr" },
    { "q_token", "i64" }, { "q_head", "i64" }, { "q_batch", "i64" }, { "k_token", "i64" }, { "k_head", "i64" }, { "k_batch", "i64" },
    { "v_token", "i64" }, { "v_head", "i64" }, { "v_batch", "i64" }, { "sq", "i32" }, { "sk", "i32" }, { "scale", "f32" },
  },
  launch = function(p)
    local columns = (p.head_dim + 15) // 16 * 16
    return { grid = { (p.sq + 63) // 64, p.heads, p.batch }, block = 256, smem = 4 * (128 * 68 + 16 * columns) }
  end,
  cost = function(p, _, hw)
    local rows = (p.sq + 63) // 64 * 64
    local blocks = rows // 64 * p.heads * p.batch
    local flop = 4.0 * rows * p.sk * p.head_dim * p.heads * p.batch * (p.causal and 0.5 or 1)
    return flop / (0.35 * hw.simt_tflops * 1e12 * math.min(1.0, blocks / hw.sms)) + 5e-6
  end,
}

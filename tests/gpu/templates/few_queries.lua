-- Attention of a few queries to many keys: wins with one query, loses with thousands (tests/gpu/commands.sh).
local TYPE = { f32 = "float", bf16 = "bf16", f16 = "f16" }

return {
  implements = "attention",
  accepts = function(p)
    return p.head_dim % 32 == 0 and p.head_dim <= 256 and p.bias_mode == "none" and not p.has_kv_len and not p.causal
  end,
  tunables = { warps = { 32, 16 } },
  constants = function(p, t)
    return { { "T", TYPE[p.dtype] }, { "HEADS", p.heads }, { "HEAD_DIM", p.head_dim }, { "WARPS", t.warps } }
  end,
  params = {
    { "q", "ptr" }, { "k", "ptr" }, { "v", "ptr" }, { "sq", "i32" }, { "sk", "i32" }, { "scale", "f32" }, { "q_token", "i64" },
    { "q_head", "i64" }, { "q_batch", "i64" }, { "k_token", "i64" }, { "k_head", "i64" }, { "k_batch", "i64" }, { "v_token", "i64" },
    { "v_head", "i64" }, { "v_batch", "i64" },
  },
  launch = function(p, t) return { grid = { p.sq, p.heads, p.batch }, block = 32 * t.warps } end,
  flop = function(p) return 8 * p.batch * p.heads * p.sq * p.sk * p.head_dim end,
  bytes = function(p) return 4 * p.batch * p.heads * p.sk * p.head_dim * 2 end,
}

-- Attention on mma.sync: every 16-bit problem that wgmma does not take (bias, key length, causal, other channels, other GPUs).

local function smem(p, t) return 2 * (p.head_dim + 8) * (t.tile_m + t.stages * t.tile_n) end

return {
  implements = "attention",
  uses = { "attention_output.cuh" },
  arch_min = 80,
  arch_specific = false,
  row_epilogue = false,
  accepts = function(p)
    if (p.dtype ~= "bf16" and p.dtype ~= "f16") or p.head_dim % 16 ~= 0 or p.head_dim > 384 or p.scale <= 0 then return false end
    for _, n in ipairs { "q", "k", "v" } do -- rows are copied 16 bytes at a time
      if p[n .. "_token"] % 8 ~= 0 or p[n .. "_head"] % 8 ~= 0 or p[n .. "_batch"] % 8 ~= 0 then return false end
    end
    return true
  end,
  tunables = { tile_m = { 128, 64 }, warp_tiles = { 2, 1 }, tile_n = { 64, 32 }, split = { 1, 2 }, stages = { 3, 2 } },
  valid = function(p, t)
    if smem(p, t) > t.smem_limit then return false end
    if p.head_dim > 128 then -- 96 channels of output a thread's row pair at most: two warps share the queries
      return t.split == (p.head_dim % 32 == 0 and 2 or 1) and t.tile_n == 32 and t.warp_tiles == 1 and t.stages == 2 and t.tile_m == 64
    end
    if t.split ~= 1 or t.stages ~= 3 then return false end
    if t.warp_tiles == 2 then return t.tile_m == 128 and t.tile_n == 32 end
    return t.tile_m == 64
  end,
  constants = function(p, t)
    local bias = { none = 0, full = 1, relative = 2 }
    return {
      { "T", p.dtype }, { "HEADS", p.heads }, { "HEAD_DIM", p.head_dim }, { "TILE_M", t.tile_m }, { "TILE_N", t.tile_n },
      { "WARP_TILES", t.warp_tiles }, { "SPLIT", t.split }, { "STAGES", t.stages }, { "BIAS", bias[p.bias_mode] },
      { "CAUSAL", p.causal and 1 or 0 }, { "HAS_KV_LEN", p.has_kv_len and 1 or 0 },
    }
  end,
  params = {
    { "q", "ptr" }, { "k", "ptr" }, { "v", "ptr" }, { "bias", "ptr" }, { "kv_len", "ptr" },
    { "q_token", "i64" }, { "q_head", "i64" }, { "q_batch", "i64" }, { "k_token", "i64" }, { "k_head", "i64" }, { "k_batch", "i64" },
    { "v_token", "i64" }, { "v_head", "i64" }, { "v_batch", "i64" }, { "sq", "i32" }, { "sk", "i32" }, { "scale", "f32" },
  },
  launch = function(p, t)
    return {
      grid = { (p.sq + t.tile_m - 1) // t.tile_m, p.heads, p.batch },
      block = t.tile_m // (16 * t.warp_tiles) * t.split * 32,
      smem = smem(p, t),
    }
  end,
  cost = function(p, t, hw)
    local rows = (p.sq + t.tile_m - 1) // t.tile_m * t.tile_m
    local keys = (p.sk + t.tile_n - 1) // t.tile_n * t.tile_n
    local flop = 2.0 * rows * keys * p.head_dim * p.heads * p.batch * (1 + t.split) * (p.causal and 0.5 or 1)
    -- Hopper and Blackwell's data centre chips run mma.sync at about half of what wgmma and tcgen05 reach.
    local share = (hw.arch == 90 or hw.arch == 100) and 0.3 or 0.55
    if t.warp_tiles == 2 then share = share * 1.15 end -- each fragment of keys and values serves twice the queries
    local blocks = (p.sq + t.tile_m - 1) // t.tile_m * p.heads * p.batch
    local fill = math.min(1.0, blocks / hw.sms)
    return flop / (share * hw.tensor_tflops * 1e12 * fill) + 3e-6
  end,
}

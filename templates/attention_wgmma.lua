-- Attention on wgmma with TMA: the long self-attention and the cross-attention of the diffusion transformer.

local function aligned(p, name) -- TMA strides are multiples of 16 bytes
  return p[name .. "_token"] % 8 == 0 and p[name .. "_head"] % 8 == 0 and p[name .. "_batch"] % 8 == 0
end

-- (64 channels, token, panel of 64 channels, head, batch): one copy brings all panels of a tile, each swizzled by itself.
local function map(p, name, tokens, box_tokens, box_panels)
  local head, batch = p[name .. "_head"] * 2, p[name .. "_batch"] * 2
  if p.heads == 1 then head = p.head_dim * 2 end -- never stepped over, but the driver wants strides above zero
  if p.batch == 1 then batch = p[name .. "_token"] * 2 * tokens end
  return {
    operand = name,
    dims = { 64, tokens, p.head_dim // 64, p.heads, p.batch },
    strides = { p[name .. "_token"] * 2, 128, head, batch },
    box = { 64, box_tokens, box_panels, 1, 1 },
    swizzle = 128,
    l2 = 256,
  }
end

local rows, stages = 192, 4 -- three warpgroups of 64 queries

local function smem(p, t) return 2 * p.head_dim * (rows + 2 * stages * t.tile_n) + 16 * 3 + 32 * stages end
-- A cluster's tiles count as one.
local function tiles(p, t) return (p.sq + rows * t.cluster - 1) // (rows * t.cluster) * p.heads * p.batch end

return {
  implements = "attention",
  uses = { "hopper.cuh", "attention_output.cuh" },
  arch_min = 90,
  arch_max = 90,
  arch_specific = true,
  row_epilogue = false,
  accepts = function(p)
    return (p.dtype == "bf16" or p.dtype == "f16") and (p.head_dim == 64 or p.head_dim == 128) and not p.causal and p.bias_mode == "none"
      and not p.has_kv_len and p.scale > 0 and aligned(p, "q") and aligned(p, "k") and aligned(p, "v")
  end,
  tunables = { tile_n = { 80, 64 }, cluster = { 1, 2 } },
  valid = function(p, t) return smem(p, t) <= t.smem_limit and (t.cluster == 1 or (p.head_dim == 128 and p.sq > rows)) end,
  constants = function(p, t)
    return { { "T", p.dtype }, { "HEADS", p.heads }, { "HEAD_DIM", p.head_dim }, { "TILE_N", t.tile_n }, { "STAGES", stages },
      { "CLUSTER", t.cluster } }
  end,
  params = {
    { "tm_q", "tmap" }, { "tm_k", "tmap" }, { "tm_v", "tmap" }, { "sq", "i32" }, { "sk", "i32" }, { "batch", "i32" }, { "scale", "f32" },
  },
  launch = function(p, t)
    local panels = p.head_dim // 64
    local function kv(name) return map(p, name, p.sk, t.tile_n, panels // t.cluster) end
    return {
      grid = { math.min(tiles(p, t), (t.sms or 132) // t.cluster) * t.cluster, 1, 1 },
      block = 512,
      smem = smem(p, t),
      cluster = t.cluster,
      tmaps = { tm_q = map(p, "q", p.sq, 64, panels), tm_k = kv("k"), tm_v = kv("v") },
    }
  end,
  cost = function(p, t, hw)
    local keys = (p.sk + t.tile_n - 1) // t.tile_n * t.tile_n
    -- 0.72: what the power cap leaves of the nominal rate; 1 us: filling and draining the pipeline once a tile. A cluster saves L2
    -- traffic, so power, but both blocks wait for the slower one at each end.
    -- A tile of 64 keys has a twenty-fifth more to do beside the products than one of 80 (measured).
    local tile = 4.0 * rows * keys * p.head_dim / (0.72 * hw.tensor_tflops * 1e12 / hw.sms) * (t.tile_n == 64 and 1.04 or 1)
    local at_once = hw.sms // t.cluster
    return (tiles(p, t) + at_once - 1) // at_once * (tile + 1e-6) * (t.cluster == 2 and (p.sk < 4096 and 1.02 or 0.98) or 1) + 3e-6
  end,
}

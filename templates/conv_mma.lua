-- Tensor-core convolution for sm_80 and up; see conv_mma.cu.
local common, mma, taps = include("common.lua"), include("mma_tile.lua"), include("conv_taps.lua")
local SIZE = common.SIZE
local WIDTHS = { 16, 32, 64, 96, 128, 192, 256, 384 }

local function threads(t) return mma.threads(mma.warps(t)) end

-- The narrowest tile that holds all output channels, or nil.
local function fitting(n)
  for i = 1, #WIDTHS do
    if n <= WIDTHS[i] then return WIDTHS[i] end
  end
  return nil
end

return {
  implements = "conv",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = true,
  uses = { "drain.cuh", "mma_tile.cuh", "conv_taps.cuh" },

  accepts = function(p)
    if p.dtype == "f32" and not p.tf32 then return false end
    return taps.in_range(p) and (not p.row_epilogue or p.n <= 384)
  end,

  tunables = { tile_m = { 256, 128, 64 }, tile_n = { 384, 256, 192, 128, 96, 64, 32, 16 }, tile_k = { 64, 32, 16 }, stages = { 4, 3 } },

  valid = function(p, t)
    local bytes, fit = mma.row_bytes(p, t), fitting(p.n)
    if bytes ~= 64 and bytes ~= 128 then return false end
    if t.tile_n ~= fit then -- a row's reduction needs one tile across; otherwise wide results may be cut, best without a remainder
      if p.row_epilogue or t.tile_n < 96 or t.tile_n > 256 then return false end
      if p.n % t.tile_n ~= 0 and not (fit == nil and t.tile_n == 256) then return false end
    end
    if threads(t) > 256 then return false end
    -- 64x64 a warp leaves no registers for the coordinates of the pixels that wide rows make a thread copy
    local down, across = mma.warps(t)
    if bytes == 64 and p.cin % (16 // SIZE[p.dtype]) ~= 0 then return false end -- nor does gathering, in short rows
    if bytes == 128 and t.tile_m // down * (t.tile_n // across) > 48 * 64 then return false end
    if t.tile_m == 64 and t.tile_n < 192 and p.m > 64 * 1024 then return false end
    if t.tile_m == 256 and p.m < 256 * 64 then return false end
    return mma.smem(p, t) <= t.smem_limit
  end,

  constants = function(p, t)
    return common.joined(common.constants(p, taps.k_of(p)), taps.constants(p), mma.constants(t, mma.warps(t)))
  end,

  params = taps.params,

  launch = function(p, t) return mma.launch(p, t, mma.warps(t)) end,

  -- Tensor cores as in matmul_mma, or the bytes that tiles fetch from L2 (about 1.7 x a copy's rate). A row's reduction is latency:
  -- 0.45 us a row of every warp, two thirds of it hidden where a second block has the tensor cores meanwhile.
  cost = function(p, t, hw)
    local size, k = SIZE[p.dtype], taps.k_of(p)
    local rate = mma.rate(p, t, hw, 0.58, 0.8)
    local alone = threads(t) > 128 or 2 * mma.smem(p, t) + 2048 > t.smem_limit -- with a multiprocessor
    if alone and threads(t) == 128 then rate = rate * 0.94 end
    if p.cin % (16 // size) ~= 0 then rate = rate / 8 end
    local waves = common.ceil_div(mma.tiles(p, t), hw.sms)
    local compute = 2.0 * t.tile_m * t.tile_n * k / (rate / hw.sms)
    local fetch = (t.tile_m + t.tile_n) * k * size / (1.7e12 * hw.copy_tbs / hw.sms)
    local reduce = 0
    if p.row_epilogue then
      reduce = t.tile_m / (threads(t) // 32) * (alone and 0.45e-6 or 0.15e-6)
    end
    local bytes = p.ti * p.hi * p.wi * p.cin * size + common.out_bytes(p)
    return math.max(waves * (math.max(compute, fetch) + reduce), bytes / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

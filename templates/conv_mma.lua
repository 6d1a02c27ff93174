-- Tensor-core convolution for sm_80 and up; see conv_mma.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local SIZE = { bf16 = 2, f16 = 2, f32 = 4 }
local C_TYPE = { bf16 = "bf16", f16 = "f16", f32 = "float" }
local WIDTHS = { 16, 32, 64, 96, 128, 192, 256, 384 }
local WARPS_N = { [384] = 8, [256] = 4, [192] = 4, [128] = 2, [96] = 2, [64] = 2, [32] = 1, [16] = 1 }

-- Warps along m and n: up to 64x64 outputs each, and at least four of them.
local function warps(t)
  local across = WARPS_N[t.tile_n]
  return math.max(t.tile_m // 64, 4 // across), across
end

local function threads(t)
  local down, across = warps(t)
  return 32 * down * across
end

local function k_of(p) return p.kt * p.kh * p.kw * p.cin end
local function row_bytes(p, t) return t.tile_k * SIZE[p.dtype] end
local function smem(p, t) return t.stages * (t.tile_m + t.tile_n) * row_bytes(p, t) end
local function tiles(p, t) return ceil_div(p.m, t.tile_m) * ceil_div(p.n, t.tile_n) end

-- The narrowest tile that holds all output channels, or nil.
local function fitting(n)
  for _, width in ipairs(WIDTHS) do
    if n <= width then return width end
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
    if p.ho >= 32768 or p.wo >= 32768 or p.m >= 2 ^ 31 - 512 then return false end
    return not p.row_epilogue or p.n <= 384
  end,

  tunables = { tile_m = { 256, 128, 64 }, tile_n = { 384, 256, 192, 128, 96, 64, 32, 16 }, tile_k = { 64, 32, 16 }, stages = { 4, 3 } },

  valid = function(p, t)
    local bytes, fit = row_bytes(p, t), fitting(p.n)
    if bytes ~= 64 and bytes ~= 128 then return false end
    if threads(t) > 256 then return false end
    -- 64x64 a warp leaves no registers for the coordinates of the pixels that wide rows make a thread copy
    local down, across = warps(t)
    if bytes == 64 and p.cin % (16 // SIZE[p.dtype]) ~= 0 then return false end -- nor does gathering, in short rows
    if bytes == 128 and t.tile_m // down * (t.tile_n // across) > 48 * 64 then return false end
    if t.tile_n ~= fit then -- a row's reduction needs one tile across; otherwise wide results may be cut, best without a remainder
      if p.row_epilogue or t.tile_n < 96 or t.tile_n > 256 then return false end
      if p.n % t.tile_n ~= 0 and not (fit == nil and t.tile_n == 256) then return false end
    end
    if t.tile_m == 64 and t.tile_n < 192 and p.m > 64 * 1024 then return false end
    if t.tile_m == 256 and p.m < 256 * 64 then return false end
    return smem(p, t) <= t.smem_limit
  end,

  constants = function(p, t)
    local down, across = warps(t)
    return {
      { "T", C_TYPE[p.dtype] }, { "N", p.n }, { "K", k_of(p) },
      { "CIN", p.cin }, { "KH", p.kh }, { "KW", p.kw },
      { "PAD_T", p.pad_t }, { "PAD_H", p.pad_h }, { "PAD_W", p.pad_w }, { "UPSAMPLE", p.upsample },
      { "TILE_M", t.tile_m }, { "TILE_N", t.tile_n }, { "TILE_K", t.tile_k }, { "STAGES", t.stages },
      { "WARPS_M", down }, { "WARPS_N", across }, { "THREADS", threads(t) },
      { "GROUP_M", 2048 // t.tile_m },
    }
  end,

  params = {
    { "x", "ptr" }, { "w", "ptr" }, { "m", "i32" }, { "ho", "i32" }, { "wo", "i32" },
    { "ti", "i32" }, { "hi", "i32" }, { "wi", "i32" },
  },

  launch = function(p, t)
    return { grid = { tiles(p, t), 1, 1 }, block = threads(t), smem = smem(p, t), cluster = 1 }
  end,

  -- Tensor cores as in matmul_mma, or the bytes that tiles fetch from L2 (about 1.7 x a copy's rate). A row's reduction is latency:
  -- 0.45 us a row of every warp, two thirds of it hidden where a second block has the tensor cores meanwhile.
  cost = function(p, t, hw)
    local size, k = SIZE[p.dtype], k_of(p)
    local rate = hw.tensor_tflops * 1e12 / size * 2 * (hw.arch >= 90 and hw.arch < 120 and 0.58 or 0.8)
    rate = rate / (1 + 32 / t.tile_m + 32 / t.tile_n) * (row_bytes(p, t) == 128 and 1.03 or 1)
    local alone = threads(t) > 128 or 2 * smem(p, t) + 2048 > t.smem_limit -- with a multiprocessor
    if alone and threads(t) == 128 then rate = rate * 0.94 end
    if p.cin % (16 // size) ~= 0 then rate = rate / 8 end
    local waves = ceil_div(tiles(p, t), hw.sms)
    local compute = 2.0 * t.tile_m * t.tile_n * k / (rate / hw.sms)
    local fetch = (t.tile_m + t.tile_n) * k * size / (1.7e12 * hw.copy_tbs / hw.sms)
    local reduce = 0
    if p.row_epilogue then
      reduce = t.tile_m / (threads(t) // 32) * (alone and 0.45e-6 or 0.15e-6)
    end
    local bytes = p.ti * p.hi * p.wi * p.cin * size
    for _, dtype in ipairs(p.out_dtypes or {}) do bytes = bytes + p.m * p.n * (SIZE[dtype] or 4) end
    return math.max(waves * (math.max(compute, fetch) + reduce), bytes / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

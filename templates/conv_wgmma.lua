-- Convolution on wgmma with TMA, for Hopper; see conv_wgmma.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local WARPS = 8 -- of the consumers
local BARRIERS = 512 -- bytes for them, more than needed
local MOST_PART_N = { [0] = 256, 192, 96, 96 } -- by drainers: one wgmma must find its registers at entry

local function row_bytes(t) return 2 * t.tile_k end
local function tile_h(t) return t.tile_m // t.tile_w end
local function halo(p) return p.upsample == 1 and p.kh - 1 or p.kh // 2 end
local function box_bytes(p, t) return ceil_div((tile_h(t) + halo(p)) * t.tile_w * row_bytes(t), 1024) * 1024 end
local function slice_bytes(t) return t.tile_n * row_bytes(t) end
local function part_n(t) return t.tile_n // ceil_div(t.tile_n, 256) end

-- Rows of a consumer warp's strip: all it has where others drain them, else what is cheap to keep.
local function strip_rows(t)
  if t.drainers > 0 then return t.tile_m // WARPS end
  return t.tile_n > 256 and 4 or 8
end
local function strip_bytes(t) return WARPS * strip_rows(t) * (t.tile_n + 8) * 4 end

-- Slots of the two rings: as many taps ahead as fit, at most 12.
local function stages(p, t)
  local room, box, slice, min = t.smem_limit - BARRIERS - strip_bytes(t), box_bytes(p, t), slice_bytes(t), math.min
  local boxes, slices, ahead = 0, 0, 0
  for b = 2, 8 do
    local s = min(12, (room - b * box) // slice)
    local taps = min(b * p.kh, s)
    if taps > ahead then boxes, slices, ahead = b, s, taps end
  end
  return boxes, slices, ahead
end

local function smem(p, t)
  local boxes, slices = stages(p, t)
  return boxes * box_bytes(p, t) + slices * slice_bytes(t) + strip_bytes(t) + BARRIERS
end

local function tiles(p, t)
  local across, down = ceil_div(ceil_div(p.wo, p.upsample), t.tile_w), ceil_div(ceil_div(p.ho, p.upsample), tile_h(t))
  return ceil_div(p.n, t.tile_n) * p.upsample * p.upsample * p.to * across * down
end

return {
  implements = "conv",
  arch_min = 90,
  arch_max = 90,
  arch_specific = true,
  row_epilogue = true,
  uses = { "hopper.cuh" },

  accepts = function(p)
    if p.dtype ~= "bf16" and p.dtype ~= "f16" then return false end
    if p.cin % 32 ~= 0 or p.n > 8 and (p.n % 8 ~= 0 or p.n < 64) or p.kh > 8 then return false end
    return not p.row_epilogue or p.n <= 384
  end,

  tunables = {
    tile_m = { 256, 128 }, tile_w = { 16, 8, 32 }, tile_n = { 384, 256, 192, 128, 96, 8 }, tile_k = { 64, 32 }, drainers = { 3, 2, 1, 0 },
  },

  valid = function(p, t)
    local n, tile_n = p.n, t.tile_n
    if (tile_n == 8) ~= (n <= 8) or tile_n >= n + 64 or (p.row_epilogue and tile_n < n) then return false end
    local accumulators = t.tile_m * tile_n // 256 -- of a consumer's thread
    if accumulators > (t.drainers > 0 and 96 or 192) or accumulators < (n <= 8 and 8 or 64) then return false end
    if p.cin % t.tile_k ~= 0 or part_n(t) > MOST_PART_N[t.drainers] or tile_h(t) + halo(p) > 256 then return false end
    local boxes, _, ahead = stages(p, t)
    return boxes >= 2 and ahead >= 3
  end,

  constants = function(p, t)
    local boxes, slices = stages(p, t)
    return {
      { "T", p.dtype }, { "N", p.n }, { "CIN", p.cin }, { "KT", p.kt }, { "KH", p.kh }, { "KW", p.kw },
      { "PAD_T", p.pad_t }, { "PAD_H", p.pad_h }, { "PAD_W", p.pad_w }, { "UPSAMPLE", p.upsample },
      { "TILE_H", tile_h(t) }, { "TILE_W", t.tile_w }, { "TILE_N", t.tile_n }, { "TILE_K", t.tile_k },
      { "BOX_STAGES", boxes }, { "SLICE_STAGES", slices }, { "STRIP_ROWS", strip_rows(t) }, { "DRAINERS", t.drainers },
    }
  end,

  params = { { "tm_x", "tmap" }, { "tm_w", "tmap" }, { "to", "i32" }, { "ho", "i32" }, { "wo", "i32" } },

  launch = function(p, t)
    local pixel, k = p.cin * 2, p.kt * p.kh * p.kw * p.cin
    return {
      grid = { math.min(tiles(p, t), t.sms or 132), 1, 1 },
      block = 128 * (3 + t.drainers),
      smem = smem(p, t),
      cluster = 1,
      tmaps = {
        tm_x = {
          operand = "x",
          dims = { p.cin, p.wi, p.hi, p.ti },
          strides = { pixel, p.wi * pixel, p.hi * p.wi * pixel },
          box = { t.tile_k, t.tile_w, tile_h(t) + halo(p), 1 },
          swizzle = row_bytes(t),
          l2 = 256,
        },
        tm_w = { operand = "w", dims = { k, p.n }, strides = { k * 2 }, box = { t.tile_k, part_n(t) }, swizzle = row_bytes(t), l2 = 256 },
      },
    }
  end,

  -- As matmul_wgmma: the share of the nominal rate that the power cap leaves falls with the bytes a block takes from L2 in a clock;
  -- below that, what shared memory can give. A row's reduction is latency, 0.5 us, twice that where a residual is read.
  cost = function(p, t, hw)
    local k = p.kt * p.kh * p.kw * p.cin
    local clocks = t.tile_m * t.tile_n * t.tile_k / 2048 -- of a tap at the nominal rate
    local traffic = (box_bytes(p, t) / p.kh + slice_bytes(t)) / clocks
    local operands = (2048 + 32 * part_n(t)) / (part_n(t) / 2)
    local share = math.min(0.82 - 0.0025 * traffic, 0.79 * math.min(1, 128 / (operands + traffic)))
    if t.tile_k == 32 then share = share - 0.005 end
    local main = 2.0 * t.tile_m * t.tile_n * k / (share * hw.tensor_tflops * 1e12 / hw.sms)
    local rows = t.tile_m / (t.drainers > 0 and 4 * t.drainers + 3 or WARPS) -- a warp's
    local drain = rows * t.tile_n / 192 * 0.06e-6
    if p.row_epilogue then drain = rows * (#(p.out_dtypes or {}) > 1 and 1.1e-6 or 0.5e-6) end
    local tile = t.drainers > 0 and math.max(main + 0.6e-6, drain) or main + drain
    local bytes = p.ti * p.hi * p.wi * p.cin * 2
    for _, dtype in ipairs(p.out_dtypes or {}) do bytes = bytes + p.m * p.n * (dtype == "f32" and 4 or 2) end
    return math.max(ceil_div(tiles(p, t), hw.sms) * tile + drain, bytes / (hw.copy_tbs * 1e12)) + 5e-6
  end,
}

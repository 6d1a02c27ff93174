-- Tensor-core matmul for sm_80 and up; see matmul_mma.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local SIZE = { bf16 = 2, f16 = 2, f32 = 4 }
local C_TYPE = { bf16 = "bf16", f16 = "f16", f32 = "float" }
local WARPS_N = { [256] = 4, [128] = 2, [64] = 2 }

-- Warps along m and n: 64x64 or 64x32 outputs each, and at least four of them.
local function warps(t)
  local across = WARPS_N[t.tile_n]
  return math.max(t.tile_m // 64, 4 // across), across
end

local function threads(t)
  local down, across = warps(t)
  return 32 * down * across
end

local function row_bytes(p, t) return t.tile_k * SIZE[p.dtype] end
local function smem(p, t) return t.stages * (t.tile_m + t.tile_n) * row_bytes(p, t) end
local function tiles(p, t) return ceil_div(p.m, t.tile_m) * ceil_div(p.n, t.tile_n) end

-- The narrowest tile that holds a whole row, or the widest there is.
local function fitting(n)
  for _, width in ipairs { 64, 128, 256 } do
    if n <= width then return width end
  end
  return 256
end

return {
  implements = "matmul",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = true,
  uses = { "drain.cuh", "mma_tile.cuh" },

  accepts = function(p)
    if p.dtype == "f32" and not p.tf32 then return false end
    local chunk = 16 // SIZE[p.dtype]
    if p.k % chunk ~= 0 or p.lda % chunk ~= 0 or p.ldb % chunk ~= 0 then return false end
    return not p.row_epilogue or p.n <= 256
  end,

  tunables = { tile_m = { 128, 64 }, tile_n = { 256, 128, 64 }, tile_k = { 64, 32, 16 }, stages = { 4, 3 } },

  valid = function(p, t)
    local bytes = row_bytes(p, t)
    if bytes ~= 64 and bytes ~= 128 then return false end
    if bytes == 64 and t.stages < 4 then return false end
    -- 64x64 a warp leaves no registers for more than twelve copies a thread
    if t.tile_m == 128 and t.tile_n == 128 and bytes == 128 then return false end
    if p.row_epilogue and t.tile_n ~= fitting(p.n) then return false end
    if t.tile_n > fitting(p.n) then return false end
    if t.tile_m == 64 and t.tile_n == 256 and not p.row_epilogue then return false end
    if t.tile_m == 128 and p.m <= 64 then return false end
    return smem(p, t) <= t.smem_limit
  end,

  constants = function(p, t)
    local down, across = warps(t)
    return {
      { "T", C_TYPE[p.dtype] }, { "N", p.n }, { "K", p.k },
      { "TILE_M", t.tile_m }, { "TILE_N", t.tile_n }, { "TILE_K", t.tile_k }, { "STAGES", t.stages },
      { "WARPS_M", down }, { "WARPS_N", across }, { "THREADS", threads(t) },
      { "GROUP_M", 2048 // t.tile_m },
    }
  end,

  params = { { "a", "ptr" }, { "b", "ptr" }, { "lda", "i64" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t)
    return { grid = { tiles(p, t), 1, 1 }, block = threads(t), smem = smem(p, t), cluster = 1 }
  end,

  -- mma.sync reaches most of the tensor cores' rate before Hopper, about 0.6 of it since. Small tiles pay in operand traffic; the
  -- factor was fitted on an H200.
  cost = function(p, t, hw)
    local rate = hw.tensor_tflops * 1e12 / SIZE[p.dtype] * 2 * (hw.arch >= 90 and hw.arch < 120 and 0.6 or 0.85)
    rate = rate / (1 + 32 / t.tile_m + 32 / t.tile_n) * (row_bytes(p, t) == 128 and 1.03 or 1) * (1 + 0.01 * t.stages)
    local compute = ceil_div(tiles(p, t), hw.sms) * 2.0 * t.tile_m * t.tile_n * p.k / (rate / hw.sms)
    local bytes = (p.m + p.n) * p.k * SIZE[p.dtype]
    for _, dtype in ipairs(p.out_dtypes or {}) do bytes = bytes + p.m * p.n * (SIZE[dtype] or 4) end
    return math.max(compute, bytes / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

-- Tensor-core matmul that makes its left operand while loading; see matmul_mma_prologue.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local SIZE = { bf16 = 2, f16 = 2, f32 = 4 }
local C_TYPE = { bf16 = "bf16", f16 = "f16", f32 = "float" }

local function row_bytes(p, t) return t.tile_k * SIZE[p.dtype] end
local function smem(p, t) return t.stages * (t.tile_m + t.tile_n) * row_bytes(p, t) end
local function tiles(p, t) return ceil_div(p.m, t.tile_m) * ceil_div(p.n, t.tile_n) end

-- Warps along m and n: 64x64 or 64x32 outputs each.
local function warps(t) return t.tile_m // 64, t.tile_n // (t.tile_n == 256 and 64 or 32) end

local function threads(t)
  local down, across = warps(t)
  return 32 * down * across
end

return {
  implements = "matmul",
  arch_min = 80,
  prologue = true,
  uses = { "drain.cuh", "mma_tile.cuh" },

  accepts = function(p)
    if p.dtype == "f32" and not p.tf32 then return false end
    local chunk = 16 // SIZE[p.dtype]
    return p.k % chunk == 0 and p.ldb % chunk == 0
  end,

  tunables = { tile_m = { 128, 64 }, tile_n = { 256, 128 }, tile_k = { 64, 32, 16 }, stages = { 4, 3 } },

  valid = function(p, t)
    local bytes = row_bytes(p, t)
    if bytes ~= 64 and bytes ~= 128 then return false end
    if t.stages < 4 and (bytes == 64 or 4 * smem(p, t) // t.stages <= t.smem_limit) then return false end
    -- 64x64 a warp and chunks that lie twice as far apart are too much for the registers
    if t.tile_n == 256 and (t.tile_m == 64 or bytes == 64) then return false end
    if t.tile_n == 256 and p.n <= 128 or t.tile_m == 128 and p.m <= 64 then return false end
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

  params = { { "b", "ptr" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t)
    return { grid = { tiles(p, t), 1, 1 }, block = threads(t), smem = smem(p, t), cluster = 1 }
  end,

  -- As matmul_mma's, of which loading through the hook takes some (0.8: assumed, not measured).
  cost = function(p, t, hw)
    local rate = hw.tensor_tflops * 1e12 / SIZE[p.dtype] * 2 * (hw.arch >= 90 and hw.arch < 120 and 0.6 or 0.85) * 0.8
    rate = rate / (1 + 32 / t.tile_m + 32 / t.tile_n) * (row_bytes(p, t) == 128 and 1.03 or 1) * (1 + 0.01 * t.stages)
    local compute = ceil_div(tiles(p, t), hw.sms) * 2.0 * t.tile_m * t.tile_n * p.k / (rate / hw.sms)
    local bytes = p.prologue_bytes + p.n * p.k * SIZE[p.dtype]
    for _, dtype in ipairs(p.out_dtypes or {}) do bytes = bytes + p.m * p.n * (SIZE[dtype] or 4) end
    return math.max(compute, bytes / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

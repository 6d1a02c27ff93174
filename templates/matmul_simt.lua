-- Plain f32 matmul of any size and alignment; see matmul_simt.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local SIZE = { bf16 = 2, f16 = 2, f32 = 4 }
local C_TYPE = { bf16 = "bf16", f16 = "f16", f32 = "float" }

local function smem(t)
  local operands = 2 * 16 * (t.tile_m + t.tile_n + 8) * 4
  local slab = 64 * (t.tile_n + 8) * 4
  return math.max(operands, slab)
end

local function tiles(p, t) return ceil_div(p.m, t.tile_m) * ceil_div(p.n, t.tile_n) end

return {
  implements = "matmul",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = true,
  uses = { "drain.cuh", "simt_tile.cuh" },

  accepts = function(p) return not p.row_epilogue or p.n <= 384 end,

  tunables = { tile_m = { 128, 64 }, tile_n = { 384, 256, 192, 128, 64 } },

  valid = function(p, t)
    if p.row_epilogue then return t.tile_m == 64 and t.tile_n >= p.n and t.tile_n < p.n + 128 end
    return t.tile_n == t.tile_m and (t.tile_m == 64 or (p.m > 64 and p.n > 64))
  end,

  constants = function(p, t)
    return {
      { "T", C_TYPE[p.dtype] }, { "N", p.n }, { "K", p.k },
      { "TILE_M", t.tile_m }, { "TILE_N", t.tile_n }, { "TILE_K", 16 }, { "THREADS", 256 },
    }
  end,

  params = { { "a", "ptr" }, { "b", "ptr" }, { "lda", "i64" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t) return { grid = { tiles(p, t), 1, 1 }, block = 256, smem = smem(t), cluster = 1 } end,

  -- FMA units at the share that the tile's shared-memory reads leave.
  cost = function(p, t, hw)
    local rate = hw.simt_tflops * 1e12 * (t.tile_m == 128 and 0.7 or 0.5)
    local compute = ceil_div(tiles(p, t), hw.sms) * 2.0 * t.tile_m * t.tile_n * p.k / (rate / hw.sms)
    return math.max(compute, (p.m + p.n) * p.k * SIZE[p.dtype] / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

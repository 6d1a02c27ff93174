-- Plain f32 matmul that makes its left operand while loading; see matmul_simt_prologue.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local SIZE = { bf16 = 2, f16 = 2, f32 = 4 }
local C_TYPE = { bf16 = "bf16", f16 = "f16", f32 = "float" }

local function smem(t)
  local operands = 2 * 16 * (2 * t.tile + 8) * 4
  local slab = 64 * (t.tile + 8) * 4
  return math.max(operands, slab)
end

local function tiles(p, t) return ceil_div(p.m, t.tile) * ceil_div(p.n, t.tile) end

return {
  implements = "matmul",
  arch_min = 80,
  prologue = true,
  uses = { "drain.cuh", "simt_tile.cuh" },

  accepts = function() return true end,

  tunables = { tile = { 128, 64 } },

  valid = function(p, t) return t.tile == 64 or (p.m > 64 and p.n > 64) end,

  constants = function(p, t)
    return {
      { "T", C_TYPE[p.dtype] }, { "N", p.n }, { "K", p.k },
      { "TILE_M", t.tile }, { "TILE_N", t.tile }, { "TILE_K", 16 }, { "THREADS", 256 },
    }
  end,

  params = { { "b", "ptr" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t) return { grid = { tiles(p, t), 1, 1 }, block = 256, smem = smem(t), cluster = 1 } end,

  -- As matmul_simt's, of which the hook takes some (0.8: assumed, not measured).
  cost = function(p, t, hw)
    local rate = hw.simt_tflops * 1e12 * (t.tile == 128 and 0.7 or 0.5) * 0.8
    local compute = ceil_div(tiles(p, t), hw.sms) * 2.0 * t.tile * t.tile * p.k / (rate / hw.sms)
    return math.max(compute, (p.prologue_bytes + p.n * p.k * SIZE[p.dtype]) / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

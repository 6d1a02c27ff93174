-- Plain f32 matmul that makes its left operand while loading; see matmul_simt_prologue.cu.
local common, simt = include("common.lua"), include("simt_tile.lua")

return {
  implements = "matmul",
  arch_min = 80,
  prologue = true,
  uses = { "drain.cuh", "simt_tile.cuh" },

  accepts = function() return true end,

  tunables = { tile = { 128, 64 } },

  valid = function(p, t) return t.tile == 64 or (p.m > 64 and p.n > 64) end,

  constants = function(p, t) return common.joined(common.constants(p, p.k), simt.constants(t.tile, t.tile)) end,

  params = { { "b", "ptr" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t) return simt.launch(p, t.tile, t.tile) end,

  -- As matmul_simt's, of which the hook takes some (0.8: assumed, not measured).
  cost = function(p, t, hw)
    local compute = simt.compute(p, t.tile, t.tile, p.k, hw, (t.tile == 128 and 0.7 or 0.5) * 0.8)
    return math.max(compute, (p.prologue_bytes + p.n * p.k * common.SIZE[p.dtype]) / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

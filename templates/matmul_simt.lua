-- Plain f32 matmul of any size and alignment; see matmul_simt.cu.
local common, simt = include("common.lua"), include("simt_tile.lua")

return {
  implements = "matmul",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = true,
  uses = { "drain.cuh", "simt_tile.cuh" },

  accepts = function(p) return not p.row_epilogue or p.n <= 384 end,

  tunables = simt.tunables,

  valid = simt.valid,

  constants = function(p, t) return common.joined(common.constants(p, p.k), simt.constants(t.tile_m, t.tile_n)) end,

  params = { { "a", "ptr" }, { "b", "ptr" }, { "lda", "i64" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t) return simt.launch(p, t.tile_m, t.tile_n) end,

  -- FMA units at the share that the tile's shared-memory reads leave.
  cost = function(p, t, hw)
    local compute = simt.compute(p, t.tile_m, t.tile_n, p.k, hw, t.tile_m == 128 and 0.7 or 0.5)
    return math.max(compute, (p.m + p.n) * p.k * common.SIZE[p.dtype] / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

-- Plain f32 convolution; see conv_simt.cu.
local common, simt, taps = include("common.lua"), include("simt_tile.lua"), include("conv_taps.lua")

return {
  implements = "conv",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = true,
  uses = { "drain.cuh", "simt_tile.cuh", "conv_taps.cuh" },

  accepts = function(p) return taps.in_range(p) and (not p.row_epilogue or p.n <= 384) end,

  tunables = simt.tunables,

  valid = simt.valid,

  constants = function(p, t)
    return common.joined(common.constants(p, taps.k_of(p)), taps.constants(p), simt.constants(t.tile_m, t.tile_n))
  end,

  params = taps.params,

  launch = function(p, t) return simt.launch(p, t.tile_m, t.tile_n) end,

  -- FMA units at the share that shared-memory reads and the coordinates of taps leave.
  cost = function(p, t, hw) return simt.compute(p, t.tile_m, t.tile_n, taps.k_of(p), hw, t.tile_m == 128 and 0.6 or 0.45) + 4e-6 end,
}

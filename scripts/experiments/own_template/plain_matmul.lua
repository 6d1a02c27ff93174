-- What plain_matmul.cu can do and how it is launched. Every field is described in templates/README.md.
local common = include("common.lua") -- of the built-in templates
local ceil_div = common.ceil_div
local TILE_N = 64

local function tiles(p, t) return ceil_div(p.m, 16 * t.rows) * ceil_div(p.n, TILE_N) end

return {
  implements = "matmul",

  -- epilogue<4> wants whole fours of columns.
  accepts = function(p) return p.n % 4 == 0 and not p.row_epilogue end,

  tunables = { rows = { 4, 8, 2 }, step = { 16, 32 } },

  valid = function(p, t) return p.m > 16 or t.rows == 2 end,

  constants = function(p, t)
    return { { "T", common.C_TYPE[p.dtype] }, { "N", p.n }, { "K", p.k }, { "ROWS", t.rows }, { "TILE_K", t.step } }
  end,

  params = { { "a", "ptr" }, { "b", "ptr" }, { "lda", "i64" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t)
    local floats = 16 * t.rows * (t.step + 1) + t.step * TILE_N
    return { grid = { tiles(p, t) }, block = 256, smem = 4 * floats }
  end,

  -- In place of a cost function: what it does, on the ordinary units ("simt", the default). Multiprocessors without a tile in the
  -- last round wait for those that have one, and the multiply-adds take about a third of the instructions.
  flop = function(p, t) return ceil_div(tiles(p, t), t.sms) * t.sms * 2 * 16 * t.rows * TILE_N * p.k / 0.3 end,
  bytes = function(p) return common.SIZE[p.dtype] * p.k * (p.m + p.n) end,
}

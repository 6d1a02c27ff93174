-- The sidecars' part that goes with simt_tile.cuh: tiles of tile_m x tile_n outputs by 256 threads, K in sixteens.
local ceil_div = include("common.lua").ceil_div

local M = {}

local function smem(tile_m, tile_n)
  local operands = 2 * 16 * (tile_m + tile_n + 8) * 4
  local slab = 64 * (tile_n + 8) * 4
  return math.max(operands, slab)
end

function M.constants(tile_m, tile_n)
  return { { "TILE_M", tile_m }, { "TILE_N", tile_n }, { "TILE_K", 16 }, { "THREADS", 256 } }
end

local function tiles(p, tile_m, tile_n) return ceil_div(p.m, tile_m) * ceil_div(p.n, tile_n) end

function M.launch(p, tile_m, tile_n)
  return { grid = { tiles(p, tile_m, tile_n), 1, 1 }, block = 256, smem = smem(tile_m, tile_n), cluster = 1 }
end

-- Seconds of arithmetic, at a share of the FMA units' rate.
function M.compute(p, tile_m, tile_n, k, hw, share)
  local rate = hw.simt_tflops * 1e12 * share
  return ceil_div(tiles(p, tile_m, tile_n), hw.sms) * 2.0 * tile_m * tile_n * k / (rate / hw.sms)
end

-- The tiles of those that can call epilogue_row, which needs a whole row in one.
M.tunables = { tile_m = { 128, 64 }, tile_n = { 384, 256, 192, 128, 64 } }
function M.valid(p, t)
  if p.row_epilogue then return t.tile_m == 64 and t.tile_n >= p.n and t.tile_n < p.n + 128 end
  return t.tile_n == t.tile_m and (t.tile_m == 64 or (p.m > 64 and p.n > 64))
end

return M

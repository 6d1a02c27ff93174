-- The sidecars' part that goes with mma_tile.cuh: tiles of tile_m x tile_n outputs, fed tile_k of K at a time through `stages` slots.
local common = include("common.lua")
local SIZE, ceil_div = common.SIZE, common.ceil_div
local WARPS_N = { [384] = 8, [256] = 4, [192] = 4, [128] = 2, [96] = 2, [64] = 2, [32] = 1, [16] = 1 }

local M = {}

-- Warps along m and n: up to 64x64 outputs each, and at least four of them.
function M.warps(t)
  local across = WARPS_N[t.tile_n]
  return math.max(t.tile_m // 64, 4 // across), across
end

function M.threads(down, across) return 32 * down * across end
function M.row_bytes(p, t) return t.tile_k * SIZE[p.dtype] end
function M.smem(p, t) return t.stages * (t.tile_m + t.tile_n) * M.row_bytes(p, t) end
function M.tiles(p, t) return ceil_div(p.m, t.tile_m) * ceil_div(p.n, t.tile_n) end

function M.constants(t, down, across)
  return {
    { "TILE_M", t.tile_m }, { "TILE_N", t.tile_n }, { "TILE_K", t.tile_k }, { "STAGES", t.stages },
    { "WARPS_M", down }, { "WARPS_N", across }, { "THREADS", M.threads(down, across) },
    { "GROUP_M", 2048 // t.tile_m },
  }
end

function M.launch(p, t, down, across)
  return { grid = { M.tiles(p, t), 1, 1 }, block = M.threads(down, across), smem = M.smem(p, t), cluster = 1 }
end

-- Operations a second: mma.sync reaches most of the tensor cores' rate before Hopper (share), less of it since. Small tiles pay in
-- operand traffic; the factor was fitted on an H200.
function M.rate(p, t, hw, hopper_share, share)
  local rate = hw.tensor_tflops * 1e12 / SIZE[p.dtype] * 2 * (hw.arch >= 90 and hw.arch < 120 and hopper_share or share)
  return rate / (1 + 32 / t.tile_m + 32 / t.tile_n) * (M.row_bytes(p, t) == 128 and 1.03 or 1)
end

return M

-- Tensor-core matmul that makes its left operand while loading; see matmul_mma_prologue.cu.
local common, mma = include("common.lua"), include("mma_tile.lua")

-- Warps along m and n: 64x64 or 64x32 outputs each.
local function warps(t) return t.tile_m // 64, t.tile_n // (t.tile_n == 256 and 64 or 32) end

return {
  implements = "matmul",
  arch_min = 80,
  prologue = true,
  uses = { "drain.cuh", "mma_tile.cuh" },

  accepts = function(p)
    if p.dtype == "f32" and not p.tf32 then return false end
    local chunk = 16 // common.SIZE[p.dtype]
    return p.k % chunk == 0 and p.ldb % chunk == 0
  end,

  tunables = { tile_m = { 128, 64 }, tile_n = { 256, 128 }, tile_k = { 64, 32, 16 }, stages = { 4, 3 } },

  valid = function(p, t)
    local bytes = mma.row_bytes(p, t)
    if bytes ~= 64 and bytes ~= 128 then return false end
    if t.stages < 4 and (bytes == 64 or 4 * mma.smem(p, t) // t.stages <= t.smem_limit) then return false end
    -- 64x64 a warp and chunks that lie twice as far apart are too much for the registers
    if t.tile_n == 256 and (t.tile_m == 64 or bytes == 64) then return false end
    if t.tile_n == 256 and p.n <= 128 or t.tile_m == 128 and p.m <= 64 then return false end
    return mma.smem(p, t) <= t.smem_limit
  end,

  constants = function(p, t) return common.joined(common.constants(p, p.k), mma.constants(t, warps(t))) end,

  params = { { "b", "ptr" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t) return mma.launch(p, t, warps(t)) end,

  -- As matmul_mma's, of which loading through the hook takes some (0.8: assumed, not measured).
  cost = function(p, t, hw)
    local rate = mma.rate(p, t, hw, 0.6, 0.85) * 0.8 * (1 + 0.01 * t.stages)
    local compute = common.ceil_div(mma.tiles(p, t), hw.sms) * 2.0 * t.tile_m * t.tile_n * p.k / (rate / hw.sms)
    local bytes = p.prologue_bytes + p.n * p.k * common.SIZE[p.dtype] + common.out_bytes(p)
    return math.max(compute, bytes / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

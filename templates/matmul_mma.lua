-- Tensor-core matmul for sm_80 and up; see matmul_mma.cu.
local common, mma = include("common.lua"), include("mma_tile.lua")
local SIZE = common.SIZE

-- The narrowest tile that holds a whole row, or the widest there is.
local function fitting(n)
  for _, width in ipairs { 64, 128, 256 } do
    if n <= width then return width end
  end
  return 256
end

return {
  implements = "matmul",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = true,
  uses = { "drain.cuh", "mma_tile.cuh" },

  accepts = function(p)
    if p.dtype == "f32" and not p.tf32 then return false end
    local chunk = 16 // SIZE[p.dtype]
    if p.k % chunk ~= 0 or p.lda % chunk ~= 0 or p.ldb % chunk ~= 0 then return false end
    return not p.row_epilogue or p.n <= 256
  end,

  tunables = { tile_m = { 128, 64 }, tile_n = { 256, 128, 64 }, tile_k = { 64, 32, 16 }, stages = { 4, 3 } },

  valid = function(p, t)
    local bytes = mma.row_bytes(p, t)
    if bytes ~= 64 and bytes ~= 128 then return false end
    if bytes == 64 and t.stages < 4 then return false end
    -- 64x64 a warp leaves no registers for more than twelve copies a thread
    if t.tile_m == 128 and t.tile_n == 128 and bytes == 128 then return false end
    if p.row_epilogue and t.tile_n ~= fitting(p.n) then return false end
    if t.tile_n > fitting(p.n) then return false end
    if t.tile_m == 64 and t.tile_n == 256 and not p.row_epilogue then return false end
    if t.tile_m == 128 and p.m <= 64 then return false end
    return mma.smem(p, t) <= t.smem_limit
  end,

  constants = function(p, t) return common.joined(common.constants(p, p.k), mma.constants(t, mma.warps(t))) end,

  params = { { "a", "ptr" }, { "b", "ptr" }, { "lda", "i64" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t) return mma.launch(p, t, mma.warps(t)) end,

  cost = function(p, t, hw)
    local rate = mma.rate(p, t, hw, 0.6, 0.85) * (1 + 0.01 * t.stages)
    local compute = common.ceil_div(mma.tiles(p, t), hw.sms) * 2.0 * t.tile_m * t.tile_n * p.k / (rate / hw.sms)
    local bytes = (p.m + p.n) * p.k * SIZE[p.dtype] + common.out_bytes(p)
    return math.max(compute, bytes / (hw.copy_tbs * 1e12)) + 4e-6
  end,
}

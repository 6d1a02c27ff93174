-- Matmul with at most eight rows; see matmul_gemv.cu.
local common = include("common.lua")
local SIZE, ceil_div = common.SIZE, common.ceil_div
local MAX_M, WARPS = 8, 8

-- Elements that every row's start and length allow to be read at once.
local function vector(p)
  local v = 16 // SIZE[p.dtype]
  while p.k % v ~= 0 or p.lda % v ~= 0 or p.ldb % v ~= 0 do v = v // 2 end
  return v
end

return {
  implements = "matmul",
  arch_min = 80,
  arch_specific = false,
  row_epilogue = false,

  accepts = function(p) return p.m <= MAX_M and not p.row_epilogue end,

  tunables = { cols = { 4, 2, 1 } },

  valid = function(p, t) return p.n % t.cols == 0 end,

  constants = function(p, t)
    return common.joined(common.constants(p, p.k),
      { { "COLS", t.cols }, { "VEC", vector(p) }, { "MAX_M", MAX_M }, { "THREADS", 32 * WARPS } })
  end,

  params = { { "a", "ptr" }, { "b", "ptr" }, { "lda", "i64" }, { "ldb", "i64" }, { "m", "i32" } },

  launch = function(p, t)
    return { grid = { ceil_div(p.n, WARPS * t.cols), 1, 1 }, block = 32 * WARPS, smem = 0, cluster = 1 }
  end,

  -- The weight's bytes at the rate that the loads in flight reach: about 64 KB a multiprocessor fill the memory's latency.
  cost = function(p, t, hw)
    local size = SIZE[p.dtype]
    local warps = math.min(p.n / t.cols / hw.sms, 32)
    local in_flight = math.min(1, warps * t.cols * vector(p) * size * 64 / 65536)
    local bytes = p.n * p.k * size / (hw.copy_tbs * 1e12 * 0.9 * in_flight)
    return math.max(bytes, 4.0 * p.m * p.n * p.k / (hw.simt_tflops * 1e12)) + 3e-6
  end,
}

-- Matmul on wgmma with TMA, for Hopper; see matmul_wgmma.cu.
local function ceil_div(a, b) return (a + b - 1) // b end

local ROW = 128 -- bytes of a tile's row: 64 of k

-- Blocks of a cluster along m and along n: they share the longer operand of their tiles.
local function cluster(t)
  if t.tile_n >= t.tile_m then return t.cluster, 1 end
  return 1, t.cluster
end

local function stage_bytes(t) return (t.tile_m + t.tile_n) * ROW + 16 end -- and two barriers
local function stages(t) return math.min(6, t.smem_limit // stage_bytes(t)) end

-- f32 results are stored by fours: a quad of lanes then has 64 bytes of a row, whole sectors.
local function wide(p)
  for _, dtype in ipairs(p.out_dtypes or {}) do
    if dtype == "f32" then return true end
  end
  return false
end

-- A cluster's tiles count as one.
local function tiles(p, t)
  local down, across = cluster(t)
  return ceil_div(p.m, t.tile_m * down) * ceil_div(p.n, t.tile_n * across)
end

local function map(p, name, rows, box)
  return {
    operand = name,
    dims = { p.k, rows },
    strides = { p[name == "a" and "lda" or "ldb"] * 2 },
    box = { 64, box },
    swizzle = 128,
    l2 = 256,
  }
end

return {
  implements = "matmul",
  arch_min = 90,
  arch_max = 90,
  arch_specific = true,
  fetches = true,
  uses = { "hopper.cuh" },

  accepts = function(p)
    return (p.dtype == "bf16" or p.dtype == "f16") and p.n % 8 == 0 and p.k % 8 == 0 and p.lda % 8 == 0 and p.ldb % 8 == 0
  end,

  tunables = { tile_m = { 128, 192, 256 }, tile_n = { 256, 128 }, cluster = { 2, 1 } },

  valid = function(p, t)
    if t.tile_m == 256 and (t.tile_n == 256 or p.m <= 128) then return false end
    if t.tile_m == 192 and (t.tile_n == 128 or p.m <= 128 or (wide(p) and p.n % t.tile_n > 0)) then return false end
    if t.tile_n == 256 and p.n <= 128 then return false end
    local down, across = cluster(t)
    if (down == 2 and p.m <= t.tile_m) or (across == 2 and p.n <= t.tile_n) then return false end
    return stages(t) >= 3
  end,

  constants = function(p, t)
    return {
      { "T", p.dtype }, { "N", p.n }, { "K", p.k }, { "TILE_M", t.tile_m }, { "TILE_N", t.tile_n }, { "STAGES", stages(t) },
      { "CLUSTER", t.cluster }, { "V", wide(p) and 4 or 8 },
      { "GROUP", 2048 // (t.tile_m * cluster(t)) },
    }
  end,

  params = { { "tm_a", "tmap" }, { "tm_b", "tmap" }, { "m", "i32" } },

  launch = function(p, t)
    local down, across = cluster(t)
    return {
      grid = { math.min(tiles(p, t), (t.sms or 132) // t.cluster) * t.cluster, 1, 1 },
      block = t.tile_m == 192 and 512 or 384,
      smem = stages(t) * stage_bytes(t),
      cluster = t.cluster,
      tmaps = { tm_a = map(p, "a", p.m, t.tile_m // across), tm_b = map(p, "b", p.n, t.tile_n // down) },
    }
  end,

  -- The share of the nominal rate that the power cap leaves, on the scale where the library's matmul has 0.75: measured beside it on
  -- an H200 for the shapes of the head comment. The library comes first where it does the same work, but not where it needs
  -- another pass.
  cost = function(p, t, hw)
    local share = t.tile_m == 192 and 0.73 or t.tile_m * t.tile_n == 128 * 128 and 0.68 or 0.71
    if t.cluster == 2 then share = share + (t.tile_m == 128 and -0.005 or 0.002) end
    local tile = 2.0 * t.tile_m * t.tile_n * ceil_div(p.k, 64) * 64 / (share * hw.tensor_tflops * 1e12 / hw.sms)
    local compute = ceil_div(tiles(p, t), hw.sms // t.cluster) * (tile + 1e-6) -- the epilogue hides in part
    local bytes = (p.m + p.n) * p.k * 2
    for _, dtype in ipairs(p.out_dtypes or {}) do bytes = bytes + p.m * p.n * (dtype == "f32" and 4 or 2) end
    return math.max(compute, bytes / (hw.copy_tbs * 1e12)) + 5e-6
  end,
}

-- A C++ program that runs templates/matmul_wgmma.cu on the host (hopper_host.hh) and compares it with a plain product: slots, descriptors,
-- who stores what, ragged borders, with more tiles than blocks. Clusters of one block: there is one block at a time. Returns its text.
local host = dofile("tests/host/wgmma_program.lua")
local matmul = host.dump.matmul

local function tile(m, n) return { tile_m = m, tile_n = n, cluster = 1 } end

local CASES = {
  { matmul(300, 264, 72, "bf16", { fused = "residual" }), tile(128, 256) },
  { matmul(259, 136, 200, "bf16", { fused = "residual" }), tile(256, 128) },
  { matmul(200, 512, 136, "bf16", { fused = "residual" }), tile(192, 256) },
  { matmul(150, 136, 328, "f16"), tile(128, 128) },
  { matmul(193, 264, 64, "bf16", { out = "bf16" }), tile(192, 256) },
  { matmul(131, 520, 8, "f16", { out = "f16" }), tile(128, 256) },
}

local function type_of(p) return ("matmul_check<%s, %s>"):format(p.dtype, p.out == "f32" and "float" or p.out) end
local function arguments(p) return { p.m, p.n, p.k } end

local function bind(p, l)
  return ("p.tm_a = %s;\n    p.tm_b = %s;\n    p.m = %d;"):format(host.map(l.tmaps.tm_a, "c.a.data()"),
    host.map(l.tmaps.tm_b, "c.b.data()"), p.m)
end

return host.program("matmul_wgmma", "matmul_check.hh", CASES, type_of, arguments, bind)

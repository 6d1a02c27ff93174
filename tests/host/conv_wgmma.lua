-- A C++ program that runs templates/conv_wgmma.cu on the host (hopper_host.hh) and compares it with a plain convolution: boxes,
-- taps, phases, swizzles, barriers and strips, with more tiles than blocks. Returns its text.
local host = dofile("tests/host/wgmma_program.lua")
local conv = host.dump.conv

local CAUSAL, SAME, TIME = { 2, 0, 1, 1, 1, 1 }, { 0, 0, 1, 1, 1, 1 }, { 2, 0, 0, 0, 0, 0 }

local function tile(m, w, n, k, drainers) return { tile_m = m, tile_w = w, tile_n = n, tile_k = k, drainers = drainers } end

local CASES = {
  { conv({ 2, 17, 23 }, 96, 96, { 3, 3, 3 }, "bf16", { pad = CAUSAL }), tile(256, 16, 96, 32, 3) },
  { conv({ 3, 9, 11 }, 32, 96, { 3, 3, 3 }, "bf16", { pad = CAUSAL, fused = "norm" }), tile(256, 8, 96, 32, 1) },
  { conv({ 3, 33, 12 }, 32, 96, { 3, 3, 3 }, "bf16", { pad = { 0, 0, 1, 1, 1, 1 }, fused = "norm" }), tile(256, 32, 96, 32, 2) },
  { conv({ 2, 11, 19 }, 64, 96, { 1, 3, 3 }, "bf16", { pad = SAME, upsample = 2, fused = "residual" }), tile(256, 16, 96, 64, 0) },
  { conv({ 1, 7, 9 }, 32, 192, { 1, 3, 3 }, "f16", { pad = { 0, 0, 1, 0, 0, 1 }, upsample = 2 }), tile(128, 8, 192, 32, 1) },
  { conv({ 2, 13, 9 }, 32, 384, { 2, 3, 3 }, "bf16", { pad = { 1, 0, 1, 1, 1, 1 }, fused = "norm" }), tile(128, 8, 384, 32, 0) },
  { conv({ 3, 20, 18 }, 64, 200, { 3, 1, 1 }, "bf16", { pad = TIME }), tile(256, 16, 192, 64, 0) },
  { conv({ 1, 18, 40 }, 64, 256, { 1, 1, 1 }, "bf16", {}), tile(128, 32, 256, 32, 0) },
  { conv({ 2, 17, 20 }, 32, 3, { 3, 3, 3 }, "bf16", { pad = CAUSAL }), tile(256, 16, 8, 32, 2) },
  { conv({ 1, 10, 12 }, 64, 128, { 1, 2, 3 }, "bf16", { pad = { 0, 0, 1, 0, 2, 0 } }), tile(128, 8, 128, 64, 1) },
}

local function arguments(p)
  return { p.ti, p.hi, p.wi, p.cin, p.n, p.kt, p.kh, p.kw, p.pad_t, p.pad_h, p.pad_w, p.upsample, p.to, p.ho, p.wo }
end

local function bind(p, l)
  return ("p.tm_x = %s;\n    p.tm_w = %s;\n    p.to = %d, p.ho = %d, p.wo = %d;"):format(host.map(l.tmaps.tm_x, "c.x.data()"),
    host.map(l.tmaps.tm_w, "c.w.data()"), p.to, p.ho, p.wo)
end

return host.program("conv_wgmma", "conv_check.hh", CASES, function(p) return ("check<%s>"):format(p.dtype) end, arguments, bind)

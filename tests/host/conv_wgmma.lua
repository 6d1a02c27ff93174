-- A C++ program that runs templates/conv_wgmma.cu on the host (hopper_host.hh) and compares it with a plain convolution: boxes,
-- taps, phases, swizzles, barriers and strips, with more tiles than blocks. Returns its text.
local dump = dofile("tests/gpu/template_dump.lua")
local conv, side = dump.conv, dump.sidecar("conv_wgmma")

local CAUSAL, SAME, TIME = { 2, 0, 1, 1, 1, 1 }, { 0, 0, 1, 1, 1, 1 }, { 2, 0, 0, 0, 0, 0 }

-- {problem, tile_m, tile_w, tile_n, tile_k, drainers}
local CASES = {
  { conv({ 2, 17, 23 }, 96, 96, { 3, 3, 3 }, "bf16", { pad = CAUSAL }), 256, 16, 96, 32, 3 },
  { conv({ 3, 9, 11 }, 32, 96, { 3, 3, 3 }, "bf16", { pad = CAUSAL, fused = "norm" }), 256, 8, 96, 32, 1 },
  { conv({ 3, 33, 12 }, 32, 96, { 3, 3, 3 }, "bf16", { pad = { 0, 0, 1, 1, 1, 1 }, fused = "norm" }), 256, 32, 96, 32, 2 },
  { conv({ 2, 11, 19 }, 64, 96, { 1, 3, 3 }, "bf16", { pad = SAME, upsample = 2, fused = "residual" }), 256, 16, 96, 64, 0 },
  { conv({ 1, 7, 9 }, 32, 192, { 1, 3, 3 }, "f16", { pad = { 0, 0, 1, 0, 0, 1 }, upsample = 2 }), 128, 8, 192, 32, 1 },
  { conv({ 2, 13, 9 }, 32, 384, { 2, 3, 3 }, "bf16", { pad = { 1, 0, 1, 1, 1, 1 }, fused = "norm" }), 128, 8, 384, 32, 0 },
  { conv({ 3, 20, 18 }, 64, 200, { 3, 1, 1 }, "bf16", { pad = TIME }), 256, 16, 192, 64, 0 },
  { conv({ 1, 18, 40 }, 64, 256, { 1, 1, 1 }, "bf16", {}), 128, 32, 256, 32, 0 },
  { conv({ 2, 17, 20 }, 32, 3, { 3, 3, 3 }, "bf16", { pad = CAUSAL }), 256, 16, 8, 32, 2 },
  { conv({ 1, 10, 12 }, 64, 128, { 1, 2, 3 }, "bf16", { pad = { 0, 0, 1, 0, 2, 0 } }), 128, 8, 128, 64, 1 },
}

local function list(values) return "{" .. table.concat(values, ", ") .. "}" end

local function map(m, data)
  local strides = { 2 }
  for i = 1, #m.dims - 1 do strides[i + 1] = m.strides[i] end
  return ("host::make_map({(const u8 *)%s, %d, %d, %s, %s, %s})"):format(data, #m.dims, m.swizzle, list(m.dims), list(strides), list(m.box))
end

local out = { [[
#include "tests/host/cuda_host.hh"
#include "tests/host/hopper_host.hh"
#include "tests/host/conv_check.hh"
]] }
local function add(...) out[#out + 1] = string.format(...) end

local main = {}
for i, case in ipairs(CASES) do
  local p = case[1]
  local t = { tile_m = case[2], tile_w = case[3], tile_n = case[4], tile_k = case[5], drainers = case[6], smem_limit = 232448, sms = 2 }
  assert(side.accepts(p) and side.valid(p, t), ("case %d is not one that would be launched"):format(i))
  local l = side.launch(p, t)
  add("#undef KERNEL\n#undef MK_ROW_EPILOGUE\nnamespace case%d {", i)
  out[#out + 1] = dump.compose("conv_wgmma", p, t, "kernel" .. i, { ["prelude.cuh"] = "", ["hopper.cuh"] = "" })
  add("static void call(const void *p) { KERNEL(*(const Params *)p); }\n}")
  main[#main + 1] = ([[
  {
    check<%s> c = {%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, "%s"};
    c.fill();
    case%d::Params p = {};
    p.tm_x = %s;
    p.tm_w = %s;
    p.to = %d, p.ho = %d, p.wo = %d, p.bias = c.bias.data(), p.out = c.out.data();
    u32 grid[3] = {%d, 1, 1};
    host::launch(case%d::call, &p, grid, %d, true);
    failures += !c.compare("%s");
  }]]):format(p.dtype, p.ti, p.hi, p.wi, p.cin, p.n, p.kt, p.kh, p.kw, p.pad_t, p.pad_h, p.pad_w, p.upsample, p.to, p.ho, p.wo, p.fused, i,
    map(l.tmaps.tm_x, "c.x.data()"), map(l.tmaps.tm_w, "c.w.data()"), p.to, p.ho, p.wo, l.grid[1], i, l.block,
    dump.label("conv_wgmma", p, t))
end
add("int main() {\n  int failures = 0;\n%s\n  return failures > 0;\n}", table.concat(main, "\n"))
return table.concat(out, "\n")

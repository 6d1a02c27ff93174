-- A C++ program that runs templates/attention_wgmma.cu on the host (hopper_host.hh) and holds its error against the usual kernel's:
-- masks, tiles, swizzles, barriers, turns, the maxima that must be renewed. Returns its text.
local dump = dofile("tests/gpu/attention_dump.lua")
local side = dump.sidecar("attention_wgmma")

local TRANSFORMER = { dtype = "f16", out_dtypes = { "bf16" } } -- as its attention runs: bf16 numbers held as f16

local function problem(o, more)
  for k, v in pairs(more or {}) do o[k] = v end
  return dump.problem(o)
end

-- {problem, keys a tile, data of attention_check.hh, largest ratio of the errors}. The offset is not the row's maximum, so bf16 weights
-- lose what the usual kernel gains by a greatest weight of exactly 1: 5 %. Those in f16 lose nothing that counts.
local CASES = {
  { problem { sq = 400, sk = 512 }, 64, "normal", 1.07 },
  { problem({ sq = 400, sk = 512 }, TRANSFORMER), 64, "normal", 0.8 },
  { problem { heads = 2, sq = 75, sk = 333, batch = 2 }, 80, "normal", 1.07 },
  { problem { sq = 100, sk = 700, head_dim = 64, dtype = "f16" }, 80, "normal", 1.07 },
  { problem({ heads = 5, sq = 17, sk = 9 }, TRANSFORMER), 64, "normal", 0.9 },
}
for _, case in ipairs { { "dominant", 1.01, 1.01 }, { "low", 1.1, 0.8 }, { "falling", 1.01, 0.96 }, { "rising", 1.01, 0.96 } } do
  CASES[#CASES + 1] = { problem { sq = 64, sk = 500 }, 80, case[1], case[2] }
  CASES[#CASES + 1] = { problem({ sq = 64, sk = 500 }, TRANSFORMER), 64, case[1], case[3] }
end

local function list(values) return "{" .. table.concat(values, ", ") .. "}" end

local function map(m)
  local strides = { 2, table.unpack(m.strides) }
  return ("host::make_map({(const u8 *)c.%s.data(), %d, %d, %s, %s, %s})"):format(m.operand, #m.dims, m.swizzle, list(m.dims),
    list(strides), list(m.box))
end

local out, main = { [[
#include "tests/host/cuda_host.hh"
#include "tests/host/hopper_host.hh"
#include "tests/host/attention_check.hh"
]] }, {}
for i, case in ipairs(CASES) do
  local p = case[1]
  local t = { tile_n = case[2], cluster = 1, smem_limit = 232448, sms = 2 }
  assert(side.accepts(p) and side.valid(p, t), ("case %d is not one that would be launched"):format(i))
  local l = side.launch(p, t)
  out[#out + 1] = ("#undef KERNEL\nnamespace case%d {"):format(i)
  out[#out + 1] = dump.compose("attention_wgmma", p, t, "kernel" .. i, { ["prelude.cuh"] = "", ["hopper.cuh"] = "" })
  out[#out + 1] = "static void call(const void *p) { KERNEL(*(const Params *)p); }\n}"
  main[#main + 1] = ([[
  {
    attention_check<%s, %s> c = {%d, %d, %d, %d, %d, %.9g, "%s"};
    c.fill();
    case%d::Params p = {};
    p.tm_q = %s;
    p.tm_k = %s;
    p.tm_v = %s;
    p.sq = c.sq, p.sk = c.sk, p.batch = c.batch, p.scale = (float)c.scale, p.out = c.out.data();
    u32 grid[3] = {%d, 1, 1};
    host::launch(case%d::call, &p, grid, %d, true);
    failures += !c.compare("%s", %g);
  }]]):format(p.dtype, p.out_dtypes[1], p.batch, p.heads, p.sq, p.sk, p.head_dim, p.scale, case[3], i, map(l.tmaps.tm_q), map(l.tmaps.tm_k),
    map(l.tmaps.tm_v), l.grid[1], i, l.block, dump.label("attention_wgmma", t) .. " " .. p.dtype, case[4])
end
out[#out + 1] = "int main() {\n  int failures = 0;\n" .. table.concat(main, "\n") .. "\n  return failures > 0;\n}"
return table.concat(out, "\n")

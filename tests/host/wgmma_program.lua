-- C++ programs that run a template on hopper_host.hh and compare its result with the definition.
local M = { dump = dofile("tests/gpu/template_dump.lua") }

local function list(values) return "{" .. table.concat(values, ", ") .. "}" end

-- A tensor map of a sidecar's, on the data that the C++ expression points to.
function M.map(m, data)
  local strides = { 2 }
  for i = 1, #m.dims - 1 do strides[i + 1] = m.strides[i] end
  return ("host::make_map({(const u8 *)%s, %d, %d, %s, %s, %s})"):format(data, #m.dims, m.swizzle, list(m.dims), list(strides), list(m.box))
end

-- The program's text. cases: {problem, tunables}; `check` is the header that has type_of(p), made of `arguments(p)`; `bind(p, l)` are
-- statements that fill the parameters p of its operands in c.
function M.program(name, check, cases, type_of, arguments, bind)
  local side = M.dump.sidecar(name)
  local out, main = {}, {}
  local function add(...) out[#out + 1] = string.format(...) end
  add('#include "tests/host/cuda_host.hh"\n#include "tests/host/hopper_host.hh"\n#include "tests/host/%s"\n', check)
  for i, case in ipairs(cases) do
    local p, t = case[1], case[2]
    t.smem_limit, t.sms = 232448, 2
    assert(side.accepts(p) and side.valid(p, t), ("case %d is not one that would be launched"):format(i))
    local l = side.launch(p, t)
    add("#undef KERNEL\n#undef MK_ROW_EPILOGUE\nnamespace case%d {", i)
    out[#out + 1] = M.dump.compose(name, p, t, "kernel" .. i, { ["prelude.cuh"] = "", ["hopper.cuh"] = "" })
    add("static void call(const void *p) { KERNEL(*(const Params *)p); }\n}")
    main[#main + 1] = ([[
  {
    %s c = {%s, "%s"};
    c.fill();
    case%d::Params p = {};
    %s
    p.bias = c.bias.data();
    p.out = c.out.data();
    u32 grid[3] = {%d, 1, 1};
    host::launch(case%d::call, &p, grid, %d, true);
    failures += !c.compare("%s");
  }]]):format(type_of(p), table.concat(arguments(p), ", "), p.fused, i, bind(p, l), l.grid[1], i, l.block, M.dump.label(name, p, t))
  end
  add("int main() {\n  int failures = 0;\n%s\n  return failures > 0;\n}", table.concat(main, "\n"))
  return table.concat(out, "\n")
end

return M

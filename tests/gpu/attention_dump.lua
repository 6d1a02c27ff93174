-- Composes attention kernels from the templates without the compiler: which variants exist, their text and launch data.
-- As a program: lua5.4 tests/gpu/attention_dump.lua DIR writes DIR/kernel_*.cu and DIR/manifest.json for attention_check.py.
local M = {}

local sidecars = dofile("tests/gpu/sidecars.lua")
local names = { "attention_wgmma", "attention_mma", "attention_simt" }

M.sidecar = sidecars.sidecar

-- A problem with dense [batch, tokens, heads, head_dim] operands unless `o` says otherwise.
function M.problem(o)
  local p = { batch = 1, heads = 1, head_dim = 128, dtype = "bf16", causal = false, bias_mode = "none", has_kv_len = false }
  for k, v in pairs(o) do p[k] = v end
  p.scale = p.scale or 1 / math.sqrt(p.head_dim)
  for _, n in ipairs { "q", "k", "v" } do
    p[n .. "_head"] = p[n .. "_head"] or p.head_dim
    p[n .. "_token"] = p[n .. "_token"] or p.heads * p.head_dim
    p[n .. "_batch"] = p[n .. "_batch"] or p[n .. "_token"] * (n == "q" and p.sq or p.sk)
  end
  p.out_dtypes = p.out_dtypes or { p.dtype }
  return p
end

local c_types = { ptr = "const void *", i32 = "i32", i64 = "i64", f32 = "float", tmap = "tmap" }

-- The text of one kernel; its fused code stores the result as [batch, sq, heads * head_dim] of the first output dtype. `instead`:
-- texts in place of shared files.
function M.compose(name, p, t, symbol, instead)
  local side = M.sidecar(name)
  local function shared(file) return instead and instead[file] or sidecars.text(file) end
  local text = { shared("prelude.cuh") }
  text[#text + 1] = "#define KERNEL " .. symbol
  for _, c in ipairs(side.constants(p, t)) do
    text[#text + 1] = type(c[2]) == "number" and ("constexpr int %s = %d;"):format(c[1], c[2]) or ("using %s = %s;"):format(c[1], c[2])
  end
  text[#text + 1] = "struct Params {"
  for _, f in ipairs(side.params) do text[#text + 1] = ("  %s %s;"):format(c_types[f[2]], f[1]) end
  local out = p.out_dtypes[1] == "f32" and "float" or p.out_dtypes[1]
  text[#text + 1] = ("  %s *out;\n};"):format(out)
  text[#text + 1] = ("template <int V>\n"
    .. "__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float (&v)[V]) {\n"
    .. "  store_vec<V>(p.out + row * %d + col, v);\n}"):format(p.heads * p.head_dim)
  for _, f in ipairs(side.uses or {}) do text[#text + 1] = shared(f) end
  text[#text + 1] = sidecars.text(name .. ".cu")
  return table.concat(text, "\n")
end

function M.label(name, t) return name:gsub("attention_", "") .. " " .. sidecars.settings(t) end

-- The problems that stand for all kernels: the models' first, then what only tests meet.
local shapes = {
  { heads = 40, sq = 4096, sk = 4096 }, -- DiT
  { heads = 40, sq = 4096, sk = 4096, dtype = "f16", out_dtypes = { "bf16" } }, -- its exact policy
  { heads = 64, head_dim = 64, sq = 512, sk = 512, scale = 1, bias_mode = "relative", has_kv_len = true }, -- umT5
  { head_dim = 384, batch = 4, sq = 1560, sk = 1560 }, -- VAE
  { head_dim = 384, batch = 2, sq = 64, sk = 64, dtype = "f32" },
  { heads = 2, head_dim = 40, sq = 17, sk = 33, dtype = "f32", bias_mode = "relative", has_kv_len = true },
  { heads = 4, head_dim = 32, sq = 64, sk = 80, bias_mode = "full" },
  { heads = 2, head_dim = 80, sq = 64, sk = 80, causal = true, dtype = "f16" },
  { heads = 2, head_dim = 64, sq = 64, sk = 64, dtype = "f16" },
  { heads = 2, head_dim = 17, sq = 17, sk = 33, dtype = "f32", causal = true },
}
local model_shapes = 6

-- For the compile test: {label, arch ("sm_90a"), source, smem, smem_limit} of every choice of tunables. sm_89 and sm_120 run the
-- instructions of sm_80; they get the models' shapes only.
function M.variants()
  local list = {}
  for _, arch in ipairs { 80, 89, 90, 100, 120 } do
    for _, name in ipairs(names) do
      local side = M.sidecar(name)
      if arch >= side.arch_min and arch <= (side.arch_max or 1000) then
        for i = 1, (arch == 89 or arch == 120) and model_shapes or #shapes do
          local p = M.problem(shapes[i])
          local wanted = side.accepts(p) and (name ~= "attention_simt" or p.dtype == "f32")
          for _, t in ipairs(wanted and sidecars.choices(side, p, sidecars.SMEM[arch]) or {}) do
            list[#list + 1] = {
              label = ("%s d%d %s"):format(M.label(name, t), p.head_dim, p.dtype),
              arch = "sm_" .. arch .. (arch >= 90 and "a" or ""),
              source = M.compose(name, p, t, "kernel_under_test"),
              smem = side.launch(p, t).smem,
              smem_limit = sidecars.SMEM[arch],
            }
          end
        end
      end
    end
  end
  return list
end

-- ---- the manifest of attention_check.py ----

local qkv = { q_token = 15360, k_token = 15360, v_token = 15360, heads = 40 } -- views of one [tokens, 3 * 5120] matrix
local transformer = { dtype = "f16", out_dtypes = { "bf16" } } -- what its attention runs: bf16 numbers held as f16

local function with(base, o)
  local r = {}
  for k, v in pairs(base) do r[k] = v end
  for k, v in pairs(o) do r[k] = v end
  return r
end

-- purpose "check": all kernels, compared; "time": timed too, with the library beside it.
local cases = {
  { "check", { heads = 3, sq = 17, sk = 17 } },
  { "check", { heads = 3, sq = 130, sk = 512 } },
  { "check", { heads = 5, sq = 1000, sk = 77, batch = 3 } },
  { "check", { heads = 3, sq = 400, sk = 650, batch = 2 } }, -- three tiles of queries: half a cluster has none
  { "check", { heads = 2, sq = 700, sk = 1411, head_dim = 64, dtype = "f16" } },
  { "check", { heads = 4, sq = 75, sk = 93, head_dim = 32 } },
  { "check", { heads = 2, sq = 200, sk = 300, head_dim = 80, dtype = "f16", causal = true } },
  { "check", { heads = 4, sq = 300, sk = 300, causal = true } },
  { "check", { heads = 64, head_dim = 64, sq = 512, sk = 512, scale = 1, bias_mode = "relative", has_kv_len = true } },
  { "check", { heads = 8, head_dim = 64, sq = 100, sk = 130, scale = 1, bias_mode = "full", has_kv_len = true } },
  { "check", { head_dim = 384, batch = 3, sq = 1560, sk = 1560, q_token = 1152, k_token = 1152, v_token = 1152 } },
  { "check", { heads = 2, head_dim = 40, sq = 170, sk = 333, dtype = "f32", bias_mode = "relative", has_kv_len = true } },
  { "check", { heads = 2, head_dim = 17, sq = 170, sk = 333, dtype = "f32", causal = true } },
  { "check", { head_dim = 384, batch = 2, sq = 500, sk = 500, dtype = "f32" } },
  { "check", { heads = 3, sq = 200, sk = 100, dtype = "f32", bias_mode = "full" } },
  { "check", { heads = 2, sq = 300, sk = 1000, gain = 30 } }, -- scores far apart: maxima that keep growing, exponents that overflow
  { "check", { heads = 2, sq = 300, sk = 1000, gain = 200 } },
  { "check", { heads = 2, sq = 300, sk = 1000, gain = 8, dtype = "f16" } },
  { "check", with(transformer, { heads = 3, sq = 17, sk = 17 }) },
  { "check", with(transformer, { heads = 3, sq = 400, sk = 650, batch = 2 }) },
  { "check", with(transformer, { heads = 2, sq = 300, sk = 1000, gain = 30 }) },
  { "check", with(qkv, { sq = 29716, sk = 29716 }) },
  { "check", with(transformer, with(qkv, { sq = 29716, sk = 29716 })) },
  { "time", with(transformer, with(qkv, { sq = 28800, sk = 28800 })) },
  { "time", with(transformer, with(qkv, { sq = 32760, sk = 32760 })) },
  { "time", with(transformer, with(qkv, { sq = 75600, sk = 75600 })) },
  { "time", with(transformer, { heads = 40, sq = 75600, sk = 512 }) },
  { "time", { head_dim = 384, batch = 21, sq = 14400, sk = 14400, q_token = 1152, k_token = 1152, v_token = 1152 } },
}

local function main(dir)
  local write = sidecars.folder(dir)
  local kernels, list, index = {}, {}, {}
  for _, case in ipairs(cases) do
    local p = M.problem(case[2])
    local runs = {}
    for _, name in ipairs(names) do
      local side = M.sidecar(name)
      if side.accepts(p) and (name ~= "attention_simt" or p.sq * p.batch < 4000) then
        for _, t in ipairs(sidecars.choices(side, p, sidecars.SMEM[90], 132)) do
          local source = M.compose(name, p, t, "attention_kernel")
          if not index[source] then
            local file = ("kernel_%03d.cu"):format(#kernels)
            write(file, source)
            kernels[#kernels + 1] = { file = file, label = M.label(name, t) }
            index[source] = #kernels - 1
          end
          local l = side.launch(p, t)
          l.tmaps = l.tmaps or { none = 0 }
          runs[#runs + 1] = { kernel = index[source], label = M.label(name, t), params = side.params, launch = l }
        end
      end
    end
    list[#list + 1] = { purpose = case[1], problem = p, runs = runs }
  end
  write("manifest.json", { kernels = kernels, cases = list })
end

if arg and arg[0] and arg[0]:find("attention_dump.lua", 1, true) then main(assert(arg[1], "usage: attention_dump.lua DIR")) end
return M

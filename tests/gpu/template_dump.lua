-- Composes matmul and convolution kernels from the templates without the compiler: which variants exist, their text, launch data.
-- As a program: lua5.4 tests/gpu/template_dump.lua DIR [ONLY] writes DIR/*.cu and DIR/manifest.json for template_check.py; with ONLY, of
-- templates whose name has this Lua pattern.
local M = {}

local sidecars = dofile("tests/gpu/sidecars.lua")
local sidecar = sidecars.sidecar

local NAMES = {
  matmul = { "matmul_wgmma", "matmul_mma", "matmul_simt", "matmul_gemv", "matmul_mma_prologue", "matmul_simt_prologue" },
  conv = { "conv_wgmma", "conv_mma", "conv_simt" },
}

-- Machines to rank by.
local HW = {
  [80] = { sms = 108, arch = 80, tensor_tflops = 312, simt_tflops = 19.5, copy_tbs = 1.4 },
  [89] = { sms = 128, arch = 89, tensor_tflops = 165, simt_tflops = 82, copy_tbs = 0.9 },
  [90] = { sms = 132, arch = 90, tensor_tflops = 989, simt_tflops = 67, copy_tbs = 4.2 },
  [100] = { sms = 148, arch = 100, tensor_tflops = 2250, simt_tflops = 80, copy_tbs = 7 },
  [120] = { sms = 170, arch = 120, tensor_tflops = 210, simt_tflops = 105, copy_tbs = 1.6 },
}

local function takes(side, p, arch)
  if arch < side.arch_min or arch > (side.arch_max or arch) or (side.prologue or false) ~= (p.prologue_bytes ~= nil) then return false end
  return (side.row_epilogue or not p.row_epilogue) and side.accepts(p)
end

-- ---- problems ----

local REDUCES = { norm = true, residual_norm = true } -- fused code that needs whole rows

local function matmul(m, n, k, dtype, o)
  local p = { op = "matmul", m = m, n = n, k = k, dtype = dtype, lda = k, ldb = k, tf32 = false, out = "f32", fused = "bias" }
  for key, v in pairs(o or {}) do p[key] = v end
  p.row_epilogue, p.out_dtypes = REDUCES[p.fused] or false, { p.out }
  return p
end

-- input = {t, h, w}, kernel = {t, h, w}; pads are {lo, hi} for t, h, w, all zero if left out.
local function conv(input, cin, cout, kernel, dtype, o)
  local p = {
    op = "conv", ti = input[1], hi = input[2], wi = input[3], cin = cin, cout = cout, n = cout,
    kt = kernel[1], kh = kernel[2], kw = kernel[3], upsample = 1, dtype = dtype, tf32 = false, out = "f32", fused = "bias",
    pad = { 0, 0, 0, 0, 0, 0 },
  }
  for key, v in pairs(o or {}) do p[key] = v end
  p.pad_t, p.pad_h, p.pad_w = p.pad[1], p.pad[3], p.pad[5]
  p.to = p.ti + p.pad[1] + p.pad[2] - p.kt + 1
  p.ho = p.hi * p.upsample + p.pad[3] + p.pad[4] - p.kh + 1
  p.wo = p.wi * p.upsample + p.pad[5] + p.pad[6] - p.kw + 1
  p.m = p.to * p.ho * p.wo
  p.row_epilogue, p.out_dtypes = REDUCES[p.fused] or false, { p.out }
  return p
end

local CAUSAL, SAME, TIME = { 2, 0, 1, 1, 1, 1 }, { 0, 0, 1, 1, 1, 1 }, { 2, 0, 0, 0, 0, 0 }

-- Every choice of tunables that the sidecar calls valid for an architecture, cheapest first.
local function choices(side, p, arch)
  local good = {}
  for i, t in ipairs(sidecars.choices(side, p, sidecars.SMEM[arch], HW[arch].sms)) do
    good[i] = { t = t, cost = side.cost(p, t, HW[arch]), at = i }
    assert(side.launch(p, t).smem <= sidecars.SMEM[arch], "a valid choice must fit")
  end
  table.sort(good, function(a, b) return a.cost < b.cost or (a.cost == b.cost and a.at < b.at) end)
  local list = {}
  for i, g in ipairs(good) do list[i] = g.t end
  return list
end

-- ---- composition ----

local C_TYPE = { tmap = "tmap", ptr = "const T *", i32 = "i32", i64 = "i64", f32 = "float" }
local FUSED = {
  bias = [[
template <int V>
__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float (&v)[V]) {
  float bias[V], y[V];
  load_vec<V>(p.bias + col, bias);
#pragma unroll
  for (int x = 0; x < V; x++) y[x] = v[x] + bias[x];
  store_vec<V>(p.out + row * N + col, y);
}]],
  gelu = [[
template <int V>
__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float (&v)[V]) {
  float bias[V], y[V];
  load_vec<V>(p.bias + col, bias);
#pragma unroll
  for (int x = 0; x < V; x++) y[x] = op_gelu(v[x] + bias[x]);
  store_vec<V>(p.out + row * N + col, y);
}]],
  residual = [[
template <int V>
__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float (&v)[V]) {
  float gate[V], y[V];
  load_vec<V>(p.bias + col, gate);
  load_vec<V>(p.out + row * N + col, y);
#pragma unroll
  for (int x = 0; x < V; x++) y[x] += gate[x] * v[x];
  store_vec<V>(p.out + row * N + col, y);
}]],
  norm = [[
__device__ __forceinline__ void epilogue_row(const Params &p, i64 row, const float *acc, int lane) {
  float sum = 0.f;
#pragma unroll 1
  for (int c = lane; c < N; c += WARP) sum += acc[c] * acc[c];
  const float scale = rsqrtf(warp_sum(sum) / N + 1e-6f);
#pragma unroll 1
  for (int c = lane; c < N; c += WARP) {
    const float y[1] = {op_silu(acc[c] * scale * p.bias[c])};
    store_vec<1>(p.out + row * N + c, y);
  }
}]],
  residual_norm = [[
__device__ __forceinline__ void epilogue_row(const Params &p, i64 row, const float *acc, int lane) {
  constexpr int ITEMS = ceil_div(N, 4 * WARP);
  float y[ITEMS][4], sum = 0.f;
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * WARP + lane) * 4;
    float more[4];
    if (c < N) {
      load_vec<4>(acc + c, y[k]);
      load_vec<4>(p.out + row * N + c, more);
#pragma unroll
      for (int x = 0; x < 4; x++) sum += (y[k][x] += more[x]) * y[k][x];
    }
  }
  const float scale = rsqrtf(warp_sum(sum) / N + 1e-6f);
#pragma unroll
  for (int k = 0; k < ITEMS; k++) {
    const int c = (k * WARP + lane) * 4;
    float gain[4];
    if (c < N) {
      load_vec<4>(p.bias + c, gain);
#pragma unroll
      for (int x = 0; x < 4; x++) y[k][x] = op_silu(y[k][x] * scale * gain[x]);
      store_vec<4>(p.out + row * N + c, y[k]);
    }
  }
}]],
}

-- bias, gelu and residual for templates that fetch what it reads ahead.
local function apart(fused)
  local text = [[
template <int V>
struct Operands {
  float bias[V], y[V];
};
template <int V>
__device__ __forceinline__ void fetch(const Params &p, i64 row, int col, Operands<V> &o) {
  load_vec<V>(p.bias + col, o.bias);$FETCH
}
__device__ __forceinline__ void prefetch(const Params &p, i64 row, int col, int columns) {$PREFETCH}
template <int V>
__device__ __forceinline__ void epilogue(const Params &p, i64 row, int col, const float (&v)[V], const Operands<V> &o) {
  float y[V];
#pragma unroll
  for (int x = 0; x < V; x++) y[x] = $RESULT;
  store_vec<V>(p.out + row * N + col, y);
}]]
  local result = { bias = "v[x] + o.bias[x]", gelu = "op_gelu(v[x] + o.bias[x])", residual = "o.y[x] + o.bias[x] * v[x]" }
  local reads = fused == "residual"
  return (text:gsub("%$(%u+)", {
    RESULT = result[fused],
    FETCH = reads and "\n  load_vec<V>(p.out + row * N + col, o.y);" or "",
    PREFETCH = reads and " prefetch_vec(p.out + row * N + col, columns); " or "",
  }))
end

-- A left operand that is normalised and modulated while it is loaded; its vectors lie behind the bias.
local PROLOGUE = [[
template <int V>
__device__ __forceinline__ void prologue(const Params &p, i64 row, int col, float (&a)[V]) {
  const float mean = p.statistics[2 * row], scale = p.statistics[2 * row + 1];
  float x[V], s[V], b[V];
  load_lanes<8>(p.x + row * K + col, x);
  load_lanes<8>(p.bias + N + col, s);
  load_lanes<8>(p.bias + N + K + col, b);
#pragma unroll
  for (int i = 0; i < V; i++) a[i] = (x[i] - mean) * scale * (s[i] + 1.f) + b[i];
}]]

-- The text of one kernel: result [m, n] of dtype p.out through the fused code p.fused; bias stands for the norm's gains and for
-- the gate too, and out for the residual that a gated result is added to.
-- stand_in: texts that take the place of shared files, by name.
function M.compose(name, p, t, symbol, stand_in)
  local side = sidecar(name)
  local function part(file) return stand_in and stand_in[file] or sidecars.text(file) end
  local text = { part("prelude.cuh"), "#define KERNEL " .. symbol, "#define MK_ROW_EPILOGUE " .. (p.row_epilogue and 1 or 0) }
  local function add(...) text[#text + 1] = string.format(...) end
  for _, c in ipairs(side.constants(p, t)) do
    add(math.type(c[2]) == "integer" and "constexpr int %s = %d;" or "using %s = %s;", c[1], c[2])
  end
  add("struct Params {")
  for _, f in ipairs(side.params) do add("  %s %s;", C_TYPE[f[2]], f[1]) end
  if side.prologue then add("  const float *x, *statistics;") end
  add("  const float *bias;\n  %s *out;\n};", p.out == "f32" and "float" or p.out)
  if side.prologue then
    text[#text + 1] = sidecars.text("row.cuh")
    text[#text + 1] = PROLOGUE
  end
  text[#text + 1] = side.fetches and apart(p.fused) or FUSED[p.fused]
  for _, f in ipairs(side.uses or {}) do text[#text + 1] = part(f) end
  text[#text + 1] = sidecars.text(name .. ".cu")
  return table.concat(text, "\n")
end

function M.label(name, p, t)
  local parts = { name, sidecars.settings(t), p.dtype .. (p.tf32 and " tf32" or "") }
  if p.op == "matmul" then
    parts[#parts + 1] = ("%dx%dx%d"):format(p.m, p.n, p.k)
  else
    parts[#parts + 1] = ("%d>%d %d%d%d up%d m%d"):format(p.cin, p.cout, p.kt, p.kh, p.kw, p.upsample, p.m)
  end
  parts[#parts + 1] = p.fused
  return table.concat(parts, " ")
end

-- ---- for the compile test ----

local TF32 = { tf32 = true }
local function norm(o)
  local r = { fused = "norm" }
  for k, v in pairs(o or {}) do r[k] = v end
  return r
end

-- With a left operand of k columns that the kernel makes from f32.
local function made(k, o)
  local r = { prologue_bytes = 4 * k }
  for key, v in pairs(o or {}) do r[key] = v end
  return r
end

-- {problem, how many choices of every template to compile}: what the models need, and every path through the templates.
local COMPILED = {
  { matmul(28800, 5120, 5120, "bf16", { out = "bf16", fused = "gelu" }), 3 },
  { matmul(512, 13824, 4096, "f16", { out = "f16" }), 1 },
  { matmul(28800, 5120, 13824, "bf16", { fused = "residual" }), 1 },
  { matmul(28800, 13824, 5120, "bf16", made(5120, { out = "bf16", fused = "gelu" })), 2 },
  { matmul(300, 264, 136, "f16", made(136)), 1 },
  { matmul(300, 264, 136, "f32", made(136, TF32)), 1 },
  { matmul(300, 51, 45, "f32", made(45)), 2 },
  { matmul(75600, 64, 5120, "f32"), 1 },
  { matmul(75600, 64, 5120, "f32", TF32), 1 },
  { matmul(1, 30720, 5120, "f32"), 2 },
  { matmul(7, 6, 10, "bf16"), 1 },
  { matmul(300, 3, 64, "bf16"), 1 },
  { matmul(4000, 96, 384, "bf16", norm()), 1 },
  { matmul(4000, 384, 384, "f32", norm()), 1 },
  { conv({ 4, 480, 832 }, 96, 96, { 3, 3, 3 }, "bf16", norm { pad = CAUSAL, out = "bf16" }), 1 },
  { conv({ 4, 60, 104 }, 384, 384, { 3, 3, 3 }, "f32", norm { pad = CAUSAL, tf32 = true }), 1 },
  { conv({ 4, 120, 208 }, 192, 384, { 3, 3, 3 }, "bf16", { pad = CAUSAL, out = "bf16" }), 1 },
  { conv({ 4, 480, 832 }, 96, 3, { 3, 3, 3 }, "f32", { pad = CAUSAL, tf32 = true }), 1 },
  { conv({ 1, 60, 104 }, 16, 384, { 3, 3, 3 }, "f16", { pad = CAUSAL }), 1 },
  { conv({ 4, 64, 64 }, 3, 96, { 3, 3, 3 }, "bf16", { pad = CAUSAL }), 1 },
  { conv({ 4, 60, 104 }, 384, 192, { 1, 3, 3 }, "bf16", { pad = SAME, upsample = 2 }), 1 },
  { conv({ 4, 120, 208 }, 384, 768, { 3, 1, 1 }, "bf16", { pad = TIME }), 1 },
  { conv({ 4, 480, 832 }, 96, 96, { 3, 3, 3 }, "f32", norm { pad = CAUSAL }), 1 },
  { conv({ 1, 60, 104 }, 16, 16, { 1, 1, 1 }, "f32", {}), 1 },
  { conv({ 6, 480, 832 }, 96, 96, { 3, 3, 3 }, "bf16", { pad = SAME, fused = "residual_norm" }), 1 },
  { conv({ 6, 240, 416 }, 192, 192, { 3, 3, 3 }, "bf16", { pad = SAME, fused = "residual_norm" }), 1 },
  { conv({ 4, 120, 208 }, 384, 384, { 3, 3, 3 }, "bf16", { pad = SAME, fused = "residual_norm" }), 1 },
  { conv({ 6, 240, 416 }, 192, 192, { 3, 3, 3 }, "bf16", { pad = SAME, out = "bf16" }), 2 },
  { conv({ 4, 240, 416 }, 192, 96, { 1, 3, 3 }, "bf16", norm { pad = SAME, upsample = 2, out = "bf16" }), 1 },
}

-- An array of {label, arch ("sm_90a"), source, smem, smem_limit} without repeats of one text for one target.
function M.variants(everything)
  local list, seen = {}, {}
  for _, arch in ipairs { 80, 89, 90, 100, 120 } do
    local target = "sm_" .. arch .. (arch >= 90 and "a" or "")
    for _, c in ipairs(COMPILED) do
      local p = c[1]
      for _, name in ipairs(NAMES[p.op]) do
        local side = sidecar(name)
        -- the plain kernels are candidates for everything; compile them where they are the choice
        local wanted = takes(side, p, arch) and not (name:find("simt") and (p.dtype ~= "f32" or p.tf32) and p.n ~= 6)
        for i, t in ipairs(wanted and choices(side, p, arch) or {}) do
          if i > c[2] and not everything then break end
          local source = M.compose(name, p, t, "kernel_under_test")
          if not seen[target .. source] then
            seen[target .. source] = true
            list[#list + 1] = {
              label = M.label(name, p, t), arch = target, source = source,
              smem = side.launch(p, t).smem, smem_limit = sidecars.SMEM[arch],
            }
          end
        end
      end
    end
  end
  return list
end

-- ---- the manifest of template_check.py ----

local KINDS = { { "bf16", {} }, { "f16", {} }, { "f32", TF32 }, { "f32", {} } }

local function with(base, o)
  local r = {}
  for k, v in pairs(base) do r[k] = v end
  for k, v in pairs(o) do r[k] = v end
  return r
end

-- {purpose, problem, every choice?}: "check" compares, "time" also times.
local function cases()
  local list = {}
  local function check(p, all) list[#list + 1] = { "check", p, all } end
  local function time(p, all) list[#list + 1] = { "time", p, all } end
  for _, dtype in ipairs { "bf16", "f16" } do -- more tiles than blocks, and a last row of tiles with one block of a cluster
    check(matmul(5000, 1032, 1416, dtype), true)
    check(matmul(5000, 1032, 1416, dtype, { out = dtype, fused = "gelu" }), true)
    check(matmul(129, 2056, 8, dtype, { out = dtype, fused = "gelu" }), true)
    check(matmul(300, 520, 72, dtype, { fused = "residual" }), true)
  end
  for _, kind in ipairs(KINDS) do
    local dtype, o = kind[1], kind[2]
    check(matmul(515, 520, 328, dtype, o), true)
    check(matmul(128, 256, 64, dtype, o))
    check(matmul(1000, 520, 200, dtype, with(o, { fused = "residual" })))
    check(matmul(257, 72, 136, dtype, with(o, { lda = 144, ldb = 152 })))
    check(matmul(300, 3, 64, dtype, o))
    check(matmul(1000, 6, 8, dtype, with(o, { out = "bf16", fused = "gelu" })))
    check(matmul(77, 50, 71, dtype, o)) -- not for the tensor cores
    check(matmul(1, 512, 640, dtype, o), true)
    check(matmul(8, 36, 100, dtype, o), true)
    check(matmul(3, 7, 33, dtype, with(o, { lda = 35 })))
    check(matmul(333, 96, 384, dtype, norm(o)), true)
    check(matmul(65, 250, 72, dtype, norm(with(o, { out = "bf16" }))))
    check(conv({ 5, 17, 23 }, 96, 96, { 3, 3, 3 }, dtype, with(o, { pad = CAUSAL })), true)
    check(conv({ 5, 17, 23 }, 96, 96, { 3, 3, 3 }, dtype, norm(with(o, { pad = CAUSAL }))), true)
    check(conv({ 2, 60, 104 }, 32, 96, { 1, 3, 3 }, dtype, with(o, { pad = SAME })), true) -- large enough for 256-row tiles
    check(conv({ 3, 9, 11 }, 32, 384, { 3, 3, 3 }, dtype, norm(with(o, { pad = CAUSAL, out = "bf16" }))), true)
    check(conv({ 3, 9, 11 }, 40, 130, { 3, 1, 1 }, dtype, with(o, { pad = TIME })))
    check(conv({ 2, 7, 9 }, 48, 24, { 1, 3, 3 }, dtype, with(o, { pad = SAME, upsample = 2 })))
    check(conv({ 2, 9, 8 }, 16, 384, { 3, 3, 3 }, dtype, with(o, { pad = CAUSAL })))
    check(conv({ 2, 9, 8 }, 96, 3, { 3, 3, 3 }, dtype, with(o, { pad = CAUSAL })))
    check(conv({ 4, 10, 12 }, 3, 20, { 3, 3, 3 }, dtype, with(o, { pad = { 1, 1, 1, 0, 0, 1 } })))
    check(conv({ 2, 10, 12 }, 12, 20, { 1, 2, 3 }, dtype, o))
    check(conv({ 2, 10, 12 }, 64, 128, { 1, 1, 1 }, dtype, o))
    check(conv({ 5, 33, 70 }, 64, 192, { 3, 3, 3 }, dtype, with(o, { pad = { 1, 1, 1, 0, 2, 0 }, fused = "residual" })))
    check(conv({ 4, 40, 50 }, 96, 96, { 3, 3, 3 }, dtype, with(o, { pad = SAME, fused = "residual_norm" })))
    check(conv({ 4, 40, 50 }, 64, 384, { 3, 3, 3 }, dtype, with(o, { pad = CAUSAL, fused = "residual_norm" })))
    check(conv({ 2, 23, 31 }, 96, 192, { 1, 3, 3 }, dtype, norm(with(o, { pad = { 0, 0, 1, 0, 0, 1 }, upsample = 2 }))))
    check(conv({ 3, 20, 40 }, 64, 200, { 3, 1, 1 }, dtype, with(o, { pad = TIME })))
  end
  local b = { out = "bf16" }
  time(matmul(28800, 5120, 5120, "bf16", b), true)
  time(matmul(28800, 13824, 5120, "bf16", with(b, { fused = "gelu" })))
  for _, m in ipairs { 28800, 75600 } do
    time(matmul(m, 15360, 5120, "bf16", b))
    if m > 28800 then time(matmul(m, 5120, 5120, "bf16", b)) end
    if m > 28800 then time(matmul(m, 13824, 5120, "bf16", with(b, { fused = "gelu" }))) end
    time(matmul(m, 5120, 13824, "bf16", b))
    time(matmul(m, 5120, 13824, "bf16", { fused = "residual" }))
  end

  time(matmul(28800, 5120, 5120, "bf16", { fused = "residual" }), true)
  time(matmul(512, 10240, 4096, "bf16", b))
  time(matmul(28800, 5120, 5120, "f32", TF32))
  time(matmul(8192, 5120, 5120, "f32", {}))
  time(matmul(1, 30720, 5120, "f32", {}), true)
  time(conv({ 4, 480, 832 }, 96, 96, { 3, 3, 3 }, "bf16", with(b, { pad = CAUSAL })), true)
  time(conv({ 4, 480, 832 }, 96, 96, { 3, 3, 3 }, "bf16", norm(with(b, { pad = CAUSAL }))), true)
  time(conv({ 4, 240, 416 }, 192, 192, { 3, 3, 3 }, "bf16", with(b, { pad = CAUSAL })), true)
  time(conv({ 4, 120, 208 }, 384, 384, { 3, 3, 3 }, "bf16", with(b, { pad = CAUSAL })), true)
  time(conv({ 4, 120, 208 }, 384, 384, { 3, 3, 3 }, "bf16", norm(with(b, { pad = CAUSAL }))), true)
  -- the decoder of the Wan VAE, 480p and 720p: four frames behind two that were kept
  local function wan(size, scale, cin, cout, fused, kernel, o)
    local t, h, w = (kernel or { 3 })[1], size[1] * scale, size[2] * scale
    local frames = (scale == 1 and 1 or scale == 2 and 2 or 4) + t - 1
    local all = with({ pad = SAME, fused = fused, out = fused == "residual_norm" and "f32" or "bf16" }, o or {})
    time(conv({ frames, h, w }, cin, cout, kernel or { 3, 3, 3 }, "bf16", all))
  end
  for _, size in ipairs { { 60, 104 }, { 90, 160 } } do
    wan(size, 1, 384, 384, "norm")
    wan(size, 1, 384, 384, "bias")
    wan(size, 2, 192, 384, "norm")
    wan(size, 2, 384, 384, "norm")
    wan(size, 2, 384, 384, "residual_norm")
    wan(size, 2, 384, 768, "bias", { 3, 1, 1 }, { pad = { 0, 0, 0, 0, 0, 0 } })
    wan(size, 2, 384, 192, "norm", { 1, 3, 3 }, { upsample = 2 })
    wan(size, 4, 192, 192, "bias")
    wan(size, 4, 192, 192, "norm")
    wan(size, 4, 192, 192, "residual_norm")
    wan(size, 4, 192, 96, "norm", { 1, 3, 3 }, { upsample = 2 })
    wan(size, 8, 96, 96, "bias")
    wan(size, 8, 96, 96, "norm")
    wan(size, 8, 96, 96, "residual_norm")
    wan(size, 8, 96, 3, "bias")
  end
  time(conv({ 4, 480, 832 }, 96, 96, { 3, 3, 3 }, "f32", with(TF32, { pad = CAUSAL })))
  time(conv({ 4, 120, 208 }, 384, 384, { 3, 3, 3 }, "f32", with(TF32, { pad = CAUSAL })))
  return list
end

-- Of choices that differ only in how wide a tile of pixels is, the cheapest.
local function unlike(list)
  local seen, kept = {}, {}
  for _, t in ipairs(list) do
    local key = table.concat({ t.tile_m, t.tile_n, t.tile_w and t.tile_k or 0, t.drainers or 0, t.cluster or 0 }, " ")
    if not seen[key] then kept[#kept + 1] = t end
    seen[key] = true
  end
  return kept
end

local function main(dir, only)
  local write = sidecars.folder(dir)
  local files, count, list = {}, 0, {}
  for _, case in ipairs(cases()) do
    local p, runs = case[2], {}
    for _, name in ipairs(NAMES[p.op]) do
      local side = sidecar(name)
      local slow = case[1] == "time" and name:find("simt") and (p.dtype ~= "f32" or p.tf32 or p.m == 1)
      local wanted = takes(side, p, 90) and not slow and name:find(only or "")
      local timed = case[1] == "time" and name:find("_wgmma")
      local all = wanted and choices(side, p, 90) or {}
      for i, t in ipairs(timed and unlike(all) or all) do
        if i > (timed and (case[3] and 6 or 4) or (case[3] and 100) or 1) then break end
        local source = M.compose(name, p, t, "kernel_under_test")
        if not files[source] then
          files[source] = ("kernel_%03d"):format(count)
          write(files[source] .. ".cu", source)
          count = count + 1
        end
        local l = side.launch(p, t)
        runs[#runs + 1] = {
          label = M.label(name, p, t), file = files[source], params = side.params,
          grid = l.grid, block = l.block, smem = l.smem, cluster = l.cluster or 1, tmaps = l.tmaps or { none = 0 },
          cost = side.cost(p, t, HW[90]),
        }
      end
    end
    assert(#runs > 0 or only, "no template takes a problem")
    if #runs > 0 then list[#list + 1] = { purpose = case[1], problem = p, runs = runs } end
  end
  write("philox.cu", sidecars.text("prelude.cuh") .. sidecars.text("philox.cu"))
  write("manifest.json", { cases = list })
  print(("%d cases, %d kernels"):format(#list, count))
end
M.matmul, M.conv, M.sidecar = matmul, conv, sidecar

if arg and arg[0] and arg[0]:find("template_dump.lua", 1, true) then main(assert(arg[1], "usage: template_dump.lua DIR [ONLY]"), arg[2]) end
return M

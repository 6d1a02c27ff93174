-- Norm, modulation and matmul in every form that has other realisations: layer and RMS norm, with scale and shift of any kind or
-- none, from f32 and from the operand's own type, behind a residual that the row group stores too, on aligned and ragged sizes.
-- case 8e-3 {"m": 256, "n": 384, "k": 512, "dtype": "bf16"}
-- case 8e-3 {"m": 77, "n": 136, "k": 200, "dtype": "bf16"}
-- case 8e-3 {"m": 3, "n": 72, "k": 1032, "dtype": "bf16"}
-- case 8e-3 {"m": 515, "n": 640, "k": 264, "dtype": "bf16"}
-- case 1e-3 {"m": 129, "n": 136, "k": 72, "dtype": "f16"}
-- case 2e-5 {"m": 77, "n": 68, "k": 100, "dtype": "f32"}
-- case 2e-5 {"m": 33, "n": 51, "k": 45, "dtype": "f32"}
-- case 3e-3 {"m": 131, "n": 264, "k": 516, "dtype": "f32", "tf32": true}
local m, n, k, dtype = params.m, params.n, params.k, params.dtype
local options = {tf32 = params.tf32}
local function operand(v) return dtype == "f32" and v or v:cast(dtype) end
local function linear(h, name) return matmul(operand(h), operand(weight(name .. ".weight", {n, k})), options) end
local function bias(name) return weight(name .. ".bias", {n}) end

local function layer_norm(x)
  local c = x - x:mean()
  return c * ((c * c):mean() + 1e-6):rsqrt()
end
local function rms_norm(x) return x / ((x * x):mean() + 1e-6):sqrt() end

local function own_input(name) return input{name = name, shape = {m, k}, dtype = dtype} end
local wide = input{name = "wide", shape = {m, k}}
local own = own_input "own"
local e = input{name = "e", shape = {3, k}}
local function part(i) return e:slice(1, i, 1) end

-- One norm, one reader: a norm that several matmuls read stays a row kernel.
local function norms(x, name)
  output(name .. "_plain", linear(layer_norm(x * 2), name .. "_plain"))
  output(name .. "_modulated", operand((linear(layer_norm(x) * (part(1) + 1) + part(0), name .. "_modulated") + bias(name)):gelu()))
  output(name .. "_affine", linear(layer_norm(x - 1) * weight(name .. ".gain", {k}) + weight(name .. ".shift", {k}), name .. "_affine"))
  output(name .. "_rms", linear(rms_norm(x) * weight(name .. ".rms", {k}), name .. "_rms"))
  output(name .. "_bare", linear(rms_norm(own_input(name .. "_x")), name .. "_bare"))
end
norms(wide, "wide")
norms(own, "own")

-- Gate and residual before, whose sum is stored for later, and is the residual of what follows.
local y = own_input "y"
local sum = wide + y * part(2)
output("sum", sum)
output("after", operand(linear((layer_norm(sum) - part(0)) / (part(1) * part(1) + 1) * 0.5 - part(2), "after")))

-- More than two dims, and the result's own residual.
local batch = input{name = "batch", shape = {2, m, k}, dtype = dtype}
output("batch_out", input{name = "residual", shape = {2, m, n}} + linear(layer_norm(batch) * (part(1) + 1) + part(0), "batch"))

-- A stream that stays in its place, and an operand in the place of the branch that was added.
local function square(h, name, inner) return matmul(h, operand(weight(name .. ".weight", {k, inner})), options) end
local stream = square(own, "stream", k) + operand(square(own, "branch", k)) * part(2)
local middle = operand(linear(layer_norm(stream) * (part(1) + 1) + part(0), "middle"))
output("stream", linear(rms_norm(stream + square(middle, "back", n)), "last"))

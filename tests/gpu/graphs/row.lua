-- Row programs: what stands between the matmuls of a transformer block, over rows of many widths.
-- case 2e-5 {"rows": 1, "width": 8}
-- case 2e-5 {"rows": 77, "width": 128}
-- case 2e-5 {"rows": 130, "width": 1536}
-- case 2e-5 {"rows": 33, "width": 5120}
-- case 2e-5 {"rows": 19, "width": 51}
-- case 2e-5 {"rows": 5, "width": 13824}
-- case 4e-3 {"rows": 130, "width": 1536, "dtype": "bf16"}
-- case 4e-3 {"rows": 7, "width": 5120, "dtype": "bf16"}
local rows, width = params.rows, params.width
local x = input{name = "x", shape = {rows, width}}
local y = input{name = "y", shape = {rows, width}, dtype = "bf16"}
local shift = input{name = "shift", shape = {1, width}}
local scale = input{name = "scale", shape = {1, width}}
local gate = weight("gate", {width})
local gamma = weight("gamma", {width})

local function center(v) return v - v:mean() end
local function layer_norm(v)
  local c = center(v)
  return c * ((c * c):mean() + 1e-6):rsqrt()
end
local function rms_norm(v, w) return v * ((v * v):mean() + 1e-6):rsqrt() * w end

-- LN + modulate, to a matmul's operand type.
local modulated = layer_norm(x) * (scale + 1) + shift
output("modulated", params.dtype and modulated:cast(params.dtype) or modulated)
-- Gate, residual, the next norm: two results of one read.
local residual = x + y * gate
output("residual", residual)
output("normed", rms_norm(residual, gamma))
-- Reductions that stay reductions.
output("sum", x:sum())
output("amax", (x:abs()):amax())
-- Softmax written out.
local e = (x - x:amax()):exp()
output("softmax", e / e:sum())
-- Every unary once, on arguments where all are defined.
local p = x:abs() + 0.5
output("unary", p:log() + p:sqrt() + p:rsqrt() + p:recip() + x:sin() + x:cos() + x:tanh() + x:sigmoid() + x:silu() + x:gelu()
  + (-p):exp() + minimum(x, p):neg() + maximum(x, scale))

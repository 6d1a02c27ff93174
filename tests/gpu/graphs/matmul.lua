-- Matmuls with every epilogue the models use, on aligned and ragged rows.
-- case 4e-3 {"m": 256, "n": 256, "k": 256, "dtype": "bf16"}
-- case 4e-3 {"m": 77, "n": 192, "k": 320, "dtype": "bf16"}
-- case 4e-3 {"m": 1, "n": 5120, "k": 256, "dtype": "bf16"}
-- case 4e-3 {"m": 515, "n": 768, "k": 2240, "dtype": "bf16"}
-- case 4e-3 {"m": 1030, "n": 640, "k": 512, "dtype": "bf16"}
-- case 1e-3 {"m": 129, "n": 136, "k": 72, "dtype": "f16"}
-- case 2e-5 {"m": 256, "n": 256, "k": 256, "dtype": "f32"}
-- case 2e-5 {"m": 77, "n": 68, "k": 100, "dtype": "f32"}
-- case 3e-3 {"m": 256, "n": 256, "k": 256, "dtype": "f32", "tf32": true}
-- case 3e-3 {"m": 131, "n": 264, "k": 516, "dtype": "f32", "tf32": true}
-- case 2e-5 {"m": 77, "n": 1, "k": 100, "dtype": "f32"}
-- case 4e-3 {"m": 130, "n": 1, "k": 64, "dtype": "bf16"}
local m, n, k, dtype = params.m, params.n, params.k, params.dtype
local options = {tf32 = params.tf32}
local function operand(v) return dtype == "f32" and v or v:cast(dtype) end
local x = operand(input{name = "x", shape = {m, k}})
local function linear(name) return matmul(x, operand(weight(name .. ".weight", {n, k})), options) end
local function bias(name) return weight(name .. ".bias", {n}) end
local residual = input{name = "residual", shape = {m, n}}

output("plain", linear("plain"))
output("biased", operand(linear("biased") + bias("biased")))
output("gelu", operand((linear("gelu") + bias("gelu")):gelu()))
output("gelu_alone", operand(linear("gelu_alone"):gelu()))
output("silu", operand((linear("silu") + bias("silu")):silu()))
output("gated", residual + (linear("gated") + bias("gated")) * input{name = "gate", shape = {1, n}})
output("added", residual + linear("added"))
output("product", operand(linear("left"):gelu() * linear("right")))

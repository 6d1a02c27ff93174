-- Attention that reads slices of one joined projection and feeds a matmul with gate and residual.
-- case 8e-3 {"tokens": 150, "heads": 4, "head_dim": 64, "dtype": "bf16"}
-- case 8e-3 {"tokens": 257, "heads": 2, "head_dim": 128, "dtype": "bf16"}
-- case 5e-5 {"tokens": 45, "heads": 2, "head_dim": 64, "dtype": "f32"}
local s, h, d, dtype = params.tokens, params.heads, params.head_dim, params.dtype
local c = h * d
local function operand(v) return dtype == "f32" and v or v:cast(dtype) end
local x = input{name = "x", shape = {s, c}}
local qkv = operand(matmul(operand(x), operand(weight("qkv.weight", {3 * c, c}))) + weight("qkv.bias", {3 * c}))
local function part(i) return qkv:slice(-1, i * c, c):reshape{s, h, d} end
local o = attention(part(0), part(1), part(2), {scale = 1 / math.sqrt(d)})
local y = matmul(operand(o:reshape{s, c}), operand(weight("o.weight", {c, c}))) + weight("o.bias", {c})
output("y", x + y * weight("gate", {c}))

-- Leading dimensions on the left operand, row norms after a matmul, and one operand with three readers.
-- case 4e-3 {"b": 2, "m": 77, "n": 256, "k": 128, "dtype": "bf16"}
-- case 2e-5 {"b": 3, "m": 5, "n": 64, "k": 32, "dtype": "f32"}
local b, m, n, k, dtype = params.b, params.m, params.n, params.k, params.dtype
local function operand(v) return dtype == "f32" and v or v:cast(dtype) end
local x = input{name = "x", shape = {b, m, k}}
local normed = operand(x * ((x * x):mean() + 1e-6):rsqrt())
local q = matmul(normed, operand(weight("q.weight", {n, k})))
local v = matmul(normed, operand(weight("v.weight", {n, k}))) + weight("v.bias", {n})
output("q", q * ((q * q):mean() + 1e-6):rsqrt() * weight("q.gamma", {n}))
output("v", operand(v))
-- Weight preprocessing at load rate: two weights joined, one matmul, sliced apart.
local joined = concat({weight("a.weight", {n, k}), weight("c.weight", {n, k})}, 1)
local both = matmul(normed, operand(joined))
output("a", both:slice(-1, 0, n))
output("c", both:slice(-1, n, n))

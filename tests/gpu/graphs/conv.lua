-- Convolutions of the VAE: causal in time, 2-D, 1x1, with norm + SiLU before and residual after, and after upsampling.
-- case 2e-5 {"t": 1, "h": 5, "w": 7, "cin": 16, "cout": 24, "kt": 3, "k": 3}
-- case 2e-5 {"t": 3, "h": 9, "w": 11, "cin": 32, "cout": 16, "kt": 3, "k": 3}
-- case 2e-5 {"t": 2, "h": 8, "w": 8, "cin": 96, "cout": 3, "kt": 3, "k": 3}
-- case 2e-5 {"t": 2, "h": 8, "w": 12, "cin": 16, "cout": 16, "kt": 1, "k": 1}
-- case 2e-5 {"t": 2, "h": 6, "w": 5, "cin": 48, "cout": 96, "kt": 3, "k": 1}
-- case 3e-3 {"t": 3, "h": 9, "w": 11, "cin": 96, "cout": 96, "kt": 3, "k": 3, "tf32": true}
-- case 3e-3 {"t": 1, "h": 17, "w": 19, "cin": 384, "cout": 192, "kt": 1, "k": 3, "tf32": true}
-- case 4e-3 {"t": 2, "h": 10, "w": 13, "cin": 96, "cout": 192, "kt": 3, "k": 3, "dtype": "bf16"}
-- case 4e-3 {"t": 1, "h": 20, "w": 20, "cin": 192, "cout": 96, "kt": 3, "k": 3, "dtype": "bf16"}
-- case 1e-3 {"t": 2, "h": 6, "w": 6, "cin": 64, "cout": 64, "kt": 3, "k": 3, "dtype": "f16"}
local t, h, w, cin, cout, kt, k = params.t, params.h, params.w, params.cin, params.cout, params.kt, params.k
local dtype = params.dtype or "f32"
local function operand(v) return dtype == "f32" and v or v:cast(dtype) end
local p = k // 2
local causal = {t = {kt - 1, 0}, h = {p, p}, w = {p, p}, tf32 = params.tf32}
local x = input{name = "x", shape = {t, h, w, cin}}
-- Stored [out,in,t,h,w] as checkpoints have it; brought to channels-last at load rate.
local function kernel(name) return operand(weight(name .. ".weight", {cout, cin, kt, k, k}):permute{1, 3, 4, 5, 2}) end
local function bias(name) return weight(name .. ".bias", {cout}) end
output("plain", operand(conv(operand(x), kernel("plain"), causal)))
local n = x / ((x * x):sum():sqrt() + 1e-12) * (math.sqrt(cin)) * weight("norm.gamma", {cin})
output("normed", conv(operand(n:silu()), kernel("normed"), causal) + bias("normed"))
output("residual", input{name = "skip", shape = {t, h, w, cout}} + conv(operand(x), kernel("residual"), causal) + bias("residual"))
output("upsampled", operand(conv(operand(x):upsample(), kernel("up"), causal) + bias("up")))

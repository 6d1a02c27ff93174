-- A gated MLP (SwiGLU) with RMS norm: silu(x Wg) * (x Wu), then Wd, residual. Gate and up projections are one matmul.
--
-- case 2e-5 {"policy": "f32"}
-- case 1e-2 {"tokens": 257, "dim": 512, "hidden": 1376}
--
-- params: tokens (default 100), dim (256), hidden (688), policy ("f32" or "bf16").
local tokens, dim, hidden = params.tokens or 100, params.dim or 256, params.hidden or 688
local dtype = params.policy or "bf16"

local x = input({ name = "x", shape = { tokens, dim }, rate = "step" })
local h = (x * ((x * x):mean() + 1e-6):rsqrt() * weight("norm.weight", { dim })):cast(dtype)
local both = matmul(h, concat({ weight("gate.weight", { hidden, dim }), weight("up.weight", { hidden, dim }) }, 1):cast(dtype))
local gated = (both:slice(2, 0, hidden):silu() * both:slice(2, hidden, hidden)):cast(dtype)
output("y", x + matmul(gated, weight("down.weight", { dim, hidden }):cast(dtype)))

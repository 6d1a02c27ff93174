-- A gated MLP (SwiGLU) with RMS norm, fused: silu(x Wg) * (x Wu), then Wd, and the residual.
--
-- Four things are written as one would write them in a formula, and none of them is a kernel by itself: the norm, two products of
-- the same rows, a gate, and a product with a residual. What is made of them:
--
--  * Weights: Wg and Wu are joined and cast when they are loaded, once (program "load").
--  * The norm is one row program that writes the operand in bf16.
--  * Both products are one matmul of twice the width, because the graph says so with `concat`: one read of the rows, and tiles
--    enough to fill the card.
--  * The gate is a row program over the two halves. It cannot be the first matmul's epilogue: the two values that it multiplies lie
--    `hidden` columns apart, in different tiles.
--  * The residual is the second matmul's epilogue.
--
-- Run:
--
--   moonkiln emit scripts/experiments/swiglu_mlp.lua --stage groups
--   moonkiln bench scripts/experiments/swiglu_mlp.lua --variants
--   moonkiln bench scripts/experiments/swiglu_mlp.lua --set dim=4096 --set hidden=11008 --sweep tokens=64..8192
--   moonkiln emit scripts/experiments/swiglu_mlp.lua --dump /tmp/swiglu
--
-- Look at:
--  * The plan's scratch: the [tokens, 2 hidden] product in f32 is the largest thing there. It is not rounded: only `cast` rounds.
--    `:cast(dtype)` on `both` halves its traffic, and the error tells what that costs.
--  * Few tokens against many: below some hundred rows the weights' bytes decide, and matmul_gemv takes over below nine.
--  * The second matmul has few columns of tiles and a long K. Which candidate wins at 64 tokens is not the one that wins at 8,192.
--
-- Try:
--  * Interleave the weights by hand (gate and up in alternate columns) so that both values of a gate are neighbours, and ask
--    whether the epilogue could have them then. It could: V adjacent columns are in one thread. What is missing is a pattern that
--    halves the width; a template of your own can have it (own_template.lua).
--  * Without `concat`: two matmuls, and the gate becomes the second one's epilogue, reading the first one's result. Is that faster?
--  * An edited kernel: after the --dump above, change the row_silu .cu and time it with bench --load /tmp/swiglu --variants.
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

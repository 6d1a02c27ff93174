-- RMSNorm over all heads, then rotary embedding per head: the row is reduced whole and read in pairs.
-- case 2e-5 {"tokens": 33, "heads": 12, "head_dim": 128}
-- case 2e-5 {"tokens": 7, "heads": 40, "head_dim": 128}
-- case 2e-5 {"tokens": 21, "heads": 3, "head_dim": 6}
-- case 6e-3 {"tokens": 33, "heads": 12, "head_dim": 128, "dtype": "bf16"}
-- case 6e-3 {"tokens": 900, "heads": 40, "head_dim": 128, "dtype": "bf16"}
local s, h, d = params.tokens, params.heads, params.head_dim
local x = input{name = "x", shape = {s, h * d}, dtype = params.dtype or "f32"}
local gamma = weight("norm.weight", {h * d})
local cos = input{name = "cos", shape = {s, d // 2}, rate = "prompt"}
local sin = input{name = "sin", shape = {s, d // 2}, rate = "prompt"}
local n = x * ((x * x):mean() + 1e-6):rsqrt() * gamma
local r = rope(n:reshape{s, h, d}, cos, sin)
if params.dtype then r = r:cast(params.dtype) end
output("roped", r)

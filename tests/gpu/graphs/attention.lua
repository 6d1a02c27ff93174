-- Attention in the shapes of the three models, ragged lengths, every bias and mask.
-- case 6e-3 {"sq": 128, "sk": 128, "heads": 2, "head_dim": 128, "dtype": "bf16"}
-- case 6e-3 {"sq": 333, "sk": 333, "heads": 3, "head_dim": 128, "dtype": "bf16"}
-- case 6e-3 {"sq": 1500, "sk": 512, "heads": 2, "head_dim": 128, "dtype": "bf16"}
-- case 6e-3 {"sq": 77, "sk": 300, "heads": 2, "head_dim": 128, "dtype": "bf16", "kv_len": 181}
-- case 6e-3 {"sq": 200, "sk": 200, "heads": 2, "head_dim": 128, "dtype": "bf16", "causal": true}
-- case 6e-3 {"sq": 512, "sk": 512, "heads": 4, "head_dim": 64, "dtype": "bf16", "bias": "relative", "kv_len": 9}
-- case 6e-3 {"sq": 61, "sk": 75, "heads": 4, "head_dim": 64, "dtype": "bf16", "bias": "full"}
-- case 6e-3 {"batch": 2, "sq": 130, "sk": 130, "heads": 4, "head_dim": 64, "dtype": "bf16"}
-- case 6e-3 {"batch": 3, "sq": 240, "sk": 240, "heads": 1, "head_dim": 384, "dtype": "bf16"}
-- case 2e-3 {"sq": 100, "sk": 100, "heads": 2, "head_dim": 64, "dtype": "f16"}
-- case 2e-5 {"sq": 65, "sk": 130, "heads": 2, "head_dim": 64, "dtype": "f32"}
-- case 2e-5 {"sq": 65, "sk": 65, "heads": 2, "head_dim": 64, "dtype": "f32", "bias": "relative", "kv_len": 33}
-- case 2e-5 {"batch": 2, "sq": 60, "sk": 60, "heads": 1, "head_dim": 384, "dtype": "f32"}
-- range kv_len 1 64
local sq, sk, heads, d = params.sq, params.sk, params.heads, params.head_dim
local function shape(s) return params.batch and {params.batch, s, heads, d} or {s, heads, d} end
local options = {scale = 1 / math.sqrt(d), causal = params.causal}
if params.bias == "full" then options.bias = input{name = "bias", shape = {heads, sq, sk}} end
if params.bias == "relative" then options.bias = input{name = "bias", shape = {heads, sq + sk - 1}} end
if params.kv_len then options.kv_len = input{name = "kv_len", shape = {1}, dtype = "i32", rate = "prompt"} end
local q = input{name = "q", shape = shape(sq), dtype = params.dtype}
local k = input{name = "k", shape = shape(sk), dtype = params.dtype}
local v = input{name = "v", shape = shape(sk), dtype = params.dtype}
local o = attention(q, k, v, options)
output("raw", o)
if params.dtype ~= "f32" then output("cast", o:cast(params.dtype)) end

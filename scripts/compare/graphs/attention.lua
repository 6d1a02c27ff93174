-- Attention alone, with operands and result as the transformer has them: f16 and bf16.
--
-- params: queries, keys (tokens), heads, head_dim.
local heads, head_dim = params.heads, params.head_dim
local function operand(name, tokens) return input({ name = name, shape = { tokens, heads, head_dim }, dtype = "f16" }) end
local q, k, v = operand("q", params.queries), operand("k", params.keys), operand("v", params.keys)
output("o", attention(q, k, v, { scale = head_dim ^ -0.5 }):cast("bf16"))

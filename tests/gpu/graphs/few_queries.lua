-- A stranger's template beside the built-in ones: a few queries to many keys, with code fused behind.
-- templates ../templates
-- case 2e-5 {}
-- case 2e-5 {"queries": 3, "keys": 1000, "heads": 2, "head_dim": 96}
-- case 1e-2 {"queries": 70, "keys": 33, "heads": 3, "dtype": "bf16"}
local queries, keys, heads, dim = params.queries or 1, params.keys or 16384, params.heads or 1, params.head_dim or 64
local function operand(name, tokens)
  return input({ name = name, shape = { tokens, heads, dim } }):cast(params.dtype or "f32")
end
output("y", attention(operand("q", queries), operand("k", keys), operand("v", keys)):silu())

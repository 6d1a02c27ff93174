-- A causal GPT block, no Wan model: pre-norm attention with fused QKV, GELU MLP, residuals; weights are given as tensors.
--
--   moonkiln run scripts/experiments/gpt_block.lua --weights block.safetensors --inputs x.safetensors --outputs y.safetensors
--
-- case 2e-5 {"policy": "f32"}
-- case 1e-2 {"tokens": 300, "dim": 512, "heads": 8}
--
-- params: tokens (default 77), dim (256), heads (4), policy ("f32" or "bf16": dtype of matmul and attention operands).
local tokens, dim, heads = params.tokens or 77, params.dim or 256, params.heads or 4
local dtype = params.policy or "bf16"
local head_dim = dim // heads

local function norm(x, name)
  local centred = x - x:mean()
  local y = centred * ((centred * centred):mean() + 1e-5):rsqrt()
  return (y * weight(name .. ".weight", { dim }) + weight(name .. ".bias", { dim })):cast(dtype)
end

local function linear(x, name, inner, out)
  return matmul(x, weight(name .. ".weight", { out, inner }):cast(dtype)) + weight(name .. ".bias", { out })
end

local x = input({ name = "x", shape = { tokens, dim }, rate = "step" })
local qkv = linear(norm(x, "ln_1"), "attn.c_attn", dim, 3 * dim):cast(dtype)
local function part(i) return qkv:slice(2, i * dim, dim):reshape({ tokens, heads, head_dim }) end
local y = attention(part(0), part(1), part(2), { scale = head_dim ^ -0.5, causal = true }):cast(dtype):reshape({ tokens, dim })
x = x + linear(y, "attn.c_proj", dim, dim)
y = linear(norm(x, "ln_2"), "mlp.c_fc", dim, 4 * dim):gelu():cast(dtype)
output("y", x + linear(y, "mlp.c_proj", 4 * dim, dim))

-- A causal GPT block, no Wan model: pre-norm attention with fused QKV, GELU MLP, residuals. Any network is a graph.
--
-- Names of weights are those of GPT-2's blocks, so that tensors of one, transposed to [out, in], run through it:
--
--   moonkiln run scripts/experiments/gpt_block.lua --weights block.safetensors --inputs x.safetensors --outputs y.safetensors
--
-- See what becomes of it, without weights:
--
--   moonkiln emit scripts/experiments/gpt_block.lua --stage groups
--   moonkiln emit scripts/experiments/gpt_block.lua --stage plan --set tokens=1024 --set dim=768 --set heads=12
--   moonkiln bench scripts/experiments/gpt_block.lua --variants --set tokens=1024 --set dim=768 --set heads=12
--   moonkiln bench scripts/experiments/gpt_block.lua --sweep policy=f32,bf16 --sweep tokens=64..1024
--
-- Look at:
--  * Seven groups for a step: two norms, four matmuls, one attention. Biases, GELU, casts and the last residual are in
--    epilogues; the first residual is in the second norm's kernel, which has both terms in hand. Slicing q, k and v out of the fused
--    product costs nothing, because attention reads strided views.
--  * What the norm stores: its result is cast to bf16 in the same kernel, and the f32 stream stays as it is for the residual.
--  * Causal attention: wgmma's template refuses it (see `accepts` in templates/attention_wgmma.lua), so on Hopper it runs on
--    attention_mma. That is a gap that a template of yours could fill.
--  * dim 256 and 77 tokens, the default, is too small for anything: everything takes as long as a launch. The roofline column of
--    --variants says so. 1,024 tokens of 768 channels are GPT-2 as it was trained.
--
-- Try:
--  * Two blocks: wrap the body in a function of a name and call it twice. Equal layers share their kernels.
--  * A KV cache: `state` for keys and values, `update` at the end, and an entry of its own for one token (README, "Graphs in Lua").
--  * RMS norm and SwiGLU in place of layer norm and GELU: swiglu_mlp.lua has the other half of a Llama block.
--  * `policy=f32` for reference numbers; the error column of --variants is against the CPU backend in either case.
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

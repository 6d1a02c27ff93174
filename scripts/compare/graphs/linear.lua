-- One linear of a transformer block with what comes before it (norm, modulation) and after it (bias, norm and rotation of queries and
-- keys, GELU, gate, residual), as scripts/models/wan_dit.lua has it. Weights have the names of Diffusers' block.
--
-- params: part (qkv, self_out, cross_q, cross_out, ffn_up, ffn_down), tokens, dim, heads, ffn.
local tokens, dim, heads, ffn = params.tokens, params.dim, params.heads, params.ffn
local head_dim, eps = dim // heads, 1e-6

local function vector(name) return weight(name, { dim }):cast("f32") end
local function linear(x, names, out)
  local ws, bs = {}, {}
  for i, name in ipairs(names) do
    ws[i] = weight(name .. ".weight", { out, x.shape[2] }):cast("bf16")
    bs[i] = weight(name .. ".bias", { out }):cast("bf16")
  end
  if #names == 1 then return matmul(x, ws[1]) + bs[1] end
  return matmul(x, concat(ws, 1)) + concat(bs, 1)
end

-- The residual stream, and what attention or the FFN made.
local function stream() return input({ name = "x", shape = { tokens, dim } }) end
local function made(channels) return input({ name = "y", shape = { tokens, channels }, dtype = "bf16" }) end

local function layer_norm(x)
  local centred = x - x:mean()
  return centred * ((centred * centred):mean() + eps):rsqrt()
end
local function rms_norm(x, name) return x * ((x * x):mean() + eps):rsqrt() * vector(name) end

-- Shift, scale, gate of self-attention; shift, scale, gate of the FFN.
local rows
local function modulation(i)
  rows = rows or weight("scale_shift_table", { 1, 6, dim }):cast("f32"):reshape({ 6, dim }) + input({ name = "temb", shape = { 6, dim } })
  return rows:slice(1, i, 1)
end
local function modulated(first) return (layer_norm(stream()) * (modulation(first + 1) + 1) + modulation(first)):cast("bf16") end

local parts = {}

function parts.qkv()
  local cos = input({ name = "cos", shape = { tokens, head_dim // 2 }, rate = "prompt" })
  local sin = input({ name = "sin", shape = { tokens, head_dim // 2 }, rate = "prompt" })
  local qkv = linear(modulated(0), { "attn1.to_q", "attn1.to_k", "attn1.to_v" }, dim):cast("bf16")
  for i, name in ipairs({ "q", "k" }) do
    local x = rms_norm(qkv:slice(2, (i - 1) * dim, dim), ("attn1.norm_%s.weight"):format(name))
    output(name, rope(x:reshape({ tokens, heads, head_dim }), cos, sin):cast("bf16"))
  end
  output("qkv", qkv) -- the values are its last third, which attention reads in place
end

function parts.self_out()
  output("sum", stream() + linear(made(dim), { "attn1.to_out.0" }, dim):cast("bf16") * modulation(2))
end

function parts.cross_q()
  local h = (layer_norm(stream()) * vector("norm2.weight") + vector("norm2.bias")):cast("bf16")
  output("q", rms_norm(linear(h, { "attn2.to_q" }, dim):cast("bf16"), "attn2.norm_q.weight"):cast("bf16"))
end

function parts.cross_out() output("sum", stream() + linear(made(dim), { "attn2.to_out.0" }, dim):cast("bf16")) end

function parts.ffn_up() output("hidden", linear(modulated(3), { "ffn.net.0.proj" }, ffn):gelu():cast("bf16")) end

function parts.ffn_down() output("sum", stream() + linear(made(ffn), { "ffn.net.2" }, dim):cast("bf16") * modulation(5)) end

local part = parts[params.part] or error("part '" .. tostring(params.part) .. "' is unknown")
part()

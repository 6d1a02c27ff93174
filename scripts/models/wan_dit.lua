-- Wan text-to-video diffusion transformer (A14B's experts, Wan2.1 1.3B and 14B) with guidance and the sampler's update:
-- one entry, "step", is a whole diffusion step.
--
-- params: config (the checkpoint's config.json, either layout), frames, height, width (of the latent), steps (timesteps of the
-- schedule), guided (default true: both branches), policy, mode ("sample", or "forward": velocity outputs only).
local nn, names, policy = include("nn.lua"), include("names.lua").dit(), include("policy.lua")

local config = params.config or error("params.config is missing: the transformer's config.json")

local function integer(value, what)
  local n = math.tointeger(value)
  if not n or n < 1 then error(("%s must be a positive integer, got %s"):format(what, tostring(value))) end
  return n
end

local heads = integer(config.num_heads or config.num_attention_heads, "config: num_heads")
local dim = integer(config.dim or heads * (config.attention_head_dim or 128), "config: dim")
local ffn = integer(config.ffn_dim, "config: ffn_dim")
local layers = integer(params.layers or config.num_layers, "config: num_layers")
local in_dim = integer(config.in_dim or config.in_channels, "config: in_dim")
local out_dim = integer(config.out_dim or config.out_channels, "config: out_dim")
local freq_dim = integer(config.freq_dim or 256, "config: freq_dim")
local text_dim = integer(config.text_dim or nn.extent(names("text_embedding.0.weight"), 2) or 4096, "config: text_dim")
local text_len = integer(config.text_len or 512, "config: text_len")
local eps = config.eps or 1e-6
local head_dim = dim // heads
if head_dim * heads ~= dim or head_dim % 2 ~= 0 then error(("config: dim %d does not split into %d even heads"):format(dim, heads)) end

local frames = integer(params.frames, "frames")
local height, width = integer(params.height, "height"), integer(params.width, "width")
if height % 2 ~= 0 or width % 2 ~= 0 then error(("latent size %dx%d is odd"):format(width, height)) end
local rows, cols = height // 2, width // 2
local tokens = frames * rows * cols
local steps = integer(params.steps or 1, "steps")
local guided = params.guided ~= false
local mode = params.mode or "sample"

local function linear(x, name, out, dtype) return nn.linear(x, names(name .. ".weight"):gsub("%.weight$", ""), out, dtype, policy) end
local function vector(name, shape) return nn.vector(names(name), shape) end

-- ---- rotary tables: pairs split over frame, row and column axes, angles from doubles
local function axis_tables(positions, half, shape)
  local c, s = {}, {}
  for p = 0, positions - 1 do
    for i = 0, half - 1 do
      local angle = p * 10000.0 ^ (-i / half)
      c[#c + 1], s[#s + 1] = math.cos(angle), math.sin(angle)
    end
  end
  shape[4] = half
  return const(c, shape):expand({ frames, rows, cols, half }), const(s, shape):expand({ frames, rows, cols, half })
end

local function rotary_tables()
  local sixth = head_dim // 6
  local cf, sf = axis_tables(frames, (head_dim - 4 * sixth) // 2, { frames, 1, 1 })
  local cr, sr = axis_tables(rows, sixth, { 1, rows, 1 })
  local cc, sc = axis_tables(cols, sixth, { 1, 1, cols })
  return concat({ cf, cr, cc }, 4):reshape({ tokens, head_dim // 2 }), concat({ sf, sr, sc }, 4):reshape({ tokens, head_dim // 2 })
end
local rope_cos, rope_sin = rotary_tables()

-- ---- time: every timestep of the schedule at prompt rate; a step picks its row
local function time_tables()
  local half = freq_dim // 2
  local omega = {}
  for j = 0, half - 1 do omega[j + 1] = 10000.0 ^ (-j / half) end
  local angle = input({ name = "timesteps", shape = { steps }, rate = "prompt" }):reshape({ steps, 1 }) * const(omega, { 1, half })
  local e = concat({ angle:cos(), angle:sin() }, 2)
  e = linear(linear(e, "time_embedding.0", dim, policy.head):silu(), "time_embedding.2", dim, policy.head)
  return e, linear(e:silu(), "time_projection.1", 6 * dim, policy.head)
end
local e_all, e0_all = time_tables()
local step = input({ name = "step", shape = { 1 }, dtype = "i32", rate = "step" })
local e = gather(e_all, step)
local e0 = gather(e0_all, step):reshape({ 6, dim })

-- ---- text: embedding and every block's cross-attention keys and values at prompt rate
local function split_heads(x) return x:reshape({ x.shape[1], heads, head_dim }) end

-- Values are not normalized: what f16 cannot hold becomes the largest that it can.
local function values(v)
  if policy.attention == "f16" then v = maximum(minimum(v, 65504), -65504) end
  return split_heads(v):cast(policy.attention)
end

local function text_branch(name)
  local context = input({ name = name, shape = { text_len, text_dim }, rate = "prompt" })
  local text = linear(linear(context, "text_embedding.0", dim, policy.linear):gelu(), "text_embedding.2", dim, policy.linear)
  text = text:cast(policy.linear)
  local kv = {}
  for i = 0, layers - 1 do
    local base = ("blocks.%d.cross_attn."):format(i)
    local k = linear(text, base .. "k", dim, policy.linear):cast(policy.linear)
    k = nn.rms_norm(k, vector(base .. "norm_k.weight", { dim }), eps)
    local v = linear(text, base .. "v", dim, policy.linear)
    kv[i] = { k = split_heads(k):cast(policy.attention), v = values(v) }
  end
  return kv
end

-- ---- one block
local scale = head_dim ^ -0.5

-- Queries, keys and values before their norms. One matmul fills the card better where a third of it is a few tiles; apart they need less
-- memory at a time (1.5 GB at 75,600 tokens and dim 5120) and are as fast.
local joint = dim < 4096
local function projections(h, base)
  if not joint then
    local function one(c) return linear(h, base .. c, dim, policy.linear):cast(policy.linear) end
    return one("q"), one("k"), one("v")
  end
  local prefixes = {}
  for i, c in ipairs({ "q", "k", "v" }) do prefixes[i] = names(base .. c .. ".weight"):gsub("%.weight$", "") end
  local qkv = nn.linear(h, prefixes, { dim, dim, dim }, policy.linear, policy):cast(policy.linear)
  return qkv:slice(2, 0, dim), qkv:slice(2, dim, dim), qkv:slice(2, 2 * dim, dim)
end

local function self_attention(h, base)
  local q, k, v = projections(h, base)
  local function rotated(x, norm)
    x = nn.rms_norm(x, vector(base .. norm .. ".weight", { dim }), eps)
    return rope(split_heads(x), rope_cos, rope_sin):label(base .. norm):cast(policy.attention)
  end
  q, k, v = rotated(q, "norm_q"), rotated(k, "norm_k"), values(v)
  return attention(q, k, v, { scale = scale }):label(base .. "attention"):cast(policy.linear):reshape({ tokens, dim })
end

local function cross_attention(h, base, kv)
  local q = nn.rms_norm(linear(h, base .. "q", dim, policy.linear):cast(policy.linear), vector(base .. "norm_q.weight", { dim }), eps)
  q = split_heads(q:label(base .. "norm_q")):cast(policy.attention)
  local y = attention(q, kv.k, kv.v, { scale = scale }):label(base .. "attention")
  return y:cast(policy.linear):reshape({ tokens, dim })
end

local function block(x, i, kv)
  local base = ("blocks.%d."):format(i)
  local m = vector(base .. "modulation", { 1, 6, dim }):reshape({ 6, dim }) + e0
  local function chunk(j) return m:slice(1, j, 1) end -- shift, scale, gate of self-attention; shift, scale, gate of the FFN
  local h = (nn.layer_norm(x, eps) * (chunk(1) + 1) + chunk(0)):cast(policy.linear):label(base .. "norm1")
  local y = linear(self_attention(h, base .. "self_attn."), base .. "self_attn.o", dim, policy.linear):cast(policy.linear)
  x = (x + y * chunk(2)):cast(policy.residual):label(base .. "self_attn")
  h = nn.layer_norm(x, eps) * vector(base .. "norm3.weight", { dim }) + vector(base .. "norm3.bias", { dim })
  y = cross_attention(h:cast(policy.linear), base .. "cross_attn.", kv)
  y = linear(y, base .. "cross_attn.o", dim, policy.linear):cast(policy.linear)
  x = (x + y):cast(policy.residual):label(base .. "cross_attn")
  h = (nn.layer_norm(x, eps) * (chunk(4) + 1) + chunk(3)):cast(policy.linear):label(base .. "norm2")
  y = linear(h, base .. "ffn.0", ffn, policy.linear):gelu():cast(policy.linear)
  y = linear(y, base .. "ffn.2", dim, policy.linear):cast(policy.linear)
  return (x + y * chunk(5)):cast(policy.residual):label(base .. "ffn")
end

-- ---- latents to tokens and back
local function patchify(x)
  return x:reshape({ in_dim, frames, rows, 2, cols, 2 }):permute({ 2, 3, 5, 1, 4, 6 }):reshape({ tokens, 4 * in_dim })
end

local function unpatchify(y)
  return y:reshape({ frames, rows, cols, 2, 2, out_dim }):permute({ 6, 1, 2, 4, 3, 5 }):reshape({ out_dim, frames, height, width })
end

local function embed(latents)
  local w = nn.weight(names("patch_embedding.weight"), { dim, in_dim, 1, 2, 2 }):cast(policy.linear):reshape({ dim, 4 * in_dim })
  local x = matmul(patchify(latents):cast(policy.linear), w, { tf32 = policy.tf32 }) + vector("patch_embedding.bias", { dim })
  return x:cast(policy.linear)
end

-- The velocity of every token, f32 [tokens, 4 * out_dim], channels fastest.
local function forward(x, kv)
  for i = 0, layers - 1 do x = block(x, i, kv[i]) end
  local m = vector("head.modulation", { 1, 2, dim }):reshape({ 2, dim }) + e
  local h = nn.layer_norm(x, eps) * (m:slice(1, 1, 1) + 1) + m:slice(1, 0, 1)
  return linear(h, "head.head", 4 * out_dim, policy.head)
end

local shape = { in_dim, frames, height, width }
local cond = text_branch("context")
local uncond = guided and text_branch("context_negative")

if mode == "forward" then
  local x = embed(input({ name = "latents", shape = shape, rate = "step" }))
  output("velocity", unpatchify(forward(x, cond)))
  if guided then output("velocity_negative", unpatchify(forward(x, uncond))) end
  return
end

-- ---- one step of any of the samplers: linear combinations whose coefficients the schedule gives (runtime/model/schedule.h)
local latents = state({ name = "latents", shape = shape })
local last, m1, m2 = state({ name = "last", shape = shape }), state({ name = "m1", shape = shape }), state({ name = "m2", shape = shape })
local coefficients = input({ name = "coefficients", shape = { 16 }, rate = "step" }) -- sigma, c0..c4, d0..d3, guidance
local function coefficient(i) return coefficients:slice(1, i, 1) end

local x0 = embed(latents)
local v = forward(x0, cond)
if guided then
  local u = forward(x0, uncond)
  v = u + (v - u) * coefficient(10)
end
v = unpatchify(v)
local m0 = latents - v * coefficient(0)
local corrected = latents * coefficient(1) + last * coefficient(2) + m0 * coefficient(3) + m1 * coefficient(4) + m2 * coefficient(5)
local following = corrected * coefficient(6) + m0 * coefficient(7) + m1 * coefficient(8) + m2 * coefficient(9)
update(latents, following)
update(last, corrected)
update(m1, m0)
update(m2, m1)

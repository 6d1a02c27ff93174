-- Wan2.1 VAE decoder, one latent frame at a time, exactly: every causal convolution keeps the last two frames it read.
-- Activations are channels-last [frames, height, width, channels]. Two entries share the weights and the kept frames:
-- "first" makes one frame from latent frame 0, "next" makes four from each later one.
--
-- params: config (vae/config.json; none in the original layout: sizes then come from the weights), height, width (of the latent), policy.
local nn, names, policy = include("nn.lua"), include("names.lua").vae(), include("policy.lua")

local config = params.config or {}
local base_dim = config.base_dim or nn.extent(names("decoder.head.0.gamma"), 1) or 96
local latent_dim = config.z_dim or 16
local mult = config.dim_mult or { 1, 2, 4, 4 }
local blocks = (config.num_res_blocks or 2) + 1
local latent_mean = config.latents_mean or { -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517,
  -0.3632, -0.1922, -0.9497, 0.2503, -0.2921 }
local latent_std = config.latents_std or { 2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579,
  1.6382, 1.1253, 2.8251, 1.9160 }
local height, width = params.height, params.width
if #mult ~= 4 or blocks ~= 3 then error("config: only the Wan2.1 decoder (four levels, two residual blocks) is described here") end
local temporal = config.temperal_downsample or { false, true, true } -- of the encoder, finest level first

local kept = {} -- frames kept between chunks, by convolution
local first_chunk

local function conv_weight(name, shape)
  local w = nn.weight(names(name .. ".weight"), shape)
  if #shape == 4 then w = w:reshape({ shape[1], shape[2], 1, shape[3], shape[4] }) end
  return w:permute({ 1, 3, 4, 5, 2 }):cast(policy.conv)
end

local function conv_bias(name, out) return nn.vector(names(name .. ".bias"), { out }) end

-- Zeros before the first frame; afterwards the last two frames read so far.
local function with_history(x, name)
  local s = x.shape
  local past = kept[name]
  if not past then
    past = state({ name = name .. ".past", shape = { 2, s[2], s[3], s[4] }, dtype = policy.conv })
    kept[name] = past
  end
  local all = concat({ past, x }, 1)
  update(past, all:slice(1, s[1], 2))
  return all
end

local function causal_conv(x, name, out)
  local inner = x.shape[4]
  x = with_history(x:cast(policy.conv), name)
  return conv(x, conv_weight(name, { out, inner, 3, 3, 3 }), { h = { 1, 1 }, w = { 1, 1 }, tf32 = policy.tf32 }) + conv_bias(name, out)
end

local function pointwise(x, name, shape)
  return conv(x:cast(policy.conv), conv_weight(name, shape), { tf32 = policy.tf32 }) + conv_bias(name, shape[1])
end

-- x / max(||x||, 1e-12) * sqrt(channels) * gamma, over the channels of each pixel.
local function rms(x, name, gamma_shape)
  local channels = x.shape[4]
  local gain = nn.vector(names(name .. ".gamma"), gamma_shape) * math.sqrt(channels)
  return x * maximum((x * x):sum():sqrt(), 1e-12):recip() * gain
end

local function residual_block(x, name, out)
  local inner = x.shape[4]
  local h = causal_conv(rms(x, name .. ".residual.0", { inner, 1, 1, 1 }):silu(), name .. ".residual.2", out):cast(policy.residual)
  h = causal_conv(rms(h, name .. ".residual.3", { out, 1, 1, 1 }):silu(), name .. ".residual.6", out)
  if inner ~= out then x = pointwise(x, name .. ".shortcut", { out, inner, 1, 1, 1 }) end
  return (h + x):cast(policy.residual):label(name)
end

local function frame_attention(x, name)
  local t, h, w, c = table.unpack(x.shape)
  local qkv = pointwise(rms(x, name .. ".norm", { c, 1, 1 }), name .. ".to_qkv", { 3 * c, c, 1, 1 }):cast(policy.linear)
  local function part(i) return qkv:slice(4, i * c, c):reshape({ t, h * w, 1, c }) end
  local y = attention(part(0), part(1), part(2), { scale = c ^ -0.5 }):reshape({ t, h, w, c })
  return (pointwise(y, name .. ".proj", { c, c, 1, 1 }) + x):cast(policy.residual)
end

-- Frames double from the second chunk on; the first chunk's frame never enters the time convolution.
local function double_frames(x, name)
  if first_chunk then return x end
  local t, h, w, c = table.unpack(x.shape)
  local both = with_history(x:cast(policy.conv), name)
  both = conv(both, conv_weight(name, { 2 * c, c, 3, 1, 1 }), { tf32 = policy.tf32 }) + conv_bias(name, 2 * c)
  return both:cast(policy.conv):reshape({ t, h, w, 2, c }):permute({ 1, 4, 2, 3, 5 }):reshape({ 2 * t, h, w, c })
end

local function upsample_block(x, name, in_time)
  local c = x.shape[4]
  if in_time then x = double_frames(x, name .. ".time_conv") end
  local w = conv_weight(name .. ".resample.1", { c // 2, c, 3, 3 })
  local y = conv(x:cast(policy.conv):upsample(), w, { h = { 1, 1 }, w = { 1, 1 }, tf32 = policy.tf32 })
  return (y + conv_bias(name .. ".resample.1", c // 2)):cast(policy.residual)
end

local function decode(z)
  local top = base_dim * mult[4]
  local x = z:reshape({ latent_dim, height, width }):permute({ 2, 3, 1 }):reshape({ 1, height, width, latent_dim })
  x = x * const(latent_std, { latent_dim }) + const(latent_mean, { latent_dim })
  x = pointwise(x, "conv2", { latent_dim, latent_dim, 1, 1, 1 })
  x = causal_conv(x, "decoder.conv1", top):cast(policy.residual)
  x = residual_block(x, "decoder.middle.0", top)
  x = frame_attention(x, "decoder.middle.1")
  x = residual_block(x, "decoder.middle.2", top)
  local index = 0
  for level = 4, 1, -1 do
    local out = base_dim * mult[level]
    for _ = 1, blocks do
      x = residual_block(x, ("decoder.upsamples.%d"):format(index), out)
      index = index + 1
    end
    if level > 1 then
      x = upsample_block(x, ("decoder.upsamples.%d"):format(index), temporal[level - 1])
      index = index + 1
    end
  end
  x = causal_conv(rms(x, "decoder.head.0", { x.shape[4], 1, 1, 1 }):silu(), "decoder.head.2", 3)
  return minimum(maximum(x, -1), 1)
end

local z = input({ name = "latent", shape = { latent_dim, height, width }, rate = "step" })
first_chunk = true
entry("first")
output("frame", decode(z))
first_chunk = false
entry("next")
output("frames", decode(z))

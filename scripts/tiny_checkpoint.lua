-- Writes a tiny text-to-video checkpoint with random weights: the folder layout, tensor names, dtypes and configs of
-- Wan2.2 T2V-A14B at sizes that run on a laptop, and a small SentencePiece model. The same arguments give the same bytes.
--
--   lua5.4 scripts/tiny_checkpoint.lua OUT_DIR [--layout diffusers|original]
--
-- Both layouts hold the same weights. The folder appears complete or not at all: it is written beside OUT_DIR and renamed.
-- In the original layout the text encoder and the VAE are .safetensors files with the names that the .pth files use inside.

local USAGE = "usage: lua5.4 tiny_checkpoint.lua OUT_DIR [--layout diffusers|original]"

local DIM, HEADS, FFN, LAYERS, FREQ = 128, 2, 256, 2, 256 -- diffusion transformer
local TEXT_DIM, TEXT_INNER, TEXT_HEADS, TEXT_FFN, TEXT_LAYERS, TEXT_ROWS = 64, 128, 2, 128, 2, 576 -- umT5
local VAE_BASE, Z = 8, 16
local EXTRA_IDS = 12

-- ---- random weights --------------------------------------------------------------------------------------------------

local function hash64(text) -- FNV-1a
  local h = 0xcbf29ce484222325
  for i = 1, #text do
    h = (h ~ text:byte(i)) * 0x100000001b3
  end
  return h
end

-- A palette is the 256 packed values a tensor's elements are drawn from, evenly spaced, with this mean and deviation.
local palettes = {}
local function palette(mean, deviation, dtype)
  local key = ("%s %.17g %.17g"):format(dtype, mean, deviation)
  if not palettes[key] then
    local p = {}
    for k = 0, 255 do
      local bytes = string.pack("<f", mean + deviation * math.sqrt(3) * ((2 * k + 1) / 256 - 1))
      p[k] = dtype == "BF16" and bytes:sub(3, 4) or bytes
    end
    palettes[key] = p
  end
  return palettes[key]
end

local function random_bytes(seed, count, p)
  local out = {}
  for i = 1, count, 8 do
    seed = seed + 0x9e3779b97f4a7c15 -- splitmix64
    local z = (seed ~ (seed >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ~ (z >> 27)) * 0x94d049bb133111eb
    z = z ~ (z >> 31)
    out[i], out[i + 1], out[i + 2], out[i + 3] = p[z & 255], p[z >> 8 & 255], p[z >> 16 & 255], p[z >> 24 & 255]
    out[i + 4], out[i + 5], out[i + 6], out[i + 7] = p[z >> 32 & 255], p[z >> 40 & 255], p[z >> 48 & 255], p[z >> 56]
  end
  return table.concat(out, "", 1, count)
end

local function product(shape, first)
  local n = 1
  for i = first or 1, #shape do
    n = n * shape[i]
  end
  return n
end

-- Mean and deviation by the kind of parameter: gains 1 ± 0.1, biases ± 0.1, matrices 1/sqrt(fan_in).
local function distribution(name, shape)
  if name:find("gamma") or name:find("norm[%w_]*%.weight$") then return 1, 0.1 end
  if name:find("scale_shift_table$") then return 0, 0.3 end
  if name:find("^shared%.") or name:find("relative_attention_bias") then return 0, 1 end
  if #shape == 1 then return 0, 0.1 end
  local narrow = name:find("SelfAttention%.q%.") and 0.25 or 1 -- umT5 does not divide its logits by sqrt(d)
  return 0, narrow / math.sqrt(product(shape, 2))
end

-- ---- tensors of the three models, by their names in the Diffusers layout -----------------------------------------------

local Tensors = {}
Tensors.__index = Tensors

function Tensors:add(name, ...)
  self[#self + 1] = { name = name, shape = { ... } }
end

function Tensors:linear(name, outputs, inputs)
  self:add(name .. ".weight", outputs, inputs)
  self:add(name .. ".bias", outputs)
end

function Tensors:conv(name, outputs, inputs, ...)
  self:add(name .. ".weight", outputs, inputs, ...)
  self:add(name .. ".bias", outputs)
end

local function transformer()
  local t = setmetatable({}, Tensors)
  t:conv("patch_embedding", DIM, Z, 1, 2, 2)
  t:linear("condition_embedder.text_embedder.linear_1", DIM, TEXT_DIM)
  t:linear("condition_embedder.text_embedder.linear_2", DIM, DIM)
  t:linear("condition_embedder.time_embedder.linear_1", DIM, FREQ)
  t:linear("condition_embedder.time_embedder.linear_2", DIM, DIM)
  t:linear("condition_embedder.time_proj", 6 * DIM, DIM)
  for i = 0, LAYERS - 1 do
    local block = "blocks." .. i .. "."
    for _, attention in ipairs { "attn1.", "attn2." } do
      for _, part in ipairs { "to_q", "to_k", "to_v", "to_out.0" } do
        t:linear(block .. attention .. part, DIM, DIM)
      end
      t:add(block .. attention .. "norm_q.weight", DIM)
      t:add(block .. attention .. "norm_k.weight", DIM)
    end
    t:add(block .. "norm2.weight", DIM)
    t:add(block .. "norm2.bias", DIM)
    t:linear(block .. "ffn.net.0.proj", FFN, DIM)
    t:linear(block .. "ffn.net.2", DIM, FFN)
    t:add(block .. "scale_shift_table", 1, 6, DIM)
  end
  t:add("scale_shift_table", 1, 2, DIM)
  t:linear("proj_out", 4 * Z, DIM)
  return t
end

local function text_encoder()
  local t = setmetatable({}, Tensors)
  t:add("shared.weight", TEXT_ROWS, TEXT_DIM)
  for i = 0, TEXT_LAYERS - 1 do
    local block = "encoder.block." .. i .. ".layer."
    for _, part in ipairs { "q", "k", "v" } do
      t:add(block .. "0.SelfAttention." .. part .. ".weight", TEXT_INNER, TEXT_DIM)
    end
    t:add(block .. "0.SelfAttention.o.weight", TEXT_DIM, TEXT_INNER)
    t:add(block .. "0.SelfAttention.relative_attention_bias.weight", 32, TEXT_HEADS)
    t:add(block .. "0.layer_norm.weight", TEXT_DIM)
    t:add(block .. "1.DenseReluDense.wi_0.weight", TEXT_FFN, TEXT_DIM)
    t:add(block .. "1.DenseReluDense.wi_1.weight", TEXT_FFN, TEXT_DIM)
    t:add(block .. "1.DenseReluDense.wo.weight", TEXT_DIM, TEXT_FFN)
    t:add(block .. "1.layer_norm.weight", TEXT_DIM)
  end
  t:add("encoder.final_layer_norm.weight", TEXT_DIM)
  return t
end

local function vae()
  local t = setmetatable({}, Tensors)
  local c1, c2, c4 = VAE_BASE, 2 * VAE_BASE, 4 * VAE_BASE

  local function residual(name, inputs, outputs)
    t:add(name .. ".norm1.gamma", inputs, 1, 1, 1)
    t:conv(name .. ".conv1", outputs, inputs, 3, 3, 3)
    t:add(name .. ".norm2.gamma", outputs, 1, 1, 1)
    t:conv(name .. ".conv2", outputs, outputs, 3, 3, 3)
    if inputs ~= outputs then t:conv(name .. ".conv_shortcut", outputs, inputs, 1, 1, 1) end
  end

  local function middle(side)
    residual(side .. "mid_block.resnets.0", c4, c4)
    t:add(side .. "mid_block.attentions.0.norm.gamma", c4, 1, 1)
    t:conv(side .. "mid_block.attentions.0.to_qkv", 3 * c4, c4, 1, 1)
    t:conv(side .. "mid_block.attentions.0.proj", c4, c4, 1, 1)
    residual(side .. "mid_block.resnets.1", c4, c4)
  end

  t:conv("encoder.conv_in", c1, 3, 3, 3, 3)
  local index, inputs = 0, c1
  for level, outputs in ipairs { c1, c2, c4, c4 } do
    for _ = 1, 2 do
      residual("encoder.down_blocks." .. index, inputs, outputs)
      index, inputs = index + 1, outputs
    end
    if level < 4 then
      t:conv("encoder.down_blocks." .. index .. ".resample.1", outputs, outputs, 3, 3)
      if level > 1 then t:conv("encoder.down_blocks." .. index .. ".time_conv", outputs, outputs, 3, 1, 1) end
      index = index + 1
    end
  end
  middle("encoder.")
  t:add("encoder.norm_out.gamma", c4, 1, 1, 1)
  t:conv("encoder.conv_out", 2 * Z, c4, 3, 3, 3)
  t:conv("quant_conv", 2 * Z, 2 * Z, 1, 1, 1)

  t:conv("post_quant_conv", Z, Z, 1, 1, 1)
  t:conv("decoder.conv_in", c4, Z, 3, 3, 3)
  middle("decoder.")
  for level, channels in ipairs { { c4, c4 }, { c2, c4 }, { c2, c2 }, { c1, c1 } } do
    local block = "decoder.up_blocks." .. level - 1
    local from, to = channels[1], channels[2]
    for i = 0, 2 do
      residual(block .. ".resnets." .. i, i == 0 and from or to, to)
    end
    if level < 4 then
      t:conv(block .. ".upsamplers.0.resample.1", to // 2, to, 3, 3)
      if level < 3 then t:conv(block .. ".upsamplers.0.time_conv", 2 * to, to, 3, 1, 1) end
    end
  end
  t:add("decoder.norm_out.gamma", c1, 1, 1, 1)
  t:conv("decoder.conv_out", 3, c1, 3, 3, 3)
  return t
end

-- ---- names of the original layout: patterns and replacements, applied in order -----------------------------------------

local TRANSFORMER_ORIGINAL = {
  { "^condition_embedder%.time_embedder%.linear_1", "time_embedding.0" },
  { "^condition_embedder%.time_embedder%.linear_2", "time_embedding.2" },
  { "^condition_embedder%.text_embedder%.linear_1", "text_embedding.0" },
  { "^condition_embedder%.text_embedder%.linear_2", "text_embedding.2" },
  { "^condition_embedder%.time_proj", "time_projection.1" },
  { "^proj_out", "head.head" },
  { "^scale_shift_table", "head.modulation" },
  { "scale_shift_table$", "modulation" },
  { "%.attn1%.", ".self_attn." },
  { "%.attn2%.", ".cross_attn." },
  { "%.to_([qkv])%.", ".%1." },
  { "%.to_out%.0%.", ".o." },
  { "%.norm2%.", ".norm3." },
  { "%.ffn%.net%.0%.proj%.", ".ffn.0." },
  { "%.ffn%.net%.2%.", ".ffn.2." },
}

local TEXT_ORIGINAL = {
  { "^shared%.", "token_embedding." },
  { "^encoder%.final_layer_norm%.", "norm." },
  { "^encoder%.block%.", "blocks." },
  { "layer%.0%.SelfAttention%.relative_attention_bias%.", "pos_embedding.embedding." },
  { "layer%.0%.SelfAttention%.", "attn." },
  { "layer%.0%.layer_norm%.", "norm1." },
  { "layer%.1%.DenseReluDense%.wi_0%.", "ffn.gate.0." },
  { "layer%.1%.DenseReluDense%.wi_1%.", "ffn.fc1." },
  { "layer%.1%.DenseReluDense%.wo%.", "ffn.fc2." },
  { "layer%.1%.layer_norm%.", "norm2." },
}

local VAE_ORIGINAL = {
  { "^quant_conv%.", "conv1." },
  { "^post_quant_conv%.", "conv2." },
  { "coder%.conv_in%.", "coder.conv1." },
  { "coder%.norm_out%.", "coder.head.0." },
  { "coder%.conv_out%.", "coder.head.2." },
  { "%.mid_block%.resnets%.0%.", ".middle.0." },
  { "%.mid_block%.attentions%.0%.", ".middle.1." },
  { "%.mid_block%.resnets%.1%.", ".middle.2." },
  { "%.down_blocks%.", ".downsamples." },
  { "%.up_blocks%.(%d)%.resnets%.(%d)%.", function(b, r) return (".upsamples.%d."):format(4 * b + r) end },
  { "%.up_blocks%.(%d)%.upsamplers%.0%.", function(b) return (".upsamples.%d."):format(4 * b + 3) end },
  { "(s%.%d+)%.norm1%.", "%1.residual.0." },
  { "(e%.%d+)%.norm1%.", "%1.residual.0." },
  { "([se]%.%d+)%.conv1%.", "%1.residual.2." },
  { "([se]%.%d+)%.norm2%.", "%1.residual.3." },
  { "([se]%.%d+)%.conv2%.", "%1.residual.6." },
  { "%.conv_shortcut%.", ".shortcut." },
}

local function rename(name, rules)
  for _, rule in ipairs(rules or {}) do
    name = name:gsub(rule[1], rule[2])
  end
  return name
end

-- ---- JSON and safetensors ------------------------------------------------------------------------------------------------

local NULL = {}

local function json(value, indent)
  indent = indent or ""
  if value == NULL then return "null" end
  if type(value) == "string" then
    return '"' .. value:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
  end
  if type(value) == "number" then return math.type(value) == "integer" and tostring(value) or ("%.12g"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local inner, parts = indent .. "  ", {}
  if #value > 0 then
    for i, item in ipairs(value) do
      parts[i] = json(item, inner)
    end
    return "[" .. table.concat(parts, ", ") .. "]"
  end
  local keys = {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for i, key in ipairs(keys) do
    parts[i] = inner .. json(key) .. ": " .. json(value[key], inner)
  end
  return "{\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "}"
end

local function write_file(path, ...)
  local file = assert(io.open(path, "wb"))
  assert(file:write(...))
  assert(file:close())
end

local function write_json(path, value)
  write_file(path, json(value), "\n")
end

-- tensors: a list of { name, shape, dtype, bytes }. Wider dtypes come first, so that every tensor is aligned.
local function write_safetensors(path, tensors)
  table.sort(tensors, function(a, b)
    if a.dtype ~= b.dtype then return a.dtype > b.dtype end
    return a.name < b.name
  end)
  local entries, data, offset = { '"__metadata__":{"format":"pt"}' }, {}, 0
  for i, t in ipairs(tensors) do
    entries[#entries + 1] = ('"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}'):format(
      t.name, t.dtype, table.concat(t.shape, ","), offset, offset + #t.bytes)
    data[i], offset = t.bytes, offset + #t.bytes
  end
  local header = "{" .. table.concat(entries, ",") .. "}"
  header = header .. (" "):rep(-#header % 8)
  write_file(path, string.pack("<I8", #header), header, table.unpack(data))
end

-- Fills in the bytes of `component`'s tensors; the weights depend on the component and the Diffusers name only.
local function materialize(tensors, component, dtype, rules)
  for _, t in ipairs(tensors) do
    local mean, deviation = distribution(t.name, t.shape)
    t.dtype = dtype
    t.bytes = random_bytes(hash64(component .. "/" .. t.name), product(t.shape), palette(mean, deviation, dtype))
    t.name = rename(t.name, rules)
  end
  return tensors
end

local function write_sharded(folder, stem, tensors, shards)
  if shards == 1 then return write_safetensors(folder .. stem .. ".safetensors", tensors) end
  local weight_map, files, total = {}, {}, 0
  for i, t in ipairs(tensors) do
    local shard = (i - 1) * shards // #tensors + 1
    files[shard] = files[shard] or {}
    table.insert(files[shard], t)
    weight_map[t.name] = ("%s-%05d-of-%05d.safetensors"):format(stem, shard, shards)
    total = total + #t.bytes
  end
  for _, content in ipairs(files) do
    write_safetensors(folder .. weight_map[content[1].name], content)
  end
  write_json(folder .. stem .. ".safetensors.index.json", { metadata = { total_size = total }, weight_map = weight_map })
end

-- ---- SentencePiece model -------------------------------------------------------------------------------------------------

local WORDS = [[a an and the of on in at to with by is are it its his her up down into over two three one cat dog bird horse child
  man woman people robot boat train car city street house room door window kitchen cake table book fire water sea beach wave sky
  sun sunset night morning light star moon mountain forest tree snow rain wind flower grass red blue green white black bright
  dark calm slow fast small large old new walk run runs fly jump fight bake read wait look move moves camera shot close wide film
  grain motion focus low quality static blurry ing ed er ly s t re un th ou]]
local HAN = "一二三大小中人口手目日月山水火木天地上下左右白黑红蓝色的猫狗鸟马在海边奔跑飞行城市夜晚雨雪花树"
  .. "光影镜头慢画面静态低质量模糊字幕细节差"

-- Fields of a protobuf message: number << 3 | wire type, then a varint (0), length-delimited bytes (2) or a float (5).
local function varint(n)
  local out = {}
  repeat
    out[#out + 1] = string.char((n & 127) | (n > 127 and 128 or 0))
    n = n >> 7
  until n == 0
  return table.concat(out)
end

local function bytes_field(number, bytes) return varint(number << 3 | 2) .. varint(#bytes) .. bytes end
local function integer_field(number, n) return varint(number << 3) .. varint(n) end
local function float_field(number, x) return varint(number << 3 | 5) .. string.pack("<f", x) end

local function sentencepiece_model()
  local NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
  local pieces, seen = {}, {}
  local function add(piece, score, kind)
    if seen[piece] then return end
    seen[piece] = true
    pieces[#pieces + 1] = bytes_field(1, bytes_field(1, piece) .. float_field(2, score) .. integer_field(3, kind))
  end
  add("<pad>", 0, CONTROL)
  add("</s>", 0, CONTROL)
  add("<s>", 0, CONTROL)
  add("<unk>", 0, UNKNOWN)
  for byte = 0, 255 do
    add(("<0x%02X>"):format(byte), 0, BYTE)
  end
  local space = "\u{2581}"
  add(space, -2, NORMAL)
  local rank = 0
  for word in WORDS:gmatch("%S+") do
    rank = rank + 1
    add(space .. word, -3 - math.log(rank), NORMAL)
  end
  for code = 33, 126 do
    add(string.char(code), code >= 97 and code <= 122 and -5 or -8, NORMAL)
  end
  for _, code in utf8.codes(HAN) do
    add(utf8.char(code), -7, NORMAL)
  end
  assert(#pieces + EXTRA_IDS <= TEXT_ROWS)
  local trainer = integer_field(3, 1) .. integer_field(4, #pieces) .. integer_field(35, 1) -- unigram, with byte fallback
    .. integer_field(40, 3) .. integer_field(41, 2) .. integer_field(42, 1) .. integer_field(43, 0)
    .. bytes_field(45, "<unk>") .. bytes_field(46, "<s>") .. bytes_field(47, "</s>") .. bytes_field(48, "<pad>")
  local normalizer = bytes_field(1, "identity") .. bytes_field(2, "") .. integer_field(3, 1) .. integer_field(4, 1)
    .. integer_field(5, 1)
  return table.concat(pieces) .. bytes_field(2, trainer) .. bytes_field(3, normalizer)
end

local function write_tokenizer(folder)
  local extra = {}
  for i = 1, EXTRA_IDS do
    extra[i] = ("<extra_id_%d>"):format(i - 1)
  end
  local special = { additional_special_tokens = extra, bos_token = "<s>", eos_token = "</s>", pad_token = "<pad>", unk_token = "<unk>" }
  write_file(folder .. "spiece.model", sentencepiece_model())
  write_json(folder .. "special_tokens_map.json", special)
  special.extra_ids, special.tokenizer_class, special.clean_up_tokenization_spaces = EXTRA_IDS, "T5Tokenizer", true
  write_json(folder .. "tokenizer_config.json", special)
end

-- ---- the two layouts -----------------------------------------------------------------------------------------------------

local VERSION = "0.35.0"

local TRANSFORMER_CONFIG = {
  _class_name = "WanTransformer3DModel", _diffusers_version = VERSION, patch_size = { 1, 2, 2 }, num_attention_heads = HEADS,
  attention_head_dim = DIM // HEADS, in_channels = Z, out_channels = Z, text_dim = TEXT_DIM, freq_dim = FREQ, ffn_dim = FFN,
  num_layers = LAYERS, cross_attn_norm = true, qk_norm = "rms_norm_across_heads", eps = 1e-6, image_dim = NULL,
  added_kv_proj_dim = NULL, rope_max_seq_len = 1024, pos_embed_seq_len = NULL,
}
local TRANSFORMER_CONFIG_ORIGINAL = {
  _class_name = "WanModel", _diffusers_version = VERSION, dim = DIM, eps = 1e-6, ffn_dim = FFN, freq_dim = FREQ, in_dim = Z,
  model_type = "t2v", num_heads = HEADS, num_layers = LAYERS, out_dim = Z, text_len = 512,
}
local TEXT_CONFIG = {
  architectures = { "UMT5EncoderModel" }, d_ff = TEXT_FFN, d_kv = TEXT_INNER // TEXT_HEADS, d_model = TEXT_DIM,
  decoder_start_token_id = 0, dense_act_fn = "gelu_new", dropout_rate = 0.1, eos_token_id = 1, feed_forward_proj = "gated-gelu",
  is_encoder_decoder = true, is_gated_act = true, layer_norm_epsilon = 1e-6, model_type = "umt5", num_decoder_layers = TEXT_LAYERS,
  num_heads = TEXT_HEADS, num_layers = TEXT_LAYERS, pad_token_id = 0, relative_attention_max_distance = 128,
  relative_attention_num_buckets = 32, scalable_attention = true, tie_word_embeddings = false, tokenizer_class = "T5Tokenizer",
  torch_dtype = "bfloat16", vocab_size = TEXT_ROWS,
}
local VAE_CONFIG = {
  _class_name = "AutoencoderKLWan", _diffusers_version = VERSION, base_dim = VAE_BASE, dim_mult = { 1, 2, 4, 4 },
  dropout = 0, num_res_blocks = 2, temperal_downsample = { false, true, true }, z_dim = Z,
  latents_mean = { -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921 },
  latents_std = { 2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160 },
}
local SCHEDULER_CONFIG = {
  _class_name = "UniPCMultistepScheduler", _diffusers_version = VERSION, beta_end = 0.02, beta_schedule = "linear", beta_start = 0.0001,
  final_sigmas_type = "zero", flow_shift = 3.0, lower_order_final = true, num_train_timesteps = 1000, predict_x0 = true,
  prediction_type = "flow_prediction", solver_order = 2, solver_type = "bh2", timestep_spacing = "linspace", use_flow_sigmas = true,
}
local MODEL_INDEX = {
  _class_name = "WanPipeline", _diffusers_version = VERSION, boundary_ratio = 0.875, expand_timesteps = false,
  scheduler = { "diffusers", "UniPCMultistepScheduler" }, text_encoder = { "transformers", "UMT5EncoderModel" },
  tokenizer = { "transformers", "T5TokenizerFast" }, transformer = { "diffusers", "WanTransformer3DModel" },
  transformer_2 = { "diffusers", "WanTransformer3DModel" }, vae = { "diffusers", "AutoencoderKLWan" },
}

local layouts = {}

layouts.diffusers = {
  folders = { "scheduler", "text_encoder", "tokenizer", "transformer", "transformer_2", "vae" },
  write = function(root)
    local stem = "diffusion_pytorch_model"
    write_json(root .. "model_index.json", MODEL_INDEX)
    write_json(root .. "scheduler/scheduler_config.json", SCHEDULER_CONFIG)
    write_tokenizer(root .. "tokenizer/")
    write_json(root .. "text_encoder/config.json", TEXT_CONFIG)
    write_sharded(root .. "text_encoder/", "model", materialize(text_encoder(), "text", "BF16"), 2)
    write_json(root .. "transformer/config.json", TRANSFORMER_CONFIG)
    write_sharded(root .. "transformer/", stem, materialize(transformer(), "high", "F32"), 3)
    write_json(root .. "transformer_2/config.json", TRANSFORMER_CONFIG)
    write_sharded(root .. "transformer_2/", stem, materialize(transformer(), "low", "F32"), 1)
    write_json(root .. "vae/config.json", VAE_CONFIG)
    write_sharded(root .. "vae/", stem, materialize(vae(), "vae", "F32"), 1)
  end,
}

layouts.original = {
  folders = { "high_noise_model", "low_noise_model", "google/umt5-xxl" },
  write = function(root)
    for component, folder in pairs { high = root .. "high_noise_model/", low = root .. "low_noise_model/" } do
      write_json(folder .. "config.json", TRANSFORMER_CONFIG_ORIGINAL)
      write_sharded(folder, "diffusion_pytorch_model", materialize(transformer(), component, "F32", TRANSFORMER_ORIGINAL), 2)
    end
    write_tokenizer(root .. "google/umt5-xxl/")
    write_safetensors(root .. "models_t5_umt5-xxl-enc-bf16.safetensors", materialize(text_encoder(), "text", "BF16", TEXT_ORIGINAL))
    write_safetensors(root .. "Wan2.1_VAE.safetensors", materialize(vae(), "vae", "F32", VAE_ORIGINAL))
  end,
}

-- ---- command line ----------------------------------------------------------------------------------------------------------

local function fail(...)
  io.stderr:write("tiny_checkpoint: ", ...)
  io.stderr:write("\n")
  os.exit(1)
end

local function quote(path)
  return "'" .. path:gsub("'", "'\\''") .. "'"
end

local function main()
  local out, layout = nil, "diffusers"
  local i = 1
  while arg[i] do
    if arg[i] == "--help" or arg[i] == "-h" then
      print(USAGE)
      return
    elseif arg[i] == "--layout" then
      i = i + 1
      layout = arg[i]
    elseif arg[i]:sub(1, 1) == "-" or out then
      fail("unexpected argument ", arg[i], "\n", USAGE)
    else
      out = arg[i]:gsub("(.)/+$", "%1")
    end
    i = i + 1
  end
  if not out or not layouts[layout or ""] then fail(USAGE) end
  if os.rename(out, out) then fail(out, ": already exists") end

  local scratch = os.tmpname() -- only for a name that nobody else has
  os.remove(scratch)
  local partial = out .. "." .. scratch:match("[^/_]+$")
  local folders = {}
  for k, folder in ipairs(layouts[layout].folders) do
    folders[k] = quote(partial .. "/" .. folder)
  end
  if not os.execute("mkdir -p -- " .. table.concat(folders, " ") .. " 2>/dev/null") then fail(partial, ": cannot make this folder") end
  local ok, message = pcall(layouts[layout].write, partial .. "/")
  if ok then ok, message = os.rename(partial, out) end
  if not ok then
    os.execute("rm -rf -- " .. quote(partial))
    fail(out, ": ", tostring(message))
  end
end

main()

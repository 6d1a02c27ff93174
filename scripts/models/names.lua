-- The one name map: canonical names are those of the original checkpoint; Diffusers' are derived by rule.
local names = {}

local function map(name, rules)
  for _, rule in ipairs(rules) do
    local mapped, n = name:gsub(rule[1], rule[2])
    if n > 0 then return mapped end
  end
  return name
end

local dit_rules = {
  { "^text_embedding%.0", "condition_embedder.text_embedder.linear_1" },
  { "^text_embedding%.2", "condition_embedder.text_embedder.linear_2" },
  { "^time_embedding%.0", "condition_embedder.time_embedder.linear_1" },
  { "^time_embedding%.2", "condition_embedder.time_embedder.linear_2" },
  { "^time_projection%.1", "condition_embedder.time_proj" },
  { "^head%.head", "proj_out" },
  { "^head%.modulation", "scale_shift_table" },
  { "^(blocks%.%d+)%.modulation", "%1.scale_shift_table" },
  { "^(blocks%.%d+)%.self_attn%.([qkv])%.", "%1.attn1.to_%2." },
  { "^(blocks%.%d+)%.self_attn%.o%.", "%1.attn1.to_out.0." },
  { "^(blocks%.%d+)%.self_attn%.", "%1.attn1." },
  { "^(blocks%.%d+)%.cross_attn%.([qkv])%.", "%1.attn2.to_%2." },
  { "^(blocks%.%d+)%.cross_attn%.o%.", "%1.attn2.to_out.0." },
  { "^(blocks%.%d+)%.cross_attn%.", "%1.attn2." },
  { "^(blocks%.%d+)%.norm3%.", "%1.norm2." },
  { "^(blocks%.%d+)%.ffn%.0%.", "%1.ffn.net.0.proj." },
  { "^(blocks%.%d+)%.ffn%.2%.", "%1.ffn.net.2." },
}

local t5_rules = {
  { "^token_embedding%.", "shared." },
  { "^norm%.weight", "encoder.final_layer_norm.weight" },
  { "^blocks%.(%d+)%.attn%.", "encoder.block.%1.layer.0.SelfAttention." },
  { "^blocks%.(%d+)%.pos_embedding%.embedding%.", "encoder.block.%1.layer.0.SelfAttention.relative_attention_bias." },
  { "^blocks%.(%d+)%.norm1%.", "encoder.block.%1.layer.0.layer_norm." },
  { "^blocks%.(%d+)%.ffn%.gate%.0%.", "encoder.block.%1.layer.1.DenseReluDense.wi_0." },
  { "^blocks%.(%d+)%.ffn%.fc1%.", "encoder.block.%1.layer.1.DenseReluDense.wi_1." },
  { "^blocks%.(%d+)%.ffn%.fc2%.", "encoder.block.%1.layer.1.DenseReluDense.wo." },
  { "^blocks%.(%d+)%.norm2%.", "encoder.block.%1.layer.1.layer_norm." },
}

-- decoder.upsamples.N counts residual blocks and resamplers of all four levels in one list: 3 + 1, 3 + 1, 3 + 1, 3.
local function vae_block(index, rest)
  local level, place = index // 4, index % 4
  local base = ("decoder.up_blocks.%d."):format(level)
  if place == 3 then return base .. "upsamplers.0." .. rest end
  return base .. ("resnets.%d."):format(place) .. rest
end

local residual = {
  ["residual.0."] = "norm1.", ["residual.2."] = "conv1.", ["residual.3."] = "norm2.", ["residual.6."] = "conv2.",
  ["shortcut."] = "conv_shortcut.",
}

local function vae_name(name)
  for original, mapped in pairs(residual) do
    local at = name:find(original, 1, true)
    if at then
      name = name:sub(1, at - 1) .. mapped .. name:sub(at + #original)
      break
    end
  end
  local index, rest = name:match("^decoder%.upsamples%.(%d+)%.(.*)$")
  if index then return vae_block(math.tointeger(index), rest) end
  return map(name, {
    { "^conv2%.", "post_quant_conv." },
    { "^decoder%.conv1%.", "decoder.conv_in." },
    { "^decoder%.middle%.0%.", "decoder.mid_block.resnets.0." },
    { "^decoder%.middle%.1%.", "decoder.mid_block.attentions.0." },
    { "^decoder%.middle%.2%.", "decoder.mid_block.resnets.1." },
    { "^decoder%.head%.0%.", "decoder.norm_out." },
    { "^decoder%.head%.2%.", "decoder.conv_out." },
  })
end

-- Returns name -> stored name for the checkpoint at hand. probe: a canonical name every checkpoint of the model has.
local function chooser(probe, to_diffusers)
  if has_weight(to_diffusers(probe)) and not has_weight(probe) then return to_diffusers end
  return function(name) return name end
end

function names.dit() return chooser("head.modulation", function(n) return map(n, dit_rules) end) end
function names.t5() return chooser("token_embedding.weight", function(n) return map(n, t5_rules) end) end
function names.vae() return chooser("conv2.weight", vae_name) end

return names

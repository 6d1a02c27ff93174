-- umT5 encoder: token ids in, hidden states out, rows beyond the prompt's length zero.
--
-- params: config (text_encoder's config.json; the original layout has none: sizes are then read off the weights, or are umT5-xxl's),
-- tokens (padded length), policy.
local nn, names, policy = include("nn.lua"), include("names.lua").t5(), include("policy.lua")

local config = params.config or {}
local function extent(name, axis) return nn.extent(names(name .. ".weight"), axis) end
local function count_layers()
  local n = 0
  while extent(("blocks.%d.norm1"):format(n), 1) do n = n + 1 end
  return n > 0 and n or nil
end
local dim = config.d_model or extent("token_embedding", 2) or 4096
local heads = config.num_heads or extent("blocks.0.pos_embedding.embedding", 2) or 64
local head_dim = config.d_kv or (extent("blocks.0.attn.q", 1) or heads * 64) // heads
local ffn = config.d_ff or extent("blocks.0.ffn.fc1", 1) or 10240
local layers = params.layers or config.num_layers or count_layers() or 24
local vocab = config.vocab_size or extent("token_embedding", 1) or 256384
local buckets = config.relative_attention_num_buckets or 32
local furthest = config.relative_attention_max_distance or 128
local eps = config.layer_norm_epsilon or 1e-6
local tokens = params.tokens or 512
local inner = heads * head_dim

local function prefix(name) return (names(name .. ".weight"):gsub("%.weight$", "")) end
local function linear(x, list, out)
  local prefixes = {}
  for i, name in ipairs(list) do prefixes[i] = prefix(name) end
  return nn.linear(x, prefixes, out, policy.linear, { bias = false, tf32 = policy.tf32 })
end
local function gain(name) return nn.vector(names(name), { dim }) end

-- Bucket of each relative position key - query from -(tokens-1) to tokens-1: half of them for each direction, exact up to a
-- quarter, logarithmic beyond.
local function position_buckets()
  local ids, half = {}, buckets // 2
  local exact = half // 2
  for relative = -(tokens - 1), tokens - 1 do
    local n, base = math.abs(relative), relative > 0 and half or 0
    if n >= exact then
      n = math.min(half - 1, exact + math.floor(math.log(n / exact) / math.log(furthest / exact) * (half - exact)))
    end
    ids[#ids + 1] = base + n
  end
  return const(ids, { 2 * tokens - 1 }, "i32")
end
local positions = position_buckets()

local ids = input({ name = "ids", shape = { tokens }, dtype = "i32", rate = "prompt" })
local length = input({ name = "length", shape = { 1 }, dtype = "i32", rate = "prompt" })
local mask = input({ name = "mask", shape = { tokens, 1 }, rate = "prompt" }) -- 1 for the prompt's rows, else 0

local function block(x, i)
  local base = ("blocks.%d."):format(i)
  local h = nn.rms_norm(x, gain(base .. "norm1.weight"), eps):cast(policy.linear)
  local qkv = linear(h, { base .. "attn.q", base .. "attn.k", base .. "attn.v" }, { inner, inner, inner }):cast(policy.linear)
  local function part(j) return qkv:slice(2, j * inner, inner):reshape({ tokens, heads, head_dim }) end
  local table = nn.weight(names(base .. "pos_embedding.embedding.weight"), { buckets, heads }):cast("f32")
  local bias = gather(table, positions):permute({ 2, 1 })
  local y = attention(part(0), part(1), part(2), { scale = 1.0, bias = bias, kv_len = length })
  y = linear(y:cast(policy.linear):reshape({ tokens, inner }), { base .. "attn.o" }, { dim })
  x = (x + y):cast(policy.residual)
  h = nn.rms_norm(x, gain(base .. "norm2.weight"), eps):cast(policy.linear)
  local both = linear(h, { base .. "ffn.gate.0", base .. "ffn.fc1" }, { ffn, ffn }):cast(policy.linear)
  y = linear((both:slice(2, 0, ffn):gelu() * both:slice(2, ffn, ffn)):cast(policy.linear), { base .. "ffn.fc2" }, { dim })
  return (x + y):cast(policy.residual)
end

local x = gather(nn.weight(names("token_embedding.weight"), { vocab, dim }), ids):cast(policy.residual)
for i = 0, layers - 1 do x = block(x, i) end
output("hidden", nn.rms_norm(x, gain("norm.weight"), eps) * mask)

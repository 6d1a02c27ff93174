-- Layers shared by the models, written in the graph API. `policy` says which dtype each kind of matmul reads:
-- policy.linear, policy.attention, policy.conv ("bf16", "f16" or "f32"), policy.tf32 (allow TF32 where operands are f32).
local nn = {}

-- One node per weight name, so that every use shares one upload.
local weights = {}
function nn.weight(name, shape)
  local w = weights[name]
  if not w then
    w = weight(name, shape)
    if w.dtype == "i32" then error(("weight '%s' holds whole numbers; F32, BF16 or F16 is needed"):format(name)) end
    weights[name] = w
  end
  return w
end

-- Extent of a stored weight's axis, nil if the checkpoint has no such weight: for sizes that a config does not give.
function nn.extent(name, axis)
  local shape = has_weight(name) and weight_shape(name)
  return shape and shape[axis]
end

function nn.layer_norm(x, eps)
  local centred = x - x:mean()
  return centred * ((centred * centred):mean() + eps):rsqrt()
end

-- x / rms(x) * gain over the last axis.
function nn.rms_norm(x, gain, eps)
  return x * ((x * x):mean() + eps):rsqrt() * gain
end

-- Several weights (and biases) stacked along their output axis, cast once at load rate. names: list of prefixes; out: list of widths.
local function stacked(names, out, inner, dtype, bias)
  local ws, bs = {}, {}
  for i, name in ipairs(names) do
    ws[i] = nn.weight(name .. ".weight", { out[i], inner }):cast(dtype)
    if bias then bs[i] = nn.weight(name .. ".bias", { out[i] }):cast(dtype) end
  end
  if #names == 1 then return ws[1], bs[1] end
  return concat(ws, 1), bias and concat(bs, 1) or nil
end

-- x [tokens, inner] -> f32 [tokens, sum(out)] in the given operand dtype. opts: bias (default true), tf32.
function nn.linear(x, names, out, dtype, opts)
  opts = opts or {}
  if type(names) == "string" then names, out = { names }, { out } end
  local w, b = stacked(names, out, x.shape[x.rank], dtype, opts.bias ~= false)
  local y = matmul(x:cast(dtype), w, { tf32 = opts.tf32 }):label(names[1] .. (#names > 1 and " ..." or ""))
  if b then y = y + b end
  return y
end

-- {C, ...} weights that may be stored with extra axes of extent 1 (gamma [C,1,1,1]) as [C].
function nn.vector(name, shape)
  local count = 1
  for _, d in ipairs(shape) do count = count * d end
  return nn.weight(name, shape):cast("f32"):reshape({ count })
end

return nn

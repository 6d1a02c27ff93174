-- Precision policies. params.policy is a name below or a table of overrides: {base = "exact", head = "bf16"}.
--   linear, conv              operands of matmuls and convolutions, and of the attention of the text encoder and the decoder
--   attention                 operands of the transformer's attention (accumulation is always f32)
--   residual                  how the stream between layers is stored
--   head                      time embedding and output head
--   tf32                      f32 operands may use TF32 tensor cores
local policies = {
  -- As the original pipeline: 16-bit matmuls and attention, f32 residual stream, modulation and head. Attention's weights lie between
  -- 0 and 1, its queries and keys are normalized: f16 holds them with three bits more than bf16, as fast, for half the error.
  exact = { linear = "bf16", attention = "f16", conv = "bf16", residual = "f32", head = "f32", tf32 = false },
  fp32 = { linear = "f32", attention = "f32", conv = "f32", residual = "f32", head = "f32", tf32 = false },
  tf32 = { linear = "f32", attention = "f32", conv = "f32", residual = "f32", head = "f32", tf32 = true },
}

local asked = params.policy or "exact"
local overrides = {}
if type(asked) == "table" then
  overrides, asked = asked, asked.base or "exact"
end
local base = policies[asked]
if not base then error("policy '" .. tostring(asked) .. "' is unknown; use exact, fp32 or tf32") end
local policy = {}
for k, v in pairs(base) do policy[k] = v end
for k, v in pairs(overrides) do
  if k ~= "base" then
    if policy[k] == nil then error("policy has no field '" .. tostring(k) .. "'") end
    policy[k] = v
  end
end
return policy

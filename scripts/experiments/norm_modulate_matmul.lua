-- Norm + modulate + matmul, the pattern before every linear layer of a diffusion transformer, and its realisations:
--
--   row kernel and matmul   h = norm(x) (1 + s) + b is written to memory as the matmul's operand, by one pass over x
--   folded modulation       statistics of the rows only; s and b move into W' = W diag(1 + s) and into two vectors, and the matmul's
--                           epilogue puts right what the raw x did: y = rstd (x W'^T - mean rowsum(W')) + b W^T
--   prologue                statistics of the rows only; the matmul makes h from x on the way to shared memory
--
-- All are made from the graph below, none is written by hand. See which there are, what the cost model thinks of them, and what the
-- kernels look like; then time them on the card:
--
--   moonkiln emit scripts/experiments/norm_modulate_matmul.lua --stage groups
--   moonkiln emit scripts/experiments/norm_modulate_matmul.lua --stage plan --set tokens=75600 --set dim=5120 --set out=15360
--   moonkiln emit scripts/experiments/norm_modulate_matmul.lua --stage cuda --all --kernel prologue
--   moonkiln bench scripts/experiments/norm_modulate_matmul.lua --variants
--   moonkiln bench scripts/experiments/norm_modulate_matmul.lua --sweep x=f32,bf16 --sweep tokens=256..65536
--
-- What to expect. The row kernel costs a write and a read of h; every other realisation must earn that back. Folding reads and
-- writes W once a step, so it needs many more rows than W has; it needs x in the operand's own type, for a copy of x costs what h
-- costs (the copy is then centred, so nothing cancels). The prologue computes h once for every column of tiles of the result, beside
-- the tensor cores, and reads x from L2 as often.
--
-- Errors against f32 (96 outputs of 512 channels, 77 rows, modulation of order one; tests/unit/test_realise_host.c measures them):
--
--   x      mean of x / deviation   row kernel   folded    prologue
--   f32    0 and 100               2.3e-3       2.5e-3    2.3e-3      folded: copies x - mean
--   bf16   0 and 100               2.3e-3       2.1e-3    2.3e-3      folded: x as it is; the mean is subtracted from the product
--
-- case 8e-3 {"tokens": 256, "dim": 512, "out": 384}
-- case 8e-3 {"tokens": 333, "dim": 264, "out": 520, "x": "bf16", "norm": "rms"}
-- case 8e-3 {"tokens": 77, "dim": 136, "out": 72, "x": "bf16", "modulation": "none"}
-- case 8e-3 {"tokens": 1030, "dim": 512, "out": 256, "modulation": "weights", "residual": true}
-- case 2e-5 {"tokens": 77, "dim": 136, "out": 72, "policy": "f32"}
--
-- params: tokens (default 4096), dim (1024), out (3072), x ("f32" or "bf16": dtype of the stream), policy ("bf16", "f16" or "f32":
-- dtype of the matmul's operands), norm ("layer" or "rms"), modulation ("step": from a timestep, "weights": gains and shifts of the
-- checkpoint, or "none"), residual (true: the stream is a sum that the next layer needs too).
local tokens, dim, out = params.tokens or 4096, params.dim or 1024, params.out or 3072
local dtype = params.policy or "bf16"
local modulation = params.modulation or "step"

local x = input({ name = "x", shape = { tokens, dim }, dtype = params.x or "f32" })
if params.residual then
  x = x + input({ name = "branch", shape = { tokens, dim }, dtype = dtype }) * input({ name = "gate", shape = { dim } })
  output("stream", x)
end

local h = x
if params.norm ~= "rms" then h = x - x:mean() end
h = h * ((h * h):mean() + 1e-6):rsqrt()
if modulation == "step" then
  local m = weight("modulation", { 2, dim }) + input({ name = "time", shape = { 2, dim } })
  h = h * (m:slice(1, 1, 1) + 1) + m:slice(1, 0, 1)
elseif modulation == "weights" then
  h = h * weight("norm.weight", { dim }) + weight("norm.bias", { dim })
end

local y = matmul(h:cast(dtype), weight("linear.weight", { out, dim }):cast(dtype)) + weight("linear.bias", { out })
output("y", y:gelu():cast(dtype))

-- What can stand behind a matmul without a pass of its own: a gallery of epilogues, picked by params.epilogue.
--
-- A matmul's template ends by handing finished f32 values to epilogue<V>(), a function that is made from whatever elementwise code
-- follows in the graph, and stores. Nobody writes it: each entry below is ordinary arithmetic.
--
--   none       y                                     the library can do it, and a bias
--   bias       y + b
--   gelu       gelu(y + b) in bf16                   stores half as much
--   residual   stream + y + b                        reads a matrix as large as y
--   gate       stream + (y + b) * g                  the branch of a diffusion transformer; g = gate + modulation, a row kernel
--   rms        y / rms(y) * w in bf16                needs the whole row: stays a row program that reads y
--   scaled     (y * s * 16) in f16                   a cast with a scale for each channel, as for narrow types
--   rowscaled  y * (448 / max |row|) in f16          a cast with a scale for each row, which is an output, too; a row program
--
-- Run:
--
--   moonkiln emit scripts/experiments/epilogue_gallery.lua --set epilogue=gate --stage groups
--   moonkiln emit scripts/experiments/epilogue_gallery.lua --set epilogue=gate --stage cuda --all --kernel matmul_mma
--   moonkiln bench scripts/experiments/epilogue_gallery.lua --set epilogue=gelu --variants
--   moonkiln bench scripts/experiments/epilogue_gallery.lua --sweep epilogue=none,bias,gelu,residual,gate,rms,scaled,rowscaled
--   moonkiln bench scripts/experiments/epilogue_gallery.lua --sweep epilogue=none,gate,rms --sweep tokens=256..65536
--
-- Look at:
--  * `void epilogue` in the CUDA text: loads of eight values at a time, the arithmetic, one store. Its pointers and strides are
--    fields of struct Params.
--  * "cublaslt, then a row program" among the candidates: two launches and a pass over y, for the library's inner loop. The pass
--    weighs less the larger dim is against 1. Measuring decides.
--  * Registers of a variant with and without its epilogue. The accumulators are still live there.
--  * rms and rowscaled: two groups. A matmul's norm spans more columns than a tile, so the row is read again. Behind a convolution
--    over few channels it is fused (epilogue_row in templates/README.md).
--
-- Try:
--  * An epilogue of your own: a line in the table below. Anything elementwise, casts, broadcasts and slices of other inputs go
--    in; what reads y twice over a row does not.
--  * Two outputs of one product (`output` twice), or a product that something else reads, too: see what is stored.
--  * --set policy=f32, where the library has no GELU and no tensor cores help: who wins?
--  * --watch in place of --variants, and edit the arithmetic with the table beside you.
--
-- case 2e-5 {"policy": "f32", "epilogue": "none"}
-- case 2e-5 {"policy": "f32", "epilogue": "bias", "tokens": 77, "out": 72}
-- case 1e-2 {"epilogue": "gelu"}
-- case 1e-2 {"epilogue": "residual", "tokens": 77}
-- case 1e-2 {"epilogue": "gate"}
-- case 1e-2 {"epilogue": "gate", "tokens": 3, "dim": 264, "out": 136}
-- case 1e-2 {"epilogue": "rms"}
-- case 1e-2 {"epilogue": "scaled"}
-- case 1e-2 {"epilogue": "rowscaled"}
--
-- params: epilogue (default "gate"), tokens (256), dim (512), out (384), policy ("bf16", "f16" or "f32").
local tokens, inner, width = params.tokens or 256, params.dim or 512, params.out or 384
local dtype = params.policy or "bf16"

local x = input({ name = "x", shape = { tokens, inner } }):cast(dtype)
local y = matmul(x, weight("linear.weight", { width, inner }):cast(dtype))

local function vector(name) return weight(name, { width }) end
local function stream() return input({ name = "stream", shape = { tokens, width } }) end

local epilogues = {
  none = function() return y end,
  bias = function() return y + vector("linear.bias") end,
  gelu = function() return (y + vector("linear.bias")):gelu():cast(dtype) end,
  residual = function() return stream() + y + vector("linear.bias") end,
  gate = function()
    local gate = input({ name = "gate", shape = { width } }) + vector("modulation")
    return stream() + (y + vector("linear.bias")) * gate
  end,
  rms = function() return (y * ((y * y):mean() + 1e-6):rsqrt() * vector("norm.weight")):cast(dtype) end,
  scaled = function() return (y * vector("scale.weight") * 16):cast("f16") end,
  rowscaled = function()
    local largest = maximum(y:abs():amax(), 1e-20)
    output("scale", largest * (1 / 448))
    return (y * (largest:recip() * 448)):cast("f16")
  end,
}
local make = epilogues[params.epilogue or "gate"]
if not make then error("params.epilogue: none, bias, gelu, residual, gate, rms, scaled or rowscaled") end
output("y", make())

-- Patchify, a matmul, unpatchify: movement on both sides of a matmul, K small, N small.
-- case 2e-5 {"f": 3, "h": 8, "w": 10, "dim": 64}
-- case 6e-3 {"f": 2, "h": 6, "w": 14, "dim": 128, "dtype": "bf16"}
local f, h, w, dim = params.f, params.h, params.w, params.dim
local c = 16
local h2, w2 = h // 2, w // 2
local function as(v) return params.dtype and v:cast(params.dtype) or v end
local latent = input{name = "latent", shape = {c, f, h, w}}
local tokens = latent:reshape{c, f, h2, 2, w2, 2}:permute{2, 3, 5, 1, 4, 6}:reshape{f * h2 * w2, c * 4}
local x = matmul(as(tokens), as(weight("embed.weight", {dim, c * 4}))) + weight("embed.bias", {dim})
output("tokens", x)
local y = matmul(as(x), as(weight("head.weight", {4 * c, dim}))) + weight("head.bias", {4 * c})
output("latent_out", y:reshape{f, h2, w2, 2, 2, c}:permute{6, 1, 2, 4, 3, 5}:reshape{c, f, h, w})

-- A two-branch guided block in small: sharing between branches, prompt-rate keys and values, the guidance sum, a sampler update.
-- case 2e-5 {"tokens": 45, "dim": 128, "heads": 2}
-- case 2e-2 {"tokens": 150, "dim": 256, "heads": 4, "dtype": "bf16"}
-- entries step step
local s, c, h = params.tokens, params.dim, params.heads
local d = c // h
local function operand(v) return params.dtype and v:cast(params.dtype) or v end
local function linear(x, name, n, k)
  return matmul(operand(x), operand(weight(name .. ".weight", {n, k}))) + weight(name .. ".bias", {n})
end
local function layer_norm(v)
  local m = v - v:mean()
  return m * ((m * m):mean() + 1e-6):rsqrt()
end
local function heads(v, n) return operand(v):reshape{n, h, d} end
local noise = state{name = "latent", shape = {s, c}}
local start = input{name = "x", shape = {s, c}}
local x = start + noise
local time = input{name = "time", shape = {1, 64}}
local mod = linear(linear(time, "time.0", c, 64):silu(), "time.1", 6 * c, c) + weight("modulation", {1, 6 * c})
local function m(i) return mod:slice(-1, i * c, c) end
local function branch(name)
  local text = input{name = name, shape = {20, c}, rate = "prompt"}
  local k, v = heads(linear(text, "cross.k", c, c), 20), heads(linear(text, "cross.v", c, c), 20)
  local n = layer_norm(x) * (m(1) + 1) + m(0)
  local function proj(p) return heads(linear(n, "self." .. p, c, c), s) end
  local a = attention(proj"q", proj"k", proj"v", {scale = d ^ -0.5}):reshape{s, c}
  local y = x + linear(a, "self.o", c, c) * m(2)
  local q = heads(linear(layer_norm(y), "cross.q", c, c), s)
  y = y + linear(attention(q, k, v, {scale = d ^ -0.5}):reshape{s, c}, "cross.o", c, c)
  local f = linear(linear(layer_norm(y) * (m(4) + 1) + m(3), "ffn.0", 4 * c, c):gelu(), "ffn.2", c, 4 * c)
  return y + f * m(5)
end
local cond, uncond = branch("positive"), branch("negative")
local guided = uncond + (cond - uncond) * 4.0
output("guided", guided)
update(noise, noise + guided * -0.1)

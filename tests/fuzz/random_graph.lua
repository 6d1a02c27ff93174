-- Random valid graphs for property tests, as scripts of the front end. A seed gives the same script everywhere.
--   lua5.4 tests/fuzz/random_graph.lua SEED    prints one
--
-- Shapes are small and ragged; what is built leans to what fusion is made for: norms with modulation, gates with residuals, joined
-- projections, slices into attention, convolutions between norms. Magnitudes are followed roughly, so that no value overflows and no
-- function is asked where it is steep. Nor is a mean taken away from what may be the same all along a row: what is left is rounding
-- alone, and a norm behind it makes that as large as anything.
local M = {}

local LENGTHS = { 1, 2, 7, 8, 15, 33, 64, 100 }
local WIDTHS = { 1, 7, 8, 16, 24, 32, 51, 64, 96, 130 }
local MOST = 40000 -- elements of one tensor
local TALL = 64 -- a magnitude above this is brought down before it goes on

local G = {}
G.__index = G

-- ---- chance

local function splitmix(seed)
  local x = seed * 0x2545f4914f6cdd1d
  return function(n)
    x = x + 0x9e3779b97f4a7c15
    local z = (x ~ (x >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ~ (z >> 27)) * 0x94d049bb133111eb
    return ((z ~ (z >> 31)) >> 1) % n + 1
  end
end

function G:chance(percent) return self.random(100) <= percent end
function G:one_of(list) return list[self.random(#list)] end

-- ---- values

local function count(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

local function list(shape) return "{" .. table.concat(shape, ", ") .. "}" end

local function with_last(shape, extent)
  local out = { table.unpack(shape) }
  out[#out] = extent
  return out
end

local function same(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- Whether one of the values has others along every row of a result of this shape; one that has a value a row gives them all the same.
local function has_varied(needs, shape)
  for _, n in ipairs(needs) do
    local spread = n.shape[#n.shape] == 1 and count(n.shape) < count(shape)
    if not n.repeats and not spread then return true end
  end
  return false
end

-- v, whose rows may be one value over and over, here or after some movement.
local function repeating(v)
  v.repeats = true
  return v
end

-- A new line "local vN = text", where $1, $2, ... stand for the values of needs. magnitude: about the largest that occurs.
function G:value(text, needs, shape, dtype, magnitude)
  local v = { at = #self.lines + 1, shape = shape, dtype = dtype, magnitude = magnitude, arithmetic = #needs > 0 and dtype == "f32" }
  v.name = "v" .. v.at
  v.needs = needs
  v.repeats = #needs > 0 and not has_varied(needs, shape)
  for _, n in ipairs(needs) do n.used = true end
  v.text = text:gsub("%$(%d)", function(i) return needs[tonumber(i)].name end)
  self.lines[v.at] = v
  return v
end

local function name_of(g, kind) return kind .. #g.lines + 1 end

function G:input(shape, dtype, rate)
  dtype, rate = dtype or self:one_of { "f32", "f32", "f32", "bf16", "f16" }, rate or self:one_of { "step", "step", "prompt" }
  local text = ('input{name = "%s", shape = %s, dtype = "%s", rate = "%s"}'):format(name_of(self, "x"), list(shape), dtype, rate)
  return self:value(text, {}, shape, dtype, 4)
end

function G:ids(shape, low, high, rate)
  local name = name_of(self, "ids")
  local text = ('input{name = "%s", shape = %s, dtype = "i32", rate = "%s"}'):format(name, list(shape), rate or "step")
  local v = self:value(text, {}, shape, "i32", 1)
  v.range = ("-- range %s %d %d"):format(name, low, high)
  return v
end

function G:weight(shape, suffix)
  return self:value(('weight("%s.%s", %s)'):format(name_of(self, "w"), suffix or "weight", list(shape)), {}, shape, "f32", 2)
end

function G:state(shape, dtype)
  local v = self:value(('state{name = "%s", shape = %s, dtype = "%s"}'):format(name_of(self, "s"), list(shape), dtype), {}, shape,
    dtype, 8)
  self.states[#self.states + 1] = v
  return repeating(v) -- zeros at first
end

function G:f32(text, needs, shape, magnitude) return self:value(text, needs, shape, "f32", magnitude) end

local function is_float(v) return v.dtype ~= "i32" end

-- A value that fits, a recent one most often; nil when there is none.
function G:pick(fits)
  local last
  for i = #self.lines, 1, -1 do
    local v = self.lines[i]
    if is_float(v) and fits(v) then
      last = v
      if self:chance(55) then break end
    end
  end
  return last
end

function G:settled(v, most)
  if v.magnitude <= (most or TALL) then return v end
  return self:f32(("($1 * %g):tanh()"):format(2 / v.magnitude), { v }, v.shape, 1)
end

function G:any() return self:settled(self:pick(function() return true end) or self:tokens()) end

-- [tokens, channels]
function G:tokens()
  local v = not self:chance(10) and self:pick(function(v) return #v.shape == 2 and v.shape[1] * v.shape[2] > 1 end)
  return self:settled(v or self:input { self:chance(60) and self.length or self:one_of(LENGTHS),
    self:chance(60) and self.width or self:one_of(WIDTHS) })
end

function G:as(v, dtype)
  if v.dtype == dtype then return v end
  return self:value(('$1:cast"%s"'):format(dtype), { v }, v.shape, dtype, v.magnitude)
end

-- Something that broadcasts with v.
function G:partner(v)
  local shape, last = v.shape, v.shape[#v.shape]
  local what = self.random(7)
  if what <= 2 then
    local other = self:pick(function(o) return o ~= v and same(o.shape, shape) end)
    if other then return self:settled(other) end
  end
  if what <= 3 then return self:input(shape) end
  if what == 4 then return self:weight { last } end
  if what == 5 then return self:input { 1, last } end
  if what == 6 and #shape > 1 then return self:input(with_last(shape, 1)) end
  return self:weight({ last }, "bias")
end

-- ---- layers

local UNARY = { -- text, magnitude the argument may have, magnitude of the result
  { "$1:neg()", TALL, TALL }, { "$1:abs()", TALL, TALL }, { "$1:exp()", 4, 60 }, { "($1:abs() + 0.5):log()", TALL, 5 },
  { "($1:abs() + 0.25):sqrt()", TALL, 8 }, { "($1:abs() + 0.5):rsqrt()", TALL, 2 }, { "($1:abs() + 0.5):recip()", TALL, 2 },
  { "$1:sin()", 8, 1 }, { "$1:cos()", 8, 1 }, { "$1:tanh()", TALL, 1 }, { "$1:sigmoid()", TALL, 1 }, { "$1:silu()", TALL, TALL },
  { "$1:gelu()", TALL, TALL },
}

function G:unary(v)
  local u = self:one_of(UNARY)
  v = self:settled(v, u[2])
  return self:f32(u[1], { v }, v.shape, math.min(u[3], math.max(v.magnitude, u[3] < TALL and u[3] or 0)))
end

local function broadcast(a, b)
  local out = {}
  for i = 1, math.max(#a, #b) do
    local x, y = a[#a - i + 1] or 1, b[#b - i + 1] or 1
    table.insert(out, 1, x == 1 and y or x)
  end
  return out
end

function G:binary(v)
  if self:chance(20) then
    local number = self:one_of { "0.5", "2", "-1.25", "1", "0", "3" }
    return self:f32(self:one_of { "$1 * " .. number, number .. " - $1", "$1 + " .. number }, { v }, v.shape, v.magnitude * 3 + 3)
  end
  local o = self:partner(v)
  local shape = broadcast(v.shape, o.shape)
  local text = self:one_of { "$1 + $2", "$1 - $2", "$1 * $2", "maximum($1, $2)", "minimum($1, $2)", "$1 / ($2:abs() + 0.5)" }
  local magnitude = text == "$1 * $2" and v.magnitude * o.magnitude or text:find "/" and v.magnitude * 2 or v.magnitude + o.magnitude
  return self:f32(text, self:chance(80) and { v, o } or { o, v }, shape, math.max(magnitude, 2 * o.magnitude))
end

function G:reduce(v)
  local op = self:one_of { "sum", "mean", "amax" }
  local n = v.shape[#v.shape]
  return self:f32(("$1:%s()"):format(op), { v }, with_last(v.shape, 1), op == "sum" and v.magnitude * math.sqrt(n) or v.magnitude)
end

function G:norm(v)
  local kind, c = self.random(4), v.shape[#v.shape]
  local n
  if kind == 1 and not v.repeats then
    local m = self:f32("$1 - $1:mean()", { v }, v.shape, v.magnitude)
    n = self:f32("$1 * (($1 * $1):mean() + 1e-6):rsqrt()", { m }, v.shape, 6)
  elseif kind == 2 then
    n = self:f32(("$1 / (($1 * $1):sum():sqrt() + 1e-12) * %g"):format(math.sqrt(c)), { v }, v.shape, 6)
  elseif kind == 3 and v.magnitude <= 16 then
    local e = self:f32("($1 - $1:amax()):exp()", { v }, v.shape, 1)
    return self:f32("$1 / $1:sum()", { e }, v.shape, 1)
  else
    n = self:f32("$1 * (($1 * $1):mean() + 1e-6):rsqrt()", { v }, v.shape, 6)
  end
  if self:chance(60) then n = self:f32("$1 * $2", { n, self:weight({ c }, "gamma") }, v.shape, 8) end
  return n
end

-- Scale, shift and gate: slices of one row of modulation, or tensors of their own.
function G:modulation(c)
  local row = self.rows[c]
  if not row and self:chance(60) then
    row = self:input({ 1, 6 * c }, "f32")
    if self:chance(50) then row = self:f32("$1 + $2", { row, self:weight({ 1, 6 * c }, "modulation") }, row.shape, 6) end
    self.rows[c] = row
  end
  if not row then return self:input { 1, c } end
  return self:value(("$1:slice(-1, %d, %d)"):format(c * (self.random(6) - 1), c), { row }, { 1, c }, "f32", row.magnitude)
end

function G:modulate(v)
  local c = v.shape[#v.shape]
  return self:f32("$1 * ($2 + 1) + $3", { v, self:modulation(c), self:modulation(c) }, v.shape, v.magnitude * 7 + 6)
end

function G:residual(v)
  local x = self:pick(function(o) return o ~= v and same(o.shape, v.shape) end) or self:input(v.shape)
  x = self:settled(x)
  if self:chance(70) then
    return self:f32("$1 + $2 * $3", { x, v, self:modulation(v.shape[#v.shape]) }, v.shape, x.magnitude + 4 * v.magnitude)
  end
  return self:f32("$1 + $2", { x, v }, v.shape, x.magnitude + v.magnitude)
end

function G:matmul(v, n)
  local k = v.shape[#v.shape]
  local w
  if self:chance(25) and n > 1 then -- two weights joined when they are loaded
    local first = self.random(n - 1)
    w = self:value("concat({$1, $2}, 1)", { self:weight { first, k }, self:weight { n - first, k } }, { n, k }, "f32", 2)
  else
    w = self:weight { n, k }
  end
  local tf32 = self.dtype == "f32" and self:chance(15) and ", {tf32 = true}" or ""
  return self:f32(("matmul($1, $2%s)"):format(tf32), { self:as(self:settled(v, 16), self.dtype), self:as(w, self.dtype) },
    with_last(v.shape, n), math.min(v.magnitude, 16))
end

function G:linear(v, n)
  local y = self:matmul(v, n)
  if self:chance(75) then y = self:f32("$1 + $2", { y, self:weight({ n }, "bias") }, y.shape, y.magnitude + 2) end
  if self:chance(40) then y = self:f32(self:one_of { "$1:gelu()", "$1:silu()", "$1:tanh()" }, { y }, y.shape, y.magnitude) end
  return self:chance(40) and self:as(y, self.dtype) or y
end

function G:part(v, axis, offset, extent)
  local shape = { table.unpack(v.shape) }
  shape[axis] = extent
  return self:value(("$1:slice(%d, %d, %d)"):format(axis, offset, extent), { v }, shape, v.dtype, v.magnitude)
end

function G:reshape(v, shape) return self:value(("$1:reshape%s"):format(list(shape)), { v }, shape, v.dtype, v.magnitude) end

-- Three projections of one operand, by one matmul and slices or by three.
function G:projections(v, c)
  local out = {}
  local joined = self:chance(50) and self:matmul(v, 3 * c)
  if joined and self:chance(50) then
    joined = self:as(self:f32("$1 + $2", { joined, self:weight({ 3 * c }, "bias") }, joined.shape, joined.magnitude), self.dtype)
  end
  for i = 1, 3 do
    out[i] = joined and self:part(joined, #v.shape, (i - 1) * c, c) or self:linear(v, c)
  end
  return out
end

function G:rope(v)
  local s, d = v.shape[#v.shape - 2], v.shape[#v.shape]
  local tables = { self:input({ s, d // 2 }, "f32", "prompt"), self:input({ s, d // 2 }, "f32", "prompt") }
  return self:f32("rope($1, $2, $3)", { v, tables[1], tables[2] }, v.shape, 6 * v.magnitude)
end

function G:attention()
  local x = self:tokens()
  local h, d = self.random(3), self:one_of { 2, 6, 8, 16, 64 }
  local s, c = x.shape[1], h * d
  local qkv = self:projections(x, c)
  local sk = s
  if self:chance(30) then -- keys and values of another text
    sk = self:one_of(LENGTHS)
    local other = self:input({ sk, self.width }, nil, "prompt")
    qkv[2], qkv[3] = self:linear(other, c), self:linear(other, c)
  end
  for i = 1, 3 do
    local v = self:settled(qkv[i], 16)
    if i < 3 and self:chance(40) then v = self:f32("$1 * (($1 * $1):mean() + 1e-6):rsqrt() * $2",
      { v, self:weight({ c }, "gamma") }, v.shape, 6) end
    v = self:reshape(v, { i == 1 and s or sk, h, d })
    if i < 3 and self:chance(40) then v = self:rope(v) end
    qkv[i] = self:as(self:settled(v, 16), self.dtype)
  end
  local options, needs = { "scale = " .. ("%g"):format(d ^ -0.5) }, qkv
  if self:chance(20) then
    needs[#needs + 1] = self:chance(50) and self:input({ h, s, sk }, "f32") or self:input({ h, s + sk - 1 }, "f32")
    options[#options + 1] = "bias = $" .. #needs
  end
  if self:chance(20) then
    needs[#needs + 1] = self:ids({ 1 }, 1, sk + 1, "prompt")
    options[#options + 1] = "kv_len = $" .. #needs
  end
  if s <= sk and self:chance(15) then options[#options + 1] = "causal = true" end
  local o = self:f32("attention($1, $2, $3, {" .. table.concat(options, ", ") .. "})", needs, { s, h, d }, 16)
  o = self:reshape(o, { s, c })
  return self:chance(60) and self:residual(self:linear(o, x.shape[2])) or o
end

function G:gated(v) -- the feed-forward with a gate
  local n = self:one_of(WIDTHS)
  local a, b = self:matmul(v, n), self:matmul(v, n)
  return self:linear(self:f32("$1:" .. self:one_of { "silu", "gelu" } .. "() * $2", { a, b }, a.shape, a.magnitude * b.magnitude),
    v.shape[#v.shape])
end

-- [frames, height, width, channels]
function G:pixels()
  local v = self:pick(function(v) return #v.shape == 4 and count(v.shape) <= 8000 end)
  if v and self:chance(70) then return self:settled(v) end
  return self:input { self.random(3), 1 + self.random(6), 1 + self.random(6), self:one_of { 3, 8, 16, 24, 32 } }
end

function G:conv()
  local x = self:pixels()
  local kt, k = self:one_of { 1, 1, 3 }, self:one_of { 1, 3, 3 }
  local cin, cout = x.shape[4], self:one_of { 3, 8, 16, 24, 32 }
  if self:chance(50) then x = self:norm(x) end
  if self:chance(50) then x = self:f32("$1:silu()", { x }, x.shape, x.magnitude) end
  if self:chance(25) then x = self:upsample(x) end
  local w = self:weight { cout, cin, kt, k, k }
  w = self:value("$1:permute{1, 3, 4, 5, 2}", { w }, { cout, kt, k, k, cin }, "f32", 2)
  local p = k // 2
  local text = ("conv($1, $2, {t = {%d, 0}, h = {%d, %d}, w = {%d, %d}})"):format(kt - 1, p, p, p, p)
  local shape = { x.shape[1], x.shape[2], x.shape[3], cout }
  local y = self:f32(text, { self:as(self:settled(x, 16), self.dtype), self:as(w, self.dtype) }, shape, 16)
  if self:chance(60) then y = self:f32("$1 + $2", { y, self:weight({ cout }, "bias") }, shape, 18) end
  return self:chance(50) and self:residual(y) or y
end

function G:upsample(v)
  v = v or self:pixels()
  return repeating(self:value("$1:upsample()", { v }, { v.shape[1], 2 * v.shape[2], 2 * v.shape[3], v.shape[4] }, v.dtype,
    v.magnitude))
end

-- ---- movement

function G:slice(v)
  local axis = self.random(#v.shape)
  local extent = self.random(v.shape[axis])
  return self:part(v, axis, self.random(v.shape[axis] - extent + 1) - 1, extent)
end

function G:permute(v)
  local axes, shape = {}, {}
  for i = 1, #v.shape do table.insert(axes, self.random(i), i) end
  for i, a in ipairs(axes) do shape[i] = v.shape[a] end
  return self:value(("$1:permute%s"):format(list(axes)), { v }, shape, v.dtype, v.magnitude)
end

function G:other_shape(v)
  local shape = { table.unpack(v.shape) }
  local i = self.random(#shape)
  if #shape > 1 and self:chance(50) then -- two axes become one
    i = math.min(i, #shape - 1)
    shape[i] = shape[i] * table.remove(shape, i + 1)
  else -- one becomes two
    local by = self:one_of { 1, 2, 3, 5 }
    if shape[i] % by ~= 0 or #shape > 5 then by = 1 end
    if #shape > 5 then return v end
    shape[i] = shape[i] // by
    table.insert(shape, i + self.random(2) - 1, by)
  end
  return self:reshape(v, shape)
end

function G:expand(v)
  local shape, any = { table.unpack(v.shape) }, false
  for i, d in ipairs(shape) do
    if d == 1 and count(shape) < MOST // 8 and self:chance(70) then shape[i], any = 1 + self.random(7), true end
  end
  if not any then return self:slice(v) end
  return repeating(self:value(("$1:expand%s"):format(list(shape)), { v }, shape, v.dtype, v.magnitude))
end

function G:concat(v)
  local axis, n = self.random(#v.shape), 1 + self.random(3)
  local shape, needs, texts, most, met, twice = { table.unpack(v.shape) }, {}, {}, 0, {}, false
  shape[axis] = 0
  for i = 1, n do
    local o = i > 1 and self:pick(function(o)
      if #o.shape ~= #v.shape or o.dtype ~= v.dtype then return false end
      for k, d in ipairs(o.shape) do
        if k ~= axis and d ~= v.shape[k] then return false end
      end
      return true
    end) or v
    shape[axis], needs[i], texts[i], most = shape[axis] + o.shape[axis], o, "$" .. i, math.max(most, o.magnitude)
    twice = twice or met[o]
    met[o] = true
  end
  v = self:value(("concat({%s}, %d)"):format(table.concat(texts, ", "), axis), needs, shape, v.dtype, most)
  return twice and repeating(v) or v
end

-- Neighbouring parts, joined again in some order.
function G:cut(v)
  local axis = self.random(#v.shape)
  local n = v.shape[axis]
  if n < 2 then return self:permute(v) end
  local at = self.random(n - 1)
  local parts = { self:part(v, axis, 0, at), self:part(v, axis, at, n - at) }
  if self:chance(30) then parts[1], parts[2] = parts[2], parts[1] end
  return self:value(("concat({$1, $2}, %d)"):format(axis), parts, v.shape, v.dtype, v.magnitude)
end

local MOVES = { "slice", "slice", "permute", "other_shape", "expand", "concat", "cut" }

-- Movement of moved values: what the passes and the views take together.
function G:moved(v)
  for _ = 1, 1 + self.random(4) do
    if count(v.shape) > MOST // 4 then break end
    v = G[self:one_of(MOVES)](self, v)
    if self:chance(15) then v = self:unary(v) end
  end
  return v
end

function G:gather()
  local n = 1 + self.random(20)
  local t = self:chance(50) and self:pick(function(v) return #v.shape <= 2 end) or self:weight { n, self.width }
  local ids = self:ids(self:chance(60) and { self.length } or { 2, 5 }, 0, t.shape[1])
  local shape = { table.unpack(ids.shape) }
  for i = 2, #t.shape do shape[#shape + 1] = t.shape[i] end
  local v = self:value("gather($1, $2)", { t, ids }, shape, t.dtype, t.magnitude)
  return t.shape[2] and t.shape[2] > 1 and v or repeating(v) -- of few rows each comes often
end

function G:remembered(v)
  local s = self:state(v.shape, "f32")
  local y = self:f32("$1 * 0.5 + $2", { s, v }, v.shape, 4 + v.magnitude)
  s.next = self:chance(80) and y or self:f32("$1 * 0.25", { v }, v.shape, v.magnitude)
  return y
end

-- ---- graphs

local LAYERS = {
  { 4, function(g) return g:unary(g:any()) end }, { 5, function(g) return g:binary(g:any()) end },
  { 4, function(g) return g:norm(g:tokens()) end }, { 3, function(g) return g:modulate(g:norm(g:tokens())) end },
  { 3, function(g) return g:residual(g:tokens()) end }, { 3, function(g) return g:linear(g:tokens(), g:one_of(WIDTHS)) end },
  { 2, function(g) return g:linear(g:modulate(g:norm(g:residual(g:tokens()))), g:one_of(WIDTHS)) end },
  { 2, function(g) return g:residual(g:linear(g:tokens(), g.width)) end },
  { 1, function(g) return g:one_of(g:projections(g:tokens(), g:one_of(WIDTHS))) end }, { 1, function(g) return g:gated(g:tokens()) end },
  { 3, function(g) return g:attention() end }, { 2, function(g) return g:conv() end }, { 1, function(g) return g:upsample() end },
  { 2, function(g) return g:reduce(g:any()) end }, { 2, function(g) return g:slice(g:any()) end },
  { 2, function(g) return g:permute(g:any()) end }, { 2, function(g) return g:other_shape(g:any()) end },
  { 1, function(g) return g:expand(g:any()) end }, { 5, function(g) return g:moved(g:any()) end },
  { 2, function(g) return g:concat(g:any()) end },
  { 1, function(g) return g:gather() end }, { 2, function(g) return g:as(g:any(), g:one_of { "bf16", "f16", "f32" }) end },
  { 1, function(g) return g:remembered(g:any()) end },
}

local function grown(seed)
  local g = setmetatable({ random = splitmix(seed), lines = {}, states = {}, rows = {} }, G)
  g.length, g.width, g.dtype = g:one_of(LENGTHS), g:one_of(WIDTHS), g:one_of { "f32", "f32", "bf16", "bf16", "f16" }
  local total = 0
  for _, l in ipairs(LAYERS) do total = total + l[1] end
  for _ = 1, 2 + g.random(9) do
    local at = g.random(total)
    for _, l in ipairs(LAYERS) do
      at = at - l[1]
      if at <= 0 then
        l[2](g)
        break
      end
    end
    if count(g.lines[#g.lines].shape) > MOST // 4 or #g.lines > 120 then break end
  end
  return g
end

-- Marks what v needs, with the updates of the states among that.
local function mark(v, live)
  if live[v.at] then return end
  live[v.at] = true
  for _, n in ipairs(v.needs) do mark(n, live) end
  if v.next then mark(v.next, live) end
end

-- What a noisy script begins with: x with every column off by some millionths, as rounding does it.
local OFF = [[
local function off(x, seed)
  local shape, by = x.shape, {}
  for i = 1, shape[#shape] do
    seed = (seed * 1103515245 + 12345) % 2147483648
    by[i] = 1 + (seed // 65536 % 9 - 4) * 1e-6
  end
  return x * const(by, { #by })
end]]

-- options: seed; only: number of a line, the one output, with nothing that it does not need; noise: a number that decides by how many
-- millionths every computed value is off; bound: written in the line "-- case".
-- Returns the script, and how many lines an `only` can name.
function M.script(options)
  local g = grown(options.seed)
  local live, outputs, two = {}, {}, g:chance(25)
  for i = #g.lines, 1, -1 do
    local v = g.lines[i]
    local wanted = options.only and v.at == options.only or not options.only and (not v.used or g:chance(6)) and #outputs < 8
    if wanted then
      outputs[#outputs + 1] = v
      mark(v, live)
    end
  end
  local out = { ("-- A random graph: seed %d."):format(options.seed), ("-- case %g {}"):format(options.bound or 0) }
  out[#out + 1] = "-- entries " .. (two and "a b a" or "step step")
  for _, v in ipairs(g.lines) do
    if live[v.at] and v.range then out[#out + 1] = v.range end
  end
  local noise = splitmix(options.noise or 1)
  if options.noise then out[#out + 1] = OFF end
  for _, v in ipairs(g.lines) do
    if live[v.at] then out[#out + 1] = ("local %s = %s"):format(v.name, v.text) end
    local seed = noise(1 << 30)
    if options.noise and live[v.at] and v.arithmetic then out[#out + 1] = ("%s = off(%s, %d)"):format(v.name, v.name, seed) end
  end
  local entry = splitmix(options.seed + 1)
  local function add(text)
    if two then out[#out + 1] = ('entry "%s"'):format(entry(2) == 1 and "a" or "b") end
    out[#out + 1] = text
  end
  if two then -- there are both, whatever follows
    out[#out + 1] = 'entry "a"\noutput("one", const(1) * 1)\nentry "b"\noutput("two", const(2) * 1)'
  end
  for _, v in ipairs(outputs) do add(('output("y%d", %s)'):format(v.at, v.name)) end
  for _, s in ipairs(g.states) do
    if live[s.at] and s.next then add(("update(%s, %s)"):format(s.name, s.next.name)) end
  end
  return table.concat(out, "\n") .. "\n", #g.lines
end

if arg and arg[0] and arg[0]:match "random_graph%.lua$" then
  local text = M.script { seed = assert(tonumber(arg[1]), "give a seed") // 1 }
  io.write(text)
end

return M

-- Makes, spoils and compares safetensors files for the tests of the command line.
--
--   tensors.lua write FILE SEED NAME=SHAPE[:DTYPE]...   random values; SHAPE as 2x3, DTYPE F32 (default) or I32
--   tensors.lua set FILE NAME dtype|shape|data_offsets TEXT   overwrites one field of a header entry, checks nothing
--   tensors.lua drop FILE NAME                          removes a tensor
--   tensors.lua list FILE                               "name dtype shape" per line
--   tensors.lua distance FILE NAME REFERENCE NAME [PERMUTATION]
--                     |a - b| / |b|, of the reference's axes in the order PERMUTATION (as 2,3,1); NAME@3: entry 3 of the first
--                     axis; NAME:unit: values of -1..1 brought to 0..1 and clamped, as pictures are
local function fail(format, ...)
  io.stderr:write("tensors: ", format:format(...), "\n")
  os.exit(1)
end

local function read_file(path)
  local file = io.open(path, "rb") or fail("%s: cannot be opened", path)
  local text = file:read("a")
  file:close()
  return text
end

-- The header's entries in the file's order (__metadata__ apart) and the data. Knows only what safetensors writers write.
local function read(path)
  local text = read_file(path)
  local length, at = string.unpack("<I8", text)
  local header, entries = text:sub(at, at + length - 1), {}
  local flat = header:gsub('"__metadata__"%s*:%s*%b{},?', "")
  for name, body in flat:gmatch('"([^"]+)"%s*:%s*(%b{})') do
    local first, last = body:match('"data_offsets"%s*:%s*%[%s*(%d+)%s*,%s*(%d+)')
    entries[#entries + 1] = { name = name, dtype = body:match('"dtype"%s*:%s*"(%w+)"'), shape = body:match('"shape"%s*:%s*(%b[])'),
      data_offsets = ("[%d,%d]"):format(first, last), bytes = text:sub(at + length + first, at + length + last - 1) }
  end
  return entries, text:sub(at + length)
end

local function write(path, entries, data)
  local parts = {}
  for i, e in ipairs(entries) do
    parts[i] = ('"%s":{"dtype":"%s","shape":%s,"data_offsets":%s}'):format(e.name, e.dtype, e.shape, e.data_offsets)
  end
  local header = "{" .. table.concat(parts, ",") .. "}"
  header = header .. (" "):rep(-#header % 8)
  os.remove(path) -- it may be a link to a file that others use
  local file = io.open(path, "wb") or fail("%s: cannot be written", path)
  file:write(string.pack("<I8", #header), header, data)
  file:close()
end

local function find(entries, name, path)
  for i, e in ipairs(entries) do
    if e.name == name then return e, i end
  end
  fail("%s: has no tensor %s", path, name)
end

-- Gives every entry the place that follows from the order.
local function pack(path, entries)
  local data, offset = {}, 0
  for i, e in ipairs(entries) do
    data[i], e.data_offsets = e.bytes, ("[%d,%d]"):format(offset, offset + #e.bytes)
    offset = offset + #e.bytes
  end
  write(path, entries, table.concat(data))
end

local commands = {}

function commands.write(path, seed, ...)
  local entries = {}
  math.randomseed(math.tointeger(tonumber(seed)), 0)
  for i, item in ipairs({ ... }) do
    local name, shape, dtype = item:match("^(.-)=([%dx]+):?(%w*)$")
    if not name then fail("'%s' is not NAME=SHAPE[:DTYPE]", item) end
    local count, values = 1, {}
    for extent in shape:gmatch("%d+") do count = count * tonumber(extent) end
    for k = 1, count do
      values[k] = dtype == "I32" and string.pack("<i4", math.random(0, 7)) or string.pack("<f", (math.random() - 0.5) / 4)
    end
    entries[i] = { name = name, dtype = dtype ~= "" and dtype or "F32", shape = "[" .. shape:gsub("x", ",") .. "]",
      bytes = table.concat(values) }
  end
  pack(path, entries)
end

function commands.set(path, name, field, text)
  local entries, data = read(path)
  find(entries, name, path)[field] = text
  write(path, entries, data)
end

function commands.drop(path, name)
  local entries = read(path)
  local _, at = find(entries, name, path)
  table.remove(entries, at)
  pack(path, entries)
end

function commands.list(path)
  for _, e in ipairs((read(path))) do print(e.name, e.dtype, e.shape) end
end

-- Values and dims of "NAME", "NAME@INDEX" or "NAME:unit".
local load
function load(path, what)
  local whole = what:match("^(.*):unit$")
  if whole then
    local values, dims = load(path, whole)
    for i, v in ipairs(values) do values[i] = math.min(math.max(v / 2 + 0.5, 0), 1) end
    return values, dims
  end
  local name, index = what:match("^(.-)@(%d+)$")
  local e = find(read(path), name or what, path)
  local dims, values, kinds = {}, {}, { F32 = "<f", F64 = "<d", I32 = "<i4", I64 = "<i8" }
  for extent in e.shape:gmatch("%d+") do dims[#dims + 1] = math.tointeger(tonumber(extent)) end
  local kind, at = kinds[e.dtype] or fail("%s: %s is %s", path, what, e.dtype), 1
  while at <= #e.bytes do values[#values + 1], at = string.unpack(kind, e.bytes, at) end
  if index then
    local inner = #values // table.remove(dims, 1)
    values = table.move(values, index * inner + 1, (index + 1) * inner, 1, {})
  end
  return values, dims
end

local function permuted(values, dims, order)
  local rank, stride, new = #dims, {}, {}
  local step = 1
  for i = rank, 1, -1 do stride[i], step = step, step * dims[i] end
  for i = 1, rank do new[i] = dims[order[i]] end
  local out, index = {}, {}
  for i = 1, rank do index[i] = 0 end
  for k = 1, #values do
    local from = 1
    for i = 1, rank do from = from + index[i] * stride[order[i]] end
    out[k] = values[from]
    for i = rank, 1, -1 do
      index[i] = index[i] + 1
      if index[i] < new[i] then break end
      index[i] = 0
    end
  end
  return out, new
end

function commands.distance(path, name, reference, reference_name, permutation)
  local a, a_dims = load(path, name)
  local b, b_dims = load(reference, reference_name)
  if permutation then
    local order = {}
    for axis in permutation:gmatch("%d+") do order[#order + 1] = tonumber(axis) end
    b, b_dims = permuted(b, b_dims, order)
  end
  if table.concat(a_dims, "x") ~= table.concat(b_dims, "x") then
    fail("%s is %s, %s is %s", name, table.concat(a_dims, "x"), reference_name, table.concat(b_dims, "x"))
  end
  local difference, size = 0.0, 0.0
  for i = 1, #b do difference, size = difference + (a[i] - b[i]) ^ 2, size + b[i] ^ 2 end
  print(("%.3g"):format(math.sqrt(difference / size)))
end

local command = commands[arg[1]] or fail("there is no command %s", tostring(arg[1]))
command(table.unpack(arg, 2))

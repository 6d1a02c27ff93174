-- What the tools that compose kernels without the compiler share: templates and their sidecars, choices of tunables, files.
local M = {}

local TEMPLATES = "templates/"

-- What a block may use of shared memory, by architecture.
M.SMEM = { [80] = 166912, [89] = 101376, [90] = 232448, [100] = 232448, [120] = 101376 }

-- The text of a file of the templates' folder.
function M.text(name)
  local f = assert(io.open(TEMPLATES .. name, "rb"))
  local text = f:read("a")
  f:close()
  return text
end

_G.include = function(name) return dofile(TEMPLATES .. name) end -- sidecars call it
function M.sidecar(name) return dofile(TEMPLATES .. name .. ".lua") end

-- Every choice of tunables that the sidecar calls valid, in the order of its lists.
function M.choices(side, p, smem_limit, sms)
  local keys, all = {}, { {} }
  for k in pairs(side.tunables) do keys[#keys + 1] = k end
  table.sort(keys)
  for _, k in ipairs(keys) do
    local more = {}
    for _, t in ipairs(all) do
      for _, v in ipairs(side.tunables[k]) do
        local u = { [k] = v }
        for a, b in pairs(t) do u[a] = b end
        more[#more + 1] = u
      end
    end
    all = more
  end
  local good = {}
  for _, t in ipairs(all) do
    t.smem_limit, t.sms = smem_limit, sms
    if side.valid(p, t) then good[#good + 1] = t end
  end
  return good
end

-- Names and values of the tunables.
function M.settings(t)
  local keys, parts = {}, {}
  for k in pairs(t) do
    if k ~= "smem_limit" and k ~= "sms" then keys[#keys + 1] = k end
  end
  table.sort(keys)
  for i, k in ipairs(keys) do parts[i] = k:gsub("tile_", "") .. t[k] end
  return table.concat(parts, " ")
end

local function json(v)
  if type(v) == "table" then
    local parts = {}
    if #v > 0 or next(v) == nil then
      for i, x in ipairs(v) do parts[i] = json(x) end
      return "[" .. table.concat(parts, ",") .. "]"
    end
    local keys = {}
    for k in pairs(v) do keys[#keys + 1] = k end
    table.sort(keys)
    for i, k in ipairs(keys) do parts[i] = ("%q:%s"):format(k, json(v[k])) end
    return "{" .. table.concat(parts, ",") .. "}"
  end
  return type(v) == "string" and ("%q"):format(v) or tostring(v)
end

-- A folder for files; the function that it returns writes one of them, a table as JSON.
function M.folder(path)
  os.execute("mkdir -p " .. path)
  return function(name, content)
    local f = assert(io.open(path .. "/" .. name, "wb"))
    f:write(type(content) == "table" and json(content) .. "\n" or content)
    f:close()
  end
end

return M

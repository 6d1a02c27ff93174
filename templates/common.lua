-- What every sidecar needs: dtypes in bytes and in CUDA, rounding up, what the fused code stores.
local M = {
  SIZE = { bf16 = 2, f16 = 2, f32 = 4 },
  C_TYPE = { bf16 = "bf16", f16 = "f16", f32 = "float" },
}

function M.ceil_div(a, b) return (a + b - 1) // b end

function M.out_bytes(p)
  local bytes = 0
  for _, dtype in ipairs(p.out_dtypes or {}) do bytes = bytes + p.m * p.n * (M.SIZE[dtype] or 4) end
  return bytes
end


-- The lists' elements in one list.
function M.joined(...)
  local out = {}
  for _, list in ipairs { ... } do
    for _, v in ipairs(list) do out[#out + 1] = v end
  end
  return out
end

-- The constants that every matmul and convolution has.
function M.constants(p, k) return { { "T", M.C_TYPE[p.dtype] }, { "N", p.n }, { "K", k } } end

return M

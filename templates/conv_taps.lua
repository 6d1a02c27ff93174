-- The sidecars' part that goes with conv_taps.cuh: a convolution as a matmul over taps and channels.
local M = {}

function M.k_of(p) return p.kt * p.kh * p.kw * p.cin end

-- Coordinates are 16 bits, pixels 32.
function M.in_range(p) return p.ho < 32768 and p.wo < 32768 and p.m < 2 ^ 31 - 512 end

function M.constants(p)
  return {
    { "CIN", p.cin }, { "KH", p.kh }, { "KW", p.kw },
    { "PAD_T", p.pad_t }, { "PAD_H", p.pad_h }, { "PAD_W", p.pad_w }, { "UPSAMPLE", p.upsample },
  }
end

M.params = {
  { "x", "ptr" }, { "w", "ptr" }, { "m", "i32" }, { "ho", "i32" }, { "wo", "i32" },
  { "ti", "i32" }, { "hi", "i32" }, { "wi", "i32" },
}

return M

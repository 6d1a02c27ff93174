-- Movement: every op that only says where values come from, alone and in the combinations the models have.
-- case 0 {"f": 3, "h": 4, "w": 6, "c": 16}
-- case 0 {"f": 1, "h": 5, "w": 7, "c": 3}
-- case 0 {"f": 2, "h": 8, "w": 10, "c": 16, "dtype": "bf16"}
local f, h, w, c = params.f, params.h, params.w, params.c
local dtype = params.dtype or "f32"
local x = input{name = "x", shape = {f, h, w, c}, dtype = dtype}
local y = input{name = "y", shape = {f, h, w, c}, dtype = dtype}
local table_ = weight("table", {50, c})
-- range ids 0 50
local ids = input{name = "ids", shape = {f, h}, dtype = "i32"}
output("permuted", x:permute{4, 1, 2, 3})
output("flat", x:reshape{f, h * w * c}:permute{2, 1})
output("sliced", x:slice(3, 1, w - 2):slice(-1, c // 2, 1))
output("joined", concat({x, y, x}, 2))
output("joined_inner", concat({x, y}, -1))
output("upsampled", x:upsample())
output("expanded", x:slice(1, 0, 1):expand{5, h, w, c})
output("gathered", gather(table_, ids))
-- Frames interleaved channel-wise, as the VAE's temporal upsampling does.
output("interleaved", concat({x:reshape{f, 1, h, w, c}, y:reshape{f, 1, h, w, c}}, 2):reshape{2 * f, h, w, c})

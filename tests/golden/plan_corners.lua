-- Corners of planning: outputs that are inputs, constants, views and each other; states that swap, shift and read themselves; values of
-- every rate; rows too wide for registers; odd alignments.
-- case 1e-5 {"n": 12}
-- case 1e-5 {"n": 16}
-- entries a b a b
-- range ids 0 3
local n = params.n
local x = input{name = "x", shape = {n, 24}}
local c = input{name = "c", shape = {n, 24}, rate = "prompt"}
local w = weight("w", {24, 24})
local table_ = const({1, 2, 3, 4, 5, 6}, {2, 3})
entry "a"
output("x_out", x)
output("w_out", w)
output("w_turned", w:permute{2, 1})
output("const_out", table_)
output("const_turned", table_:permute{2, 1})
output("prompt_out", c:exp())
output("prompt_again", c:exp())
local y = x + c
output("y", y)
output("y_again", y)
output("y_turned", y:permute{2, 1})
output("y_slice", y:slice(2, 5, 7):exp())
output("joined", concat({y, x, y}, 2))
output("stacked", concat({y, x, y * 2, c}, 1):slice(1, n, n + 3))
local cut = y:reshape{n * 3, 8}:slice(1, 1, n * 3 - 2)
output("cut", cut * cut)
local ids = input{name = "ids", shape = {n, 4}, dtype = "i32"}
output("ids_moved", concat({ids, const({16777217, -2147483647}, {2, 1}, "i32"):reshape{1, 2}:expand{n, 2}}, 2):permute{2, 1})
output("ids_gathered", gather(const({16777217, -5, 123456789}, {3}, "i32"), ids))
-- states
local p, q, r, s = state{name = "p", shape = {n, 24}}, state{name = "q", shape = {n, 24}}, state{name = "r", shape = {n, 24}}, state{name = "s", shape = {4, 6}}
update(p, q + 1)
update(q, p:slice(1, 0, n) * 0.5 + x)
update(r, r:slice(1, 0, n):reshape{n * 2, 12}:reshape{n, 24} + p - p)
update(s, s:reshape{6, 4}:permute{2, 1} + const(1))
output("p_old", p)
output("p_sum", (p + q):sum())
entry "b"
update(p, q)
update(q, r)
update(r, p)
local wide = concat({x:reshape{1, n * 24}, c:reshape{1, n * 24}}, 2):expand{3, n * 48} * const({1, 2, 3}, {3, 1})
output("wide", wide - wide:mean())
local long = x:reshape{1, n * 24}:expand{150, n * 24}:reshape{1, n * 24 * 150} * 2
output("long", long / (long * long):sum():sqrt())
output("per_row", (x:mean() + c:amax()) * x:sum())
output("vector", (c:slice(1, 0, 1) + x:slice(1, 1, 1)) * 3)
output("both_norms", (x - x:mean()) * (x:reshape{n, 3, 8}:amax():recip() * x:reshape{n, 3, 8}):reshape{n, 24})
output("upsampled", x:reshape{1, n, 3, 8}:upsample() + c:reshape{1, n, 3, 8}:upsample() * 2)
output("odd", x:slice(2, 1, 21):mean() + c:slice(2, 3, 21))
output("scalar", const({3}, {1}) * x:slice(1, 0, 1):slice(2, 0, 1):reshape{1} + 1)

-- State kept between runs and two entries that share weights, prompt values and state.
-- case 2e-5 {"rows": 33, "width": 64}
-- entries first next next
local rows, width = params.rows, params.width
local context = input{name = "context", shape = {rows, width}, rate = "prompt"}
local w = weight("w.weight", {width, width})
local keys = matmul(context, w)
local x = input{name = "x", shape = {rows, width}}
local held = state{name = "held", shape = {rows, width}}
entry "first"
output("y", x + keys)
update(held, x * 0.5 + keys)
entry "next"
output("z", x + held)
update(held, held * 0.5 + x)

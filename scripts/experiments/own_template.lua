-- A template of your own, from two files to a candidate beside the built-in ones.
--
-- own_template/ holds the smallest matmul that is worth reading: plain_matmul.cu is the kernel, plain_matmul.lua says what it
-- implements, which tunables there are, what must hold between them and the problem, and how much it computes and reads. This
-- graph, one layer with bias, GELU and a residual, is something to run it on. The fused code behind the product is not written
-- in the template: it calls epilogue<V>(), which is made from this graph.
--
-- Run:
--
--   moonkiln emit scripts/experiments/own_template.lua --templates scripts/experiments/own_template
--
-- Look at the matmul's group: "plain_matmul rows=4 step=16" stands among its candidates, with the launch that its sidecar asked
-- for. A candidate of yours is never dropped for being expensive by its own formulas; which one runs untuned is decided by them.
-- --kernel plain_matmul --all --stage cuda shows the text that is compiled: constants, parameters, epilogue, your code.
--
--   moonkiln bench scripts/experiments/own_template.lua --synthetic 1 --templates scripts/experiments/own_template --watch
--
-- compiles, checks against the CPU backend and times every candidate, now and whenever one of these files is saved. Without a
-- GPU it says registers, shared memory and spills.
--
-- Try:
--  * `step = { 64 }`, which halves the barriers again; watch the shared memory.
--  * Load the next tile into registers while this one is multiplied, as simt_tile.cuh does.
--  * Put `* 1.01` on a product: the error column tells.
--  * Call the pair matmul_simt and see the built-in one replaced, with a message.
--  * Copy the folder elsewhere, set MOONKILN_TEMPLATES to it, and everything else, `generate` too, has it.
--
-- templates own_template
-- case 2e-5 {"policy": "f32"}
-- case 2e-5 {"tokens": 5, "dim": 36, "hidden": 68, "policy": "f32"}
-- case 1e-2 {"tokens": 200, "dim": 100, "hidden": 260}
--
-- params: tokens (default 100), dim (256), hidden (512), policy ("f32" or "bf16").
local tokens, dim, hidden = params.tokens or 100, params.dim or 256, params.hidden or 512
local dtype = params.policy or "bf16"

local x = input({ name = "x", shape = { tokens, dim } })
local h = matmul(x:cast(dtype), weight("fc.weight", { hidden, dim }):cast(dtype)) + weight("fc.bias", { hidden })
output("y", h:gelu() + input({ name = "residual", shape = { tokens, hidden } }))

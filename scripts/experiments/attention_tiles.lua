-- Attention and its tile sizes: how many queries a block holds, how many keys it meets at a time, and in how many stages they come.
--
-- Attention is one group, whatever the graph around it: q, k and v come as strided views of one matrix, as they leave a fused
-- projection, and what follows (here a cast) is in its epilogue. The templates that can do it are candidates with a few choices of
-- tunables each: attention_wgmma (Hopper, 64 or 128 channels), attention_mma (every card), attention_simt (f32).
--
-- Run:
--
--   moonkiln emit scripts/experiments/attention_tiles.lua
--   moonkiln bench scripts/experiments/attention_tiles.lua --variants
--   moonkiln bench scripts/experiments/attention_tiles.lua --sweep tile_n=32,64,80 --sweep tokens=1024..8192
--   moonkiln bench scripts/experiments/attention_tiles.lua --arch sm_80 --sweep tile_m=64,128 --sweep stages=2,3 --sweep head_dim=64,128
--
-- (--csv FILE and --html FILE keep a sweep's numbers, and plot them.)
--
-- Look at:
--  * Registers and shared memory. A block's queries, scores and output live in registers: tile_m of them over its warps. Keys and
--    values are shared memory: 2 bytes * head_dim * tile_n * 2 * stages. A choice that would spill or not fit is no candidate:
--    `valid` in the sidecar says no.
--  * Short sequences. A block holds 192 queries with wgmma; 1,024 tokens of 8 heads are 48 blocks, for the 132 multiprocessors of
--    an H200. Smaller tile_m makes more blocks, each with less to reuse. Where the lines of the sweep cross is where the cost
--    model should cross, too.
--  * The last tile. 1,000 keys in tiles of 80 are 12.5: the last tile is half mask. Sweep `tokens=960,1000,1040`.
--  * Causal. Blocks have unlike lengths then, and wgmma's `accepts` refuses: see which template is left.
--
-- Try:
--  * --set causal=true, --set head_dim=96, --set policy=f32, and see in `emit` who says yes.
--  * Cross-attention: --set keys=512, with queries by the thousand. K and V then stay in L2, and the exponentials weigh as before.
--  * A copy of attention_mma.lua and .cu in a folder of your own with another `tile_n` in its list, given with --templates.
--
-- case 1e-2 {"tokens": 300, "heads": 3}
-- case 1e-2 {"tokens": 200, "keys": 77, "heads": 2, "head_dim": 64}
-- case 1e-2 {"tokens": 130, "heads": 2, "causal": true}
-- case 2e-5 {"tokens": 90, "heads": 2, "head_dim": 64, "policy": "f32"}
--
-- params: tokens (default 1024), keys (tokens), heads (8), head_dim (128), causal (false), policy ("bf16", "f16" or "f32").
local tokens, heads, head_dim = params.tokens or 1024, params.heads or 8, params.head_dim or 128
local keys, dtype = params.keys or tokens, params.policy or "bf16"
local width = heads * head_dim

local function head(x, count, i) return x:slice(2, i * width, width):reshape({ count, heads, head_dim }) end

local q, k, v
if params.keys then
  local kv = input({ name = "kv", shape = { keys, 2 * width }, dtype = dtype })
  q = input({ name = "q", shape = { tokens, heads, head_dim }, dtype = dtype })
  k, v = head(kv, keys, 0), head(kv, keys, 1)
else
  local qkv = input({ name = "qkv", shape = { tokens, 3 * width }, dtype = dtype })
  q, k, v = head(qkv, tokens, 0), head(qkv, tokens, 1), head(qkv, tokens, 2)
end
output("y", attention(q, k, v, { scale = head_dim ^ -0.5, causal = params.causal or false }):cast(dtype))

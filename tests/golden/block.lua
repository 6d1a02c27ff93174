-- One block of a diffusion transformer: ten groups. Joined projections, norms with rotation, attention that reads slices, gate and
-- residual with the next norm, a feed-forward network whose last residual nobody normalises.
local tokens, dim, heads, ffn = 96, 256, 2, 512
local function linear(x, name, out) return matmul(x:cast"bf16", weight(name .. ".weight", {out, dim}):cast"bf16") + weight(name .. ".bias", {out}):cast"bf16" end
local function layer_norm(x)
  local c = x - x:mean()
  return c * ((c * c):mean() + 1e-6):rsqrt()
end
local function rms_norm(x, name) return x * ((x * x):mean() + 1e-6):rsqrt() * weight(name, {dim}) end
local x = input{name = "x", shape = {tokens, dim}}
local m = weight("modulation", {6, dim}) + input{name = "e0", shape = {6, dim}}
local cos, sin = input{name = "cos", shape = {tokens, 64}, rate = "prompt"}, input{name = "sin", shape = {tokens, 64}, rate = "prompt"}
local function part(i) return m:slice(1, i, 1) end
local h = (layer_norm(x) * (part(1) + 1) + part(0)):cast"bf16":label"norm1"
local qkv = linear(h, "qkv", 3 * dim):cast"bf16"
local function head(i) return qkv:slice(2, i * dim, dim) end
local function split(v) return v:reshape{tokens, heads, 128} end
local q = rope(split(rms_norm(head(0), "norm_q")), cos, sin):cast"bf16"
local k = rope(split(rms_norm(head(1), "norm_k")), cos, sin):cast"bf16"
local y = attention(q, k, split(head(2)), {scale = 128 ^ -0.5}):cast"bf16":reshape{tokens, dim}
x = x + linear(y, "o", dim):cast"bf16" * part(2)
h = (layer_norm(x) * (part(4) + 1) + part(3)):cast"bf16":label"norm2"
h = linear(h, "up", ffn):gelu():cast"bf16"
x = x + (matmul(h, weight("down.weight", {dim, ffn}):cast"bf16") + weight("down.bias", {dim})) * part(5)
output("x_next", x)

--[==[ expected:
program load: 7 groups
  group 0 row
    %22 bf16 [768, 256] cast %21  stored   ; block.lua:4
  group 1 row
    %25 bf16 [768] cast %24  stored   ; block.lua:4
  group 2 row
    %56 bf16 [256, 256] cast %55  stored   ; block.lua:4
  group 3 row
    %59 bf16 [256] cast %58  stored   ; block.lua:4
  group 4 row
    %79 bf16 [512, 256] cast %78  stored   ; block.lua:4
  group 5 row
    %82 bf16 [512] cast %81  stored   ; block.lua:4
  group 6 row
    %87 bf16 [256, 512] cast %86  stored   ; block.lua:24
program prompt: 0 groups
program step: 10 groups
  group 0 row
    %3 f32 [6, 256] add %1 %2  stored   ; block.lua:11
  group 1 row
    %6 f32 [96, 1] mean %0   ; block.lua:6
    %7 f32 [96, 256] sub %0 %6   ; block.lua:6
    %8 f32 [96, 256] mul %7 %7   ; block.lua:7
    %9 f32 [96, 1] mean %8   ; block.lua:7
    %11 f32 [96, 1] add %9 %10   ; block.lua:7
    %12 f32 [96, 1] rsqrt %11   ; block.lua:7
    %13 f32 [96, 256] mul %7 %12   ; block.lua:7
    %17 f32 [96, 256] mul %13 %16   ; block.lua:14
    %19 f32 [96, 256] add %17 %18   ; block.lua:14
    %20 bf16 [96, 256] cast %19  stored   ; block.lua:14
  group 2 matmul
    %23 f32 [96, 768] matmul %20 %22   ; block.lua:4
    %26 f32 [96, 768] add %23 %25   ; block.lua:4
    %27 bf16 [96, 768] cast %26  stored   ; block.lua:15
    realisations with group 1: row kernel and matmul, folded modulation, prologue
  group 3 row
    %29 f32 [96, 256] mul %28 %28   ; block.lua:9
    %30 f32 [96, 1] mean %29   ; block.lua:9
    %31 f32 [96, 1] add %30 %10   ; block.lua:9
    %32 f32 [96, 1] rsqrt %31   ; block.lua:9
    %33 f32 [96, 256] mul %28 %32   ; block.lua:9
    %35 f32 [96, 256] mul %33 %34   ; block.lua:9
    %37 f32 [96, 2, 128] rope %36 %4 %5   ; block.lua:18
    %38 bf16 [96, 2, 128] cast %37  stored   ; block.lua:18
  group 4 row
    %40 f32 [96, 256] mul %39 %39   ; block.lua:9
    %41 f32 [96, 1] mean %40   ; block.lua:9
    %42 f32 [96, 1] add %41 %10   ; block.lua:9
    %43 f32 [96, 1] rsqrt %42   ; block.lua:9
    %44 f32 [96, 256] mul %39 %43   ; block.lua:9
    %46 f32 [96, 256] mul %44 %45   ; block.lua:9
    %48 f32 [96, 2, 128] rope %47 %4 %5   ; block.lua:19
    %49 bf16 [96, 2, 128] cast %48  stored   ; block.lua:19
  group 5 attention
    %52 f32 [96, 2, 128] attention %38 %49 %51   ; block.lua:20
    %53 bf16 [96, 2, 128] cast %52  stored   ; block.lua:20
  group 6 matmul
    %57 f32 [96, 256] matmul %54 %56   ; block.lua:4
    %60 f32 [96, 256] add %57 %59   ; block.lua:4
    %61 bf16 [96, 256] cast %60  stored   ; block.lua:21
  group 7 row
    %63 f32 [96, 256] mul %61 %62   ; block.lua:21
    %64 f32 [96, 256] add %0 %63  stored   ; block.lua:21
    %65 f32 [96, 1] mean %64   ; block.lua:6
    %66 f32 [96, 256] sub %64 %65   ; block.lua:6
    %67 f32 [96, 256] mul %66 %66   ; block.lua:7
    %68 f32 [96, 1] mean %67   ; block.lua:7
    %69 f32 [96, 1] add %68 %10   ; block.lua:7
    %70 f32 [96, 1] rsqrt %69   ; block.lua:7
    %71 f32 [96, 256] mul %66 %70   ; block.lua:7
    %74 f32 [96, 256] mul %71 %73   ; block.lua:22
    %76 f32 [96, 256] add %74 %75   ; block.lua:22
    %77 bf16 [96, 256] cast %76  stored   ; block.lua:22
  group 8 matmul
    %80 f32 [96, 512] matmul %77 %79   ; block.lua:4
    %83 f32 [96, 512] add %80 %82   ; block.lua:4
    %84 f32 [96, 512] gelu %83   ; block.lua:23
    %85 bf16 [96, 512] cast %84  stored   ; block.lua:23
    realisations with group 7: row kernel and matmul, folded modulation, prologue
  group 9 matmul
    %88 f32 [96, 256] matmul %85 %87   ; block.lua:24
    %90 f32 [96, 256] add %88 %89   ; block.lua:24
    %92 f32 [96, 256] mul %90 %91   ; block.lua:24
    %93 f32 [96, 256] add %64 %92  stored   ; block.lua:24
]==]

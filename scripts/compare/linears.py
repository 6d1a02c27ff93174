"""Every linear of a block with what is fused to it, against torch.compile of the same part of diffusers' block."""
from dataclasses import dataclass
from functools import partial

import torch

from compare import files
from compare.context import Case, relative
from compare.engine import GRAPHS
from compare.results import Result
from compare.wan import A14B, TOY, make_model, round_weights, to_bf16, width


def modulation(block, temb, first, count):
    return (block.scale_shift_table + temb.float()).chunk(6, dim=1)[first:first + count]


def rotated(x, cos, sin):
    """diffusers' apply_rotary_emb: adjacent channels are a pair, the tables hold every angle twice."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out.type_as(x)


def qkv(block, x, temb, cos, sin):
    shift, scale = modulation(block, temb, 0, 2)
    h = (block.norm1(x.float()) * (1 + scale) + shift).type_as(x)
    q, k, v = block.attn1.to_q(h), block.attn1.to_k(h), block.attn1.to_v(h)
    q, k = (norm(t).unflatten(2, (block.attn1.heads, -1)) for norm, t in ((block.attn1.norm_q, q), (block.attn1.norm_k, k)))
    return rotated(q, cos, sin), rotated(k, cos, sin), v


def self_out(block, x, y, temb):
    gate, = modulation(block, temb, 2, 1)
    return (x.float() + block.attn1.to_out[0](y) * gate).type_as(x),


def cross_q(block, x):
    return block.attn2.norm_q(block.attn2.to_q(block.norm2(x.float()).type_as(x))),


def cross_out(block, x, y):
    return x + block.attn2.to_out[0](y),


def ffn_up(block, x, temb):
    shift, scale = modulation(block, temb, 3, 2)
    return block.ffn.net[0]((block.norm3(x.float()) * (1 + scale) + shift).type_as(x)),


def ffn_down(block, x, y, temb):
    gate, = modulation(block, temb, 5, 1)
    return (x.float() + block.ffn.net[2](y).float() * gate).type_as(x),


@dataclass
class Part:
    title: str
    function: object
    inputs: tuple   # names, in the function's order
    outputs: tuple  # moonkiln's names for what the function returns


PARTS = {
    "qkv": Part("norm, modulate → QKV → norm, rotate q and k", qkv, ("x", "temb", "cos", "sin"), ("q", "k", "qkv")),
    "self_out": Part("self-attention's output → gate, residual", self_out, ("x", "y", "temb"), ("sum",)),
    "cross_q": Part("norm → cross-attention's q → norm", cross_q, ("x",), ("q",)),
    "cross_out": Part("cross-attention's output → residual", cross_out, ("x", "y"), ("sum",)),
    "ffn_up": Part("norm, modulate → FFN up → GELU", ffn_up, ("x", "temb"), ("hidden",)),
    "ffn_down": Part("FFN down → gate, residual", ffn_down, ("x", "y", "temb"), ("sum",)),
}
SECONDS = {28800: 6.5, 75600: 10}


class Bound(torch.nn.Module):
    """A part with its block, for torch.compile."""

    def __init__(self, part, block):
        super().__init__()
        self.function, self.block = part.function, block

    def forward(self, *inputs):
        return self.function(self.block, *inputs)


def cases(ctx):
    lengths = {45: 1} if ctx.smoke else SECONDS
    check = Case("errors of the block's linears", 8, partial(measure_errors, ctx, 45 if ctx.smoke else 515))
    return [check] + [Case(f"{part.title}, {tokens:,} tokens", seconds, partial(measure_speed, ctx, name, tokens))
                      for tokens, seconds in lengths.items() for name, part in PARTS.items()]


def inputs_of(name, sizes, tokens, device):
    """By name, in fp32, of values that bf16 can hold but for the angles."""
    generator = torch.Generator(device).manual_seed(5)

    def rand(*shape):
        return (torch.rand(shape, generator=generator, device=device) * 2 - 1).bfloat16().float()

    dim = width(sizes)
    angles = torch.rand(1, tokens, 1, sizes["attention_head_dim"] // 2, generator=generator, device=device) * 6.28
    angles = angles.repeat_interleave(2, dim=-1)
    makers = {"x": lambda: rand(1, tokens, dim), "y": lambda: rand(1, tokens, sizes["ffn_dim"] if name == "ffn_down" else dim),
              "temb": lambda: rand(1, 6, dim), "cos": angles.cos, "sin": angles.sin}
    return {key: makers[key]() for key in PARTS[name].inputs}


def halved(inputs):
    """As the bf16 transformer gets them: the rotary tables stay in fp32."""
    return [t if key in ("cos", "sin") else t.bfloat16() for key, t in inputs.items()]


def sets_of(name, sizes, tokens):
    return dict(part=name, tokens=tokens, dim=width(sizes), heads=sizes["num_attention_heads"], ffn=sizes["ffn_dim"])


def measure_speed(ctx, name, tokens):
    sizes, part = TOY if ctx.smoke else A14B, PARTS[name]
    block = to_bf16(make_model(sizes, 1, ctx.device)).blocks[0]
    given = halved(inputs_of(name, sizes, tokens, ctx.device))
    function = ctx.compiled(Bound(part, block))

    def theirs():
        with torch.inference_mode():
            return function(*given)

    result = Result(row="linears", what=f"{part.title}, {tokens:,} tokens", kind="speed-up", unit="ms", bar=1.1, aim=1.15,
                    against="torch.compile" if ctx.compile else "PyTorch, eager")

    def ours(seconds):
        report = ctx.engine.bench(GRAPHS / "linear.lua", sets_of(name, sizes, tokens), iterations=ctx.runs_for(seconds))
        result.detail["groups"] = [[g["group"], g["candidate"], g["ms"]] for g in report["groups"]]
        return report["graph_ms"] / 1000

    ctx.in_turn(result, theirs, ours, scale=1000)
    return [result]


def measure_errors(ctx, tokens):
    """Of all parts at a small ragged length, to see that both sides compute the same."""
    sizes, results = TOY if ctx.smoke else A14B, []
    model = round_weights(make_model(sizes, 1, ctx.device))
    with torch.inference_mode(), ctx.folder(need=4 << 30) as folder:
        files.write(folder / "block.safetensors", {k: t.bfloat16() for k, t in model.blocks[0].state_dict().items()})
        given = {name: inputs_of(name, sizes, tokens, ctx.device) for name in PARTS}
        want = {name: torch.cat([t.flatten() for t in part.function(model.blocks[0], *given[name].values())])
                for name, part in PARTS.items()}
        block = to_bf16(model).blocks[0]
        for name, part in PARTS.items():
            got = torch.cat([t.flatten().float() for t in part.function(block, *halved(given[name]))])
            result = Result(row="linears", what=part.title, kind="error", unit="error", bar=1.5, against="PyTorch bf16, eager",
                            theirs=relative(got, want[name]))
            question = partial(our_error, ctx, folder, name, sizes, tokens, given[name], want[name])
            result.ours, result.problem, result.note = ctx.ask(question)
            results.append(result)
    return results


def our_error(ctx, folder, name, sizes, tokens, given, want):
    given = {key: t[0, :, 0, ::2] if key in ("cos", "sin") else t[0] for key, t in given.items()}
    files.write(folder / f"{name}.x", given)
    ctx.engine.run(GRAPHS / "linear.lua", sets_of(name, sizes, tokens), "--weights", folder / "block.safetensors",
                   "--inputs", folder / f"{name}.x", "--outputs", folder / f"{name}.y")
    outputs = files.read(folder / f"{name}.y")
    got = [outputs[key][:, 2 * width(sizes):] if key == "qkv" else outputs[key] for key in PARTS[name].outputs]
    return relative(torch.cat([t.flatten() for t in got]).to(want.device), want)

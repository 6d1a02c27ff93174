"""Attention alone against PyTorch's, time and error."""
from functools import partial

import torch

from compare import files
from compare.context import Case, relative
from compare.engine import GRAPHS
from compare.results import Result

LENGTHS = ((28800, 28800, 7), (32760, 32760, 8), (29716, 29716, 7), (75600, 75600, 16), (75600, 512, 9))  # queries, keys, seconds
TOY_LENGTHS = ((300, 300, 1), (300, 64, 1))


def cases(ctx):
    heads, head_dim = (2, 64) if ctx.smoke else (40, 128)
    return [Case(f"attention {queries:,} × {keys:,}", seconds, partial(measure, ctx, queries, keys, heads, head_dim))
            for queries, keys, seconds in (TOY_LENGTHS if ctx.smoke else LENGTHS)]


def reference(q, k, v, rows):
    """Some rows of the result in fp32, a head at a time."""
    out = torch.empty(len(rows), *q.shape[1:], device=q.device)
    for h in range(q.shape[1]):
        scores = q[rows, h].float() @ k[:, h].float().T * q.shape[2] ** -0.5
        out[:, h] = scores.softmax(-1) @ v[:, h].float()
    return out


def measure(ctx, queries, keys, heads, head_dim):
    generator = torch.Generator(ctx.device).manual_seed(3)
    q, k, v = (torch.randn(n, heads, head_dim, generator=generator, device=ctx.device).bfloat16() for n in (queries, keys, keys))
    # As in the transformer: [tokens, heads, channels] in memory, seen with the heads first.
    views = [t.transpose(0, 1)[None] for t in (q, k, v)]

    def theirs():
        with torch.inference_mode(), ctx.attention():
            return torch.nn.functional.scaled_dot_product_attention(*views)

    cross = queries != keys
    what = f"{'cross-attention' if cross else 'attention'} {heads} × {head_dim}, {queries:,} × {keys:,}"
    against = {"cudnn": "PyTorch SDPA, cuDNN"}.get(ctx.attention_name, f"PyTorch SDPA, {ctx.attention_name}")
    shared = dict(row="attention", against=against)
    speed = Result(what=what, kind="rate", unit="TFLOP/s", bar=1.0, aim=1.2 if cross else 1.1, **shared)
    error = Result(what=what, kind="error", unit="error", bar=1.0, **shared)
    sets = dict(queries=queries, keys=keys, heads=heads, head_dim=head_dim)
    flop = 4 * heads * head_dim * queries * keys

    edge = min(40, queries // 4)
    rows = torch.cat([torch.arange(edge), torch.arange(queries - edge, queries),
                      torch.randint(queries, (176,), generator=torch.Generator().manual_seed(4))]).to(ctx.device)
    want = reference(q, k, v, rows)
    error.theirs = relative(theirs()[0].transpose(0, 1)[rows], want)
    with ctx.folder(need=2 * (q.numel() + k.numel() + v.numel()) + 4 * q.numel()) as folder:
        given = ("--inputs", folder / "x.safetensors")
        # As the transformer has them here: bf16 numbers held as f16.
        files.write(given[1], {name: t.half() for name, t in (("q", q), ("k", k), ("v", v))})
        ctx.in_turn(speed, theirs, lambda seconds: ctx.engine.bench(
            GRAPHS / "attention.lua", sets, *given, weights=(), iterations=ctx.runs_for(seconds))["graph_ms"] / 1000,
            scale=lambda seconds: flop / seconds / 1e12)
        _, error.problem, error.note = ctx.ask(lambda: ctx.engine.run(
            GRAPHS / "attention.lua", sets, *given, "--outputs", folder / "y.safetensors"))
        if (folder / "y.safetensors").exists():
            error.ours = relative(files.read(folder / "y.safetensors")["o"][rows.cpu()].to(ctx.device), want)
    return [speed, error]

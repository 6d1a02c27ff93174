"""The transformer: a guided step of A14B, its time outside matmul and attention, and one forward of the 1.3B model."""
import statistics
from functools import partial

import torch

from compare.context import Case
from compare.engine import MODELS
from compare.results import Result
from compare.wan import A14B, LATENTS, SMALL, TOY, make_inputs, make_model, our_sets, to_bf16

SECONDS = {28800: 42, 32760: 46, 75600: 140}
SHARE_TOKENS = 75600
HEAVY = ("matmul", "attention", "conv")


def cases(ctx):
    return [Case(f"guided step, {tokens:,} tokens", SECONDS.get(tokens, 2), partial(measure_step, ctx, tokens)) for tokens in ctx.tokens]


def cases_small(ctx):
    return [Case("1.3B forward", 34, partial(measure_small, ctx))]


def guided_step(ctx, model, inputs):
    latents, timestep, (cond, uncond) = inputs
    forward = ctx.compiled(model)

    def step():
        with torch.inference_mode(), ctx.attention():
            v = [forward(latents, timestep, context, return_dict=False)[0] for context in (cond, uncond)]
            return v[1] + 4.0 * (v[0] - v[1])

    assert step().isfinite().all().item(), "diffusers' output is not finite"
    return step


def measure_step(ctx, tokens):
    """diffusers is timed with 1 and 3 layers and extrapolated; moonkiln runs all layers, as one CUDA graph."""
    sizes, latent = {**(TOY if ctx.smoke else A14B), "num_layers": ctx.layers}, LATENTS[tokens]
    model, seconds = to_bf16(make_model(sizes, 3, ctx.device)), {}
    blocks, inputs = model.blocks, make_inputs(sizes, latent, ctx.device, torch.bfloat16)
    for layers in (1, 3):
        model.blocks = blocks[:layers]
        seconds[layers] = statistics.median(ctx.sample(guided_step(ctx, model, inputs), least=3))
    layer = (seconds[3] - seconds[1]) / 2
    step = Result(row="step", what=f"guided A14B step, {tokens:,} tokens", kind="time", unit="s", bar=0.9, aim=0.85,
                  against=ctx.peer_name(), theirs=seconds[1] + layer * (ctx.layers - 1),
                  detail={"latent": latent, "layers": ctx.layers, "their_1_layer": seconds[1], "their_3_layers": seconds[3]})
    del model, blocks, inputs
    ctx.release()
    report, step.problem, step.note = ctx.ask(lambda: ctx.engine.bench(
        MODELS / "wan_dit.lua", our_sets(sizes, latent, steps=40), iterations=ctx.iterations))
    by_kind = kinds(report)
    if report:
        step.ours = report["graph_ms"] / 1000
        step.detail["our_ms_by_kind"] = by_kind
    if tokens != SHARE_TOKENS:
        return [step]
    return [step, Result(row="step", what=f"outside matmul and attention, {tokens:,}-token step", kind="share", unit="%",
                         ours=outside(by_kind), bar=3, aim=1.5, problem=step.problem, note=step.note, detail={"our_ms_by_kind": by_kind})]


def kinds(report):
    """Milliseconds by kind of group."""
    sums = {}
    for group in report["groups"] if report else []:
        sums[group["kind"]] = sums.get(group["kind"], 0) + group["ms"]
    return sums


def outside(by_kind):
    total = sum(by_kind.values())
    return 100 * (1 - sum(by_kind.get(kind, 0) for kind in HEAVY) / total) if total else None


def measure_small(ctx):
    sizes, tokens = (TOY, 45) if ctx.smoke else (SMALL, 32760)
    latent = LATENTS[tokens]
    model = to_bf16(make_model(sizes, sizes["num_layers"], ctx.device))
    latents, timestep, (context, _) = make_inputs(sizes, latent, ctx.device, torch.bfloat16)
    forward = ctx.compiled(model)

    def theirs():
        with torch.inference_mode(), ctx.attention():
            return forward(latents, timestep, context, return_dict=False)[0]

    result = Result(row="small", what=f"1.3B forward, {tokens:,} tokens", kind="time", unit="ms", bar=0.85, aim=0.75,
                    against=ctx.peer_name())
    sets = our_sets(sizes, latent, mode="forward", guided=False)
    ctx.in_turn(result, theirs, lambda seconds: ctx.engine.bench(
        MODELS / "wan_dit.lua", sets, iterations=ctx.runs_for(seconds))["graph_ms"] / 1000, scale=1000)
    return [result]

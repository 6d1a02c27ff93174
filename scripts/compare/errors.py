"""Relative error of the transformer's forward against fp32: diffusers in bf16 and moonkiln, on the same weights and inputs."""
from functools import partial

import torch

from compare import files
from compare.context import Case, relative
from compare.engine import MODELS
from compare.results import Result
from compare.wan import A14B, TOY, make_inputs, make_model, round_weights, to_bf16, weight_count

LAYER_LATENT, FORWARD_LATENT = (5, 60, 104), (5, 30, 52)
TOY_LATENT = (3, 6, 10)


def cases_layer(ctx):
    return [Case("error of one layer", 12, partial(measure, ctx, "layer-error", 1, LAYER_LATENT))]


def cases_forward(ctx):
    return [Case(f"error of {ctx.layers} layers", 45, partial(measure, ctx, "forward-error", ctx.layers, FORWARD_LATENT))]


def measure(ctx, row, layers, latent):
    sizes = TOY if ctx.smoke else A14B
    with ctx.folder(need=2 * weight_count(sizes, layers) + (1 << 28)) as folder:
        results, _ = compare(ctx, folder, row, sizes, layers, TOY_LATENT if ctx.smoke else latent, torch.bfloat16)
    return results


def exact_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Attention by plain fp32 matrix products, a slice of the queries at a time."""
    assert attn_mask is None and not is_causal and not dropout_p and not enable_gqa
    scale = scale or query.shape[-1] ** -0.5
    keys = key.transpose(-1, -2).contiguous()
    return torch.cat([((q * scale) @ keys).softmax(-1) @ value for q in query.split(512, dim=2)], dim=2)


def run(model, latents, timestep, context):
    """The result, and what the first block made."""
    taps = {}
    hook = model.blocks[0].register_forward_hook(lambda _module, _inputs, result: taps.__setitem__("block0", result[0]))
    with torch.inference_mode():
        out = model(latents, timestep, context, return_dict=False)[0][0]
    hook.remove()
    return {"out": out.float(), "block0": taps["block0"].float()}


def compare(ctx, folder, row, sizes, layers, latent, stored):
    """Leaves in the folder: transformer/ (weights in `stored`), inputs, reference (out, block0, in fp32) and moonkiln's output.
    Returns the results, and the errors by name. Weights stored in bf16 are rounded before anyone uses them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.safetensors").unlink(missing_ok=True)
    model = make_model(sizes, layers, ctx.device)
    if stored == torch.bfloat16:
        round_weights(model)
    latents, timestep, (context, _) = make_inputs(sizes, latent, ctx.device, torch.float32)
    native = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = exact_attention
    try:
        reference = run(model, latents, timestep, context)
    finally:
        torch.nn.functional.scaled_dot_product_attention = native
    files.write(folder / "reference.safetensors", reference)
    files.write(folder / "inputs.safetensors", {"latents": latents[0], "timesteps": timestep.float(),
                                                "step": torch.zeros(1, dtype=torch.int32), "context": context[0]})
    if ctx.engine and stored != torch.bfloat16:
        files.write_model(model, folder / "transformer", stored)
    to_bf16(model)
    if ctx.engine and stored == torch.bfloat16:  # exact, and half the memory
        files.write_model(model, folder / "transformer", stored)
    with ctx.attention():
        theirs = run(model, latents.bfloat16(), timestep, context.bfloat16())
    errors = {"diffusers_bf16": {name: relative(t, reference[name]) for name, t in theirs.items()}}
    want = reference["out"].cpu()
    del model, theirs, latents, context, reference
    ctx.release()

    plural = "layer" if layers == 1 else "layers"
    result = Result(row=row, what=f"forward of {layers} A14B {plural}, latent {'×'.join(map(str, latent))}", kind="error", unit="error",
                    against="diffusers bf16", theirs=errors["diffusers_bf16"]["out"], bar=1.0)
    sets = dict(zip(("frames", "height", "width"), latent), mode="forward", guided=False, policy=ctx.policy,
                config=f"@{folder / 'transformer' / 'config.json'}")
    _, result.problem, result.note = ctx.ask(lambda: ctx.engine.run(
        MODELS / "wan_dit.lua", sets, "--weights", folder / "transformer", "--inputs", folder / "inputs.safetensors",
        "--outputs", folder / "output.safetensors"))
    if (folder / "output.safetensors").exists():
        result.ours = relative(files.read(folder / "output.safetensors")["velocity"].reshape(want.shape), want)
        errors["moonkiln"] = {"out": result.ours}
    return [result], errors

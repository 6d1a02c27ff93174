"""The VAE's decoder: 81 frames in 16 bits, and the error of one frame."""
from functools import partial

import torch
from diffusers import AutoencoderKLWan

from compare import files
from compare.context import Case, relative
from compare.engine import MODELS
from compare.results import Result
from compare.wan import randomize

SIZES = (("480p", 60, 104, 19), ("720p", 90, 160, 30))
TOY = dict(base_dim=8)


def cases(ctx):
    sizes = (("toy", 4, 6, 1),) if ctx.smoke else SIZES
    error = Case("decoder's error", 6, partial(measure_error, ctx, *((4, 6) if ctx.smoke else (30, 52))))
    return [error] + [Case(f"decoding at {name}", seconds, partial(measure_speed, ctx, name, height, width))
                      for name, height, width, seconds in sizes]


def make_decoder(ctx):
    with torch.device(ctx.device):
        vae = randomize(AutoencoderKLWan(**(TOY if ctx.smoke else {})))
    vae.decoder.conv_out.weight.mul_(0.2)  # most pixels within -1..1, where the result is cut off
    return vae


def measure_speed(ctx, name, height, width):
    """moonkiln decodes in chunks, one latent frame each: the first, which gives one frame, and twenty that give four and take the same
    time. Each of both programs is timed alone, which is the decoding without the way to the host, as it is for diffusers."""
    frames = 2 if ctx.smoke else 21
    vae = make_decoder(ctx).bfloat16()
    generator = torch.Generator(ctx.device).manual_seed(6)
    latents = torch.randn(1, 16, frames, height, width, generator=generator, device=ctx.device).bfloat16()

    def theirs():
        with torch.inference_mode():
            return vae.decode(latents, return_dict=False)[0]

    def ours(seconds):
        parts = {}
        for entry in ("first", "next"):
            report = ctx.engine.bench(MODELS / "wan_vae.lua", dict(height=height, width=width), "--entry", entry,
                                      iterations=ctx.runs_for(seconds / frames))
            parts[entry] = report["graph_ms"] / 1000
        result.detail["our_seconds"] = parts
        return parts["first"] + (frames - 1) * parts["next"]

    result = Result(row="vae", what=f"VAE decode, {4 * frames - 3} frames, {name}", kind="time", unit="s", bar=0.6, aim=0.4,
                    against="diffusers bf16, eager")
    return [ctx.in_turn(result, theirs, ours, least=3)]


def measure_error(ctx, height, width):
    vae = make_decoder(ctx)
    generator = torch.Generator(ctx.device).manual_seed(6)
    latents = torch.randn(1, 16, 1, height, width, generator=generator, device=ctx.device)
    mean, std = (torch.tensor(v, device=ctx.device).view(1, 16, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    result = Result(row="vae", what="VAE decode, one frame", kind="error", unit="error", bar=1.5, against="diffusers bf16")
    with torch.inference_mode(), ctx.folder(need=1 << 30) as folder:
        files.write_model(vae, folder / "vae", torch.float32)
        files.write(folder / "x.safetensors", {"latent": latents[0, :, 0]})
        given = latents * std + mean
        want = vae.decode(given, return_dict=False)[0]
        result.theirs = relative(vae.bfloat16().decode(given.bfloat16(), return_dict=False)[0], want)
        ctx.release()
        _, result.problem, result.note = ctx.ask(lambda: ctx.engine.run(
            MODELS / "wan_vae.lua", dict(height=height, width=width, config=f"@{folder / 'vae' / 'config.json'}"), "--entry", "first",
            "--weights", folder / "vae", "--inputs", folder / "x.safetensors", "--outputs", folder / "y.safetensors"))
        if (folder / "y.safetensors").exists():
            frame = files.read(folder / "y.safetensors")["frame"][0].permute(2, 0, 1)
            result.ours = relative(frame.to(ctx.device), want[0, :, 0])
    return [result]

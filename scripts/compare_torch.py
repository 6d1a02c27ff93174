#!/usr/bin/env python3
"""Compares moonkiln with diffusers + cuDNN attention + torch.compile on the same GPU, in the same run.

Speed (default): seconds of one guided step (two forwards) of the Wan2.2 A14B transformer with random weights. diffusers
is timed with 1 and 3 layers and extrapolated: time(L) = t1 + (t3 - t1)/2 · (L - 1). moonkiln runs all layers, as one CUDA graph:

    python3 scripts/compare_torch.py --tokens 28800,32760,75600 --json out.json --moonkiln build/moonkiln

Error (--layer-error DIR): one full-width layer with random weights. Writes DIR/transformer/ (a diffusers folder, F32),
DIR/inputs.safetensors and DIR/reference.safetensors (out, block0, in fp32 without TF32), has moonkiln write its `velocity`
to DIR/output.safetensors, and prints the relative errors of diffusers in bf16 and of moonkiln:

    python3 scripts/compare_torch.py --layer-error /tmp/layer --moonkiln build/moonkiln

Needs PyTorch with CUDA (2.11 was used), transformers, and diffusers. On a machine with no network, bring diffusers as a
wheel (it is pure Python; transformers' and PyTorch's own dependencies cover it):

    python3 -m pip download --no-deps -d wheels diffusers==0.42.1          # where there is a network
    python3 -m pip install --no-index --no-deps --target site wheels/*.whl  # on the GPU machine
    PYTHONPATH=site python3 scripts/compare_torch.py

--smoke runs everything at toy sizes on the CPU, to test this script. The three token counts take about two minutes;
--budget stops before a token count that would begin later than that.
"""
import argparse
import contextlib
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

MODELS = Path(__file__).resolve().parent / "models"
A14B = dict(num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, text_dim=4096, num_layers=40)
TOY = dict(num_attention_heads=2, attention_head_dim=64, ffn_dim=256, text_dim=64, num_layers=4)
LATENTS = {  # tokens: latent frames, height, width
    28800: (8, 90, 160), 32760: (21, 60, 104), 75600: (21, 90, 160), 45: (3, 6, 10), 128: (4, 8, 16),
}
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}


# ---- models and inputs ----------------------------------------------------------------------------------------------


def make_model(sizes, layers, device):
    """Random weights of realistic size: matrices N(0, 1/fan_in), gains 1 ± 0.1, biases ± 0.1, modulation ± 0.3."""
    with torch.device(device):
        model = WanTransformer3DModel(**{**sizes, "num_layers": layers}).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(1)
    for name, p in model.named_parameters():
        if "scale_shift_table" in name:
            p.normal_(0, 0.3, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            p.normal_(1, 0.1, generator=generator)
        elif p.ndim == 1:
            p.normal_(0, 0.1, generator=generator)
        else:
            p.normal_(0, 1 / math.sqrt(p[0].numel()), generator=generator)
    return model


def to_bf16(model):
    """What from_pretrained(torch_dtype=torch.bfloat16) does: a few modules stay in fp32, matched by name component."""
    for name, p in model.named_parameters():
        if not set(name.split(".")) & set(model._keep_in_fp32_modules):
            p.data = p.data.bfloat16()
    return model


def make_inputs(sizes, latent, device, dtype, lengths=(120, 60)):
    generator = torch.Generator(device).manual_seed(2)

    def randn(*shape):
        return torch.randn(shape, generator=generator, device=device)

    latents = randn(1, 16, *latent)
    contexts = []
    for length in lengths:
        context = torch.zeros(1, 512, sizes["text_dim"], device=device)
        context[:, :length] = randn(1, length, sizes["text_dim"])
        contexts.append(context.to(dtype))
    return latents.to(dtype), torch.tensor([500], device=device), contexts


def attention(name):
    return sdpa_kernel(BACKENDS[name]) if name in BACKENDS else contextlib.nullcontext()


# ---- speed ----------------------------------------------------------------------------------------------------------


def timed(step, device):
    if device == "cpu":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def measure(model, inputs, args):
    """Median seconds of a guided step of this model, and the seconds before the first result."""
    latents, timestep, (cond, uncond) = inputs
    torch._dynamo.reset()
    forward = torch.compile(model, dynamic=False) if args.compile else model

    def step():
        v = [forward(latents, timestep, context, return_dict=False)[0] for context in (cond, uncond)]
        return v[1] + 4.0 * (v[0] - v[1])

    with torch.inference_mode(), attention(args.attention):
        start = time.perf_counter()
        assert step().isfinite().all().item(), "diffusers' output is not finite"
        first = time.perf_counter() - start
        once = timed(step, args.device)
        runs = max(3, min(10, int(args.seconds / once)))
        return statistics.median(timed(step, args.device) for _ in range(runs)), first


def release(device):
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def run_moonkiln(program, command, script, options, sets):
    """Runs a command of moonkiln on a graph; returns (its standard output, None) or (None, what went wrong)."""
    line = [program, command, str(MODELS / script), *options]
    for key, value in sets.items():
        line += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode:
        return None, f"exit {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}"
    return done.stdout, None


def our_config(sizes):
    dim = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    return {"dim": dim, "num_heads": sizes["num_attention_heads"], "ffn_dim": sizes["ffn_dim"], "num_layers": sizes["num_layers"],
            "in_dim": 16, "out_dim": 16, "text_dim": sizes["text_dim"]}


def our_step_seconds(args, sizes, latent):
    sets = dict(zip(("frames", "height", "width"), latent), config=our_config({**sizes, "num_layers": args.layers}), steps=40)
    options = ["--synthetic", "1", "--iterations", str(args.iterations), "--json"]
    out, problem = run_moonkiln(args.moonkiln, "bench", "wan_dit.lua", options, sets)
    if problem:
        return None, problem
    report = json.loads(out)
    by_kind = {}
    for group in report["groups"]:
        by_kind[group["kind"]] = by_kind.get(group["kind"], 0) + group["ms"] * group["calls"]
    print(f"  moonkiln {latent}: {report['graph_ms']:.1f} ms; " + ", ".join(f"{k} {v:.1f}" for k, v in by_kind.items()), file=sys.stderr)
    return report["graph_ms"] / 1000, None


def compare_speed(args, sizes):
    start, rows = time.monotonic(), []
    shapes = [LATENTS[n] for n in args.tokens]
    model = to_bf16(make_model(sizes, 3, args.device))
    blocks = model.blocks
    for tokens, latent in zip(args.tokens, shapes):
        if time.monotonic() - start > args.budget:
            print(f"{tokens} tokens: left out, {args.budget:g} s are over", file=sys.stderr)
            continue
        inputs, seconds, first = make_inputs(sizes, latent, args.device, torch.bfloat16), {}, {}
        for layers in (1, 3):
            model.blocks = blocks[:layers]
            seconds[layers], first[layers] = measure(model, inputs, args)
        layer = (seconds[3] - seconds[1]) / 2
        rows.append({
            "tokens": tokens, "latent": latent, "torch_1_layer": seconds[1], "torch_3_layers": seconds[3],
            "torch_first_call": first[3], "torch_layer_seconds": layer,
            "torch_step_seconds": seconds[1] + layer * (args.layers - 1)})
    del model, blocks, inputs
    release(args.device)

    for row in rows:
        if not args.moonkiln:
            continue
        value, problem = our_step_seconds(args, sizes, row["latent"])
        if problem:
            print(f"{row['tokens']} tokens: moonkiln: {problem}", file=sys.stderr)
            row["moonkiln_error"] = problem
        else:
            row["moonkiln_step_seconds"] = value
            row["ratio"] = value / row["torch_step_seconds"]

    mode = f"diffusers, {args.attention} attention, {'torch.compile' if args.compile else 'eager'}"
    print(f"one guided step, {args.layers} layers, seconds ({mode}; PyTorch {torch.__version__})")
    print(f"{'tokens':>8} {'1 layer':>9} {'3 layers':>9} {'diffusers':>10} {'moonkiln':>9} {'ratio':>6} {'first call':>11}")
    for row in rows:
        ours = f"{row['moonkiln_step_seconds']:9.3f} {row['ratio']:6.3f}" if "ratio" in row else f"{'-':>9} {'-':>6}"
        print(f"{row['tokens']:8} {row['torch_1_layer']:9.4f} {row['torch_3_layers']:9.4f} {row['torch_step_seconds']:10.3f} "
              f"{ours} {row['torch_first_call']:9.1f} s")
    return {"mode": mode, "layers": args.layers, "rows": rows, "wall_seconds": time.monotonic() - start}


# ---- error ----------------------------------------------------------------------------------------------------------


def exact_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Attention by plain fp32 matrix products, a slice of the queries at a time."""
    assert attn_mask is None and not is_causal and not dropout_p and not enable_gqa
    scale = scale or query.shape[-1] ** -0.5
    keys = key.transpose(-1, -2).contiguous()
    return torch.cat([((q * scale) @ keys).softmax(-1) @ value for q in query.split(512, dim=2)], dim=2)


def run_layer(model, latents, timestep, context):
    taps = {}
    hook = model.blocks[0].register_forward_hook(lambda _module, _inputs, result: taps.__setitem__("block0", result[0]))
    with torch.inference_mode():
        out = model(latents, timestep, context, return_dict=False)[0][0]
    hook.remove()
    return {"out": out.float(), "block0": taps["block0"].float()}


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def compare_error(args, sizes):
    folder = args.layer_error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.safetensors").unlink(missing_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    latent = tuple(int(n) for n in args.error_latent.split("x"))
    model = make_model(sizes, 1, args.device)
    latents, timestep, (context, _) = make_inputs(sizes, latent, args.device, torch.float32)
    model.save_pretrained(folder / "transformer", max_shard_size="100GB")
    padded = torch.zeros(512, context.shape[-1])
    padded[: context.shape[1]] = context[0].cpu()
    save_file({"latents": latents[0].cpu(), "timesteps": timestep.float().cpu(), "step": torch.zeros(1, dtype=torch.int32),
               "context": padded}, folder / "inputs.safetensors")

    native = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = exact_attention
    try:
        reference = run_layer(model, latents, timestep, context)
    finally:
        torch.nn.functional.scaled_dot_product_attention = native
    save_file({name: t.cpu().contiguous() for name, t in reference.items()}, folder / "reference.safetensors")
    with attention(args.attention):
        theirs = run_layer(to_bf16(model), latents.bfloat16(), timestep, context.bfloat16())
    errors = {"diffusers_bf16": {name: relative(t, reference[name]) for name, t in theirs.items()}}
    reference = {name: t.cpu() for name, t in reference.items()}
    del model, theirs, latents, context
    release(args.device)

    if args.moonkiln:
        options = ["--weights", str(folder / "transformer"), "--inputs", str(folder / "inputs.safetensors"),
                   "--outputs", str(folder / "output.safetensors")]
        sets = dict(zip(("frames", "height", "width"), latent), mode="forward", guided=False, policy=args.policy,
                    config=f"@{folder / 'transformer' / 'config.json'}")
        _, problem = run_moonkiln(args.moonkiln, "run", "wan_dit.lua", options, sets)
        if problem:
            print(f"moonkiln: {problem}", file=sys.stderr)
        else:
            ours = load_file(folder / "output.safetensors")["velocity"]
            errors["moonkiln"] = {"out": relative(ours.reshape(reference["out"].shape), reference["out"])}
    print(f"relative error of one layer against fp32, latent {args.error_latent}")
    print(f"{'':>16} {'block0':>10} {'out':>10}")
    for who, error in errors.items():
        print(f"{who:>16} " + " ".join(f"{error[n]:10.3e}" if n in error else f"{'-':>10}" for n in ("block0", "out")))
    return {"latent": latent, "errors": errors}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="28800,32760,75600", help="comma list of %(default)s")
    parser.add_argument("--layers", type=int, default=40, help="layers to extrapolate to (%(default)s)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="diffusers eager")
    parser.add_argument("--attention", choices=[*BACKENDS, "default"], default="cudnn")
    parser.add_argument("--moonkiln", metavar="PROGRAM", help="build/moonkiln")
    parser.add_argument("--iterations", type=int, default=3, help="moonkiln's timed steps, of which the median counts (%(default)s)")
    parser.add_argument("--policy", default="exact", help="moonkiln's precision in --layer-error (%(default)s)")
    parser.add_argument("--layer-error", metavar="DIR", type=Path, help="compare errors instead of times")
    parser.add_argument("--error-latent", default="5x60x104", help="latent frames, height, width (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds per measurement (%(default)s)")
    parser.add_argument("--budget", type=float, default=120.0, help="begin no token count after this many seconds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result here too")
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    args = parser.parse_args()
    args.device, sizes = ("cpu", TOY) if args.smoke else ("cuda", A14B)
    if args.smoke:
        args.tokens, args.attention, args.compile, args.error_latent = "45,128", "default", False, "3x6x10"
    elif not torch.cuda.is_available():
        parser.error("no CUDA device (--smoke needs none)")
    args.tokens = [int(n) for n in args.tokens.split(",")]
    unknown = set(args.tokens) - LATENTS.keys()
    if unknown:
        parser.error(f"unknown token counts {sorted(unknown)}; known: {sorted(LATENTS)}")

    result = compare_error(args, sizes) if args.layer_error else compare_speed(args, sizes)
    if not args.smoke:
        result["device"] = torch.cuda.get_device_name()
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

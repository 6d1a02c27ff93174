#!/usr/bin/env python3
"""How long moonkiln takes to start: the marks of MOONKILN_TIMELINE, as a table.

    python3 scripts/start_times.py MODEL_DIR|a14b|14b|1.3b [--sizes 832x480x5,1280x720x5]

Runs `generate` with one step, first with an empty kernel cache ("cold"), then for each size once and --runs times more. Milliseconds
since the process began, medians:

    launch    the first kernel can be launched
    text      the text encoder's weights: how long loading them took
    weights   the same of the transformer's
    step      the first step is launched
    aside     that without the time for both weights
    compiled  kernels that were not in the cache

A model's name stands for random weights made on the GPU, which takes next to no time; so cuBLASLt, which sets itself up while weights
are loaded, is then waited for. --make writes the whole A14B model with random weights, 40 GB (both experts are one file), as a
folder in the original layout; a folder in memory will do:

    python3 scripts/start_times.py --make /dev/shm/a14b && python3 scripts/start_times.py /dev/shm/a14b
"""
import argparse
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COLUMNS = ("launch", "text", "weights", "step", "aside", "compiled")
NAMES = ("a14b", "14b", "1.3b")


def marks(text):
    """(milliseconds, what) of every mark."""
    return [(float(ms), what) for ms, what in re.findall(r"^moonkiln: +([\d.]+) ms: (.*)$", text.replace("\r", "\n"), re.MULTILINE)]


def figures(text):
    found = marks(text)

    def at(what):
        times = [ms for ms, mark in found if mark.startswith(what)]
        if not times:
            sys.exit(f"start_times.py: no mark '{what}'; does generate run on the GPU?\n{text[-2000:]}")
        return times[0]

    row = {"launch": at("umt5: launches ready"), "step": at("wan_dit: step is launched")}
    row["text"] = at("umt5: weights loaded") - row["launch"]
    row["weights"] = at("wan_dit: weights loaded") - at("wan_dit: launches ready")
    row["aside"] = row["step"] - row["text"] - row["weights"]
    row["compiled"] = int(re.search(r"GPU closed, (\d+) kernels compiled", text)[1])
    return row


def generate(args, size, cache, out):
    width, height, frames = size.split("x")
    model = ["--synthetic", "1", "--config", args.model] if args.model in NAMES else [args.model]
    command = [args.moonkiln, "generate", *model, "--prompt", "two cats box on a stage", "--steps", "1", "--size", f"{width}x{height}",
               "--frames", frames, "--backend", "cuda", "--tune-budget", "0", "--out", str(out / "start.y4m")]
    env = dict(os.environ, MOONKILN_TIMELINE="on", MOONKILN_CACHE=str(cache))
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"start_times.py: {' '.join(command)}\n{done.stderr[-2000:]}")
    return figures(done.stderr)


def show(label, rows):
    print(f"{label:24}" + "".join(f"{statistics.median(row[c] for row in rows):9.0f}" for c in COLUMNS), flush=True)


def measure(args):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        cache = args.cache or out / "cache"
        print(f"{'':24}" + "".join(f"{c:>9}" for c in COLUMNS))
        for i, size in enumerate(args.sizes.split(",")):
            if i == 0 and not args.cache:
                show(f"{size}, cold", [generate(args, size, cache, out)])
            elif i > 0:
                show(f"{size}, first time", [generate(args, size, cache, out)])
            show(size, [generate(args, size, cache, out) for _ in range(args.runs)])


def weights_of(program, script, *sets):
    """(name, shape) of a network's weights, read off its plan."""
    plan = subprocess.run([program, "emit", REPOSITORY / "scripts" / "models" / script, "--stage", "plan", *sets], capture_output=True,
                          text=True, check=True, env=dict(os.environ, MOONKILN_DATA=str(REPOSITORY))).stdout
    return [(name, [int(n) for n in shape.split(", ")])
            for name, shape in re.findall(r"^ +upload (\S+) \S+ \[([\d, ]+)\]", plan, re.MULTILINE)]


def write(path, tensors, dtype):
    """A safetensors file of values like those of a trained model's."""
    import numpy
    size, header, at = {"BF16": 2, "F32": 4}[dtype], {}, 0
    for name, shape in tensors:
        count = int(numpy.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + count * size]}
        at += count * size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    normal = numpy.random.default_rng(0).standard_normal(1 << 24, dtype=numpy.float32)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            count, fan_in = int(numpy.prod(shape)), int(numpy.prod(shape[1:]))
            matrix = len(shape) > 1 and fan_in > 1
            gain = not matrix and name.endswith(("weight", "gamma"))
            values = normal * numpy.float32(fan_in ** -0.5) if matrix else 1 + 0.1 * normal if gain else 0.02 * normal
            data = (values.view(numpy.uint32) >> 16).astype(numpy.uint16) if dtype == "BF16" else values
            for begin in range(0, count, len(data)):
                file.write(memoryview(data[:count - begin]))
    print(f"{path}: {at / 1e9:.1f} GB", flush=True)


def make(args):
    config = {"dim": 5120, "num_heads": 40, "ffn_dim": 13824, "num_layers": args.layers, "in_dim": 16, "out_dim": 16, "freq_dim": 256,
              "text_len": 512, "model_type": "t2v", "eps": 1e-6}
    latent = ("--set", "height=60", "--set", "width=104")
    expert = args.make / "high_noise_model"
    tokenizer = args.make / "google" / "umt5-xxl"
    expert.mkdir(parents=True)
    tokenizer.mkdir(parents=True)
    shutil.copy(REPOSITORY / "tests" / "vectors" / "tokenizer" / "spiece.model", tokenizer)
    (expert / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    dit = weights_of(args.moonkiln, "wan_dit.lua", "--set", f"config={json.dumps(config)}", "--set", "frames=2", "--set", "steps=1", *latent)
    write(expert / "diffusion_pytorch_model.safetensors", dit, "BF16")
    text = weights_of(args.moonkiln, "umt5.lua", "--set", f"layers={args.layers * 24 // 40}")
    write(args.make / "models_t5_umt5-xxl-enc-bf16.safetensors", text, "BF16")
    write(args.make / "Wan2.1_VAE.safetensors", weights_of(args.moonkiln, "wan_vae.lua", *latent), "F32")
    (args.make / "low_noise_model").symlink_to("high_noise_model")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder, or a14b, 14b, 1.3b")
    parser.add_argument("--sizes", default="832x480x5,1280x720x5,704x384x9,832x480x21", help="WIDTHxHEIGHTxFRAMES, ... (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each size (%(default)s)")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="a kernel cache that is there (default: a new one)")
    parser.add_argument("--moonkiln", metavar="PROGRAM", default=str(REPOSITORY / "build" / "moonkiln"), help="default: build/moonkiln")
    parser.add_argument("--make", metavar="DIR", type=Path, help="write a model with random weights instead; needs NumPy")
    parser.add_argument("--layers", type=int, default=40, help="of the model that is written (%(default)s)")
    args = parser.parse_args()
    if bool(args.model) == bool(args.make):
        parser.error("give a model, or --make DIR")
    if args.make and args.make.exists():
        parser.error(f"{args.make} is there already")
    if args.runs < 1 or not all(re.fullmatch(r"\d+x\d+x\d+", size) for size in args.sizes.split(",")):
        parser.error("--runs takes 1 or more, --sizes WIDTHxHEIGHTxFRAMES with commas between")
    make(args) if args.make else measure(args)


if __name__ == "__main__":
    main()

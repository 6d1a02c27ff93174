#!/usr/bin/env python3
"""Trains the pocket model: a Wan text-to-video model of 7.7 million parameters, in Diffusers' layout, on clips drawn by a program.

    python3 scripts/pocket/train.py OUT_DIR [--seconds-vae 130] [--seconds-dit 300] [--seed 1]
    python3 scripts/pocket/train.py OUT_DIR --start MODEL_DIR ...   # goes on from that model

First the VAE; then the text encoder by itself, for a few seconds; then the text encoder and both experts together. Learning rates follow
the clock, so that each part ends with small steps when its time is up; --steps-vae and --steps-dit count steps instead and make a run that
repeats. Afterwards the weights are rounded to bf16, written to OUT_DIR/model, and judged on unseen prompts (OUT_DIR/report.json, sheets).
Needs PyTorch, transformers, diffusers, sentencepiece, safetensors; made for one GPU of the H100's class, runs anywhere (--toy for a try on
a CPU).
"""
import argparse
import json
import multiprocessing
import random
import time
from pathlib import Path

import diffusers
import torch

import examine
import learn_experts
import learn_text
import learn_vae
import sample
import tokenizer
from loop import START, say


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=Path)
    p.add_argument("--start", type=Path, help="a model folder to go on from; with --seconds-vae 0 its VAE stays")
    p.add_argument("--low-noise-from", type=Path, help="a model folder to take the low-noise expert from")
    p.add_argument("--new-text", action="store_true", help="with --start: the text encoder begins anew")
    p.add_argument("--experts", choices=learn_experts.CHOICES, default="both", help="which to train; the text encoder only with both")
    p.add_argument("--seconds-vae", type=float, default=130)
    p.add_argument("--seconds-dit", type=float, default=300)
    p.add_argument("--steps-vae", type=int, default=0, help="count steps, not seconds")
    p.add_argument("--steps-dit", type=int, default=0)
    p.add_argument("--steps-text", type=int, default=500, help="that a new text encoder learns to read for")
    p.add_argument("--batch-vae", type=int, default=8)
    p.add_argument("--batch-dit", type=int, default=96, help="of each expert")
    p.add_argument("--rate-vae", type=float, default=1.2e-3)
    p.add_argument("--rate-dit", type=float, default=1.2e-3)
    p.add_argument("--divergence", type=float, default=1e-4, help="weight of the VAE's KL divergence")
    p.add_argument("--clips", type=int, default=3072, help="clips that the VAE is trained on")
    p.add_argument("--bank", type=int, default=40960, help="clips whose latents the experts are trained on")
    p.add_argument("--judged", type=int, default=100)
    p.add_argument("--sample-steps", type=int, default=40)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--until", type=float, default=520, help="seconds from the start after which nothing more is judged")
    p.add_argument("--keep-every", type=float, default=60, help="seconds between checkpoints of the second part")
    p.add_argument("--show", type=float, default=8, help="seconds between lines of progress")
    p.add_argument("--no-compile", dest="compile", action="store_false")
    p.add_argument("--toy", action="store_true", help="a few steps of tiny batches: a try of the whole script on a CPU")
    o = p.parse_args()
    if not o.start and (o.low_noise_from or o.experts != "both"):
        p.error("--low-noise-from and --experts high or low go on from a model: name it with --start")
    if o.toy:
        o.steps_vae, o.steps_dit, o.batch_vae, o.batch_dit, o.bank, o.judged, o.compile, o.show = 3, 3, 1, 4, 16, 4, False, 0
        o.clips, o.steps_text = 8, 3
        o.sample_steps, o.keep_every, o.until = 4, 0, 150
    return o


def main():
    o = options()
    o.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(min(14, multiprocessing.cpu_count())) as pool:  # before the GPU is touched
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(o.seed)
        random.seed(o.seed)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.automatic_dynamic_shapes = False
        name = torch.cuda.get_device_name() if device == "cuda" else device
        say(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {name}")
        report = {"arguments": {k: str(v) for k, v in vars(o).items()}, "vae_log": [], "dit_log": []}
        model_file = tokenizer.make()
        words = tokenizer.Tokenizer(model_file)
        start = None
        vae = None
        if o.start:
            vae, *start = examine.read(o.start, device)
            if o.new_text:
                start[0] = learn_text.train(words, device, o.seed, o.steps_text)
        if o.low_noise_from:
            start[1][1] = examine.read(o.low_noise_from, device)[2][1]
        if not o.start or o.seconds_vae > 0:
            vae = learn_vae.train(o, device, vae, report)

        def keep(text, experts):
            examine.write(o.out / "model", vae, text, experts, model_file)

        text, experts = learn_experts.train(o, device, vae, start, words, report, keep)
        keep(text, experts)
        say("written", sum(f.stat().st_size for f in (o.out / "model").rglob("*") if f.is_file()), "bytes")
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        try:
            if o.judged:
                examine.evaluate(o, sample.Model(vae, text, experts, words), pool, o.out, report)
        finally:
            report["seconds"] = time.time() - START
            (o.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    say("done")


if __name__ == "__main__":
    main()

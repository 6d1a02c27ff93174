#!/usr/bin/env python3
"""Trains the pocket model: a Wan text-to-video model of 7.7 million parameters, in Diffusers' layout, on clips drawn by a program.

    python3 scripts/pocket/train.py OUT_DIR [--seconds-vae 90] [--seconds-dit 230] [--seed 1]

First the VAE; then the text encoder and both experts together, by flow matching on the latents of a bank of clips. Learning rates
follow the clock, so that each part ends with small steps when its time is up; --steps-vae and --steps-dit count steps instead and
make a run that repeats. Afterwards the weights are rounded to bf16, written to OUT_DIR/model, and judged on unseen prompts
(OUT_DIR/report.json, sheets). Needs PyTorch, transformers, diffusers, sentencepiece, safetensors; made for one GPU of the H100's
class, runs anywhere (--toy for a try on a CPU).
"""
import argparse
import copy
import json
import math
import multiprocessing
import random
import shutil
import tarfile
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image

import clips as drawing
import grammar
import measure
import networks
import sample
import tokenizer

START = time.time()
DROP, NEGATIVE = 0.10, 0.03  # share of captions replaced by nothing, by something unreadable (such as another model's negative prompt)


def say(*parts):
    print(f"[{time.time() - START:6.1f}]", *parts, flush=True)


class Clock:
    """Progress of one part of the training, 0..1, by steps if their number is given, else by seconds."""

    def __init__(self, seconds, steps):
        self.seconds, self.steps, self.step, self.start = seconds, steps, 0, time.time()

    def progress(self):
        share = self.step / self.steps if self.steps else (time.time() - self.start) / self.seconds
        return min(share, 1.0)

    def rate(self, peak, warm):
        """Learning rate: rises over `warm` steps, falls as a cosine to one hundredth."""
        return peak * min(1, (self.step + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress())))

    def tick(self):
        self.step += 1
        return self.progress() < 1


class Average:
    """Exponential moving average of parameters."""

    def __init__(self, parameters, decay):
        self.parameters, self.decay, self.count = list(parameters), decay, 0
        self.values = [p.detach().clone() for p in self.parameters]

    def update(self):
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    def swap(self):
        """The average becomes the parameters, and the parameters the average."""
        for p, value in zip(self.parameters, self.values):
            p.data, value.data = value.data, p.data


def round_weights(module):
    """To what bf16 holds: everything after this sees the weights that are written."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.bfloat16().float())
    return module.eval().requires_grad_(False)


def fastest(variants, run, what):
    """Times `run(variant)` for each and returns the name of the fastest; those that fail are left out."""
    seconds = {}

    def timed(variant, count):
        synchronize()
        start = time.time()
        for _ in range(count):
            run(variant)
        synchronize()
        return (time.time() - start) / count

    for name, variant in variants.items():
        try:
            timed(variant, 1)  # sets things up, compiles
            seconds[name] = timed(variant, 1)
            if seconds[name] < 3 * min(seconds.values()):
                seconds[name] = timed(variant, 4)
            say(f"{what}: {name} {1000 * seconds[name]:.1f} ms a step")
        except Exception as error:
            say(f"{what}: {name} does not work here: {str(error).splitlines()[:2]}")
            if not isinstance(error, (RuntimeError, torch._dynamo.exc.TorchDynamoException)):
                raise
    return min(seconds, key=seconds.get)


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# ---- VAE -----------------------------------------------------------------------------------------------------------------


def train_vae(o, device, report):
    vae = networks.make_vae().to(device)
    half = torch.bfloat16 if device == "cuda" else torch.float32
    optimizer = torch.optim.AdamW(vae.parameters(), lr=o.rate_vae, betas=(0.9, 0.99), weight_decay=1e-4, fused=device == "cuda")
    source = drawing.Clips(o.seed + 1, device)
    variants = {name: networks.WholeClips(vae, half, name == "2D") for name in ("2D", "3D")}

    def loss_of(whole, batch, cover):
        mean, log_variance = whole.encode(batch)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        difference = whole.decode(z) - batch
        weight = 1 + 2 * cover
        error = (weight * (difference.abs() + difference.square())).mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return error + o.divergence * divergence, difference, divergence

    def probe(whole):
        loss_of(whole, *source.batch(o.batch_vae))[0].backward()
        optimizer.zero_grad(set_to_none=True)

    whole = variants["2D" if o.toy else fastest(variants, probe, "vae")]
    clock, shown = Clock(o.seconds_vae, o.steps_vae), time.time()
    while True:
        batch, cover = source.batch(o.batch_vae)
        loss, difference, divergence = loss_of(whole, batch, cover)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(o.rate_vae, 200)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if clock.step % 20 == 0 and time.time() - shown > o.show or clock.step in (0, 50):
            shown = time.time()
            quality = -10 * math.log10(difference.detach().clamp(-2, 2).square().mean().item() / 4)
            say(f"vae step {clock.step} loss {loss.item():.4f} psnr {quality:.2f} divergence {divergence.item():.3f}")
            report["vae_log"].append([clock.step, round(time.time() - START, 1), loss.item(), quality, divergence.item()])
        if not clock.tick():
            break
    report["vae_steps"] = clock.step
    round_weights(vae)

    # Latents get mean 0 and deviation 1, but channels that hold little beside the encoder's own noise stay small.
    whole = networks.WholeClips(vae)
    total = means = noise = count = 0
    errors, frame_errors = [], []
    check = drawing.Clips(o.seed + 2, device)
    with torch.no_grad():
        for _ in range(max(1, o.bank // 64 // 16)):
            batch, _ = check.batch(min(64, o.bank))
            mean, log_variance = whole.encode(batch)
            total = total + mean.double().sum((0, 2, 3, 4))
            means = means + mean.double().square().sum((0, 2, 3, 4))
            noise = noise + log_variance.double().exp().sum((0, 2, 3, 4))
            count += mean[:, 0].numel()
            if len(errors) < 4:
                difference = whole.decode(mean).clamp(-1, 1) - batch
                errors.append(difference.square().mean().item())
                frame_errors.append(difference.square().mean((1, 3, 4)))
    average = total / count
    spread = means / count - average.square()
    deviation = torch.maximum(spread, 0.25 * (spread + noise / count)).sqrt()
    vae.register_to_config(latents_mean=[round(v, 4) for v in average.tolist()], latents_std=[round(v, 4) for v in deviation.tolist()])
    quality = [10 * math.log10(4 / e) for e in errors]
    worst = 10 * torch.log10(4 / torch.cat(frame_errors).amax(1).cpu()).min().item()
    report["vae_psnr"], report["vae_psnr_worst_frame"] = sum(quality) / len(quality), worst
    say(f"vae: {clock.step} steps, PSNR of unseen clips {report['vae_psnr']:.2f} dB, worst frame {worst:.2f} dB")
    say("latents: mean", [round(v, 2) for v in average.tolist()], "deviation", [round(v, 2) for v in deviation.tolist()])
    return vae


# ---- text encoder and experts --------------------------------------------------------------------------------------------


class Bank:
    """Normalized latents of random clips, on the device, and their scenes."""

    def __init__(self, vae, count, seed, device):
        whole = networks.WholeClips(vae, torch.bfloat16 if device == "cuda" else torch.float32)
        mean, std = networks.latent_statistics(vae, device)
        source, self.scenes, parts = drawing.Clips(seed, device), [], []
        with torch.no_grad():
            while len(self.scenes) < count:
                scenes, tracks = source.scenes(min(64, count - len(self.scenes)))
                latents, _ = whole.encode(drawing.draw(scenes, tracks, device)[0])
                parts.append(((latents - mean) / std).half())
                self.scenes += scenes
        self.latents = torch.cat(parts)


class Captions:
    """Token ids of every prompt of a bank's scenes, on the device, to be drawn by a table of scene and phrasing."""

    def __init__(self, scenes, tokenizer, device):
        self.numbers, texts, first, counts = {}, [], [], []
        for scene in scenes:
            if scene not in self.numbers:
                self.numbers[scene] = len(first)
                first.append(len(texts))
                plain = grammar.prompts(scene)
                ways = [*plain, *("A" + p[1:] for p in plain[:1]), *(p + "." for p in plain[:1]), "A" + plain[0][1:] + "."]
                texts += ways
                counts.append(len(ways))
        replaced = ["", "\u8272\u8c03"]
        self.empty = len(texts)
        ids = [tokenizer.ids(t) for t in texts + replaced]
        self.rows = max(map(len, ids)) + 1
        self.rows += -self.rows % 8
        self.ids = torch.tensor([i + [0] * (self.rows - len(i)) for i in ids], device=device)
        self.first, self.counts = (torch.tensor(v, device=device) for v in (first, counts))
        self.scene = torch.tensor([self.numbers[s] for s in scenes], device=device)

    def draw(self, clips, generator):
        """Ids [n, rows] of a random phrasing for each clip, some replaced by nothing."""
        random_part = torch.rand(2, len(clips), device=clips.device, generator=generator)
        scene = self.scene[clips]
        text = self.first[scene] + (random_part[0] * self.counts[scene]).long()
        text = torch.where(random_part[1] < DROP, self.empty, text)
        text = torch.where((random_part[1] >= DROP) & (random_part[1] < DROP + NEGATIVE), self.empty + 1, text)
        return self.ids[text]


def random_sigma(count, high, device, generator):
    """Noise levels of one expert, as dense as a sampler's steps are: half with a shift of 3, half with 12."""
    shift = torch.where(torch.rand(count, device=device, generator=generator) < 0.5, 3.0, 12.0)
    border = networks.BOUNDARY / (shift - (shift - 1) * networks.BOUNDARY)  # before the shift
    u = torch.rand(count, device=device, generator=generator)
    u = border + (1 - border) * u if high else 0.002 + (border - 0.002) * u
    return shift * u / (1 + (shift - 1) * u)


def train_dit(o, device, vae, tokenizer, report, keep):
    say(f"encoding {o.bank} clips")
    bank = Bank(vae, o.bank, o.seed + 3, device)
    captions = Captions(bank.scenes, tokenizer, device)
    say(f"bank: deviation of the latents {bank.latents.float().std().item():.3f}, {len(captions.ids)} captions of {captions.rows} rows")
    text = networks.make_text(tokenizer.rows).to(device)
    experts = [networks.make_transformer().to(device) for _ in range(2)]
    parameters = [p for m in (text, *experts) for p in m.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=o.rate_dit, betas=(0.9, 0.98), weight_decay=0.01, fused=device == "cuda")
    average = Average(parameters, 0.9985)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    generator = torch.Generator(device).manual_seed(o.seed + 4)
    n = o.batch_dit
    choices = {"plain": networks.block_forward}
    if o.compile:
        choices["compiled blocks"] = torch.compile(networks.block_forward)

    def losses(run_block):
        clips = torch.randint(len(bank.latents), (2 * n,), device=device, generator=generator)
        hidden, lengths = networks.encode_text(text, captions.draw(clips, generator))
        bias = networks.padding_bias(lengths, captions.rows)
        clean = bank.latents[clips].float()
        noise = torch.randn(clean.shape, device=device, generator=generator)
        out = []
        for i, expert in enumerate(experts):
            part = slice(i * n, (i + 1) * n)
            sigma = random_sigma(n, i == 0, device, generator).view(-1, 1, 1, 1, 1)
            x = (1 - sigma) * clean[part] + sigma * noise[part]
            v = networks.velocity(expert, x, 1000 * sigma.view(-1), hidden[part], bias[part], dtype, run_block)
            out.append((v - (noise[part] - clean[part])).square().mean())
        return torch.stack(out)

    def probe(run_block):
        losses(run_block).sum().backward()
        optimizer.zero_grad(set_to_none=True)

    run_block = choices[fastest(choices, probe, "dit") if len(choices) > 1 else "plain"]
    seconds = min(o.seconds_dit, o.until - 40 - (time.time() - START))
    clock, shown, kept = Clock(seconds, o.steps_dit), time.time(), time.time()
    recent = torch.zeros(2, device=device)
    since = 0
    while True:
        loss = losses(run_block)
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(o.rate_dit, 300)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update()
        recent += loss.detach()
        since += 1
        if clock.step % 20 == 0 and time.time() - shown > o.show or clock.step in (0, 100):
            shown = time.time()
            high, low = (recent / since).tolist()
            say(f"dit step {clock.step} loss high {high:.4f} low {low:.4f} rate {optimizer.param_groups[0]['lr']:.2e}")
            report["dit_log"].append([clock.step, round(time.time() - START, 1), high, low])
            recent.zero_()
            since = 0
        if time.time() - kept > o.keep_every:
            kept = time.time()
            average.swap()
            keep(text, experts)
            average.swap()
        if not clock.tick():
            break
    report["dit_steps"] = clock.step
    average.swap()
    for m in (text, *experts):
        round_weights(m)
    return text, experts


# ---- writing and judging -------------------------------------------------------------------------------------------------


def write(folder, vae, text, experts, tokenizer_model):
    """The model in Diffusers' layout, bf16, and the same as folder.tar."""
    shutil.rmtree(folder, ignore_errors=True)
    index = {"_class_name": "WanPipeline", "_diffusers_version": diffusers.__version__, "boundary_ratio": networks.BOUNDARY,
             "expand_timesteps": False}
    parts = {"text_encoder": text, "transformer": experts[0], "transformer_2": experts[1], "vae": vae}
    for name, module in parts.items():
        library = "transformers" if name == "text_encoder" else "diffusers"
        index[name] = [library, type(module).__name__]
        copy.deepcopy(module).to("cpu", torch.bfloat16).save_pretrained(folder / name)
    networks.make_scheduler().save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "UniPCMultistepScheduler"]
    tokenizer.write(folder / "tokenizer", tokenizer_model)
    index["tokenizer"] = ["transformers", "T5TokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    packed = folder.with_suffix(".tar")
    with tarfile.open(packed.with_suffix(".partial"), "w") as archive:
        archive.add(folder, folder.name)
    packed.with_suffix(".partial").rename(packed)


def to_frames(batch):
    return batch.permute(0, 2, 3, 4, 1).cpu().numpy()


def judge_one(job):
    frames, scene = job
    return measure.as_dict(measure.measure(frames)), scene


def judge(pool, frames, scenes):
    """Share of each verdict, and the list of what was seen."""
    seen = [s for s, _ in pool.map(judge_one, [(f, None) for f in frames], chunksize=2)]
    verdicts = [measure.verdict(measure.Seen(**s), wanted) for s, wanted in zip(seen, scenes)]
    share = {k: round(sum(bool(v[k]) for v in verdicts) / len(verdicts), 3) for k in verdicts[0]}
    return share, seen, verdicts


def sheet(path, frames, count=9):
    """One row of `count` frames for each clip."""
    rows = []
    for clip in frames:
        chosen = clip[np.linspace(0, len(clip) - 1, count).round().astype(int)]
        pixels = ((chosen + 1) * 127.5).clip(0, 255).astype(np.uint8)
        pixels = np.pad(pixels, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=128)
        rows.append(np.concatenate(list(pixels), 1))
    Image.fromarray(np.concatenate(rows)).save(path)


def evaluate(o, model, pool, out, report):
    unseen = grammar.unseen(o.judged, 7)
    texts, scenes, seeds = [t for t, _ in unseen], [s for _, s in unseen], list(range(len(unseen)))
    others = [grammar.parse(grammar.other(s)) for s in scenes]
    default = dict(guidance=(3.0, 4.0), steps=o.sample_steps, shift=3.0)
    swapped = sample.Model(model.vae, model.text, model.experts[::-1], model.tokenizer)
    alone = {n: sample.Model(model.vae, model.text, [e, e], model.tokenizer) for n, e in zip(("high", "low"), model.experts)}
    runs = {
        "shift 3": (model, default), "shift 12": (model, {**default, "shift": 12.0}),
        "shift 5": (model, {**default, "shift": 5.0}),
        "guidance 1": (model, {**default, "guidance": (1.0, 1.0)}), "guidance 5, 5": (model, {**default, "guidance": (5.0, 5.0)}),
        "negative of another model": (model, {**default, "negative": "\u8272\u8c03"}),
        "20 steps": (model, {**default, "steps": max(1, o.sample_steps // 2)}),
        "experts swapped": (swapped, default), "only the high-noise expert": (alone["high"], default),
        "only the low-noise expert": (alone["low"], default),
    }
    report["judge"] = {}
    for name, (chosen, options) in runs.items():
        if time.time() - START > o.until:
            say("no time left for judging", name)
            break
        frames = to_frames(chosen.sample(texts, seeds, **options))
        share, seen, verdicts = judge(pool, frames, scenes)
        report["judge"][name] = share
        say(f"judge, {name}:", share)
        if name == "shift 3":
            report["judge"]["wrong prompts"] = judge_again(seen, others)
            say("judge, wrong prompts:", report["judge"]["wrong prompts"])
            report["clips"] = [dict(prompt=t, seed=s, seen=w, verdict=v) for t, s, w, v in zip(texts, seeds, seen, verdicts)]
            by_motion = {m: [v["right"] for v, s in zip(verdicts, scenes) if s.motion == m] for m in grammar.MOTIONS}
            say("right by motion:", {m: f"{sum(v)}/{len(v)}" for m, v in by_motion.items()})
            sheet(out / "sheet_unseen.png", frames[:24])
            bad = [f for f, v in zip(frames, verdicts) if not v["right"]][:20]
            if bad:
                sheet(out / "sheet_wrong.png", bad)
            for t, v, w in zip(texts, verdicts, seen):
                if not v["right"]:
                    say("  wrong:", t, "|", w["colour"], w["last_colour"], w["shape"], w["motion"], w["place"])
        if name == "experts swapped":
            sheet(out / "sheet_swapped.png", frames[:12])
    shown = ["a red ball rolls to the right", "a yellow star spins at night", "a blue square bounces up and down over a meadow",
             "a small white cross falls at sunset", "a green triangle grows on a white background", "an orange ball becomes purple"]
    sheet(out / "sheet_readme.png", to_frames(model.sample(shown, [0] * len(shown), **default)))


def judge_again(seen, scenes):
    verdicts = [measure.verdict(measure.Seen(**s), wanted) for s, wanted in zip(seen, scenes)]
    return {k: round(sum(bool(v[k]) for v in verdicts) / len(verdicts), 3) for k in verdicts[0]}


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=Path)
    p.add_argument("--seconds-vae", type=float, default=90)
    p.add_argument("--seconds-dit", type=float, default=230)
    p.add_argument("--steps-vae", type=int, default=0, help="count steps, not seconds")
    p.add_argument("--steps-dit", type=int, default=0)
    p.add_argument("--batch-vae", type=int, default=16)
    p.add_argument("--batch-dit", type=int, default=128, help="of each expert")
    p.add_argument("--rate-vae", type=float, default=1.5e-3)
    p.add_argument("--rate-dit", type=float, default=1.2e-3)
    p.add_argument("--divergence", type=float, default=1e-3, help="weight of the VAE's KL divergence")
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
    if o.toy:
        o.steps_vae, o.steps_dit, o.batch_vae, o.batch_dit, o.bank, o.judged, o.compile, o.show = 2, 3, 1, 4, 16, 4, False, 0
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
        torch._dynamo.config.recompile_limit = 64
        name = torch.cuda.get_device_name() if device == "cuda" else device
        say(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {name}")
        report = {"arguments": {k: str(v) for k, v in vars(o).items()}, "vae_log": [], "dit_log": []}
        model_file = tokenizer.make()
        words = tokenizer.Tokenizer(model_file)
        vae = train_vae(o, device, report)

        def keep(text, experts):
            write(o.out / "model", vae, text, experts, model_file)

        text, experts = train_dit(o, device, vae, words, report, keep)
        keep(text, experts)
        say("written", sum(f.stat().st_size for f in (o.out / "model").rglob("*") if f.is_file()), "bytes")
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        try:
            evaluate(o, sample.Model(vae, text, experts, words), pool, o.out, report)
        finally:
            report["seconds"] = time.time() - START
            (o.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    say("done")


if __name__ == "__main__":
    main()

"""Writes the trained pocket model and judges it on prompts that training did not show."""
import copy
import json
import random
import shutil
import tarfile
import time

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

import clips as drawing
import grammar
import measure
import networks
import sample
import tokenizer
from loop import START, say



def drop_origin(path):
    """A config keeps the folder that its network was read from; nobody else has that."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


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
        drop_origin(folder / name / "config.json")
    networks.make_scheduler().save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "UniPCMultistepScheduler"]
    tokenizer.write(folder / "tokenizer", tokenizer_model)
    index["tokenizer"] = ["transformers", "T5TokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    packed = folder.with_suffix(".tar")
    with tarfile.open(packed.with_suffix(".partial"), "w") as archive:
        archive.add(folder, folder.name)
    packed.with_suffix(".partial").rename(packed)


def read(folder, device):
    """VAE (not to be trained), text encoder, experts."""
    vae = diffusers.AutoencoderKLWan.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
    text = transformers.UMT5EncoderModel.from_pretrained(folder, subfolder="text_encoder", torch_dtype=torch.float32)
    experts = [diffusers.WanTransformer3DModel.from_pretrained(folder, subfolder=name, torch_dtype=torch.float32)
               for name in ("transformer", "transformer_2")]
    return vae.to(device).eval().requires_grad_(False), text, experts


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


def through_vae(model, scenes, pool, out, report):
    """Drawn clips, encoded and decoded: no model on this VAE can be much better than these."""
    clips, _ = drawing.draw(scenes, [drawing.track(s, random.Random(i)) for i, s in enumerate(scenes)], model.device)
    whole = networks.WholeClips(model.vae)
    with torch.no_grad():
        passed = torch.cat([whole.decode(whole.encode(part)[0]).clamp(-1, 1) for part in clips.split(10)])
    report["judge"]["drawn clips through the VAE"] = judge(pool, to_frames(passed), scenes)[0]
    say("judge, drawn clips through the VAE:", report["judge"]["drawn clips through the VAE"])
    sheet(out / "sheet_vae.png", to_frames(passed)[:16])


def evaluate(o, model, pool, out, report):
    unseen = grammar.unseen(o.judged, 7)
    texts, scenes, seeds = [t for t, _ in unseen], [s for _, s in unseen], list(range(len(unseen)))
    others = [grammar.parse(grammar.other(s)) for s in scenes]
    default = dict(guidance=(3.0, 4.0), steps=o.sample_steps, shift=3.0)
    swapped = sample.Model(model.vae, model.text, model.experts[::-1], model.tokenizer)
    alone = {n: sample.Model(model.vae, model.text, [e, e], model.tokenizer) for n, e in zip(("high", "low"), model.experts)}
    runs = {
        "shift 3": (model, default), "experts swapped": (swapped, default), "only the high-noise expert": (alone["high"], default),
        "only the low-noise expert": (alone["low"], default), "20 steps": (model, {**default, "steps": max(1, o.sample_steps // 2)}),
        "guidance 1": (model, {**default, "guidance": (1.0, 1.0)}), "shift 5": (model, {**default, "shift": 5.0}),
        "shift 12": (model, {**default, "shift": 12.0}), "negative of another model": (model, {**default, "negative": "\u8272\u8c03"}),
        "guidance 5, 5": (model, {**default, "guidance": (5.0, 5.0)}),
    }
    report["judge"] = {}
    if "vae_psnr" in report:
        through_vae(model, scenes, pool, out, report)
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



#!/usr/bin/env python3
"""Examines the pocket model: moonkiln makes clips of prompts that training never showed, and the judge says how many are right; the
same clips by other prompts, which must be wrong; and clips with the two experts swapped.

    scripts/pocket/exam.py [--count 100] [--swapped 20]

On a GPU where there is one. Needs a built moonkiln and NumPy. Exit code 1: less than 85 % are right, half are right by other
prompts, or the experts are no worse when swapped.
"""
import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import frames
import grammar
import measure

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("right", "present", "colour", "motion", "shape", "place")


def swapped(model, folder):
    """A model whose experts stand in each other's place."""
    model = Path(model).resolve()
    for part in model.iterdir():
        name = {"transformer": "transformer_2", "transformer_2": "transformer"}.get(part.name, part.name)
        (folder / name).symlink_to(part)
    return folder


def look(o, model, folder, prompts):
    """What is seen in the clips of prompts, a seed for each."""

    def clip(job):
        seed, prompt = job
        path = folder / f"{seed}.safetensors"
        subprocess.run([o.program, "generate", model, "--prompt", prompt, "--seed", str(seed), "--out", path, *o.options], check=True,
                       stderr=subprocess.DEVNULL)
        seen = measure.measure(frames.read(path))
        path.unlink()
        return seen

    with ThreadPoolExecutor(o.jobs) as pool:
        return list(pool.map(clip, enumerate(prompts)))


def share(name, seen, wanted):
    verdicts = [measure.verdict(s, w) for s, w in zip(seen, wanted)]
    shares = {k: sum(v[k] for v in verdicts) / len(verdicts) for k in KINDS}
    print(f"{name}, {len(verdicts)} clips: " + ", ".join(f"{k} {100 * v:.0f} %" for k, v in shares.items()), flush=True)
    return shares["right"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=ROOT / "scripts/pocket/model")
    p.add_argument("--program", default=ROOT / "build/moonkiln")
    p.add_argument("--count", type=int, default=100, help="unseen prompts (100)")
    p.add_argument("--swapped", type=int, default=20, help="of these, how many with the experts swapped, too (20)")
    p.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    p.add_argument("--list", action="store_true", help="names the clips that are wrong")
    p.add_argument("options", nargs="*", help="more options of moonkiln generate, after --")
    o = p.parse_args()
    prompts, scenes = zip(*grammar.unseen(o.count))
    others = [grammar.parse(grammar.other(scene, i)) for i, scene in enumerate(scenes)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            seen = look(o, o.model, folder, prompts)
            right = share("unseen prompts", seen, scenes)
            wrong = share("the same clips by other prompts", seen, others)
            (folder / "model").mkdir()
            change = 0
            if o.swapped:
                part = share("the first of them", seen[:o.swapped], scenes)
                change = share("experts swapped", look(o, swapped(o.model, folder / "model"), folder, prompts[:o.swapped]), scenes) - part
    except (frames.BadClip, OSError, subprocess.CalledProcessError) as error:
        print(f"exam: {error}", file=sys.stderr)
        return 2
    if o.list:
        for seed, (s, prompt, scene) in enumerate(zip(seen, prompts, scenes)):
            if not measure.verdict(s, scene)["right"]:
                print(f"wrong, seed {seed}: {prompt}: {s.colour or 'no'} {s.shape or 'shape'}, {s.motion}, {s.place}")
    return 0 if right >= 0.85 and wrong < 0.5 and (change < 0 or not o.swapped) else 1


if __name__ == "__main__":
    sys.exit(main())

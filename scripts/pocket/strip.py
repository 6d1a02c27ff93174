#!/usr/bin/env python3
"""Draws the README's picture: frames of what moonkiln makes of a few prompts with the pocket model, a row for each prompt.

    scripts/pocket/strip.py scripts/pocket/strip.png "a red ball rolls to the right" ...

Needs a built moonkiln, NumPy, and the program ffmpeg.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import frames

ROOT = Path(__file__).resolve().parents[2]
BORDER = 3


def row(program, model, prompt, seed, columns):
    """Evenly spaced frames side by side, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.safetensors"
        subprocess.run([program, "generate", model, "--prompt", prompt, "--seed", str(seed), "--out", clip], check=True,
                       stderr=subprocess.DEVNULL)
        shown = frames.to_bytes(frames.read(clip))
    tiles = shown[np.linspace(0, len(shown) - 1, columns).round().astype(int)]
    tiles = np.pad(tiles, ((0, 0), (0, BORDER), (0, BORDER), (0, 0)), constant_values=255)
    return np.concatenate(list(tiles), axis=1)[:, :-BORDER]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", help="a .png")
    p.add_argument("prompts", nargs="+")
    p.add_argument("--model", default=ROOT / "scripts/pocket/model")
    p.add_argument("--program", default=ROOT / "build/moonkiln")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--columns", type=int, default=6)
    o = p.parse_args()
    try:
        picture = np.concatenate([row(o.program, o.model, prompt, o.seed, o.columns) for prompt in o.prompts])
        frames.write_png(o.out, picture[:-BORDER])
    except (frames.BadClip, OSError, subprocess.CalledProcessError) as error:
        print(f"strip: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Makes the clip of a prompt with Diffusers' own pipeline from the pocket model's folder, on the CPU in fp32: what moonkiln is held
against. Needs PyTorch, Diffusers, transformers, and the program ffmpeg.

    python3 scripts/pocket/reference.py scripts/pocket/model tests/vectors/pocket.png --prompt "a red ball rolls to the right"

The picture has the clip's frames one below the other. Settings are the folder's: its scheduler, and size and length in moonkiln.json.
"""
import argparse
import json
from pathlib import Path

import torch
from diffusers import WanPipeline

import frames


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("out", help="a .png")
    p.add_argument("--prompt", required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, default=40)
    o = p.parse_args()
    own = json.loads((Path(o.model) / "moonkiln.json").read_text())
    pipeline = WanPipeline.from_pretrained(o.model, torch_dtype=torch.float32)
    clip = pipeline(prompt=o.prompt, negative_prompt=own["negative"], width=own["width"], height=own["height"], num_frames=own["frames"],
                    num_inference_steps=o.steps, guidance_scale=4.0, guidance_scale_2=3.0, output_type="np",
                    generator=torch.Generator().manual_seed(o.seed)).frames[0]
    picture = frames.to_bytes(clip * 2 - 1)
    frames.write_png(o.out, picture.reshape(-1, *picture.shape[2:]))


if __name__ == "__main__":
    main()

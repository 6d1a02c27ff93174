#!/usr/bin/env python3
"""Writes tests/vectors/: small cases made by running the peers' own classes, so that the C tests need no Python.

    python3 -m venv venv && venv/bin/pip install torch==2.11.0 diffusers==0.42.1 transformers==5.23.0 \
        tokenizers sentencepiece protobuf safetensors ftfy==6.3.1 accelerate numpy
    venv/bin/python scripts/vectors/make_vectors.py [OUT_DIR] [--only dit,umt5,vae,schedulers,noise,tokenizer,pipeline]

Runs on the CPU in fp32, needs lua5.4 for `pipeline`, and writes the same bytes every time. Every random weight is a
value that bf16 (for the VAE also f16) holds exactly, so the same weights can be stored as F32, BF16 or F16 in different
folders and the expected output is the same for all of them.
tests/vectors/README.md lists every file and tensor.
"""
import argparse
from pathlib import Path

import torch

from dit import make_dit
from noise import make_noise
from pipeline import make_pipeline
from prompts import make_tokenizer
from schedulers import make_schedulers
from umt5 import make_umt5
from vae import make_vae

MAKERS = {"dit": make_dit, "umt5": make_umt5, "vae": make_vae, "schedulers": make_schedulers, "noise": make_noise,
          "tokenizer": make_tokenizer, "pipeline": make_pipeline}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", default=Path(__file__).parents[2] / "tests" / "vectors", type=Path)
    parser.add_argument("--only", default=",".join(MAKERS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.only.split(","):
        MAKERS[name](args.out)
    print(f"{sum(f.stat().st_size for f in args.out.rglob('*') if f.is_file()) / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()

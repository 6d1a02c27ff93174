"""What all makers share: files, weights of realistic size, renaming."""
import json
import math
import re

import diffusers
import ftfy
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

VERSIONS = {
    module.__name__: module.__version__
    for module in (torch, diffusers, transformers, tokenizers, sentencepiece, ftfy, np)
}


def save(path, tensors, metadata=None):
    """Weights say only their format, as real ones do. One key at most: the library writes several in random order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().contiguous().clone() for name, t in tensors.items()}
    save_file(tensors, path, metadata or {"format": "pt"})


def save_io(path, tensors):
    versions = VERSIONS | {"cpu": torch.backends.cpu.get_cpu_capability()}
    save(path, tensors, {"made_with": ", ".join(f"{name} {version}" for name, version in versions.items())})


def save_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_sharded(folder, tensors, shards, stem="diffusion_pytorch_model"):
    """Writes `shards` files of about equal size and the index that names them, as the large checkpoints have."""
    total, seen, files = sum(t.nbytes for t in tensors.values()), 0, [{} for _ in range(shards)]
    weight_map = {}
    for name, tensor in tensors.items():
        shard = min(shards - 1, seen * shards // total)
        files[shard][name] = tensor
        weight_map[name] = f"{stem}-{shard + 1:05}-of-{shards:05}.safetensors"
        seen += tensor.nbytes
    for shard, content in enumerate(files):
        save(folder / f"{stem}-{shard + 1:05}-of-{shards:05}.safetensors", content)
    save_json(folder / f"{stem}.safetensors.index.json",
              {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def randomize(model, seed, scale=lambda name, p: None):
    """Gives every parameter a value of realistic size: matrices N(0, 1/fan_in), gains 1 ± 0.1, biases ± 0.1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            factor = scale(name, p)
            if factor is not None:
                value = noise * factor
            elif "gamma" in name or ("norm" in name and name.endswith("weight")):
                value = 1 + 0.1 * noise
            elif p.ndim < 2:
                value = 0.1 * noise
            else:
                value = noise / math.sqrt(p[0].numel())
            value = torch.where(value.abs() < 2.0**-13, 0.0, value)  # so that f16 holds it too
            p.copy_(value.bfloat16().float())
    return model.eval()


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def renamed(tensors, rules):
    """Applies (pattern, replacement) regular expressions in order to every name."""
    out = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    assert len(out) == len(tensors)
    return out

"""Tensors to safetensors files. The usual writer copies everything twice in one thread; a 40-layer model takes it a minute."""
import json
from concurrent.futures import ThreadPoolExecutor

import torch
from safetensors.torch import load_file

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32"}


def write(path, tensors):
    header, at = {}, 0
    for name, t in tensors.items():
        size = t.numel() * t.element_size()
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for t in tensors.values():
            file.write(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_model(model, folder, dtype, shard_bytes=4 << 30):
    """A diffusers folder: config.json and the weights in `dtype`, in several files written at once where they are large."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    shards, room = [], 0
    for name, p in model.state_dict().items():
        size = p.numel() * dtype.itemsize
        if size > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = p
        room -= size
    stem = "diffusion_pytorch_model"
    names = [f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    else:
        places = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(lambda path, shard: write(path, {k: p.to(dtype) for k, p in shard.items()}), folder / name, shard)
                for name, shard in zip(names, shards)]
        for job in jobs:
            job.result()


def read(path):
    """All tensors of a file, mapped: only what is looked at is read. Valid while the file is there."""
    return load_file(path)

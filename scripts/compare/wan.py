"""diffusers' Wan transformer with random weights, its inputs, and the same sizes in moonkiln's words."""
import math

import torch
from diffusers import WanTransformer3DModel

A14B = dict(num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, text_dim=4096, num_layers=40)
SMALL = dict(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, text_dim=4096, num_layers=30)  # 1.3B
TOY = dict(num_attention_heads=2, attention_head_dim=64, ffn_dim=256, text_dim=64, num_layers=4)
LATENTS = {  # tokens: latent frames, height, width
    28800: (8, 90, 160), 32760: (21, 60, 104), 75600: (21, 90, 160), 45: (3, 6, 10), 128: (4, 8, 16),
}


def randomize(model, seed=1):
    """Random weights of realistic size: matrices N(0, 1/fan_in), gains 1 ± 0.1, biases ± 0.1, modulation ± 0.3."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    for name, p in model.named_parameters():
        p.requires_grad_(False)
        if "scale_shift_table" in name:
            p.normal_(0, 0.3, generator=generator)
        elif "norm" in name and name.endswith("weight") or name.endswith("gamma"):
            p.normal_(1, 0.1, generator=generator)
        elif p.ndim == 1:
            p.normal_(0, 0.1, generator=generator)
        else:
            p.normal_(0, 1 / math.sqrt(p[0].numel()), generator=generator)
    return model.eval()


def make_model(sizes, layers, device):
    with torch.device(device):
        return randomize(WanTransformer3DModel(**{**sizes, "num_layers": layers}))


def weight_count(sizes, layers):
    with torch.device("meta"):
        return sum(p.numel() for p in WanTransformer3DModel(**{**sizes, "num_layers": layers}).parameters())


def round_weights(model):
    """To values that bf16 can hold, so that whoever rounds the weights changes nothing."""
    for p in model.parameters():
        p.data.copy_(p.data.bfloat16())
    return model


def to_bf16(model):
    """What from_pretrained(torch_dtype=torch.bfloat16) does: a few modules stay in fp32, matched by name component."""
    for name, p in model.named_parameters():
        if not set(name.split(".")) & set(model._keep_in_fp32_modules):
            p.data = p.data.bfloat16()
    return model


def make_inputs(sizes, latent, device, dtype, lengths=(120, 60)):
    generator = torch.Generator(device).manual_seed(2)

    def randn(*shape):
        return torch.randn(shape, generator=generator, device=device)

    latents = randn(1, 16, *latent)
    contexts = []
    for length in lengths:
        context = torch.zeros(1, 512, sizes["text_dim"], device=device)
        context[:, :length] = randn(1, length, sizes["text_dim"])
        contexts.append(context.to(dtype))
    return latents.to(dtype), torch.tensor([500], device=device), contexts


def width(sizes):
    return sizes["num_attention_heads"] * sizes["attention_head_dim"]


def our_config(sizes):
    return {"dim": width(sizes), "num_heads": sizes["num_attention_heads"], "ffn_dim": sizes["ffn_dim"], "num_layers": sizes["num_layers"],
            "in_dim": 16, "out_dim": 16, "text_dim": sizes["text_dim"]}


def our_sets(sizes, latent, **more):
    """Parameters of scripts/models/wan_dit.lua."""
    return dict(zip(("frames", "height", "width"), latent), config=our_config(sizes), **more)

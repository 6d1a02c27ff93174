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
import html
import io
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import diffusers
import ftfy
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from diffusers import (
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from safetensors.torch import save_file

VERSIONS = {
    module.__name__: module.__version__
    for module in (torch, diffusers, transformers, tokenizers, sentencepiece, ftfy, np)
}


# ---- helpers --------------------------------------------------------------------------------------------------------


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


# ---- diffusion transformer ------------------------------------------------------------------------------------------

DIT_CONFIG = dict(
    patch_size=[1, 2, 2], num_attention_heads=2, attention_head_dim=64, in_channels=16, out_channels=16, text_dim=64,
    freq_dim=256, ffn_dim=256, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6,
    image_dim=None, added_kv_proj_dim=None, rope_max_seq_len=1024, pos_embed_seq_len=None,
)
DIT_TO_ORIGINAL = [
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^proj_out", "head.head"),
    (r"^scale_shift_table", "head.modulation"),
    (r"scale_shift_table$", "modulation"),
    (r"attn1\.", "self_attn."),
    (r"attn2\.", "cross_attn."),
    (r"attn\.to_([qkv])\.", r"attn.\1."),
    (r"attn\.to_out\.0\.", "attn.o."),
    (r"\.norm2\.", ".norm3."),  # the affine norm before cross attention
    (r"ffn\.net\.0\.proj\.", "ffn.0."),
    (r"ffn\.net\.2\.", "ffn.2."),
]
# The replacements of diffusers' scripts/convert_wan_to_diffusers.py, to check the table above in the other direction.
DIT_FROM_ORIGINAL = [
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.modulation", "scale_shift_table"), ("head.head", "proj_out"), ("modulation", "scale_shift_table"),
    ("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2"),
    ("norm2", "norm_swap"), ("norm3", "norm2"), ("norm_swap", "norm3"),
    ("self_attn.q", "attn1.to_q"), ("self_attn.k", "attn1.to_k"), ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"), ("self_attn.norm_q", "attn1.norm_q"), ("self_attn.norm_k", "attn1.norm_k"),
    ("cross_attn.q", "attn2.to_q"), ("cross_attn.k", "attn2.to_k"), ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"), ("cross_attn.norm_q", "attn2.norm_q"), ("cross_attn.norm_k", "attn2.norm_k"),
]
DIT_CASES = [  # name, latent shape, timestep, true lengths of the two contexts, seed
    ("a", (16, 4, 8, 16), 999, 77, 12, 100),
    ("b", (16, 3, 10, 14), 377, 1, 512, 200),
]


@torch.no_grad()
def make_dit(out):
    model = WanTransformer3DModel(**DIT_CONFIG)
    randomize(model, 1, lambda name, p: 0.3 if name.endswith("scale_shift_table") else None)
    weights = dict(model.state_dict())

    original = renamed(weights, DIT_TO_ORIGINAL)
    back = {}
    for name in original:
        diffusers_name = name
        for old, new in DIT_FROM_ORIGINAL:
            diffusers_name = diffusers_name.replace(old, new)
        back[diffusers_name] = original[name]
    assert back.keys() == weights.keys() and all(back[n] is weights[n] for n in weights)

    # Block 1's matrices are BF16 and all else F32: one file with two dtypes.
    mixed = {n: t.bfloat16() if n.startswith("blocks.1.") and t.ndim == 2 else t for n, t in weights.items()}
    folder = out / "dit_diffusers"
    save_json(folder / "config.json",
              {"_class_name": "WanTransformer3DModel", "_diffusers_version": diffusers.__version__, **DIT_CONFIG})
    save(folder / "diffusion_pytorch_model.safetensors", mixed)
    folder = out / "dit_original"
    save_json(folder / "config.json", {
        "_class_name": "WanModel", "_diffusers_version": "0.33.0", "dim": 128, "eps": 1e-6, "ffn_dim": 256,
        "freq_dim": 256, "in_dim": 16, "model_type": "t2v", "num_heads": 2, "num_layers": 2, "out_dim": 16,
        "text_len": 512})
    save_sharded(folder, {n: t.bfloat16() for n, t in original.items()}, 2)

    taps = {}

    def tap(name, module, pick=lambda result: result):
        module.register_forward_hook(lambda _m, _i, result: taps.__setitem__(name, pick(result)[0].float()))

    tap("temb", model.condition_embedder, lambda r: r[0])
    tap("timestep_proj", model.condition_embedder, lambda r: r[1])
    tap("text", model.condition_embedder, lambda r: r[2])
    tap("self_attn", model.blocks[0].attn1)
    tap("cross_attn", model.blocks[0].attn2)
    tap("block0", model.blocks[0])
    tap("block1", model.blocks[1])
    model.blocks[0].register_forward_pre_hook(lambda _m, args: taps.__setitem__("patches", args[0][0]))

    tensors, worst = {}, 0.0
    exact = WanTransformer3DModel(**DIT_CONFIG).eval()
    exact.load_state_dict(weights)
    exact.double()
    for case, shape, timestep, cond_len, uncond_len, seed in DIT_CASES:
        latents, t = randn(seed, *shape), torch.tensor([timestep])
        tensors |= {f"{case}.latents": latents, f"{case}.timestep": t}
        for i, (branch, length) in enumerate((("cond", cond_len), ("uncond", uncond_len))):
            rows = randn(seed + 1 + i, length, DIT_CONFIG["text_dim"])
            context = torch.zeros(1, 512, DIT_CONFIG["text_dim"])
            context[0, :length] = rows
            result = model(latents[None], t, context, return_dict=False)[0][0]
            reference = exact(latents[None].double(), t, context.double(), return_dict=False)[0][0]
            worst = max(worst, relative(result, reference))
            tensors |= {f"{case}.context_{branch}": rows, f"{case}.out_{branch}": result}
            if case == "a":
                if branch == "cond":
                    tensors |= {f"a.{n}": taps[n] for n in ("patches", "temb", "self_attn")}
                    tensors["a.timestep_proj"] = taps["timestep_proj"].reshape(6, -1)
                    tensors["a.text_cond"] = taps["text"][: length + 1]
                    tensors["a.cross_attn_cond"] = taps["cross_attn"]
                    tensors["a.block0_cond"] = taps["block0"]
                    tensors["a.block1_cond"] = taps["block1"]
    save_io(out / "dit_io.safetensors", tensors)
    print(f"dit: fp32 against a float64 run (LayerNorm stays fp32): {worst:.2e}, output rms "
          f"{tensors['a.out_cond'].square().mean().sqrt():.2f}")


# ---- umT5 encoder ---------------------------------------------------------------------------------------------------

UMT5_CONFIG = dict(
    architectures=["UMT5EncoderModel"], classifier_dropout=0.0, d_ff=128, d_kv=64, d_model=64, decoder_start_token_id=0,
    dense_act_fn="gelu_new", dropout_rate=0.1, eos_token_id=1, feed_forward_proj="gated-gelu", initializer_factor=1.0,
    is_encoder_decoder=True, is_gated_act=True, layer_norm_epsilon=1e-6, model_type="umt5", num_decoder_layers=3,
    num_heads=2, num_layers=3, output_past=True, pad_token_id=0, relative_attention_max_distance=128,
    relative_attention_num_buckets=32, scalable_attention=True, tie_word_embeddings=False,
    tokenizer_class="T5Tokenizer", use_cache=True, vocab_size=576,
)
UMT5_TO_ORIGINAL = [
    (r"^shared\.", "token_embedding."),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (r"^encoder\.block\.", "blocks."),
    (r"layer\.0\.SelfAttention\.relative_attention_bias\.", "pos_embedding.embedding."),
    (r"layer\.0\.SelfAttention\.", "attn."),
    (r"layer\.0\.layer_norm\.", "norm1."),
    (r"layer\.1\.DenseReluDense\.wi_0\.", "ffn.gate.0."),
    (r"layer\.1\.DenseReluDense\.wi_1\.", "ffn.fc1."),
    (r"layer\.1\.DenseReluDense\.wo\.", "ffn.fc2."),
    (r"layer\.1\.layer_norm\.", "norm2."),
]


@torch.no_grad()
def make_umt5(out):
    config = transformers.UMT5Config(**UMT5_CONFIG)
    model = transformers.UMT5EncoderModel(config)
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")

    def scale(name, p):
        if "shared" in name or "embed_tokens" in name or "relative_attention_bias" in name:
            return 1.0
        return 0.25 / math.sqrt(p.shape[1]) if name.endswith(("SelfAttention.q.weight",)) else None

    randomize(model, 2, scale)
    weights = {n: t for n, t in model.state_dict().items() if n != "encoder.embed_tokens.weight"}
    weights.setdefault("shared.weight", model.get_input_embeddings().weight)
    save_json(out / "umt5" / "config.json", UMT5_CONFIG | {"torch_dtype": "bfloat16"})
    save(out / "umt5" / "model.safetensors", {n: t.bfloat16() for n, t in weights.items()})
    original = renamed(weights, UMT5_TO_ORIGINAL)
    save(out / "umt5_original" / "models_t5_umt5-xxl-enc-bf16.safetensors",
         {n: t.bfloat16() if t.ndim == 2 else t for n, t in original.items()})

    tensors, worst = {}, 0.0
    exact = transformers.UMT5EncoderModel(config).eval()
    exact.load_state_dict(model.state_dict())
    exact.double()
    generator = torch.Generator().manual_seed(20)
    for case, length in (("a", 21), ("b", 150), ("c", 1)):
        ids = torch.zeros(1, 512, dtype=torch.int64)
        ids[0, :length] = torch.cat([torch.randint(4, 576, (length - 1,), generator=generator), torch.tensor([1])])
        mask = (torch.arange(512) < length).long()[None]
        hidden = model(ids, mask).last_hidden_state[0, :length]
        worst = max(worst, relative(hidden, exact(ids, mask).last_hidden_state[0, :length]))
        tensors |= {f"{case}.ids": ids[0, :length], f"{case}.hidden": hidden}
    save_io(out / "umt5_io.safetensors", tensors)
    print(f"umt5: fp32 against a float64 run: {worst:.2e}")


# ---- VAE decoder ----------------------------------------------------------------------------------------------------

LATENTS_MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
LATENTS_STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
               3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]
VAE_CONFIG = dict(
    base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
    temperal_downsample=[False, True, True], dropout=0.0, latents_mean=LATENTS_MEAN, latents_std=LATENTS_STD,
)
VAE_TO_ORIGINAL = [
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    *[(rf"\.up_blocks\.{b}\.resnets\.{r}\.", f".upsamples.{4 * b + r}.") for b in range(4) for r in range(3)],
    *[(rf"\.up_blocks\.{b}\.upsamplers\.0\.", f".upsamples.{4 * b + 3}.") for b in range(3)],
    (r"(\.(?:middle|upsamples)\.\d+)\.norm1\.", r"\1.residual.0."),
    (r"(\.(?:middle|upsamples)\.\d+)\.conv1\.", r"\1.residual.2."),
    (r"(\.(?:middle|upsamples)\.\d+)\.norm2\.", r"\1.residual.3."),
    (r"(\.(?:middle|upsamples)\.\d+)\.conv2\.", r"\1.residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
]


@torch.no_grad()
def make_vae(out):
    vae = AutoencoderKLWan(**VAE_CONFIG)
    randomize(vae, 3)
    weights = {n: t for n, t in vae.state_dict().items() if n.startswith(("decoder.", "post_quant_conv."))}
    save_json(out / "vae_diffusers" / "config.json",
              {"_class_name": "AutoencoderKLWan", "_diffusers_version": diffusers.__version__, **VAE_CONFIG})
    save(out / "vae_diffusers" / "diffusion_pytorch_model.safetensors",
         {n: t.bfloat16() if t.ndim > 3 and t.numel() > 4096 else t for n, t in weights.items()})
    original = renamed(weights, VAE_TO_ORIGINAL)
    assert all(torch.equal(t.half().float(), t) for t in original.values())
    save(out / "vae_original" / "Wan2.1_VAE.safetensors", {n: t.half() for n, t in original.items()})

    def decode(vae, latents):
        """The pipeline's un-normalizing, and AutoencoderKLWan._decode's loop without its last clamp."""
        std = 1.0 / torch.tensor(LATENTS_STD).view(1, 16, 1, 1, 1).to(latents)
        z = latents[None] / std + torch.tensor(LATENTS_MEAN).view(1, 16, 1, 1, 1).to(latents)
        vae.clear_cache()
        x, frames = vae.post_quant_conv(z), []
        for i in range(z.shape[2]):
            vae._conv_idx = [0]
            frames.append(vae.decoder(x[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx,
                                      first_chunk=i == 0))
        vae.clear_cache()
        frames = torch.cat(frames, 2)
        assert torch.equal(vae.decode(z, return_dict=False)[0], frames.clamp(-1, 1))
        return frames[0]

    tensors, worst = {}, 0.0
    exact = AutoencoderKLWan(**VAE_CONFIG).eval()
    exact.load_state_dict(vae.state_dict())
    exact.double()  # the class upsamples in fp32 all the same
    for case, shape, seed in (("a", (16, 6, 4, 6), 30), ("b", (16, 1, 2, 4), 31)):
        latents = randn(seed, *shape)
        frames = decode(vae, latents)
        worst = max(worst, relative(frames, decode(exact, latents.double())))
        tensors |= {f"{case}.latents": latents, f"{case}.frames": frames}
    save_io(out / "vae_io.safetensors", tensors)
    rms, share = float(tensors["a.frames"].square().mean().sqrt()), float((tensors["a.frames"].abs() > 1).float().mean())
    print(f"vae: fp32 against a float64 run: {worst:.2e}, rms {rms:.2f}, {share:.1%} of the values outside [-1, 1]")


# ---- schedulers -----------------------------------------------------------------------------------------------------

ORIGINAL_SIGMA_MAX = float(np.float32(0.999))  # what the original UniPC starts from: 1 - 1/1000 in fp32


def shifted(u, shift):
    return shift * u / (1 + (shift - 1) * u)


def fake_model(x, s, a, b, c):
    """v = (a·x + b·s) + (c·x)/(1 + x·x), elementwise: a model any test can compute."""
    return (a * x + b * s) + (c * x) / (1 + x * x)


def run_class(scheduler, x, model):
    xs = [x]
    scheduler.set_begin_index(0)
    for i, t in enumerate(scheduler.timesteps):
        xs.append(scheduler.step(model(xs[-1], i), t, xs[-1], return_dict=False)[0])
    return torch.stack([x.flatten() for x in xs])


def log_snr(sigma):
    with np.errstate(divide="ignore"):
        return np.log(1 - sigma) - np.log(sigma)


def run_unipc(sigma, x, model):
    """UniPC-2, bh2, data prediction, in float64 (formulas: the class's, simplified for orders 1 and 2)."""
    n, xs, m, last = len(sigma) - 1, [x], [], None
    lam = log_snr(sigma)

    def update(i, j, order, x, extra=None):
        """From sigma_i to sigma_j with the data predictions m[i], m[i-1]; extra = m[j] makes it the corrector."""
        if sigma[j] == 0:
            return m[i]
        h = lam[j] - lam[i]
        e = np.expm1(-h)
        base = sigma[j] / sigma[i] * x - (1 - sigma[j]) * e * m[i]
        if order == 2:
            r = (lam[i - 1] - lam[i]) / h
            d = (m[i - 1] - m[i]) / r
        if extra is None:
            return base if order == 1 else base - (1 - sigma[j]) * e * 0.5 * d
        if order == 1:
            return base - (1 - sigma[j]) * e * 0.5 * (extra - m[i])
        phi = e / -h - 1
        b1, b2 = phi / e, (phi / -h - 0.5) * 2 / e
        rho = (b1 - b2) / (1 - r)
        return base - (1 - sigma[j]) * e * (rho * d + (b1 - rho) * (extra - m[i]))

    order = 0
    for i in range(n):
        m.append(x - sigma[i] * model(x, i))
        if i > 0:
            x = update(i - 1, i, order, last, m[i])
        order = min(2, n - i, i + 1)
        last = x
        x = update(i, i + 1, order, x)
        xs.append(x)
    return np.stack(xs)


def run_dpmpp(sigma, x, model):
    """DPM-Solver++ 2M, midpoint, in float64."""
    n, xs, m = len(sigma) - 1, [x], []
    lam = log_snr(sigma)
    for i in range(n):
        m.append(x - sigma[i] * model(x, i))
        if sigma[i + 1] == 0:
            x = m[i]
        elif sigma[i] == 1:
            x = sigma[i + 1] * x + (1 - sigma[i + 1]) * m[i]
        else:
            h = lam[i + 1] - lam[i]
            d = m[i]
            if 0 < i < n - 1 and sigma[i - 1] < 1:
                d = d + 0.5 * (m[i] - m[i - 1]) * h / (lam[i] - lam[i - 1])
            x = sigma[i + 1] / sigma[i] * x - (1 - sigma[i + 1]) * np.expm1(-h) * d
        xs.append(x)
    return np.stack(xs)


def run_euler(sigma, x, model):
    xs = [x]
    for i in range(len(sigma) - 1):
        xs.append(xs[-1] + (sigma[i + 1] - sigma[i]) * model(xs[-1], i))
    return np.stack(xs)


def unipc(n, shift, u=None):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000)
    scheduler.set_timesteps(n if u is None else None, sigmas=u)
    return scheduler


def dpmpp(n, shift):
    """diffusers' class on the original grid, which starts at sigma = 1 and is not one the class makes itself."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, algorithm_type="dpmsolver++",
        solver_order=2, solver_type="midpoint", final_sigmas_type="zero")
    scheduler.set_timesteps(n)
    sigma = shifted(np.linspace(1, 0, n + 1)[:n], shift)
    scheduler.sigmas = torch.from_numpy(np.append(sigma, 0).astype(np.float32))
    scheduler.timesteps = torch.from_numpy((sigma * 1000).astype(np.int64))
    scheduler.num_inference_steps = n
    return scheduler


def euler(n, shift, u=None):
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    scheduler.set_timesteps(n if u is None else None, sigmas=u)
    return scheduler


def make_schedulers(out):
    def original_grid(n):
        return np.linspace(ORIGINAL_SIGMA_MAX, 0, n + 1)[:n]

    cases = {
        "unipc.d.s12.n40": (unipc(40, 12.0), run_unipc),
        "unipc.d.s3.n40": (unipc(40, 3.0), run_unipc),
        "unipc.d.s12.n4": (unipc(4, 12.0), run_unipc),
        "unipc.d.s5.n2": (unipc(2, 5.0), run_unipc),
        "unipc.d.s5.n1": (unipc(1, 5.0), run_unipc),
        "unipc.o.s12.n40": (unipc(40, 12.0, original_grid(40)), run_unipc),
        "unipc.o.s5.n50": (unipc(50, 5.0, original_grid(50)), run_unipc),
        "unipc.o.s12.n4": (unipc(4, 12.0, original_grid(4)), run_unipc),
        "dpmpp.o.s12.n40": (dpmpp(40, 12.0), run_dpmpp),
        "dpmpp.o.s5.n50": (dpmpp(50, 5.0), run_dpmpp),
        "dpmpp.o.s12.n4": (dpmpp(4, 12.0), run_dpmpp),
        "euler.d.s12.n40": (euler(40, 12.0), run_euler),
        "euler.d.s12.n4": (euler(4, 12.0), run_euler),
        "euler.u.s12.n40": (euler(40, 12.0, np.linspace(1, 0.001, 41)[:40]), run_euler),
    }
    shape = (1, 4, 8)
    x, b = randn(40, *shape), randn(42, *shape)
    a, c = randn(41, *shape).clamp(-1.5, 1.5) * 0.5, randn(43, *shape)
    tensors = {"x": x.flatten(), "a": a.flatten(), "b": b.flatten(), "c": c.flatten()}
    for name, (scheduler, reference) in cases.items():
        sigma = scheduler.sigmas.float()
        n = len(sigma) - 1
        assert len(scheduler.timesteps) == n
        s = torch.from_numpy(np.cos(3 * sigma[:n].double().numpy())).float()
        ran = run_class(scheduler, x, lambda x, i: fake_model(x, s[i], a, b, c))
        arrays = [t.double().numpy().ravel() for t in (a, b, c)]
        exact = torch.from_numpy(reference(sigma.double().numpy(), x.double().numpy().ravel(),
                                           lambda x, i: fake_model(x, float(s[i]), *arrays)))
        tensors |= {f"{name}.sigmas": sigma, f"{name}.timesteps": scheduler.timesteps, f"{name}.s": s,
                    f"{name}.xs": ran, f"{name}.xs64": exact}
        print(f"{name}: class against float64: last {relative(ran[-1], exact[-1]):.1e}, "
              f"worst {max(relative(p, q) for p, q in zip(ran, exact)):.1e}; "
              f"t {scheduler.timesteps[0].item():g} … {scheduler.timesteps[-1].item():g}")
    save_io(out / "schedulers.safetensors", tensors)


# ---- noise ----------------------------------------------------------------------------------------------------------


def make_noise(out):
    tensors = {}
    for seed in (0, 42, 2**32 + 7, 2**64 - 1):
        for numel in (16, 1000, 16 * 3 * 6 * 10):
            torch.manual_seed(seed)
            tensors[f"seed{seed}.n{numel}"] = torch.randn(numel)
    assert torch.equal(randn(42, 1, 16, 3, 6, 10).flatten(), tensors["seed42.n2880"])
    save_io(out / "noise.safetensors", tensors)
    print(f"noise: {torch.backends.cpu.get_cpu_capability()}")


# ---- tokenizer ------------------------------------------------------------------------------------------------------

CORPUS = """
a cat and a dog bake a cake together in a small kitchen while sunlight streams through the window
two boxers fight on a spotlit stage and the camera slowly moves around them
a white boat sails across the calm blue sea at sunset, gulls follow it
close-up of an old man reading a book by the fire, film grain, 35mm, shallow depth of field
the red train runs through a snowy forest; steam rises into the cold morning air
a child laughs and runs along the beach, waves break behind her
time-lapse of clouds over the mountains, then the stars come out (4k, 60 fps)
an astronaut walks on the moon and waves at the camera: slow motion, wide shot
what is this? it's a robot that doesn't sleep! "hello", said the robot.
city street at night, neon signs, rain & reflections on the wet ground
the horse gallops through the field, its mane moving in the wind
she opens the door and walks into a bright room full of flowers
猫在厨房里烤蛋糕，阳光透过窗户照进来。
一只白色的狗在海边奔跑，天空很蓝。
红色的火车穿过雪中的森林。静态,画面,细节,低质量
两个人在城市的夜晚走路,下雨了
Красная кошка сидит на окне. Le café est près de la forêt. Ein schöner Tag
0 1 2 3 4 5 6 7 8 9 10 16 24 480 720 832 1280
""".strip().splitlines()

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)

PROMPTS = [  # (class, prompt)
    ("plain", "a cat and a dog bake a cake"),
    ("plain", "Two boxers fight on a spotlit stage."),
    ("plain", "a"),
    ("plain", "."),
    ("plain", "camera: slow motion, wide shot (4k, 60 fps); \"hello\" & what's this?"),
    ("plain", "Le café est près de la forêt"),
    ("plain", "Красная кошка сидит на окне."),
    ("plain", "supercalifragilisticexpialidocious xqzzjkw"),
    ("plain", "a-b_c/d\\e|f@g#h$i%j^k*l+m=n~o`p[q]r{s}t<u>v"),
    ("empty", ""),
    ("empty", "   "),
    ("empty", "\n\t \u3000"),
    ("spaces", "  a  cat   on    a     mat  "),
    ("spaces", "a cat\non a\tmat\r\nat night"),
    ("spaces", "a\u00a0cat\u2003on\u3000a\u2028mat\u2029at\u0085night\u200ba\ufeffb"),
    ("spaces", "a\x0bcat\x0con a\x1cmat"),
    ("spaces", "a▁cat ▁on▁▁a mat"),
    ("chinese", "猫在厨房里烤蛋糕"),
    ("chinese", "一只白色的狗在海边奔跑，天空很蓝。"),
    ("chinese", NEGATIVE),
    ("chinese", "a 猫 and 一只狗 on the beach"),
    ("emoji", "a cat 😀 on a mat"),
    ("emoji", "😀😀😀"),
    ("emoji", "🐈‍⬛ 👨‍👩‍👧 🇩🇪 ☂️ ❤"),
    ("emoji", "cat😀dog 😀"),
    ("unknown", "a ᚠᚢᚦ cat ༀ༁"),
    ("unknown", "日本語のテキスト 한국어"),
    ("unknown", "ᚠ ᚢ ᚦ"),
    ("unknown", "ᚠcatᚢdogᚦ"),
    ("unknown", "\U0010ffff \ue000 a"),
    ("added", "<0x41> <0xF0> literal byte pieces"),
    ("entities", "salt &amp; pepper &lt;b&gt; &quot;x&quot; &#39;y&#39; &nbsp; &hearts;"),
    ("entities", "&amp;amp; &amp;lt; &amp;#x41; &amp;amp;amp;"),
    ("entities", "&copy &notit; &unknown; &#0; &#128; &#xD800; &#x110000; &;"),
    ("entities", "a &lt cat &gt dog &ampx"),
    ("fullwidth", "ＡＢＣ　１２３，（ｃａｔ）！？"),
    ("fullwidth", "ｱｲｳ ﾞ ￥ ￡ ～ ｜"),
    ("quotes", "“a cat” said ‘the dog’ „low“ «guillemets» ‹x› ′ ″"),
    ("quotes", "it’s a robot that doesn`t sleep… – — ‐ −"),
    ("ligature", "ﬁre ﬂower oﬃce ﬀ ﬆ Ĳ ǆ"),
    ("combining", "cafe\u0301 schön scho\u0308n A\u030a e\u0302\u0301"),
    ("combining", "\u0301a \u1100\u1161\u11a8 \u212b \u2126"),
    ("control", "a\x00b\x01c\x07d\x1be\x7ff\x9fg"),
    ("control", "\x1b[31mred\x1b[0m cat \x08\ufffc\ufeff\u200e\u202etext\u206a"),
    ("control", "a\ufffdb \ufdd0 \U000e0041"),
    ("mojibake", "the cafÃ© is nice â€” very"),
    ("mojibake", "l’humanitÃ© â€œquotedâ€\x9d"),
    ("mojibake", "doesn\x92t \x93quoted\x94"),
    ("long", " ".join(f"the cat walks into room {i}" for i in range(100))),
    ("long", " ".join(["cat"] * 511)),
    ("long", " ".join(["cat"] * 600)),
    ("long", "猫" * 700),
    ("long", "a" * 3000),
    ("added", "the cat<extra_id_7>"),
    ("added", "</s>"),
    ("added", "a cat</s> on <pad> <unk>"),
]
EXTRA_IDS = 12


def prompt_clean(text):
    """diffusers' pipelines/wan: prompt_clean, with ftfy installed."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean as clean

    cleaned = clean(text)
    assert cleaned == re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text))).strip()).strip()
    return cleaned


def make_tokenizer(out):
    folder = out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=model, model_type="unigram", vocab_size=740,
        character_coverage=1.0, hard_vocab_limit=False, normalization_rule_name="identity", byte_fallback=True,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, num_threads=1, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())

    from transformers.convert_slow_tokenizer import T5Converter

    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    source = SimpleNamespace(
        vocab_file=str(folder / "spiece.model"), _extra_ids=EXTRA_IDS,
        convert_tokens_to_ids=lambda token: sp.piece_to_id(token))
    backend = T5Converter(source).converted()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(EXTRA_IDS)])
    backend.save(str(folder / "tokenizer.json"))
    save_json(folder / "tokenizer_config.json", {
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(EXTRA_IDS)], "bos_token": "<s>",
        "clean_up_tokenization_spaces": True, "eos_token": "</s>", "extra_ids": EXTRA_IDS, "pad_token": "<pad>",
        "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>"})

    prompts = []
    for kind, prompt in PROMPTS:
        cleaned = prompt_clean(prompt)
        ids = tokenizer(cleaned, truncation=True, max_length=512, add_special_tokens=True).input_ids
        prompts.append({"class": kind, "prompt": prompt, "cleaned": cleaned, "ids": ids,
                        "ids_byte_fallback": sp.encode(cleaned)[:511] + [1]})
    save_json(folder / "prompts.json", {
        "versions": VERSIONS, "pieces": sp.get_piece_size(), "extra_ids": EXTRA_IDS, "prompts": prompts})
    text = (folder / "prompts.json").read_text(encoding="utf-8")
    text = re.sub(r"\[\s+([\d,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
    (folder / "prompts.json").write_text(text, encoding="utf-8")
    differing = sum(p["ids"] != p["ids_byte_fallback"] for p in prompts)
    print(f"tokenizer: {sp.get_piece_size()} pieces, {len(prompts)} prompts, {differing} differ with byte fallback")


# ---- the whole pipeline -------------------------------------------------------------------------------------------------

PIPELINE_CALL = dict(
    prompt="a cat and a dog bake a cake in the kitchen,  slow camera move, 白色的猫", negative_prompt="static, blurry, 低质量",
    height=32, width=48, num_frames=5, num_inference_steps=4, guidance_scale=4.0, guidance_scale_2=3.0)


def make_pipeline(out):
    """WanPipeline on the folder that scripts/tiny_checkpoint.lua writes: prompt in, frames out, with both experts."""
    script = Path(__file__).parents[1] / "tiny_checkpoint.lua"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["lua5.4", script, f"{scratch}/tiny"], check=True)
        pipeline = diffusers.WanPipeline.from_pretrained(f"{scratch}/tiny", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    tensors = {}
    embeds = pipeline.encode_prompt(PIPELINE_CALL["prompt"], PIPELINE_CALL["negative_prompt"], max_sequence_length=512)
    for name, text, rows in zip(("cond", "uncond"), ("prompt", "negative_prompt"), embeds):
        ids = torch.tensor(pipeline.tokenizer(prompt_clean(PIPELINE_CALL[text])).input_ids)
        assert 2 not in ids and not rows[0, len(ids):].any()  # 2: what transformers 5's class gives for unknown text
        tensors |= {f"ids_{name}": ids, f"context_{name}": rows[0, : len(ids)]}
    for shift in (3.0, 12.0):
        pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=shift)
        steps = []
        frames = pipeline(
            **PIPELINE_CALL, generator=torch.Generator().manual_seed(42), output_type="np",
            callback_on_step_end=lambda _p, i, t, kwargs: steps.append(kwargs["latents"][0].clone()) or {}).frames[0]
        name = f"s{shift:g}"
        tensors |= {f"{name}.timesteps": pipeline.scheduler.timesteps, f"{name}.latents": torch.stack(steps)}
        if shift == 3:
            tensors[f"{name}.frames"] = torch.from_numpy(frames).permute(3, 0, 1, 2)
        print(f"pipeline {name}: t {pipeline.scheduler.timesteps.tolist()}, frames {frames.mean():.3f} ± {frames.std():.3f}")
    save_io(out / "pipeline_io.safetensors", tensors)


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

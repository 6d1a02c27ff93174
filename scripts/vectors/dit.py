"""The diffusion transformer, in both layouts."""
import diffusers
import torch
from diffusers import WanTransformer3DModel

from store import randn, randomize, relative, renamed, save, save_io, save_json, save_sharded

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

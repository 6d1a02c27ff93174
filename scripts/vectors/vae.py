"""The decoder, in both layouts."""
import diffusers
import torch
from diffusers import AutoencoderKLWan

from store import randn, randomize, relative, renamed, save, save_io, save_json

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

"""Holds networks.py's fast paths together with the classes they stand for, on small random clips on the CPU: python3 check.py"""
import torch

import networks


def largest(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def main():
    torch.manual_seed(0)
    with torch.no_grad():
        vae = networks.make_vae().eval()
        for name, p in vae.named_parameters():
            if "gamma" in name:
                p.add_(0.2 * torch.randn_like(p))
        clips, z = torch.rand(2, 3, 9, 32, 48) * 2 - 1, torch.randn(2, 16, 3, 4, 6)
        expected, decoded = vae.encode(clips).latent_dist, vae.decode(z).sample
        for stacked in (True, False):
            whole = networks.WholeClips(vae, stacked=stacked)
            mean, log_variance = whole.encode(clips)
            print("encode", largest(mean, expected.mean), largest(log_variance, expected.logvar))
            print("decode", largest(whole.decode(z).clamp(-1, 1), decoded))
        dit = networks.make_transformer().eval()
        for p in (dit.proj_out.weight, dit.proj_out.bias, dit.condition_embedder.text_embedder.linear_1.bias):
            p.normal_(0, 0.1)
        lengths = torch.tensor([7, 1])
        hidden = torch.randn(2, 16, networks.TEXT["d_model"]) * (torch.arange(16) < lengths[:, None])[:, :, None]
        latents, t = torch.randn(2, 16, 3, 4, 6), torch.tensor([900.0, 123.0])
        ours = networks.velocity(dit, latents, t, hidden, networks.padding_bias(lengths, 16))
        padded = torch.cat([hidden, hidden.new_zeros(2, networks.TEXT_ROWS - 16, hidden.shape[2])], 1)
        print("velocity", largest(ours, dit(latents, t, padded).sample))
        text = networks.make_text(128).eval()
        for block in text.encoder.block:
            block.layer[0].SelfAttention.relative_attention_bias.weight.normal_()
        ids = torch.tensor([[5, 9, 77, 3, 1, 0, 0, 0], [8, 1, 0, 0, 0, 0, 0, 0]])
        expected = text(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state * (ids != 0)[:, :, None]
        print("text", largest(networks.encode_text(text, ids)[0], expected))
        counts = {name: sum(p.numel() for p in m.parameters())
                  for name, m in (("vae", vae), ("transformer", dit), ("text encoder", networks.make_text(128)))}
        print("parameters", counts, "MB", 2e-6 * (counts["vae"] + 2 * counts["transformer"] + counts["text encoder"]))


if __name__ == "__main__":
    main()

"""Clips from prompts with the pocket model's networks, many at once: what WanPipeline does, on the fast paths of networks.py."""
import torch

import networks


class Model:
    """Networks in evaluation mode on one device. experts: high and low noise."""

    def __init__(self, vae, text, experts, tokenizer):
        self.vae, self.text, self.experts, self.tokenizer = vae, text, experts, tokenizer
        self.device = next(vae.parameters()).device

    def encode(self, texts):
        ids = [self.tokenizer.ids(t) for t in texts]
        rows = max(map(len, ids)) + 1
        table = torch.tensor([i + [0] * (rows - len(i)) for i in ids], device=self.device)
        hidden, lengths = networks.encode_text(self.text, table)
        return hidden, networks.padding_bias(lengths, rows)

    @torch.no_grad()
    def sample(self, texts, seeds, *, negative="", guidance=(3.0, 4.0), steps=40, shift=networks.SCHEDULER["flow_shift"],
               latent_shape=(5, 16, 16)):
        """Frames [n, 3, frames, height, width] in -1..1; guidance of the low- and the high-noise expert, as on moonkiln's command
        line."""
        n = len(texts)
        hidden, bias = self.encode([*texts, *[negative] * n])
        noise = [torch.randn(1, networks.CHANNELS, *latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        x = torch.cat(noise).to(self.device)
        scheduler = networks.make_scheduler(shift)
        scheduler.set_timesteps(steps, device=self.device)
        for t in scheduler.timesteps:
            low = t.item() < 1000 * networks.BOUNDARY
            v, u = networks.velocity(self.experts[low], torch.cat([x, x]), t.expand(2 * n).float(), hidden, bias).chunk(2)
            x = scheduler.step(u + guidance[0 if low else 1] * (v - u), t, x, return_dict=False)[0]
        mean, std = networks.latent_statistics(self.vae, self.device)
        whole = networks.WholeClips(self.vae)
        return torch.cat([whole.decode(part * std + mean).clamp(-1, 1) for part in x.split(16)])

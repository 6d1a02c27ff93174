"""Trains the pocket model's VAE on crops, then on whole clips, and measures its latents."""
import math
import time

import numpy as np
import torch

import clips as drawing
import networks
from loop import Captured, Clock, Weights, milliseconds, round_weights, say
from scene import FRAMES, SIZE


class ClipBank:
    """Clips as bytes on the device, from which batches of crops are drawn there."""

    def __init__(self, count, seed, device):
        source, pictures, covers, middles = drawing.Clips(seed, device), [], [], []
        while count > 0:
            scenes, tracks = source.scenes(min(64, count))
            picture, cover = drawing.draw(scenes, tracks, device)
            count -= len(picture)
            pictures.append(((picture + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1))
            covers.append((cover[:, 0] * 255).round().byte())
            middles.append(torch.as_tensor(np.stack(tracks)[:, :2], device=device).round().long())
        self.pictures, self.covers, self.middles = torch.cat(pictures), torch.cat(covers), torch.cat(middles)

    def crops(self, count, frames, size):
        """Clips f32 [count, 3, frames, size, size] in -1..1, and the shape's coverage [count, 1, frames, size, size]. A crop lies
        around the shape, give or take half its own size."""
        device, (clips, length, height, width) = self.pictures.device, self.pictures.shape[:4]
        clip = torch.randint(clips, (count,), device=device)
        first = torch.randint(length - frames + 1, (count,), device=device)
        x, y = self.middles[clip, :, first + frames // 2].unbind(1)

        def range_from(start, steps):
            return start[:, None] + torch.arange(steps, device=device)

        def around(middle, room):
            moved = middle - size // 2 + torch.randint(-size // 2, size // 2 + 1, (count,), device=device)
            return range_from(moved.clamp(0, room - size), size)

        t, y, x = range_from(first, frames)[:, :, None, None], around(y, height)[:, None, :, None], around(x, width)[:, None, None, :]
        clip = clip[:, None, None, None]
        picture = self.pictures[clip, t, y, x].float().permute(0, 4, 1, 2, 3) / 127.5 - 1
        return picture, self.covers[clip, t, y, x].float()[:, None] / 255


def losses(whole, batch, cover, divergence_weight):
    """Loss, square error, divergence. What the shape covers counts more, and so does hue: both are a small part of a picture."""
    mean, log_variance = whole.encode(batch)
    z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    difference = whole.decode(z) - batch
    hue = difference - difference.mean(1, keepdim=True)
    error = ((1 + 3 * cover) * (difference.abs() + difference.square() + hue.abs())).mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error + divergence_weight * divergence, difference.detach().square().mean(), divergence.detach()


def train(o, device, vae, report):
    """vae: to go on with, or None."""
    vae = (vae or networks.make_vae()).to(device).train().requires_grad_(True)
    half = torch.bfloat16 if device == "cuda" else torch.float32
    bank = ClipBank(o.clips, o.seed + 1, device)
    say(f"{o.clips} clips drawn")
    weights = Weights([vae], device, 0.998, (0.9, 0.99), 1e-4)
    whole = networks.WholeClips(vae, half, device == "cpu", o.compile)
    stages = ((0.8, o.batch_vae, 9, 64), (1.0, max(1, o.batch_vae // 2), FRAMES, SIZE))
    clock, shown = None, time.time()
    for end, *shape in stages:
        def one_step(shape=shape):
            loss, error, divergence = losses(whole, *bank.crops(*shape), o.divergence)
            weights.update(loss)
            return torch.stack([loss.detach(), error, divergence])

        step = Captured(one_step, device)
        say(f"vae: {milliseconds(step):.1f} ms a step, crops: {shape}")
        clock = clock or Clock(o.seconds_vae, o.steps_vae)
        while clock.progress() < end:
            weights.rate.fill_(clock.rate(o.rate_vae, 200))
            figures = step()
            if clock.step % 16 == 0 and time.time() - shown > o.show or clock.step == 100:
                shown = time.time()
                loss, error, divergence = figures.tolist()
                quality = -10 * math.log10(error / 4)
                say(f"vae step {clock.step} loss {loss:.4f} psnr {quality:.2f} divergence {divergence:.3f}")
                report["vae_log"].append([clock.step, round(clock.progress(), 3), loss, quality, divergence])
                if not math.isfinite(loss):
                    raise SystemExit("the VAE's loss is not a number: a lower --rate-vae helps")
            if clock.step == 400:
                weights.restart_average()
            clock.tick()
    report["vae_steps"] = clock.step
    weights.swap()
    round_weights(vae)
    measure(o, vae, device, report)
    return vae


@torch.no_grad()
def measure(o, vae, device, report):
    """Quality on unseen clips. Latents get mean 0 and deviation 1, but channels that hold little beside the encoder's own noise stay
    small."""
    whole = networks.WholeClips(vae)
    total = squares = noise = count = 0
    errors = []
    check = drawing.Clips(o.seed + 2, device)
    for _ in range(max(1, o.bank // 2048)):
        batch, _ = check.batch(min(64, o.bank))
        mean, log_variance = whole.encode(batch)
        total = total + mean.double().sum((0, 2, 3, 4))
        squares = squares + mean.double().square().sum((0, 2, 3, 4))
        noise = noise + log_variance.double().exp().sum((0, 2, 3, 4))
        count += mean[:, 0].numel()
        if len(errors) < 4:
            errors.append((whole.decode(mean).clamp(-1, 1) - batch).square().mean((1, 3, 4)))
    average = total / count
    spread = squares / count - average.square()
    deviation = torch.maximum(spread, 0.25 * (spread + noise / count)).sqrt()
    vae.register_to_config(latents_mean=[round(v, 4) for v in average.tolist()], latents_std=[round(v, 4) for v in deviation.tolist()])
    errors = torch.cat(errors).cpu()
    report["vae_psnr"] = (10 * torch.log10(4 / errors.mean(1))).mean().item()
    report["vae_psnr_worst_frame"] = 10 * math.log10(4 / errors.max().item())
    say(f"vae: {report['vae_steps']} steps, PSNR of unseen clips {report['vae_psnr']:.2f} dB, worst frame {report['vae_psnr_worst_frame']:.2f} dB")
    say("latents: mean", [round(v, 2) for v in average.tolist()], "deviation", [round(v, 2) for v in deviation.tolist()])

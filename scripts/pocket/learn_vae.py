"""Trains the pocket model's VAE on crops, then on whole clips, and measures its latents."""
import math
import time

import torch

import clips as drawing
import networks
from loop import Captured, Clock, Weights, milliseconds, round_weights, say


class ClipBank:
    """Clips as bytes on the device, from which batches of crops are drawn there."""

    def __init__(self, count, seed, device):
        source, pictures, covers = drawing.Clips(seed, device), [], []
        while count > 0:
            picture, cover = source.batch(min(64, count))
            count -= len(picture)
            pictures.append(((picture + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1))
            covers.append((cover[:, 0] * 255).round().byte())
        self.pictures, self.covers = torch.cat(pictures), torch.cat(covers)

    def crops(self, count, frames, size):
        """Clips f32 [count, 3, frames, size, size] in -1..1, and the shape's coverage [count, 1, frames, size, size]."""
        device, whole = self.pictures.device, self.pictures.shape

        def somewhere(room, length):
            return torch.randint(room - length + 1, (count, 1), device=device) + torch.arange(length, device=device)

        clip = torch.randint(whole[0], (count,), device=device)[:, None, None, None]
        t = somewhere(whole[1], frames)[:, :, None, None]
        y, x = somewhere(whole[2], size)[:, None, :, None], somewhere(whole[3], size)[:, None, None, :]
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


def train(o, device, report):
    vae = networks.make_vae().to(device)
    half = torch.bfloat16 if device == "cuda" else torch.float32
    bank = ClipBank(o.clips, o.seed + 1, device)
    say(f"{o.clips} clips drawn")
    weights = Weights([vae], device, 0.998, (0.9, 0.99), 1e-4)
    stages = ((0.7, o.batch_vae, 9, 64), (1.0, max(1, o.batch_vae // 4), drawing.drawing.FRAMES, drawing.drawing.SIZE))
    ways = {"2D": True, "3D": False}

    def make_step(count, frames, size, stacked):
        whole = networks.WholeClips(vae, half, stacked, o.compile)

        def step():
            loss, error, divergence = losses(whole, *bank.crops(count, frames, size), o.divergence)
            weights.update(loss)
            return torch.stack([loss.detach(), error, divergence])

        return Captured(step, device)

    clock, shown = Clock(o.seconds_vae, o.steps_vae), time.time()
    for end, *shape in stages:
        steps = {name: make_step(*shape, stacked) for name, stacked in ways.items()}
        times = {name: milliseconds(step) for name, step in steps.items()}
        say("vae: batches of", shape, "ms a step, convolutions over time in", {n: round(t, 1) for n, t in times.items()})
        best = min(times, key=times.get)
        step, ways = steps[best], {best: ways[best]}
        while clock.progress() < end:
            weights.rate.fill_(clock.rate(o.rate_vae, 200))
            figures = step()
            if clock.step % 16 == 0 and time.time() - shown > o.show or clock.step in (0, 100):
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

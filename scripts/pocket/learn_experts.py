"""Trains the pocket model's text encoder and both experts together, by flow matching on the latents of a bank of clips."""
import math
import time

import torch

import clips as drawing
import grammar
import learn_text
import networks
from loop import START, Captured, Clock, Weights, milliseconds, round_weights, say

DROP, NEGATIVE = 0.10, 0.03  # share of captions replaced by nothing, by something unreadable (such as another model's negative prompt)
CHOICES = {"both": (0, 1), "high": (0,), "low": (1,)}


class Bank:
    """Normalized latents of random clips, on the device, and their scenes."""

    def __init__(self, vae, count, seed, device, compiled):
        whole = networks.WholeClips(vae, torch.bfloat16 if device == "cuda" else torch.float32, compiled=compiled)
        mean, std = networks.latent_statistics(vae, device)
        source, self.scenes, parts = drawing.Clips(seed, device), [], []
        with torch.no_grad():
            while len(self.scenes) < count:
                scenes, tracks = source.scenes(min(64, count - len(self.scenes)))
                latents, _ = whole.encode(drawing.draw(scenes, tracks, device)[0])
                parts.append(((latents - mean) / std).half())
                self.scenes += scenes
        self.latents = torch.cat(parts)


class Captions:
    """Token ids of every prompt of a bank's scenes, on the device, to be drawn by a table of scene and phrasing."""

    def __init__(self, scenes, tokenizer, device):
        self.numbers, texts, first, counts = {}, [], [], []
        for scene in scenes:
            if scene not in self.numbers:
                self.numbers[scene] = len(first)
                first.append(len(texts))
                plain = grammar.prompts(scene)
                ways = [*plain, *("A" + p[1:] for p in plain[:1]), *(p + "." for p in plain[:1]), "A" + plain[0][1:] + "."]
                texts += ways
                counts.append(len(ways))
        replaced = ["", "\u8272\u8c03"]
        self.empty = len(texts)
        ids = [tokenizer.ids(t) for t in texts + replaced]
        self.rows = max(map(len, ids)) + 1
        self.rows += -self.rows % 8
        self.ids = torch.tensor([i + [0] * (self.rows - len(i)) for i in ids], device=device)
        self.first, self.counts = (torch.tensor(v, device=device) for v in (first, counts))
        self.scene = torch.tensor([self.numbers[s] for s in scenes], device=device)

    def draw(self, clips):
        """Ids [n, rows] of a random phrasing for each clip, some replaced by nothing."""
        random_part = torch.rand(2, len(clips), device=clips.device)
        scene = self.scene[clips]
        text = self.first[scene] + (random_part[0] * self.counts[scene]).long()
        text = torch.where(random_part[1] < DROP, self.empty, text)
        text = torch.where((random_part[1] >= DROP) & (random_part[1] < DROP + NEGATIVE), self.empty + 1, text)
        return self.ids[text]


def random_sigma(count, high, device):
    """Noise levels of one expert, as dense as a sampler's steps are: half with a shift of 3, half with 12."""
    shift = torch.where(torch.rand(count, device=device) < 0.5, 3.0, 12.0)
    border = networks.BOUNDARY / (shift - (shift - 1) * networks.BOUNDARY)  # before the shift
    u = torch.rand(count, device=device)
    u = border + (1 - border) * u if high else 0.002 + (border - 0.002) * u
    return shift * u / (1 + (shift - 1) * u)


def losses(text, experts, chosen, bank, captions, count, run_block, dtype):
    """Mean square error of the velocity of each chosen expert (0 high noise, 1 low noise), each on `count` clips."""
    device = bank.latents.device
    clips = torch.randint(len(bank.latents), (len(chosen) * count,), device=device)
    hidden, lengths = networks.encode_text(text, captions.draw(clips))
    bias = networks.padding_bias(lengths, captions.rows)
    clean = bank.latents[clips].float()
    noise = torch.randn(clean.shape, device=device)
    out = []
    for i, which in enumerate(chosen):
        part = slice(i * count, (i + 1) * count)
        sigma = random_sigma(count, which == 0, device).view(-1, 1, 1, 1, 1)
        x = (1 - sigma) * clean[part] + sigma * noise[part]
        v = networks.velocity(experts[which], x, 1000 * sigma.view(-1), hidden[part], bias[part], dtype, run_block)
        out.append((v - (noise[part] - clean[part])).square().mean())
    return torch.stack(out)


def train(o, device, vae, start, tokenizer, report, keep):
    """start: text encoder and experts to go on from, or None. With one expert chosen, the text encoder stays as it is. keep(text,
    experts): called now and then with the averaged weights."""
    text, experts = start or (learn_text.train(tokenizer, device, o.seed, o.steps_text), [networks.make_transformer() for _ in range(2)])
    chosen = CHOICES[o.experts]
    networks_to_train = [experts[i] for i in chosen] + ([text] if len(chosen) == 2 else [])
    for m in (text, *experts):
        m.to(device).requires_grad_(m in networks_to_train)
    if not o.steps_dit and o.seconds_dit <= 0:
        return text, experts
    say(f"encoding {o.bank} clips")
    bank = Bank(vae, o.bank, o.seed + 3, device, o.compile)
    captions = Captions(bank.scenes, tokenizer, device)
    say(f"bank: deviation of the latents {bank.latents.float().std().item():.3f}, {len(captions.ids)} captions of {captions.rows} rows")
    weights = Weights(networks_to_train, device, 0.9995, (0.9, 0.98), 0.01)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    run_block = torch.compile(networks.block_forward) if o.compile else networks.block_forward
    recent = torch.zeros(len(chosen) + 1, device=device)

    def one_step():
        loss = losses(text, experts, chosen, bank, captions, o.batch_dit, run_block, dtype)
        weights.update(loss.sum())
        recent.add_(torch.cat([loss.detach(), torch.ones(1, device=device)]))

    step = Captured(one_step, device)
    say(f"experts: {milliseconds(step):.1f} ms a step of {o.batch_dit} clips each")
    clock = Clock(min(o.seconds_dit, o.until - 55 - (time.time() - START)), o.steps_dit)
    shown = kept = time.time()
    while True:
        weights.rate.fill_(clock.rate(o.rate_dit, 300))
        step()
        if clock.step % 16 == 0 and time.time() - shown > o.show or clock.step == 100:
            shown = time.time()
            *sums, since = recent.tolist()
            shares = [v / since for v in sums]
            say(f"step {clock.step} loss of experts ({o.experts})", *(f"{v:.4f}" for v in shares), f"rate {weights.rate.item():.2e}")
            report["dit_log"].append([clock.step, round(clock.progress(), 3), *shares])
            recent.zero_()
            if not math.isfinite(sum(shares)):
                raise SystemExit("the experts' loss is not a number: a lower --rate-dit helps")
        if clock.step == 1000:
            weights.restart_average()
        if time.time() - kept > o.keep_every:
            kept = time.time()
            weights.swap()
            keep(text, experts)
            weights.swap()
        if not clock.tick():
            break
    report["dit_steps"] = clock.step
    if clock.step > 1000:
        weights.swap()
    for m in (text, *experts):
        round_weights(m)
    return text, experts

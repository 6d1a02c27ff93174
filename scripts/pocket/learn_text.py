"""Teaches the pocket model's text encoder to read before the experts are trained: what a prompt says must be found again in the
states of its words. Without this it long goes on to mistake which of two colours, or of two sides, comes first."""
import random

import torch
import torch.nn.functional as F

import grammar
import networks
from loop import say

WORDS = {"colour": list(grammar.COLOURS), "second": ["", *grammar.COLOURS], "shape": list(grammar.SHAPES),
         "motion": list(grammar.MOTIONS), "place": list(grammar.PLACES), "size": list(grammar.SIZES.values())}


class Reader(torch.nn.Module):
    """For each thing that a scene names, a look at the states of the words and a choice; thrown away after the lesson."""

    def __init__(self, width):
        super().__init__()
        self.looks = torch.nn.Parameter(0.1 * torch.randn(len(WORDS), width))
        self.keys = torch.nn.Linear(width, width)
        self.choices = torch.nn.ModuleList(torch.nn.Linear(width, len(words)) for words in WORDS.values())

    def forward(self, hidden, lengths):
        """hidden [n, k, width], lengths [n] -> logits of each choice [n, its words]."""
        beyond = torch.arange(hidden.shape[1], device=hidden.device) >= lengths[:, None]
        shares = torch.einsum("qd,nkd->nqk", self.looks, self.keys(hidden)) / hidden.shape[2] ** 0.5
        shares = shares.masked_fill(beyond[:, None], -1e9).softmax(-1)
        seen = torch.einsum("nqk,nkd->nqd", shares, hidden)
        return [choice(seen[:, i]) for i, choice in enumerate(self.choices)]


def batch(scenes, tokenizer, device, rng):
    """Ids [n, k] of a random phrasing of each scene, and what it says [n, things]."""
    ids = [tokenizer.ids(rng.choice(grammar.prompts(s))) for s in scenes]
    rows = max(map(len, ids))
    said = [[words.index(getattr(s, thing)) for thing, words in WORDS.items()] for s in scenes]
    return torch.tensor([i + [0] * (rows - len(i)) for i in ids], device=device), torch.tensor(said, device=device)


def right(text, reader, scenes, tokenizer, device, rng):
    """Share of scenes of which everything is read rightly."""
    ids, said = batch(scenes, tokenizer, device, rng)
    with torch.no_grad():
        found = torch.stack([logits.argmax(1) for logits in reader(*networks.encode_text(text, ids))], 1)
    return (found == said).all(1).float().mean().item()


def train(tokenizer, device, seed, steps, count=128):
    """A new text encoder, shown scenes that training may show, every motion equally often; says how many others it reads rightly."""
    rng = random.Random(seed)
    text = networks.make_text(tokenizer.rows).to(device)
    reader = Reader(text.config.d_model).to(device)
    optimizer = torch.optim.AdamW([*text.parameters(), *reader.parameters()], lr=2e-3)
    pool = {m: [s for s in grammar.scenes(held_out=False) if s.motion == m] for m in grammar.MOTIONS}
    for step in range(steps):
        ids, said = batch([rng.choice(pool[rng.choice(list(pool))]) for _ in range(count)], tokenizer, device, rng)
        logits = reader(*networks.encode_text(text, ids))
        loss = sum(F.cross_entropy(of, said[:, i]) for i, of in enumerate(logits))
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, 2 * (1 - step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = right(text, reader, [s for _, s in grammar.unseen(400, seed)], tokenizer, device, rng)
    say(f"text encoder: loss {loss.item():.4f} after {steps} steps, {share:.3f} of unseen prompts read rightly")
    return text

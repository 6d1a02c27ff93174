"""Draws random clips of scenes on any PyTorch device, many at once."""
import functools
import math
import random

import numpy as np
import torch

import grammar
import scene as drawing

PLACE_NAMES, COLOUR_NAMES = list(drawing.BACKGROUNDS), list(drawing.COLOURS)
HARD = ("turn", "bounce")
RADII = {"small": (9, 12.5), "any": (13, 21), "big": (22, 27)}


def track(scene, rng):
    """Numbers of one clip of the scene: constants, and `x`, `y`, `radius`, `angle`, `mix` (of the second colour) per frame."""
    t = np.arange(drawing.FRAMES) / (drawing.FRAMES - 1)
    size, motion = drawing.SIZE, scene.motion
    reach = 1.25 if scene.shape == "star" else 1.1
    radius = np.full_like(t, rng.uniform(*RADII[scene.size]))
    if motion in ("grow", "shrink"):
        small, large = rng.uniform(8, 11), rng.uniform(24, 34)
        radius = small + (large - small) * (t if motion == "grow" else 1 - t)
    room = reach * radius.max() + 2
    free = size - 2 * room
    x, y = (np.full_like(t, rng.uniform(room, size - room)) for _ in range(2))
    angle, mix = np.zeros_like(t), np.zeros_like(t)
    if motion in ("right", "left", "up", "down"):
        way = rng.uniform(max(38, 0.6 * free), free)
        start = room + rng.uniform(0, free - way)
        path = start + way * (t if motion in ("right", "down") else 1 - t)
        if motion in ("right", "left"):
            x = path
            if scene.shape == "ball":
                angle = (x - x[0]) / radius[0]
        else:
            y = path
    elif motion == "bounce":
        floor = size - room - rng.uniform(0, 12)
        y = floor - rng.uniform(36, min(62, floor - room)) * np.abs(np.sin(2 * math.pi * t))
    elif motion == "turn":
        angle = math.radians(rng.uniform(100, 150)) * t  # from upright, as everything else stands
    elif motion == "change":
        mix = np.clip((t - 0.3) / 0.4, 0, 1)
    return np.stack([x, y, radius, angle, mix]).astype(np.float32)


def random_scene(pool, rng):
    """What is hard to learn twice as often, else every motion equally often; one clip in three on the plain background."""
    group = pool[rng.choice([*pool, *HARD])]
    return rng.choice(group[0] if rng.random() < 0.33 else group[1])


def scene_pool():
    """Scenes that training may show: by motion, those on the plain background and all."""
    pool = {}
    for motion in grammar.MOTIONS:
        chosen = [s for s in grammar.scenes(held_out=False) if s.motion == motion]
        pool[motion] = ([s for s in chosen if s.place == "plain"], chosen)
    return pool


@functools.cache
def constants(device):
    """Every background [places, 3, height, width] and colour [colours, 3]."""
    backgrounds = np.stack([drawing.background(p) for p in PLACE_NAMES]).transpose(0, 3, 1, 2)
    return torch.tensor(backgrounds, device=device), torch.tensor(np.stack([drawing.rgb(c) for c in COLOUR_NAMES]), device=device)


def draw(scenes, tracks, device):
    """Clips f32 [n, 3, frames, height, width] in -1..1, and the shape's coverage [n, 1, frames, height, width]."""
    size = drawing.SIZE
    backgrounds, palette = constants(device)
    numbers = [(PLACE_NAMES.index(s.place), COLOUR_NAMES.index(s.colour), COLOUR_NAMES.index(s.second or s.colour),
                drawing.SHAPES.index(s.shape)) for s in scenes]
    place, first, second, shape = torch.tensor(numbers, device=device).unbind(1)
    ground, first, second = backgrounds[place][:, :, None], palette[first], palette[second]
    x, y, radius, angle, mix = torch.as_tensor(np.stack(tracks), device=device).unbind(1)
    axis = torch.arange(size, device=device) + 0.5

    def wide(v):
        return v[:, :, None, None]

    dx, dy = axis[None, None, None, :] - wide(x), axis[None, None, :, None] - wide(y)
    dx, dy = torch.broadcast_tensors(dx, dy)
    distances = torch.stack(drawing.outlines(torch, dx, dy, wide(radius), wide(angle)))
    distance = distances[shape, torch.arange(len(scenes), device=device)]
    cover = drawing.coverage(torch, distance)[:, None]
    colour = first[:, :, None] * (1 - mix[:, None]) + second[:, :, None] * mix[:, None]
    colour = colour[:, :, :, None, None].expand(-1, -1, -1, size, size)
    # The ball has a dark spot, so that it is seen to roll.
    spot_x, spot_y = 0.5 * radius * torch.sin(angle), -0.5 * radius * torch.cos(angle)
    spot = drawing.coverage(torch, torch.hypot(dx - wide(spot_x), dy - wide(spot_y)) - 0.26 * wide(radius))
    spot = spot * (shape == drawing.SHAPES.index("ball")).float()[:, None, None, None]
    colour = (colour + 1) * (1 - 0.5 * spot[:, None]) - 1
    return ground * (1 - cover) + colour * cover, cover


class Clips:
    """Random clips of what training may show, with their prompts; the seed decides everything."""

    def __init__(self, seed, device):
        self.rng, self.pool, self.device = random.Random(seed), scene_pool(), device

    def scenes(self, count):
        """Scenes and tracks of `count` clips."""
        scenes = [random_scene(self.pool, self.rng) for _ in range(count)]
        return scenes, [track(s, self.rng) for s in scenes]

    def batch(self, count):
        return draw(*self.scenes(count), self.device)

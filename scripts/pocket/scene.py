"""What the pocket model's clips show: palette, backgrounds and outlines of the shapes. NumPy only; the outlines are written for
any array module (`xp` is numpy or torch), so that the judge measures with what the clips were drawn with."""
import numpy as np

SIZE, FRAMES = 128, 17

COLOURS = {
    "red": (220, 35, 35), "green": (45, 175, 65), "blue": (45, 85, 230), "yellow": (245, 220, 45),
    "purple": (155, 55, 200), "orange": (250, 135, 25), "white": (245, 245, 245), "turquoise": (45, 210, 205),
}
SHAPES = ("ball", "square", "triangle", "star", "cross")

# Colours of the top and the bottom of the picture; where the ground begins (in heights of the picture) and its colour.
BACKGROUNDS = {
    "plain": ((42, 44, 52), (42, 44, 52), 1, None),
    "black": ((4, 4, 4), (4, 4, 4), 1, None),
    "grey": ((122, 122, 122), (122, 122, 122), 1, None),
    "white": ((250, 250, 250), (250, 250, 250), 1, None),
    "meadow": ((130, 185, 245), (205, 230, 250), 0.72, (75, 140, 55)),
    "night": ((6, 8, 30), (26, 34, 84), 0.86, (8, 20, 16)),
    "sunset": ((72, 44, 116), (236, 128, 92), 0.8, (34, 22, 30)),
}
# Colours that would be hard to see there.
HIDDEN = {"white": {"white"}, "meadow": {"green", "turquoise", "white"}, "sunset": {"orange", "purple"}}


def background(name, height=SIZE, width=SIZE):
    """f32 [height, width, 3] in -1..1."""
    top, bottom, horizon, ground = BACKGROUNDS[name]
    y = (np.arange(height, dtype=np.float32) + 0.5) / height
    mix = np.clip(y / horizon, 0, 1)[:, None]
    rows = (1 - mix) * np.float32(top) + mix * np.float32(bottom)
    if ground is not None:
        below = np.clip((y - horizon) * height + 0.5, 0, 1)[:, None]
        rows = (1 - below) * rows + below * np.float32(ground)
    return np.broadcast_to((rows / 127.5 - 1)[:, None, :], (height, width, 3)).astype(np.float32)


def rgb(name):
    """f32 [3] in -1..1."""
    return np.float32(COLOURS[name]) / 127.5 - 1


def outlines(xp, x, y, radius, angle):
    """Signed distances in pixels (negative inside) of every shape to the points x, y relative to its centre; angle in radians,
    clockwise on the screen. The shapes of one radius look equally large."""
    cos, sin = xp.cos(angle), xp.sin(angle)
    u, v = cos * x + sin * y, cos * y - sin * x
    r = xp.hypot(x, y)
    au, av = xp.abs(u), xp.abs(v)
    ball = r - radius
    square = xp.maximum(au, av) - 0.88 * radius
    triangle = xp.maximum(v, 0.8660254 * au - 0.5 * v) - 0.62 * radius
    # One of five equal sectors: its edge runs from the tip (outer radius, on the sector's axis) to the notch between two tips.
    fifth, outer, inner = 2 * np.pi / 5, 1.22, 0.55
    around = xp.remainder(xp.arctan2(u, -v) + fifth / 2, fifth) - fifth / 2
    px, py = r * xp.cos(around), xp.abs(r * xp.sin(around))
    ex, ey = inner * np.cos(fifth / 2) - outer, inner * np.sin(fifth / 2)
    length = float(np.hypot(ex, ey))
    star = ((px - outer * radius) * ey - py * ex) / length
    arm, half = 1.08 * radius, 0.4 * radius
    cross = xp.minimum(xp.maximum(au - arm, av - half), xp.maximum(au - half, av - arm))
    return ball, square, triangle, star, cross


def coverage(xp, distance):
    """Share of a pixel inside an outline."""
    return xp.clip(0.5 - distance, 0, 1)

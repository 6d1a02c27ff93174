"""Measures what a clip shows, from its pixels alone: background, shape, colours, motion. NumPy only."""
from dataclasses import asdict, dataclass

import numpy as np

import scene as drawing

SYMMETRY = {"square": 4, "triangle": 3, "star": 5, "cross": 4}  # a turn by this part of a circle changes nothing
THRESHOLD = 0.22  # difference from the background, in -1..1, from which a pixel is the shape's
SMALLEST, LARGEST = 70 / 128**2, 0.4  # area of the shape, in pictures


@dataclass
class Seen:
    place: str
    present: bool
    colour: str  # at the start
    last_colour: str
    shape: str
    motion: str  # a key of grammar.MOTIONS, or "unclear"
    travel: tuple  # pixels of a picture 128 wide: right, down
    growth: float  # area at the end / at the start
    turned: float  # degrees, clockwise
    fit: float  # how well the outline fits: intersection over union


def find_place(frames):
    """The background that most pixels show."""
    height, width = frames.shape[1:3]
    distance = {}
    for name in drawing.BACKGROUNDS:
        distance[name] = np.median(np.abs(frames - drawing.background(name, height, width)).max(3), axis=(1, 2)).mean()
    return min(distance, key=distance.get)


def difference(frames, ground):
    """How far each pixel is from the background, 0 where it lies between the values of the rows above and below: a soft horizon
    is no shape."""
    rows = np.stack([ground, np.roll(ground, 1, 0), np.roll(ground, -1, 0)])
    rows[1, 0], rows[2, -1] = ground[0], ground[-1]
    return np.maximum(np.maximum(frames - rows.max(0), rows.min(0) - frames), 0).max(3)


def largest_part(mask):
    """The largest connected part of a mask [h, w]."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = mask[box]
    label = np.where(inside, np.arange(1, inside.size + 1).reshape(inside.shape), 0)
    while True:
        grown = label.copy()
        np.maximum(grown[1:], label[:-1], out=grown[1:])
        np.maximum(grown[:-1], grown[1:], out=grown[:-1])
        np.maximum(grown[:, 1:], grown[:, :-1], out=grown[:, 1:])
        np.maximum(grown[:, :-1], grown[:, 1:], out=grown[:, :-1])
        grown[~inside] = 0
        if (grown == label).all():
            break
        label = grown
    out = np.zeros_like(mask)
    out[box] = label == np.bincount(label[inside]).argmax()
    return out


def shrunk(mask):
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner if inner.sum() >= 20 else mask


def nearest_colour(rgb):
    return min(drawing.COLOURS, key=lambda name: np.linalg.norm(drawing.rgb(name) - rgb))


class Outline:
    """Soft outline of the shape in one frame: how much of each pixel it covers."""

    def __init__(self, frame, ground, mask):
        self.rgb = np.median(frame[shrunk(mask)], axis=0)
        towards = self.rgb - ground
        share = ((frame - ground) * towards).sum(2) / np.maximum((towards * towards).sum(2), 1e-6)
        near = mask.copy()
        for axis in (0, 1):
            for step in (1, -1):
                near |= np.roll(mask, step, axis)
        self.cover = np.where(near, np.where(shrunk(mask), 1, np.clip(share, 0, 1)), 0)
        self.area = self.cover.sum()
        y, x = np.indices(mask.shape) + 0.5
        self.x, self.y = (x * self.cover).sum() / self.area, (y * self.cover).sum() / self.area
        self.dx, self.dy = x - self.x, y - self.y

    def direction(self, order):
        """Angle, in radians, of what repeats `order` times around the centre."""
        moment = ((self.dx + 1j * self.dy) ** order * self.cover).sum()
        return np.angle(moment) / order

    def fit(self, shape):
        """Intersection over union with the shape of the same area, place and direction."""
        index = drawing.SHAPES.index(shape)
        unit, phase = UNITS[shape]
        order = SYMMETRY.get(shape)
        angle = self.direction(order) - phase if order else 0.0
        distance = drawing.outlines(np, self.dx, self.dy, np.sqrt(self.area / unit), angle)[index]
        cover = drawing.coverage(np, distance)
        return np.minimum(cover, self.cover).sum() / np.maximum(cover, self.cover).sum()


def _units():
    """Area at radius 1 and direction at angle 0 of each shape."""
    y, x = np.indices((257, 257)) - 128.0
    out = {}
    for index, shape in enumerate(drawing.SHAPES):
        cover = drawing.coverage(np, drawing.outlines(np, x, y, 80.0, 0.0)[index])
        order = SYMMETRY.get(shape, 1)
        out[shape] = cover.sum() / 80.0**2, np.angle(((x + 1j * y) ** order * cover).sum()) / order
    return out


UNITS = _units()


def find_motion(x, y, growth, turned, recoloured):
    """Which motion the path (128ths of the width), the growth, the turn (degrees) and a change of colour make."""
    wide, high = np.ptp(x), np.ptp(y)
    dx, dy = x[-2:].mean() - x[:2].mean(), y[-2:].mean() - y[:2].mean()
    if max(wide, high) > 14:
        if recoloured or not 0.55 < growth < 1.8:
            return "unclear"
        if wide > 2 * high and abs(dx) > 0.75 * wide:
            return "right" if dx > 0 else "left"
        if high > 2 * wide and abs(dy) > 0.75 * high:
            return "down" if dy > 0 else "up"
        if high > 2 * wide and abs(dy) < 0.35 * high:
            middle = y > (y.max() + y.min()) / 2  # below the middle: down, up, down, up, down
            if np.count_nonzero(middle[1:] != middle[:-1]) >= 3 and middle[0]:
                return "bounce"
        return "unclear"
    if growth > 1.8 or growth < 0.55:
        return "unclear" if recoloured else "grow" if growth > 1 else "shrink"
    if not 0.75 < growth < 1.33 or max(wide, high) > 8:
        return "unclear"
    if recoloured:
        return "change"
    if abs(turned) > 70:
        return "turn"
    return "still" if abs(turned) < 30 else "unclear"


def measure(frames):
    """frames [n, height, width, 3] in -1..1 -> Seen."""
    frames = np.clip(np.nan_to_num(np.asarray(frames, np.float32), nan=-1), -1, 1)
    n, height, width = frames.shape[:3]
    place = find_place(frames)
    ground = drawing.background(place, height, width)
    mask = np.stack([largest_part(m) for m in difference(frames, ground) > THRESHOLD])
    share = mask.mean((1, 2))
    if share.min() < SMALLEST or share.max() > LARGEST:
        return Seen(place, False, "", "", "", "unclear", (0.0, 0.0), 1.0, 0.0, 0.0)
    outlines = [Outline(frames[i], ground, mask[i]) for i in range(n)]
    scale = 128 / width
    x, y = (scale * np.array([getattr(o, axis) for o in outlines]) for axis in "xy")
    colours = [nearest_colour(np.median([o.rgb for o in part], axis=0)) for part in (outlines[:3], outlines[-3:])]
    fits = {s: np.mean([outlines[i].fit(s) for i in (0, n // 2, n - 1)]) for s in drawing.SHAPES}
    shape = max(fits, key=fits.get)
    order = SYMMETRY.get(shape)
    turned = 0.0
    if order:
        angles = np.unwrap([order * o.direction(order) for o in outlines]) / order
        turned = float(np.degrees(angles[-1] - angles[0]))
    area = np.array([o.area for o in outlines])
    growth = float(area[-2:].mean() / area[:2].mean())
    motion = find_motion(x, y, growth, turned, colours[0] != colours[1])
    travel = (float(x[-1] - x[0]), float(y[-1] - y[0]))
    return Seen(place, True, *colours, shape, motion, travel, growth, turned, float(fits[shape]))


def verdict(seen, wanted):
    """What of the wanted scene (grammar.Scene) was seen: present, colour, motion, shape, place; right: the first three."""
    out = {
        "present": seen.present,
        "colour": seen.present and (seen.colour, seen.last_colour) == (wanted.colour, wanted.second or wanted.colour),
        "motion": seen.present and seen.motion == wanted.motion,
        "shape": seen.present and seen.shape == wanted.shape,
        "place": seen.place == wanted.place,
    }
    return {**out, "right": out["present"] and out["colour"] and out["motion"]}


def as_dict(seen):
    return asdict(seen)


# ---- distance between two clips ----------------------------------------------------------------------------------------


def psnr(a, b):
    """Per frame, dB; frames [n, height, width, 3] in -1..1."""
    error = ((a.astype(np.float64) - b) ** 2).mean((1, 2, 3))
    return 10 * np.log10(4 / np.maximum(error, 1e-12))


def _window_mean(x, size):
    """Mean over every size × size window of [n, h, w, c]."""
    total = np.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))).cumsum(1).cumsum(2)
    s = size
    return (total[:, s:, s:] - total[:, :-s, s:] - total[:, s:, :-s] + total[:, :-s, :-s]) / s**2


def ssim(a, b, size=7):
    """Per frame, -1..1: structural similarity over windows of 7 × 7 pixels, mean over windows and colours."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    ma, mb = _window_mean(a, size), _window_mean(b, size)
    unbiased = size**2 / (size**2 - 1)
    va, vb = (unbiased * (_window_mean(v * v, size) - m * m) for v, m in ((a, ma), (b, mb)))
    cov = unbiased * (_window_mean(a * b, size) - ma * mb)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return value.mean((1, 2, 3))

"""Prompts of the pocket model: every prompt is written from a Scene's words, and read back from text. No third-party modules."""
import hashlib
import itertools
import random
from dataclasses import dataclass

from scene import COLOURS, HIDDEN, SHAPES

MOTIONS = {
    "right": ("rolls to the right", "moves to the right", "slides to the right", "moves from left to right"),
    "left": ("rolls to the left", "moves to the left", "slides to the left", "moves from right to left"),
    "up": ("moves up", "rises"),
    "down": ("moves down", "falls"),
    "bounce": ("bounces up and down", "bounces"),
    "grow": ("grows", "gets bigger"),
    "shrink": ("shrinks", "gets smaller"),
    "turn": ("spins", "turns around"),
    "still": ("stands still", "does not move"),
    "change": ("becomes", "changes to"),  # followed by the second colour
}
PLACES = {
    "plain": ("",),
    "black": ("on a black background", "in front of a black wall"),
    "grey": ("on a grey background", "in front of a grey wall"),
    "white": ("on a white background", "in front of a white wall"),
    "meadow": ("over a meadow", "on a sunny day"),
    "night": ("at night", "under the night sky"),
    "sunset": ("at sunset", "in the evening"),
}
SIZES = {"": "any", "small": "small", "big": "big"}


@dataclass(frozen=True)
class Scene:
    colour: str
    shape: str
    motion: str
    place: str = "plain"
    size: str = "any"
    second: str = ""  # the colour that it changes to

    def held_out(self):
        """Whether training never shows this colour, shape and motion together: about one in eight."""
        key = f"{self.colour} {self.shape} {self.motion} {self.second}"
        return hashlib.sha256(key.encode()).digest()[0] % 8 == 0


def possible(scene):
    if scene.shape == "ball" and scene.motion == "turn":
        return False
    if scene.size != "any" and scene.motion in ("grow", "shrink"):
        return False
    if (scene.motion == "change") != bool(scene.second) or scene.second == scene.colour:
        return False
    hidden = HIDDEN.get(scene.place, ())
    return scene.colour not in hidden and scene.second not in hidden


def scenes(held_out=None):
    """All scenes, in a fixed order; held_out: only those of (True) or outside (False) the held-out set."""
    everything = itertools.product(COLOURS, SHAPES, MOTIONS, PLACES, SIZES.values(), ("", *COLOURS))
    out = []
    for colour, shape, motion, place, size, second in everything:
        scene = Scene(colour, shape, motion, place, size, second)
        if possible(scene) and (held_out is None or scene.held_out() == held_out):
            out.append(scene)
    return out


def phrases(scene):
    """The ways to say the scene's motion."""
    return [p for p in MOTIONS[scene.motion] if scene.shape == "ball" or not p.startswith("rolls")]


def prompt(scene, motion_phrase, place_phrase):
    size = next(word for word, size in SIZES.items() if size == scene.size)
    subject = " ".join(w for w in (size, scene.colour, scene.shape) if w)
    article = "an" if subject[0] in "aeiou" else "a"
    return " ".join(w for w in (article, subject, motion_phrase, scene.second, place_phrase) if w)


def prompts(scene):
    """Every prompt of a scene, the plainest first."""
    return [prompt(scene, m, p) for m in phrases(scene) for p in PLACES[scene.place]]


def parse(text):
    """The Scene that a prompt describes. ValueError for what the grammar does not know."""
    words = text.strip().rstrip(".").lower().split()
    if words[:1] not in (["a"], ["an"], ["the"]):
        raise ValueError(f"'{text}': a prompt begins with 'a', 'an' or 'the'")
    rest = words[1:]
    size = SIZES[rest.pop(0)] if rest and rest[0] in SIZES else "any"
    if len(rest) < 2 or rest[0] not in COLOURS or rest[1] not in SHAPES:
        raise ValueError(f"'{text}': expected a colour ({', '.join(COLOURS)}) and a shape ({', '.join(SHAPES)}) after the article")
    colour, shape = rest[:2]
    tail = " ".join(rest[2:])
    matches = [(len(p), m, p) for m, known in MOTIONS.items() for p in known if tail == p or tail.startswith(p + " ")]
    if not matches:
        raise ValueError(f"'{text}': no known motion in '{tail}'")
    _, motion, phrase = max(matches)
    tail = tail[len(phrase):].strip()
    second = ""
    if motion == "change":
        second, _, tail = tail.partition(" ")
        if second not in COLOURS:
            raise ValueError(f"'{text}': expected a colour after '{phrase}'")
    for place, known in PLACES.items():
        if tail in known:
            return Scene(colour, shape, motion, place, size, second)
    raise ValueError(f"'{text}': no known place in '{tail}'")


def unseen(count, seed=0):
    """`count` prompts of held-out scenes, every motion equally often, and their scenes."""
    rng = random.Random(seed)
    by_motion = {m: [s for s in scenes(held_out=True) if s.motion == m] for m in MOTIONS}
    out = []
    while len(out) < count:
        for pool in by_motion.values():
            scene = rng.choice(pool)
            text = rng.choice(prompts(scene))
            if len(out) < count and text not in [p for p, _ in out]:
                out.append((text, scene))
    return out


def other(scene, seed=0):
    """A prompt of another colour, shape and motion, for showing that the judge can fail."""
    rng = random.Random(f"{seed} {scene}")
    pool = [s for s in scenes() if s.colour != scene.colour and s.shape != scene.shape and s.motion != scene.motion]
    return prompts(rng.choice(pool))[0]

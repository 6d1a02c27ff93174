"""Two runs of moonkiln with one seed: are the bits the same?"""
import shutil
import subprocess
from functools import partial

from compare import files
from compare.context import Case
from compare.engine import REPOSITORY, Failed, NotHere
from compare.results import Result


def cases(ctx):
    return [Case("two runs with one seed", 16, partial(measure, ctx))]


def measure(ctx):
    result = Result(row="repeat", what="two runs with one seed, identical bits", kind="same", unit="same", bar=1)
    with ctx.folder(need=1 << 28) as folder:
        result.ours, result.problem, result.note = ctx.ask(partial(same_bits, ctx, folder))
    return [result]


def same_bits(ctx, folder):
    """A whole generation each: text, steps, decoding. Every run makes its own choices of kernels."""
    model = tiny_model(folder) if ctx.smoke else ["--synthetic", 1, "--config", "1.3b"]
    size = ["--size", "32x32", "--frames", 5, "--backend", "cpu"] if ctx.smoke else ["--size", "480x272", "--frames", 17]
    seen = []
    for i in range(2):
        out = folder / f"{i}.safetensors"
        ctx.engine.call("generate", *model, "--prompt", "two cats box", "--seed", 42, "--steps", 2, *size, "--out", out)
        seen.append(files.read(out))
        if any(not t.isfinite().all() for t in seen[-1].values()):
            raise Failed("the video is not finite")
    return int(all(seen[0][name].equal(seen[1][name]) for name in seen[0].keys() | seen[1].keys()))


def tiny_model(folder):
    if not shutil.which("lua5.4"):
        raise NotHere("the tiny checkpoint needs lua5.4")
    subprocess.run(["lua5.4", REPOSITORY / "scripts" / "tiny_checkpoint.lua", folder / "tiny"], check=True)
    return [folder / "tiny"]

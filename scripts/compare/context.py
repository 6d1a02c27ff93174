"""What all rows share: the device, how a peer is timed, how moonkiln is asked, and how much time is left."""
import contextlib
import gc
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from compare.engine import Failed, NotHere

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}


@dataclass
class Case:
    """One measurement that can be left out alone: `measure` returns its results, in about `seconds`."""
    label: str
    seconds: float
    measure: object


@dataclass
class Context:
    device: str            # "cuda", or "cpu" for toy sizes
    engine: object         # None: peers only
    attention_name: str    # of BACKENDS, or "default"
    compile: bool
    seconds: float         # timed seconds of a measurement
    layers: int            # of the A14B transformer
    tokens: list           # of the guided step
    iterations: int        # of moonkiln's long programs
    policy: str
    scratch: Path = None   # where files for moonkiln are written; None: memory where there is enough

    @property
    def smoke(self):
        return self.device == "cpu"

    # ---- peers

    def attention(self):
        """The attention kernel the peers use, as a context manager."""
        return sdpa_kernel(BACKENDS[self.attention_name]) if self.attention_name in BACKENDS else contextlib.nullcontext()

    def compiled(self, function):
        """Compiled for the shapes it will see; nothing of what was compiled before is kept."""
        torch._dynamo.reset()
        return torch.compile(function, dynamic=False) if self.compile else function

    def peer_name(self, name="diffusers"):
        attention = {"cudnn": "cuDNN"}.get(self.attention_name, self.attention_name) + " attention"
        return ", ".join([name, attention, "torch.compile" if self.compile else "eager"])

    def sample(self, function, least=5, warm=0.4):
        """Seconds of single runs. The card's clock depends on its load, so the device is kept busy for `warm` seconds first."""
        function()
        once = self.run_times(function, 1)[0]
        if once < warm:
            self.run_times(function, math.ceil(warm / once))
        return self.run_times(function, max(least, min(200, math.ceil(self.seconds / once))))

    def run_times(self, function, count):
        if self.smoke:
            times = [time.perf_counter()]
            for _ in range(min(count, 3)):
                function()
                times.append(time.perf_counter())
            return [b - a for a, b in zip(times, times[1:])]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            function()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in zip(events, events[1:])]

    def release(self):
        """Gives the device memory that PyTorch keeps for later back, for moonkiln to have."""
        gc.collect()
        if not self.smoke:
            torch.cuda.empty_cache()

    # ---- both

    def runs_for(self, seconds):
        """How many runs of about `seconds` moonkiln should time: it makes as many before them, which warm the card up."""
        return max(5, min(200, math.ceil(self.seconds / seconds)))

    def in_turn(self, result, theirs, ours, scale=1.0, least=5):
        """Fills in a result: theirs is timed, then ours (a function of theirs' seconds that returns its own), then theirs again where
        that is cheap. scale: what a second is in the result's unit, or a function of the seconds."""
        times = self.sample(theirs, least)
        self.release()
        seconds, problem, note = self.ask(lambda: ours(statistics.median(times)))
        if statistics.median(times) < 0.3 and not problem:
            times += self.sample(theirs, least)
        unit = scale if callable(scale) else lambda s: s * scale
        result.theirs = unit(statistics.median(times))
        result.detail |= {"their_seconds": [min(times), statistics.median(times), max(times)], "their_runs": len(times)}
        result.ours, result.problem, result.note = None if seconds is None else unit(seconds), problem, note
        return result

    def ask(self, question):
        """(answer of moonkiln, "", "") or (None, what went wrong, why that is no surprise)."""
        if not self.engine:
            return None, "", "no moonkiln"
        try:
            return question(), "", ""
        except NotHere as why:
            return None, "", str(why)
        except Failed as why:
            return None, f"moonkiln: {why}", ""

    @contextlib.contextmanager
    def folder(self, need=0):
        """A folder for files of `need` bytes, gone afterwards: in memory, where that fits."""
        places = [self.scratch] if self.scratch else [p for p in (Path("/dev/shm"), Path(tempfile.gettempdir())) if p.is_dir()]
        fits = [p for p in places if disk_usage(p).free > 1.1 * need]
        if not fits:
            raise OSError(f"{need / 1e9:.1f} GB do not fit in {' or '.join(map(str, places))}; see --scratch")
        with tempfile.TemporaryDirectory(prefix="compare-", dir=fits[0]) as name:
            yield Path(name)


def relative(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()

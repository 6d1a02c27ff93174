"""What both parts of the training share: the clock, the step as one CUDA graph, the average of the weights."""
import math
import time

import torch

START = time.time()


def say(*parts):
    print(f"[{time.time() - START:6.1f}]", *parts, flush=True)


class Clock:
    """Progress of one part of the training, 0..1, by steps if their number is given, else by seconds."""

    def __init__(self, seconds, steps):
        self.seconds, self.steps, self.step, self.start = seconds, steps, 0, time.time()

    def progress(self):
        share = self.step / self.steps if self.steps else (time.time() - self.start) / max(self.seconds, 1e-9)
        return min(share, 1.0)

    def rate(self, peak, warm):
        """Learning rate: rises over `warm` steps, falls as a cosine to one hundredth."""
        return peak * min(1, (self.step + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress())))

    def tick(self):
        self.step += 1
        if torch.cuda.is_available() and self.step % 16 == 0:
            torch.cuda.synchronize()  # the clock counts work done, not work queued
        return self.progress() < 1


class Weights:
    """Parameters under AdamW with clipped gradients, and their exponential moving average. The learning rate lies on the device, so
    that a captured step follows it."""

    def __init__(self, modules, device, decay, betas, weight_decay):
        self.parameters = [p for m in modules for p in m.parameters()]
        self.rate = torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, betas=betas, weight_decay=weight_decay,
                                           capturable=device == "cuda")
        self.decay = decay
        self.average = [p.detach().clone() for p in self.parameters]

    def update(self, loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - self.decay)

    def restart_average(self):
        torch._foreach_copy_(self.average, [p.detach() for p in self.parameters])

    @torch.no_grad()
    def swap(self):
        """The average becomes the parameters, and the parameters the average, in place: captured steps go on."""
        for p, value in zip(self.parameters, self.average):
            kept = p.clone()
            p.copy_(value)
            value.copy_(kept)


class Captured:
    """A step (a function of nothing that returns a tensor of figures) as one CUDA graph; without a GPU, the step itself. What it
    draws comes from the device's default generator."""

    def __init__(self, step, device):
        self.step, self.graph = step, None
        if device != "cuda":
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.figures = step()
            self.graph = graph
        except RuntimeError as error:
            say(f"not captured, runs step by step: {str(error).splitlines()[0]}")

    def __call__(self):
        if self.graph is None:
            return self.step()
        self.graph.replay()
        return self.figures


def milliseconds(run, count=4):
    """Of one call, after one that warms up."""
    run()
    synchronize()
    start = time.time()
    for _ in range(count):
        run()
    synchronize()
    return 1000 * (time.time() - start) / count


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def round_weights(module):
    """To what bf16 holds: everything after this sees the weights that are written."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.bfloat16().float())
    return module.eval().requires_grad_(False)

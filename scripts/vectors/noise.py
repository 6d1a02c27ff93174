"""PyTorch's CPU generator."""
import torch

from store import randn, save_io


def make_noise(out):
    tensors = {}
    for seed in (0, 42, 2**32 + 7, 2**64 - 1):
        for numel in (16, 1000, 16 * 3 * 6 * 10):
            torch.manual_seed(seed)
            tensors[f"seed{seed}.n{numel}"] = torch.randn(numel)
    assert torch.equal(randn(42, 1, 16, 3, 6, 10).flatten(), tensors["seed42.n2880"])
    save_io(out / "noise.safetensors", tensors)
    print(f"noise: {torch.backends.cpu.get_cpu_capability()}")

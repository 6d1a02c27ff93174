"""Attention kernels on a GPU: error against a float reference next to PyTorch's, then times next to cuDNN's.

    lua5.4 tests/gpu/attention_dump.lua build/attention_dump      # on any machine
    python3 tests/gpu/attention_check.py build/attention_dump     # NVIDIA GPU, PyTorch, NVRTC; no Lua

Kernels are compiled with NVRTC and launched through the driver. Outputs are poisoned with NaN first, so an unwritten element
fails. The bound is 1.5 x the error of PyTorch's own kernel on the same inputs (1e-5 for f32); where f16 holds bf16 numbers, as in the
transformer, PyTorch's kernel gets them in bf16, and the bound is 1.01 x its error. Exit status 1 on a failure.
"""
import argparse
import concurrent.futures
import ctypes
import glob
import json
import os
import random
import re
import statistics
import sys
import threading
import time

import pynvml
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
TMA_DTYPE = {"bf16": 9, "f16": 6}


def find_nvrtc():
    import site
    roots = site.getsitepackages() + ["/usr/local/cuda/lib64", "/usr/local/cuda/lib"]
    for root in roots:
        for pattern in ("nvidia/cu13/lib/libnvrtc.so.*", "nvidia/cuda_nvrtc/lib/libnvrtc.so.*", "libnvrtc.so.1*", "libnvrtc.so"):
            for path in sorted(glob.glob(os.path.join(root, pattern))):
                if "alt" not in path:
                    return path
    return "libnvrtc.so"


def compile_kernel(job):
    """Returns (cubin, log); run in its own process, so that a compiler crash names the kernel."""
    path, arch, library = job
    n = ctypes.CDLL(library)
    source = open(path, "rb").read()
    prog, size = ctypes.c_void_p(), ctypes.c_size_t()
    n.nvrtcCreateProgram(ctypes.byref(prog), source, path.encode(), 0, None, None)
    options = [f"-arch={arch}", "-std=c++17", "-DNDEBUG", "-default-device", "--ptxas-options=-v", "--ptxas-options=-warn-spills"]
    array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    rc = n.nvrtcCompileProgram(prog, len(options), array)
    n.nvrtcGetProgramLogSize(prog, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    n.nvrtcGetProgramLog(prog, log)
    if rc:
        return None, log.value.decode()
    n.nvrtcGetCUBINSize(prog, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    n.nvrtcGetCUBIN(prog, cubin)
    return cubin.raw, log.value.decode()


class Attribute(ctypes.Structure):  # CUlaunchAttribute
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint32 * 16)]


class Config(ctypes.Structure):  # CUlaunchConfig
    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("smem", ctypes.c_uint), ("stream", ctypes.c_void_p),
                ("attrs", ctypes.POINTER(Attribute)), ("count", ctypes.c_uint)]


class Driver:
    def __init__(self):
        self.lib = ctypes.CDLL("libcuda.so.1")

    def __call__(self, name, *args):
        rc = getattr(self.lib, name)(*args)
        if rc:
            raise RuntimeError(f"{name}: CUDA error {rc}")

    def load(self, cubin, smem):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuModuleLoadData", ctypes.byref(module), cubin)
        self("cuModuleGetFunction", ctypes.byref(function), module, b"attention_kernel")
        self("cuFuncSetAttribute", function, 8, ctypes.c_int(smem))
        return function

    def tensor_map(self, spec, address, dtype):
        raw = ctypes.create_string_buffer(256)
        at = (ctypes.addressof(raw) + 63) & ~63
        rank = len(spec["dims"])
        self("cuTensorMapEncodeTiled", ctypes.c_void_p(at), TMA_DTYPE[dtype], rank, ctypes.c_void_p(address),
             (ctypes.c_uint64 * rank)(*spec["dims"]), (ctypes.c_uint64 * (rank - 1))(*spec["strides"]),
             (ctypes.c_uint32 * rank)(*spec["box"]), (ctypes.c_uint32 * rank)(*[1] * rank), 0,
             {0: 0, 32: 1, 64: 2, 128: 3}[spec["swizzle"]], {0: 0, 64: 1, 128: 2, 256: 3}[spec["l2"]], 0)
        return ctypes.string_at(at, 128)


class Run:
    """One kernel with its parameters filled for one problem."""

    def __init__(self, driver, function, spec, problem, tensors, out):
        self.driver, self.function, self.keep = driver, function, tensors
        data = bytearray()

        def add(raw, align):
            data.extend(b"\0" * (-len(data) % align) + raw)

        for name, kind in spec["params"]:
            if kind == "tmap":
                m = spec["launch"]["tmaps"][name]
                add(driver.tensor_map(m, tensors[m["operand"]].data_ptr(), problem["dtype"]), 64)
            elif kind == "ptr":
                add((tensors[name].data_ptr() if name in tensors else 0).to_bytes(8, "little"), 8)
            elif kind == "f32":
                add(bytes(ctypes.c_float(problem[name])), 4)
            else:
                width = 8 if kind == "i64" else 4
                add(int(problem[name]).to_bytes(width, "little", signed=True), width)
        add(out.data_ptr().to_bytes(8, "little"), 8)
        add(b"", 64)
        self.params = ctypes.create_string_buffer(bytes(data) + b"\0" * 64)
        self.arg = (ctypes.c_void_p * 1)(ctypes.addressof(self.params))
        launch = spec["launch"]
        self.attr = (Attribute * 1)()
        self.attr[0].id = 4  # cluster dimension
        self.attr[0].value[0] = launch.get("cluster", 1)
        self.attr[0].value[1] = self.attr[0].value[2] = 1
        self.config = Config((ctypes.c_uint * 3)(*launch["grid"]), (ctypes.c_uint * 3)(launch["block"], 1, 1), launch["smem"],
                             torch.cuda.current_stream().cuda_stream, self.attr, 1 if launch.get("cluster", 1) > 1 else 0)

    def __call__(self):
        self.driver("cuLaunchKernelEx", ctypes.byref(self.config), self.function, self.arg, None)


def operands(p):
    """q, k, v as strided views [batch, tokens, heads, channels] of random storage, bias, kv_len; peer: q, k, v in the result's dtype."""
    t = {"peer": {}}
    for name in "qkv":
        tokens = p["sq"] if name == "q" else p["sk"]
        shape = (p["batch"], tokens, p["heads"], p["head_dim"])
        strides = (p[name + "_batch"], p[name + "_token"], p[name + "_head"], 1)
        size = sum((n - 1) * s for n, s in zip(shape, strides)) + 1
        size += -size % 8
        base = torch.empty(size, dtype=DTYPES[p["out_dtypes"][0]], device="cuda").normal_()
        if name == "q":
            base *= p.get("gain", 1)
        t["peer"][name] = base.as_strided(shape, strides)
        t[name] = base.to(DTYPES[p["dtype"]]).as_strided(shape, strides)
    if p["bias_mode"] == "full":
        t["bias"] = torch.randn(p["heads"], p["sq"], p["sk"], device="cuda")
    elif p["bias_mode"] == "relative":
        t["bias"] = torch.randn(p["heads"], p["sq"] + p["sk"] - 1, device="cuda")
    if p["has_kv_len"]:
        t["kv_len"] = torch.tensor([max(1, p["sk"] * 2 // 3 + 1)], dtype=torch.int32, device="cuda")
    return t


def full_bias(p, t):
    """Everything added to the scores, [heads, sq, sk], or None."""
    b = None
    q, k = torch.arange(p["sq"], device="cuda")[:, None], torch.arange(p["sk"], device="cuda")[None]
    if p["bias_mode"] == "full":
        b = t["bias"]
    elif p["bias_mode"] == "relative":
        b = t["bias"][:, k - q + p["sq"] - 1]
    mask = None
    if p["causal"]:
        mask = k > q
    if p["has_kv_len"]:
        mask = (k >= t["kv_len"].item()).expand(p["sq"], p["sk"])
    if mask is not None:
        b = (torch.zeros(p["heads"], p["sq"], p["sk"], device="cuda") if b is None else b).masked_fill(mask, float("-inf"))
    return b


def reference(p, t, rows):
    """Exact attention of the chosen query rows: [batch, rows, heads, channels] in f64 (f32 for long keys)."""
    kind = torch.float64 if p["sk"] * len(rows) * p["heads"] <= 1 << 26 else torch.float32
    b = full_bias(p, t) if p["sq"] * p["sk"] < 1 << 24 else None
    out = torch.empty(p["batch"], len(rows), p["heads"], p["head_dim"], dtype=kind, device="cuda")
    for i in range(p["batch"]):
        for h in range(p["heads"]):
            s = t["q"][i, rows, h].to(kind) @ t["k"][i, :, h].to(kind).T * p["scale"]
            if b is not None:
                s += b[h, rows].to(kind)
            out[i, :, h] = s.softmax(-1) @ t["v"][i, :, h].to(kind)
    return out


def library(p, t, backend=None):
    q, k, v = (t["peer"][n].transpose(1, 2) for n in "qkv")
    bias = full_bias(p, t) if p["sq"] * p["sk"] < 1 << 24 else None
    mask = bias.to(q.dtype) if bias is not None else None
    if backend is None:
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=p["scale"]).transpose(1, 2)

    def call():
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=p["scale"]).transpose(1, 2)
    return call


def error(got, want):
    return ((got.to(want.dtype) - want).norm() / want.norm()).item()


def name_of(p):
    extra = [p["dtype"]] + ["to " + x for x in p["out_dtypes"] if x != p["dtype"]]
    extra += [x for x, on in (("causal", p["causal"]), ("kv_len", p["has_kv_len"])) if on]
    extra += [p["bias_mode"] + " bias"] if p["bias_mode"] != "none" else []
    extra += [f"gain {p['gain']}"] if "gain" in p else []
    return f"{p['batch']}x{p['heads']}x{p['head_dim']} {p['sq']}x{p['sk']} " + " ".join(extra)


def timed(fn):
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record()
    fn()
    b.record()
    b.synchronize()
    return a.elapsed_time(b)


def timed_many(fn, count):
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    for i in range(count):
        events[i].record()
        fn()
    events[count].record()
    events[count].synchronize()
    return [a.elapsed_time(b) for a, b in zip(events, events[1:])]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder")
    ap.add_argument("--only", choices=["check", "time"])
    ap.add_argument("--label", default="", help="regular expression on kernel labels")
    ap.add_argument("--case", default="", help="regular expression on problem names")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--turn", type=float, default=400, help="milliseconds a kernel is timed for in each round, after half of that warming")
    args = ap.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(int(time.time()))
    manifest = json.load(open(os.path.join(args.folder, "manifest.json")))
    major, minor = torch.cuda.get_device_capability()
    arch = f"sm_{major}{minor}" + ("a" if major >= 9 else "")
    wanted = [i for i, k in enumerate(manifest["kernels"]) if re.search(args.label, k["label"])]
    jobs = [(os.path.join(args.folder, manifest["kernels"][i]["file"]), arch, find_nvrtc()) for i in wanted]
    start = time.time()
    failures, built = [], {}
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        for i, (cubin, log) in zip(wanted, pool.map(compile_kernel, jobs)):
            label = manifest["kernels"][i]["label"]
            if cubin is None or "C7510" in log or "C7512" in log or re.search(r"[1-9]\d* bytes spill", log):
                failures.append(f"compile {label}")
                print(f"COMPILE {label}: {log}")
            if cubin is not None:
                built[i] = cubin
    print(f"{len(wanted)} kernels compiled in {time.time() - start:.1f} s")
    torch.zeros(1, device="cuda")
    driver, functions = Driver(), {}
    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    clock = lambda: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM)
    for case in manifest["cases"]:
        p = case["problem"]
        if args.only and case["purpose"] != args.only or not re.search(args.case, name_of(p)):
            continue
        runs = [r for r in case["runs"] if r["kernel"] in built]
        if not runs:
            continue
        t = operands(p)
        rows = torch.arange(p["sq"], device="cuda")
        if p["sq"] > 2048:
            rows = torch.cat([rows[:40], rows[-40:], rows[torch.randperm(p["sq"], device="cuda")[:176]]])
        want = reference(p, t, rows)
        theirs = library(p, t)
        peer = error(theirs()[:, rows], want)
        print(f"{name_of(p)}: PyTorch {peer:.2e}")
        ready = []
        for r in runs:
            out = torch.full((p["batch"], p["sq"], p["heads"], p["head_dim"]), float("nan"), dtype=DTYPES[p["out_dtypes"][0]], device="cuda")
            key = (r["kernel"], r["launch"]["smem"])
            if key not in functions:
                functions[key] = driver.load(built[r["kernel"]], r["launch"]["smem"])
            run = Run(driver, functions[key], r, p, t, out)
            run()
            torch.cuda.synchronize()
            e = error(out[:, rows], want)
            bound = 1e-5 if p["dtype"] == "f32" else (1.01 if p["dtype"] != p["out_dtypes"][0] else 1.5) * peer
            good = e <= bound and bool(out.isfinite().all())
            print(f"  {'ok  ' if good else 'FAIL'} {e:.2e}  {r['label']}", flush=True)
            if not good:
                failures.append(f"{name_of(p)}: {r['label']}")
            ready.append((r["label"], run))
            run.out = out
        if case["purpose"] != "time":
            continue
        if p["head_dim"] <= 128:
            ready.append(("PyTorch cuDNN", library(p, t, SDPBackend.CUDNN_ATTENTION)))
        ready.append(("PyTorch default", theirs))
        # Under the power cap a kernel's clock depends on what ran before: each gets turns of its own, in changing order.
        times = {label: [] for label, _ in ready}
        seen = {label: [] for label, _ in ready}
        for _ in range(args.rounds):
            random.shuffle(ready)
            for label, fn in ready:
                count = max(3, int(args.turn / timed(fn)))
                for _ in range(count // 2):
                    fn()
                watch = threading.Timer(args.turn / 4000, lambda to: to.append(clock()), (seen[label],))
                watch.start()
                times[label] += timed_many(fn, count)
                watch.join()
        flop = 4.0 * p["batch"] * p["heads"] * p["sq"] * p["sk"] * p["head_dim"]
        for label, ms in sorted(times.items(), key=lambda x: statistics.median(x[1])):
            m = statistics.median(ms)
            print(f"  {m:9.3f} ms {flop / m / 1e9:7.1f} TFLOP/s  (min {min(ms):.3f}, max {max(ms):.3f}) {statistics.median(seen[label]):.0f} MHz  {label}", flush=True)
        del t, ready, theirs, want
        torch.cuda.empty_cache()
    print(f"{len(failures)} failed" + "".join("\n  " + f for f in failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

"""Matmul, convolution and random-number templates on a GPU: error against float64, then times next to PyTorch's.

    lua5.4 tests/gpu/template_dump.lua build/template_dump                 # on any machine
    python3 tests/gpu/template_check.py build/template_dump --compile      # optional, with NVRTC and no GPU: cubins to carry along
    python3 tests/gpu/template_check.py build/template_dump                # Hopper GPU, PyTorch; no Lua

Operands stand in buffers of NaN, and so does the result: reading outside of an operand, leaving an element out and writing where none
belongs all fail. TF32 operands are rounded as the kernel rounds them before the reference multiplies. Exit status 1 on a failure.
"""
import argparse
import concurrent.futures
import ctypes
import functools
import glob
import json
import os
import random
import re
import site
import statistics
import struct
import sys

ARCH = "sm_90a"
GUARD = 1024  # elements of NaN before and after a tensor: keeps it aligned as the runtime's buffers are

# ---- compiling and launching, with no more than NVRTC and the driver ----


def nvrtc():
    roots = site.getsitepackages() + ["/usr/local/cuda/lib64", "/usr/local/cuda/lib", "/usr/local/cuda-13.0/lib"]
    found = [p for r in roots for g in ("nvidia/cu1*/lib/libnvrtc.so.1*", "libnvrtc.so.1*") for p in sorted(glob.glob(f"{r}/{g}"))]
    return ctypes.CDLL(next((p for p in found if ".alt." not in p), "libnvrtc.so"))


def compile_file(library, path):
    """Writes PATH.cubin beside PATH.cu unless there is one that is newer; returns a complaint or ''."""
    if os.path.exists(path + ".cubin") and os.path.getmtime(path + ".cubin") >= os.path.getmtime(path + ".cu"):
        return ""
    with open(path + ".cu", "rb") as f:
        source = f.read()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source, (path + ".cu").encode(), 0, None, None)
    options = [f"-arch={ARCH}", "--std=c++17", "-DNDEBUG", "-default-device", "--minimal", "--ptxas-options=-v"]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*[o.encode() for o in options]))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    library.nvrtcGetProgramLog(program, log)
    if status:
        return f"{path}: {log.value.decode()}"
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    library.nvrtcGetCUBIN(program, cubin)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    with open(path + ".cubin", "wb") as f:
        f.write(cubin.raw)
    bad = [x for x in re.findall(r"(\d+) bytes spill|C75\d\d", log.value.decode()) if x != "0"]
    return f"{path}: spills, or wgmma one after the other" if bad else ""


def compile_all(folder):
    library = nvrtc()
    paths = sorted(p[:-3] for p in glob.glob(f"{folder}/*.cu"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        bad = [m for m in pool.map(lambda p: compile_file(library, p), paths) if m]
    print(f"{len(paths)} kernels compiled, {len(bad)} with complaints")
    print("\n".join(bad[:10]))
    return not bad


class Attribute(ctypes.Structure):  # CUlaunchAttribute
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint32 * 16)]


class Config(ctypes.Structure):  # CUlaunchConfig
    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("smem", ctypes.c_uint), ("stream", ctypes.c_void_p),
                ("attributes", ctypes.POINTER(Attribute)), ("count", ctypes.c_uint)]


class Driver:
    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.modules = {}

    def call(self, name, *args):
        status = getattr(self.cuda, name)(*args)
        if status:
            raise RuntimeError(f"{name}: CUDA error {status}")

    def function(self, path, symbol, smem=0):
        if path not in self.modules:
            with open(path + ".cubin", "rb") as f:
                image = f.read()
            self.modules[path] = ctypes.c_void_p()
            self.call("cuModuleLoadData", ctypes.byref(self.modules[path]), image)
        f = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(f), self.modules[path], symbol.encode())
        self.call("cuFuncSetAttribute", f, 8, smem)  # dynamic shared memory
        return f

    def launch(self, f, grid, block, smem, params, cluster=1):
        raw = ctypes.create_string_buffer(len(params) + 64)
        at = (ctypes.addressof(raw) + 63) & ~63  # a tensor map's alignment
        ctypes.memmove(at, params, len(params))
        args = (ctypes.c_void_p * 1)(at)
        attribute = (Attribute * 1)(Attribute(4, 0, (ctypes.c_uint32 * 16)(cluster, 1, 1)))  # cluster dimension
        config = Config((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(block, 1, 1), smem, None, attribute, 1 if cluster > 1 else 0)
        self.call("cuLaunchKernelEx", ctypes.byref(config), f, args, None)

    def tensor_map(self, spec, address, dtype):
        raw = ctypes.create_string_buffer(192)
        at = (ctypes.addressof(raw) + 63) & ~63
        rank = len(spec["dims"])
        self.call("cuTensorMapEncodeTiled", ctypes.c_void_p(at), {"bf16": 9, "f16": 6, "f32": 7}[dtype], rank, ctypes.c_void_p(address),
                  (ctypes.c_uint64 * rank)(*spec["dims"]), (ctypes.c_uint64 * (rank - 1))(*spec["strides"]),
                  (ctypes.c_uint32 * rank)(*spec["box"]), (ctypes.c_uint32 * rank)(*[1] * rank), 0,
                  {0: 0, 32: 1, 64: 2, 128: 3}[spec["swizzle"]], {0: 0, 64: 1, 128: 2, 256: 3}[spec["l2"]], 0)
        return ctypes.string_at(at, 128)


# ---- problems as tensors ----


class Guarded:
    """A [rows, cols] tensor whose surroundings, gaps between rows included, are NaN."""

    def __init__(self, rows, cols, ld, dtype, value=None):
        self.buffer = torch.full((2 * GUARD + (rows - 1) * ld + cols,), float("nan"), dtype=dtype, device="cuda")
        self.view = self.buffer.as_strided((rows, cols), (ld, 1), GUARD)
        if value is not None:
            self.view.copy_(value)

    def pointer(self):
        return self.view.data_ptr()

    def intact(self):
        return bool(torch.isnan(self.buffer[:GUARD]).all() and torch.isnan(self.buffer[-GUARD:]).all())


def dtype_of(name):
    return {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[name]


def to_tf32(x):
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def randn(*shape):
    return torch.randn(*shape, device="cuda")


class Problem:
    def __init__(self, p):
        self.p = p
        self.is_conv = p["op"] == "conv"
        dtype = dtype_of(p["dtype"])
        if self.is_conv:
            pixels, k = p["ti"] * p["hi"] * p["wi"], p["kt"] * p["kh"] * p["kw"] * p["cin"]
            self.x = Guarded(pixels, p["cin"], p["cin"], dtype, randn(pixels, p["cin"]))
            self.w = Guarded(p["n"], k, k, dtype, randn(p["n"], k) / k**0.5)
            self.named = {"x": self.x, "w": self.w}
            self.flop = 2.0 * p["m"] * p["n"] * k
        else:
            self.x = Guarded(p["m"], p["k"], p["lda"], dtype, randn(p["m"], p["k"]))
            self.w = Guarded(p["n"], p["k"], p["ldb"], dtype, randn(p["n"], p["k"]) / p["k"] ** 0.5)
            self.named = {"a": self.x, "b": self.w}
            self.flop = 2.0 * p["m"] * p["n"] * p["k"]
        self.bias = Guarded(1, p["n"], p["n"], torch.float32, randn(1, p["n"]))
        self.out = Guarded(p["m"], p["n"], p["n"], dtype_of(p["out"]))
        self.residual = randn(p["m"], p["n"]) if p["fused"] in ("residual", "residual_norm") else None

    def poison(self):
        """The result as it stands before a run: NaN, or what a gated result is added to."""
        self.out.buffer.fill_(float("nan"))
        if self.residual is not None:
            self.out.view.copy_(self.residual)

    def image(self, x):
        """The convolution's operand, channels last in memory, upsampled and padded."""
        p = self.p
        x = x.view(1, p["ti"], p["hi"], p["wi"], p["cin"]).permute(0, 4, 1, 2, 3)
        if p["upsample"] == 2:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
        t_lo, t_hi, h_lo, h_hi, w_lo, w_hi = p["pad"]
        return torch.nn.functional.pad(x, (w_lo, w_hi, h_lo, h_hi, t_lo, t_hi))

    def weight(self, w):
        p = self.p
        return w.view(p["n"], p["kt"], p["kh"], p["kw"], p["cin"]).permute(0, 4, 1, 2, 3)

    def product(self, x, w):
        if not self.is_conv:
            return x @ w.T
        y = torch.nn.functional.conv3d(self.image(x), self.weight(w))
        return y.permute(0, 2, 3, 4, 1).reshape(self.p["m"], self.p["n"])

    def fuse(self, y):
        bias, fused = self.bias.view.to(y.dtype), self.p["fused"]
        if fused == "residual_norm":
            y = y + self.residual.to(y.dtype)
        if fused in ("norm", "residual_norm"):
            return torch.nn.functional.silu(y * torch.rsqrt((y * y).mean(1, keepdim=True) + 1e-6) * bias)
        if self.residual is not None:
            return self.residual.to(y.dtype) + bias * y
        y = y + bias
        return torch.nn.functional.gelu(y, approximate="tanh") if fused == "gelu" else y

    def reference(self, dtype, rounded):
        x, w = self.x.view, self.w.view
        if rounded:
            x, w = to_tf32(x.contiguous()), to_tf32(w.contiguous())
        return self.fuse(self.product(x.to(dtype), w.to(dtype)))

    def params(self, fields, driver, tmaps):
        """The Params struct: the sidecar's fields, bias, out; C layout."""
        data = b""
        for name, kind in fields + [["bias", "ptr"], ["out", "ptr"]]:
            if kind == "tmap":
                data += b"\0" * (-len(data) % 64)
                data += driver.tensor_map(tmaps[name], self.named[tmaps[name]["operand"]].pointer(), self.p["dtype"])
                continue
            code, size = {"ptr": ("<Q", 8), "i64": ("<q", 8), "i32": ("<i", 4), "f32": ("<f", 4)}[kind]
            data += b"\0" * (-len(data) % size)
            tensors = {**self.named, "bias": self.bias, "out": self.out}
            data += struct.pack(code, tensors[name].pointer() if kind == "ptr" else self.p[name])
        return data + b"\0" * (-len(data) % 64)

    def peer(self):
        """What PyTorch takes for the same product, fused code left out, on operands in its favourite layout."""
        p = self.p
        if not self.is_conv:
            x, w = self.x.view.contiguous(), self.w.view.contiguous()
            return lambda: x @ w.T
        x = self.image(self.x.view).contiguous(memory_format=torch.channels_last_3d)
        w = self.weight(self.w.view).contiguous(memory_format=torch.channels_last_3d)
        return lambda: torch.nn.functional.conv3d(x, w)


def bound(p, purpose, rounded):
    if p["out"] == "bf16":
        return 2.5e-3
    if p["out"] == "f16":
        return 3.5e-4
    if purpose == "time":
        return 1e-4 if rounded else 5e-5  # the reference is f32 too
    return 2e-5 if rounded or p["dtype"] != "f32" else 5e-6


def error(out, ref):
    out = out.to(ref.dtype)
    return ((out - ref).norm() / ref.norm()).item() if torch.isfinite(out).all() else float("nan")


def milliseconds(run, count):
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    events[count].synchronize()
    return [a.elapsed_time(b) for a, b in zip(events, events[1:])]


def medians(runs, turn, rounds=3):
    """Milliseconds of each. Under the power cap a kernel's clock depends on what ran before: each gets turns of its own, in changing
    order, of `turn` milliseconds after half as much that does not count."""
    times = [[] for _ in runs]
    order = list(range(len(runs)))
    for _ in range(rounds):
        random.shuffle(order)
        for i in order:
            milliseconds(runs[i], 1)
            count = max(2, min(500, int(turn / milliseconds(runs[i], 1)[0])))
            milliseconds(runs[i], count // 2)
            times[i] += milliseconds(runs[i], count)
    return [statistics.median(t) for t in times]


def set_library(tf32, benchmark):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark


# ---- the checks ----


def check_case(driver, folder, case, turn):
    """One problem on every kernel that takes it. Returns (kernels run, failures)."""
    p, purpose = case["problem"], case["purpose"]
    problem = Problem(p)
    refs, failures, timed = {}, 0, []
    for run in case["runs"]:
        problem.poison()
        f = driver.function(f"{folder}/{run['file']}", "kernel_under_test", run["smem"])
        params = problem.params(run["params"], driver, run["tmaps"])
        launch = functools.partial(driver.launch, f, run["grid"], run["block"], run["smem"], params, run["cluster"])
        launch()
        torch.cuda.synchronize()
        rounded = p["tf32"] and "_mma" in run["label"]
        if rounded not in refs:
            refs[rounded] = problem.reference(torch.float64 if purpose == "check" else torch.float32, rounded)
        e = error(problem.out.view, refs[rounded])
        good = e <= bound(p, purpose, rounded) and problem.out.intact()
        failures += not good
        if not good:
            print(f"FAIL {run['label']}: error {e:.2e}{'' if problem.out.intact() else ', wrote outside'}", flush=True)
        elif purpose == "time":
            timed.append((launch, f"model {run['cost'] * 1e3:8.3f} ms  {e:.1e}  {run['label']}"))
    if timed:
        refs.clear()
        problem.poison()
        set_library(tf32=p["tf32"], benchmark=True)
        timed.append((problem.peer(), "PyTorch, product alone"))
        for ms, (_, text) in zip(medians([launch for launch, _ in timed], turn), timed):
            print(f"{ms:9.3f} ms {problem.flop / ms / 1e9:7.1f} TFLOP/s  {text}", flush=True)
        print(flush=True)
        set_library(tf32=False, benchmark=False)
    return len(case["runs"]), failures


def check_philox(driver, folder):
    path, bad = f"{folder}/philox", []
    properties = torch.cuda.get_device_properties(0)
    most = properties.multi_processor_count * (properties.max_threads_per_multi_processor // 256)
    f = driver.function(path, "normal_torch")
    for seed, count in ((0, 5), (42, 4838400), (2**40 + 7, 1000003), (1, 270336 * 4 + 1)):
        generator = torch.Generator("cuda").manual_seed(seed)
        threads, offset = 256 * min(most, -(-count // 256)), 0
        for draw in range(2):
            want = torch.randn(count, device="cuda", generator=generator)
            out = torch.full((count,), float("nan"), device="cuda")
            driver.launch(f, [100, 1, 1], 256, 0, struct.pack("<QqQQq", out.data_ptr(), count, seed, offset, threads))
            torch.cuda.synchronize()
            wrong = int((out.view(torch.int32) != want.view(torch.int32)).sum())
            if wrong:
                bad.append(f"normal_torch seed {seed} count {count} draw {draw}: {wrong} differ, by {(out - want).abs().max().item():.1e}")
            offset += 4 * (1 + (count - 1) // (4 * threads))
    count, results = 4_000_001, {}
    for kind in ("f32", "f16", "bf16"):
        for blocks in (7, 1000):
            out = torch.full((count,), float("nan"), device="cuda", dtype=dtype_of(kind))
            params = struct.pack("<QqQQff", out.data_ptr(), count, 123, 456, 0.25, 2.0)
            driver.launch(driver.function(path, f"normal_fill_{kind}"), [blocks, 1, 1], 256, 0, params)
            torch.cuda.synchronize()
            results[kind, blocks] = out
        if not torch.equal(results[kind, 7], results[kind, 1000]):
            bad.append(f"normal_fill_{kind} depends on the launch geometry")
        if not torch.equal(results[kind, 7], results["f32", 7].to(dtype_of(kind))):
            bad.append(f"normal_fill_{kind} is not the rounded f32 fill")
    x = results["f32", 7].double()
    moments = [(x.mean() - 0.25).abs() / 2, (x.std() / 2 - 1).abs(), (((x - 0.25) / 2) ** 4).mean() / 3 - 1]
    if max(m.abs().item() for m in moments) > 5e-3:
        bad.append(f"normal_fill moments are off: {[m.item() for m in moments]}")
    print("\n".join("FAIL " + b for b in bad) if bad else "philox: bit-identical to torch.randn; fills are independent of geometry", flush=True)
    return 5, len(bad)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--compile", action="store_true", help="only make the cubins")
    parser.add_argument("--only", default="", help="regular expression on labels")
    parser.add_argument("--no-time", action="store_true", help="leave out the problems that are timed")
    parser.add_argument("--turn", type=float, default=120, help="milliseconds a kernel is timed for, three times")
    args = parser.parse_args()
    if not compile_all(args.folder):
        return 1
    if args.compile:
        return 0

    global torch
    import torch
    torch.manual_seed(1)
    set_library(tf32=False, benchmark=False)
    torch.zeros(1, device="cuda")
    driver = Driver()
    with open(f"{args.folder}/manifest.json") as f:
        cases = json.load(f)["cases"]
    ran, failed = check_philox(driver, args.folder)
    for case in cases:
        case["runs"] = [r for r in case["runs"] if re.search(args.only, r["label"])]
        if case["runs"] and not (args.no_time and case["purpose"] == "time"):
            n, bad = check_case(driver, args.folder, case, args.turn)
            ran, failed = ran + n, failed + bad
    print(f"{ran - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

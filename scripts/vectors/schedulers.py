"""The samplers: the classes' own steps, and float64 runs of the formulas."""
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from store import randn, relative, save_io

ORIGINAL_SIGMA_MAX = float(np.float32(0.999))  # what the original UniPC starts from: 1 - 1/1000 in fp32


def shifted(u, shift):
    return shift * u / (1 + (shift - 1) * u)


def fake_model(x, s, a, b, c):
    """v = (a·x + b·s) + (c·x)/(1 + x·x), elementwise: a model any test can compute."""
    return (a * x + b * s) + (c * x) / (1 + x * x)


def run_class(scheduler, x, model):
    xs = [x]
    scheduler.set_begin_index(0)
    for i, t in enumerate(scheduler.timesteps):
        xs.append(scheduler.step(model(xs[-1], i), t, xs[-1], return_dict=False)[0])
    return torch.stack([x.flatten() for x in xs])


def log_snr(sigma):
    with np.errstate(divide="ignore"):
        return np.log(1 - sigma) - np.log(sigma)


def run_unipc(sigma, x, model):
    """UniPC-2, bh2, data prediction, in float64 (formulas: the class's, simplified for orders 1 and 2)."""
    n, xs, m, last = len(sigma) - 1, [x], [], None
    lam = log_snr(sigma)

    def update(i, j, order, x, extra=None):
        """From sigma_i to sigma_j with the data predictions m[i], m[i-1]; extra = m[j] makes it the corrector."""
        if sigma[j] == 0:
            return m[i]
        h = lam[j] - lam[i]
        e = np.expm1(-h)
        base = sigma[j] / sigma[i] * x - (1 - sigma[j]) * e * m[i]
        if order == 2:
            r = (lam[i - 1] - lam[i]) / h
            d = (m[i - 1] - m[i]) / r
        if extra is None:
            return base if order == 1 else base - (1 - sigma[j]) * e * 0.5 * d
        if order == 1:
            return base - (1 - sigma[j]) * e * 0.5 * (extra - m[i])
        phi = e / -h - 1
        b1, b2 = phi / e, (phi / -h - 0.5) * 2 / e
        rho = (b1 - b2) / (1 - r)
        return base - (1 - sigma[j]) * e * (rho * d + (b1 - rho) * (extra - m[i]))

    order = 0
    for i in range(n):
        m.append(x - sigma[i] * model(x, i))
        if i > 0:
            x = update(i - 1, i, order, last, m[i])
        order = min(2, n - i, i + 1)
        last = x
        x = update(i, i + 1, order, x)
        xs.append(x)
    return np.stack(xs)


def run_dpmpp(sigma, x, model):
    """DPM-Solver++ 2M, midpoint, in float64."""
    n, xs, m = len(sigma) - 1, [x], []
    lam = log_snr(sigma)
    for i in range(n):
        m.append(x - sigma[i] * model(x, i))
        if sigma[i + 1] == 0:
            x = m[i]
        elif sigma[i] == 1:
            x = sigma[i + 1] * x + (1 - sigma[i + 1]) * m[i]
        else:
            h = lam[i + 1] - lam[i]
            d = m[i]
            if 0 < i < n - 1 and sigma[i - 1] < 1:
                d = d + 0.5 * (m[i] - m[i - 1]) * h / (lam[i] - lam[i - 1])
            x = sigma[i + 1] / sigma[i] * x - (1 - sigma[i + 1]) * np.expm1(-h) * d
        xs.append(x)
    return np.stack(xs)


def run_euler(sigma, x, model):
    xs = [x]
    for i in range(len(sigma) - 1):
        xs.append(xs[-1] + (sigma[i + 1] - sigma[i]) * model(xs[-1], i))
    return np.stack(xs)


def unipc(n, shift, u=None):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000)
    scheduler.set_timesteps(n if u is None else None, sigmas=u)
    return scheduler


def dpmpp(n, shift):
    """diffusers' class on the original grid, which starts at sigma = 1 and is not one the class makes itself."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, algorithm_type="dpmsolver++",
        solver_order=2, solver_type="midpoint", final_sigmas_type="zero")
    scheduler.set_timesteps(n)
    sigma = shifted(np.linspace(1, 0, n + 1)[:n], shift)
    scheduler.sigmas = torch.from_numpy(np.append(sigma, 0).astype(np.float32))
    scheduler.timesteps = torch.from_numpy((sigma * 1000).astype(np.int64))
    scheduler.num_inference_steps = n
    return scheduler


def euler(n, shift, u=None):
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    scheduler.set_timesteps(n if u is None else None, sigmas=u)
    return scheduler


def make_schedulers(out):
    def original_grid(n):
        return np.linspace(ORIGINAL_SIGMA_MAX, 0, n + 1)[:n]

    cases = {
        "unipc.d.s12.n40": (unipc(40, 12.0), run_unipc),
        "unipc.d.s3.n40": (unipc(40, 3.0), run_unipc),
        "unipc.d.s12.n4": (unipc(4, 12.0), run_unipc),
        "unipc.d.s5.n2": (unipc(2, 5.0), run_unipc),
        "unipc.d.s5.n1": (unipc(1, 5.0), run_unipc),
        "unipc.o.s12.n40": (unipc(40, 12.0, original_grid(40)), run_unipc),
        "unipc.o.s5.n50": (unipc(50, 5.0, original_grid(50)), run_unipc),
        "unipc.o.s12.n4": (unipc(4, 12.0, original_grid(4)), run_unipc),
        "dpmpp.o.s12.n40": (dpmpp(40, 12.0), run_dpmpp),
        "dpmpp.o.s5.n50": (dpmpp(50, 5.0), run_dpmpp),
        "dpmpp.o.s12.n4": (dpmpp(4, 12.0), run_dpmpp),
        "euler.d.s12.n40": (euler(40, 12.0), run_euler),
        "euler.d.s12.n4": (euler(4, 12.0), run_euler),
        "euler.u.s12.n40": (euler(40, 12.0, np.linspace(1, 0.001, 41)[:40]), run_euler),
    }
    shape = (1, 4, 8)
    x, b = randn(40, *shape), randn(42, *shape)
    a, c = randn(41, *shape).clamp(-1.5, 1.5) * 0.5, randn(43, *shape)
    tensors = {"x": x.flatten(), "a": a.flatten(), "b": b.flatten(), "c": c.flatten()}
    for name, (scheduler, reference) in cases.items():
        sigma = scheduler.sigmas.float()
        n = len(sigma) - 1
        assert len(scheduler.timesteps) == n
        s = torch.from_numpy(np.cos(3 * sigma[:n].double().numpy())).float()
        ran = run_class(scheduler, x, lambda x, i: fake_model(x, s[i], a, b, c))
        arrays = [t.double().numpy().ravel() for t in (a, b, c)]
        exact = torch.from_numpy(reference(sigma.double().numpy(), x.double().numpy().ravel(),
                                           lambda x, i: fake_model(x, float(s[i]), *arrays)))
        tensors |= {f"{name}.sigmas": sigma, f"{name}.timesteps": scheduler.timesteps, f"{name}.s": s,
                    f"{name}.xs": ran, f"{name}.xs64": exact}
        print(f"{name}: class against float64: last {relative(ran[-1], exact[-1]):.1e}, "
              f"worst {max(relative(p, q) for p, q in zip(ran, exact)):.1e}; "
              f"t {scheduler.timesteps[0].item():g} … {scheduler.timesteps[-1].item():g}")
    save_io(out / "schedulers.safetensors", tensors)

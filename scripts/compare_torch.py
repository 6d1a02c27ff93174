#!/usr/bin/env python3
"""Measures moonkiln and its peers (PyTorch, diffusers, transformers) on the same GPU, in turn, in one run.

    python3 scripts/compare_torch.py --json out.json --markdown out.md

Rows (--rows, comma list; --list tells what each measures and how long it takes):

    attention      self and cross attention of A14B in bf16, against SDPA's cuDNN kernel: TFLOP/s, error against fp32
    linears        each linear of a block with its norm, modulation and epilogue, against torch.compile of the same part
    step           a guided step of A14B, against diffusers + cuDNN + torch.compile; share of time outside matmul and attention
    small          one forward of the 1.3B model, against the same
    vae            decoding 81 frames, against diffusers in bf16
    text           umT5-xxl on 512 tokens, against transformers in bf16
    layer-error    relative error of one A14B layer against fp32, theirs and moonkiln's
    forward-error  the same of all layers
    repeat         two runs of moonkiln with one seed give the same bits

Weights and inputs are random. A peer is compiled for one shape at a time and kept busy before it is timed, as moonkiln is: the card's
clock depends on its load. For the step diffusers is timed with 1 and 3 layers and extrapolated: time(L) = t1 + (t3 - t1)/2 · (L - 1);
moonkiln runs all layers as one CUDA graph. What would take longer than --budget allows is left out, and the tables say so; results are
written after every measurement.

--layer-error DIR does that row alone, with weights stored in F32, and leaves in DIR what it used: transformer/ (a diffusers folder),
inputs.safetensors, reference.safetensors (out, block0, in fp32), output.safetensors (moonkiln's `velocity`).

Needs PyTorch with CUDA (2.11 was used), transformers, and diffusers. On a machine with no network, bring diffusers as a
wheel (it is pure Python; transformers' and PyTorch's own dependencies cover it):

    python3 -m pip download --no-deps -d wheels diffusers==0.42.1          # where there is a network
    python3 -m pip install --no-index --no-deps --target site wheels/*.whl  # on the GPU machine
    PYTHONPATH=site python3 scripts/compare_torch.py

--smoke runs everything at toy sizes on the CPU, to test this script. --tables FILE,... prints the tables of earlier results.
"""
import argparse
import datetime
import importlib.metadata
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

from compare import results
from compare.engine import REPOSITORY

ROWS = ("attention", "linears", "step", "small", "vae", "text", "layer-error", "forward-error", "repeat")


def cases_of(ctx):
    """Rows to their cases; imported here, so that tables can be printed without PyTorch."""
    from compare import attention, decoder, errors, linears, repeats, steps, text
    makers = (attention.cases, linears.cases, steps.cases, steps.cases_small, decoder.cases, text.cases, errors.cases_layer,
              errors.cases_forward, repeats.cases)
    return {row: make(ctx) for row, make in zip(ROWS, makers)}


def commit_of():
    try:
        return subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def software():
    names = {"PyTorch": "torch", "diffusers": "diffusers", "transformers": "transformers"}
    return ", ".join(f"{title} {importlib.metadata.version(package)}" for title, package in names.items())


def write(run, args):
    if args.json:
        results.save(run, args.json)
    if args.markdown:
        args.markdown.write_text(results.markdown(run))


def measure(ctx, rows, args):
    """Case after case; one that fails does not end the run."""
    import torch
    run = {"card": "CPU" if ctx.smoke else torch.cuda.get_device_name(), "date": datetime.date.today().isoformat(),
           "commit": args.commit or commit_of(), "software": software(), "results": [], "left_out": [], "seconds": {}}
    start, failed = time.monotonic(), False
    cases = cases_of(ctx)
    for case in (case for row in rows for case in cases[row]):
        begin = time.monotonic()
        if begin - start + case.seconds > args.budget:
            print(f"{case.label}: left out, about {case.seconds:g} s are not left of {args.budget:g}", file=sys.stderr)
            run["left_out"].append(case.label)
            continue
        try:
            done = case.measure()
        except Exception:  # whatever it is: the other rows are worth having
            traceback.print_exc()
            run["left_out"].append(f"{case.label} (the script failed)")
            failed, done = True, []
        for result in done:
            print(results.line(result), flush=True)
        run["results"] += done
        run["seconds"][case.label] = round(time.monotonic() - begin, 1)
        print(f"  [{run['seconds'][case.label]} s; about {case.seconds:g} expected]", file=sys.stderr, flush=True)
        ctx.release()
        write(run, args)
    write(run, args)
    print("\n" + results.markdown(run), end="")
    return failed or any(r.problem for r in run["results"])


def layer_error(ctx, args):
    """One layer with weights in F32, in a folder that stays."""
    import torch
    from compare import errors, wan
    latent = tuple(int(n) for n in args.error_latent.split("x"))
    found, by_name = errors.compare(ctx, args.layer_error, "layer-error", wan.TOY if ctx.smoke else wan.A14B, 1, latent, torch.float32)
    print(f"relative error of one layer against fp32, latent {args.error_latent}")
    print(f"{'':>16} {'block0':>10} {'out':>10}")
    for who, error in by_name.items():
        print(f"{who:>16} " + " ".join(f"{error[n]:10.3e}" if n in error else f"{'-':>10}" for n in ("block0", "out")))
    if args.json:
        args.json.write_text(json.dumps({"latent": latent, "errors": by_name}, indent=2) + "\n")
    for result in found:
        if result.problem:
            print(result.problem, file=sys.stderr)
    return any(r.problem for r in found)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma list of %(default)s (all)")
    parser.add_argument("--list", action="store_true", help="what the rows measure and about how long it takes; measures nothing")
    parser.add_argument("--tables", metavar="FILE,...", help="print the tables of these --json files; measures nothing")
    parser.add_argument("--tokens", help="of the guided step: comma list of 28800,32760,75600 (all)")
    parser.add_argument("--layers", type=int, help="of the A14B transformer (40)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="diffusers eager")
    parser.add_argument("--attention", choices=["cudnn", "flash", "math", "default"], default="cudnn", help="the peers' (%(default)s)")
    parser.add_argument("--moonkiln", metavar="PROGRAM", help="default: build/moonkiln, or peers only where there is none")
    parser.add_argument("--iterations", type=int, default=3, help="moonkiln's timed steps, of which the median counts (%(default)s)")
    parser.add_argument("--policy", default="exact", help="moonkiln's precision in layer-error and forward-error (%(default)s)")
    parser.add_argument("--layer-error", metavar="DIR", type=Path, help="this row alone, leaving its files in DIR")
    parser.add_argument("--error-latent", default="5x60x104", help="of --layer-error: latent frames, height, width (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="timed seconds per measurement (%(default)s)")
    parser.add_argument("--budget", type=float, default=570.0, help="leave out what would not be done in this many seconds (%(default)s)")
    parser.add_argument("--commit", help="of moonkiln, for the tables (default: git's)")
    parser.add_argument("--scratch", metavar="DIR", type=Path, help="for files that moonkiln reads, up to 29 GB (default: in memory)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results here")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables here")
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    return parser, parser.parse_args()


def make_context(args, parser):
    import torch
    from compare import wan
    from compare.context import Context
    from compare.engine import Engine
    if args.smoke:
        args.attention, args.compile, args.error_latent, args.layers = "default", False, "3x6x10", args.layers or wan.TOY["num_layers"]
    elif not (args.list or torch.cuda.is_available()):
        parser.error("no CUDA device (--smoke needs none)")
    known = (45, 128) if args.smoke else (28800, 32760, 75600)
    tokens = [int(n) for n in args.tokens.split(",")] if args.tokens and not args.smoke else list(known)
    if set(tokens) - set(known):
        parser.error(f"unknown token counts {sorted(set(tokens) - set(known))}; known: {known}")
    # Exact products in the fp32 references.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    own = REPOSITORY / "build" / "moonkiln"
    program = args.moonkiln or (str(own) if own.exists() else None)
    if not program:
        print("build/moonkiln is not there and --moonkiln was not given: peers only", file=sys.stderr)
    return Context(device="cpu" if args.smoke else "cuda", engine=Engine(program, args.smoke) if program else None,
                   attention_name=args.attention, compile=args.compile, seconds=args.seconds,
                   layers=args.layers or wan.A14B["num_layers"], tokens=tokens, iterations=args.iterations, policy=args.policy,
                   scratch=args.scratch)


def main():
    parser, args = parse()
    if args.tables:
        print(results.markdown(results.load([Path(name) for name in args.tables.split(",")])), end="")
        return 0
    rows = args.rows.split(",")
    if set(rows) - set(ROWS):
        parser.error(f"unknown rows {sorted(set(rows) - set(ROWS))}; known: {', '.join(ROWS)}")
    try:
        ctx = make_context(args, parser)
    except ModuleNotFoundError as missing:
        parser.error(f"the Python package {missing.name} is not installed; --help says what is needed")
    if args.list:
        for row, cases in cases_of(ctx).items():
            print(f"{row}: about {sum(case.seconds for case in cases):g} s")
            for case in cases:
                print(f"  {case.seconds:4g} s  {case.label}")
        return 0
    return int(layer_error(ctx, args) if args.layer_error else measure(ctx, rows, args))


if __name__ == "__main__":
    sys.exit(main())

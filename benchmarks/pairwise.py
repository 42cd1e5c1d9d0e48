"""Time and memory of the pairwise log-density beside other ways to write it.

The total correlation of a batch by the plain mixture, forward, and forward and backward to z, mean
and logvar, by providers that take turns in one process: `naive` (the tensor of all pairs and
columns, as most public code writes it), `inductor` (`torch.compile` of that), `pythae` and `keops`
where these packages are installed, `kernel` (what the library takes by itself: its C++ kernel)
and `no_compiler` (the same where no compiler is at hand); on a GPU `triton` in place of the last
two. Before a case is timed, all must agree. The peak of memory is that of a process of its own,
above what the inputs take.

    python benchmarks/pairwise.py                      # CPU, all cases, a few minutes
    python benchmarks/pairwise.py --case 1024x32 --rounds 5 --out p.csv
    python benchmarks/pairwise.py --device cuda --out benchmarks/results/cuda/pairwise.csv
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import ROOT, machine, ratios, summary, turns, write
from pairwise_forms import Form, forms, inputs, step
from torch import Tensor

OUT = ROOT / "benchmarks" / "results" / "pairwise.csv"
CASES = {
    "64x10": (64, 10), "256x10": (256, 10), "1024x32": (1024, 32), "2048x64": (2048, 64),
    "4096x64": (4096, 64),
}  # fmt: skip
CUDA_CASES = {**CASES, "16384x64": (16384, 64)}
# Copies of the tensor of all pairs and columns that a provider may hold at once, several over.
COPIES, ROOM = 8, {"cpu": 12 << 30, "cuda": 60 << 30}
DENSE = ("naive", "inductor", "pythae")
PEERS = ("naive", "inductor", "pythae", "keops")


def available(case: str, device: str) -> dict[str, Form]:
    """The forms whose tensors fit."""
    b, d = CUDA_CASES[case]
    fits = 4 * COPIES * b * b * d < ROOM[device.split(":")[0]]
    return {n: f for n, f in forms(device).items() if fits or n not in DENSE}


def agree(found: dict[str, Form], given: list[Tensor]) -> None:
    """Raise unless all forms give the same value and gradients."""
    expected = step(next(iter(found.values())), given, True)
    for name, form in found.items():
        for x, y in zip(step(form, given, True), expected, strict=True):
            error = float((x - y).abs().max() / y.abs().max())
            if not error < 1e-4:
                raise SystemExit(f"{name}: differs from the first provider by {error:.1e}")


def measure(
    case: str, found: dict[str, Form], given: list[Tensor], rounds: int
) -> list[dict[str, Any]]:
    """Times, and the others' times over a provider's own within each round."""
    rows: list[dict[str, Any]] = []
    cuda = given[0].is_cuda
    for mode in ("forward", "full"):
        calls = {n: partial(step, form, given, mode == "full") for n, form in found.items()}
        times = turns(calls, rounds, cuda=cuda, least=20.0)
        for name in found:
            rows.append(summary(case, name, f"{mode}_wall", times[name], "ms"))
            for other in PEERS:
                if other in times and other != name:
                    quotient = ratios(times[other], times[name])
                    rows.append(summary(case, name, f"{mode}_speedup_{other}", quotient, "1"))
    return rows


def peak(case: str, provider: str, device: str, threads: int) -> float:
    """MiB that one forward and backward pass takes above its inputs."""
    shape = CUDA_CASES[case]
    if device.startswith("cuda"):
        given, form = inputs(*shape, device), forms(device)[provider]
        step(form, given, True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(form, given, True)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # VmHWM and not ru_maxrss, which a new process inherits from the one that starts it.
    code = (
        "import re, sys, torch; sys.path.insert(0, 'benchmarks'); import pairwise_forms as p;"
        "high = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        f"torch.set_num_threads({threads}); form = p.forms()['{provider}'];"
        "p.step(form, p.inputs(128, 10), True);"
        f"given = p.inputs(*{shape}); before = high(); p.step(form, given, True);"
        "print((high() - before) / 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(run.stdout.split()[-1])


def special_functions(device: str) -> float:
    """Measured special-function calls a second of a GPU: what bounds the kernels there."""
    import triton  # pyright: ignore
    from special_functions import BLOCK, CALLS, powers  # pyright: ignore

    programs = 16 * 1024
    out = torch.empty(programs * BLOCK, device=device)
    call = partial(powers[(programs,)], out, BLOCK, CALLS)  # pyright: ignore
    milliseconds: Any = triton.testing.do_bench(call, return_mode="median")
    return out.numel() * CALLS / (1e-3 * milliseconds)


def main(given: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--case", action="append", choices=list(CUDA_CASES), help="some cases only; default all")
    add("--rounds", type=int, default=7, help="rounds a case (default: %(default)s)")
    add("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--out", type=Path, default=OUT, help="CSV file to write (default: %(default)s)")
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    rows: list[dict[str, Any]] = []
    where = machine(args.device)
    if cuda:
        rate = special_functions(args.device)
        rows.append(summary("device", "exp2", "rate", [rate], "1/s") | {"config": "{}"} | where)
    for case in args.case or (CUDA_CASES if cuda else CASES):
        b, d = CUDA_CASES[case]
        tensors, found = inputs(b, d, args.device), available(case, args.device)
        agree(found, tensors)
        new = measure(case, found, tensors, args.rounds)
        for name in found:
            high = peak(case, name, args.device, args.threads)
            new.append(summary(case, name, "full_peak", [max(high, 0.0)], "MiB"))
        config = json.dumps({"rows": b, "columns": d, "rounds": args.rounds})
        rows += [{**row, "config": config, **where} for row in new]
        for row in new:
            text = f"{case:9s} {row['provider']:12s} {row['metric']:26s} {row['median']}"
            print(text, row["unit"], flush=True)
    write(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

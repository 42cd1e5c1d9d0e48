"""Time and memory of the pairwise log-density beside the usual (B, M, D) form of it.

The total correlation of a batch by the plain mixture, forward, and forward and backward to z, mean
and logvar, by providers that take turns in one process: `naive` (the tensor of all pairs and
columns, as most public code writes it), `inductor` (`torch.compile` of that), `kernel` (the C++
kernel) and `lean` (rows in chunks, where there is no compiler); on a GPU `triton` in place of the
last two. Before a case is timed, all must agree. The peak of memory is that of a process of its
own, above what the inputs take.

    python benchmarks/pairwise.py                      # CPU, all cases, a few minutes
    python benchmarks/pairwise.py --case 1024x32 --rounds 5 --out /tmp/p.csv
    python benchmarks/pairwise.py --device cuda --out benchmarks/results/cuda/pairwise.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "pairwise.csv"
CASES = {
    "64x10": (64, 10), "256x10": (256, 10), "1024x32": (1024, 32), "2048x64": (2048, 64),
    "4096x64": (4096, 64),
}  # fmt: skip
# The tensor of all pairs, several times over, does not fit beside everything else.
TOO_LARGE = {"4096x64": ("naive", "inductor")}
FIELDS = ("case", "provider", "metric", "median", "q20", "q80", "unit", "config", "device",
          "threads", "torch", "commit", "time")  # fmt: skip
Provider = Callable[[Tensor, Tensor, Tensor], Tensor]


def naive(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """The total correlation as it is commonly written."""
    c = math.log(2.0 * math.pi)
    density = -0.5 * ((z[:, None] - mean).square() * (-logvar).exp() + logvar + c)
    joint = density.sum(2).logsumexp(1)
    return (joint - density.logsumexp(1).sum(1)).mean()


def library(backend: str) -> Provider:
    from vaereg.functional import pairwise_log_density

    def run(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
        joint, marginals = pairwise_log_density(z, mean, logvar, backend=backend)
        return (joint - marginals.sum(1)).mean()

    return run


class _Lean(torch.autograd.Function):
    """The library without its C++ kernel."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
        from vaereg.ops.pairwise_cpu import lean_forward

        weights = torch.zeros(())
        joint, marginals, *state = lean_forward(z, mean, logvar, weights, None, 0)
        ctx.save_for_backward(z, mean, logvar, weights, *state)
        return (joint - marginals.sum(1)).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        from vaereg.ops.pairwise_cpu import lean_backward

        z, mean, logvar, weights, *state = ctx.saved_tensors
        share = (grad / len(z)).expand(len(z))
        return lean_backward(
            share, -share[:, None].expand(z.shape), z, mean, logvar, weights, None, 0, *state
        )


def providers(device: str) -> dict[str, Provider]:
    found: dict[str, Provider] = {"naive": naive, "inductor": torch.compile(naive, dynamic=False)}
    if device.startswith("cuda"):
        return {**found, "triton": library("triton")}
    return {**found, "kernel": library("cpu"), "lean": _Lean.apply}


def inputs(case: str, device: str) -> list[Tensor]:
    b, d = CASES[case]
    g = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(b, d, generator=g), torch.randn(b, d, generator=g) - 1.0
    z = mean + (0.5 * logvar).exp() * torch.randn(b, d, generator=g)
    return [t.to(device) for t in (z, mean, logvar)]


def step(run: Provider, given: list[Tensor], backward: bool) -> list[Tensor]:
    if not backward:
        with torch.no_grad():
            return [run(*given)]
    leaves = [t.detach().requires_grad_() for t in given]
    value = run(*leaves)
    value.backward()
    return [value.detach(), *(t.grad for t in leaves if t.grad is not None)]


def agree(found: dict[str, Provider], given: list[Tensor]) -> None:
    """Raise unless all providers give the same value and gradients."""
    expected = step(next(iter(found.values())), given, True)
    for name, run in found.items():
        for x, y in zip(step(run, given, True), expected, strict=True):
            error = float((x - y).abs().max() / y.abs().max())
            if not error < 1e-4:
                raise SystemExit(f"{name}: differs from the first provider by {error:.1e}")


def measure(
    case: str, found: dict[str, Provider], given: list[Tensor], rounds: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for mode in ("forward", "full"):
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, run in found.items():
                start = time.perf_counter()
                step(run, given, mode == "full")
                if given[0].is_cuda:
                    torch.cuda.synchronize()
                times[name].append(1e3 * (time.perf_counter() - start))
        for name in found:
            rows.append(summary(case, name, f"{mode}_wall", times[name], "ms"))
            for other in ("naive", "inductor"):
                if other in times and other != name:
                    ratios = [a / b for a, b in zip(times[other], times[name], strict=True)]
                    rows.append(summary(case, name, f"{mode}_speedup_{other}", ratios, "1"))
    return rows


def summary(case: str, provider: str, metric: str, values: list[float], unit: str) -> Any:
    cuts = statistics.quantiles(values, n=5) if len(values) > 1 else values * 4
    return {"case": case, "provider": provider, "metric": metric, "unit": unit,
            "median": f"{statistics.median(values):.4g}", "q20": f"{cuts[0]:.4g}",
            "q80": f"{cuts[3]:.4g}"}  # fmt: skip


def peak(case: str, provider: str, threads: int) -> float:
    """MiB that one forward and backward pass adds to a process of its own."""
    # VmHWM and not ru_maxrss, which a new process inherits from the one that starts it.
    code = (
        "import re, sys, torch; sys.path.insert(0, 'benchmarks'); import pairwise as p;"
        "high = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        f"torch.set_num_threads({threads}); found = p.providers('cpu')['{provider}'];"
        "small = p.inputs('64x10', 'cpu'); p.step(found, small, True);"
        f"given = p.inputs('{case}', 'cpu'); before = high(); p.step(found, given, True);"
        "print((high() - before) / 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(run.stdout.split()[-1])


def commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain", "--", "vaereg", "benchmarks/*.py") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + dirty


def main(given: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--case", action="append", choices=list(CASES), help="some cases only; default all")
    add("--rounds", type=int, default=7, help="rounds a case (default: %(default)s)")
    add("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--out", type=Path, default=OUT, help="CSV file to write (default: %(default)s)")
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    shared = {
        "device": torch.cuda.get_device_name(args.device) if cuda else args.device,
        "threads": args.threads, "torch": torch.__version__, "commit": commit(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for case in args.case or CASES:
        tensors = inputs(case, args.device)
        left_out = () if cuda else TOO_LARGE.get(case, ())
        found = {n: p for n, p in providers(args.device).items() if n not in left_out}
        agree(found, tensors)
        new = measure(case, found, tensors, args.rounds)
        if not cuda:
            new += [
                summary(case, name, "full_peak", [peak(case, name, args.threads)], "MiB")
                for name in found
            ]
        b, d = CASES[case]
        config = json.dumps({"rows": b, "columns": d, "rounds": args.rounds})
        rows += [{**row, "config": config, **shared} for row in new]
        for row in new:
            print(
                f"{case:8s} {row['provider']:9s} {row['metric']:26s}", row["median"], row["unit"]
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

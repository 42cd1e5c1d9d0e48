"""Accuracy of `vaereg.metrics.estimate_mi` where the truth is known.

Writes benchmarks/results/mi_accuracy.json and prints a table: `python benchmarks/mi_accuracy.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "metrics"))
from exact_mi import gaussian, gaussian_mi, ring, ring_mi, student, student_mi  # noqa: E402

from vaereg.metrics import estimate_mi  # noqa: E402

INF = float("inf")


def cases(n: int, seed: int) -> list[dict[str, Any]]:
    """Name, data, truth, options and the error interval that is asked for (None: no bar)."""
    rows: list[dict[str, Any]] = []

    def add(name: str, data: Any, truth: float, bar: Any = None, **options: Any) -> None:
        rows.append({"name": name, "data": data, "truth": truth, "bar": bar, "options": options})

    rank = {"rank_transform": True}
    independent = gaussian(n, 5, 0.0, seed)
    add("independent d=5", independent, 0.0, (-0.01, 0.01))
    pair = gaussian(n, 1, 0.9, seed)
    add("gaussian d=1 rho=.9", pair, gaussian_mi(1, 0.9), (-0.03, 0.03))
    add("gaussian d=5 rho=.7", gaussian(n, 5, 0.7, seed), gaussian_mi(5, 0.7), (-0.06, 0.06))
    truth = gaussian_mi(20, 0.5)
    # At least 2.45; above the truth by no more than held-out noise: 0.05 is one run's.
    add("gaussian d=20 rho=.5", gaussian(n, 20, 0.5, seed), truth, (2.45 - truth, 0.05))
    for noise in (0.2, 0.4, 0.8):
        a, y = ring(n, noise, seed)
        exact = ring_mi(noise)
        add(f"ring noise={noise} labels", (a, y), exact, (-0.03, 0.03), method="classifier")
        add(f"ring noise={noise} one-hot", (a, np.eye(5)[y]), exact, (-0.06, 0.06))
    shuffled = np.random.default_rng(seed).permutation(ring(n, 0.4, seed)[1])
    add("independent labels", (ring(n, 0.4, seed)[0], shuffled), 0.0, (-0.01, 0.01),
        method="classifier")  # fmt: skip
    add("sinh(2x), ranks", [np.sinh(2 * x) for x in pair], gaussian_mi(1, 0.9), (-0.03, 0.03),
        **rank)  # fmt: skip
    add("asinh(5x), ranks", [np.arcsinh(5 * x) for x in pair], gaussian_mi(1, 0.9),
        (-0.03, 0.03), **rank)  # fmt: skip
    for nu in (1.0, 2.0, 3.0, 5.0):
        add(f"student nu={nu:g} rho=.7, ranks", student(n, nu, 0.7, seed), student_mi(nu, 0.7),
            (-0.03, 0.03), **rank)  # fmt: skip
    for rows_, width in ((500, 64), (2000, 32)):
        a, b = gaussian(rows_, width, 0.0, seed)
        add(f"independent N={rows_} d={width}", (a, b), 0.0)
        binary = (b[:, :1] > 0.0).astype(float)
        add(f"independent N={rows_} d={width}, binary b", (a, binary), 0.0)
        weak = 0.5 * a[:, :1] + 0.75**0.5 * b[:, :1]
        add(f"one rho=.5 column of {width}, N={rows_}", (a, weak), gaussian_mi(1, 0.5))
    return rows


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    parser.add_argument("--out", default=str(ROOT / "benchmarks/results/mi_accuracy.json"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    results: dict[str, dict[str, Any]] = {}
    for seed in args.seeds:
        for case in cases(args.rows, seed):
            if args.only not in case["name"]:
                continue
            start, cpu_start = time.perf_counter(), time.process_time()
            options = case["options"]
            a, b = case["data"]
            estimate = estimate_mi(a, b, runs=1, seed=seed, device=args.device, **options)
            row = results.setdefault(
                case["name"],
                {"truth": case["truth"], "bar": case["bar"], "options": options,
                 "values": [], "gaps": [], "seconds": [],
                 "cpu_seconds": []},
            )  # fmt: skip
            row["values"].append(estimate.mean)
            row["gaps"].append(estimate.gap)
            row["seconds"].append(round(time.perf_counter() - start, 2))
            row["cpu_seconds"].append(round(time.process_time() - cpu_start, 2))
    print(f"{'case':38s} {'truth':>7s} {'mean':>7s} {'error':>7s} {'std':>6s} {'cpu s':>5s}  bar")
    for name, row in results.items():
        values = np.array(row["values"])
        row["mean"] = float(values.mean())
        row["std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        error = row["mean"] - row["truth"]
        low, high = row["bar"] or (-INF, INF)
        row["met"] = None if row["bar"] is None else bool(low <= error <= high)
        verdict = {None: "", True: "met", False: "MISSED"}[row["met"]]
        seconds = float(np.mean(row["cpu_seconds"]))
        print(f"{name:38s} {row['truth']:7.3f} {row['mean']:7.3f} {error:+7.3f} {row['std']:6.3f} "
              f"{seconds:5.1f}  {verdict}")  # fmt: skip
    record = {
        "commit": commit(),
        "seeds": args.seeds,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "configuration": {
            "rows": args.rows, "runs": 1, "data": "drawn anew for each seed", "unit": "nats",
            "estimate_mi": "defaults but for the options of each case",
        },
        "cases": results,
    }  # fmt: skip
    if not args.only:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What the exact decomposition reads among n rows of a code whose total correlation is 0.

Coordinates are independent: q(z | x) = N(sqrt(1 - s) x, s I) with x ~ N(0, I), so that q(z) is the
standard normal density, I(x; z) = -D/2 log s and the total correlation is 0. Among n rows no code
shows more than log n nats, and what is missing of the information appears as total correlation.

    python benchmarks/ceiling.py                     # CPU, one thread, seconds
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from common import ROOT, machine, summary, write

from vaereg.metrics import kl_decomposition

OUT = ROOT / "benchmarks" / "results" / "ceiling.csv"
CODES = ((3, 7.2), (3, 7.9), (3, 8.5), (4, 9.0), (4, 9.7), (5, 10.7), (6, 12.0))
"""Coordinates and true I(x; z) in nats."""


def read(rows: int, width: int, mi: float, samples: int, seed: int) -> tuple[float, float]:
    """I(x; z) and total correlation as read among so many rows."""
    g = torch.Generator().manual_seed(seed)
    variance = math.exp(-2.0 * mi / width)
    mean = math.sqrt(1.0 - variance) * torch.randn(rows, width, generator=g)
    logvar = torch.full((rows, width), math.log(variance))
    found = kl_decomposition(mean, logvar, samples=samples, generator=g)
    return found.mi, found.tc


def main(given: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", type=int, default=100_000, help="rows (default: %(default)s)")
    add("--samples", type=int, default=2_000, help="codes a seed (default: %(default)s)")
    add("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: %(default)s)")
    add("--out", type=Path, default=OUT, help="CSV file to write (default: %(default)s)")
    args = parser.parse_args(given)
    torch.set_num_threads(1)
    where, rows = machine(), list[dict[str, Any]]()
    for width, mi in CODES:
        both = [read(args.rows, width, mi, args.samples, seed) for seed in range(args.seeds)]
        case = f"{width} coordinates, {mi:g} nats"
        config = {"rows": args.rows, "samples": args.samples, "seeds": args.seeds}
        for metric, values in zip(("mi", "tc"), zip(*both, strict=True), strict=True):
            row = summary(case, "kl_decomposition", metric, values, "nats")
            rows.append({**row, "config": json.dumps(config), **where})
            print(f"{case:25s} {metric} {row['median']}", flush=True)
    write(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

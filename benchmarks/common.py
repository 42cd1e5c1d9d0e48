"""What the benchmark scripts share: turns, summaries, and a tidy CSV with where and when."""

from __future__ import annotations

import csv
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

__all__ = ["COLUMNS", "ROOT", "machine", "ratios", "summary", "turns", "write"]

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("case", "provider", "metric", "median", "q20", "q80", "unit", "config", "device",
           "threads", "torch", "commit", "time")  # fmt: skip
Row = dict[str, Any]


def turns(
    providers: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    cuda: bool = False,
    least: float = 0.0,
    warmup: int = 2,
) -> dict[str, list[float]]:
    """Milliseconds a call: provider -> one number a round.

    The providers take turns, in an order that rotates, so that what else the machine does falls
    on all alike.

    Args:
        providers: What is timed.
        rounds: Timed rounds.
        cuda: Wait for the device before and after.
        least: Milliseconds of a turn: that many calls in a row, timed as one. On a GPU this hides
            the time to start a kernel.
        warmup: Rounds before those.
    """
    times: dict[str, list[float]] = {name: [] for name in providers}
    names, calls = list(providers), dict.fromkeys(providers, 1)
    for i in range(warmup + rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls[name]):
                providers[name]()
            if cuda:
                torch.cuda.synchronize()
            spent = 1e3 * (time.perf_counter() - start) / calls[name]
            if i >= warmup:
                times[name].append(spent)
            else:
                calls[name] = max(1, math.ceil(least / spent))
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Ratios within each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def summary(case: str, provider: str, metric: str, values: Sequence[float], unit: str) -> Row:
    """A row: the median over the rounds, and their 20% and 80% quantiles."""
    cuts = statistics.quantiles(values, n=5, method="inclusive") if len(values) > 1 else values
    found = {"median": statistics.median(values), "q20": cuts[0], "q80": cuts[-1]}
    row: Row = {"case": case, "provider": provider, "metric": metric, "unit": unit}
    return row | {key: f"{value:.4g}" for key, value in found.items()}


def machine(device: str = "cpu") -> Row:
    """The columns that say where and when."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain", "--", "vaereg", "benchmarks/*.py") else ""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown") + dirty,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as CSV, in the order of :data:`COLUMNS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)

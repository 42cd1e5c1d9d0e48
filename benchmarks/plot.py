"""Figures of stored results, made from the CSV files alone.

python benchmarks/plot.py critic_cost pairwise steps
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parent / "results"

# Okabe and Ito (2008); one colour a provider in a figure.
COLOURS = {
    "naive": "#d55e00",
    "unfrozen": "#e69f00",
    "detached": "#56b4e9",
    "library": "#0072b2",
    "inductor": "#e69f00",
    "pythae": "#cc79a7",
    "keops": "#56b4e9",
    "no_compiler": "#009e73",
    "kernel": "#0072b2",
    "triton": "#0072b2",
    "tc": "#0072b2",
    "dip": "#009e73",
    "mmd": "#56b4e9",
    "factor": "#e69f00",
    "mine": "#cc79a7",
}

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """The rows of a results file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _bars(axes: Axes, rows: list[Row], metric: str, title: str) -> None:
    """A group of bars a case, a bar a provider; whiskers from the 20% to the 80% quantile."""
    rows = [r for r in rows if r["metric"] == metric]
    cases = list(dict.fromkeys(r["case"] for r in rows))
    providers = [p for p in COLOURS if any(r["provider"] == p for r in rows)]
    width = 0.8 / max(len(providers), 1)
    for i, provider in enumerate(providers):
        for row in (r for r in rows if r["provider"] == provider):
            at = cases.index(row["case"]) + (i - (len(providers) - 1) / 2) * width
            median, low, high = (float(row[k]) for k in ("median", "q20", "q80"))
            first = row["case"] == cases[0]
            axes.bar(
                at,
                median,
                0.92 * width,
                color=COLOURS[provider],
                label=provider if first else None,
                yerr=[[median - low], [high - median]],
                error_kw={"elinewidth": 1, "ecolor": "#444444"},
            )
            axes.text(
                at,
                high,
                f" {median:.2g}" if median < 0.1 else f"{median:.2f}",
                ha="center",
                va="bottom",
                fontsize=7,
            )
    axes.set_xticks(range(len(cases)), [c.replace("_", "\n", 1) for c in cases], fontsize=8)
    if any(float(r["median"]) > 0.5 for r in rows):
        axes.axhline(1.0, color="#808080", linewidth=0.8, zorder=0)
    axes.set_title(title, fontsize=9)
    axes.set_ylabel("ratio")
    axes.spines[["top", "right"]].set_visible(False)
    # Room for the legend above the highest bar.
    axes.set_ylim(0.0, 1.3 * axes.get_ylim()[1])
    axes.legend(frameon=False, fontsize=8, ncols=len(providers), loc="upper center")


def critic_cost(rows: list[Row]) -> Figure:
    """The pass to the codes against unfrozen critics; the overhead over a plain step."""
    # A CUDA run has no CPU time: its kernels are what costs.
    clock = "cpu" if any(r["metric"] == "cpu" for r in rows) else "wall"
    name = {"cpu": "CPU time", "wall": "Time"}[clock]
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 4))
    _bars(left, rows, f"{clock}_ratio", f"{name} of the pass to the codes, against unfrozen")
    _bars(right, rows, f"{clock}_overhead_ratio", f"{name} beyond a plain VAE step, against naive")
    figure.suptitle(f"Three MINE terms ({_machine(rows)})", fontsize=10)
    return figure


def _machine(rows: list[Row]) -> str:
    device, threads, torch = (rows[0][k] for k in ("device", "threads", "torch"))
    return f"{device}, {threads} thread{'s' * (threads != '1')}, torch {torch}"


def pairwise(rows: list[Row]) -> Figure:
    """Time of a forward and backward pass, and peak memory, of every provider in every case."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    cases = [c for c in dict.fromkeys(r["case"] for r in rows) if c != "device"]
    for axes, metric, title in zip(
        figure.subplots(1, 2), ("full_wall", "full_peak"),
        ("Forward and backward, ms", "Peak memory above the inputs, MiB"), strict=True,
    ):  # fmt: skip
        for provider in COLOURS:
            found = {
                cases.index(r["case"]): float(r["median"])
                for r in rows
                if (r["provider"], r["metric"]) == (provider, metric) and float(r["median"]) > 0
            }
            if found:
                axes.plot(
                    list(found), list(found.values()), "o-", color=COLOURS[provider],
                    label=provider, markersize=4,
                )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks(range(len(cases)), cases, fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("rows x columns", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"Total correlation of a batch ({_machine(rows)})", fontsize=10)
    return figure


def steps(rows: list[Row]) -> Figure:
    """Terms alone as a share of a plain step; overheads of critics against common code."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _bars(left, rows, "term_share", "The term alone, over a plain step of a small VAE")
    left.axhline(0.03, color="#808080", linewidth=0.8, linestyle=":")
    left.set_ylim(0.0, 1.3 * max(float(r["q80"]) for r in rows if r["metric"] == "term_share"))
    _bars(right, rows, "overhead_ratio", "Time beyond a plain step, against common code")
    figure.suptitle(f"Regularizers in a training step ({_machine(rows)})", fontsize=10)
    return figure


FIGURES: dict[str, Callable[[list[Row]], Figure]] = {
    "critic_cost": critic_cost, "pairwise": pairwise, "steps": steps,
}  # fmt: skip


def main() -> None:
    """Draw the named figures into the folder of the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="+", choices=sorted(FIGURES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    for name in args.name:
        path = args.results / f"{name}.png"
        FIGURES[name](read(path.with_suffix(".csv"))).savefig(path, dpi=150)
        print(path)


if __name__ == "__main__":
    main()

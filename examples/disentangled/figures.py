"""The figures, as PNG files, from the stored results and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vaereg import plots

from .equal import COMPARED, beta_of, value_of

__all__ = ["draw"]

Run = dict[str, Any]
MEASURES = ("beta_vae", "factor_vae", "mig", "dci", "completeness", "informativeness", "sap",
            "modularity", "explicitness", "irs")  # fmt: skip


def _save(figure: Any, folder: Path, *words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join(re.sub(r"[^\w.=-]+", "_", word) for word in words)
    figure.savefig(folder / f"{stem}.png", dpi=100)


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["settings"]["objective"], []).append(run)
    return found


def _colours(number: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10" if number <= 10 else "turbo"](k if number <= 10 else k / number)
            for k in range(number)]  # fmt: skip


def _scores(runs: Sequence[Run], folder: Path) -> None:
    """One panel a score: every seed a point, the mean a line."""
    groups = _groups(runs)
    height = 0.6 + 0.22 * len(groups)
    figure = Figure(figsize=(13.0, 2.0 * height + 0.6), layout="constrained")
    panels = figure.subplots(2, 5, sharey=True).flat
    for panel, name in zip(panels, MEASURES, strict=True):
        for place, own in enumerate(groups.values()):
            values = [run["scores"][name] for run in own]
            panel.plot(values, [place] * len(values), "o", alpha=0.6, markersize=4)
            panel.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color="black")
        panel.set_yticks(range(len(groups)), list(groups), fontsize=8)
        panel.set_xlim(-0.03, 1.03)
        panel.set_title(name, fontsize=9)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()  # pyright: ignore[reportIndexIssue]
    _save(figure, folder, "scores")


def _correlations(content: dict[str, Any], folder: Path) -> None:
    names = content["rank_correlations"]["names"]
    matrix = np.array(content["rank_correlations"]["spearman"], dtype=float)  # None is nan
    figure = Figure(figsize=(8.5, 7.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=6)
    if not np.isfinite(matrix).any():
        middle = (len(names) - 1) / 2
        axes.text(middle, middle, "needs at least 3 runs", ha="center", va="center")
    axes.set_title(
        f"Spearman's rank correlation over {content['rank_correlations']['runs']} runs",
        fontsize=10,
    )
    figure.colorbar(image, shrink=0.7)
    _save(figure, folder, "rank_correlations")


def _lines(
    runs: Sequence[Run], folder: Path, name: str, x: str, y: str, read: Any, log: bool = False
) -> None:
    """One line a run, one colour an objective."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    groups = _groups(runs)
    for colour, (objective, own) in zip(_colours(len(groups)), groups.items(), strict=True):
        for k, run in enumerate(own):
            along, values = read(run)
            axes.plot(along, values, color=colour, alpha=0.8, label=None if k else objective)
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, folder, name)


def _history(name: str) -> Any:
    def read(run: Run) -> tuple[list[float], list[float]]:
        rows = [row for row in run["history"] if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    return read


def _spectrum(run: Run) -> tuple[Any, list[float]]:
    values = sorted(run["unsupervised"]["kl_per_code"], reverse=True)
    return range(1, len(values) + 1), values


def _scatter(runs: Sequence[Run], folder: Path) -> None:
    """Reconstruction against disentanglement; a marker a seed, its beta-VAEs joined by a line."""
    figure = Figure(figsize=(13.0, 3.4), layout="constrained")
    panels = figure.subplots(1, len(COMPARED))
    groups = _groups(runs)
    seeds = list(dict.fromkeys(run["settings"]["seed"] for run in runs))
    marker = {seed: "os^Dv<>PX*"[k % 10] for k, seed in enumerate(seeds)}
    for panel, (name, title) in zip(panels, COMPARED.items(), strict=True):
        for seed in seeds:
            curve = sorted(
                (run["unsupervised"]["nll"], value_of(run, name))
                for run in runs
                if run["settings"]["seed"] == seed
                and beta_of(run["settings"]["objective"]) is not None
            )
            panel.plot(*zip(*curve, strict=True), color="#cccccc", linewidth=0.8, zorder=0)
        for colour, (objective, own) in zip(_colours(len(groups)), groups.items(), strict=True):
            for k, run in enumerate(own):
                panel.plot(
                    run["unsupervised"]["nll"], value_of(run, name),
                    marker[run["settings"]["seed"]], color=colour, label=None if k else objective,
                )  # fmt: skip
        panel.set_xlabel("negative log-likelihood, nats", fontsize=9)
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0),
        title="shape: seed\nline: its beta-VAEs", title_fontsize=8,
    )  # fmt: skip
    _save(figure, folder, "reconstruction")


def _shifts(runs: Sequence[Run], folder: Path) -> None:
    """MIG under noise and shifts, mean over seeds."""
    groups = _groups(runs)
    names = list(runs[0]["shifts"])
    figure = Figure(figsize=(1.6 * len(names) + 2.0, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(groups)
    for k, (objective, own) in enumerate(groups.items()):
        heights = [np.mean([run["shifts"][name]["mig"] for run in own]) for name in names]
        axes.bar(np.arange(len(names)) + k * width, heights, width, label=objective)
    labels = [name.replace("_", " ") for name in names]
    axes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, labels, fontsize=8)
    axes.set_ylabel("MIG")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, folder, "shifts")


def _posteriors(run: Run, folder: Path) -> None:
    """The aggregated posterior of each code beside the prior, by KL."""
    counts = np.asarray(run["histograms"], float)[run["order"]]
    edges = np.linspace(-4.0, 4.0, counts.shape[1] + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    columns = min(5, len(counts))
    lines = -(-len(counts) // columns)
    figure = Figure(figsize=(2.0 * columns, 1.5 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
    prior = np.exp(-0.5 * middle**2) / np.sqrt(2.0 * np.pi)
    for k, panel in enumerate(panels):
        if k >= len(counts):
            panel.set_axis_off()
            continue
        density = counts[k] / max(counts[k].sum(), 1.0) / (edges[1] - edges[0])
        panel.stairs(density, edges, fill=True, alpha=0.6)
        panel.plot(middle, prior, color="black", linewidth=0.8)
        code = run["order"][k]
        kl = run["unsupervised"]["kl_per_code"][code]
        panel.set_title(f"$z_{{{code}}}$: {kl:.2f} nats", fontsize=8)
    figure.suptitle(f"{run['name']}: samples of q(z) and the prior", fontsize=10)
    _save(figure, folder, "posteriors", run["settings"]["objective"])


def _pictures(run: Run, arrays: dict[str, NDArray[np.uint8]], folder: Path) -> None:
    objective = run["settings"]["objective"]
    key = f"{run['name']}/traversals"
    if key in arrays:
        kl = run["unsupervised"]["kl_per_code"]
        columns = np.linspace(-3.0, 3.0, arrays[key].shape[1])
        figure = plots.attribute_grid(
            arrays[key],
            rows=[f"$z_{{{c}}}$ {kl[c]:.2f}" for c in run["order"]],
            columns=[f"{v:g}" for v in columns],
            row_name="code, nats",
            title=run["name"],
        )
        _save(figure, folder, "traversals", objective)
    key = f"{run['name']}/reconstructions"
    if key in arrays:
        figure = plots.attribute_grid(
            arrays[key], rows=["picture", "reconstruction", "difference"], title=run["name"]
        )
        _save(figure, folder, "reconstructions", objective)


def draw(path: Path, folder: Path) -> None:
    """All figures of a results file.

    Raises:
        ValueError: If it is no results file.
        OSError: If it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs: list[Run] = content["runs"]
        groups = _groups(runs)
    except KeyError as error:
        raise ValueError(
            f"--draw: expected a results file, got {path.name} without {error}"
        ) from error
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"--draw: expected a results file, got {path.name}: {error}") from error
    arrays: dict[str, NDArray[np.uint8]] = {}
    beside = path.with_suffix(".npz")
    if beside.exists():
        with np.load(beside, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    else:
        print(f"no {beside.name} beside it: traversals and reconstructions are left out")
    _scores(runs, folder)
    _correlations(content, folder)
    _scatter(runs, folder)
    _shifts(runs, folder)
    _lines(runs, folder, "spectrum", "code, sorted", "KL, nats", _spectrum)
    # Earlier results do not say of how many pictures.
    few = f"of {content['probed']:,} pictures" if "probed" in content else "of few pictures"
    most = f", at most {math.log(content['probed']):.1f}" if "probed" in content else ""
    for name, text in (("nll", "negative log-likelihood"), ("kl", "KL"),
                       ("exact_mi", f"I(x; z) {few}{most}"),
                       ("exact_tc", f"total correlation {few}"),
                       ("exact_dimwise", f"dimension-wise KL {few}")):  # fmt: skip
        if any(name in row for run in runs for row in run["history"]):
            _lines(runs, folder, f"trend_{name}", "step", f"{text}, nats", _history(name))
    _lines(
        runs, folder, "downstream", "labels", "accuracy of boosted trees",
        lambda run: (run["downstream"]["labels"], run["downstream"]["accuracy"]), log=True,
    )  # fmt: skip
    for own in groups.values():
        _posteriors(own[0], folder)
        _pictures(own[0], arrays, folder)

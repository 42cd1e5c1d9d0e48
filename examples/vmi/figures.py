"""The figures, as PNG files, from the stored results and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.archive import array_names, read_array
from vaereg import plots

from .evaluate import RANGE, assigned
from .report import picked

__all__ = ["draw"]

Run = dict[str, Any]


def _save(figure: Any, folder: Path, *words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join(re.sub(r"[^\w.=-]+", "_", word) for word in words)
    figure.savefig(folder / f"{stem}.png", dpi=100)


def _read(path: Path) -> tuple[list[Run], dict[str, NDArray[np.uint8]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs: list[Run] = content["runs"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"--draw: expected a results file, got {path.name}: {error}") from error
    beside = path.with_suffix(".npz")
    if not beside.exists():
        return runs, {}
    names = array_names(beside, option="--draw")
    return runs, {name: read_array(beside, name, option="--draw") for name in names}


def _label(run: Run) -> str:
    weight = run["settings"]["mi"]
    return f"$\\lambda$ = {weight:g}" if weight else "ELBO alone"


def _codes(run: Run, count: int) -> list[str]:
    """Each code, with the class that it is assigned to by the best one-to-one map, if any."""
    of = assigned(np.asarray(run["accuracy"]["counts"]))
    return [f"code {k}" + (f" \u2192 class {of[k]}" if k in of else "") for k in range(count)]


def _grid(run: Run, images: NDArray[np.uint8], folder: Path) -> None:
    """Codes down, styles across: one draw of z a column."""
    figure = plots.attribute_grid(
        images,
        rows=_codes(run, len(images)),
        row_name="code c, and its class by the one-to-one map",
        column_name="style z, drawn from the prior",
        title=f"{_label(run)}, seed {run['settings']['seed']}",
    )
    _save(figure, folder, "grid", run["name"])


def _traversal(run: Run, images: NDArray[np.uint8], folder: Path) -> None:
    figure = plots.attribute_grid(
        images,
        rows=[f"{v:g}" for v in reversed(RANGE)],
        columns=[f"{v:g}" for v in RANGE],
        row_name="$z_2$",
        column_name="$z_1$",
        title=f"{_label(run)}, seed {run['settings']['seed']}",
    )
    _save(figure, folder, "traversal", run["name"])


def _probabilities(runs: Sequence[Run], folder: Path) -> None:
    """Histograms of q(c = k | x) over all test images and k, and of the largest of each image."""
    figure = Figure(figsize=(8.0, 3.0), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = {"of_all": "all $q(c = k \\mid x)$", "of_the_largest": "the largest of each image"}
    for panel, (key, title) in zip(axes, titles.items(), strict=True):
        for run in runs:
            counts = np.asarray(run["probabilities"][key], float)
            edges = np.linspace(0.0, 1.0, len(counts) + 1)
            panel.stairs(counts / counts.sum(), edges, label=_label(run), linewidth=1.5)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("probability")
        panel.set_yscale("log")
    axes[0].set_ylabel("share")
    axes[1].legend(frameon=False)
    _save(figure, folder, "probabilities")


def _classes(run: Run, folder: Path) -> None:
    """One panel a code: how many test images of each class it has."""
    counts: NDArray[np.int64] = np.asarray(run["accuracy"]["counts"], np.int64)
    columns = min(5, len(counts))
    lines = -(-len(counts) // columns)
    classes = list(range(counts.shape[1]))
    width = max(1.8, 0.17 * len(classes))  # a tick of each class must be legible
    figure = Figure(figsize=(width * columns, 1.5 * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
    titles = _codes(run, len(counts))
    for k, panel in enumerate(panels):
        if k >= len(counts):
            panel.set_axis_off()
            continue
        panel.bar(classes, counts[k])
        panel.set_title(titles[k], fontsize=9)
        panel.set_xticks(classes)
        panel.tick_params(labelsize=7, labelbottom=True)
    figure.supxlabel("class", fontsize=9)
    figure.supylabel("test images", fontsize=9)
    figure.suptitle(
        f"test images by class for each code, {_label(run)}, seed {run['settings']['seed']}",
        fontsize=10,
    )
    _save(figure, folder, "classes", run["name"])


def _trend(runs: Sequence[Run], key: str, text: str, name: str, folder: Path) -> None:
    """One quantity against the step, with and without the term."""
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        steps = [row["step"] for row in run["history"]]
        axes.plot(steps, [row[key] for row in run["history"]], label=_label(run))
    axes.set_xlabel("training step")
    axes.set_ylabel(f"{text}, nats")
    axes.legend(frameon=False)
    _save(figure, folder, name)


def _representatives(runs: Sequence[Run]) -> list[Run]:
    """One run a weight: that which the criterion picks, or else the first."""
    groups: dict[float, list[Run]] = {}
    for run in runs:
        groups.setdefault(run["settings"]["mi"], []).append(run)
    return [picked(own) if "accuracy" in own[0] else own[0] for own in groups.values()]


def draw(paths: Sequence[Path], folder: Path) -> None:
    """All figures of the runs in some results files, which must be of one model.

    Raises:
        ValueError: If a file is no results file, or the ``.npz`` beside it no archive.
        OSError: If it cannot be read.
    """
    runs: list[Run] = []
    arrays: dict[str, NDArray[np.uint8]] = {}
    for path in paths:
        own, pictures = _read(path)
        runs += own
        arrays |= pictures
    for model in ("joint", "gaussian"):
        some = _representatives([run for run in runs if run["settings"]["model"] == model])
        if some:
            _draw(some, arrays, folder, model)


def _draw(
    runs: Sequence[Run], arrays: Mapping[str, NDArray[np.uint8]], folder: Path, model: str
) -> None:
    joint = model == "joint"
    for run in runs:
        for key, picture in (("grid", _grid), ("traversal", _traversal)):
            if f"{run['name']}/{key}" in arrays:
                picture(run, arrays[f"{run['name']}/{key}"], folder)
        if joint:
            _classes(run, folder)
    if joint:
        _probabilities(runs, folder)
        _trend(runs, "mi", "lower bound of I(c; view of x)", "trend_mi_joint", folder)
        _trend(runs, "drawn", "lower bound of I(c; x')", "trend_drawn_joint", folder)
        _trend(runs, "kl_c", "KL(q(c | x) || p(c))", "trend_kl_c_joint", folder)
    else:
        _trend(runs, "mi", "lower bound of I($z_1, z_2$; x')", "trend_mi_gaussian", folder)
    _trend(runs, "kl_z", "KL(q(z | x) || p(z))", f"trend_kl_z_{model}", folder)

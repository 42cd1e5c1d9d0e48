"""The tables and the results file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.command import commit

from .data import Pictures
from .evaluate import CRITERION, Measured, consensus
from .settings import Settings

__all__ = [
    "Row",
    "commit",
    "correlations",
    "picked",
    "pictures",
    "results",
    "table",
    "write_pictures",
]


@dataclass(frozen=True)
class Row:
    """One trained model and its measurements."""

    settings: Settings
    measured: Measured
    history: list[dict[str, float]]
    seconds: float

    @property
    def name(self) -> str:
        """Model, weight and seed."""
        return f"{self.settings.model} mi={self.settings.mi:g} seed={self.settings.seed}"


def _runs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    runs = [
        {
            "name": row.name,
            "settings": asdict(row.settings),
            "seconds": round(row.seconds, 1),
            **row.measured.values,
            "history": row.history,
        }
        for row in rows
    ]
    joint = [i for i, row in enumerate(rows) if "code" in row.measured.pictures]
    for weight in {rows[i].settings.mi for i in joint}:
        own = [i for i in joint if rows[i].settings.mi == weight]
        if len(own) > 1:
            values = consensus([rows[i].measured.pictures["code"] for i in own])
            for i, value in zip(own, values, strict=True):
                runs[i]["unsupervised"]["consensus"] = value
    return runs


def _by_weight(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(f"{run['settings']['mi']:g}", []).append(run)
    return groups


def picked(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run that the unsupervised criterion picks among several seeds."""
    return max(runs, key=lambda run: run["unsupervised"][CRITERION])


def correlations(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of each unsupervised reading with the one-to-one accuracy."""
    from scipy.stats import spearmanr

    accuracy = [run["accuracy"]["one_to_one"] for run in runs]
    readings = {name: [run["unsupervised"][name] for run in runs] for name in
                runs[0]["unsupervised"]}  # fmt: skip
    readings["elbo"] = [run["held_out"]["elbo"] for run in runs]
    return {
        name: float(spearmanr(values, accuracy).statistic)
        for name, values in readings.items()
        if len(set(values)) > 1 and len(set(accuracy)) > 1
    }


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    groups = _by_weight([run for run in runs if "accuracy" in run])
    return {
        weight: {
            "picked": picked(own)["name"],
            "picked_one_to_one": picked(own)["accuracy"]["one_to_one"],
            "mean_one_to_one": mean(run["accuracy"]["one_to_one"] for run in own),
            "rank_correlation_with_one_to_one": correlations(own) if len(own) > 2 else {},
        }
        for weight, own in groups.items()
    }


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * w for w in widths])
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def table(content: dict[str, Any]) -> str:
    """The runs, then the codes of the picked one, as text."""
    runs = content["runs"]
    joint = "accuracy" in runs[0]
    head = ["run", "one-to-one", "majority", "criterion"] if joint else ["run", "I(z_1,z_2;x') >="]
    head += ["KL c", "KL z", "ELBO"] if joint else ["KL z_1", "KL z_2", "KL z", "ELBO"]
    lines = [head]
    for run in runs:
        held = run["held_out"]
        if joint:
            cells = [f"{100 * run['accuracy'][m]:.2f} %" for m in ("one_to_one", "majority")]
            cells += [f"{run['unsupervised'][CRITERION]:.4f}", f"{held['kl_c']:.3f}"]
        else:
            cells = [f"{held['bound']:.3f}", *(f"{v:.3f}" for v in run["kl_per_dimension"][:2])]
        cells += [f"{held['kl_z']:.2f}", f"{held['elbo']:.2f}"]
        lines.append([run["name"], *cells])
    text = _aligned(lines)
    if not joint:
        return "\n".join(text)
    for weight, own in _by_weight(runs).items():
        summary = content["summary"][weight]
        score = [100 * run["accuracy"]["one_to_one"] for run in own]
        spread = f" ± {stdev(score):.2f}" if len(score) > 1 else ""
        text.append(
            f"mi={weight}: one-to-one {mean(score):.2f}{spread} % over {len(score)} seeds; picked "
            f"without labels: {summary['picked']}, {100 * summary['picked_one_to_one']:.2f} %"
        )
        ranks = summary["rank_correlation_with_one_to_one"]
        if ranks:
            shown = ", ".join(f"{name} {value:+.2f}" for name, value in ranks.items())
            text.append(f"  rank correlation with accuracy: {shown}")
    best = picked(max(_by_weight(runs).items(), key=lambda item: float(item[0]))[1])
    return "\n".join([*text, "", *_codes(best)])


def _codes(run: dict[str, Any]) -> list[str]:
    """Images of each class for each code of one run."""
    counts = run["accuracy"]["counts"]
    lines = [["code", *(f"class {j}" for j in range(len(counts[0])))]]
    lines += [[str(k), *map(str, row)] for k, row in enumerate(counts)]
    return [f"{run['name']}, test images of each class by code:", *_aligned(lines)]


def results(
    data: Pictures, rows: Sequence[Row], device: torch.device, command: str
) -> dict[str, Any]:
    """All that was measured and how; strings, numbers and lists only."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    runs = _runs(rows)
    return {
        "commit": commit(),
        "torch": str(torch.__version__),
        "device": name,
        "threads": torch.get_num_threads(),
        "command": command,
        "data": data.source,
        "images": {part: len(x) for part, x in data.images.items()},
        "summary": _summary(runs),
        "runs": runs,
    }


def pictures(rows: Sequence[Row]) -> dict[str, NDArray[np.uint8]]:
    """The arrays of all runs, named ``run/array``."""
    return {
        f"{row.name}/{name}": array
        for row in rows
        for name, array in row.measured.pictures.items()
        if name != "code"
    }


def write_pictures(path: Path, arrays: dict[str, NDArray[np.uint8]]) -> None:
    """Write the arrays whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    with open(scratch, "wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    scratch.replace(path)


def as_json(content: dict[str, Any]) -> str:
    """The content as JSON text, a number a line at most where it is short."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"

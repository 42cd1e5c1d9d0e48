"""The tables and the results file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.command import commit
from vaereg.metrics.disentanglement import udr

from .equal import COMPARED, against_beta
from .evaluate import SCORES, UNSUPERVISED
from .study import Row, Study
from .trainer import PROBE

__all__ = [
    "as_json",
    "near_ceiling",
    "pictures",
    "rank_correlations",
    "results",
    "summary",
    "table",
]

_UDR_ROWS = 5000
_NEAR = 0.75  # share from which the excess is worth a word: benchmarks/ceiling.py
COLUMNS = ("beta_vae", "factor_vae", "mig", "dci", "nll", "mi", "tc")


def _numbers(run: dict[str, Any]) -> dict[str, float | None]:
    return {**run["scores"], **{n: run["unsupervised"].get(n) for n in (*UNSUPERVISED, "udr")}}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, standard deviation over seeds and their number, of each number of each objective."""
    groups: dict[str, list[dict[str, float | None]]] = {}
    for run in runs:
        groups.setdefault(run["settings"]["objective"], []).append(_numbers(run))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for objective, own in groups.items():
        found[objective] = {}
        for name in own[0]:
            values = [v for row in own if (v := row[name]) is not None]
            if values:
                spread = {"std": stdev(values)} if len(values) > 1 else {}
                found[objective][name] = {"mean": mean(values), **spread, "seeds": len(values)}
    return found


def rank_correlations(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Spearman's correlation of all scores, over all runs; None where one does not vary."""
    from scipy.stats import rankdata

    names = [*SCORES, *UNSUPERVISED, "udr"]
    rows = [_numbers(run) for run in runs]
    matrix: list[list[float | None]] = []
    for a in names:
        line: list[float | None] = []
        for b in names:
            pairs = [(x, y) for row in rows if (x := row[a]) is not None
                     and (y := row[b]) is not None]  # fmt: skip
            ranks = (
                rankdata(np.array(pairs, float), axis=0) if len(pairs) > 2 else np.zeros((1, 2))
            )
            flat = bool((ranks.min(0) == ranks.max(0)).any())
            line.append(None if flat else float(np.corrcoef(ranks.T)[0, 1]))
        matrix.append(line)
    return {"names": names, "spearman": matrix, "runs": len(rows)}


def _some(mean: NDArray[Any], histogram: int) -> NDArray[Any]:
    """Rows at random, the same whether all codes were kept or those that were counted.

    Stored rows are in the order of the factors: the first of them are of one shape.
    """
    if len(mean) > histogram:
        mean = mean[np.sort(np.random.default_rng(0).permutation(len(mean))[:histogram])]
    return mean[np.random.default_rng(1).permutation(len(mean))[:_UDR_ROWS]]


def _add_udr(
    runs: list[dict[str, Any]], output: Path, rows: Sequence[Row], histogram: int
) -> None:
    """UDR of each run among the runs of its objective, from the stored codes."""
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.settings.objective, []).append(i)
    for own in groups.values():
        if len(own) < 2:
            continue
        codes, kl = [], []
        for i in own:
            with np.load(output / rows[i].settings.folder / "codes.npz") as file:
                codes.append(_some(file["mean"], histogram))
            kl.append(rows[i].values["unsupervised"]["kl_per_code"])
        for i, score in zip(own, udr(codes, kl=kl, method="spearman").scores, strict=True):
            runs[i]["unsupervised"]["udr"] = float(score)


def results(
    study: Study, rows: Sequence[Row], failed: Sequence[str], command: str
) -> dict[str, Any]:
    """All that was measured and how; strings, numbers and lists only."""
    device = study.device
    runs = [
        {
            "name": row.settings.name,
            "settings": asdict(row.settings),
            "seconds": round(row.seconds, 1),
            "together": row.together,
            "commit": row.commit,
            **row.values,
            "unsupervised": dict(row.values["unsupervised"]),
            "history": row.history,
        }
        for row in rows
    ]
    _add_udr(runs, study.options.output, rows, study.depth.histogram)
    return {
        "commit": commit(),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "command": command,
        "data": study.data.source,
        "pictures": len(study.data),
        "probed": min(PROBE, len(study.data)),
        "factors": dict(zip(study.data.names, study.data.sizes, strict=True)),
        "measured": {"depth": study.depth_name, **asdict(study.depth)},
        "failed": list(failed),
        "summary": summary(runs),
        "rank_correlations": rank_correlations(runs),
        "equal_reconstruction": against_beta(runs),
        "runs": runs,
    }


def as_json(content: dict[str, Any]) -> str:
    """The content as JSON text."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def pictures(study: Study, rows: Sequence[Row]) -> dict[str, NDArray[np.uint8]]:
    """Pictures of the first seed of each objective, named ``run/array``."""
    found: dict[str, NDArray[np.uint8]] = {}
    seen: set[str] = set()
    for row in rows:
        if row.settings.objective in seen:
            continue
        seen.add(row.settings.objective)
        with np.load(study.options.output / row.settings.folder / "pictures.npz") as file:
            found |= {f"{row.settings.name}/{name}": file[name] for name in file.files}
    return found


def _cell(entry: dict[str, float] | None) -> str:
    if entry is None or not math.isfinite(entry["mean"]):
        return "-"
    digits = 3 if abs(entry["mean"]) < 10 else 1
    spread = f" ± {entry['std']:.{digits}f}" if "std" in entry else ""
    return f"{round(entry['mean'], digits) + 0.0:.{digits}f}{spread}"  # no minus before a zero


def near_ceiling(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Objectives with a run whose I(x; z) is near the most that the pictures measured can show.

    Among n pictures it is at most log n, and what is missing is added to the total correlation.
    """
    return list(dict.fromkeys(
        run["settings"]["objective"]
        for run in runs
        if run["unsupervised"]["mi"] > _NEAR * math.log(run["rows"])
    ))  # fmt: skip


def _against(found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines on what is gained over beta-VAEs of the same error."""
    lines: list[str] = []
    for objective, entry in found.items():
        if not entry["seeds"]:
            continue
        parts = [
            f"{name} {entry[name]['mean']:+.3f}"
            + (f" ± {entry[name]['std']:.3f}" if "std" in entry[name] else "")
            for name in COMPARED
            if name in entry
        ]
        lines.append(
            f"{objective} less the beta-VAE of its negative log-likelihood ({entry['seeds']} "
            f"seeds): {', '.join(parts)}"
        )
    return lines


def table(content: dict[str, Any]) -> str:
    """The comparison as text: mean ± standard deviation over seeds."""
    lines = [["objective", *COLUMNS]]
    for objective, values in content["summary"].items():
        lines.append([objective, *(_cell(values.get(name)) for name in COLUMNS)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * w for w in widths])
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    first = content["runs"][0]
    text.append(
        f"{content['data']}, {first['settings']['steps']} steps, {first['rows']} pictures "
        "measured; nll, mi and tc in nats"
    )
    near = near_ceiling(content["runs"])
    if near:
        text.append(
            f"{', '.join(near)}: mi of some run is above three quarters of its ceiling, the "
            f"logarithm of the pictures measured ({math.log(first['rows']):.1f} nats): tc is read "
            "too high there"
        )
    text += _against(content.get("equal_reconstruction", {}))
    return "\n".join([*text, *(f"failed: {line}" for line in content["failed"])])

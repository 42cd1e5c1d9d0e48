"""The table and results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev

import torch

from harness.command import commit
from vaereg.metrics import MIEstimate, SwapAccuracy

from .evaluate import QUANTITIES
from .settings import Settings
from .study import PART, Study

__all__ = ["Row", "measured", "results", "table"]


@dataclass(frozen=True)
class Row:
    """One trained model and its measurements."""

    name: str
    settings: Settings
    mi: dict[str, MIEstimate]
    swap: dict[str, SwapAccuracy]
    history: list[dict[str, float]]
    seconds: float


def _by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.name, []).append(row)
    return groups


def measured(rows: Sequence[Row]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and spread of each mutual information in bits, for each name.

    With several seeds the spread is over the seeds' means, else over the fresh critics.
    """
    summary: dict[str, dict[str, tuple[float, float]]] = {}
    for name, own in _by_name(rows).items():
        estimates = {q: [row.mi[q] for row in own] for q in QUANTITIES}
        summary[name] = {
            q: (mean(e.mean for e in some), stdev(e.mean for e in some))
            if len(some) > 1
            else (some[0].mean, some[0].std)
            for q, some in estimates.items()
        }
    return summary


def table(rows: Sequence[Row], entropy: float, accuracy: Mapping[str, float]) -> str:
    """The comparison as text: bits by fresh critics, and swap accuracy."""
    header = ["model", *(f"{q} bits" for q in QUANTITIES), *(f"swap {name}" for name in accuracy)]
    lines = [header]
    groups = _by_name(rows)
    for name, values in measured(rows).items():
        cells = [name, *(f"{values[q][0]:.3f} ± {values[q][1]:.3f}" for q in QUANTITIES)]
        for attribute in accuracy:
            percent = [100 * row.swap[attribute].accuracy for row in groups[name]]
            spread = f" ± {stdev(percent):.2f}" if len(percent) > 1 else ""
            cells.append(f"{mean(percent):.2f}{spread} %")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * w for w in widths])
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    real = ", ".join(f"{name} {100 * value:.2f} %" for name, value in accuracy.items())
    text.append(f"H(y) = {entropy:.3f} bits; the classifier on real test images: {real}")
    return "\n".join(text)


def results(
    study: Study,
    rows: Sequence[Row],
    entropy: float,
    accuracy: Mapping[str, float],
    command: str,
) -> str:
    """All that was measured and how, as JSON."""
    device = study.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    content = {
        "commit": commit(),
        "torch": str(torch.__version__),
        "device": name,
        "threads": torch.get_num_threads(),
        "command": command,
        "data": study.data.source,
        "attributes": list(study.data.attribute_names),
        "images": {part: len(index) for part, index in study.data.split.items()},
        "measured_on": {
            "data": study.measured.source,
            "rows": len(study.measured.split[PART]),
        },
        "entropy_bits": entropy,
        "classifier_accuracy_on_real_images": dict(accuracy),
        "runs": [
            {
                "name": row.name,
                "settings": asdict(row.settings),
                "seconds": round(row.seconds, 1),
                "mi_bits": {q: asdict(estimate) for q, estimate in row.mi.items()},
                "swap": {attribute: asdict(value) for attribute, value in row.swap.items()},
                "history": row.history,
            }
            for row in rows
        ],
    }
    return json.dumps(content, indent=1) + "\n"

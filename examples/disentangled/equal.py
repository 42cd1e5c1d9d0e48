"""Objectives against the beta-VAE of the same reconstruction error, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from .objectives import parse

__all__ = ["COMPARED", "against_beta", "beta_of", "value_of"]

COMPARED = {
    "mig": "MIG", "factor_vae": "FactorVAE score", "dci": "DCI", "tc": "total correlation, nats",
}  # fmt: skip
"""Scores that are compared, and their titles; of the total correlation less is better."""


def beta_of(objective: str) -> float | None:
    """The weight of the KL where nothing else is in the objective, else None."""
    parsed = parse(objective)
    if len(parsed) != 1:
        return None
    ((name, (weight, _)),) = parsed.items()
    return weight if name in ("vae", "beta") else None


def value_of(run: dict[str, Any], name: str) -> float | None:
    """A score with or without known factors."""
    return run["scores"][name] if name in run["scores"] else run["unsupervised"].get(name)


def against_beta(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores less those of beta-VAEs of the same negative log-likelihood.

    The beta-VAEs of a seed, at least two weights, are points of error and score; between two
    neighbours in error the score is interpolated linearly, and of points of one error it is the
    mean. A run whose error no two of them enclose is not compared: nothing is extrapolated.

    Returns:
        For each objective: ``seeds`` compared, ``outside`` (seeds whose error is not enclosed),
        and for each score that is compared ``mean``, ``std`` (of two seeds or more), ``of``, the
        number of seeds that have it, and ``above``, in how many it is above the beta-VAE's.
    """
    curves: dict[int, list[dict[str, Any]]] = {}
    others: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if beta_of(run["settings"]["objective"]) is not None:
            curves.setdefault(run["settings"]["seed"], []).append(run)
        else:
            others.setdefault(run["settings"]["objective"], []).append(run)
    found: dict[str, dict[str, Any]] = {}
    for objective, own in others.items():
        gains: dict[str, list[float]] = {name: [] for name in COMPARED}
        outside = 0
        for run in own:
            curve = curves.get(run["settings"]["seed"], [])
            error = run["unsupervised"]["nll"]
            if _between(error, [(point, 0.0) for point in curve]) is None:
                outside += 1
                continue
            for name in COMPARED:
                value = value_of(run, name)
                points = [(p, v) for p in curve if (v := value_of(p, name)) is not None]
                other = _between(error, points)
                if value is not None and other is not None:
                    gains[name].append(value - other)
        entry: dict[str, Any] = {"seeds": len(own) - outside, "outside": outside}
        for name, values in gains.items():
            if values:
                spread = {"std": stdev(values)} if len(values) > 1 else {}
                above = sum(v > 0 for v in values)
                entry[name] = {"mean": mean(values), **spread, "above": above, "of": len(values)}
        found[objective] = entry
    return found


def _between(error: float, points: Sequence[tuple[dict[str, Any], float]]) -> float | None:
    """The score at an error, interpolated; None where two weights do not enclose it."""
    if len({beta_of(run["settings"]["objective"]) for run, _ in points}) < 2:
        return None
    equal: dict[float, list[float]] = {}
    for run, value in points:
        equal.setdefault(run["unsupervised"]["nll"], []).append(value)
    errors = sorted(equal)
    if not errors[0] <= error <= errors[-1]:
        return None
    return float(np.interp(error, errors, [mean(equal[e]) for e in errors]))

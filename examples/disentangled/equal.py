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
    neighbours in error the score is interpolated linearly. A run whose error no two of them
    enclose is not compared: nothing is extrapolated.

    Returns:
        For each objective: ``seeds`` compared, ``outside`` (seeds whose error is not enclosed),
        and for each score that is compared ``mean``, ``std`` (of two seeds or more) and
        ``above``, the number of seeds in which it is above the beta-VAE's.
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
            curve = sorted(
                curves.get(run["settings"]["seed"], []), key=lambda r: r["unsupervised"]["nll"]
            )
            errors = [point["unsupervised"]["nll"] for point in curve]
            error = run["unsupervised"]["nll"]
            if len(curve) < 2 or not errors[0] <= error <= errors[-1]:
                outside += 1
                continue
            for name in COMPARED:
                value, values = value_of(run, name), [value_of(point, name) for point in curve]
                known = [v for v in values if v is not None]
                if value is not None and len(known) == len(values):
                    gains[name].append(value - float(np.interp(error, errors, known)))
        entry: dict[str, Any] = {"seeds": len(own) - outside, "outside": outside}
        for name, values in gains.items():
            if values:
                spread = {"std": stdev(values)} if len(values) > 1 else {}
                above = sum(v > 0 for v in values)
                entry[name] = {"mean": mean(values), **spread, "above": above}
        found[objective] = entry
    return found

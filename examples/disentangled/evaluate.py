"""What is measured of a trained model; nothing here trains it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.functional import gaussian_kl
from vaereg.metrics import kl_decomposition
from vaereg.metrics.disentanglement import (
    FactorTable,
    beta_vae_score,
    dci,
    downstream_accuracy,
    explicitness,
    factor_vae_score,
    gaussian_total_correlation,
    irs,
    mig,
    modularity,
    sap,
    wasserstein_correlation,
)

from .data import OnDevice, Pictures
from .models import Stack
from .shifts import Model, as_bytes, repeated, shifts
from .trainer import encode

__all__ = ["DEPTHS", "SCORES", "Codes", "Depth", "codes_of", "downstream", "measure", "scores"]

SCORES = (
    "beta_vae", "factor_vae", "mig", "mig_sampled", "dci", "completeness", "informativeness",
    "sap", "modularity", "explicitness", "irs",
)  # fmt: skip
"""Scores that know the factors; all are better the higher."""
UNSUPERVISED = ("nll", "kl", "mi", "tc", "dimwise_kl", "gaussian_tc", "wasserstein", "active")
_TRAVERSAL = np.linspace(-3.0, 3.0, 9)
_EDGES = np.linspace(-4.0, 4.0, 41)


@dataclass(frozen=True)
class Depth:
    """How much work the measurements are.

    Attributes:
        rows: Pictures that are encoded; 0 for all.
        grid: Whether these are a complete grid of thinned factors, else random ones.
        histogram: Rows that scores count or are fitted on (and half as many to test them).
        samples: Codes of the exact KL and of MIG's sampling form.
        points: Points to fit the beta-VAE and FactorVAE scores on; half as many to score on.
        trees: Boosting rounds of the predictors of DCI and downstream.
        labels: Of the downstream predictors.
        shifted: Pictures of each noise and shift test.
    """

    rows: int = 0
    grid: bool = True
    histogram: int = 10_000
    samples: int = 10_000
    points: int = 10_000
    trees: int = 100
    labels: tuple[int, ...] = (10, 100, 1_000, 10_000)
    shifted: int = 10_000


DEPTHS = {
    "full": Depth(),
    "medium": Depth(rows=100_000, grid=False, samples=2_000, trees=10, shifted=2_000),
    "small": Depth(
        rows=12_000, histogram=3_000, samples=1_000, points=1_000, trees=10,
        labels=(10, 100, 1_000), shifted=1_000,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Codes:
    """Posteriors of pictures beside the factors that vary, each picture encoded once.

    Attributes:
        mean: ``(N, D)``.
        logvar: ``(N, D)``.
        factors: ``(N, K)``.
        names: Of these factors.
    """

    mean: Tensor
    logvar: Tensor
    factors: NDArray[np.integer]
    names: tuple[str, ...]

    def some(self, most: int) -> Codes:
        """So many of the rows, at random; the same of all tables of one size."""
        if len(self.mean) <= most:
            return self
        rows = np.sort(np.random.default_rng(0).permutation(len(self.mean))[:most])
        return Codes(self.mean[rows], self.logvar[rows], self.factors[rows], self.names)


def codes_of(stack: Stack, i: int, source: OnDevice, rows: NDArray[np.integer]) -> Codes:
    """The codes of model i. Factors with one value are left out: a vote on one is noise."""
    factors = source.data.factors[rows]
    kept = np.flatnonzero(factors.min(0) != factors.max(0))
    names = tuple(source.data.names[k] for k in kept)
    return Codes(*encode(stack, i, source, rows), factors[:, kept], names)


def scores(codes: Codes, depth: Depth, device: torch.device | None = None) -> dict[str, float]:
    """All scores of codes with known factors; what is heavy and can be, on the device."""
    # Classifiers that stop at their limit of iterations are as published.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*failed to converge", module="sklearn")
        return _scores(codes, depth, device)


def _scores(codes: Codes, depth: Depth, device: torch.device | None) -> dict[str, float]:
    z, y = codes.mean.numpy(), codes.factors
    rows = repeated(y)
    if not len(rows):
        raise ValueError(f"expected values that several of {len(y)} pictures share, got none")
    table = FactorTable.of(z[rows], y[rows])
    part = codes.some(depth.histogram)
    few, own = part.mean.numpy(), part.factors
    split = codes.some(depth.histogram * 3 // 2)
    fit = (split.mean.numpy(), split.factors)
    sizes = {"train_rows": depth.histogram, "test_rows": depth.histogram // 2}
    votes = {"train": depth.points, "test": depth.points // 2}
    mean, logvar = codes.mean.to(device), codes.logvar.to(device)
    parts = dci(*fit, predictor=_boosted(depth), **sizes)
    return {
        "beta_vae": float(beta_vae_score(table, **votes)),
        "factor_vae": float(factor_vae_score(table, **votes)),
        "mig": float(mig(few, own)),
        "mig_sampled": float(mig(mean, y, logvar=logvar, samples=depth.samples)),
        "dci": parts.score,
        "completeness": parts.completeness,
        "informativeness": parts.informativeness,
        "sap": float(sap(*fit, **sizes)),
        "modularity": float(modularity(few, own)),
        "explicitness": float(explicitness(*fit, **sizes)),
        "irs": float(irs(few, own)),
    }


def _boosted(depth: Depth) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return lambda: GradientBoostingClassifier(n_estimators=depth.trees, random_state=0)


def unsupervised(codes: Codes, depth: Depth, device: torch.device) -> dict[str, Any]:
    """The exact parts of the KL and scores that know no factors."""
    mean, logvar = codes.mean.to(device), codes.logvar.to(device)
    g = torch.Generator().manual_seed(0)
    parts = kl_decomposition(mean, logvar, samples=min(depth.samples, len(mean)), generator=g)
    per_code = gaussian_kl(mean, logvar).double().mean(0).tolist()
    z = codes.mean.numpy()
    tc = gaussian_total_correlation(z)
    return {
        "kl": parts.kl,
        "mi": parts.mi,
        "tc": parts.tc,
        "dimwise_kl": sum(parts.dimwise_kl),
        "errors": {
            "mi": parts.mi_error,
            "tc": parts.tc_error,
            "dimwise_kl": math.hypot(*parts.dimwise_error),
        },
        "kl_per_code": per_code,
        "active": sum(value > 0.01 for value in per_code),
        "gaussian_tc": tc if math.isfinite(tc) else None,
        "wasserstein": wasserstein_correlation(z),
    }


def downstream(codes: Codes, depth: Depth) -> dict[str, Any]:
    """Accuracy of boosted trees by number of labels, mean over factors and for each."""
    most = depth.labels[-1] + max(1_000, depth.histogram // 2)
    part = codes.some(most)
    labels = [n for n in depth.labels if n <= len(part.mean) * 2 // 3]
    found = downstream_accuracy(
        part.mean.numpy(), part.factors, labels=labels, test_rows=len(part.mean) - labels[-1],
        predictor=_boosted(depth),
    )  # fmt: skip
    return {
        "labels": list(found.labels),
        "accuracy": found.accuracy.mean(1).tolist(),
        "per_factor": dict(zip(codes.names, found.accuracy.T.tolist(), strict=True)),
        "efficiency": found.efficiency(min(100, labels[-1]), labels[-1]),
    }


def _pictures(
    model: Model, data: Pictures, codes: Codes, order: list[int]
) -> dict[str, NDArray[np.uint8]]:
    """Reconstructions and traversals, codes in the order given."""
    rows = np.random.default_rng(2).permutation(len(data))[:8]
    x = data.batch(rows)
    mean, _, _ = model.read(x)
    again = model.decode(mean)
    real = as_bytes(x)
    difference = np.abs(real.astype(np.int16) - again).astype(np.uint8)
    z = mean[:1].repeat(len(order) * len(_TRAVERSAL), 1)
    for place, code in enumerate(order):
        part = slice(place * len(_TRAVERSAL), (place + 1) * len(_TRAVERSAL))
        z[part, code] = torch.from_numpy(_TRAVERSAL).float()
    moved = model.decode(z)
    return {
        "reconstructions": np.stack([real, again, difference]),
        "traversals": moved.reshape(len(order), len(_TRAVERSAL), *moved.shape[1:]),
    }


def _histograms(codes: Codes) -> list[list[int]]:
    """Samples of the aggregated posterior, counted over [-4, 4] for each code."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(codes.mean.shape, generator=g)
    z = (codes.mean + (0.5 * codes.logvar).exp() * noise).numpy()
    return [np.histogram(column, _EDGES)[0].tolist() for column in z.T]


def measure(
    encoder: Stack, decoder: Stack, i: int, source: OnDevice, likelihood: str, depth: Depth
) -> tuple[dict[str, Any], Codes, dict[str, NDArray[np.uint8]]]:
    """All measurements of model i.

    Returns:
        Numbers and lists for the results file, the codes, and pictures for the figures.
    """
    data = source.data
    rows = data.spread(depth.rows or len(data), grid=depth.grid)
    codes = codes_of(encoder, i, source, rows)
    model = Model(encoder, decoder, i, likelihood, source.device)
    blind = unsupervised(codes, depth, source.device)
    moved = shifts(model, data, pictures=depth.shifted, points=depth.points)
    blind["nll"] = moved["clean"]["nll"]
    order = np.argsort(blind["kl_per_code"])[::-1].tolist()
    values = {
        "rows": len(rows),
        "scores": scores(codes, depth, source.device),
        "unsupervised": blind,
        "downstream": downstream(codes, depth),
        "shifts": moved,
        "histograms": _histograms(codes),
        "order": order,
    }
    return values, codes, _pictures(model, data, codes, order)

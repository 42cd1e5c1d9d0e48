"""Binned codes, and the mutual information of all pairs of codes and factors at once."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    as_codes,
    as_factors,
    columns,
    relabel,
    varying,
)
from vaereg.metrics.disentanglement._checks import number

__all__ = ["Binning", "binned", "discretize", "entropies", "mutual_information"]

Binning = Literal["uniform", "quantile"]
_PAIRS = 1 << 22  # entries of the index at once


def discretize(codes: Floats, bins: int, binning: Binning, name: str = "bins") -> Ints:
    """The bin 0..bins - 1 of each entry, column by column."""
    bins = number(name, bins, 2)
    if binning not in ("uniform", "quantile"):
        raise ValueError(f"binning: expected 'uniform' or 'quantile', got {binning!r}")
    found = np.zeros(codes.shape, np.int64)
    for d, column in enumerate(columns(codes)):
        if binning == "uniform":
            # In the codes' own precision, as numpy.histogram places its edges.
            edges = np.linspace(column.min(), column.max(), bins + 1, dtype=column.dtype)
        else:
            edges = np.quantile(column, np.linspace(0.0, 1.0, bins + 1))
        found[:, d] = np.searchsorted(edges[1:-1], column, side="right")
    return found


def entropies(labels: Ints, sizes: tuple[int, ...]) -> Floats:
    """Entropy of each factor in the sample, in nats, ``(K,)``."""
    return np.array([
        -sum(p * np.log(p) for p in np.bincount(column, minlength=size) / len(column) if p)
        for column, size in zip(columns(labels), sizes, strict=True)
    ])  # fmt: skip


def mutual_information(cells: Ints, bins: int, labels: Ints, sizes: tuple[int, ...]) -> Floats:
    """Of each binned code with each factor, in nats, ``(D, K)``; exactly 0 where independent."""
    n, d = cells.shape
    k, total = len(sizes), sum(sizes)
    offsets = np.cumsum((0, *sizes[:-1]))
    first: Ints = np.multiply(np.add(cells, [bins * j for j in range(d)]), total)  # (n, D)
    second = labels + offsets  # (n, K)
    counts = np.zeros(d * bins * total, np.int64)
    step = max(1, _PAIRS // (d * k))
    for start in range(0, n, step):
        part = slice(start, start + step)
        index: Ints = np.add(first[part, :, None], second[part, None, :])
        counts += np.bincount(index.ravel(), minlength=len(counts))
    joint = counts.reshape(d, bins, total).astype(np.float64)
    by_bin = joint[:, :, : sizes[0]].sum(2, keepdims=True)  # (D, bins, 1)
    by_value = joint[0].sum(0)  # (total,)
    # Products of counts are exact in float64, so that independence gives log 1 = 0.
    ratio = np.divide(joint * n, by_bin * by_value, out=np.ones_like(joint), where=joint > 0)
    terms = (joint / n * np.log(ratio)).sum(1)  # (D, total)
    return np.maximum(np.add.reduceat(terms, offsets, axis=1), 0.0)


def binned(
    codes: Array, factors: Array, bins: int, binning: Binning
) -> tuple[Floats, Floats, Ints]:
    """Mutual information ``(D, K)``, entropies ``(K,)`` and the factors that vary."""
    z = as_codes(codes)
    y = as_factors(factors, z)
    kept = varying(y)
    labels, sizes = relabel(y[:, kept])
    bins = number("bins", bins, 2)
    cells = discretize(z, bins, binning)
    return mutual_information(cells, bins, labels, sizes), entropies(labels, sizes), kept

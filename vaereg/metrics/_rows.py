"""Rows for post-hoc estimates: read, checked, split and scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.metrics._networks import squash

__all__ = ["Array", "are_labels", "check_count", "group_ids", "labels", "rows", "scaled", "splits"]

MINIMUM = 50
Array = Any  # a Tensor or anything that numpy.asarray takes


def _numpy(name: str, value: Array) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()  # numpy has no bfloat16
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{name}: expected rows along dim 0, got a scalar")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got nan or inf")
    return array


def rows(name: str, value: Array, *, labels: bool = False) -> NDArray[Any]:
    """Flattened rows in float64, ``(N, D)``."""
    array = _numpy(name, value)
    if labels and array.ndim == 1 and array.dtype.kind in "iu" and len(np.unique(array)) > 2:
        raise ValueError(
            f"{name}: expected one-hot labels or real numbers for this method, got integers "
            f"{tuple(array.shape)}; one-hot them, or convert to float where they are ordinal"
        )
    flat = array.reshape(len(array), -1).astype(np.float64)
    if flat.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one column, got shape {array.shape}")
    return flat


def are_labels(value: Array) -> bool:
    """Whether values are integers or booleans, ``(N,)`` or ``(N, 1)``."""
    if isinstance(value, Tensor):
        kind = not value.is_floating_point() and not value.is_complex()
        return kind and (value.ndim == 1 or value.shape[1:] == (1,))
    array = np.asarray(value)
    return array.dtype.kind in "iub" and (array.ndim == 1 or array.shape[1:] == (1,))


def labels(value: Array, classes: int | None) -> tuple[NDArray[Any], int]:
    """Integer labels with -1 for missing, and the number of classes."""
    array = _numpy("b", value)
    flat: NDArray[Any] = array.reshape(len(array)) if are_labels(array) else array
    if flat.ndim == 2:
        if not np.isin(flat, (0, 1)).all() or (flat.sum(1) > 1).any():
            raise ValueError("b: expected one-hot rows (or zeros for a missing label), got others")
        if classes is not None and classes != flat.shape[1]:
            raise ValueError(f"b: expected {classes} columns (classes), got {flat.shape[1]}")
        return np.where(flat.any(1), flat.argmax(1), -1).astype(np.int64), flat.shape[1]
    if flat.ndim != 1 or flat.dtype.kind == "f":
        raise ValueError(
            "b: expected integer labels (N,) or one-hot labels (N, C) for method 'classifier', "
            f"got shape {flat.shape} of {flat.dtype}"
        )
    y = flat.astype(np.int64)
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    count = high + 1 if classes is None else classes
    if low < -1 or high >= count:
        raise ValueError(f"b: expected labels in 0..{count - 1} (-1 = missing), got {low}..{high}")
    return y, max(count, 1)


def check_count(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"b: expected as many rows as a, {a}, got {b}")


def group_ids(groups: Array | None, n: int) -> NDArray[np.int64]:
    """Numbers 0, 1, ... of the groups that rows belong to; without groups each row is its own."""
    if groups is None:
        return np.arange(n)
    array = _numpy("groups", groups)
    if array.shape != (n,):
        raise ValueError(f"groups: expected one id a row, shape ({n},), got {array.shape}")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def splits(
    ids: NDArray[np.int64], fractions: Sequence[float], runs: int, seed: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Row numbers of the three parts for each run; groups are never parted.

    Consecutive runs rotate one permutation, so that their held-out parts are disjoint for as long
    as that is possible: the mean over runs then reads (nearly) every row once.
    """
    n = int(ids.max()) + 1 if len(ids) else 0
    if n < MINIMUM:
        what = "(labelled) rows" if n == len(ids) else "groups of rows"
        raise ValueError(f"a: expected at least {MINIMUM} {what}, got {n}")
    train, stop = int(n * fractions[0]), int(n * fractions[1])
    sizes = train, stop, n - train - stop
    if min(sizes) < 8:
        raise ValueError(f"split: expected at least 8 rows in each part, got {sizes}")
    by_group = np.argsort(ids, kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(ids, minlength=n))))
    folds = n // sizes[2]
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    order = np.arange(n)
    for run in range(runs):
        if run % folds == 0:
            draw = torch.Generator().manual_seed((seed * 1_000_003 + run) % 2**63)
            order = torch.randperm(n, generator=draw).numpy()
        turned = np.roll(order, -sizes[2] * (run % folds))
        first, second, third = (
            torch.from_numpy(np.concatenate([by_group[starts[g] : starts[g + 1]] for g in part]))
            for part in np.split(turned, [train, train + stop])
        )
        parts.append((first, second, third))
    return parts


def scaled(x: NDArray[Any], rows: Sequence[Tensor], rank_transform: bool) -> list[Tensor]:
    """The three parts in float32, scaled by statistics of the first."""
    train = x[rows[0].numpy()]
    if rank_transform:
        columns = [_normal_scores(train[:, k], x[:, k]) for k in range(x.shape[1])]
        x = np.stack(columns, 1)
        train = x[rows[0].numpy()]
    with np.errstate(over="ignore", invalid="ignore"):
        top = np.maximum(np.abs(train).max(0), np.finfo(np.float64).tiny)
        x, train = x / top, train / top  # a square must not overflow
    mean, std = train.mean(0), train.std(0)
    constant = std <= 1e-12 * np.abs(mean)
    z = (x - mean) / np.where(constant, 1.0, np.where(std > 0.0, std, 1.0))
    z[:, constant] = 0.0
    return [squash(torch.from_numpy(z[r.numpy()])).float() for r in rows]


def _normal_scores(train: NDArray[Any], column: NDArray[Any]) -> NDArray[Any]:
    """Normal scores of midranks among the train rows, interpolated for the others."""
    values, counts = np.unique(train, return_counts=True)
    midranks = (np.cumsum(counts) - 0.5 * counts) / len(train)
    normal = math.sqrt(2.0) * torch.erfinv(torch.from_numpy(2.0 * midranks - 1.0))
    return np.interp(column, values, normal.numpy())

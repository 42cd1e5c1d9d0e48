"""Codes and factors as arrays: read, checked, held out; what all scores share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaereg.metrics.disentanglement._checks import number, shown

__all__ = [
    "Array", "Floats", "Ints", "Split", "as_codes", "as_factors", "bar", "columns", "gaps",
    "held_out", "integer", "numbered", "numbers", "pair", "ranks", "relabel", "sklearn",
    "standardized", "varying",
]  # fmt: skip

Array = Any  # a Tensor or anything that numpy.asarray takes
Floats = NDArray[Any]  # float32 or float64
Ints = NDArray[Any]  # int64

_LARGE = 1e30
_NUMBERING = "number the values of each factor (numpy.unique with return_inverse=True)"


def numbers(name: str, value: Array, hint: str = "") -> NDArray[Any]:
    """Real numbers of any shape."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype in (torch.bfloat16, torch.float16):
            value = value.float()
    try:
        given = array = np.asarray(value)
        # Tables of mixed columns come as objects that are plain numbers.
        if given.dtype.kind == "O":
            array = np.asarray(given.tolist())
    except ValueError as error:
        raise ValueError(f"{name}: expected rows of equal lengths, got others") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {given.dtype}{hint}")
    return array


def _read(name: str, value: Array, axes: str, hint: str = "") -> NDArray[Any]:
    array = numbers(name, value, hint)
    if array.shape[:1] == (0,):
        raise ValueError(f"{name}: expected at least one row, got shape {array.shape}")
    if array.ndim != 2:
        column = f"; {name}[:, None] makes one column" if array.ndim == 1 else ""
        raise ValueError(
            f"{name}: expected rows and columns, {axes}, got shape {array.shape}{column}"
        )
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one column, got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise ValueError(f"{name}: expected finite values, got nan or inf (first in row {row})")
    return array


def as_codes(value: Array, name: str = "codes") -> Floats:
    """Finite codes ``(n, D)`` in float32 or float64."""
    array = _read(name, value, "(n, D)")
    if array.dtype.kind == "f":
        _check_size(name, array)
    if array.dtype.kind == "f" and array.dtype.itemsize in (4, 8):
        return array
    half = array.dtype.kind == "f" and array.dtype.itemsize == 2
    return array.astype(np.float32 if half else np.float64)


def _check_size(name: str, array: NDArray[Any]) -> None:
    """Squares, ranges and products of codes must stay inside of the numbers that there are."""
    most = np.abs(array).max(0)
    wrong = (most > _LARGE) | ((most < 1.0 / _LARGE) & (most > 0.0))
    if wrong.any():
        column = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{name}: expected columns of values up to {1 / _LARGE:g} at least and {_LARGE:g} at "
            f"most, or of zeros, got {float(most[column]):g} in column {column}; scale the codes"
        )


def as_factors(
    value: Array, codes: Floats, name: str = "factors", *, real: bool = False
) -> NDArray[Any]:
    """Factor values ``(n, K)`` of these codes: int64, or float64 where real values make sense."""
    array = _read(name, value, "(n, K)", f"; {_NUMBERING}")
    if len(array) != len(codes):
        raise ValueError(
            f"{name}: expected as many rows as codes ({len(codes)}), got {len(array)}"
        )
    if real:
        return array.astype(np.float64)
    if array.dtype.kind == "f" and (array != np.round(array)).any():
        whole = (codes == np.round(codes)).all()
        swapped = "; are codes and factors swapped?" if whole else ""
        raise TypeError(f"{name}: expected integer values, got real ones; {_NUMBERING}{swapped}")
    if array.dtype.kind in "fu" and float(np.abs(array).max()) >= 2.0**63:
        raise ValueError(
            f"{name}: expected values that int64 holds, got larger ones; {_NUMBERING}"
        )
    return array.astype(np.int64)


def varying(factors: NDArray[Any]) -> Ints:
    """The columns that take more than one value."""
    kept = np.flatnonzero(factors.min(0) != factors.max(0)).astype(np.int64)
    if not len(kept):
        raise ValueError(
            "factors: expected at least one factor with more than one value, got none among "
            f"{factors.shape[1]}"
        )
    return kept


def columns(x: NDArray[Any]) -> list[NDArray[Any]]:
    return [x[:, d] for d in range(x.shape[1])]


def numbered(factors: Ints) -> tuple[Ints, tuple[Ints, ...]]:
    """Each column's values as 0, 1, ..., and the values that these stand for."""
    labels, values = np.empty_like(factors), list[Ints]()
    for k, column in enumerate(columns(factors)):
        found, labels[:, k] = np.unique(column, return_inverse=True)
        values.append(found)
    return labels, tuple(values)


def relabel(factors: Ints) -> tuple[Ints, tuple[int, ...]]:
    """Each column's values as 0, 1, ..., and how many there are."""
    labels, values = numbered(factors)
    return labels, tuple(map(len, values))


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to fit on, rows to score on, and which factors vary."""

    codes: Floats
    factors: NDArray[Any]
    test_codes: Floats
    test_factors: NDArray[Any]
    kept: Ints


def held_out(
    codes: Array,
    factors: Array,
    test: tuple[Array, Array] | None,
    sizes: tuple[int, int],
    rng: np.random.Generator,
    *,
    real: bool = False,
) -> Split:
    """The given test rows; or disjoint random rows, at most as many as ``sizes`` says."""
    z = as_codes(codes)
    y = as_factors(factors, z, real=real)
    kept = varying(y)
    y = y[:, kept]
    if test is not None:
        test_z, test_y = pair(test, z.shape[1], real=real)
        if test_y.shape[1] <= kept.max():
            raise ValueError(
                f"test: expected the columns of factors, got {test_y.shape[1]} of them"
            )
        return Split(z, y, test_z, test_y[:, kept], kept)
    train, rest = number("train_rows", sizes[0]), number("test_rows", sizes[1])
    if len(z) < 3:
        raise ValueError(f"codes: expected at least 3 rows to hold some out, got {len(z)}")
    if len(z) < train + rest:
        rest = max(1, len(z) * rest // (train + rest))
        train = len(z) - rest
    order = rng.permutation(len(z))
    fit, score = order[:train], order[train : train + rest]
    return Split(z[fit], y[fit], z[score], y[score], kept)


def pair(test: Any, width: int, *, real: bool = False) -> tuple[Floats, NDArray[Any]]:
    """Test codes and factors, checked against the width of the codes."""
    match test:  # an array, even of two rows, is no pair
        case (codes, factors):
            z = as_codes(codes, "test[0]")
        case _:
            raise TypeError(f"test: expected a pair of codes and factors, got {shown(test)}")
    if z.shape[1] != width:
        raise ValueError(f"test: expected codes (n, {width}), got {z.shape}")
    return z, as_factors(factors, z, "test[1]", real=real)


def standardized(codes: Floats, *others: Floats) -> tuple[Floats, ...]:
    """Mean 0 and standard deviation 1 in ``codes``, the same map for the others; dead codes 0."""
    z = codes.astype(np.float64)
    mean, scale = z.mean(0), z.std(0)
    scale[codes.min(0) == codes.max(0)] = np.inf
    return tuple((x.astype(np.float64) - mean) / scale for x in (codes, *others))


def gaps(matrix: Floats) -> Floats:
    """Largest less second largest entry of each column; a missing second counts as 0."""
    ordered = np.sort(matrix, 0)
    return ordered[-1] - ordered[-2] if len(ordered) > 1 else ordered[-1]


def ranks(x: Floats) -> Floats:
    """Ranks 1..n of each column, ties by their mean."""
    found = np.empty(x.shape)
    for d, column in enumerate(columns(x)):
        _, where, counts = np.unique(column, return_inverse=True, return_counts=True)
        found[:, d] = (np.cumsum(counts) - 0.5 * (counts - 1))[where]
    return found


def integer(rng: np.random.Generator) -> int:
    """A seed for code that takes integers."""
    return int(rng.integers(2**31 - 1))


def sklearn(module: str) -> Any:
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            "this measurement needs scikit-learn: pip install scikit-learn"
        ) from error


def bar(steps: Iterable[Any], what: str, progress: bool) -> Iterable[Any]:
    if not progress:
        return steps
    try:
        return import_module("tqdm").tqdm(steps, desc=what)
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error

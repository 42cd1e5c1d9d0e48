"""Codes of images looked up by the values of their factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    as_codes,
    as_factors,
    columns,
    numbered,
    numbers,
)
from vaereg.metrics.disentanglement._checks import integers, shown

__all__ = ["FactorTable"]

_HINT = "; FactorTable.of(codes, factors) takes the factors"


@dataclass(frozen=True, eq=False)
class FactorTable:
    """The codes of a dataset, each computed once, looked up by the values of the factors.

    ``FactorTable(codes, sizes)`` takes the codes of every combination of factor values in
    row-major order (the last factor changes fastest), as dSprites, Shapes3D and others are
    stored. For anything else there is :meth:`of`.

    Attributes:
        codes: ``(n, D)``.
        sizes: Number of values of each factor, ``(K,)``.
        labels: Values 0, 1, ... of each row, ``(n, K)``, where rows are not the complete grid in
            order; else None.
        values: What these numbers stand for in the factors given to :meth:`of`, by factor; else
            None.

    Raises:
        ValueError: If there are not as many codes as combinations, or one is not finite.
        TypeError: If sizes are not integers.

    Example:
        >>> table = FactorTable(np.arange(12.0).reshape(6, 2), sizes=(2, 3))
        >>> table.lookup([[1, 0], [0, 2]]).tolist()
        [[6.0, 7.0], [4.0, 5.0]]
    """

    codes: Floats
    sizes: tuple[int, ...]
    labels: Ints | None = None
    values: tuple[Ints, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", as_codes(self.codes))
        what = "how many values each factor has, such as (3, 4)"
        sizes = integers("sizes", self.sizes, what, _HINT)
        object.__setattr__(self, "sizes", sizes)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes: expected at least 1 each, got {shown(sizes)}{_HINT}")
        if self.labels is None and len(self.codes) != prod(sizes):
            raise ValueError(
                f"codes: expected one row for each combination of sizes {shown(sizes)}, "
                f"{prod(sizes)} in all, got {len(self.codes)}; FactorTable.of takes others"
            )
        if self.labels is not None:
            object.__setattr__(self, "labels", self._numbers(self.labels))

    def _numbers(self, given: Array) -> Ints:
        """Labels as an array, checked: rows are counted and drawn by them."""
        shape = (len(self.codes), len(self.sizes))
        if (got := numbers("labels", given).shape) != shape:
            raise ValueError(f"labels: expected {shape}, got {got}")
        labels = as_factors(given, self.codes, "labels")
        wrong = (labels < 0) | (labels >= np.array(self.sizes))
        if wrong.any():
            row, k = np.argwhere(wrong)[0]
            raise ValueError(
                f"labels: expected values from 0 to {self.sizes[k] - 1} of factor {k}, got "
                f"{labels[row, k]} in row {row}{_HINT}"
            )
        return labels

    @classmethod
    def of(cls, codes: Array, factors: Array) -> FactorTable:
        """A table of rows in any order, with combinations missing or repeated.

        Where some are, rows with a given value are drawn from those that there are: then factors
        that go together in the rows also do in every score.

        Args:
            codes: ``(n, D)``.
            factors: Integer values of the factors, ``(n, K)``; numbered by their order.

        Returns:
            A table; that of the complete grid where each combination is there once.

        Raises:
            ValueError: If shapes differ, or a code is not finite.
            TypeError: If factors are not integers.

        Example:
            >>> FactorTable.of([[1.0], [3.0], [2.0], [4.0]], [[7, 0], [9, 0], [7, 5], [9, 5]])
            FactorTable(4 codes of width 1, sizes (2, 2))
        """
        z = as_codes(codes)
        labels, values = numbered(as_factors(factors, z))
        sizes = tuple(map(len, values))
        if len(z) == prod(sizes):
            place = np.ravel_multi_index(tuple(columns(labels)), sizes)
            if (np.bincount(place, minlength=len(z)) == 1).all():
                return cls(z[np.argsort(place)], sizes, None, values)
        return cls(z, sizes, labels, values)

    def __repr__(self) -> str:
        kind = "" if self.labels is None else ", not a complete grid"
        return (
            f"FactorTable({len(self.codes)} codes of width {self.codes.shape[1]}, sizes "
            f"{self.sizes}{kind})"
        )

    @property
    def varying(self) -> Ints:
        """The factors with more than one value."""
        kept = np.flatnonzero(np.array(self.sizes) > 1).astype(np.int64)
        if not len(kept):
            raise ValueError(
                f"table: expected a factor with more than one value, got sizes {self.sizes}"
            )
        return kept

    def lookup(self, values: Array) -> Floats:
        """Codes ``(*, D)`` of combinations ``(*, K)``.

        Raises:
            ValueError: If a value is out of range, or the table is not a complete grid.
        """
        index = np.asarray(values)
        if self.labels is not None:
            raise ValueError(
                "lookup: expected a table of the complete grid, got an incomplete one"
            )
        if index.shape[-1:] != (len(self.sizes),) or index.dtype.kind not in "iu":
            raise ValueError(
                f"values: expected integers (*, {len(self.sizes)}), got {index.shape} of "
                f"{index.dtype}"
            )
        if ((index < 0) | (index >= np.array(self.sizes))).any():
            raise ValueError(f"values: expected values below sizes {self.sizes}, got others")
        return self.codes[np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), self.sizes)]

    def draw(self, fixed: Ints, size: int, rng: np.random.Generator) -> Ints:
        """Rows ``(V, size)`` at random, of which line i shares a value of factor ``fixed[i]``."""
        if self.labels is None:
            rows = rng.integers(len(self.codes), size=(len(fixed), size))
            sizes = np.array(self.sizes)
            stride = (np.cumprod(sizes[::-1])[::-1] // sizes)[fixed, None]
            value = rows // stride % sizes[fixed, None]
            return rows + (value[:, :1] - value) * stride
        order, start, count = self._groups
        first = rng.integers(len(self.codes), size=len(fixed))
        value = self.labels[first, fixed]
        members = count[fixed, value][:, None]
        place = (rng.random((len(fixed), size - 1)) * members).astype(np.int64)
        rest = order[fixed[:, None], start[fixed, value][:, None] + place]
        return np.concatenate([first[:, None], rest], 1)

    @cached_property
    def _groups(self) -> tuple[Ints, Ints, Ints]:
        """Rows sorted by each factor ``(K, n)``, and where each value's begin and how many."""
        assert self.labels is not None
        widest = max(self.sizes)
        count = np.stack(
            [np.bincount(column, minlength=widest) for column in columns(self.labels)]
        )
        for k, size in enumerate(self.sizes):
            if 1 in count[k, :size]:
                alone = np.flatnonzero(count[k] == 1)[0]
                value = alone if self.values is None else self.values[k][alone]
                raise ValueError(
                    f"table: expected at least 2 rows with each value of factor {k}, got 1 with "
                    f"value {value}"
                )
        start = np.cumsum(count, 1) - count
        order = np.argsort(self.labels, 0, kind="stable")
        return np.ascontiguousarray(np.transpose(order)), start, count

"""Pictures with binary attributes, and how their rows are named, checked, balanced and split."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import SIZE

PARTS = ("train", "val", "test")
FRACTIONS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class AttributeImages:
    """Pictures with binary attributes and a split into train, val and test.

    Raises:
        ValueError: if shapes, dtypes, values or split indices do not fit, or if an attribute
            has the same value in every row.
    """

    images: NDArray[np.uint8]  # (N, 64, 64, 3), an array or a memory map
    attributes: NDArray[np.int8]  # (N, k) in {0, 1}
    attribute_names: tuple[str, ...]  # k names
    split: dict[str, NDArray[np.int64]]  # rows of 'train', 'val' and 'test'
    source: str

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.shape != (n, SIZE, SIZE, 3):
            raise ValueError(
                f"expected images uint8 of shape (N, {SIZE}, {SIZE}, 3), "
                f"got {self.images.dtype} of shape {self.images.shape}"
            )
        if self.attributes.shape != (n, len(self.attribute_names)):
            raise ValueError(
                f"expected attributes of shape {(n, len(self.attribute_names))} for {n} images "
                f"and the names {self.attribute_names}, got {self.attributes.shape}"
            )
        for name, column in zip(self.attribute_names, self.attributes.T, strict=True):
            values = np.unique(column)
            if values.tolist() != [0, 1]:
                raise ValueError(
                    f"expected attribute {name!r} to take both values 0 and 1, "
                    f"got {values.tolist()} in all {n} rows"
                )
        if set(self.split) != set(PARTS):
            raise ValueError(f"expected a split into {PARTS}, got {tuple(self.split)}")
        for part, rows in self.split.items():
            if len(rows) == 0:
                raise ValueError(f"expected at least one row in split {part!r}, got 0 of {n}")
            if rows.min() < 0 or rows.max() >= n:
                raise ValueError(
                    f"expected rows 0 to {n - 1} in split {part!r}, "
                    f"got {rows.min()} to {rows.max()}"
                )

    def __len__(self) -> int:
        return len(self.images)


def pick_names(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the columns of the wanted names.

    Raises:
        ValueError: if none is wanted, one is wanted twice, or one is not known.
    """
    if isinstance(wanted, str) or not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"expected a sequence of different attribute names, got {wanted!r}")
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"expected attributes among {', '.join(known)}, got {name!r}{hint}")
    return [list(known).index(name) for name in wanted]


def as_binary(table: np.ndarray, names: Sequence[str]) -> NDArray[np.int8]:
    """Map labels (N, k) from {0, 1} or {-1, 1} to int8 in {0, 1}.

    Raises:
        ValueError: if a column has other values.
    """
    for name, column in zip(names, table.T, strict=True):
        values = np.unique(column)
        if not (np.isin(values, (0, 1)).all() or np.isin(values, (-1, 1)).all()):
            shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
            raise ValueError(f"expected {name!r} in {{0, 1}} or {{-1, 1}}, got values {shown}")
    return (table == 1).astype(np.int8)


def random_split(
    n: int, fractions: Sequence[float], seed: int, *, sequential: bool = False
) -> dict[str, NDArray[np.int64]]:
    """Split rows 0 to n - 1 into sorted index arrays, at random or in order.

    Raises:
        ValueError: if the fractions are not three positive shares of 1.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"expected three positive fractions for {PARTS} that sum to 1, got {fractions}"
        )
    order = np.arange(n)
    if not sequential:
        # The stream differs from the pictures' own, which start from the same seed.
        order = np.random.default_rng([seed, 1]).permutation(n)
    cuts = np.rint(np.cumsum(fractions[:2]) * n).astype(int)
    return {part: np.sort(rows) for part, rows in zip(PARTS, np.split(order, cuts), strict=True)}


def balanced_rows(positive: NDArray[np.bool_], share: float, seed: int) -> NDArray[np.int64]:
    """Keep as many rows as leave the wanted share of positives, in their order.

    Raises:
        ValueError: if the share is not inside (0, 1) or a side has no rows.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected balance, a share of positives, in (0, 1), got {share}")
    yes, no = np.flatnonzero(positive), np.flatnonzero(~positive)
    if len(yes) == 0 or len(no) == 0:
        raise ValueError(
            f"expected positives and negatives to balance, got {len(yes)} and {len(no)}"
        )
    rng = np.random.default_rng([seed, 2])
    keep_no, keep_yes = round(len(yes) * (1 - share) / share), round(len(no) * share / (1 - share))
    if keep_no <= len(no):
        no = rng.choice(no, keep_no, replace=False)
    else:
        yes = rng.choice(yes, keep_yes, replace=False)
    return np.sort(np.concatenate([yes, no]))


def pillow():
    """Import PIL.Image.

    Raises:
        ImportError: with the command that installs it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            "expected pillow, to read or resize pictures; install it with: pip install pillow"
        ) from None
    return Image

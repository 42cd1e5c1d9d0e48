"""Codes as an audit takes them: batches, and rows of two variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

__all__ = ["Codes", "read_batches", "read_rows", "roles"]

Codes: TypeAlias = "Mapping[str, Any] | Iterable[Mapping[str, Any]]"


def read_batches(codes: Codes, batch_size: int, seed: int) -> list[Mapping[str, Any]]:
    """Batches for what a term displays; the rows of a mapping are shuffled."""
    if not isinstance(codes, (Mapping, Iterable)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            "codes: expected a mapping of names to rows, or an iterable of such batches, got "
            f"{type(codes).__name__}"
        )
    if not isinstance(codes, Mapping):
        batches = list(codes)
        for batch in batches:
            if not isinstance(batch, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(
                    "codes: expected a mapping of names to rows, or an iterable of such batches, "
                    f"got an iterable of {type(batch).__name__}"
                )
        if not batches:
            raise ValueError("codes: expected at least one batch, got none")
        return batches
    if not codes:
        raise ValueError("codes: expected named rows, got an empty mapping")
    tensors = _tensors(cast("Mapping[str, Any]", codes))
    if not tensors:
        raise TypeError("codes: expected tensors or codes by name, got none")
    sizes = {name: tuple(v.shape[:1]) for name, v in tensors.items()}
    if len(set(sizes.values())) > 1 or () in sizes.values():
        raise ValueError(f"codes: expected as many rows in each variable, got {sizes}")
    count = len(next(iter(tensors.values())))
    # Rows of a data set are often sorted, and a batch must look like one of training.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    parts: list[Tensor] = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:  # a lone row has no product pair
        parts[-2:] = [torch.cat(parts[-2:])]
    return [{n: v[p.to(v.device)] for n, v in tensors.items()} for p in parts]


def read_rows(
    codes: Codes, batches: list[Mapping[str, Any]], variables: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """All rows of two variables, flattened, in the order in which they were given."""
    given: Sequence[Mapping[str, Any]] = batches
    if isinstance(codes, Mapping):
        given = [_tensors(cast("Mapping[str, Any]", codes))]
    with torch.no_grad():
        a, b = (
            torch.cat([v.values(batch).flatten(1).cpu() for batch in given]) for v in variables[:2]
        )
    return a, b


def _tensors(codes: Mapping[str, Any]) -> dict[str, Tensor]:
    values: dict[str, Any] = {n: getattr(entry, "value", entry) for n, entry in codes.items()}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = torch.from_numpy(value)
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _label(x: Tensor) -> Tensor | None:
    """Integer labels of one-hot rows, or of a single column of zeros and ones; -1 = missing."""
    if not bool(((x == 0) | (x == 1)).all()):
        return None
    if x.shape[1] == 1:
        return x[:, 0].long()
    present = x.sum(1)
    if bool((present > 1).any()):
        return None
    return torch.where(present > 0, x.argmax(1), -1)


def roles(
    a: Tensor, b: Tensor, method: str, *, skip_missing: bool
) -> tuple[tuple[Tensor, Tensor], str]:
    """The two variables as :func:`estimate_mi` takes them, a label last, and its method.

    A missing label is left out only where the term leaves it out too: else both read it as one
    more value.
    """
    if method not in ("auto", "classifier", "best"):
        return (a, b), method
    how = "classifier" if method == "auto" else method
    for one, two in ((a, b), (b, a)):
        label = _label(two)
        if label is not None:
            if not skip_missing:
                label = torch.where(label < 0, label.max() + 1, label)
            return (one, label), how
    return (a, b), "mine" if method == "auto" else method

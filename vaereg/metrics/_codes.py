"""Codes as an audit takes them: batches, and rows of two variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

__all__ = ["Codes", "read_batches", "roles"]

Codes: TypeAlias = "Mapping[str, Any] | Iterable[Mapping[str, Any]]"


def read_batches(codes: Codes, batch_size: int, seed: int) -> list[Mapping[str, Any]]:
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
    values: dict[str, Any] = {
        n: getattr(entry, "value", entry) for n, entry in cast("Mapping[str, Any]", codes).items()
    }
    tensors = {n: v for n, v in values.items() if isinstance(v, Tensor)}
    if not tensors:
        raise TypeError("codes: expected tensors or codes by name, got none")
    count = min(len(v) for v in tensors.values())
    # Rows of a data set are often sorted, and a batch must look like one of training.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    parts = [p for p in torch.split(order, batch_size) if len(p) > 1 or count == 1]
    return [{n: v[p.to(v.device)] for n, v in tensors.items()} for p in parts]


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


def roles(a: Tensor, b: Tensor, method: str) -> tuple[tuple[Tensor, Tensor], str]:
    """The two variables as :func:`estimate_mi` takes them, a label last, and its method."""
    if method not in ("auto", "classifier", "best"):
        return (a, b), method
    how = "classifier" if method == "auto" else method
    for one, two in ((a, b), (b, a)):
        label = _label(two)
        if label is not None:
            return (one, label), how
    return (a, b), "mine" if method == "auto" else method

"""Codes as an audit takes them: batches, and rows of two variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from vaereg.functional.families import map_parameters

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
    entries = _entries(cast("Mapping[str, Any]", codes))
    if not entries:
        raise TypeError("codes: expected tensors or codes by name, got none")
    sizes = {name: tuple(_value(v).shape[:1]) for name, v in entries.items()}
    if len(set(sizes.values())) > 1 or () in sizes.values():
        raise ValueError(f"codes: expected as many rows in each variable, got {sizes}")
    count = len(_value(next(iter(entries.values()))))
    # Rows of a data set are often sorted, and a batch must look like one of training.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    parts: list[Tensor] = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:  # a lone row has no product pair
        parts[-2:] = [torch.cat(parts[-2:])]
    return [{name: _rows(entry, part) for name, entry in entries.items()} for part in parts]


def read_rows(
    codes: Codes, batches: list[Mapping[str, Any]], variables: Sequence[Any]
) -> tuple[Tensor, Tensor]:
    """All rows of two variables, flattened, in the order in which they were given."""
    given: Sequence[Mapping[str, Any]] = batches
    if isinstance(codes, Mapping):
        given = [_entries(cast("Mapping[str, Any]", codes))]
    with torch.no_grad():
        a, b = (
            torch.cat([v.values(batch).flatten(1).cpu() for batch in given]) for v in variables[:2]
        )
    return a, b


def _entries(codes: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors, and codes with their posteriors and priors; arrays as tensors."""
    values: dict[str, Any] = dict(codes)
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = torch.from_numpy(value)
    return {name: value for name, value in values.items() if isinstance(_value(value), Tensor)}


def _value(entry: Any) -> Any:
    return getattr(entry, "value", entry)


def _rows(entry: Any, rows: Tensor) -> Any:
    """Some rows of a tensor, or of a code with its posterior and prior."""
    if isinstance(entry, Tensor):
        return entry[rows.to(entry.device)]
    count = len(entry.value)

    def cut(parameter: Tensor) -> Tensor:
        # A prior that all rows share may have no rows of its own.
        own = parameter.ndim > 0 and len(parameter) == count
        return parameter[rows.to(parameter.device)] if own else parameter

    parts = {
        name: known if (known := getattr(entry, name, None)) is None or not known.batch_shape
        else map_parameters(known, cut)
        for name in ("q", "p")
    }  # fmt: skip
    return replace(entry, value=entry.value[rows.to(entry.value.device)], **parts)


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

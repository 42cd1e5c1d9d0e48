r"""Named variables: parsing, look-up in a batch, and checks that read no values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vaereg._names import Part, Spec, parse
from vaereg.codes import Batch, Code
from vaereg.functional.families import slice_event

__all__ = [
    "Variable",
    "check_finite",
    "check_one_hot",
    "check_varies",
    "check_width",
    "same_rows",
    "variables_text",
]


class Variable:
    r"""A variable of a term: a name ``"z"``, a part ``"z[:2]"``, or a joint ``("z", "c")``.

    Args:
        spec: The variable as the user wrote it.
        term: Name of the term that reads it, for error messages.
    """

    def __init__(self, spec: Spec, term: str) -> None:
        self.term = term
        self.parts = parse(spec, term)
        self.names = tuple(part.name for part in self.parts)
        self.texts = tuple(part.text for part in self.parts)
        self.text = spec if isinstance(spec, str) else "+".join(spec)

    def __repr__(self) -> str:
        return f"Variable({self.text!r})"

    def _entries(self, batch: Batch) -> list[tuple[Part, Code | Tensor]]:
        if not isinstance(batch, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{self.term}: expected batch to be a mapping of names to codes and tensors, got "
                f"{type(batch).__name__}"
            )
        for name in self.names:
            if name not in batch:
                near = difflib.get_close_matches(name, list(batch), n=1)
                raise ValueError(
                    f"{self.term}: expected variable {name!r} in the batch, got "
                    f"{sorted(batch)}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        return [(part, batch[part.name]) for part in self.parts]

    def values(self, batch: Batch) -> Tensor:
        """The variable as a floating-point tensor ``(B, *event)``; a joint is ``(B, D)``.

        Raises:
            TypeError: If an entry is neither a code nor a tensor.
            ValueError: If a name is missing, a tensor is not floating point or has no event
                dimension, or the entries differ in rows.
        """
        tensors: list[Tensor] = []
        for part, entry in self._entries(batch):
            name, index = part.name, part.index
            tensor = entry.value if isinstance(entry, Code) else entry
            if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(
                    f"{self.term}: expected variable {name!r} to be a Code or a tensor, got "
                    f"{type(tensor).__name__}"
                )
            if not tensor.is_floating_point():
                raise ValueError(
                    f"{self.term}: expected variable {name!r} to be floating point, got "
                    f"{tensor.dtype}; wrap class labels as vaereg.labels({name}, classes)"
                )
            if tensor.ndim < 2:
                raise ValueError(
                    f"{self.term}: expected variable {name!r} of shape (B, D, ...), got "
                    f"{tuple(tensor.shape)}"
                )
            part.check(self.term, tensor.shape[1])
            tensors.append(tensor if index is None else tensor[:, index])
        if len(tensors) == 1:
            return tensors[0]
        rows = {name: tensor.shape[0] for name, tensor in zip(self.names, tensors, strict=True)}
        if len(set(rows.values())) > 1:
            raise ValueError(f"{self.term}: expected as many rows in each variable, got {rows}")
        return torch.cat([tensor.flatten(1) for tensor in tensors], 1)

    def codes(self, batch: Batch, *, prior: bool = True) -> list[Code]:
        """The entries as codes with posterior and prior, parts sliced.

        Args:
            batch: The named variables.
            prior: Whether the prior is read; without it a code may have none, and gets none.

        Raises:
            TypeError: If an entry is a bare tensor, or lacks its posterior or prior, or is of a
                family whose coordinates have no marginal by slicing.
        """
        wanted = "a posterior and a prior" if prior else "a posterior"
        found: list[Code] = []
        for part, entry in self._entries(batch):
            name, index = part.name, part.index
            if not isinstance(entry, Code):
                raise TypeError(
                    f"{self.term}: expected variable {name!r} to be a Code with {wanted} (see "
                    f"vaereg.gaussian), got {type(entry).__name__}"
                )
            if not prior:
                # Checks and slices are of posterior and prior together: the first stands for both.
                entry = Code(entry.value, entry.q, entry.q)
            for which, distribution in (("posterior q", entry.q), ("prior p", entry.p)):
                if distribution is None:
                    raise TypeError(
                        f"{self.term}: expected code {name!r} with a {which}, got None"
                    )
            _check_rows(self.term, name, entry)
            if index is None:
                found.append(entry if prior else Code(entry.value, entry.q))
                continue
            part.check(self.term, entry.value.shape[1] if entry.value.ndim > 1 else 0)
            given = entry.p
            if given is not None and entry.q is not None and not given.batch_shape:
                # A prior shared by all rows has no batch dimension to keep while slicing.
                given = cast(Any, given).expand(entry.q.batch_shape)
            q, p = slice_event(entry.q, index), slice_event(given, index)
            if q is None or p is None:
                raise TypeError(
                    f"{self.term}: expected a factorised posterior and prior to take a part of "
                    f"{name!r}, got {entry.q} and {entry.p}"
                )
            found.append(Code(entry.value[:, index], q, p if prior else None))
        same_rows(self.term, **{n: c.value for n, c in zip(self.names, found, strict=True)})
        return found


def _check_rows(term: str, name: str, code: Code) -> None:
    """Raise unless posterior and prior have the value's rows; a prior may be of one row."""
    assert code.q is not None and code.p is not None
    rows, q, p = code.value.shape[:1], code.q, code.p
    posterior, prior = q.batch_shape + q.event_shape, p.batch_shape + p.event_shape
    if posterior == prior == code.value.shape:
        return
    try:
        joint = tuple(cast(Any, torch.broadcast_shapes(posterior, prior)))
        fits = joint == tuple(posterior) and posterior[:1] == rows
        if len(posterior) == code.value.ndim:
            fits = fits and posterior == code.value.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{term}: expected code {name!r} with a posterior and a prior of its value's rows, "
            f"{rows[0]}, got shapes {tuple(posterior)} and {tuple(prior)}"
        )


def variables_text(*specs: Spec) -> str:
    """The variables of a term as they stand in its default name: ``z``, ``c,y``, ``z+c,y``."""
    return ",".join(s if isinstance(s, str) else "+".join(map(str, s)) for s in specs)


def same_rows(term: str, /, **tensors: Tensor) -> None:
    """Raise unless all tensors have as many rows.

    Raises:
        ValueError: Naming each variable and its rows.
    """
    rows = {name: tensor.shape[0] for name, tensor in tensors.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"{term}: expected as many rows in each variable, got {rows}")


def check_width(term: str, widths: Sequence[tuple[str, int]], wanted: int | None) -> None:
    """Raise if a critic of known input width does not fit its variables.

    Args:
        term: Name of the term.
        widths: Name and numbers a row of each variable that the critic reads, concatenated.
        wanted: The critic's input width, ``None`` where unknown.

    Raises:
        ValueError: Naming each variable and its width.
    """
    total = sum(width for _, width in widths)
    if wanted is not None and wanted != total:
        got = " + ".join(f"{name!r} of {width}" for name, width in widths)
        got += f" = {total}" if len(widths) > 1 else ""
        raise ValueError(
            f"{term}: expected variables of {wanted} numbers a row, the critic's input width, "
            f"got {got}"
        )


def check_finite(term: str, name: str, entry: Code | Tensor) -> None:
    """Raise if a variable holds NaN or infinity. Reads values: a device transfer.

    Raises:
        ValueError: Naming the variable and the number of rows concerned.
    """
    tensor = entry.value if isinstance(entry, Code) else entry
    bad = ~torch.isfinite(tensor.detach()).flatten(1).all(1)
    if bool(bad.any()):
        rows = cast("list[int]", bad.nonzero().flatten().tolist())
        raise ValueError(
            f"{term}: expected finite values in variable {name!r}, got NaN or infinity in "
            f"{len(rows)} of {tensor.shape[0]} rows (first: row {rows[0]}); a label out of range "
            "becomes a row of NaN in vaereg.labels"
        )


def check_varies(term: str, name: str, tensor: Tensor) -> None:
    """Raise if all rows of a variable are equal. Reads values: a device transfer.

    Raises:
        ValueError: Naming the variable.
    """
    flat = tensor.detach().flatten(1)
    if flat.shape[0] < 2:
        raise ValueError(
            f"{term}: expected at least 2 rows of variable {name!r}, got {flat.shape[0]}"
        )
    if bool((flat == flat[:1]).all()):
        raise ValueError(
            f"{term}: expected variable {name!r} to vary over the batch, got {flat.shape[0]} "
            "equal rows (a batch of one class?)"
        )


def check_one_hot(term: str, name: str, y: Tensor) -> None:
    """Raise unless a label's rows sum to 1, or 0 where missing, and two classes are present at
    least. Reads values: a device transfer.

    Raises:
        ValueError: Naming the label and what is wrong with it.
    """
    y = y.detach()
    total = y.sum(1)
    sound = (y >= 0).all(1) & (((total - 1.0).abs() < 1e-4) | (total == 0))
    if not bool(sound.all()):
        raise ValueError(
            f"{term}: expected rows of label {name!r} that sum to 1 (or 0 where missing), got "
            f"{int((~sound).sum())} others; see vaereg.labels"
        )
    present = int((y.sum(0) > 0).sum())
    if present < 2:
        raise ValueError(
            f"{term}: expected at least two classes of label {name!r} in the batch, got {present} "
            f"among {int((total > 0).sum())} labelled rows"
        )

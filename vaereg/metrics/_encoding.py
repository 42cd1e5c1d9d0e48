"""Where the codes of a data set come from: a model, or codes that are there."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from vaereg._names import Part
from vaereg.metrics._posteriors import draw, family

__all__ = ["Batches", "check_observed", "device_of", "encode", "evaluating", "given"]

Batches: TypeAlias = tuple[list[Mapping[str, Any]], list[dict[str, Tensor]]]


def device_of(source: Any, x: Tensor) -> torch.device:
    """Where a model or the codes are, or else the data."""
    if isinstance(source, nn.Module):
        for p in source.parameters():
            return p.device
    codes = cast("Mapping[str, Any]", source) if isinstance(source, Mapping) else {"": source}
    for code in codes.values():
        value = getattr(code, "value", None)
        if isinstance(value, Tensor):
            return value.device
    return x.device


@contextmanager
def evaluating(model: object) -> Generator[None, None, None]:
    """A module in evaluation mode, and all its modules' modes as they were after it."""
    modes = {m: m.training for m in model.modules()} if isinstance(model, nn.Module) else {}
    try:
        if isinstance(model, nn.Module):
            model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_observed(model: Any, observed: Mapping[str, Any], rows: int) -> None:
    """Whether observed variables have as many rows as the data and are asked for by anything.

    Raises:
        ValueError: If one has not.
        TypeError: If one is asked for by nothing: most likely the name of an option, misspelt.
    """
    for name, value in observed.items():
        if isinstance(value, Tensor) and value.ndim and len(value) != rows:
            raise ValueError(f"{name}: expected as many rows as x, {rows}, got {len(value)}")
    known = getattr(model, "observed", None)
    if isinstance(known, frozenset):
        strange = sorted(set(observed) - cast("frozenset[str]", known) - {"step"})
        if strange:
            raise TypeError(
                f"{strange[0]}: expected an option, or a variable that the model asks for by "
                f"name, {sorted(cast('frozenset[str]', known))}, got neither"
            )


def encode(
    model: Any, x: Tensor, names: set[str], observed: Mapping[str, Any], size: int
) -> tuple[Batches, Tensor | None]:
    """Codes of all rows in batches, a draw of each, and what is decoded from the draws.

    Args:
        model: Anything with ``encode`` and perhaps ``decode``.
        x: The data.
        names: The codes that are kept.
        observed: Further inputs by name.
        size: Rows of a batch.
    """
    check_observed(model, observed, len(x))
    where = device_of(model, x)
    kept: list[Mapping[str, Any]] = []
    drawn: list[dict[str, Tensor]] = []
    decoded: list[Tensor] = []
    with evaluating(model):
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            inputs = {
                name: value[rows].to(where) if isinstance(value, Tensor) and value.ndim else value
                for name, value in observed.items()
            }
            codes: Any = model.encode(x[rows].to(where), **inputs)
            if not isinstance(codes, Mapping):
                raise TypeError(
                    f"source: expected encode to return codes by name, got {type(codes).__name__}"
                )
            named = cast("Mapping[str, Any]", codes)
            absent = sorted(names - set(named))
            if absent:
                raise ValueError(
                    f"code: expected a name among the model's codes, {sorted(named)}, got "
                    f"{absent[0]!r}"
                )
            values = {name: draw(code) for name, code in named.items()}
            kept.append({name: code for name, code in named.items() if name in names})
            drawn.append({name: value for name, value in values.items() if name in names})
            if callable(getattr(model, "decode", None)):
                decoded.append(_decoded(model.decode(values, **inputs), len(x[rows])).to(x.device))
    return (kept, drawn), torch.cat(decoded) if decoded else None


def _decoded(output: object, rows: int) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != rows:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"decoded: expected a tensor of shape ({rows}, *event), got {got}")
    if not bool(torch.isfinite(output).all()):
        raise ValueError("decoded: expected finite values, got nan or inf")
    return output.detach()


def given(
    source: Any, parts: Sequence[Part], x: Tensor, decoded: Tensor | None
) -> tuple[Batches, Tensor | None]:
    """Codes that are there, as one batch, and a draw of each: with ``decoded``, their values."""
    if not isinstance(source, Mapping):
        if not hasattr(source, "q") or not hasattr(source, "value"):
            raise TypeError(
                "source: expected a model with encode, a Code or codes by name, got "
                f"{type(source).__name__}"
            )
        source = {parts[0].name: source}
    codes = cast("Mapping[str, Any]", source)
    values: dict[str, Tensor] = {}
    for name in (part.name for part in parts if part.name in codes):
        code = codes[name]
        value: Any = getattr(code, "value", None)
        if not isinstance(value, Tensor) or not hasattr(code, "q"):
            raise TypeError(f"source: expected {name!r} to be a Code, got {type(code).__name__}")
        if len(value) != len(x):
            raise ValueError(
                f"source: expected {name!r} of as many rows as x, {len(x)}, got {len(value)}"
            )
        values[name] = draw(code)
        if decoded is None:
            continue
        known = family(code.q, value.shape)
        if known is not None and known.discrete:
            hot = ((value == 0) | (value == 1)).all() & (value.sum(-1) == 1).all()
            if not bool(hot):
                raise ValueError(
                    f"decoded: expected one-hot values of {name!r} (hard=True), got relaxed ones, "
                    "which carry more than the code's entropy"
                )
        values[name] = value.detach()
    if decoded is not None:
        decoded = _decoded(decoded, len(x))
    return ([codes], [values]), decoded

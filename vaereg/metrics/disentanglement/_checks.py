"""Arguments that are not arrays: checked under their names, before anything is drawn or fitted."""

from __future__ import annotations

import operator
import reprlib
from typing import Any

import numpy as np

__all__ = ["Seed", "factory", "generator", "integers", "number", "positive", "shown"]

Seed = int | np.random.Generator
_FLOATS = (float, np.floating)


def shown(value: Any) -> str:
    """A value in an error: arrays by their shape, long ones cut."""
    shape = tuple(getattr(value, "shape", ()))
    return f"{type(value).__name__} of shape {shape}" if shape else reprlib.repr(value)


def number(name: str, value: Any, least: int = 1, *, floats: bool = False) -> int:
    """An integer, at least so large; with ``floats`` also one written as 10.0 or 1e4.

    Go on with the result, not the argument: those of numpy and torch overflow, some silently.
    """
    try:
        found = _whole(value) if floats else operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {shown(value)}") from None
    if found < least:
        raise ValueError(f"{name}: expected at least {least}, got {found}")
    return found


def _whole(value: object) -> int:
    plain: Any = value  # narrowed, it would be no index
    if isinstance(value, _FLOATS) and float(plain).is_integer():
        return int(plain)
    return operator.index(plain)


def integers(name: str, values: Any, what: str, hint: str = "") -> tuple[int, ...]:
    """Several integers, or whole floats; ``what`` they are and a ``hint`` are for the error."""
    try:
        # A tensor's rows of one entry would pass for integers.
        if getattr(values, "ndim", 1) != 1:
            raise TypeError
        # As lists, entries of arrays and tensors are Python's numbers.
        plain = values.tolist() if hasattr(values, "tolist") else values
        return tuple(_whole(value) for value in plain)
    except TypeError:
        raise TypeError(f"{name}: expected {what}, got {shown(values)}{hint}") from None


def positive(name: str, value: float) -> None:
    try:
        wrong = not value > 0
    except TypeError:
        raise TypeError(f"{name}: expected a number above 0, got {shown(value)}") from None
    if wrong:
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def generator(seed: Seed) -> np.random.Generator:
    """Of an integer a new one; a generator is itself, and goes on."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"seed: expected an integer of at least 0 or a numpy generator, got {shown(seed)}"
        ) from error


def factory(name: str, value: Any) -> None:
    """What makes predictors, not one of them: each factor needs its own."""
    if not callable(value) or (hasattr(value, "fit") and not isinstance(value, type)):
        raise TypeError(
            f"{name}: expected a class or a function that makes a predictor, got an instance of "
            f"{type(value).__name__}"
        )

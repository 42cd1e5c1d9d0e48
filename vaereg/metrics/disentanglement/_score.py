"""A score: a number with the parts that it was made of."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Score"]


def _left(name: str) -> Callable[[Score, Any], Any]:
    operation: Callable[[Any, Any], Any] = getattr(operator, name)
    return lambda self, other: operation(float(self), other)


def _right(name: str) -> Callable[[Score, Any], Any]:
    operation: Callable[[Any, Any], Any] = getattr(operator, name)
    return lambda self, other: operation(other, float(self))


class Score:
    """A number with the parts that it was made of; ``float(score)`` is the number.

    Formats, ``round``, ``==``, ``<``, ``+``, ``-``, ``*``, ``/``, ``abs`` and numpy read it as
    that number, and give plain numbers: scores of equal numbers are equal, whatever their parts.
    """

    score: float

    def __float__(self) -> float:
        return float(self.score)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.score:.3f}"

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def __round__(self, digits: int | None = None) -> float:
        return round(float(self), digits)

    def __abs__(self) -> float:
        return abs(float(self))

    def __neg__(self) -> float:
        return -float(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("copy: expected True or None, for no array holds a score, got False")
        return np.asarray(float(self), dtype)

    def __hash__(self) -> int:
        return hash(float(self))

    __eq__, __ne__ = _left("eq"), _left("ne")
    __lt__, __le__ = _left("lt"), _left("le")
    __gt__, __ge__ = _left("gt"), _left("ge")
    __add__, __radd__ = _left("add"), _right("add")
    __sub__, __rsub__ = _left("sub"), _right("sub")
    __mul__, __rmul__ = _left("mul"), _right("mul")
    __truediv__, __rtruediv__ = _left("truediv"), _right("truediv")

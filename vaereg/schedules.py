r"""Schedules: plain functions of the step, for weights, capacities and temperatures.

A schedule is any callable ``step -> number``. The step is always an argument, never a hidden
counter. These accept an integer or a scalar tensor (under ``torch.compile``, a tensor step avoids
a recompilation a step), and can be pickled, as a model that is sent to other processes must.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Number",
    "Schedule",
    "constant",
    "cosine",
    "cyclical",
    "exponential",
    "join",
    "linear",
]

Number: TypeAlias = "float | Tensor"
Schedule: TypeAlias = Callable[["int | Tensor"], Number]


def _clip(x: Number, low: float, high: float) -> Number:
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


def _positive(name: str, what: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: expected {what} > 0, got {value}")


def constant(value: float) -> Schedule:
    r"""The schedule :math:`w(t) = v`.

    Args:
        value: :math:`v`.

    Example:
        >>> constant(2.0)(17)
        2.0
    """

    return partial(_constant, value)


def _constant(value: float, step: int | Tensor) -> Number:
    return value


def linear(start: float, end: float, *, steps: int) -> Schedule:
    r"""A straight line from ``start`` to ``end``, constant before and after.

    .. math:: w(t) = a + (b - a) \min(\max(t / n, 0), 1)

    Args:
        start: :math:`a`, the value at step 0.
        end: :math:`b`, the value at step ``steps`` and beyond.
        steps: :math:`n`, at least 1.

    Raises:
        ValueError: If ``steps`` is not positive.

    Example:
        >>> warmup = linear(0.0, 6.0, steps=100)
        >>> warmup(0), warmup(50), warmup(1000)
        (0.0, 3.0, 6.0)
    """
    _positive("linear", "steps", steps)

    return partial(_linear, start, end, steps)


def _linear(start: float, end: float, steps: int, step: int | Tensor) -> Number:
    return start + (end - start) * _clip(step / steps, 0.0, 1.0)


def cosine(start: float, end: float, *, steps: int) -> Schedule:
    r"""Half a cosine wave from ``start`` to ``end``, constant before and after.

    .. math:: w(t) = b + (a - b)\, \tfrac12 \big(1 + \cos(\pi \min(\max(t / n, 0), 1))\big)

    Args:
        start: :math:`a`, the value at step 0.
        end: :math:`b`, the value at step ``steps`` and beyond.
        steps: :math:`n`, at least 1.

    Raises:
        ValueError: If ``steps`` is not positive.

    Example:
        >>> cosine(1.0, 0.0, steps=100)(0), round(cosine(1.0, 0.0, steps=100)(50), 6)
        (1.0, 0.5)
    """
    _positive("cosine", "steps", steps)

    return partial(_cosine, start, end, steps)


def _cosine(start: float, end: float, steps: int, step: int | Tensor) -> Number:
    angle = math.pi * _clip(step / steps, 0.0, 1.0)
    wave = torch.cos(angle) if isinstance(angle, Tensor) else math.cos(angle)
    return end + (start - end) * 0.5 * (1.0 + wave)


def cyclical(start: float, end: float, *, period: int, rise: float = 0.5) -> Schedule:
    r"""Repeated linear rises, each followed by a plateau.

    In each cycle of ``period`` steps the value goes from ``start`` to ``end`` during the share
    ``rise`` of the cycle and stays at ``end`` for the rest.

    Args:
        start: Value at the start of each cycle.
        end: Value after the rise.
        period: Steps of one cycle, at least 1.
        rise: Share of the cycle that rises, in (0, 1].

    Raises:
        ValueError: If ``period`` is not positive or ``rise`` is outside of (0, 1].

    References:
        | Cyclical Annealing Schedule (Fu et al., 2019), eqs 6 and 7.
        | https://arxiv.org/abs/1903.10145

    Example:
        >>> beta = cyclical(0.0, 1.0, period=100)
        >>> beta(0), beta(25), beta(75), beta(100)
        (0.0, 0.5, 1.0, 0.0)
    """
    _positive("cyclical", "period", period)
    if not 0.0 < rise <= 1.0:
        raise ValueError(f"cyclical: expected rise in (0, 1], got {rise}")

    return partial(_cyclical, start, end, period, rise)


def _cyclical(start: float, end: float, period: int, rise: float, step: int | Tensor) -> Number:
    share = (step % period) / period
    return start + (end - start) * _clip(share / rise, 0.0, 1.0)


def exponential(start: float, end: float, *, rate: float) -> Schedule:
    r"""Exponential approach of ``end``, e.g. for a Gumbel-softmax temperature.

    .. math:: w(t) = b + (a - b) e^{-r t}

    Args:
        start: :math:`a`, the value at step 0.
        end: :math:`b`, the limit.
        rate: :math:`r > 0`, a step.

    Raises:
        ValueError: If ``rate`` is not positive.

    Example:
        >>> exponential(1.0, 0.3, rate=1e-3)(0), round(exponential(1.0, 0.3, rate=1e-3)(10**5), 6)
        (1.0, 0.3)
    """
    _positive("exponential", "rate", rate)

    return partial(_exponential, start, end, rate)


def _exponential(start: float, end: float, rate: float, step: int | Tensor) -> Number:
    decay = torch.exp(-rate * step) if isinstance(step, Tensor) else math.exp(-rate * step)
    return end + (start - end) * decay


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    r"""Schedules one after the other, each counting its own steps from 0.

    Schedule ``k`` is in force for ``boundaries[k - 1] <= t < boundaries[k]`` and is called with
    ``t - boundaries[k - 1]``.

    Args:
        schedules: One or more schedules.
        boundaries: The first step of each schedule but the first, increasing.

    Raises:
        ValueError: If the numbers do not fit or boundaries do not increase.

    Example:
        >>> weight = join([constant(0.0), linear(0.0, 1.0, steps=10)], [100])
        >>> weight(99), weight(100), weight(105)
        (0.0, 0.0, 0.5)
    """
    parts, marks = list(schedules), list(boundaries)
    if not parts or len(marks) != len(parts) - 1:
        raise ValueError(
            f"join: expected one boundary fewer than schedules, got {len(marks)} boundaries for "
            f"{len(parts)} schedules"
        )
    if any(b <= a for a, b in zip([0, *marks], marks, strict=False)):
        raise ValueError(f"join: expected increasing positive boundaries, got {marks}")

    return partial(_join, parts, marks)


def _join(parts: Sequence[Schedule], marks: Sequence[int], step: int | Tensor) -> Number:
    value = parts[0](step)
    for mark, part in zip(marks, parts[1:], strict=True):
        if isinstance(step, Tensor):
            # torch.where promotes: an integer part must not round its neighbour.
            later = torch.as_tensor(part(step - mark), device=step.device)
            value = torch.where(step >= mark, later, torch.as_tensor(value, device=step.device))
        elif step >= mark:
            value = part(step - mark)
    return value

r"""Leaks of known size, planted into codes that are there, for the power of a procedure.

The codes stay what they are: rows of ``a`` are kept, rows of ``b`` are drawn anew from the rows
that are there, so that the new ``b`` depends on one column of ``a`` and on nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["is_discrete", "plant", "plant_groups"]

Array = NDArray[Any]
# Fewer distinct rows than this share of all rows, and than this number, are a discrete variable.
_DISCRETE, _KINDS = 0.1, 64
_MOST = 0.9  # of the labels' entropy: beyond it the channel becomes a threshold
_BALANCE = 100  # steps of the iteration that keeps frequencies


def plant(
    a: Array, b: Array, size: float, generator: np.random.Generator
) -> tuple[Array, Array] | None:
    r"""Rows of the same codes between which exactly ``size`` nats are shared, or None.

    For a continuous ``b``, whole rows of ``b`` are reordered: with normal scores :math:`u` of one
    column of ``a`` and :math:`v = \rho u + \sqrt{1 - \rho^2}\, \varepsilon`, row ``i`` receives
    the row of ``b`` whose rank in one of its columns is the rank of :math:`v_i`. The two columns
    then have the copula of a Gaussian pair, the rest of ``a`` is independent of the new ``b``
    given its one column, and the rest of ``b`` is a function of its one column, so that
    :math:`I = -\tfrac12 \log(1 - \rho^2)`. For a discrete ``b`` (few distinct rows, of
    frequencies :math:`p_k`), a row is drawn from
    :math:`p(k \mid u) \propto p_k e^{s t_k u + c_k}` with :math:`c` such that the frequencies stay
    what they are, and :math:`I` is the mean of :math:`\mathrm{KL}(p(\cdot \mid u_i) \| \bar p)`
    over the rows, exactly; ``s`` is found by bisection. Where only ``a`` is discrete, the roles
    change.

    Columns are drawn among those with the fewest ties. Where even these have some, chance breaks
    them, and less than ``size`` is shared.

    Args:
        a: Rows ``(N, A)``.
        b: Rows ``(N, D)``, or integer labels ``(N,)``.
        size: In nats.
        generator: Draws the columns and the noise.

    Returns:
        The new rows, or None where so much cannot be planted (all rows equal, or labels of less
        entropy than ``size``).
    """
    table = b[:, None] if b.ndim == 1 else b
    if is_discrete(table):
        new = _through_labels(a, table, size, generator)
        return None if new is None else (a, new[:, 0] if b.ndim == 1 else new)
    if is_discrete(a):
        new = _through_labels(table, a, size, generator)
        return None if new is None else (new, b)
    i, j = _column(a, generator), _column(table, generator)
    if i is None or j is None:
        return None
    rho = math.sqrt(-math.expm1(-2.0 * size))
    u = _normal_scores(a[:, i], generator)
    v = rho * u + math.sqrt(1.0 - rho * rho) * generator.standard_normal(len(u))
    order = np.lexsort((generator.random(len(table)), table[:, j]))
    new = np.empty_like(table)
    new[np.argsort(v)] = table[order]
    return a, new


def plant_groups(
    a: Array, b: Array, ids: Array, size: float, generator: np.random.Generator
) -> tuple[Array, Array] | None:
    """As :func:`plant` where rows are several draws of one datum: a leak between data.

    The leak is planted into the mean of each group (the first row of a discrete variable), and the
    variable that is drawn anew is the same for the whole group, as a label is: a leak that were
    drawn for each row would be read from as many independent rows, and the power be too good. A
    single draw tells less than the mean of its group does, so that ``size`` is the most there is.
    """
    kinds, first = np.unique(ids, return_index=True)
    if len(kinds) == len(ids):
        return plant(a, b, size, generator)
    mean = _of_groups(a, ids, first)
    leak = plant(mean, _of_groups(b, ids, first), size, generator)
    if leak is None:
        return None
    return (a, leak[1][ids]) if leak[0] is mean else (leak[0][ids], b)


def _of_groups(x: Array, ids: Array, first: Array) -> Array:
    if x.ndim == 1 or is_discrete(x[first]):
        return x[first]
    total = np.zeros((len(first), x.shape[1]))
    np.add.at(total, ids, x)
    return total / np.bincount(ids)[:, None]


def is_discrete(x: Array) -> bool:
    """Whether rows take few distinct values."""
    return len(np.unique(x, axis=0)) <= max(2, min(_KINDS, _DISCRETE * len(x)))


def _column(x: Array, generator: np.random.Generator) -> int | None:
    """A column drawn among those that vary, and of these among those with the fewest ties."""
    distinct = np.array([len(np.unique(x[:, k])) for k in range(x.shape[1])])
    if distinct.max() < 2:
        return None
    return int(generator.choice(np.flatnonzero(distinct == distinct.max())))


def _log_softmax(x: Array) -> Array:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def _normal_scores(x: Array, generator: np.random.Generator) -> Array:
    """Normal scores of ranks; ties are broken by chance."""
    rank = np.empty(len(x))
    rank[np.lexsort((generator.random(len(x)), x))] = np.arange(len(x))
    level = torch.from_numpy(2.0 * (rank + 0.5) / len(x) - 1.0)
    return (math.sqrt(2.0) * torch.erfinv(level)).numpy()


def _through_labels(
    a: Array, table: Array, size: float, generator: np.random.Generator
) -> Array | None:
    """Rows of a discrete ``table`` drawn anew, given a column of ``a``."""
    column = _column(a, generator)
    kinds, counts = np.unique(table, axis=0, return_counts=True)
    if column is None or len(kinds) < 2:
        return None
    log_p = np.log(counts / counts.sum())
    if size > _MOST * -float((np.exp(log_p) * log_p).sum()):
        return None
    # A tie of the column that is broken by chance would tell less than it is counted for.
    u = a[:, column].astype(np.float64)
    u = (u - u.mean()) / u.std()
    u = np.clip(u, -5.0, 5.0)
    t = generator.permutation(np.linspace(-1.0, 1.0, len(kinds)))

    offsets = np.zeros(len(kinds))

    def channel(s: float) -> tuple[Array, float]:
        # Offsets for each kind keep its frequency: a leak into rare labels must leave them rare.
        nonlocal offsets
        tilt = log_p + s * u[:, None] * t
        log_q, log_mean = tilt, log_p
        for step in range(_BALANCE):
            log_q = _log_softmax(tilt + offsets)
            log_mean = np.log(np.maximum(np.exp(log_q).mean(0), np.finfo(np.float64).tiny))
            change = log_p - log_mean
            if np.abs(change).max() < 1e-3 or step == _BALANCE - 1:
                break
            offsets = offsets + change
        q = np.exp(log_q)
        return q, float((q * (log_q - log_mean)).sum(1).mean())

    low, high = 0.0, 1.0
    while channel(high)[1] < size:
        low, high = high, 2.0 * high
        if high > 1e3:
            return None
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if channel(middle)[1] < size else (low, middle)
    cumulative = channel(high)[0].cumsum(1)
    drawn = (generator.random((len(u), 1)) > cumulative).sum(1).clip(max=len(kinds) - 1)
    return kinds[drawn]

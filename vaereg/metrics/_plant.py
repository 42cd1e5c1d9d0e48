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
# Fewer distinct rows than this share of all rows are a discrete variable.
_DISCRETE = 0.1


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
    frequencies :math:`p_k`), a row is drawn from :math:`p(k \mid u) \propto p_k e^{s t_k u}`, and
    :math:`I` is the mean of :math:`\mathrm{KL}(p(\cdot \mid u_i) \| \bar p)` over the rows,
    exactly; ``s`` is found by bisection. Where only ``a`` is discrete, the roles change.

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

    The leak is planted into the first row of each group, and the variable that is drawn anew is
    the same for the whole group, as a label is: a leak that were drawn for each row would be read
    from as many independent rows, and the power be too good. Other rows of a group tell no more
    than their first, so that the size is the most that there is.
    """
    first = np.unique(ids, return_index=True)[1]
    leak = plant(a[first], b[first], size, generator)
    if leak is None or len(first) == len(ids):
        return leak
    kept = np.array_equal(leak[0], a[first])
    return (a, leak[1][ids]) if kept else (leak[0][ids], b)


def is_discrete(x: Array) -> bool:
    """Whether rows take few distinct values."""
    return len(np.unique(x, axis=0)) <= max(2, _DISCRETE * len(x))


def _column(x: Array, generator: np.random.Generator) -> int | None:
    """A column drawn among those that vary."""
    varying = np.flatnonzero((x != x[:1]).any(0))
    return int(generator.choice(varying)) if len(varying) else None


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
    # A tie of the column that is broken by chance would tell less than it is counted for.
    u = a[:, column].astype(np.float64)
    u = (u - u.mean()) / u.std()
    u = np.clip(u, -5.0, 5.0)
    t = generator.permutation(np.linspace(-1.0, 1.0, len(kinds)))

    def channel(s: float) -> tuple[Array, float]:
        logits = log_p + s * u[:, None] * t
        logits = logits - logits.max(1, keepdims=True)
        log_q = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        q = np.exp(log_q)
        mean = q.mean(0)
        log_mean = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
        return q, float((q * (log_q - log_mean)).sum(1).mean())

    low, high = 0.0, 1.0
    while channel(high)[1] < size:
        low, high = high, 2.0 * high
        if high > 1e4:
            return None
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if channel(middle)[1] < size else (low, middle)
    cumulative = channel(high)[0].cumsum(1)
    drawn = (generator.random((len(u), 1)) > cumulative).sum(1).clip(max=len(kinds) - 1)
    return kinds[drawn]

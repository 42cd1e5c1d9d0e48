r"""The interventional robustness score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    as_codes,
    as_factors,
    relabel,
    varying,
)
from vaereg.metrics.disentanglement._histogram import discretize
from vaereg.metrics.disentanglement._score import Score

__all__ = ["IRS", "irs"]


@dataclass(frozen=True, eq=False)
class IRS(Score):
    """An interventional robustness score and its parts.

    Attributes:
        score: Mean of ``per_code``, weighted by ``deviations``.
        per_code: Largest robustness of each code, ``(D,)``; 0 for dead codes.
        matrix: Robustness of each code when a factor is held fixed, ``(D, K)``.
        parents: The factor that each code belongs to, a column of the given factors, ``(D,)``;
            -1 for dead codes.
        deviations: Largest deviation of each code from its mean, ``(D,)``.
        active: Which codes vary, ``(D,)``.
        factors: Columns of the factors that vary, ``(K,)``.
    """

    score: float
    per_code: Floats
    matrix: Floats
    parents: Ints
    deviations: Floats
    active: NDArray[np.bool_]
    factors: Ints


def irs(
    codes: Array, factors: Array, *, quantile: float = 0.99, factor_bins: int | None = None
) -> IRS:
    r"""How little a code moves under all other factors while one is held fixed.

    .. math::
        \mathrm{IRS}_{dk} = 1 - \frac{\frac1{|v_k|} \sum_v Q_{n : v_k = v}
        \big| z_{nd} - \bar z_d^{(v)} \big|}{\max_n |z_{nd} - \bar z_d|},
        \qquad \mathrm{IRS} = \frac{\sum_d w_d \max_k \mathrm{IRS}_{dk}}{\sum_d w_d}

    where :math:`\bar z_d^{(v)}` is the mean over the rows with :math:`v_k = v`, :math:`Q` a
    quantile, and :math:`w_d = \max_n |z_{nd} - \bar z_d|`. Rows should be a complete grid, or
    drawn from one: confounded factors are not corrected for. A perfect code scores 1, also where
    it is held twice; a code that no factor of those given explains can come out below 0. Codes of
    a large range weigh more, so that the score changes when one code is scaled, though not when
    all are.

    Args:
        codes: ``(n, D)``.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out.
        quantile: Of the deviations within a group: 0.99 in the published code and all
            comparisons, 1 (the maximum) in the paper.
        factor_bins: Merge the values of each factor into this many bins of equal width first.
            The published code uses 20, and so merges values of larger factors, within which even
            a perfect code moves. Default: values as they are, which is the paper's definition,
            and the same for factors of at most 20 evenly spaced values.

    Returns:
        An :class:`IRS`. Dead codes are left out; without any live code the score is 0.

    Raises:
        ValueError: If shapes differ, a code is not finite, no factor varies, or ``quantile`` is
            not in [0, 1].
        TypeError: If factors are not integers.

    References:
        | Robustly Disentangled Causal Mechanisms (Suter et al., 2019), sections 4 and 5.
        | https://arxiv.org/abs/1811.00007

    Example:
        >>> factors = np.stack(np.meshgrid(range(4), range(5)), -1).reshape(-1, 2)
        >>> irs(factors, factors).score
        1.0
        >>> turned = factors @ np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> round(irs(turned, factors).score, 2)
        0.57
    """
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(f"quantile: expected a number in [0, 1], got {quantile}")
    z = as_codes(codes).astype(np.float64)
    y = as_factors(factors, z)
    kept = varying(y)
    y = y[:, kept]
    if factor_bins is not None:
        y = discretize(y.astype(np.float64), factor_bins, "uniform", "factor_bins")
    labels, sizes = relabel(y)
    active = z.min(0) != z.max(0)
    deviations = np.where(active, np.abs(z - z.mean(0)).max(0), 0.0)
    matrix = np.zeros((z.shape[1], len(kept)))
    for k, size in enumerate(sizes):
        order = np.argsort(labels[:, k], kind="stable")
        counts = np.bincount(labels[:, k], minlength=size)
        groups = np.split(z[order], np.cumsum(counts)[:-1])
        within = sum(_spread(group, quantile) for group in groups) / size
        matrix[:, k] = np.where(active, 1.0 - within / np.where(active, deviations, 1.0), 0.0)
    per_code = matrix.max(1)
    parents = np.where(active, kept[matrix.argmax(1)], -1)
    score = np.average(per_code, weights=deviations) if active.any() else 0.0
    return IRS(float(score), per_code, matrix, parents, deviations, active, kept)


def _spread(group: Floats, quantile: float) -> Floats:
    """Quantile of the deviations from the mean, ``(D,)``; exactly 0 for equal rows."""
    group = group - group[:1]
    return np.quantile(np.abs(group - group.mean(0)), quantile, axis=0)

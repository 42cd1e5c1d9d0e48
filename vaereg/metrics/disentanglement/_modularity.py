r"""Modularity of codes, and how explicitly they hold the factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    held_out,
    ranks,
    sklearn,
    standardized,
)
from vaereg.metrics.disentanglement._checks import Seed, factory, generator
from vaereg.metrics.disentanglement._histogram import Binning, binned
from vaereg.metrics.disentanglement._score import Score

__all__ = ["Explicitness", "Modularity", "explicitness", "modularity"]


@dataclass(frozen=True, eq=False)
class Modularity(Score):
    """A modularity and its parts.

    Attributes:
        score: Mean of ``per_code``.
        per_code: Modularity of each code, ``(D,)``; 0 where a code tells of no factor.
        mutual_information: Of each code with each factor that varies, in nats, ``(D, K)``.
        factors: Their columns, ``(K,)``.
    """

    score: float
    per_code: Floats
    mutual_information: Floats
    factors: Ints


def modularity(
    codes: Array,
    factors: Array,
    *,
    bins: int = 20,
    binning: Binning = "uniform",
    count_dead: bool = True,
) -> Modularity:
    r"""How far each code tells of one factor only.

    .. math::
        \frac1D \sum_i \Big( 1 - \frac{\sum_{k \ne k^{(i)}} I(z_i; v_k)^2}
        {(K - 1) \max_k I(z_i; v_k)^2} \Big), \qquad k^{(i)} = \arg\max_k I(z_i; v_k)

    with the mutual information of binned codes. It says nothing of how much a code tells, nor
    whether several codes tell the same: a code held twice is as modular as before. A perfect code
    on a complete grid scores 1, and with dead codes beside it the fraction of live ones, unless
    ``count_dead`` is unset. On random rows the bias of :math:`I` keeps it slightly below 1.

    Args:
        codes: ``(n, D)``.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out.
        bins: Bins for each code.
        binning: ``"uniform"`` in width (published), or ``"quantile"`` for as many rows in each.
        count_dead: Whether a code that tells of nothing counts, with 0, in the mean (as in the
            comparisons of Locatello et al.), or is left out.

    Returns:
        A :class:`Modularity`. With a single factor each code that tells of it scores 1. If no
        code tells of anything the score is 0.

    Raises:
        ValueError: If shapes differ, a code is not finite, or no factor varies.
        TypeError: If factors are not integers.

    References:
        | Learning Deep Disentangled Embeddings with the F-Statistic Loss (Ridgeway and Mozer,
        | 2018), section 3. https://arxiv.org/abs/1802.05312

    Example:
        >>> factors = np.stack(np.meshgrid(range(4), range(5)), -1).reshape(-1, 2)
        >>> codes = np.concatenate([factors, factors, np.zeros((20, 1))], 1)
        >>> found = modularity(codes, factors)
        >>> found.score, found.per_code.tolist()
        (0.8, [1.0, 1.0, 1.0, 1.0, 0.0])
    """
    information, _, kept = binned(codes, factors, bins, binning)
    squared = information**2
    largest = squared.max(1)
    alive = largest > 0
    rest = squared.sum(1) - largest
    others = max(1, squared.shape[1] - 1)
    per_code = np.where(alive, 1.0 - rest / (np.where(alive, largest, 1.0) * others), 0.0)
    counted = per_code if count_dead or not alive.any() else per_code[alive]
    return Modularity(float(counted.mean()), per_code, information, kept)


@dataclass(frozen=True, eq=False)
class Explicitness(Score):
    """An explicitness and its parts.

    Attributes:
        score: Mean of ``per_factor``, on rows that were held out.
        train: The same on the rows of the fit.
        per_factor: Mean area under the curve of each factor that varies, ``(K,)``.
        areas: For each of these factors, the area of each of its values (of the fit, sorted); nan
            where the held-out rows hold none of it.
        factors: Their columns, ``(K,)``.
    """

    score: float
    train: float
    per_factor: Floats
    areas: tuple[Floats, ...]
    factors: Ints


def explicitness(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    train_rows: int = 10_000,
    test_rows: int = 5_000,
    standardize: bool = True,
    classifier: Callable[[], Any] | None = None,
    seed: Seed = 0,
) -> Explicitness:
    r"""How well a linear classifier reads each value of each factor from all codes.

    .. math::
        \frac1K \sum_k \frac1{|v_k|} \sum_v \mathrm{AUC}\big(p(v_k = v \mid z),\; 1[v_k = v]\big)

    with the area under the ROC curve of each value against all others, in [0.5, 1] for a
    classifier that learns anything. A factor that lies on a line, as in a perfect code, is not
    linearly separable into its inner values, and still their areas come near 1 for the softmax
    regression here.

    Args:
        codes: ``(n, D)``.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out.
        test: Codes and factors to score on. Default: random rows are held out.
        train_rows: Rows to fit on, at most, where ``test`` is not given.
        test_rows: Rows to score on, at most; with fewer rows in all, the same proportion.
        standardize: Bring codes to mean 0 and deviation 1 first (published); dead codes become 0.
        classifier: Makes an object with ``fit`` and ``predict_proba``. Default scikit-learn's
            ``LogisticRegression`` with its defaults, as published (older versions of
            scikit-learn fitted one value at a time).
        seed: Of the rows held out.

    Returns:
        An :class:`Explicitness`.

    Raises:
        ValueError: If shapes differ, a code is not finite, no factor varies, or the rows of a
            part hold a single value of a factor, or those to score on none of the fit.
        TypeError: If factors are not integers, or the classifier is an instance.
        ImportError: If scikit-learn is not installed.

    References:
        | Learning Deep Disentangled Embeddings with the F-Statistic Loss (Ridgeway and Mozer,
        | 2018), section 3. https://arxiv.org/abs/1802.05312

    Example:
        >>> factors = np.random.default_rng(0).integers(3, size=(600, 2))
        >>> explicitness(factors, factors).score > 0.99
        True
    """
    rows = held_out(codes, factors, test, (train_rows, test_rows), generator(seed))
    make = sklearn("linear_model").LogisticRegression if classifier is None else classifier
    factory("classifier", make)
    z, test_z = (
        standardized(rows.codes, rows.test_codes) if standardize else (rows.codes, rows.test_codes)
    )
    areas: list[Floats] = []
    train: list[float] = []
    for k, column in enumerate(rows.kept):
        if len(np.unique(rows.factors[:, k])) < 2:
            raise ValueError(f"factors: expected two values of factor {column} to fit on, got one")
        model = make().fit(z, rows.factors[:, k])
        values = np.asarray(model.classes_)
        train.append(
            float(
                np.nanmean(_areas(model.predict_proba(z), rows.factors[:, k] == values[:, None]))
            )
        )
        found = _areas(model.predict_proba(test_z), rows.test_factors[:, k] == values[:, None])
        if np.isnan(found).all():
            raise _unscored(int(column), rows.test_factors[:, k], test is not None)
        areas.append(found)
    per_factor = np.array([float(np.nanmean(found)) for found in areas])
    return Explicitness(
        float(per_factor.mean()), float(np.mean(train)), per_factor, tuple(areas), rows.kept
    )


def _unscored(column: int, values: Ints, given: bool) -> ValueError:
    """No area exists: the rows to score on hold one value, or none of those of the fit."""
    name, rows = ("test", "") if given else ("factors", " in the rows held out")
    hint = "" if given else "; hand over test= or more rows"
    if values.min() == values.max():
        return ValueError(f"{name}: expected two values of factor {column}{rows}, got one{hint}")
    return ValueError(
        f"{name}: expected values of factor {column}{rows} that the rows of the fit hold too, "
        f"got others only{hint}"
    )


def _areas(scores: Floats, hits: Any) -> Floats:
    """Areas under the ROC curve, ``(C,)``, of scores ``(n, C)`` for hits ``(C, n)``."""
    positive = hits.sum(1)
    negative = hits.shape[1] - positive
    above = (np.transpose(ranks(scores)) * hits).sum(1) - positive * (positive + 1) / 2
    pairs = (positive * negative).astype(np.float64)
    return np.divide(above, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

r"""The scores of beta-VAE and FactorVAE: which factor was held fixed?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vaereg.metrics.disentanglement._arrays import (
    Floats,
    Ints,
    integer,
    sklearn,
)
from vaereg.metrics.disentanglement._checks import Seed, generator, number
from vaereg.metrics.disentanglement._score import Score
from vaereg.metrics.disentanglement._table import FactorTable

__all__ = ["BetaVAEScore", "FactorVAEScore", "beta_vae_score", "factor_vae_score"]

_ENTRIES = 1 << 21  # entries of looked-up codes at once
P = ParamSpec("P")
T = TypeVar("T")


def _needs_a_table(score: Callable[P, T]) -> Callable[P, T]:
    """Say how a table is made to who hands over codes and factors, as all other scores take."""

    @wraps(score)
    def checked(*args: P.args, **keywords: P.kwargs) -> T:
        table = args[0] if args else keywords.get("table")
        if (args or "table" in keywords) and not isinstance(table, FactorTable):
            raise TypeError(
                f"table: expected a FactorTable, got {type(table).__name__}; "
                "FactorTable.of(codes, factors) makes one"
            )
        return score(*args, **keywords)

    return checked


@dataclass(frozen=True, eq=False)
class BetaVAEScore(Score):
    """The accuracy of a linear classifier of the fixed factor.

    Attributes:
        score: On points that it was not fitted on.
        train: On the points of the fit.
        factors: The factors that vary, ``(K,)``.
    """

    score: float
    train: float
    factors: Ints


@_needs_a_table
def beta_vae_score(
    table: FactorTable,
    *,
    batch_size: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    standardize: bool = False,
    seed: Seed = 0,
) -> BetaVAEScore:
    r"""Whether a linear classifier tells which factor the pairs of a batch have in common.

    .. math:: x = \frac1L \sum_{l=1}^L \big| z^{(l)} - z'^{(l)} \big|

    where each pair shares the value of factor :math:`k`, drawn anew for each pair, and all else is
    random; :math:`k` is uniform over the factors that vary. The score is the accuracy of
    logistic regression of :math:`k` on :math:`x`. A perfect code scores 1; so can a code that
    is merely linear in the factors, and one that leaves a factor out.

    Args:
        table: The codes of all images; see :class:`FactorTable`.
        batch_size: Pairs of a point, :math:`L`.
        train: Points to fit on.
        test: Points to score on.
        standardize: Divide codes by their standard deviations first. The published code does not;
            then codes of a small range reach the regularised classifier weakly.
        seed: Of the pairs and the classifier.

    Returns:
        A :class:`BetaVAEScore`. With a single factor there is nothing to tell apart: 1. Codes
        that are all dead score at chance.

    Raises:
        ValueError: If no factor varies, or a number is below 1.
        TypeError: If ``table`` is not one.
        ImportError: If scikit-learn is not installed.

    References:
        | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
        | (Higgins et al., 2017), section 3. https://openreview.net/forum?id=Sy2fzU9gl
        | Challenging Common Assumptions (Locatello et al., 2019), for the classifier and sizes.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.stack(np.meshgrid(range(4), range(5), indexing="ij"), -1).reshape(-1, 2)
        >>> table = FactorTable(factors, sizes=(4, 5))
        >>> beta_vae_score(table, train=200, test=100).score
        1.0
    """
    batch_size, train, test = _sizes(batch_size, train, test, least=1)
    kept = table.varying
    if len(kept) == 1:
        return BetaVAEScore(1.0, 1.0, kept)
    rng = generator(seed)
    scale = _deviations(table.codes) if standardize else np.ones(table.codes.shape[1])
    scale = np.where(scale > 0, scale, 1.0)
    labels = rng.integers(len(kept), size=train + test)
    points = np.concatenate([
        np.abs(z[:, :, 0] - z[:, :, 1]).mean(1)
        for z in _batches(table, kept[labels], batch_size, 2, rng)
    ]) / scale  # fmt: skip
    model = sklearn("linear_model").LogisticRegression(random_state=integer(rng))
    if len(np.unique(labels[:train])) < 2:
        hits = labels == labels[0]
    else:
        model.fit(points[:train], labels[:train])
        hits = model.predict(points) == labels
    return BetaVAEScore(float(hits[train:].mean()), float(hits[:train].mean()), kept)


@dataclass(frozen=True, eq=False)
class FactorVAEScore(Score):
    """The accuracy of a majority vote on the fixed factor.

    Attributes:
        score: On votes that the majorities were not counted from.
        train: On the votes that they were counted from.
        votes: How often each code varied least when each factor was fixed, among the latter,
            ``(D, K)``.
        active: Which codes took part, ``(D,)``.
        factors: The factors that vary, ``(K,)``.
    """

    score: float
    train: float
    votes: Ints
    active: NDArray[np.bool_]
    factors: Ints


@_needs_a_table
def factor_vae_score(
    table: FactorTable,
    *,
    batch_size: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    threshold: float = 0.05,
    seed: Seed = 0,
) -> FactorVAEScore:
    r"""Whether the code that varies least tells which factor was held fixed.

    .. math:: d^* = \arg\min_d \frac{\mathrm{Var}_{l \le L}(z^{(l)}_d)}{\mathrm{Var}(z_d)}

    over a batch of :math:`L` images that share one value of factor :math:`k`, all else random;
    :math:`k` is uniform over the factors that vary. Each batch is a vote :math:`(d^*, k)`, and the
    classifier gives to each code the factor that it voted for most. A perfect code scores 1, also
    where it is held twice. Where a constant factor is drawn as well, as some public code does,
    one vote in K is noise; it is left out here.

    Args:
        table: The codes of all images; see :class:`FactorTable`. Variances of all of them
            normalise (the published code takes 10,000 random images).
        batch_size: Images of a vote, :math:`L`.
        train: Votes to count the majorities from.
        test: Votes to score on.
        threshold: Codes whose standard deviation is below are left out, for they are collapsed to
            the prior: 0.05 in the comparisons of Locatello et al. It is in units of the code; 0
            keeps all but dead codes.
        seed: Of the votes.

    Returns:
        A :class:`FactorVAEScore`. Without any active code the score is 0, as published; with a
        single factor it is 1.

    Raises:
        ValueError: If no factor varies, ``batch_size`` is below 2, or a number is below 1.
        TypeError: If ``table`` is not one.

    References:
        | Disentangling by Factorising (Kim and Mnih, 2018), section 4 and appendix.
        | https://arxiv.org/abs/1802.05983
        | Challenging Common Assumptions (Locatello et al., 2019), for the sizes.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.stack(np.meshgrid(range(4), range(5), indexing="ij"), -1).reshape(-1, 2)
        >>> table = FactorTable(factors, sizes=(4, 5))
        >>> found = factor_vae_score(table, train=200, test=100)
        >>> found.score, int(np.trace(found.votes))
        (1.0, 200)
    """
    batch_size, train, test = _sizes(batch_size, train, test, least=2)
    kept = table.varying
    rng = generator(seed)
    scale = _deviations(table.codes)
    active = (scale > 0) & (scale >= threshold)
    votes = np.zeros((2, len(scale), len(kept)), np.int64)
    if active.any():
        labels = rng.integers(len(kept), size=train + test)
        chosen = np.concatenate([
            # Less the first row: equal codes have variance 0 exactly.
            ((z[:, 0] - z[:, 0, :1])[:, :, active] / scale[active]).var(1).argmin(1)
            for z in _batches(table, kept[labels], 1, batch_size, rng)
        ])  # fmt: skip
        codes = np.flatnonzero(active)[chosen]
        for part, rows in enumerate((slice(0, train), slice(train, None))):
            np.add.at(votes[part], (codes[rows], labels[rows]), 1)
    majority = votes[0].argmax(1)
    hits = votes[:, np.arange(len(scale)), majority].sum(1)
    score, fitted = hits[1] / test, hits[0] / train
    return FactorVAEScore(float(score), float(fitted), votes[0], active, kept)


def _sizes(batch: int, train: int, test: int, least: int) -> tuple[int, int, int]:
    return number("batch_size", batch, least), number("train", train), number("test", test)


def _deviations(codes: Floats) -> Floats:
    """Standard deviations in float64, exactly 0 for dead codes."""
    return (codes - codes[:1].astype(np.float64)).std(0, ddof=1)


def _batches(
    table: FactorTable, fixed: Ints, lines: int, size: int, rng: np.random.Generator
) -> Any:
    """Codes ``(V, lines, size, D)`` in float64: the rows of a line share the fixed factor."""
    width = table.codes.shape[1]
    step = max(1, _ENTRIES // (lines * size * width))
    for start in range(0, len(fixed), step):
        part = fixed[start : start + step]
        rows = table.draw(np.repeat(part, lines), size, rng)
        yield table.codes[rows].astype(np.float64).reshape(len(part), lines, size, width)

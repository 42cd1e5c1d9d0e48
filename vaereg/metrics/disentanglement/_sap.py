r"""The separated attribute predictability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    as_codes,
    as_factors,
    bar,
    gaps,
    held_out,
    integer,
    sklearn,
    standardized,
    varying,
)
from vaereg.metrics.disentanglement._checks import Seed, generator, positive
from vaereg.metrics.disentanglement._predictors import fitted
from vaereg.metrics.disentanglement._score import Score

__all__ = ["SAP", "sap"]


@dataclass(frozen=True, eq=False)
class SAP(Score):
    """A separated attribute predictability and its parts.

    Attributes:
        score: Mean of ``gaps``.
        gaps: Of each factor that varies, ``(K,)``.
        predictability: Of each of these factors from each code alone, ``(D, K)``: accuracies on
            held-out rows, or squared correlations.
        factors: Their columns, ``(K,)``.
    """

    score: float
    gaps: Floats
    predictability: Floats
    factors: Ints


def sap(
    codes: Array,
    factors: Array,
    *,
    method: Literal["svm", "r2"] = "svm",
    test: tuple[Array, Array] | None = None,
    train_rows: int = 10_000,
    test_rows: int = 5_000,
    penalty: float = 0.01,
    standardize: bool = False,
    min_variance: float = 1e-12,
    seed: Seed = 0,
    progress: bool = False,
) -> SAP:
    r"""How much better the best code predicts each factor than the second best.

    .. math::
        \mathrm{SAP} = \frac1K \sum_k \Big( S_{j^{(k)} k} - \max_{j \ne j^{(k)}} S_{jk} \Big),
        \qquad j^{(k)} = \arg\max_j S_{jk}

    with, for ``"svm"`` (factors are classes), the accuracy :math:`S_{jk}` on held-out rows of a
    linear support vector machine that is given code :math:`j` alone, or, for ``"r2"`` (factors
    are numbers on a line),

    .. math:: S_{jk} = \frac{\mathrm{Cov}(z_j, v_k)^2}{\mathrm{Var}(z_j)\, \mathrm{Var}(v_k)}

    A perfect code on a grid scores 1 with ``"r2"``. It does not with ``"svm"``: one line cannot
    separate the inner values of a factor of more than two values from their neighbours on both
    sides, so that accuracies stay far below 1, and the second best code still predicts at chance,
    :math:`1 / |v_k|`.

    Args:
        codes: ``(n, D)``. The ``"r2"`` form is unchanged by shifts and scales of a code, the
            ``"svm"`` form is not.
        factors: Integer values of the factors, ``(n, K)``, or real ones for ``"r2"``; constant
            ones are left out.
        method: ``"svm"``, as in the comparisons of Locatello et al., or ``"r2"``.
        test: Codes and factors to score on. Default: random rows are held out. Not read by
            ``"r2"``, which takes all rows of ``codes``.
        train_rows: Rows to fit on, at most, where ``test`` is not given.
        test_rows: Rows to score on, at most; with fewer rows in all, the same proportion.
        penalty: C of the support vector machines, whose classes are weighted to be equal.
        standardize: Bring codes to mean 0 and deviation 1 first (``"svm"``).
        min_variance: Codes of at most this variance predict nothing (``"r2"``).
        seed: Of the rows held out and of the fits.
        progress: Show a progress bar over the codes (needs tqdm).

    Returns:
        A :class:`SAP`. A dead code predicts as a constant does. With a single code the gap is to
        a dead one.

    Raises:
        ValueError: If shapes differ, a code is not finite, no factor varies, ``method`` is
            neither, or ``penalty`` is not above 0.
        TypeError: If factors are not integers (``"svm"``).
        ImportError: If scikit-learn is not installed (``"svm"``).

    References:
        | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar
        | et al., 2018), section 3. https://openreview.net/forum?id=H1kG7GZAW
        | Challenging Common Assumptions (Locatello et al., 2019), for the settings.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.stack(np.meshgrid(range(4), range(5)), -1).reshape(-1, 2)
        >>> float(sap(2.5 * factors, factors, method="r2"))
        1.0
        >>> repeated = np.tile(factors, (20, 1))
        >>> sap(repeated, repeated).score < 0.5
        True
    """
    if method == "r2":
        z = as_codes(codes)
        y = as_factors(factors, z, real=True)
        kept = varying(y)
        matrix = _squared_correlation(z, y[:, kept], min_variance)
    elif method == "svm":
        positive("penalty", penalty)
        rng = generator(seed)
        rows = held_out(codes, factors, test, (train_rows, test_rows), rng)
        z, test_z = rows.codes, rows.test_codes
        if standardize:
            z, test_z = standardized(z, test_z)
        if z.shape[1] == 1:
            z, test_z = (np.concatenate([x, np.zeros_like(x)], 1) for x in (z, test_z))
        machine, state, kept = sklearn("svm").LinearSVC, integer(rng), rows.kept
        matrix = np.zeros((z.shape[1], len(kept)))
        for j in bar(range(z.shape[1]), "sap", progress):
            for k in range(len(kept)):
                model = fitted(
                    lambda: machine(C=penalty, class_weight="balanced", random_state=state),
                    z[:, j : j + 1],
                    rows.factors[:, k],
                )
                matrix[j, k] = model.score(test_z[:, j : j + 1], rows.test_factors[:, k])
    else:
        raise ValueError(f"method: expected 'svm' or 'r2', got {method!r}")
    found = gaps(matrix)
    return SAP(float(found.mean()), found, matrix[: as_codes(codes).shape[1]], kept)


def _squared_correlation(codes: Floats, factors: Floats, min_variance: float) -> Floats:
    """Squared correlations ``(D, K)``; 0 for codes of hardly any variance."""
    z, y = (x.astype(np.float64) - x.mean(0, dtype=np.float64) for x in (codes, factors))
    dead = (codes.min(0) == codes.max(0)) | (z.var(0, ddof=1) <= min_variance)
    z = np.where(dead, 0.0, z)
    norms = np.outer(np.where(dead, 1.0, (z**2).sum(0)), (y**2).sum(0))
    return (np.transpose(z) @ y) ** 2 / norms

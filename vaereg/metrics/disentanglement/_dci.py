r"""Disentanglement, completeness and informativeness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    bar,
    held_out,
    standardized,
)
from vaereg.metrics.disentanglement._checks import Seed, generator
from vaereg.metrics.disentanglement._predictors import Predictor, fitted, importances, maker
from vaereg.metrics.disentanglement._score import Score

__all__ = ["DCI", "dci"]


@dataclass(frozen=True, eq=False)
class DCI(Score):
    """Disentanglement, completeness and informativeness, and their parts.

    Attributes:
        score: The disentanglement.
        completeness: Mean of ``per_factor``, weighted by the importances of each factor's column.
        informativeness: Mean score of the predictors on held-out rows.
        informativeness_train: The same on the rows of the fit.
        importance: Of each code for each factor that varies, ``(D, K)``.
        per_code: Disentanglement of each code, ``(D,)``; 0 for codes without importance.
        per_factor: Completeness of each factor, ``(K,)``.
        accuracy: Score of each factor's predictor on held-out rows, ``(K,)``.
        factors: Columns of the factors that vary, ``(K,)``.
    """

    score: float
    completeness: float
    informativeness: float
    informativeness_train: float
    importance: Floats
    per_code: Floats
    per_factor: Floats
    accuracy: Floats
    factors: Ints

    @property
    def disentanglement(self) -> float:
        """The same as ``score``."""
        return self.score

    def __str__(self) -> str:
        return (
            f"DCI: disentanglement {self.score:.3f}, completeness {self.completeness:.3f}, "
            f"informativeness {self.informativeness:.3f}"
        )


def dci(
    codes: Array,
    factors: Array,
    *,
    predictor: Predictor = "gbt",
    test: tuple[Array, Array] | None = None,
    train_rows: int = 10_000,
    test_rows: int = 5_000,
    standardize: bool = False,
    seed: Seed = 0,
    progress: bool = False,
) -> DCI:
    r"""Does each code serve one factor, each factor use one code, and how well are they told?

    With the importance :math:`R_{dk} \ge 0` of code :math:`d` in a predictor of factor :math:`k`
    from all codes,

    .. math::
        D &= \sum_d \rho_d \big( 1 - H_K(P_{d \cdot}) \big), \quad
            P_{dk} = \frac{R_{dk}}{\sum_{k'} R_{dk'}}, \quad
            \rho_d = \frac{\sum_k R_{dk}}{\sum_{d'k} R_{d'k}} \\
        C &= \sum_k \rho'_k \big( 1 - H_D(\tilde P_{\cdot k}) \big), \quad
            \tilde P_{dk} = \frac{R_{dk}}{\sum_{d'} R_{d'k}}, \quad
            \rho'_k = \frac{\sum_d R_{dk}}{\sum_{dk'} R_{dk'}}

    with entropies to the base :math:`K` and :math:`D`. Trees' importances sum to 1 for each
    factor, so that :math:`\rho'` is uniform, as in the paper. A perfect code scores 1 in all
    three with boosted trees, up to splits that fit noise. A random forest, denied the best code at
    some splits, stays below, and far below where useless codes stand beside it (0.61 for five
    perfect codes and five of noise on the factors of dSprites, 10,000 rows). A code held twice
    keeps :math:`D` and loses :math:`C`.

    Args:
        codes: ``(n, D)``. Trees are unchanged by shifts and positive scales of a code, up to ties.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out. With a
            ``predictor`` of your own they may be real.
        predictor: ``"gbt"``, gradient boosted trees with scikit-learn's defaults (as in the
            comparisons of Locatello et al.; minutes for 10,000 rows and factors of 40 values),
            ``"forest"``, a random forest (seconds), or a function that makes an object with
            ``fit``, ``score`` and, after the fit, ``feature_importances_`` or ``coef_``. With
            ``lambda: Lasso(alpha)`` of scikit-learn and ``standardize`` that is the paper's other
            predictor, and informativeness is :math:`R^2`.
        test: Codes and factors to score on. Default: random rows are held out. Importances come
            from the rows of the fit only.
        train_rows: Rows to fit on, at most, where ``test`` is not given.
        test_rows: Rows to score on, at most; with fewer rows in all, the same proportion.
        standardize: Bring codes to mean 0 and deviation 1 first, which matters to ``coef_``.
        seed: Of the rows held out and of the predictors.
        progress: Show a progress bar over the factors (needs tqdm).

    Returns:
        A :class:`DCI`. Informativeness is an accuracy (the paper's is an error). With a single
        factor each code of any importance has disentanglement 1, and with a single code each
        factor that it serves has completeness 1. Where no code has importance both are 0.

    Raises:
        ValueError: If shapes differ, a code is not finite, or no factor varies.
        TypeError: If factors are not integers, or the predictor is an instance or tells no
            importances.
        ImportError: If scikit-learn is not installed.

    References:
        | A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and
        | Williams, 2018), section 2. https://openreview.net/forum?id=By-7dz-AZ
        | Challenging Common Assumptions (Locatello et al., 2019), for boosted trees.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.random.default_rng(0).integers(3, size=(300, 2))
        >>> print(dci(factors, factors))
        DCI: disentanglement 1.000, completeness 1.000, informativeness 1.000
    """
    rng = generator(seed)
    real = not isinstance(predictor, str)
    rows = held_out(codes, factors, test, (train_rows, test_rows), rng, real=real)
    z, test_z = rows.codes, rows.test_codes
    if standardize:
        z, test_z = standardized(z, test_z)
    make = maker(predictor, ("gbt", "forest"), rng)
    k = len(rows.kept)
    importance, train, accuracy = np.zeros((z.shape[1], k)), np.zeros(k), np.zeros(k)
    for i in bar(range(k), "dci", progress):
        model = fitted(make, z, rows.factors[:, i])
        importance[:, i] = importances(model)
        train[i] = model.score(z, rows.factors[:, i])
        accuracy[i] = model.score(test_z, rows.test_factors[:, i])
    per_code, per_factor = _concentration(importance), _concentration(np.transpose(importance))
    total = max(float(importance.sum()), float(np.finfo(np.float64).tiny))
    return DCI(
        score=float(per_code @ importance.sum(1) / total),
        completeness=float(per_factor @ importance.sum(0) / total),
        informativeness=float(accuracy.mean()), informativeness_train=float(train.mean()),
        importance=importance, per_code=per_code, per_factor=per_factor, accuracy=accuracy,
        factors=rows.kept,
    )  # fmt: skip


def _concentration(importance: Floats) -> Floats:
    """1 less the entropy of each row to the base of its length; 0 for rows of zeros."""
    total = importance.sum(1, keepdims=True)
    p = importance / np.where(total > 0, total, 1.0)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    base = np.log(max(2, p.shape[1]))
    return np.where(total[:, 0] > 0, 1.0 - entropy / base, 0.0)

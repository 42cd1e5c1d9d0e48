r"""How well, and from how few labels, factors are predicted from codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    as_codes,
    bar,
    held_out,
)
from vaereg.metrics.disentanglement._checks import Seed, generator, integers, number
from vaereg.metrics.disentanglement._predictors import Predictor, fitted, maker
from vaereg.metrics.disentanglement._score import Score

__all__ = ["Downstream", "downstream_accuracy", "sample_efficiency"]

_LABELS = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, eq=False)
class Downstream(Score):
    """Accuracies by number of labels and factor.

    Attributes:
        score: Mean over factors of the accuracy with the most labels.
        labels: Numbers of labels, ``(S,)``.
        accuracy: On held-out rows, ``(S, K)``.
        train: On the labelled rows, ``(S, K)``.
        factors: Columns of the factors that vary, ``(K,)``.
    """

    score: float
    labels: tuple[int, ...]
    accuracy: Floats
    train: Floats
    factors: Ints

    def mean(self, labels: int) -> float:
        """Mean accuracy over factors with so many labels.

        Raises:
            ValueError: If that number was not measured.
        """
        if labels not in self.labels:
            raise ValueError(f"labels: expected one of {self.labels}, got {labels}")
        return float(self.accuracy[self.labels.index(labels)].mean())

    def efficiency(self, few: int = 100, many: int = 10_000) -> float:
        """Mean accuracy with few labels, divided by that with many.

        Raises:
            ValueError: If one of the numbers was not measured, or the accuracy with many is 0.
        """
        for name, size in (("few", few), ("many", many)):
            if size not in self.labels:
                raise ValueError(f"{name}: expected one of {self.labels}, got {size}")
        reached = self.mean(many)
        if reached == 0.0:
            raise ValueError(f"many: expected an accuracy above 0, got 0 with {many} labels")
        return self.mean(few) / reached


def downstream_accuracy(
    codes: Array,
    factors: Array,
    *,
    labels: Sequence[int] | None = None,
    predictor: Predictor = "gbt",
    test: tuple[Array, Array] | None = None,
    test_rows: int = 5_000,
    seed: Seed = 0,
    progress: bool = False,
) -> Downstream:
    r"""The accuracy of predictors of each factor, for several numbers of labels.

    Each predictor is given all codes of the first so many of the rows in random order, and scored
    on rows that were held out before.

    Args:
        codes: ``(n, D)``.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out.
        labels: Numbers of labels. Default: those of 10, 100, 1,000 and 10,000 that there are
            rows for, with those held out set aside.
        predictor: ``"gbt"``, gradient boosted trees with scikit-learn's defaults,
            ``"logistic"``, logistic regression with its penalty chosen among 10 by 5 folds (both
            as in the comparisons of Locatello et al.), or a function that makes an object with
            ``fit`` and ``score``.
        test: Codes and factors to score on. Default: random rows are held out.
        test_rows: How many of them, at most a third of all.
        seed: Of the order of rows and of the predictors.
        progress: Show a progress bar (needs tqdm).

    Returns:
        A :class:`Downstream`. Where all labels are equal that value is predicted.

    Raises:
        ValueError: If shapes differ, a code is not finite, no factor varies, or there are fewer
            rows than labels.
        TypeError: If factors are not integers, or the predictor is an instance.
        ImportError: If scikit-learn is not installed.

    References:
        | Challenging Common Assumptions (Locatello et al., 2019), section 5.5.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.random.default_rng(0).integers(3, size=(300, 2))
        >>> found = downstream_accuracy(factors, factors, labels=(20, 200))
        >>> found.labels, found.efficiency(20, 200)
        ((20, 200), 1.0)
    """
    rng = generator(seed)
    given = () if labels is None else integers("labels", labels, "integers such as (10, 100)")
    rows = held_out(codes, factors, test, _divided(codes, test, test_rows), rng)
    order = rng.permutation(len(rows.codes))
    z, y = rows.codes[order], rows.factors[order]
    sizes = given or tuple(size for size in _LABELS if size <= len(z))
    if not sizes:
        raise ValueError(
            f"codes: expected at least {_LABELS[0]} rows to fit on, where labels are not given, "
            f"got {len(z)}"
        )
    if min(sizes) < 1 or max(sizes) > len(z):
        raise ValueError(f"labels: expected numbers from 1 to {len(z)} (rows), got {sizes}")
    make = maker(predictor, ("gbt", "logistic"), rng)
    train, accuracy = np.zeros((2, len(sizes), len(rows.kept)))
    cells = [(s, k) for s in range(len(sizes)) for k in range(len(rows.kept))]
    for s, k in bar(cells, "downstream", progress):
        x, values = z[: sizes[s]], y[: sizes[s], k]
        model = fitted(make, x, values)
        train[s, k] = model.score(x, values)
        accuracy[s, k] = model.score(rows.test_codes, rows.test_factors[:, k])
    best = int(np.argmax(sizes))
    return Downstream(float(accuracy[best].mean()), sizes, accuracy, train, rows.kept)


def _divided(codes: Array, test: tuple[Array, Array] | None, test_rows: int) -> tuple[int, int]:
    """How many rows to fit on and to hold out."""
    n = len(as_codes(codes))
    if test is not None:
        return n, 0
    rest = max(1, min(number("test_rows", test_rows), n // 3))
    return max(1, n - rest), rest


def sample_efficiency(
    codes: Array,
    factors: Array,
    *,
    few: int = 100,
    many: int = 10_000,
    predictor: Predictor = "gbt",
    test: tuple[Array, Array] | None = None,
    test_rows: int = 5_000,
    seed: Seed = 0,
    progress: bool = False,
) -> float:
    r"""The accuracy that few labels reach, as a fraction of that of many.

    .. math:: \frac{\overline{\mathrm{acc}}(\text{few})}{\overline{\mathrm{acc}}(\text{many})}

    with means over factors. It is :meth:`Downstream.efficiency` of
    :func:`downstream_accuracy`, which tells more for the same work.

    Args:
        codes: ``(n, D)``.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out.
        few: Labels of the numerator.
        many: Labels of the denominator; the default takes 14,999 rows, or 10,000 and ``test``.
        predictor: See :func:`downstream_accuracy`.
        test: Codes and factors to score on. Default: random rows are held out.
        test_rows: How many of them, at most a third of all.
        seed: Of the order of rows and of the predictors.
        progress: Show a progress bar (needs tqdm).

    Returns:
        The quotient; above 1 only by chance.

    Raises:
        ValueError: As :func:`downstream_accuracy`, or if the accuracy with many labels is 0.
        TypeError: As :func:`downstream_accuracy`.
        ImportError: If scikit-learn is not installed.

    References:
        | Challenging Common Assumptions (Locatello et al., 2019), section 5.5.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.random.default_rng(0).integers(3, size=(300, 2))
        >>> sample_efficiency(factors, factors, few=20, many=200)
        1.0
    """
    fit, _ = _divided(codes, test, test_rows)
    few, many = number("few", few, floats=True), number("many", many, floats=True)
    for name, size in (("few", few), ("many", many)):
        if size > fit:
            raise ValueError(f"{name}: expected at most {fit} (rows to fit on), got {size}")
    found = downstream_accuracy(
        codes, factors, labels=(few, many), predictor=predictor, test=test, test_rows=test_rows,
        seed=seed, progress=progress,
    )  # fmt: skip
    return found.efficiency(few, many)

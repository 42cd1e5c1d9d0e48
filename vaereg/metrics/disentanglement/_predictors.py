"""Classifiers by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaereg.metrics.disentanglement._arrays import Floats, integer, sklearn
from vaereg.metrics.disentanglement._checks import factory

__all__ = ["Predictor", "fitted", "importances", "maker"]

Predictor = str | Callable[[], Any]


def maker(
    predictor: Predictor, names: tuple[str, ...], rng: np.random.Generator
) -> Callable[[], Any]:
    """What makes a fresh predictor, by name or by the caller's own function."""
    if not isinstance(predictor, str):
        factory("predictor", predictor)
        return predictor
    if predictor not in names:
        raise ValueError(f"predictor: expected one of {names} or a function, got {predictor!r}")
    seed = integer(rng)
    if predictor == "gbt":
        boosted = sklearn("ensemble").GradientBoostingClassifier
        return lambda: boosted(random_state=seed)
    if predictor == "forest":
        forest = sklearn("ensemble").RandomForestClassifier
        return lambda: forest(random_state=seed)
    linear = sklearn("linear_model").LogisticRegression
    return lambda: _Logistic(linear)


class _Logistic:
    """Logistic regression, its C chosen among 10 by the accuracy on 5 folds of adjacent rows."""

    def __init__(self, linear: Any) -> None:
        self.linear, self.model = linear, None

    def fit(self, codes: Floats, values: NDArray[Any]) -> None:
        strengths = np.logspace(-4, 4, 10)
        folds = np.array_split(np.arange(len(values)), min(5, len(values)))
        accuracy = np.zeros(len(strengths))
        for fold in folds:
            rest = np.setdiff1d(np.arange(len(values)), fold)
            for i, strength in enumerate(strengths):
                model = fitted(partial(self.linear, C=strength), codes[rest], values[rest])
                accuracy[i] += model.score(codes[fold], values[fold]) / len(folds)
        best = strengths[int(accuracy.argmax())]
        self.model = self.linear(C=best).fit(codes, values)

    def score(self, codes: Floats, values: NDArray[Any]) -> float:
        assert self.model is not None
        return float(self.model.score(codes, values))


class _Constant:
    """Predicts the only value that it has seen."""

    def __init__(self, value: Any, width: int) -> None:
        self.value, self.feature_importances_ = value, np.zeros(width)

    def score(self, codes: Floats, values: NDArray[Any]) -> float:
        return float((values == self.value).mean())


def fitted(make: Callable[[], Any], codes: Floats, values: NDArray[Any]) -> Any:
    """A fitted predictor; where there is one value only, one that knows nothing else."""
    if values.min() == values.max():
        return _Constant(values[0], codes.shape[1])
    model = make()
    model.fit(codes, values)
    return model


def importances(model: Any) -> Floats:
    """Absolute importance of each code, ``(D,)``."""
    found = getattr(model, "feature_importances_", None)
    if found is None:
        found = getattr(model, "coef_", None)
    if found is None:
        raise TypeError(
            "predictor: expected feature_importances_ or coef_ after the fit, got "
            f"{type(model).__name__} with neither"
        )
    found = np.abs(np.asarray(found, np.float64))
    return found if found.ndim == 1 else found.sum(0)

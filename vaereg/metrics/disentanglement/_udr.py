r"""The unsupervised disentanglement ranking of models among each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    as_codes,
    numbers,
    ranks,
    sklearn,
    standardized,
)
from vaereg.metrics.disentanglement._checks import shown

__all__ = ["UDR", "udr"]


@dataclass(frozen=True, eq=False)
class UDR:
    """Scores of models by their likeness to each other.

    Attributes:
        scores: Of each model, ``(M,)``: the median of its column of ``pairwise``.
        pairwise: Likeness of each pair of models, ``(M, M)``; nan on the diagonal.
        similarity: Of each pair of models, each pair of codes, ``similarity[i][j]`` of shape
            ``(D_i, D_j)``; 0 for uninformative codes. None on the diagonal.
        informative: Which codes of each model took part, ``(D_i,)`` each.
    """

    scores: Floats
    pairwise: Floats
    similarity: tuple[tuple[Floats | None, ...], ...]
    informative: tuple[NDArray[np.bool_], ...]

    def __str__(self) -> str:
        return "UDR " + " ".join(f"{score:.3f}" for score in self.scores)


def udr(
    codes: Sequence[Array],
    *,
    kl: Sequence[Array] | None = None,
    method: Literal["lasso", "spearman"] = "lasso",
    alpha: float = 0.1,
    threshold: float = 0.01,
    average: Literal["model", "code"] = "model",
) -> UDR:
    r"""How alike models of one kind and different seeds are, up to order and sign of their codes.

    With the similarity :math:`R_{ab}` of code :math:`a` of one model and :math:`b` of another,

    .. math::
        \mathrm{UDR}_{ij} = \frac12 \Big( \frac1{d_j} \sum_b \frac{\max_a R_{ab}^2}{\sum_a R_{ab}}
        + \frac1{d_i} \sum_a \frac{\max_b R_{ab}^2}{\sum_b R_{ab}} \Big)

    over informative codes; a model's score is the median over all other models. It is high where
    each code of one model is one code of the other, and rests on the finding that disentangled
    models are alike and others entangled each in its own way.

    Args:
        codes: Of each model, ``(n, D_i)``, for the same images in the same order.
        kl: Mean KL of each code from the prior, ``(D_i,)`` for each model, such as
            ``dimwise_kl`` per example. Default: all codes that are not dead are informative.
        method: ``"lasso"``, absolute weights of codes :math:`a` in an L1 regression of code
            :math:`b`, both standardised (needs scikit-learn), or ``"spearman"``, absolute rank
            correlations.
        alpha: Strength of the L1 penalty.
        threshold: Codes of at most this mean KL, in nats, are uninformative.
        average: ``"model"``, the equation above, as in the authors' code; ``"code"`` divides the
            sum of both sums by :math:`d_i + d_j`, as in the paper. They agree where
            :math:`d_i = d_j`.

    Returns:
        A :class:`UDR`. A code that is like no other counts with 0. A model without informative
        codes is like none: 0.

    Raises:
        ValueError: If there are fewer than two models or rows, numbers of rows differ, a code
            is not finite, or a choice is none of those above.
        ImportError: If scikit-learn is not installed (``"lasso"``).

    References:
        | Unsupervised Model Selection for Variational Disentangled Representation Learning (Duan
        | et al., 2020), section 4. https://arxiv.org/abs/1905.12614

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.standard_normal((500, 3))
        >>> turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        >>> found = udr([z, -z[:, [2, 0, 1]], z @ turn], method="spearman")
        >>> bool(found.scores[:2].min() > found.scores[2])
        True
    """
    if method not in ("lasso", "spearman"):
        raise ValueError(f"method: expected 'lasso' or 'spearman', got {method!r}")
    if average not in ("model", "code"):
        raise ValueError(f"average: expected 'model' or 'code', got {average!r}")
    if getattr(codes, "ndim", 3) == 2:
        raise TypeError(
            f"codes: expected those of several models, (n, D) each, got {shown(codes)}"
        )
    models = [as_codes(value, f"codes[{i}]") for i, value in enumerate(codes)]
    if len(models) < 2 or len({len(z) for z in models}) != 1:
        raise ValueError(
            "codes: expected two models or more, of as many rows each, got "
            f"{[z.shape for z in models]}"
        )
    if len(models[0]) < 2:
        raise ValueError(f"codes: expected at least 2 rows, got {len(models[0])}")
    informative = _informative(models, kl, threshold)
    scaled = [
        standardized(ranks(z) if method == "spearman" else z)[0] * kept
        for z, kept in zip(models, informative, strict=True)
    ]
    count = len(models)
    pairwise = np.full((count, count), np.nan)
    similarity: list[list[Floats | None]] = [[None] * count for _ in models]
    for i in range(count):
        for j in range(count):
            if i != j:
                found = _similarity(scaled[i], scaled[j], method, alpha)
                similarity[i][j] = found
                inner = found[informative[i]][:, informative[j]]
                pairwise[i, j] = _likeness(inner, average)
    return UDR(
        np.nanmedian(pairwise, 0), pairwise, tuple(map(tuple, similarity)), tuple(informative)
    )


def _informative(
    models: list[Floats], kl: Sequence[Array] | None, threshold: float
) -> list[NDArray[np.bool_]]:
    alive = [z.min(0) != z.max(0) for z in models]
    if kl is None:
        return alive
    if len(kl) != len(models):
        raise ValueError(f"kl: expected one entry for each of {len(models)} models, got {len(kl)}")
    for i, (z, value) in enumerate(zip(models, kl, strict=True)):
        values = numbers(f"kl[{i}]", value).astype(np.float64)
        if values.shape != z.shape[1:]:
            hint = "; take the mean over rows" if values.ndim == 2 else ""
            raise ValueError(f"kl[{i}]: expected ({z.shape[1]},), got {values.shape}{hint}")
        if not np.isfinite(values).all():
            raise ValueError(f"kl[{i}]: expected finite values, got nan or inf")
        alive[i] = alive[i] & (values > threshold)
    return alive


def _similarity(a: Floats, b: Floats, method: str, alpha: float) -> Floats:
    """Of each code of one model with each of another, ``(D_a, D_b)``."""
    if method == "spearman":
        return np.abs(np.transpose(a) @ b) / len(a)
    model: Any = sklearn("linear_model").Lasso(alpha=alpha)
    weights = np.asarray(model.fit(a, b).coef_)
    return np.abs(np.transpose(weights.reshape(b.shape[1], a.shape[1])))


def _likeness(similarity: Floats, average: str) -> float:
    """Of two models, from the similarities of their informative codes."""
    if 0 in similarity.shape:
        return 0.0
    sides: list[Floats] = []
    for axis in (0, 1):
        total = similarity.sum(axis)
        sides.append(similarity.max(axis) ** 2 / np.where(total > 0, total, 1.0))
    if average == "code":
        return float(np.concatenate(sides).mean())
    return float(0.5 * (sides[0].mean() + sides[1].mean()))

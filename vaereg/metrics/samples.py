"""Measurements on generated samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["SwapAccuracy", "swap_accuracy"]

Swap = Callable[[Tensor, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SwapAccuracy:
    """How often a swapped image shows the intended attribute.

    Attributes:
        accuracy: Fraction over all swapped images, in [0, 1].
        per_attribute: Fraction for each intended attribute.
        count: Number of swapped images.
        interval: 95% Wilson interval of ``accuracy``.
        counts: Number of swapped images for each intended attribute.
        intervals: 95% Wilson interval for each intended attribute.
    """

    accuracy: float
    per_attribute: dict[int, float]
    count: int
    interval: tuple[float, float]
    counts: dict[int, int]
    intervals: dict[int, tuple[float, float]]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.3f} [{low:.3f}, {high:.3f}] ({self.count} swapped images)"


def swap_accuracy(
    vae_swap: Swap,
    classifier: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    generator: torch.Generator | None = None,
) -> SwapAccuracy:
    r"""The fraction of swapped images that a classifier gives the intended attribute.

    .. math:: \frac1N \sum_i 1[\arg\max_k\, \mathrm{classifier}(\hat x_i)_k = y'_i]

    where :math:`\hat x_i` is decoded from the code of :math:`x_i` with the attribute's part
    replaced, for instance by a draw from :math:`p(c \mid y'_i)` of the opposite attribute
    :math:`y'_i`. The classifier should be trained on real images and be near perfect on them:
    its own error bounds what can be told here.

    Args:
        vae_swap: ``(x, y, generator) -> (x_swapped, y_target)``: images ``(B, *)`` and their
            attributes to swapped images ``(M, *)`` and integer targets ``(M,)``. ``M`` may be
            less than ``B``, where rows without a label are left out. Models that it uses should
            be in evaluation mode.
        classifier: Images to logits ``(M, C)``, or ``(M,)`` or ``(M, 1)`` for a binary attribute
            (positive = 1). A module is put in evaluation mode and restored afterwards.
        batches: Pairs ``(x, y)``.
        generator: Passed to ``vae_swap`` as it is.

    Returns:
        The accuracy with its 95% Wilson interval, over all and per intended attribute.

    Raises:
        ValueError: If there is no swapped image, or shapes disagree.
        TypeError: If targets are not integers.

    References:
        | Probable inference, the law of succession, and statistical inference (Wilson, 1927).
        | https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> x, y = torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([1, 0, 1])
        >>> flip = lambda x, y, generator: (-x, 1 - y)
        >>> print(swap_accuracy(flip, lambda x: x, [(x, y)]))
        1.000 [0.439, 1.000] (3 swapped images)
    """
    module = classifier if isinstance(classifier, nn.Module) else None
    modes = {} if module is None else {m: m.training for m in module.modules()}
    hits: dict[int, int] = {}
    counts: dict[int, int] = {}
    try:
        if module is not None:
            module.eval()
        with torch.no_grad():
            for x, y in batches:
                swapped, target = vae_swap(x, y, generator)
                correct = _correct(classifier(swapped), target).cpu()
                for k, hit in zip(map(int, target.cpu()), map(bool, correct), strict=True):
                    counts[k] = counts.get(k, 0) + 1
                    hits[k] = hits.get(k, 0) + hit
    finally:
        for m, training in modes.items():
            m.training = training
    count, total = sum(counts.values()), sum(hits.values())
    if count == 0:
        raise ValueError("batches: expected at least one swapped image, got none")
    keys = sorted(counts)
    return SwapAccuracy(
        accuracy=total / count,
        per_attribute={k: hits[k] / counts[k] for k in keys},
        count=count,
        interval=_wilson(total, count),
        counts={k: counts[k] for k in keys},
        intervals={k: _wilson(hits[k], counts[k]) for k in keys},
    )


def _correct(logits: Tensor, target: Tensor) -> Tensor:
    """Whether each row's prediction is its target, ``(M,)`` booleans."""
    if target.ndim != 1 or target.is_floating_point():
        raise TypeError(
            f"vae_swap: expected integer targets (M,), got {tuple(target.shape)} of {target.dtype}"
        )
    if logits.ndim not in (1, 2) or logits.shape[0] != target.shape[0]:
        raise ValueError(
            f"classifier: expected logits ({target.shape[0]}, C) or ({target.shape[0]},), got "
            f"{tuple(logits.shape)}"
        )
    binary = logits.ndim == 1 or logits.shape[1] == 1
    predicted = (logits.flatten() > 0.0).long() if binary else logits.argmax(1)
    return predicted == target.to(predicted.device)


def _wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% Wilson score interval of a fraction."""
    p, shrink = hits / count, 1.0 + z * z / count
    centre = (p + z * z / (2 * count)) / shrink
    half = z * math.sqrt(p * (1.0 - p) / count + z * z / (4 * count * count)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)

r"""Negative log-likelihoods of the decoder: batch mean, event sum, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["bernoulli_nll", "categorical_nll", "gaussian_nll", "laplace_nll"]


def _check(name: str, x_hat: Tensor, x: Tensor) -> None:
    if x_hat.shape != x.shape:
        raise ValueError(
            f"{name}: expected x of the decoder output's shape {tuple(x_hat.shape)}, "
            f"got {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected x to be a floating-point tensor, got {x.dtype}")


def _wide(x: Tensor) -> Tensor:
    # Sums over thousands of pixels lose digits in half precision.
    return x.to(torch.promote_types(x.dtype, torch.float32))


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    r"""Bernoulli negative log-likelihood from logits.

    .. math:: -\frac1B \sum_i \sum_d \big[ x_{id} \log \varsigma(l_{id})
        + (1 - x_{id}) \log (1 - \varsigma(l_{id})) \big]

    Args:
        logits: Decoder output before the sigmoid, ``(B, *event)``.
        x: Data in [0, 1], the same shape. For values strictly between 0 and 1 this is a
            cross-entropy and not the negative log-likelihood of a normalised density.

    Returns:
        A scalar in nats.

    Raises:
        TypeError: If ``x`` is not floating point.
        ValueError: If the shapes differ.

    Example:
        >>> bernoulli_nll(torch.zeros(4, 2), torch.ones(4, 2)).item() / 2  # log 2
        0.6931...
    """
    _check("bernoulli_nll", logits, x)
    loss = F.binary_cross_entropy_with_logits(_wide(logits), _wide(x), reduction="none")
    return loss.flatten(1).sum(1).mean()


def gaussian_nll(
    mean: Tensor, x: Tensor, *, std: float | Tensor | None = None, logvar: Tensor | None = None
) -> Tensor:
    r"""Gaussian negative log-likelihood, with its constant.

    .. math:: \frac1B \sum_i \sum_d \tfrac12 \Big[ \log 2 \pi + \log \sigma_{id}^2
        + \frac{(x_{id} - \mu_{id})^2}{\sigma_{id}^2} \Big]

    Args:
        mean: Decoder output, ``(B, *event)``.
        x: Data, the same shape.
        std: :math:`\sigma`, a positive number or a tensor that broadcasts; default 1.
        logvar: :math:`\log \sigma^2` in its place, broadcastable.

    Returns:
        A scalar in nats.

    Raises:
        TypeError: If ``x`` is not floating point.
        ValueError: If the shapes differ, both spreads are given, or ``std`` is a number that is
            not positive.

    Example:
        >>> gaussian_nll(torch.zeros(4, 1), torch.zeros(4, 1)).item()  # log(2 pi) / 2
        0.9189...
    """
    _check("gaussian_nll", mean, x)
    if std is not None and logvar is not None:
        raise ValueError("gaussian_nll: expected std or logvar, got both")
    mean, x = _wide(mean), _wide(x)
    if logvar is None:
        spread = torch.as_tensor(1.0 if std is None else std, dtype=x.dtype, device=x.device)
        if std is not None and not isinstance(std, Tensor) and std <= 0:
            raise ValueError(f"gaussian_nll: expected std > 0, got {std}")
        logvar = 2.0 * spread.log()
    squares = (x - mean).square() * (-logvar).exp()
    return (0.5 * (math.log(2.0 * math.pi) + logvar + squares)).flatten(1).sum(1).mean()


def laplace_nll(location: Tensor, x: Tensor, *, scale: float | Tensor = 1.0) -> Tensor:
    r"""Laplace negative log-likelihood: an absolute error in nats.

    .. math:: \frac1B \sum_i \sum_d \Big[ \log 2 b + \frac{|x_{id} - \mu_{id}|}{b} \Big]

    Args:
        location: Decoder output, ``(B, *event)``.
        x: Data, the same shape.
        scale: :math:`b > 0`, a number or a tensor that broadcasts.

    Returns:
        A scalar in nats.

    Example:
        >>> laplace_nll(torch.zeros(4, 1), torch.zeros(4, 1), scale=0.5).item()
        0.0
    """
    _check("laplace_nll", location, x)
    location, x = _wide(location), _wide(x)
    if not isinstance(scale, Tensor) and scale <= 0:
        raise ValueError(f"laplace_nll: expected scale > 0, got {scale}")
    spread = torch.as_tensor(scale, dtype=x.dtype, device=x.device)
    return ((2.0 * spread).log() + (x - location).abs() / spread).flatten(1).sum(1).mean()


def categorical_nll(logits: Tensor, x: Tensor) -> Tensor:
    r"""Categorical negative log-likelihood of one-hot data, classes along dim 1.

    .. math:: -\frac1B \sum_i \sum_d \sum_k x_{ikd} \log \operatorname{softmax}(l_{i \cdot d})_k

    Args:
        logits: Decoder output, ``(B, K, *event)``.
        x: One-hot data, the same shape.

    Returns:
        A scalar in nats.

    Example:
        >>> categorical_nll(torch.zeros(4, 2), torch.eye(2)[[0, 1, 1, 0]]).item()  # log 2
        0.6931...
    """
    _check("categorical_nll", logits, x)
    return -(_wide(x) * _wide(logits).log_softmax(1)).flatten(1).sum(1).mean()

r"""Entropies of what a variational bound predicts, never above the truth on average.

A bound :math:`H(v) + E \log q(v \mid g)` stays a lower one with :math:`H(v)` replaced by something
that is at most as large in expectation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from vaereg.functional.aggregated import pairwise_log_density
from vaereg.functional.families import base_of

__all__ = [
    "categorical_entropy",
    "entropy_per_row",
    "joint_probabilities",
    "mixture_entropy",
]


def categorical_entropy(probabilities: Tensor) -> Tensor:
    r"""Entropy of the mean of categorical rows.

    .. math:: H = -\sum_k \bar\pi_k \log \bar\pi_k, \qquad
        \bar\pi_k = \frac1n \sum_i \pi_{ik}, \quad n = \sum_{ik} \pi_{ik}

    The entropy is concave: over batches its mean is at most the entropy of the data set's mean.

    Args:
        probabilities: :math:`\pi`, ``(B, K)``; rows of zeros are missing and take no part.

    Returns:
        A scalar, in nats; 0 without a row. A class without a share has a finite gradient.

    Example:
        >>> categorical_entropy(torch.eye(2)).item()  # log 2
        0.6931...
    """
    pi = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    share = pi.sum(0) / _present(pi)
    return -(share * share.clamp(min=torch.finfo(pi.dtype).tiny).log()).sum()


def mixture_entropy(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    probabilities: Tensor | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""Entropy of the batch's mixture of Gaussian, or Gaussian and categorical, posteriors.

    .. math:: H = -\frac1n \sum_i \sum_k \pi_{ik} \log \frac1n \sum_j \pi_{jk}
        \prod_d \mathcal N(z_{id}; \mu_{jd}, \sigma_{jd}^2), \qquad n = \sum_{ik} \pi_{ik}

    for :math:`z_i \sim \mathcal N(\mu_i, \sigma_i^2)`; exact in the categorical variable. In
    expectation :math:`H(v \mid x) \le H \le H(v)`, the entropy of the aggregated posterior, for
    :math:`H - H(v \mid x)` is the InfoNCE bound at the exact density ratio. It is at most
    :math:`H(v \mid x) + \log n` therefore: the number of rows limits what it can show.

    Args:
        z: Samples, ``(B, D)``.
        mean: :math:`\mu`, ``(B, D)``.
        logvar: :math:`\log \sigma^2`, ``(B, D)``.
        probabilities: :math:`\pi`, ``(B, K)``; rows of zeros are missing and take no part. Default
            no categorical variable: :math:`K = 1, \pi = 1`. Each class costs a pass over all pairs
            of rows.
        backend: See :func:`vaereg.functional.pairwise_log_density`.

    Returns:
        A scalar, in nats; 0 without a row. Gradients reach all four tensors.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        | Representation Learning with Contrastive Predictive Coding (van den Oord et al., 2018),
          appendix A.1. https://arxiv.org/abs/1807.03748
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2, for a known
          conditional. https://arxiv.org/abs/1905.06922

    Example:
        >>> zeros = torch.zeros(4, 1)
        >>> mixture_entropy(zeros, zeros, zeros).item()  # at the mode: log(2 pi) / 2
        0.9189...
    """
    if z.shape != mean.shape:
        raise ValueError(
            f"mixture_entropy: expected a sample of each posterior, z of shape "
            f"{tuple(mean.shape)}, got {tuple(z.shape)}"
        )
    if probabilities is None:
        joint, _ = pairwise_log_density(z, mean, logvar, -math.log(len(z)), backend=backend)
        return -joint.mean()
    if probabilities.ndim != 2 or len(probabilities) != len(z):
        raise ValueError(
            f"mixture_entropy: expected probabilities of shape ({len(z)}, K), got "
            f"{tuple(probabilities.shape)}"
        )
    wide = torch.promote_types(torch.promote_types(z.dtype, probabilities.dtype), torch.float32)
    pi = probabilities.to(wide)
    log_pi = pi.clamp(min=torch.finfo(wide).tiny).log()
    # Weights are constants to the pairwise kernel. As one more coordinate, at its mode and of
    # log-variance -2 log pi, a component's weight has a gradient: log N(0; 0, pi^-2) = log pi + c.
    nought, constant = torch.zeros_like(pi[:, :1]), 0.5 * math.log(2.0 * math.pi)
    z, mean = torch.cat((z, nought), 1), torch.cat((mean, nought), 1)
    total = torch.zeros_like(pi[0, 0])
    for k in range(pi.shape[1]):
        spread = torch.cat((logvar, -2.0 * log_pi[:, k : k + 1]), 1)
        joint, _ = pairwise_log_density(z, mean, spread, backend=backend)
        total = total + (pi[:, k] * (joint + constant)).sum()
    n = _present(pi)
    return n.log() - total / n


def joint_probabilities(variables: Sequence[Tensor], limit: int = 4096) -> Tensor:
    r"""Probabilities of all joint states of variables that are independent given the row.

    .. math:: \pi_{i, (k, l, \dots)} = \pi_{ik} \, \pi'_{il} \cdots

    Args:
        variables: Probabilities of each, ``(B, K)`` or, for ``G`` variables at once,
            ``(B, G, K)``. A row of zeros in one of them, a missing label, is one in the result.
        limit: The largest number of joint states.

    Returns:
        ``(B, S)``, ``S`` the product of the numbers of classes.

    Raises:
        ValueError: If there are more states than ``limit``.

    Example:
        >>> joint_probabilities([torch.eye(2), torch.ones(2, 1, 3) / 3.0])[0]
        tensor([0.3333, 0.3333, 0.3333, 0.0000, 0.0000, 0.0000])
    """
    single = [v for each in variables for v in (each.unbind(1) if each.ndim == 3 else (each,))]
    joint = single[0]
    for v in single[1:]:
        if joint.shape[1] * v.shape[1] > limit:
            raise ValueError(
                f"expected at most {limit} joint states of categorical variables for their "
                f"entropy, got {' x '.join(str(each.shape[1]) for each in single)}"
            )
        joint = (joint.unsqueeze(2) * v.unsqueeze(1)).flatten(1)
    return joint


def entropy_per_row(p: Distribution, value: Tensor, index: Any = None) -> Tensor:
    r"""The entropy of each row's distribution, in closed form, summed over the event.

    Args:
        p: A distribution whose batch and event shapes broadcast to the value's: of each row, or
            one that all rows (and coordinates) share. Categorical ones describe one-hot rows.
        value: The draw, ``(B, *event)``.
        index: A slice or list of coordinates along dim 1; default all.

    Returns:
        ``(B,)``, in nats.

    Raises:
        NotImplementedError: If the distribution has no closed form, or none of a part.
        ValueError: If its shape does not broadcast to the value's.

    Example:
        >>> from torch.distributions import Uniform
        >>> entropy_per_row(Uniform(-1.0, 1.0), torch.zeros(2, 3))  # 3 log 2
        tensor([2.0794, 2.0794])
    """
    base: Any = base_of(p)
    event = base.logits.shape[-1:] if isinstance(base, Categorical) else base.event_shape
    shape = tuple(base.batch_shape) + tuple(event)
    pairs = zip(reversed(shape), reversed(value.shape), strict=False)
    if len(shape) > value.ndim or any(n not in (1, wanted) for n, wanted in pairs):
        raise ValueError(f"expected a prior that broadcasts to {tuple(value.shape)}, got {shape}")
    rows = base.entropy().expand(value.shape[: value.ndim - len(event)])
    if index is not None:
        if rows.ndim < 2:
            raise NotImplementedError(f"a part of {type(base).__name__}")
        rows = rows[:, index]
    return rows.flatten(1).sum(1) if rows.ndim > 1 else rows


def _present(pi: Tensor) -> Tensor:
    """The number of rows that are not missing, 1 where there is none."""
    total = pi.detach().sum()
    return torch.where(total == 0, 1.0, total)

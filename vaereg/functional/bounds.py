r"""Bounds on mutual information from critic scores.

Everywhere ``joint`` holds the scores :math:`T(a_i, b_i)` of rows of the joint distribution and
``product`` the scores :math:`T(a_i, b'_i)` of rows of the product of the marginals.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["donsker_varadhan", "jensen_shannon", "log_mean_exp", "mine_loss", "moving_log_average"]


def log_mean_exp(scores: Tensor) -> Tensor:
    r"""The log of a mean of exponentials, :math:`\log \frac1n \sum_i e^{s_i}`, over all entries.

    Example:
        >>> log_mean_exp(torch.tensor([0.0, math.log(3.0)])).item()  # log 2
        0.6931...
    """
    return torch.logsumexp(scores.flatten(), 0) - math.log(scores.numel())


def donsker_varadhan(
    joint: Tensor, product: Tensor, log_denominator: Tensor | None = None
) -> Tensor:
    r"""The Donsker-Varadhan bound, optionally with the bias-corrected gradient of MINE.

    .. math:: I(a; b) \ge E_{p(a, b)}[T] - \log E_{p(a) p(b)}[e^T]

    The value is always this expression on the minibatch. With ``log_denominator`` the *gradient*
    of the second term is :math:`E[e^{T} \nabla T] / \exp(\text{log\_denominator})` in place of
    the minibatch's own ratio, whose expectation is biased.

    Args:
        joint: Scores of joint rows, any shape.
        product: Scores of product rows, any shape.
        log_denominator: Log of a moving average of :math:`E[e^T]`, a scalar; it receives no
            gradient. It must not be far below the scores (:func:`moving_log_average` includes the
            current batch for that reason), or the gradient's weights overflow.

    Returns:
        A scalar, in nats.

    References:
        | Mutual Information Neural Estimation (Belghazi et al., 2018), eqs 10 and 12.
        | https://arxiv.org/abs/1801.04062

    Example:
        >>> donsker_varadhan(torch.ones(4), torch.zeros(4)).item()
        1.0
    """
    if log_denominator is None:
        return joint.mean() - log_mean_exp(product)
    value = joint.detach().mean() - log_mean_exp(product.detach())
    slope = joint.mean() - (product - log_denominator.detach()).exp().mean()
    return value + (slope - slope.detach())


def mine_loss(joint: Tensor, product: Tensor, log_denominator: Tensor | None = None) -> Tensor:
    r"""The critic's fitting loss of MINE: minus :func:`donsker_varadhan`.

    Args:
        joint: Scores of joint rows, any shape.
        product: Scores of product rows, any shape.
        log_denominator: See :func:`donsker_varadhan`.

    Returns:
        A scalar to be minimised over the critic, in nats.

    Example:
        >>> mine_loss(torch.ones(4), torch.zeros(4)).item()
        -1.0
    """
    return -donsker_varadhan(joint, product, log_denominator)


def moving_log_average(
    log_average: Tensor, weight: Tensor, log_batch: Tensor, decay: float
) -> tuple[Tensor, Tensor]:
    r"""One step of an exponential moving average, in log space.

    With :math:`m_0 = 0`, :math:`w_0 = 0` and the decay :math:`\rho`,

    .. math::
        m_t = \rho\, m_{t-1} + (1 - \rho)\, e^{\text{log\_batch}}, \qquad
        w_t = \rho\, w_{t-1} + (1 - \rho),

    and :math:`m_t / w_t` is the debiased average: it weighs all batches seen so far to a sum of 1.
    It includes the current batch, which bounds the ratio of the batch's own exponentials to the
    average by :math:`1 / (1 - \rho)`.

    Args:
        log_average: :math:`\log m_{t-1}`, ``-inf`` at the start; a scalar.
        weight: :math:`w_{t-1}`, 0 at the start; a scalar.
        log_batch: Log of the quantity on the current batch; a scalar.
        decay: :math:`\rho` in [0, 1).

    Returns:
        :math:`\log m_t` and :math:`w_t`; the debiased log-average is
        ``log_average - weight.log()``.

    Example:
        >>> start = torch.tensor(-math.inf), torch.tensor(0.0)
        >>> log_m, w = moving_log_average(*start, torch.tensor(150.0), 0.99)
        >>> (log_m - w.log()).item()  # one batch seen: its own value
        150.0
    """
    log_decay = math.log(decay) if decay > 0.0 else -math.inf
    log_average = torch.logaddexp(log_average + log_decay, log_batch + math.log1p(-decay))
    return log_average, decay * weight + (1.0 - decay)


def jensen_shannon(joint: Tensor, product: Tensor) -> Tensor:
    r"""The variational lower bound on the Jensen-Shannon divergence.

    .. math:: \mathrm{JSD}(p(a, b) \,\|\, p(a) p(b)) \ge
        \log 2 - \tfrac12 E_{p(a, b)}[\zeta(-T)] - \tfrac12 E_{p(a) p(b)}[\zeta(T)]

    with :math:`\zeta(t) = \log(1 + e^t)`; tight at :math:`T = \log p(a, b) / p(a) p(b)`.

    Args:
        joint: Scores of joint rows, any shape.
        product: Scores of product rows, any shape.

    Returns:
        A scalar of at most :math:`\log 2`, in nats.

    References:
        | f-GAN (Nowozin et al., 2016), table 2, rescaled to the divergence's own unit.
        | https://arxiv.org/abs/1606.00709

    Example:
        >>> jensen_shannon(torch.zeros(4), torch.zeros(4)).item()
        0.0
    """
    loss = F.softplus(-joint).mean() + F.softplus(product).mean()
    return math.log(2.0) - 0.5 * loss

r"""Bounds on mutual information from critic scores.

Everywhere ``joint`` holds the scores :math:`T(a_i, b_i)` of rows of the joint distribution and
``product`` the scores :math:`T(a_i, b'_i)` of rows of the product of the marginals.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "donsker_varadhan",
    "info_nce",
    "jensen_shannon",
    "log_mean_exp",
    "log_tail",
    "mine_loss",
    "moving_log_average",
    "nwj",
    "smile",
]


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


def nwj(joint: Tensor, product: Tensor) -> Tensor:
    r"""The bound of Nguyen, Wainwright and Jordan, also known as MINE-f or the f-divergence bound.

    .. math:: I(a; b) \ge E_{p(a, b)}[T] - e^{-1} E_{p(a) p(b)}[e^T]

    Tight at :math:`T = 1 + \log p(a, b) / p(a) p(b)`. Its minibatch value and gradient are
    unbiased, at the price of a variance that grows with the exponential of the scores. The second
    term is computed from :func:`log_mean_exp`; it overflows only where it is itself out of range.

    Args:
        joint: Scores of joint rows, any shape.
        product: Scores of product rows, any shape.

    Returns:
        A scalar, in nats.

    References:
        | Estimating divergence functionals and the likelihood ratio by convex risk minimization
          (Nguyen, Wainwright and Jordan, 2010). https://arxiv.org/abs/0809.0853
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2.
        | https://arxiv.org/abs/1905.06922

    Example:
        >>> nwj(torch.ones(4), torch.ones(4)).item()  # T = 1: no dependence
        0.0
    """
    return joint.mean() - (log_mean_exp(product) - 1.0).exp()


def log_tail(scores: Tensor, knee: float) -> Tensor:
    r"""The identity up to a knee, logarithmic beyond: scores whose exponential grows linearly.

    .. math:: \min(s, k) + \log\big(1 + \max(s - k, 0)\big)

    It is strictly increasing, takes every value and is once continuously differentiable; its
    exponential follows the tangent :math:`e^k (1 + s - k)` beyond the knee. A function of the pair
    as admissible as any other, it keeps :func:`nwj` a bound, finite and with a finite gradient.

    Args:
        scores: Any shape.
        knee: :math:`k`.

    Returns:
        The shape of ``scores``.

    Example:
        >>> log_tail(torch.tensor([-3.0, 10.0, 1e6]), knee=10.0)
        tensor([-3.0000, 10.0000, 23.8155])
    """
    # Only the excess enters the logarithm, so that neither branch has a gradient that is not
    # finite.
    excess = (scores - knee).clamp(min=0.0)
    return torch.where(scores > knee, knee + excess.log1p(), scores)


def info_nce(joint: Tensor, negatives: Tensor | None = None) -> Tensor:
    r"""InfoNCE: how well the true partner of each row is told from :math:`K - 1` false ones.

    .. math:: I(a; b) \ge \frac1B \sum_i \log
        \frac{e^{T(a_i, b_i)}}{\frac1K \big( e^{T(a_i, b_i)} + \sum_j e^{T(a_i, b'_{ij})} \big)}

    It never exceeds :math:`\log K`, the log of the number of candidates, however much information
    there is. Called with a square table of scores, whose rows are ``a`` and columns ``b``, the
    true pairs are its diagonal and the false ones the rest of each row: :math:`K = B`. Called with
    the scores of the true pairs and those of ``M`` others, e.g. of another batch, the true pair
    counts among the candidates: :math:`K = M + 1`.

    Args:
        joint: Scores of all pairs of a batch, ``(B, B)``; or of the true pairs, ``(B,)``.
        negatives: Scores of false pairs, ``(B, M)``, beside true pairs of shape ``(B,)``.

    Returns:
        A scalar of at most :math:`\log K`, in nats; 0 where there is one candidate only.

    Raises:
        ValueError: If the shapes are none of these.

    References:
        | Representation Learning with Contrastive Predictive Coding (van den Oord et al., 2018),
          section 2.3. https://arxiv.org/abs/1807.03748
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2.
        | https://arxiv.org/abs/1905.06922

    Example:
        >>> info_nce(100.0 * torch.eye(8)).item()  # log 8
        2.0794...
        >>> info_nce(torch.zeros(8), torch.zeros(8, 5)).item()
        0.0
    """
    if negatives is None:
        if joint.ndim != 2 or joint.shape[0] != joint.shape[1]:
            raise ValueError(
                "info_nce: expected scores of all pairs of shape (B, B), or scores of true pairs "
                f"with negatives, got {tuple(joint.shape)}"
            )
        own, candidates = joint.diagonal(), joint
    else:
        if joint.ndim != 1 or negatives.ndim != 2 or negatives.shape[0] != joint.shape[0]:
            raise ValueError(
                "info_nce: expected true pairs of shape (B,) and negatives of shape (B, M), got "
                f"{tuple(joint.shape)} and {tuple(negatives.shape)}"
            )
        own, candidates = joint, torch.cat((joint.unsqueeze(1), negatives), 1)
    return (own - candidates.logsumexp(1)).mean() + math.log(candidates.shape[1])


def smile(joint: Tensor, product: Tensor, clip: float = 5.0) -> Tensor:
    r"""The Donsker-Varadhan expression with clipped density ratios (SMILE).

    .. math:: E_{p(a, b)}[T]
        - \log E_{p(a) p(b)}\big[\operatorname{clip}(e^T, e^{-\tau}, e^{\tau})\big]

    Clipping bounds the variance of the second term. The price is a bias: for finite :math:`\tau`
    this is **no bound** on the mutual information, on either side; it tends to
    :func:`donsker_varadhan` as :math:`\tau` grows. A product row whose score is clipped has no
    gradient.

    Args:
        joint: Scores of joint rows, any shape.
        product: Scores of product rows, any shape.
        clip: :math:`\tau > 0`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: If ``clip`` is not positive.

    References:
        | Understanding the Limitations of Variational Mutual Information Estimators (Song and
          Ermon, 2020), section 4. https://arxiv.org/abs/1910.06222

    Example:
        >>> smile(torch.ones(4), torch.full((4,), 50.0), clip=5.0).item()
        -4.0
    """
    if clip <= 0.0:
        raise ValueError(f"smile: expected clip > 0, got {clip}")
    return joint.mean() - log_mean_exp(product.clamp(-clip, clip))

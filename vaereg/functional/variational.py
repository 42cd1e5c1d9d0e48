r"""Mutual information through a conditional model: Barber-Agakov from below, CLUB from above.

A network predicts one variable from the other, :math:`q(b \mid a)`. Its log-likelihood of joint
rows plus the entropy of ``b`` is a lower bound; its gain over product rows is an upper one where
the model is good.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "barber_agakov",
    "categorical_club",
    "categorical_log_likelihood",
    "gaussian_club",
    "gaussian_log_likelihood",
    "soft_clamp",
]


def _check(name: str, **tensors: Tensor) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) < 2 for shape in shapes.values()):
        raise ValueError(f"{name}: expected tensors of one shape (B, ...), got {shapes}")


def _check_other(name: str, b: Tensor, other: Tensor | None) -> None:
    if other is not None and other.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"{name}: expected other of shape (M, {', '.join(map(str, b.shape[1:]))}), got "
            f"{tuple(other.shape)}"
        )


def _rows(x: Tensor) -> Tensor:
    # Sums of squares lose their digits in half precision.
    return x.to(torch.promote_types(x.dtype, torch.float32)).flatten(1)


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    r"""A clamp whose gradient never dies: the identity but for the last unit at either end.

    .. math:: f(x) = h - \frac{m^2}{m + x - (h - m)} \quad \text{for } x > h - m

    with :math:`h` = ``high`` and :math:`m = \min(1, (h - l) / 2)`, and its mirror image at the
    lower end. It is strictly increasing and once continuously differentiable, and its slope falls
    with the square of the distance only: a network far outside comes back, whereas a hard clamp
    gives it no gradient and a sigmoid one that underflows.

    Args:
        x: Any shape.
        low: Lower end :math:`l`, not reached.
        high: Upper end :math:`h`, not reached.

    Returns:
        The shape of ``x``.

    Example:
        >>> soft_clamp(torch.tensor([-1e3, -4.0, 0.0, 5.0]), -5.0, 5.0)
        tensor([-4.9990, -4.0000,  0.0000,  4.5000])
    """
    m = min(1.0, 0.5 * (high - low))
    above = (x - (high - m)).clamp(min=0.0)
    below = ((low + m) - x).clamp(min=0.0)
    upper, lower = high - m * m / (m + above), low + m * m / (m + below)
    return torch.where(x > high - m, upper, torch.where(x < low + m, lower, x))


def gaussian_log_likelihood(b: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    r"""Log-density of each row under a Gaussian with diagonal covariance.

    .. math:: \log q(b_i \mid a_i) = -\tfrac12 \sum_d \Big[ \log 2 \pi + \log \sigma_{id}^2
        + \frac{(b_{id} - \mu_{id})^2}{\sigma_{id}^2} \Big]

    Args:
        b: Rows, ``(B, *event)``.
        mean: :math:`\mu`, the same shape.
        logvar: :math:`\log \sigma^2`, the same shape.

    Returns:
        ``(B,)``, in nats.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> zeros = torch.zeros(1, 2)
        >>> gaussian_log_likelihood(zeros, zeros, zeros).item()  # -log 2 pi
        -1.8378...
    """
    _check("gaussian_log_likelihood", b=b, mean=mean, logvar=logvar)
    b, mean, logvar = _rows(b), _rows(mean), _rows(logvar)
    squares = (b - mean).square() * (-logvar).exp()
    return -0.5 * (math.log(2.0 * math.pi) + logvar + squares).sum(1)


def categorical_log_likelihood(b: Tensor, logits: Tensor) -> Tensor:
    r"""Log-probability of each one-hot row under a categorical distribution.

    .. math:: \log q(b_i \mid a_i) = \sum_k b_{ik} \log \operatorname{softmax}(l_i)_k

    A relaxed row weighs the classes; a row of zeros, a missing label, gives 0.

    Args:
        b: One-hot or relaxed rows, ``(B, C)``.
        logits: Unnormalised log-probabilities, ``(B, C)``.

    Returns:
        ``(B,)``, in nats.

    Raises:
        ValueError: If the shapes differ or are not ``(B, C)``.

    Example:
        >>> categorical_log_likelihood(torch.eye(2), torch.zeros(2, 2))
        tensor([-0.6931, -0.6931])
    """
    _check("categorical_log_likelihood", b=b, logits=logits)
    if b.ndim != 2:
        raise ValueError(
            f"categorical_log_likelihood: expected shape (B, C), got {tuple(b.shape)}"
        )
    logits = _rows(logits)
    return (_rows(b) * logits.log_softmax(1)).sum(1)


def barber_agakov(
    log_likelihood: Tensor, entropy: Tensor | float, weights: Tensor | None = None
) -> Tensor:
    r"""The Barber-Agakov bound from log-likelihoods and an entropy.

    .. math:: I(a; b) \ge H(b) + \frac{1}{\sum_i w_i} \sum_i w_i \log q(b_i \mid a_i)

    Tight at the exact conditional; it falls short by :math:`E\, \mathrm{KL}(p(b \mid a) \|
    q(b \mid a))`.

    Args:
        log_likelihood: :math:`\log q(b_i \mid a_i)`, ``(B,)``.
        entropy: :math:`H(b)`, a scalar.
        weights: :math:`w_i \ge 0`, e.g. 1 for labelled rows and 0 for others; default 1.

    Returns:
        A scalar, in nats; 0 where the weights sum to 0.

    References:
        | The IM Algorithm: A Variational Approach to Information Maximization (Barber and Agakov,
          2003), section 2.

    Example:
        >>> barber_agakov(torch.zeros(4), math.log(2.0)).item()  # b is known from a: I = H(b)
        0.6931...
    """
    if weights is None:
        return log_likelihood.mean() + entropy
    total = weights.sum()
    # At least 1 for whole labels, so that no labelled row gives 0 / 1; NaN, from a label out of
    # range, passes.
    mean = (weights * log_likelihood).sum() / torch.where(total == 0, 1.0, total)
    return mean + entropy * (total != 0).to(mean)


def gaussian_club(
    b: Tensor, mean: Tensor, logvar: Tensor, *, other: Tensor | None = None
) -> Tensor:
    r"""The contrastive log-ratio of a Gaussian conditional model: CLUB, in closed form.

    .. math:: \frac1B \sum_i \log q(b_i \mid a_i)
        - \frac{1}{B (B - 1)} \sum_i \sum_{j \ne i} \log q(b_j \mid a_i)

    An upper bound on :math:`I(a; b)` where :math:`q(b \mid a)` is the exact conditional, and as
    long as it is closer to the joint than to the product of the marginals. At the exact
    conditional the value is :math:`I(a; b)` plus :math:`\mathrm{KL}(p(a) p(b) \| p(a, b))`: it can
    be far above.

    The paper's second sum includes :math:`j = i` and divides by :math:`B^2`, which shrinks the
    estimate by :math:`(B - 1) / B`; we leave it out. For a Gaussian the mean over ``j`` needs the
    mean :math:`m` and the variance :math:`V` of ``b`` only: with :math:`c = b - m` and
    :math:`\nu = \mu - m` the value is

    .. math:: -\frac{1}{2 (B - 1)} \sum_i \sum_d
        \frac{c_{id}^2 - V_d - 2 c_{id} \nu_{id}}{\sigma_{id}^2}

    and needs no tensor of ``(B, B, D)``. With ``other`` the product mean, and so :math:`m` and
    :math:`V`, is over its rows, and :math:`B - 1` becomes :math:`B`.

    Args:
        b: The predicted variable, ``(B, *event)``.
        mean: :math:`\mu(a_i)`, the same shape.
        logvar: :math:`\log \sigma^2(a_i)`, the same shape.
        other: Independent rows of ``b`` for the product of marginals, ``(M, *event)``.

    Returns:
        A scalar, in nats; 0 with zero gradient for a lone row without ``other``.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        | CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information (Cheng et al., 2020),
          section 3. https://arxiv.org/abs/2006.12013

    Example:
        >>> b = torch.tensor([[1.0], [-1.0]])
        >>> gaussian_club(b, b, torch.zeros(2, 1)).item()  # log q(b | b) - log q(-b | b)
        2.0
    """
    _check("gaussian_club", b=b, mean=mean, logvar=logvar)
    _check_other("gaussian_club", b, other)
    b, mean, logvar = _rows(b), _rows(mean), _rows(logvar)
    reference = b if other is None else _rows(other)
    centre = reference.mean(0)
    variance = (reference - centre).square().mean(0)
    c, nu = b - centre, mean - centre
    # A lone row has c = 0 and V = 0: its 0 / 1 is the documented value.
    pairs = max(b.shape[0] - 1, 1) if other is None else b.shape[0]
    return -0.5 * ((c.square() - variance - 2.0 * c * nu) * (-logvar).exp()).sum() / pairs


def categorical_club(b: Tensor, logits: Tensor, *, other: Tensor | None = None) -> Tensor:
    r"""The contrastive log-ratio of a categorical conditional model: CLUB, in closed form.

    As :func:`gaussian_club` with :math:`\log q(b_j \mid a_i) = \sum_k b_{jk} \log q_{ik}`. The
    product mean needs the class frequencies :math:`m` only; with :math:`n` rows present it is

    .. math:: \frac{1}{n - 1} \sum_i \sum_k (b_{ik} - m_k) \log q_{ik}

    and with ``other`` the frequencies are those of its rows, and :math:`n - 1` becomes :math:`n`.
    A row of zeros is a missing label and takes no part, here and in ``other``.

    Args:
        b: One-hot or relaxed rows, ``(B, C)``.
        logits: Unnormalised log-probabilities from ``a``, ``(B, C)``.
        other: Independent rows of ``b``, ``(M, C)``.

    Returns:
        A scalar, in nats; 0 with zero gradient where no pair is left: fewer than two rows present,
        or none present in ``b`` or in ``other``.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        | CLUB (Cheng et al., 2020), section 3. https://arxiv.org/abs/2006.12013

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> categorical_club(torch.eye(2), logits).item()  # each row: its logit less the other's
        2.0
    """
    _check("categorical_club", b=b, logits=logits)
    if b.ndim != 2:
        raise ValueError(f"categorical_club: expected shape (B, C), got {tuple(b.shape)}")
    _check_other("categorical_club", b, other)
    b, log_q = _rows(b), _rows(logits).log_softmax(1)
    reference = b if other is None else _rows(other)
    present, seen = b.detach().sum(1, keepdim=True), reference.detach().sum()
    share = reference.sum(0) / seen.clamp(min=1.0)
    gain = ((b - present * share) * log_q).sum()
    pairs = present.sum() - (1.0 if other is None else 0.0)
    return gain * seen.clamp(max=1.0) / pairs.clamp(min=1.0)

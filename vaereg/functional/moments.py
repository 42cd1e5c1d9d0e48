r"""Second moments of the aggregated posterior :math:`q(z) = E_x[q(z \mid x)]` of a minibatch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dip_penalty", "expected_covariance", "posterior_covariance"]


def expected_covariance(variance: Tensor) -> Tensor:
    r"""The mean over the rows of the posteriors' own covariances.

    .. math:: E_x[\Sigma] = \frac1B \sum_i \Sigma_i

    Args:
        variance: :math:`\operatorname{diag} \Sigma_i` of factorised posteriors, ``(B, D)``, or
            :math:`\Sigma_i`, ``(B, D, D)``; in squared units of z.

    Returns:
        ``(D, D)``; diagonal for factorised posteriors.

    Raises:
        ValueError: If the shape is neither.

    Example:
        >>> expected_covariance(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[2., 0.],
                [0., 3.]])
    """
    if variance.ndim not in (2, 3) or variance.shape[1:-1] not in ((), variance.shape[-1:]):
        raise ValueError(
            "expected_covariance: expected variance of shape (B, D) or (B, D, D), got "
            f"{tuple(variance.shape)}"
        )
    mean = variance.to(torch.promote_types(variance.dtype, torch.float32)).mean(0)
    return mean.diag_embed() if mean.ndim == 1 else mean


def posterior_covariance(mean: Tensor, variance: Tensor | None = None) -> Tensor:
    r"""The covariance of the aggregated posterior, by the law of total covariance.

    .. math:: \operatorname{Cov}_{q(z)}[z] = \operatorname{Cov}_x[\mu] + E_x[\Sigma], \qquad
        \operatorname{Cov}_x[\mu] = \frac1B \sum_i (\mu_i - \bar\mu)(\mu_i - \bar\mu)^\top

    Exact for the mixture of the batch's posteriors, hence divided by :math:`B`: for
    :math:`\mu_i = 0` and :math:`\Sigma_i = \sigma^2 I` it is :math:`\sigma^2 I`. (The code of the
    2020 thesis centres over the coordinates, does not divide by :math:`B` and squares the
    variances.)

    Args:
        mean: :math:`\mu_i`, ``(B, D)``, in units of z.
        variance: As for :func:`expected_covariance`; by default :math:`\operatorname{Cov}_x[\mu]`
            alone is returned.

    Returns:
        ``(D, D)``, in squared units of z, in float32 at least.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar
          et al., 2018), covariance of the inferred prior. https://arxiv.org/abs/1711.00848

    Example:
        >>> posterior_covariance(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.ones(2, 2))
        tensor([[2., 0.],
                [0., 1.]])
    """
    if mean.ndim != 2:
        raise ValueError(
            f"posterior_covariance: expected mean of shape (B, D), got {tuple(mean.shape)}"
        )
    mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
    centred = mean - mean.mean(0)
    # Autocast would round the sums of squares to 8 bits.
    with torch.autocast(mean.device.type, enabled=False):
        covariance = centred.mT @ centred / mean.shape[0]
    if variance is None:
        return covariance
    if variance.shape[:2] != mean.shape:
        raise ValueError(
            f"posterior_covariance: expected variance of the rows and columns of mean, "
            f"{tuple(mean.shape)}, got {tuple(variance.shape)}"
        )
    return covariance + expected_covariance(variance)


def dip_penalty(covariance: Tensor, *, off_diagonal: float, diagonal: float) -> Tensor:
    r"""The distance of a covariance from the identity, weighed on and off the diagonal.

    .. math:: \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2

    Args:
        covariance: :math:`C`, ``(D, D)``.
        off_diagonal: :math:`\lambda_{od}`.
        diagonal: :math:`\lambda_d`.

    Returns:
        A scalar, in squared units of :math:`C`.

    Raises:
        ValueError: If ``covariance`` is not square.

    References:
        | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar
          et al., 2018), DIP-VAE-I and DIP-VAE-II. https://arxiv.org/abs/1711.00848

    Example:
        >>> c = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
        >>> dip_penalty(c, off_diagonal=10.0, diagonal=1.0).item()
        24.0
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(
            f"dip_penalty: expected covariance of shape (D, D), got {tuple(covariance.shape)}"
        )
    variances = covariance.diagonal()
    # Squares off the diagonal are summed as such: a difference of two sums would cancel.
    rest = covariance - variances.diag_embed()
    return off_diagonal * rest.square().sum() + diagonal * (variances - 1.0).square().sum()

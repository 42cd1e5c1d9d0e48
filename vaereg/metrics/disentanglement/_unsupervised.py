r"""Scores that need no factors: total correlation and Wasserstein correlation as if Gaussian."""

from __future__ import annotations

import numpy as np

from vaereg.metrics.disentanglement._arrays import Array, Floats, as_codes

__all__ = ["gaussian_total_correlation", "wasserstein_correlation"]


def gaussian_total_correlation(codes: Array) -> float:
    r"""The total correlation of the Gaussian with the covariance of the codes, in nats.

    .. math::
        \mathrm{KL}\Big(\mathcal N(\mu, \Sigma) \,\Big\|\, \prod_d \mathcal N(\mu_d, \Sigma_{dd})
        \Big) = \frac12 \Big( \sum_d \log \Sigma_{dd} - \log \det \Sigma \Big)

    It is 0 for uncorrelated codes, dependent though they may be, and unchanged by scales.

    Args:
        codes: Means or samples of the posteriors, ``(n, D)``.

    Returns:
        Nats. Dead codes are left out: a constant is independent of everything (the published
        formula gives nan). Codes of which one is a linear function of others, as in fewer rows
        than codes, give inf; in float32 only where their means are near 0 beside their spread,
        for the relation is else hidden by rounding.

    Raises:
        ValueError: If there are fewer than two rows, or a code is not finite.

    References:
        | Challenging Common Assumptions (Locatello et al., 2019), section 5.2.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1000, 2))
        >>> codes = x @ np.array([[1.0, 0.6], [0.0, 0.8]])
        >>> round(gaussian_total_correlation(codes), 2)  # -log(1 - 0.6 ** 2) / 2 = 0.22
        0.23
        >>> gaussian_total_correlation(np.concatenate([x, x], 1))
        inf
    """
    z = _alive(codes)
    if not z.shape[1]:
        return 0.0
    z = z / np.sqrt((z**2).sum(0))
    eigenvalues = np.linalg.svd(z, compute_uv=False) ** 2
    if len(eigenvalues) < z.shape[1] or eigenvalues.min() < z.shape[1] * _ROUNDING:
        return float("inf")
    return float(max(0.0, -0.5 * np.log(eigenvalues).sum()))


def wasserstein_correlation(codes: Array, *, normalize: bool = False) -> float:
    r"""The Wasserstein distance from independence of the Gaussian with the codes' covariance.

    .. math::
        W_2^2\Big(\mathcal N(\mu, \Sigma), \prod_d \mathcal N(\mu_d, \Sigma_{dd})\Big)
        = 2 \operatorname{tr} \Sigma
        - 2 \operatorname{tr} \big( D^{1/2} \Sigma D^{1/2} \big)^{1/2},
        \qquad D = \operatorname{diag} \Sigma

    Args:
        codes: Means or samples of the posteriors, ``(n, D)``.
        normalize: Divide by :math:`\operatorname{tr} \Sigma`, so that a common scale of all codes
            has no influence.

    Returns:
        The squared distance, in squared units of the codes; 0 for uncorrelated codes. Dead codes
        add nothing; where all are dead it is 0.

    Raises:
        ValueError: If there are fewer than two rows, or a code is not finite.

    References:
        | Challenging Common Assumptions (Locatello et al., 2019), section 5.2.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> z = np.array([[1.0], [-1.0]])
        >>> round(wasserstein_correlation(np.concatenate([z, z], 1), normalize=True), 3)  # 2 - √2
        0.586
    """
    z = _alive(codes)
    if not z.shape[1]:
        return 0.0
    covariance = np.transpose(z) @ z / (len(z) - 1)
    scale = np.sqrt(np.diag(covariance))
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance * np.outer(scale, scale)), 0.0))
    total = float(np.trace(covariance))
    return max(0.0, 2.0 * (total - float(roots.sum()))) / (total if normalize else 1.0)


_ROUNDING = 64 * float(np.finfo(np.float64).eps)


def _alive(codes: Array) -> Floats:
    """Centred codes in float64, without the dead."""
    z = as_codes(codes)
    if len(z) < 2:
        raise ValueError(f"codes: expected at least 2 rows, got {len(z)}")
    z = z[:, z.min(0) != z.max(0)].astype(np.float64)
    return z - z.mean(0)

r"""Kullback-Leibler divergences in closed form, in nats.

The dispatch is our own, on types: :func:`torch.distributions.kl_divergence` keeps a registry that
``torch.compile(fullgraph=True)`` cannot trace. It serves as the eager fallback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Laplace,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    kl_divergence,
)
from torch.nn import functional as F

from vaereg.functional.families import base_of

__all__ = ["gaussian_kl", "kl_per_row", "kl_terms"]


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | float = 0.0,
    prior_logvar: Tensor | float = 0.0,
) -> Tensor:
    r"""Element-wise KL of two Gaussians.

    .. math:: \mathrm{KL}\big(\mathcal N(\mu, \sigma^2) \,\|\, \mathcal N(m, \tau^2)\big) =
        \tfrac12 \Big[ \log \tau^2 - \log \sigma^2
        + \frac{\sigma^2 + (\mu - m)^2}{\tau^2} - 1 \Big]

    Args:
        mean: :math:`\mu`, any shape.
        logvar: :math:`\log \sigma^2`, the same shape.
        prior_mean: :math:`m`, broadcastable.
        prior_logvar: :math:`\log \tau^2`, broadcastable.

    Returns:
        The KL of each element, in nats; sum over the event, then average over the batch.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix B.
        | https://arxiv.org/abs/1312.6114

    Example:
        >>> gaussian_kl(torch.ones(1), torch.zeros(1)).item()
        0.5
    """
    prior_logvar = torch.as_tensor(prior_logvar, dtype=logvar.dtype, device=logvar.device)
    log_ratio = logvar - prior_logvar
    # expm1(r) - r keeps its digits where the two variances nearly agree.
    shift = (mean - prior_mean).square() * (-prior_logvar).exp()
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + shift)


def _normal(q: Any, p: Any) -> Tensor:
    log_ratio = 2.0 * (q.scale.log() - p.scale.log())
    shift = ((q.loc - p.loc) / p.scale).square()
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + shift)


def _laplace(q: Any, p: Any) -> Tensor:
    distance = (q.loc - p.loc).abs()
    ratio = q.scale / p.scale
    return -ratio.log() + distance / p.scale + ratio * (-distance / q.scale).exp() - 1.0


def _bernoulli(q: Any, p: Any) -> Tensor:
    # sum over the two outcomes of pi (log pi - log rho), each log a log-sigmoid of logits.
    positive = F.logsigmoid(q.logits) - F.logsigmoid(p.logits)
    negative = F.logsigmoid(-q.logits) - F.logsigmoid(-p.logits)
    share = q.logits.sigmoid()
    return share * positive + (1.0 - share) * negative


def _categorical(q: Any, p: Any) -> Tensor:
    log_q, log_p = q.logits.log_softmax(-1), p.logits.log_softmax(-1)
    probabilities = log_q.exp()
    # A class that q excludes counts 0 whatever p says: 0 * (-inf - ...) would be nan.
    difference = torch.where(probabilities > 0, log_q - log_p, torch.zeros_like(log_q))
    return (probabilities * difference).sum(-1)


_TERMS: dict[type[Distribution], Callable[[Any, Any], Tensor]] = {
    Normal: _normal,
    Laplace: _laplace,
    Bernoulli: _bernoulli,
    Categorical: _categorical,
    OneHotCategorical: _categorical,
}


def kl_terms(q: Distribution, p: Distribution) -> Tensor | None:
    r"""KL of each independent factor of a factorised pair of one known family.

    Args:
        q: Posterior of batch shape ``(B,)``.
        p: Prior that broadcasts with it.

    Returns:
        ``(B, *factors)`` in nats: for Gaussian codes one entry a coordinate, for categorical
        codes one entry a variable (``(B,)`` for a single one). ``None`` where the pair has no
        such form (different families, a full covariance, an unknown family).

    Example:
        >>> q = Normal(torch.ones(2, 3), torch.ones(2, 3))
        >>> kl_terms(q, Normal(torch.zeros(3), torch.ones(3))).sum(1)
        tensor([1.5000, 1.5000])
    """
    q_base, p_base = base_of(q), base_of(p)
    if type(q_base) is not type(p_base) or type(q_base) not in _TERMS:
        return None
    return _TERMS[type(q_base)](q_base, p_base)


def kl_per_row(q: Distribution, p: Distribution, value: Tensor | None = None) -> Tensor:
    r"""The KL of each row, :math:`\mathrm{KL}(q(z \mid x_i) \,\|\, p(z))`.

    Closed form where there is one (here, else torch's own registry); otherwise the one-sample
    estimate :math:`\log q(z_i \mid x_i) - \log p(z_i)` at the reparameterised ``value``, which is
    unbiased and has the pathwise gradient.

    Args:
        q: Posterior of batch shape ``(B,)``.
        p: Prior of batch shape ``(B,)`` or ``()``.
        value: A reparameterised sample of ``q``, ``(B, *event)``, for the sampled form.

    Returns:
        ``(B,)`` in nats.

    Raises:
        TypeError: If there is no closed form and no reparameterised sample to fall back on.
        ValueError: If the event shapes differ.

    Example:
        >>> from torch.distributions import Independent, MixtureSameFamily
        >>> q = Independent(Normal(torch.ones(2, 3), torch.ones(2, 3)), 1)
        >>> p = Independent(Normal(torch.zeros(2, 3), torch.ones(2, 3)), 1)
        >>> kl_per_row(q, p)
        tensor([1.5000, 1.5000])
    """
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"kl: expected a prior of event shape {tuple(q.event_shape)}, "
            f"got {tuple(p.event_shape)}"
        )
    terms = kl_terms(q, p)
    if terms is not None:
        return terms.flatten(1).sum(1) if terms.ndim > 1 else terms
    if type(q) is MultivariateNormal and type(p) is MultivariateNormal:
        return _multivariate_normal(q, p)
    try:
        rows = cast(Any, kl_divergence)(q, p)
    except NotImplementedError:
        if value is None or not q.has_rsample:
            raise TypeError(
                f"kl: expected a pair with a closed form or a reparameterised posterior, got "
                f"{type(base_of(q)).__name__} and {type(base_of(p)).__name__}"
            ) from None
        rows = cast(Any, q).log_prob(value) - cast(Any, p).log_prob(value)
    # Independent coordinates that nobody declared an event are batch dimensions to torch.
    return cast(Tensor, rows.flatten(1).sum(1) if rows.ndim > 1 else rows)


def _multivariate_normal(q: Any, p: Any) -> Tensor:
    dimension = q.loc.shape[-1]
    shape = cast(Any, torch.broadcast_shapes)(q.scale_tril.shape, p.scale_tril.shape)
    tril, solve = p.scale_tril.expand(shape), cast(Any, torch.linalg.solve_triangular)
    ratio: Tensor = solve(tril, q.scale_tril.expand(shape), upper=False)
    gap: Tensor = solve(tril, (p.loc - q.loc).unsqueeze(-1), upper=False)
    log_det: Tensor = (p.scale_tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1) - (
        q.scale_tril.diagonal(dim1=-2, dim2=-1).log()
    ).sum(-1)
    quadratic = ratio.square().sum((-2, -1)) + gap.square().sum((-2, -1))
    return log_det + 0.5 * (quadratic - dimension)

"""The plain form of the pairwise log-density, with the (B, M, D) tensor that it needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["pairwise_reference", "weight_rows"]


def weight_rows(
    weights: Tensor, own: Tensor | None, offset: int, begin: int, end: int, m: int
) -> Tensor:
    """Log-weights of rows ``begin`` to ``end``: ``(end - begin, M)``, or ``(1, 1)`` for a scalar.

    Args:
        weights: ``()``, ``(M,)`` or ``(B, M)``.
        own: ``()`` or ``(B,)``: the weight at ``(i, i + offset)`` in place of the others'.
        offset: See ``own``.
        begin: First row.
        end: Row after the last.
        m: Number of components.
    """
    rows = weights[begin:end] if weights.ndim == 2 else weights.reshape(1, -1)
    if own is None:
        return rows
    i = torch.arange(begin, end, device=weights.device)[:, None]
    at = i + offset == torch.arange(m, device=weights.device)
    return torch.where(at, own[begin:end, None] if own.ndim else own, rows)


def pairwise_reference(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    weights: Tensor | float,
    own: Tensor | None,
    offset: int,
) -> tuple[Tensor, Tensor]:
    """Joint ``(B,)`` and marginals ``(B, D)``, differentiable any number of times.

    Args:
        z: ``(B, D)``.
        mean: ``(M, D)``.
        logvar: ``(M, D)``.
        weights: Log-weights, a number, ``()``, ``(M,)`` or ``(B, M)``.
        own: Log-weight at ``(i, i + offset)``, ``()`` or ``(B,)``, or None.
        offset: See ``own``.
    """
    # The factor 1/2 of the square goes into the scale: one pass over (B, M, D) less.
    t = (z[:, None] - mean) * (math.sqrt(0.5) * (-0.5 * logvar).exp())
    density = -0.5 * (logvar + math.log(2.0 * math.pi)) - t.square()
    if not isinstance(weights, Tensor):
        if own is None and math.isfinite(weights):
            return density.sum(2).logsumexp(1) + weights, density.logsumexp(1) + weights
        weights = z.new_full((), weights)
    w = weight_rows(weights, own, offset, 0, len(z), len(mean))
    return _logsumexp(density.sum(2) + w), _logsumexp(density + w[..., None])


def _logsumexp(x: Tensor) -> Tensor:
    """Over dim 1; -inf with gradient 0, and not nan, where all terms are -inf."""
    # Nothing to shift by where the maximum is -inf, and no gradient through the maximum.
    top = x.detach().amax(1, keepdim=True)
    top = torch.where(top == -math.inf, 0.0, top)
    total = (x - top).exp().sum(1)
    some = total > 0.0
    # The inner where keeps log(0) out of the graph, the outer one its value.
    value = torch.where(some, total, 1.0).log() + top.squeeze(1)
    return torch.where(some | total.isnan(), value + 0.0 * total.detach(), -math.inf)

r"""The aggregated posterior :math:`q(z) = \frac1N \sum_n q(z \mid x_n)`, read from a minibatch."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from vaereg.ops.dispatch import BACKENDS, pairwise

__all__ = ["aggregated_log_densities", "log_weights", "pairwise_log_density"]

Estimator = Literal["mss", "mws", "plain"]


def log_weights(batch: int, dataset_size: int, kind: Estimator = "mss") -> tuple[float, float]:
    r"""Log-weights with which :math:`M` components of a batch stand for a dataset of :math:`N`.

    .. math::
        \text{plain: } w_{ij} = \frac1M, \qquad \text{mws: } w_{ij} = \frac1{N M}, \qquad
        \text{mss: } w_{ii} = \frac1N,\; w_{ij} = \frac{N - 1}{N (M - 1)}

    ``mss`` is stratified: the row's own posterior has its true share of :math:`q(z)`, all others
    share the rest, so that the sum is unbiased for :math:`q(z_i)` over batches without
    replacement, and exact at :math:`M = N`. ``mws`` differs from ``plain`` by the constant
    :math:`\log N`: its gradient is the plain mixture's, and its value is no density.

    Args:
        batch: :math:`M`, the number of components: rows of the batch, gathered ones and those of
            a memory bank.
        dataset_size: :math:`N`.
        kind: ``"mss"``, ``"mws"`` or ``"plain"``.

    Returns:
        Log-weight of every other component, and of a row's own.

    Raises:
        ValueError: If ``kind`` is unknown, a size is no positive integer, the dataset is smaller
            than the batch, or ``mss`` is asked of one component for more than one row.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), appendix C; the
          stratified weights averaged over which other sample carries the remainder.
        | https://arxiv.org/abs/1802.04942

    Example:
        >>> others, own = log_weights(4, 100)
        >>> round(math.exp(own) + 3 * math.exp(others), 12)
        1.0
    """
    for name, value in (("batch", batch), ("dataset_size", dataset_size)):
        if isinstance(value, bool) or not isinstance(value, Integral):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{name}: expected an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if dataset_size < batch:
        raise ValueError(
            f"dataset_size: expected the number of rows of the whole dataset, at least the "
            f"{batch} components of the batch, got {dataset_size}"
        )
    if kind == "plain":
        return -math.log(batch), -math.log(batch)
    if kind == "mws":
        return -math.log(batch * dataset_size), -math.log(batch * dataset_size)
    if kind != "mss":
        raise ValueError(f"estimator: expected mss, mws or plain, got {kind!r}")
    if dataset_size == 1:
        return -math.inf, 0.0
    if batch == 1:
        raise ValueError(
            "batch: expected at least 2 components for mss, which needs another row to stand for "
            f"the other {dataset_size - 1}, got 1"
        )
    others = math.log(dataset_size - 1) - math.log(dataset_size) - math.log(batch - 1)
    return others, -math.log(dataset_size)


def pairwise_log_density(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    log_weights: Tensor | float | None = None,
    *,
    own_log_weight: Tensor | float | None = None,
    offset: int = 0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Log-densities of weighted mixtures of factorised Gaussians, joint and by coordinate.

    .. math::
        \text{joint}_i = \log \sum_j w_{ij} \prod_d \mathcal N(z_{id}; \mu_{jd}, \sigma_{jd}^2),
        \qquad
        \text{marginals}_{id} = \log \sum_j w_{ij} \mathcal N(z_{id}; \mu_{jd}, \sigma_{jd}^2)

    It equals

    .. code-block:: python

        density = Normal(mean, (0.5 * logvar).exp()).log_prob(z[:, None])  # (B, M, D)
        joint = (density.sum(2) + log_weights).logsumexp(1)
        marginals = (density + log_weights[..., None]).logsumexp(1)

    without the ``(B, M, D)`` tensor. Gradients reach ``z``, ``mean`` and ``logvar``, once (the
    ``reference`` any number of times). Weights are constants. Where all weights of a row are 0,
    its values are -inf with gradient 0. 16-bit inputs are computed, and returned, in float32.

    Args:
        z: Points, ``(B, D)``.
        mean: :math:`\mu`, ``(M, D)``.
        logvar: :math:`\log \sigma^2`, ``(M, D)``. A standard deviation handed in by mistake shows
            as densities that hardly fall off: :math:`\sigma^2 = e^\sigma \ge 1`.
        log_weights: :math:`\log w`: a number, ``(M,)`` or ``(B, M)``; -inf leaves a component out.
            Default 0.
        own_log_weight: In its place at :math:`(i, i + \text{offset})`: a number or ``(B,)``. It
            enters by mask, not by a correction that would cancel.
        offset: Where the rows' own components begin; for gathered components, rank times B.
        backend: ``"reference"`` (the equation above), ``"cpu"`` (a compiled kernel where a C++
            compiler is at hand, else chunks of rows), ``"triton"``, or ``"auto"``.

    Returns:
        ``joint`` ``(B,)`` and ``marginals`` ``(B, D)`` in nats.

    Raises:
        ImportError: If the backend is ``triton`` and Triton is not installed.
        ValueError: If shapes, devices or the backend do not fit.
        TypeError: If an input is no floating-point tensor.

    Example:
        >>> z = torch.zeros(1, 2)
        >>> joint, marginals = pairwise_log_density(z, torch.zeros(3, 2), torch.zeros(3, 2))
        >>> joint  # log 3 - log 2 pi
        tensor([-0.7393])
        >>> marginals
        tensor([[0.1797, 0.1797]])
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    for name, tensor in (("z", z), ("mean", mean), ("logvar", logvar)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__  # pyright: ignore
            raise TypeError(f"{name}: expected a floating-point tensor, got {got}")
        if tensor.ndim != 2:
            raise ValueError(f"{name}: expected shape (rows, D), got {tuple(tensor.shape)}")
    if mean.shape != logvar.shape or mean.shape[1] != z.shape[1]:
        raise ValueError(
            f"mean, logvar: expected (M, {z.shape[1]}) each, for z {tuple(z.shape)}, got "
            f"{tuple(mean.shape)} and {tuple(logvar.shape)}"
        )
    if not len(z) or not mean.numel():
        raise ValueError(
            f"z, mean: expected at least one row and one column, got {tuple(z.shape)} and "
            f"{tuple(mean.shape)}"
        )
    if not z.device == mean.device == logvar.device:
        raise ValueError(
            f"mean, logvar: expected the device of z, {z.device}, got {mean.device} and "
            f"{logvar.device}"
        )
    dtype = torch.promote_types(torch.promote_types(z.dtype, mean.dtype), logvar.dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    b, m = len(z), len(mean)
    weights = 0.0 if log_weights is None else log_weights
    if isinstance(weights, Tensor):
        weights = _weight("log_weights", weights, z, dtype, [(), (m,), (b, m)])
    own = None
    if own_log_weight is not None:
        own = _weight("own_log_weight", own_log_weight, z, dtype, [(), (b,)])
        if not isinstance(offset, int) or not 0 <= offset <= m - b:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"offset: expected an integer, 0 <= offset <= {m - b}, so that each of {b} rows "
                f"has a component of its own among {m}, got {offset}"
            )
    weights = weights if isinstance(weights, Tensor) else float(weights)
    return pairwise(z.to(dtype), mean.to(dtype), logvar.to(dtype), weights, own, offset, backend)


def _weight(
    name: str,
    value: Tensor | float,
    like: Tensor,
    dtype: torch.dtype,
    shapes: list[tuple[int, ...]],
) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.full((), float(value), dtype=dtype, device=like.device)
    if value.requires_grad:
        raise ValueError(f"{name}: expected constants, got a tensor that requires a gradient")
    if tuple(value.shape) not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(value.shape)}")
    return value.to(dtype=dtype, device=like.device)


def aggregated_log_densities(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    *,
    dataset_size: int,
    estimator: Estimator = "mss",
    offset: int = 0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Estimates of :math:`\log q(z_i)` and :math:`\log q(z_{id})` from a batch of posteriors.

    :func:`pairwise_log_density` with the weights of :func:`log_weights`.

    Args:
        z: Samples of the first ``B`` posteriors from ``offset``, ``(B, D)``.
        mean: Means of the posteriors, ``(M, D)``.
        logvar: Log-variances, ``(M, D)``.
        dataset_size: :math:`N`.
        estimator: ``"mss"``, ``"mws"`` or ``"plain"``.
        offset: Where the rows' own posteriors begin.
        backend: See :func:`pairwise_log_density`.

    Returns:
        ``(B,)`` and ``(B, D)`` in nats.

    Raises:
        ValueError: As :func:`log_weights` and :func:`pairwise_log_density`.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), section 3.1.
        | https://arxiv.org/abs/1802.04942

    Example:
        >>> mean, logvar = torch.randn(4, 2), torch.zeros(4, 2)
        >>> joint, marginals = aggregated_log_densities(mean, mean, logvar, dataset_size=100)
        >>> joint.shape, marginals.shape
        (torch.Size([4]), torch.Size([4, 2]))
    """
    others, own = log_weights(len(mean), dataset_size, estimator)
    return pairwise_log_density(
        z, mean, logvar, others, own_log_weight=None if own == others else own, offset=offset,
        backend=backend,
    )  # fmt: skip

r"""The KL of a whole dataset in its parts, exactly but for the sampling of codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vaereg.functional import (
    aggregated_log_densities,
    gaussian_kl,
    log_weights,
    pairwise_log_density,
)
from vaereg.functional.aggregated import Estimator

__all__ = ["Decomposition", "EstimatorBias", "estimator_bias", "kl_decomposition"]

_COMPONENTS = 1 << 15  # posteriors held in the kernel's form at once


@dataclass(frozen=True)
class Decomposition:
    """The parts of a mean KL, in nats.

    Attributes:
        mi: Index-code mutual information :math:`I_q(x; z)`.
        tc: Total correlation of the aggregated posterior.
        dimwise_kl: KL of each coordinate of the aggregated posterior from the prior; of one that
            matches, possibly below 0 by sampling noise.
        mi_error: Standard error of ``mi`` over the samples.
        tc_error: Standard error of ``tc``.
        dimwise_error: Standard error of each of ``dimwise_kl``.
        kl: The mean KL in closed form, without sampling.
        samples: Number of codes that were drawn.

    Example:
        >>> parts = Decomposition(1.0, 0.2, (0.3, 0.1), 0.01, 0.01, (0.0, 0.0), 1.6, 100)
        >>> round(parts.sampled_kl, 3)
        1.6
    """

    mi: float
    tc: float
    dimwise_kl: tuple[float, ...]
    mi_error: float
    tc_error: float
    dimwise_error: tuple[float, ...]
    kl: float
    samples: int

    @property
    def sampled_kl(self) -> float:
        """The sum of the parts: the KL at the samples, an estimate of ``kl``."""
        return self.mi + self.tc + sum(self.dimwise_kl)

    def __str__(self) -> str:
        return (
            f"KL {self.kl:.3f} nats: MI {self.mi:.3f} ± {self.mi_error:.3f}, TC {self.tc:.3f} ± "
            f"{self.tc_error:.3f}, dimension-wise {sum(self.dimwise_kl):.3f} "
            f"({self.samples} samples)"
        )


@torch.no_grad()
def kl_decomposition(
    mean: Tensor,
    logvar: Tensor,
    *,
    samples: int = 10_000,
    generator: torch.Generator | None = None,
    backend: str = "auto",
    progress: bool = False,
) -> Decomposition:
    r"""Mutual information, total correlation and dimension-wise KL of a whole dataset.

    .. math::
        E_x \mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big) = I_q(x; z)
        + \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)
        + \sum_d \mathrm{KL}\big(q(z_d) \,\|\, p(z_d)\big)

    for :math:`q(z) = \frac1N \sum_n q(z \mid x_n)` and the standard normal prior. Each sample is
    compared with *every* posterior: nothing is estimated from minibatches, and the only error is
    that of a mean over the samples. Rows are drawn without replacement, as often as possible; the
    standard errors are those of independent draws, and so on the safe side. The posteriors are
    streamed: beside the arguments there is only a permutation of N rows. 16-bit ones are widened.

    Args:
        mean: Means of all posteriors, ``(N, D)``.
        logvar: Log-variances, ``(N, D)``.
        samples: Number of codes to draw, at least 2.
        generator: Draws rows and codes; default torch's own.
        backend: See :func:`vaereg.functional.pairwise_log_density`.
        progress: Show a progress bar (needs tqdm).

    Returns:
        A :class:`Decomposition` in nats.

    Raises:
        ValueError: If shapes differ, there are no rows, a value is not finite, or ``samples`` is
            below 2.
        ImportError: If ``progress`` is set and tqdm is not installed.

    References:
        | ELBO surgery (Hoffman and Johnson, 2016), for the first split.
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), eq 2.
        | https://arxiv.org/abs/1802.04942

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> parts = kl_decomposition(
        ...     torch.zeros(100, 2), torch.zeros(100, 2), samples=50, generator=g
        ... )
        >>> abs(parts.mi) < 1e-5, abs(parts.tc) < 1e-5, parts.kl
        (True, True, 0.0)
    """
    mean, logvar = _check(mean, logvar)
    if not isinstance(samples, int) or samples < 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"samples: expected an integer of at least 2, got {samples}")
    n, d = mean.shape
    rows = torch.cat([
        torch.randperm(n, generator=generator) for _ in range(-(-samples // n))
    ])[:samples].to(mean.device)  # fmt: skip
    noise = torch.randn(samples, d, generator=generator, dtype=mean.dtype).to(mean.device)
    z = mean[rows] + (0.5 * logvar[rows]).exp() * noise
    own = _log_normal(noise) - 0.5 * logvar[rows]  # log q(z_d | x), (S, D)
    joint = z.new_full((samples,), -math.inf)
    marginals = z.new_full((samples, d), -math.inf)
    # The plain form holds all pairs and columns of a block.
    block = max(1, (1 << 24) // (samples * d)) if backend == "reference" else _COMPONENTS
    starts = range(0, n, block)
    for start in _bar(starts, "kl_decomposition") if progress else starts:
        part = slice(start, start + block)
        more = pairwise_log_density(z, mean[part], logvar[part], -math.log(n), backend=backend)
        joint, marginals = torch.logaddexp(joint, more[0]), torch.logaddexp(marginals, more[1])
    product, prior = marginals.sum(1), _log_normal(z)
    mi, mi_error = _mean(own.sum(1) - joint)
    tc, tc_error = _mean(joint - product)
    dimwise = [_mean(column) for column in (marginals - prior).unbind(1)]
    return Decomposition(
        mi, tc, tuple(m for m, _ in dimwise), mi_error, tc_error, tuple(e for _, e in dimwise),
        _mean_kl(mean, logvar), samples,
    )  # fmt: skip


@dataclass(frozen=True)
class EstimatorBias:
    """How far minibatch estimates are off on given posteriors, in nats.

    Attributes:
        mi: Mean estimate of the mutual information less its exact value.
        tc: The same of the total correlation.
        mi_error: Standard error of ``mi``, of both sides.
        tc_error: Standard error of ``tc``.
        exact: The exact decomposition.

    Example:
        >>> parts = Decomposition(1.0, 0.2, (0.4,), 0.01, 0.01, (0.0,), 1.6, 100)
        >>> EstimatorBias(0.1, -0.05, 0.01, 0.01, parts).tc
        -0.05
    """

    mi: float
    tc: float
    mi_error: float
    tc_error: float
    exact: Decomposition

    def __str__(self) -> str:
        return (
            f"MI {self.mi:+.3f} ± {self.mi_error:.3f} (exact {self.exact.mi:.3f}), "
            f"TC {self.tc:+.3f} ± {self.tc_error:.3f} nats (exact {self.exact.tc:.3f})"
        )


@torch.no_grad()
def estimator_bias(
    mean: Tensor,
    logvar: Tensor,
    *,
    batch_size: int,
    estimator: Estimator = "mss",
    memory_bank: int = 0,
    batches: int = 200,
    samples: int = 10_000,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> EstimatorBias:
    r"""What a batch size, an estimator and a memory bank cost in accuracy on your own posteriors.

    The mean over random batches of what ``MinibatchTC`` and ``DecomposedKL`` display, less the
    exact value of :func:`kl_decomposition`. The bank is filled with other rows of the dataset.

    Args:
        mean: Means of all posteriors, ``(N, D)``.
        logvar: Log-variances, ``(N, D)``.
        batch_size: :math:`B`.
        estimator: ``"mss"``, ``"mws"`` or ``"plain"``.
        memory_bank: :math:`K`; ``B + K`` is at most N.
        batches: Number of random batches.
        samples: Codes of the exact value.
        generator: Draws rows and codes; default torch's own.
        backend: See :func:`vaereg.functional.pairwise_log_density`.

    Returns:
        An :class:`EstimatorBias` in nats.

    Raises:
        ValueError: As :func:`kl_decomposition` and ``log_weights``, or if ``batches`` is below 2.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), appendix C.
        | https://arxiv.org/abs/1802.04942

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> mean = 3.0 * torch.randn(500, 2, generator=g)
        >>> found = estimator_bias(
        ...     mean, torch.full_like(mean, -3.0), batch_size=8, samples=500, generator=g
        ... )
        >>> found.mi > 0.1  # most of what q(z) holds is missing from eight posteriors
        True
    """
    mean, logvar = _check(mean, logvar)
    least = 2 if estimator == "mss" else 1
    if batch_size < least:
        raise ValueError(
            f"batch_size: expected at least {least} for estimator {estimator!r}, got {batch_size}"
        )
    if batches < 2:
        raise ValueError(f"batches: expected at least 2, got {batches}")
    if memory_bank < 0:
        raise ValueError(f"memory_bank: expected at least 0, got {memory_bank}")
    n = len(mean)
    log_weights(batch_size + memory_bank, n, estimator)  # checks the sizes
    exact = kl_decomposition(mean, logvar, samples=samples, generator=generator, backend=backend)
    found: list[Tensor] = []
    for _ in range(batches):
        rows = torch.randperm(n, generator=generator)[: batch_size + memory_bank].to(mean.device)
        m, v = mean[rows], logvar[rows]
        noise = torch.randn(batch_size, m.shape[1], generator=generator, dtype=m.dtype).to(
            m.device
        )
        z = m[:batch_size] + (0.5 * v[:batch_size]).exp() * noise
        own = (_log_normal(noise) - 0.5 * v[:batch_size]).sum(1)
        joint, marginals = aggregated_log_densities(
            z, m, v, dataset_size=n, estimator=estimator, backend=backend
        )
        found.append(torch.stack([(own - joint).mean(), (joint - marginals.sum(1)).mean()]))
    values = torch.stack(found)
    (mi, mi_error), (tc, tc_error) = (_mean(column) for column in values.unbind(1))
    return EstimatorBias(
        mi - exact.mi, tc - exact.tc, math.hypot(mi_error, exact.mi_error),
        math.hypot(tc_error, exact.tc_error), exact,
    )  # fmt: skip


def _check(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least: with 8 bits of mantissa a sample is not of its posterior."""
    for name, value in (("mean", mean), ("logvar", logvar)):
        if not isinstance(value, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{name}: expected a tensor (N, D), got {type(value).__name__}")
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")
    if mean.ndim != 2 or mean.shape != logvar.shape or not mean.numel():
        raise ValueError(
            f"mean, logvar: expected (N, D) each, with rows, got {tuple(mean.shape)} and "
            f"{tuple(logvar.shape)}"
        )
    for name, value in (("mean", mean), ("logvar", logvar)):
        if not all(bool(torch.isfinite(value[part]).all()) for part in _blocks(value)):
            raise ValueError(f"{name}: expected finite values, got nan or inf")
    dtype = torch.promote_types(torch.promote_types(mean.dtype, logvar.dtype), torch.float32)
    return mean.to(dtype), logvar.to(dtype)


def _mean_kl(mean: Tensor, logvar: Tensor) -> float:
    total = 0.0
    for part in _blocks(mean):
        total += float(gaussian_kl(mean[part], logvar[part]).double().sum())
    return total / len(mean)


def _blocks(x: Tensor) -> list[slice]:
    return [slice(i, i + _COMPONENTS) for i in range(0, len(x), _COMPONENTS)]


def _log_normal(x: Tensor) -> Tensor:
    return -0.5 * (x.square() + math.log(2.0 * math.pi))


def _mean(x: Tensor) -> tuple[float, float]:
    """Mean and its standard error, in float64."""
    x = x.double()
    return float(x.mean()), float(x.std()) / math.sqrt(len(x))


def _bar(steps: range, what: str) -> Any:
    try:
        return import_module("tqdm").tqdm(steps, desc=what)
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error

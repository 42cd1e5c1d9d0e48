r"""The mutual information gap: by histograms of the codes, or by samples of the posteriors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaereg.functional import pairwise_log_density
from vaereg.metrics.disentanglement._arrays import (
    Array,
    Floats,
    Ints,
    as_codes,
    as_factors,
    bar,
    gaps,
    relabel,
    varying,
)
from vaereg.metrics.disentanglement._checks import Seed, generator, number
from vaereg.metrics.disentanglement._histogram import Binning, binned, entropies
from vaereg.metrics.disentanglement._score import Score

__all__ = ["MIG", "mig"]

_COMPONENTS = 1 << 15  # posteriors held in the kernel's form at once


@dataclass(frozen=True, eq=False)
class MIG(Score):
    """A mutual information gap and its parts.

    Attributes:
        score: Mean of ``gaps``.
        gaps: Normalised gap of each factor that varies, ``(K,)``.
        mutual_information: Of each code with each of these factors, in nats, ``(D, K)``.
        entropy: Of each of these factors, in nats, ``(K,)``.
        factors: Their columns, ``(K,)``.
    """

    score: float
    gaps: Floats
    mutual_information: Floats
    entropy: Floats
    factors: Ints


def mig(
    codes: Array,
    factors: Array,
    *,
    logvar: Array | None = None,
    bins: int = 20,
    binning: Binning = "uniform",
    samples: int = 10_000,
    seed: Seed = 0,
    backend: str = "auto",
    progress: bool = False,
) -> MIG:
    r"""How much more the best code tells of each factor than the second best.

    .. math::
        \mathrm{MIG} = \frac1K \sum_k \frac1{H(v_k)} \Big( I(z_{j^{(k)}}; v_k)
        - \max_{j \ne j^{(k)}} I(z_j; v_k) \Big),
        \qquad j^{(k)} = \arg\max_j I(z_j; v_k)

    *Histogram form* (without ``logvar``): each code is binned over its range and
    :math:`I` is that of the table of counts. Nothing is random. It is the form of the common
    comparisons (10,000 rows, 20 bins). Counts bias :math:`I` upwards by about
    :math:`(\text{bins} - 1)(|v_k| - 1) / 2n`, for all codes alike.

    *Sampling form* (with ``logvar``): codes are the means of :math:`q(z \mid x_n)`, and with
    :math:`q(z_j) = \frac1N \sum_n q(z_j \mid x_n)` and the same over the rows of one value,

    .. math::
        I(z_j; v_k) = H(z_j) - \sum_v p(v_k = v)\, H(z_j \mid v_k = v)

    where each entropy is the mean of minus the log-density over samples of its own mixture, and a
    negative difference counts as 0. Rows should be the whole dataset.

    A perfect code scores 1 in the histogram form where factors have at most ``bins`` values,
    evenly spaced. With 20 bins it cannot on factors of 32 and 40 values, and gets 0.850 and
    :math:`\log 20 / \log 40 = 0.812` for these. A code that is held twice scores 0.

    Args:
        codes: ``(n, D)``. The histogram form is unchanged by shifts and scales of a code.
        factors: Integer values of the factors, ``(n, K)``; constant ones are left out.
        logvar: Log-variances of the posteriors, ``(n, D)``, for the sampling form.
        bins: Bins for each code (histogram form).
        binning: ``"uniform"`` in width (published), or ``"quantile"`` for as many rows in each.
        samples: Samples for each entropy, drawn from different rows: at most the rows there are.
        seed: Of the samples.
        backend: See :func:`vaereg.functional.pairwise_log_density`.
        progress: Show a progress bar over the values of all factors (needs tqdm).

    Returns:
        A :class:`MIG`. A dead code has no information on anything. With a single code the gap is
        to 0, as though a dead code stood beside it.

    Raises:
        ValueError: If shapes differ, a code is not finite, or no factor varies.
        TypeError: If factors are not integers.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), eq 6 and appendix.
        | https://arxiv.org/abs/1802.04942
        | Challenging Common Assumptions (Locatello et al., 2019), for the histogram form.
        | https://arxiv.org/abs/1811.12359

    Example:
        >>> factors = np.stack(np.meshgrid(range(4), range(5)), -1).reshape(-1, 2)
        >>> float(mig(2.5 * factors, factors))
        1.0
        >>> turned = factors @ np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> mig(turned, factors).gaps.round(3).tolist()
        [0.0, 0.0]
    """
    if logvar is None:
        information, entropy, kept = binned(codes, factors, bins, binning)
    else:
        z = as_codes(codes)
        y = as_factors(factors, z)
        kept = varying(y)
        labels, sizes = relabel(y[:, kept])
        entropy = entropies(labels, sizes)
        samples = number("samples", samples)
        sampled = _Sampled(codes, logvar, samples, generator(seed), backend)
        information = sampled.information(labels, sizes, progress)
    found = gaps(information) / entropy
    return MIG(float(found.mean()), found, information, entropy, kept)


class _Sampled:
    """One sample of each posterior, and entropies of mixtures over subsets of the rows."""

    def __init__(
        self, mean: Array, logvar: Array, samples: int, rng: np.random.Generator, backend: str
    ) -> None:
        self.mean = _tensor(mean, "codes")
        self.logvar = _tensor(logvar, "logvar").to(self.mean)
        if self.mean.shape != self.logvar.shape:
            raise ValueError(
                f"logvar: expected the shape of codes {tuple(self.mean.shape)}, got "
                f"{tuple(self.logvar.shape)}"
            )
        noise = torch.from_numpy(rng.standard_normal(tuple(self.mean.shape))).to(self.mean)
        self.z = self.mean + (0.5 * self.logvar).exp() * noise
        self.samples, self.rng, self.backend = samples, rng, backend

    def information(self, labels: Ints, sizes: tuple[int, ...], progress: bool) -> Floats:
        marginal = self.entropies(np.arange(len(labels)))
        found = np.tile(marginal[:, None], (1, len(sizes)))
        values = [(k, v) for k, size in enumerate(sizes) for v in range(size)]
        for k, v in bar(values, "mig", progress):
            rows = np.flatnonzero(labels[:, k] == v)
            found[:, k] -= len(rows) / len(labels) * self.entropies(rows)
        return np.maximum(found, 0.0)

    @torch.no_grad()
    def entropies(self, rows: Ints) -> Floats:
        """Of each coordinate of the mixture over ``rows``, ``(D,)``."""
        where = torch.from_numpy(rows).to(self.mean.device)
        drawn = torch.from_numpy(self.rng.permutation(rows)[: self.samples])
        z = self.z[drawn.to(self.mean.device)]
        density = z.new_full(z.shape, -math.inf)
        for start in range(0, len(rows), _COMPONENTS):
            more = self._marginals(z, where[start : start + _COMPONENTS], len(rows))
            density = torch.logaddexp(density, more)
        return -density.double().mean(0).cpu().numpy()

    def _marginals(self, z: Tensor, part: Tensor, total: int) -> Tensor:
        mean, logvar = self.mean[part], self.logvar[part]
        return pairwise_log_density(z, mean, logvar, -math.log(total), backend=self.backend)[1]


def _tensor(value: Array, name: str) -> Tensor:
    """Finite floating-point values, where they are."""
    array = as_codes(value, name)
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach()
    return torch.from_numpy(np.array(array))

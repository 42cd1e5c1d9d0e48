"""The prior of a continuous code, coordinate by coordinate, where all rows share one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.metrics._posteriors import Family

__all__ = ["Marginals", "differ", "shared"]

_DRAWS, _NUMBERS = 1 << 14, 1 << 22  # draws of a prior that is no Gaussian, numbers of them all
_TAIL = 0.002
_NONE, _DIFFERS = "it has no prior", "its prior differs between the rows"
_UNKNOWN = "its prior gives neither a density nor draws"


@dataclass(frozen=True, eq=False)
class Marginals:
    """Each coordinate's prior.

    Attributes:
        mean: Means of Gaussians, ``(D,)``; None where it is no Gaussian.
        std: Their deviations.
        draws: Draws, ``(n, D)``, where it is none.
    """

    mean: NDArray[np.floating] | None
    std: NDArray[np.floating] | None
    draws: NDArray[np.floating] | None = None

    def ends(self, d: int) -> tuple[float, float]:
        """Between them nearly all of coordinate ``d`` lies."""
        if self.mean is not None and self.std is not None:
            m, s = float(self.mean[d]), float(self.std[d])
            return m - 4.0 * s, m + 4.0 * s
        assert self.draws is not None
        low, high = np.quantile(self.draws[:, d], (_TAIL, 1.0 - _TAIL))
        return float(low), float(high)

    def density(self, d: int, edges: NDArray[np.floating]) -> NDArray[np.floating]:
        """Of coordinate ``d`` in each bin."""
        if self.mean is not None and self.std is not None:
            # By its share: a prior that is narrow beside a bin falls between the bins' centres.
            z = torch.from_numpy((edges - self.mean[d]) / (np.sqrt(2.0) * self.std[d]))
            return 0.5 * z.erf().diff().numpy() / (edges[1] - edges[0])
        assert self.draws is not None
        count = np.histogram(self.draws[:, d], edges)[0]
        return count / len(self.draws) / (edges[1] - edges[0])


def shared(codes: Sequence[Any], p: Family | None) -> tuple[Marginals | None, str]:
    """The prior that all rows share, or None and why there is none to be drawn.

    Args:
        codes: The code in batches.
        p: Its prior in all rows, where that is a factorised Gaussian or categorical.
    """
    if any(code.p is None for code in codes):
        return None, _NONE
    if p is None or p.discrete:
        return _drawn(codes)
    if differ(p):
        return None, _DIFFERS
    mean, std = p.first[0].double().numpy(), (0.5 * p.second[0].double()).exp().numpy()
    return Marginals(mean, std), ""


def differ(p: Family | None) -> bool:
    """Whether rows have priors of their own, as far as that can be read."""
    return p is not None and not bool(
        (p.first == p.first[:1]).all() and (p.second == p.second[:1]).all()
    )


def _drawn(codes: Sequence[Any]) -> tuple[Marginals | None, str]:
    """Draws of a prior of any family; what it says at one place tells whether rows share it."""
    value: Tensor = codes[0].value.detach()
    here = value[0]
    try:
        densities = [
            code.p.log_prob(here.expand(code.value.shape)).detach().reshape(len(code.value), -1)
            for code in codes
        ]
        every = torch.cat([density.double().sum(1).cpu() for density in densities])
        if not torch.allclose(every, every[:1].expand_as(every), rtol=1e-4, atol=1e-4):
            return None, _DIFFERS
        p = codes[0].p
        own = (*p.batch_shape, *p.event_shape)
        n = max(256, min(_DRAWS, _NUMBERS // value.numel()))
        where = [value.device] if value.device.type == "cuda" else []
        with torch.random.fork_rng(where), torch.no_grad():
            drawn: Tensor = p.sample((n,))
        drawn = drawn.reshape(n, *[1] * (value.ndim - len(own)), *own).expand(n, *value.shape)
        first = drawn[:, 0].flatten(1).double().cpu()
    except Exception:  # a distribution of the user's own may lack any of these
        return None, _UNKNOWN
    return (Marginals(None, None, first.numpy()), "") if first.isfinite().all() else (
        None, _UNKNOWN
    )  # fmt: skip

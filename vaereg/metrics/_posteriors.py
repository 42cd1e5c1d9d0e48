"""Posteriors and priors of all rows of a data set: entropies, draws, mixtures, KLs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal, OneHotCategorical
from torch.nn import functional as F

from vaereg._names import Part
from vaereg.functional import gaussian_kl, kl_per_row, pairwise_log_density
from vaereg.functional.entropies import joint_probabilities
from vaereg.functional.families import base_of

__all__ = ["Family", "Latent", "aggregated", "draw", "family", "read", "states"]

_COMPONENTS, _PAIRS = 1 << 15, 1 << 24  # posteriors, and pairs with a weight each, held at once
_STATES = 4096


class Family(NamedTuple):
    """Factorised Gaussians, or categorical variables: ``G`` of ``K`` classes in each row."""

    discrete: bool
    first: Tensor  # means (N, D), or log-probabilities (N, G, K)
    second: Tensor  # log-variances (N, D); not used where discrete

    def rows(self, index: Any) -> Family:
        """Some of the rows."""
        return Family(self.discrete, self.first[index], self.second[index])

    def draw(self) -> Tensor:
        """A draw of each row, of the shape of ``first``; one-hot where discrete."""
        if not self.discrete:
            return self.first + (0.5 * self.second).exp() * torch.randn_like(self.first)
        tiny = torch.finfo(self.first.dtype).tiny
        gumbel = -torch.empty_like(self.first).exponential_().clamp_min(tiny).log()
        chosen = (self.first + gumbel).argmax(-1)
        return F.one_hot(chosen, self.first.shape[-1]).to(self.first)

    def opposite(self, value: Tensor) -> Tensor:
        """A draw mirrored at the mean, a draw itself; a fresh one where discrete."""
        return self.draw() if self.discrete else 2.0 * self.first - value

    def entropy(self) -> Tensor:
        """``(N,)`` in float64."""
        if self.discrete:
            pi = self.first.double().exp()
            return -torch.xlogy(pi, pi).flatten(1).sum(1)
        return 0.5 * (self.second.double() + math.log(2.0 * math.pi) + 1.0).sum(1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of a draw of each row, ``(N,)`` in float64."""
        if self.discrete:
            return torch.where(value > 0.0, self.first, 0.0).double().flatten(1).sum(1)
        first, second = self.first.double(), self.second.double()
        squares = (value.double() - first).square() * (-second).exp()
        return -0.5 * (squares + second + math.log(2.0 * math.pi)).sum(1)

    def kl(self, prior: Family) -> Tensor:
        """KL of each row from one of the same kind, ``(N,)`` in float64."""
        first, p_first = self.first.double(), prior.first.double()
        if not self.discrete:
            return gaussian_kl(first, self.second.double(), p_first, prior.second.double()).sum(1)
        pi = first.exp()
        # A class without probability counts 0 whatever the prior says.
        return torch.where(pi > 0.0, pi * (first - p_first), 0.0).flatten(1).sum(1)


def family(p: Distribution | None, shape: torch.Size) -> Family | None:
    """The parameters in the shape of the whole variable, or None for another family."""
    base: Any = None if p is None else base_of(p)
    discrete = isinstance(base, (Categorical, OneHotCategorical))
    if not discrete and type(base) is not Normal:
        return None
    first: Tensor = (base.logits if discrete else base.loc).detach()
    if discrete:
        # Probabilities that sum to 1 in float64: the bounds are ordered to the last digit.
        first = first.double().log_softmax(-1).expand(shape)
        return Family(True, first, first)
    first = first.to(torch.promote_types(first.dtype, torch.float32)).expand(shape)
    return Family(False, first, 2.0 * base.scale.detach().to(first).log().expand(shape))


def draw(code: Any) -> Tensor:
    """A draw of a code's posterior, one-hot for a categorical one; its value if it has none."""
    if code.q is None:
        return code.value
    known = family(code.q, code.value.shape)
    return code.q.sample() if known is None else known.draw().to(code.value.dtype)


def states(parts: Sequence[Family]) -> Tensor | None:
    """Probabilities of the joint states of categorical parts, ``(n, S)`` in float64; None where
    there is a Gaussian part or there are too many states."""
    if not all(part.discrete for part in parts):
        return None
    try:
        return joint_probabilities([part.first.double().exp() for part in parts], _STATES)
    except ValueError:
        return None


def aggregated(families: Sequence[Family], values: Sequence[Tensor]) -> Tensor:
    r"""Log-density of draws under the mixture of all rows, ``(n,)`` in float64.

    .. math:: \log q_N(v) = \log \frac1N \sum_j \prod_g \pi_{jg}(c_g)
        \prod_d \mathcal N(z_d; \mu_{jd}, \sigma_{jd}^2)

    Args:
        families: The distributions of each part of the code, ``N`` rows.
        values: Draws of each part, ``(n, D)`` or ``(n, G, K)``.
    """
    pairs = list(zip(families, values, strict=True))
    kinds = [[(f, v) for f, v in pairs if f.discrete == kind] for kind in (True, False)]
    discrete, normal = kinds
    z, mean, logvar = (
        torch.cat(columns, 1) if columns else None
        for columns in (
            [v for _, v in normal], [f.first for f, _ in normal], [f.second for f, _ in normal],
        )
    )  # fmt: skip
    total = len(families[0].first)
    step = max(1, _PAIRS // min(total, _COMPONENTS))
    found: list[Tensor] = []
    for begin in range(0, len(values[0]), step):
        own = slice(begin, begin + step)
        pieces: list[Tensor] = []
        for start in range(0, total, _COMPONENTS):
            some = slice(start, start + _COMPONENTS)
            weights: Tensor | float = -math.log(total)
            for family, value in discrete:
                chosen = value[own].argmax(-1)  # (n, G)
                for g, state in enumerate(chosen.unbind(1)):
                    weights = weights + family.first[some, g].T[state]  # (n, M)
            if z is not None and mean is not None and logvar is not None:
                weights = weights.to(z) if isinstance(weights, Tensor) else weights
                more, _ = pairwise_log_density(z[own], mean[some], logvar[some], weights)
            else:
                more = cast(Tensor, weights).double().logsumexp(1)
            pieces.append(more.double())
        found.append(torch.stack(pieces).logsumexp(0))
    return torch.cat(found)


# ---- a code in all rows


@dataclass(frozen=True)
class Latent:
    """A part of a code in all rows.

    Attributes:
        q: The posteriors.
        value: A draw of each, ``(N, D)`` or ``(N, G, K)``.
        p: The rows' priors where they differ; else None.
        rate: KL of each row from the prior that all share, ``(N,)``; else None.
    """

    q: Family
    value: Tensor
    p: Family | None
    rate: Tensor | None


def read(
    part: Part, batches: Sequence[Mapping[str, Any]], drawn: Sequence[Mapping[str, Tensor]]
) -> Latent:
    """A part of a code in all rows.

    Args:
        part: What :func:`parse` gives.
        batches: Codes by name, in batches.
        drawn: Draws by name, in the same batches.

    Raises:
        TypeError: If posterior or prior are missing or of a kind that cannot be read.
        ValueError: If a name, a shape or a value does not fit.
    """
    codes = [_code(part, codes) for codes in batches]
    shapes = [code.value.shape for code in codes]
    q = _joined(part, [family(code.q, s) for code, s in zip(codes, shapes, strict=True)])
    assert q is not None  # _code has checked it
    values = [draws[part.name] for draws in drawn]
    value = _take(part, torch.cat(values).to(q.first.dtype), q.discrete)
    p = _joined(part, [family(code.p, s) for code, s in zip(codes, shapes, strict=True)])
    if p is None or p.discrete != q.discrete:
        return Latent(q, value, None, _other_rate(part, codes, values))
    if bool((p.first == p.first[:1]).all() and (p.second == p.second[:1]).all()):
        return Latent(q, value, None, q.kl(p))
    return Latent(q, value, p, None)


def _code(part: Part, codes: Mapping[str, Any]) -> Any:
    name = part.name
    if name not in codes:
        raise ValueError(f"code: expected {name!r} among the codes, got {sorted(codes)}")
    code = codes[name]
    if getattr(code, "q", None) is None:
        raise TypeError(
            f"code: expected {name!r} with a posterior q (see vaereg.gaussian and "
            f"vaereg.categorical), got a {type(code).__name__} without one: nothing bounds the "
            "information of a deterministic code from above"
        )
    if code.p is None:
        raise TypeError(f"code: expected {name!r} with a prior p, got None")
    shape = code.value.shape
    known = family(code.q, shape)
    if known is None:
        raise TypeError(
            f"code: expected {name!r} with a factorised Gaussian or a categorical posterior, got "
            f"{type(base_of(code.q)).__name__}"
        )
    if known.discrete and len(shape) not in (2, 3):
        raise ValueError(
            f"code: expected categorical {name!r} of shape (B, K) or (B, G, K), got {tuple(shape)}"
        )
    if part.index is not None:
        if known.discrete and len(shape) == 2:
            raise ValueError(
                f"code: expected a categorical variable as a whole, got part {part.text!r}"
            )
        part.check("code", shape[1])
    return code


def _take(part: Part, x: Tensor, discrete: bool) -> Tensor:
    x = x if part.index is None else x[:, part.index]
    if not discrete:
        return x.flatten(1)
    return x.unsqueeze(1) if x.ndim == 2 else x


def _joined(part: Part, families: Sequence[Family | None]) -> Family | None:
    known = [family for family in families if family is not None]
    if len(known) < len(families):
        return None
    discrete = known[0].discrete
    first, second = (
        _take(part, torch.cat(columns), discrete)
        for columns in ([f.first for f in known], [f.second for f in known])
    )
    fine = not bool(first.isnan().any())
    if not discrete:
        fine = bool(first.isfinite().all()) and bool(second.isfinite().all())
    if not fine:
        raise ValueError(
            f"code: expected {part.name!r} with finite parameters and positive deviations, got "
            "others"
        )
    return Family(discrete, first, second)


def _other_rate(part: Part, codes: Sequence[Any], values: Sequence[Tensor]) -> Tensor:
    """KL of each row from a prior of another family than the posterior's."""
    if part.index is not None:
        raise TypeError(
            f"code: expected a prior of the posterior's family to take part {part.text!r}, got "
            f"{type(base_of(codes[0].p)).__name__}"
        )
    here = values[0][0]  # all rows' priors have the same density here if they are one
    densities: list[Tensor] = []
    rates: list[Tensor] = []
    for code, value in zip(codes, values, strict=True):
        rates.append(kl_per_row(code.q, code.p, value).detach().double())
        density: Tensor = code.p.log_prob(here.expand(value.shape))
        densities.append(density.detach().reshape(len(value), -1).sum(1))
    every = torch.cat(densities)
    if not torch.allclose(every, every[:1].expand_as(every), rtol=1e-4, atol=1e-4):
        raise TypeError(
            f"code: expected one prior of {part.name!r} for all rows, or priors of the "
            f"posterior's family, got a {type(base_of(codes[0].p)).__name__} that differs"
        )
    return torch.cat(rates)

"""What a bracket of a code's information holds, and how it is read from posteriors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaereg.metrics._posteriors import Family, Latent, aggregated, states

__all__ = ["MIBracket", "bracket"]

_NEAR = 0.8  # within this share of its ceiling a value is shown with it


@dataclass(frozen=True)
class MIBracket:
    r"""The information of a code on the data between its bounds, on held-out rows.

    Attributes:
        lower: Barber-Agakov bound of a fresh model of :math:`q(v \mid x)`, or 0 where that is
            more; 0 with an error of 0 where early stopping did not tell it from a model that says
            the same of every row.
        lower_error: Its standard error over rows, as of the other values.
        upper: The KL rate :math:`E\, \mathrm{KL}(q(v \mid x) \,\|\, p(v))`.
        upper_error: Its standard error.
        exact: :math:`I_q(v; x)` of the given rows themselves. It is below that of the population
            they are drawn from, and of a continuous code at most ``ceiling``.
        exact_error: Its standard error.
        decoded: Lower bound of :math:`I(v; x')`, what the decoder's output tells of the code that
            was decoded; 0 as for ``lower``. None without a decoder.
        decoded_error: Its standard error, or None.
        entropy: :math:`H(v)` of a discrete code, which no information on it exceeds; None for a
            continuous one.
        ceiling: The log of the number of rows given, for a code with a continuous part (or of more
            than 4096 joint states); else None.
        rows: Number of rows held out.
        code: The code, as it was asked for.
        unit: ``"nats"`` or ``"bits"``.

    Example:
        >>> found = MIBracket(0.91, 0.02, 2.26, 0.01, 0.95, 0.02, 2.25, 0.01, 2.3, None, 512, "c")
        >>> print(found)
        0.910 ± 0.020 <= I(c; x) = 0.950 ± 0.020 <= 2.260 ± 0.010 nats; I(c; x') >= 2.250 ± 0.010
        of at most 2.300 (512 rows held out)
        >>> found.consistent, found.in_bits().unit
        (True, 'bits')
    """

    lower: float
    lower_error: float
    upper: float
    upper_error: float
    exact: float
    exact_error: float
    decoded: float | None
    decoded_error: float | None
    entropy: float | None
    ceiling: float | None
    rows: int
    code: str
    unit: str = "nats"

    @property
    def consistent(self) -> bool:
        """Whether ``lower`` less three of its standard errors is at most ``upper``; else a prior
        or a posterior is not what it is said to be."""
        return self.lower - 3.0 * self.lower_error <= self.upper

    def in_bits(self) -> MIBracket:
        """The same in bits; a bracket in bits is returned as it is."""
        if self.unit == "bits":
            return self
        scale = 1.0 / math.log(2.0)
        names = (
            "lower", "lower_error", "upper", "upper_error", "exact", "exact_error", "decoded",
            "decoded_error", "entropy", "ceiling",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        known = {name: value * scale for name, value in values.items() if value is not None}
        return replace(self, unit="bits", **known)

    def __str__(self) -> str:
        def text(value: float, error: float) -> str:
            return f"{round(value, 3) + 0.0:.3f} ± {error:.3f}"

        exact = text(self.exact, self.exact_error)
        if self.ceiling is not None and self.exact > _NEAR * self.ceiling:
            exact += f" of at most {self.ceiling:.3f} that so many rows show"
        nothing = self.lower == self.lower_error == 0.0
        least = "0 (nothing read)" if nothing else text(self.lower, self.lower_error)
        said = (
            f"{least} <= I({self.code}; x) = {exact} <= "
            f"{text(self.upper, self.upper_error)} {self.unit}"
        )
        if self.decoded is not None and self.decoded_error is not None:
            said += f"; I({self.code}; x') >= {text(self.decoded, self.decoded_error)}"
            said += "" if self.entropy is None else f" of at most {self.entropy:.3f}"
        return f"{said} ({self.rows} rows held out)"


def bracket(
    latents: Sequence[Latent],
    held: Tensor,
    draws: int,
    known: Tensor | None,
    told: Tensor | None,
    code: str,
    *,
    decodes: bool,
) -> MIBracket:
    """All values from the posteriors and what :func:`log_likelihood` reads of data and output."""
    q = [latent.q.rows(held) for latent in latents]
    every = [latent.q for latent in latents]
    noise = torch.stack([each.entropy() for each in q]).sum(0)  # H(v | x)
    pi = states(q)
    if pi is not None:
        share = pi.mean(0).clamp_min(torch.finfo(pi.dtype).tiny)
        exact = (torch.xlogy(pi, pi) - pi * share.log()).sum(1)
    else:
        exact = _gain(q, every, draws)
    # H(v) is noise + exact in each row: the noise is common to a draw's two densities. A model
    # that says nothing is the aggregated posterior itself, and the bound is 0.
    lower = torch.zeros_like(exact) if known is None else known + noise + exact
    upper = torch.stack([
        latent.rate[held] if latent.rate is not None else _marginal_rate(latent, held, draws)
        for latent in latents
    ]).sum(0)  # fmt: skip
    read = torch.zeros_like(exact)
    if told is not None and pi is not None:
        read = told + noise + exact
    elif told is not None:
        read = told - aggregated(every, [latent.value[held] for latent in latents])
    decoded, decoded_error = _bound(read) if decodes else (None, None)
    discrete = all(each.discrete for each in q)
    return MIBracket(
        *_bound(lower), *_mean(upper), *_mean(exact), decoded, decoded_error,
        entropy=_mean(noise + exact)[0] if discrete else None,
        ceiling=math.log(len(every[0].first)) if pi is None else None,
        rows=len(held), code=code,
    )  # fmt: skip


def _gain(q: Sequence[Family], mixture: Sequence[Family], draws: int) -> Tensor:
    """Log-density of draws under the row's own distribution less a mixture's, ``(n,)``."""
    total = torch.zeros(len(q[0].first), dtype=torch.float64, device=q[0].first.device)
    values: list[Tensor] = []
    for step in range(draws):
        # In pairs of mirror images: what is linear in the noise cancels.
        if step % 2:
            values = [each.opposite(v) for each, v in zip(q, values, strict=True)]
        else:
            values = [each.draw() for each in q]
        own = torch.stack([each.log_prob(v) for each, v in zip(q, values, strict=True)]).sum(0)
        total = total + own - aggregated(mixture, values)
    return total / draws


def _marginal_rate(latent: Latent, held: Tensor, draws: int) -> Tensor:
    """KL of each row from the mean of the other rows' priors, those that are not held out.

    With its own prior in the mean no row could be further from it than the log of their number,
    and a bound above would be none.
    """
    assert latent.p is not None
    q = latent.q.rows(held)
    others = torch.ones(len(latent.q.first), dtype=torch.bool, device=latent.q.first.device)
    others[held] = False
    p = latent.p.rows(others)
    if not q.discrete:
        return _gain([q], [p], draws)
    mean = p.first.double().exp().mean(0).log()
    return q.kl(Family(True, mean, mean))


def _bound(rows: Tensor) -> tuple[float, float]:
    """Mean and error of a lower bound; below 0 it says no more than 0 does."""
    mean, error = _mean(rows)
    return max(0.0, mean), error


def _mean(rows: Tensor) -> tuple[float, float]:
    return float(rows.mean()), float(rows.std()) / math.sqrt(len(rows))

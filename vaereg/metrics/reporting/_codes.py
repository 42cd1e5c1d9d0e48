"""A code of all rows that a report reads: posteriors, draws, its KL and its prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaereg.functional import gaussian_kl
from vaereg.metrics._posteriors import Family, draw, family
from vaereg.metrics.reporting._priors import Marginals, differ, shared

__all__ = ["RARE", "Coded", "joined"]

RARE = 0.1  # share of what its prior says below which a class counts as unused
_STANDARD = 1e-6
_ERRORS = 3.0  # of many classes some are two errors away from what is expected


@dataclass(frozen=True, eq=False)
class Coded:
    """One code of all rows.

    Attributes:
        name: Its name.
        q: The posteriors, if factorised Gaussians or categorical; else None.
        value: A draw of each row, on the CPU.
        kl: KL from the prior, of each coordinate or categorical variable, in nats; None where
            there is no posterior or no prior of its family.
        standard: Whether the prior is a standard normal.
        prior: Mean prior probability of each class, ``(G, K)``, where it is categorical.
        own: The prior of each coordinate of a Gaussian code, where all rows share it; else None.
        why: Why there is none.
        conditional: Whether rows have priors of their own.
        finite: Whether draws and posteriors hold finite numbers only.
    """

    name: str
    q: Family | None
    value: Tensor
    kl: tuple[float, ...] | None
    standard: bool
    prior: Tensor | None = None
    own: Marginals | None = None
    why: str = ""
    conditional: bool = False
    finite: bool = True

    @property
    def discrete(self) -> bool:
        """Whether it is categorical."""
        return self.q is not None and self.q.discrete

    @property
    def point(self) -> Tensor:
        """The posterior's mean, its most likely class as one-hot rows, or the value."""
        if self.q is None:
            return self.value
        if not self.q.discrete:
            # One row of numbers each in the family; the decoder wants the code's own shape.
            return self.q.first.reshape(self.value.shape).to(self.value.dtype)
        hot = nn.functional.one_hot(self.q.first.argmax(-1), self.q.first.shape[-1])
        return hot.to(self.value.dtype)

    @property
    def shares(self) -> Tensor:
        """Share of rows of each class, ``(G, K)``, of a categorical code."""
        assert self.q is not None
        pi = self.q.first.double().exp()
        return pi.reshape(len(pi), -1, pi.shape[-1]).mean(0)

    @property
    def rare(self) -> Tensor:
        """Classes that are hardly used beside what their prior says, ``(G, K)``.

        Those of which so few rows were to be expected that none may be there by chance are not
        among them, and without a prior there are none.
        """
        shares, prior = self.shares, self.prior
        if prior is None:
            return torch.zeros_like(shares, dtype=torch.bool)
        error = (prior * (1.0 - prior) / len(self.value)).clamp_min(0.0).sqrt()
        return (shares < RARE * prior) & (shares + _ERRORS * error < prior)

    @property
    def flat(self) -> Tensor:
        """``point`` with one row for each row of data, ``(N, D)``: what scores read."""
        q = self.q
        return (self.point if q is None or q.discrete else q.first).flatten(1)


def joined(name: str, codes: list[Any]) -> Coded:
    value = torch.cat([draw(code).cpu() for code in codes])
    found = [(family(c.q, c.value.shape), family(c.p, c.value.shape)) for c in codes]
    q = _stacked([own for own, _ in found], value)
    p = _stacked([own for _, own in found], value)
    standard = p is not None and not p.discrete
    if standard and p is not None:
        standard = max(float(p.first.abs().max()), float(p.second.abs().max())) < _STANDARD
    finite = bool(value.isfinite().all()) and all(_finite(own) for own, _ in found)
    kl = None
    # The KL of a class of weight nan would count as 0: a collapse that was not measured.
    if finite and q is not None and p is not None and q.discrete == p.discrete:
        kl = tuple(float(v) for v in _kl(q, p).mean(0).flatten())
        kl = kl if all(math.isfinite(v) for v in kl) else None
    prior = None
    if p is not None and p.discrete and value.ndim in (2, 3):
        prior = p.first.double().exp().reshape(len(value), -1, value.shape[-1]).mean(0)
    own, why = (None, "") if q is None or q.discrete else shared(codes, p)
    return Coded(name, q, value, kl, standard, prior, own, why, differ(p), finite)


def _finite(q: Family | None) -> bool:
    if q is None:
        return True  # of another family, of which only the draws are read
    if q.discrete:
        return not bool(q.first.isnan().any())  # the log of a class that has no weight is -inf
    return bool(q.first.isfinite().all()) and bool(q.second.isfinite().all())


def _stacked(families: list[Family | None], value: Tensor) -> Family | None:
    known = [own for own in families if own is not None]
    if len(known) < len(families) or not known:
        return None
    first, second = (torch.cat([getattr(f, n) for f in known]).cpu() for n in ("first", "second"))
    if known[0].discrete and value.ndim not in (2, 3):
        return None
    if not known[0].discrete:
        first, second = first.flatten(1), second.flatten(1)
        fine = bool(first.isfinite().all()) and bool(second.isfinite().all())
        return Family(False, first, second) if fine else None
    return Family(True, first, second)


def _kl(q: Family, p: Family) -> Tensor:
    """KL of each row and coordinate, ``(N, D)`` or ``(N, G)``, in float64."""
    first, prior = q.first.double(), p.first.double()
    if not q.discrete:
        return gaussian_kl(first, q.second.double(), prior, p.second.double())
    pi = first.exp()
    return torch.where(pi > 0.0, pi * (first - prior), 0.0).sum(-1).reshape(len(first), -1)

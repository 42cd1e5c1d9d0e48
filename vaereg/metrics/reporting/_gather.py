"""One pass of a model over the rows that a report reads: its codes, and what it reconstructs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from vaereg.functional import bernoulli_nll, gaussian_kl, gaussian_nll
from vaereg.metrics._encoding import evaluating
from vaereg.metrics._posteriors import Family, draw, family

__all__ = ["RARE", "Coded", "Gathered", "NLL", "gather", "reason"]

NLL = Callable[[Tensor, Tensor], Tensor]
RARE = 0.1  # share of what its prior says below which a class counts as unused
_STANDARD = 1e-6


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
    """

    name: str
    q: Family | None
    value: Tensor
    kl: tuple[float, ...] | None
    standard: bool
    prior: Tensor | None = None

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
        """Classes that are hardly used beside what their prior says, ``(G, K)``."""
        shares = self.shares
        even = torch.full_like(shares, 1.0 / shares.shape[-1])
        return shares < RARE * (even if self.prior is None else self.prior)

    @property
    def flat(self) -> Tensor:
        """``point`` with one row for each row of data, ``(N, D)``: what scores read."""
        q = self.q
        return (self.point if q is None or q.discrete else q.first).flatten(1)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one pass found.

    Attributes:
        x: The rows, on the CPU.
        codes: By name.
        nll: Negative log-likelihood at draws of the codes, mean over rows, in nats; None where
            it is not known how to compute it.
        blank: The same of the best constant picture, where it is known.
        where: The device that the model reads its inputs on.
        batches: What the objective reads, for an audit; empty where there is no objective.
        observed: What the model was also given.
        skipped: What could not be read, and why.
    """

    x: Tensor
    codes: dict[str, Coded]
    nll: float | None
    blank: float | None
    where: torch.device
    batches: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    observed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def gather(
    source: Any,
    x: Tensor,
    observed: Mapping[str, Any],
    nll: NLL | None,
    size: int,
    where: torch.device,
    keep: int,
) -> Gathered:
    """One pass in evaluation mode; of the batches, those that hold the first ``keep`` rows.

    Raises:
        TypeError: If the model does not encode to codes by name.
        ValueError: If ``nll`` gives neither a scalar nor a value for each row.
    """
    if not callable(getattr(source, "encode", None)):
        raise TypeError(
            "model: expected a vaereg.VAE, or anything with encode(x) that gives codes by name "
            f"and decode(values), got {type(source).__name__}"
        )
    reader = _Reader(source, nll)
    seen: list[Mapping[str, Any]] = []
    batches: list[Mapping[str, Any]] = []
    total = 0.0
    with torch.no_grad(), evaluating(source):
        for start in range(0, len(x), size):
            part = x[start : start + size].to(where)
            inputs = cut(observed, slice(start, start + size), where)
            codes, error, batch = reader(part, inputs)
            seen.append(codes)
            total += error * len(part)
            if start < keep and batch:
                batches.append(_detached(batch))
    codes = {name: _joined(name, [entry[name] for entry in seen]) for name in seen[0]}
    known = reader.reads and not reader.skipped
    for name, code in codes.items():
        if code.kl is None:
            reader.skipped.append((f"KL of {name}", _no_kl(code, seen[0][name])))
    return Gathered(
        x, codes, total / len(x) if known else None, _blank(source, x) if reader.whole else None,
        where, batches, observed, reader.skipped,
    )  # fmt: skip


class _Reader:
    """Codes of a batch, its negative log-likelihood, and what the objective reads."""

    def __init__(self, model: Any, nll: NLL | None) -> None:
        self.model, self.nll = model, nll
        parts = ("objective", "likelihood", "encoder", "decoder")
        self.whole = isinstance(model, nn.Module) and all(hasattr(model, n) for n in parts)
        self.reads = self.whole
        self.skipped: list[tuple[str, str]] = []
        if not self.whole:
            self._without()

    def _without(self) -> None:
        """From here on it is no VAE of this library."""
        self.whole, self.reads = False, self.nll is not None
        if self.nll is None:
            self.skipped.append(("negative log-likelihood", "nll is not given"))
        elif not callable(getattr(self.model, "decode", None)):
            self.skipped.append(("negative log-likelihood", "the model has no decode"))

    def __call__(
        self, x: Tensor, inputs: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], float, Mapping[str, Any]]:
        if self.whole and not self.skipped:
            try:
                out = self.model(x, **inputs)
            except Exception as error:
                # Codes may still be read: the decoder or a term of the objective is at fault.
                self.skipped.append(("negative log-likelihood", reason(error)))
            else:
                if all(hasattr(out, name) for name in ("codes", "nll", "batch")):
                    return out.codes, float(out.nll), out.batch
                self._without()  # of the same attributes, but another forward
        codes: Any = self.model.encode(x, **inputs)
        if not isinstance(codes, Mapping):
            raise TypeError(
                f"model: expected encode to return codes by name, got {type(codes).__name__}"
            )
        named = cast("Mapping[str, Any]", codes)
        for name, code in named.items():
            if not isinstance(getattr(code, "value", None), Tensor):
                raise TypeError(
                    f"model: expected {name!r} to be a Code, got {type(code).__name__}"
                )
        if self.skipped or self.nll is None:
            return named, 0.0, {}
        try:
            decoded = self.model.decode({n: draw(code) for n, code in named.items()}, **inputs)
        except Exception as error:
            self.skipped.append(("negative log-likelihood", reason(error)))
            return named, 0.0, {}
        error = torch.as_tensor(self.nll(decoded, x))
        if error.shape not in ((), (len(x),)):
            raise ValueError(
                f"nll: expected a scalar or ({len(x)},), got a tensor {tuple(error.shape)}"
            )
        return named, float(error.double().mean()), {}


def reason(error: Exception) -> str:
    """An error in one line; with its name where the text alone says little."""
    text = " ".join(str(error).split())
    plain = isinstance(error, (ImportError, RuntimeError, TypeError, ValueError))
    return text if plain and text else f"{type(error).__name__}{': ' if text else ''}{text}"


def _no_kl(code: Coded, given: Any) -> str:
    if code.q is None and given.q is not None and family(given.q, given.value.shape) is not None:
        return "the posterior holds values that are not finite, or its shape cannot be read"
    if code.q is None:
        return "there is no posterior that is a factorised Gaussian or categorical"
    prior = None if given.p is None else family(given.p, given.value.shape)
    if prior is None or prior.discrete != code.q.discrete:
        return "there is no prior of the posterior's family"
    return "it is not finite"


def cut(observed: Mapping[str, Any], rows: Any, where: torch.device) -> dict[str, Any]:
    """The rows of observed variables; what has no rows as it is."""
    return {
        name: value[rows].to(where) if isinstance(value, Tensor) and value.ndim else value
        for name, value in observed.items()
    }


def _detached(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Without gradients, and without observed values that have no rows."""
    rows = {
        name: value
        for name, value in batch.items()
        if getattr(getattr(value, "value", value), "ndim", 0)
    }
    return {name: value.detach() for name, value in rows.items()}


def _blank(model: Any, x: Tensor) -> float | None:
    """The NLL of the rows' own mean, for the likelihoods whose best constant it is."""
    kind = getattr(model, "likelihood", None)
    mean = x.float().mean(0, keepdim=True)
    if kind == "gaussian":
        return float(gaussian_nll(mean.expand_as(x), x.float()))
    if kind == "bernoulli":
        return float(bernoulli_nll(mean.clamp(1e-6, 1.0 - 1e-6).logit().expand_as(x), x.float()))
    return None


def _joined(name: str, codes: list[Any]) -> Coded:
    value = torch.cat([draw(code).cpu() for code in codes])
    found = [(family(c.q, c.value.shape), family(c.p, c.value.shape)) for c in codes]
    q = _stacked([own for own, _ in found], value)
    p = _stacked([own for _, own in found], value)
    standard = p is not None and not p.discrete
    if standard and p is not None:
        standard = max(float(p.first.abs().max()), float(p.second.abs().max())) < _STANDARD
    kl = None
    if q is not None and p is not None and q.discrete == p.discrete:
        kl = tuple(float(v) for v in _kl(q, p).mean(0).flatten())
        kl = kl if all(math.isfinite(v) for v in kl) else None
    prior = None
    if p is not None and p.discrete and value.ndim in (2, 3):
        prior = p.first.double().exp().reshape(len(value), -1, value.shape[-1]).mean(0)
    return Coded(name, q, value, kl, standard, prior)


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

"""One pass of a model over the rows that a report reads: its codes, and what it reconstructs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from vaereg.functional import bernoulli_nll, gaussian_nll
from vaereg.metrics._encoding import evaluating
from vaereg.metrics._posteriors import draw, family
from vaereg.metrics.reporting._codes import Coded, joined

__all__ = ["Gathered", "NLL", "cut", "gather", "reason"]

NLL = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one pass found.

    Attributes:
        x: The rows, on the CPU.
        codes: By name.
        nll: Negative log-likelihood at draws of the codes, mean over rows, in nats; None where
            it is not known how to compute it.
        blank: The same of the best constant picture, for each row the mean of the others, where
            it is known.
        where: The device that the model reads its inputs on.
        likelihood: ``"bernoulli"``, ``"gaussian"``, or None where it is none by name.
        batches: What the objective reads, for an audit; empty where there is no objective.
        observed: What the model was also given.
        skipped: What could not be read, and why.
        broken: Why what the decoder was asked for is no picture.
    """

    x: Tensor
    codes: dict[str, Coded]
    nll: float | None
    blank: float | None
    where: torch.device
    likelihood: str | None = None
    batches: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    observed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    broken: list[str] = field(default_factory=list[str])


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
    codes = {name: joined(name, [entry[name] for entry in seen]) for name in seen[0]}
    known = reader.reads and not reader.skipped
    kind = getattr(source, "likelihood", None) if reader.whole else None
    kind = kind if isinstance(kind, str) else None
    for name, code in codes.items():
        if code.kl is None:
            reader.skipped.append((f"KL of {name}", _no_kl(code, seen[0][name])))
    return Gathered(
        x, codes, total / len(x) if known else None, None if kind is None else _blank(kind, x),
        where, kind, batches, observed, reader.skipped,
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


def _blank(likelihood: str, x: Tensor) -> float | None:
    """The NLL of the mean of the other rows, for the likelihoods whose best constant it is.

    The mean of all is fitted to the row that it is held against, which few rows gain much by.
    """
    n, x = len(x), x.double()
    mean = (n * x.mean(0, keepdim=True) - x) / (n - 1)
    if likelihood == "gaussian":
        return float(gaussian_nll(mean, x))
    if likelihood == "bernoulli":
        return float(bernoulli_nll(mean.clamp(1e-6, 1.0 - 1e-6).logit(), x))
    return None

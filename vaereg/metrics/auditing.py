r"""What the mutual-information terms of an objective display, against fresh critics.

A term displays independence when its critic sees none, and a critic sees none when there is none,
when it is too weak, or when the encoder has outrun it. The audit tells these apart: it fits fresh
critics on held-out codes, and measures what they would have seen by planting a leak of known size
into the same codes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from vaereg.metrics.information import InformationWarning, MIEstimate, estimate_mi

__all__ = ["Audit", "AuditHook", "TermAudit", "audit"]

VERDICTS = ("refuted", "dependent", "independent", "cannot tell")
Codes: TypeAlias = "Mapping[str, Any] | Iterable[Mapping[str, Any]]"


class _Term(Protocol):
    """What is read of a term."""

    measures_information: bool
    variables: Sequence[Any]
    training: bool

    def __call__(self, batch: Mapping[str, Any]) -> Tensor: ...
    def train(self, mode: bool = True) -> Any: ...


class _Objective(Protocol):
    """What is read of an objective: its names and their terms."""

    def __iter__(self) -> Any: ...
    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class TermAudit:
    """One term of an audit.

    Attributes:
        name: The term's name in the objective.
        a: First variable, as the term names it.
        b: Second variable.
        kind: The term's class, ``"MINE"`` for instance.
        displayed: What the term displays, in its own quantity.
        estimate: What fresh critics read on held-out rows, in nats.
        verdict: ``"refuted"``, ``"dependent"``, ``"independent"`` or ``"cannot tell"``.
        resolution: Information up to which the two count as independent, in nats.

    Example:
        >>> read = MIEstimate(0.12, 0.01, (0.11, 0.13), -0.1, interval=(0.10, 0.14))
        >>> entry = TermAudit("leak", "z", "y", "MINE", 0.02, read, "refuted", 0.05)
        >>> entry.flagged
        True
    """

    name: str
    a: str
    b: str
    kind: str
    displayed: float
    estimate: MIEstimate
    verdict: str
    resolution: float

    @property
    def flagged(self) -> bool:
        """Whether the term displays independence that fresh critics refute."""
        return self.verdict == "refuted"

    @property
    def note(self) -> str:
        """The verdict in words."""
        size, power = self.resolution, self.estimate.power
        if self.verdict == "refuted":
            return "the term displays independence; fresh critics refute it"
        if self.verdict == "independent":
            return f"a planted leak of {size:.3g} nats would have been seen"
        if self.verdict == "dependent":
            low = (
                self.estimate.mean if self.estimate.interval is None else self.estimate.interval[0]
            )
            return "the term displays less than half of it" if self.displayed < 0.5 * low else ""
        if power is None or math.isinf(power):
            return "no leak that was planted would have been seen"
        return f"only a leak of {power:.3g} nats or more would have been seen for sure"


@dataclass(frozen=True)
class Audit:
    """What an objective displays, against what fresh critics find; ``print`` it for the table.

    Attributes:
        terms: The audited terms by name.
        resolution: Information up to which two variables count as independent, in nats.
        rows: Number of rows that were read.
    """

    terms: dict[str, TermAudit]
    resolution: float
    rows: int

    def __getitem__(self, name: str) -> TermAudit:
        return self.terms[name]

    @property
    def flagged(self) -> tuple[str, ...]:
        """Names of the terms whose displayed independence is refuted."""
        return tuple(name for name, term in self.terms.items() if term.flagged)

    def __str__(self) -> str:
        header = ("term", "variables", "displays", "fresh critics", "power", "verdict")
        lines: list[tuple[str, ...]] = [header]
        for t in self.terms.values():
            e = t.estimate
            low, high = e.interval or (math.nan, math.nan)
            lines.append(
                (
                    t.name,
                    f"{t.a}; {t.b}",
                    f"{t.displayed:.3f}",
                    f"{e.mean:.3f} [{low:.3f}, {high:.3f}]",
                    "-" if e.power is None else f"{e.power:.3g}",
                    t.verdict + (f": {t.note}" if t.note else ""),
                )
            )
        widths = [max(len(line[k]) for line in lines) for k in range(len(header) - 1)]
        text = [
            "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]])
            for line in lines
        ]
        text.insert(1, "-" * max(map(len, text)))
        text.append(
            f"nats; {self.rows} rows; independent means no more than {self.resolution:.3g}"
        )
        return "\n".join(text)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Audit:
        """The inverse of :meth:`to_dict`, also after JSON has turned tuples into lists.

        Example:
            >>> read = MIEstimate(0.0, 0.0, (0.0, 0.0), 0.01, interval=(0.0, 0.0))
            >>> entry = TermAudit("leak", "z", "y", "MINE", 0.01, read, "cannot tell", 0.05)
            >>> one = Audit({"leak": entry}, 0.05, 500)
            >>> Audit.from_dict(one.to_dict()) == one
            True
        """

        def estimate(entry: Mapping[str, Any]) -> MIEstimate:
            fixed: dict[str, Any] = dict(entry)
            for key in ("values", "interval", "choices"):
                fixed[key] = fixed[key] and tuple(fixed[key])
            fixed["values"], fixed["choices"] = fixed["values"] or (), fixed["choices"] or ()
            fixed["planted"] = tuple(tuple(reading) for reading in fixed["planted"])
            return MIEstimate(**fixed)

        terms: dict[str, TermAudit] = {}
        for name, entry in record["terms"].items():
            fields: dict[str, Any] = dict(entry)
            fields["estimate"] = estimate(fields["estimate"])
            terms[name] = TermAudit(**fields)
        return cls(terms, record["resolution"], record["rows"])


def audit(
    objective: _Objective,
    codes: Codes,
    *,
    only: str | Iterable[str] | None = None,
    displayed: Mapping[str, float] | None = None,
    resolution: float = 0.05,
    planted: Sequence[float] | None = None,
    method: str = "auto",
    batch_size: int = 256,
    seed: int = 0,
    **options: Any,
) -> Audit:
    r"""Whether what the mutual-information terms of an objective display is so.

    For each such term, fresh critics read the mutual information of its two variables on rows
    that they have not seen (:func:`estimate_mi`). With the interval :math:`[l, h]` of that
    reading, the displayed value :math:`d` and the resolution :math:`r`, the verdict is

    - **refuted** where :math:`d \le r < l`: the term displays independence, the codes depend on
      each other. A warning says so;
    - **dependent** where :math:`r < l` and the term displays it;
    - **independent** where :math:`h \le r`, *and* the same procedure on the same codes, with a
      leak of at most :math:`r` nats planted, reads half of it or more, in an interval above
      :math:`h`;
    - **cannot tell** otherwise. The power, the smallest planted leak that was seen, says how large
      a leak may have been missed.

    Args:
        objective: The objective, or any mapping of names to terms.
        codes: Held-out rows that training has not seen: batches as the objective reads them (an
            iterable, such as a list of ``out.batch``), or one mapping of names to all rows.
        only: Name or names of the terms to audit; default all that measure information.
        displayed: What training displayed, by name, e.g. ``report.scalars()``; default what the
            terms, in evaluation mode, display on ``codes`` themselves.
        resolution: :math:`r`, information up to which two variables count as independent, in nats.
        planted: Sizes of the planted leaks, ascending; default 1, 2, 4, 8 and 16 times the
            resolution.
        method: A method of :func:`estimate_mi`, or ``"auto"``: ``"classifier"`` where one of the
            variables is a label (one-hot rows, or a single column of zeros and ones), else
            ``"mine"``.
        batch_size: Rows of a batch for the displayed value, where ``codes`` is one mapping.
        seed: Seed of all that is drawn.
        options: Passed on to :func:`estimate_mi`, e.g. ``runs``, ``groups``, ``progress``.

    Returns:
        An :class:`Audit`.

    Raises:
        ValueError: If there is no term to audit, or no rows, or the rows are too few.
        TypeError: If ``codes`` is neither a mapping nor an iterable of mappings.

    Warns:
        InformationWarning: For each term whose displayed independence is refuted.

    Example:
        >>> import vaereg
        >>> g = torch.Generator().manual_seed(0)
        >>> y = torch.randint(2, (600,), generator=g)
        >>> z = torch.randn(600, 2, generator=g) + 2.0 * y[:, None]
        >>> term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(4, 1))  # not fitted
        >>> codes = {"z": z, "y": vaereg.labels(y, classes=2)}
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     found = audit(vaereg.Objective(leak=term), codes, runs=2)
        >>> found.flagged
        ('leak',)
    """
    if not resolution > 0.0:
        raise ValueError(f"resolution: expected a positive number of nats, got {resolution}")
    names = _names(objective, only)
    batches = _batches(codes, batch_size, seed)
    sizes = [resolution * 2.0**k for k in range(5)] if planted is None else list(planted)
    entries: dict[str, TermAudit] = {}
    count = 0
    for name in names:
        term = cast(_Term, objective[name])
        first, second = term.variables[:2]
        with torch.no_grad():
            a, b = (
                torch.cat([v.values(batch).flatten(1).cpu() for batch in batches])
                for v in (first, second)
            )
        count = len(a)
        shown = (
            displayed[name] if displayed and name in displayed else _display(term, batches, seed)
        )
        pair, how = _roles(a, b, method)
        base: dict[str, Any] = {"method": how, "seed": seed, "displayed": shown, **options}
        read = estimate_mi(
            *pair, planted=lambda found: [] if _low(found) > resolution else sizes, **base
        )
        low, high = read.interval or (read.mean, read.mean)
        # A leak of the resolution must be told from what the codes themselves read.
        seen = any(
            size <= resolution and mean >= 0.5 * size and least > high
            for size, mean, least, _ in read.planted
        )
        if low > resolution:
            # A bound below 0 displays no dependence either.
            verdict = "refuted" if shown <= resolution else "dependent"
        else:
            verdict = "independent" if high <= resolution and seen else "cannot tell"
        entry = TermAudit(
            name, first.text, second.text, type(term).__name__, float(shown), read, verdict,
            resolution,
        )  # fmt: skip
        entries[name] = entry
        if entry.flagged:
            warnings.warn(
                f"audit: {name!r} displays {shown:.3f} for {first.text!r} and {second.text!r}, "
                f"but fresh critics find {read.mean:.3f} nats [{low:.3f}, {high:.3f}] on held-out "
                "rows: its critic is outrun or too weak; take more critic steps, at a rate of the "
                "encoder's order",
                InformationWarning,
                stacklevel=2,
            )
    return Audit(entries, resolution, count)


class AuditHook:
    """An audit every few epochs of a training loop, and its history.

    Args:
        objective: The objective that is trained.
        every: Audit at epochs that are multiples of this.
        options: Passed on to :func:`audit`.

    Attributes:
        history: ``(epoch, Audit)`` pairs.

    Raises:
        ValueError: If ``every`` is below 1.

    Example:
        >>> import vaereg
        >>> term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(4, 1))
        >>> hook = AuditHook(vaereg.Objective(leak=term), every=5, runs=1)
        >>> hook(3, codes=lambda: 1 / 0) is None  # not due: the codes are not even computed
        True
    """

    def __init__(self, objective: _Objective, *, every: int = 5, **options: Any) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1, got {every}")
        self.objective = objective
        self.every = every
        self.options = options
        self.history: list[tuple[float, Audit]] = []

    def due(self, epoch: int) -> bool:
        """Whether this epoch is audited."""
        return epoch % self.every == 0

    def __call__(self, epoch: int, codes: Codes | Callable[[], Codes]) -> Audit | None:
        """Audit where it is due.

        Args:
            epoch: The epoch that has ended.
            codes: Held-out codes, or a function that computes them, called only when due.

        Returns:
            The audit, or None where none was due.
        """
        if not self.due(epoch):
            return None
        rows = codes() if callable(codes) else codes
        found = audit(self.objective, rows, **self.options)
        self.history.append((epoch, found))
        return found

    def state_dict(self) -> dict[str, Any]:
        """The history in plain numbers, for a checkpoint or JSON."""
        return {"history": [[epoch, found.to_dict()] for epoch, found in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the history."""
        self.history = [(epoch, Audit.from_dict(record)) for epoch, record in state["history"]]


def _low(found: MIEstimate) -> float:
    return found.mean if found.interval is None else found.interval[0]


def _names(objective: _Objective, only: str | Iterable[str] | None) -> list[str]:
    known = [str(name) for name in objective]
    fit = [n for n in known if getattr(objective[n], "measures_information", False)]
    if only is None:
        if not fit:
            raise ValueError(
                "audit: expected an objective with a term that measures information (MINE, NWJ, "
                f"AdversarialClassifier, ...), got {known}"
            )
        return fit
    names = [only] if isinstance(only, str) else list(only)
    for name in names:
        if name not in fit:
            raise ValueError(f"only: expected names among {fit}, got {name!r}")
    return names


def _batches(codes: Codes, batch_size: int, seed: int) -> list[Mapping[str, Any]]:
    if not isinstance(codes, Mapping):
        batches = list(codes)
        for batch in batches:
            if not isinstance(batch, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(
                    "codes: expected a mapping of names to rows, or an iterable of such batches, "
                    f"got an iterable of {type(batch).__name__}"
                )
        if not batches:
            raise ValueError("codes: expected at least one batch, got none")
        return batches
    if not codes:
        raise ValueError("codes: expected named rows, got an empty mapping")
    values: dict[str, Any] = {
        n: getattr(entry, "value", entry) for n, entry in cast("Mapping[str, Any]", codes).items()
    }
    tensors = {n: v for n, v in values.items() if isinstance(v, Tensor)}
    if not tensors:
        raise TypeError("codes: expected tensors or codes by name, got none")
    count = min(len(v) for v in tensors.values())
    # Rows of a data set are often sorted, and a batch must look like one of training.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    parts = [p for p in torch.split(order, batch_size) if len(p) > 1 or count == 1]
    return [{n: v[p.to(v.device)] for n, v in tensors.items()} for p in parts]


def _display(term: _Term, batches: Sequence[Mapping[str, Any]], seed: int) -> float:
    """The mean of what a term displays, in evaluation mode; nothing moves, not even the seed."""
    mode = term.training
    term.train(False)
    total, rows = 0.0, 0
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            for batch in batches:
                n = len(term.variables[0].values(batch))
                total += float(term(batch)) * n
                rows += n
    finally:
        term.train(mode)
    return total / max(rows, 1)


def _label(x: Tensor) -> Tensor | None:
    """Integer labels of one-hot rows, or of a single column of zeros and ones; -1 = missing."""
    if not bool(((x == 0) | (x == 1)).all()):
        return None
    if x.shape[1] == 1:
        return x[:, 0].long()
    present = x.sum(1)
    if bool((present > 1).any()):
        return None
    return torch.where(present > 0, x.argmax(1), -1)


def _roles(a: Tensor, b: Tensor, method: str) -> tuple[tuple[Tensor, Tensor], str]:
    """The two variables as :func:`estimate_mi` takes them, a label last, and its method."""
    if method not in ("auto", "classifier", "best"):
        return (a, b), method
    how = "classifier" if method == "auto" else method
    for one, two in ((a, b), (b, a)):
        label = _label(two)
        if label is not None:
            return (one, label), how
    return (a, b), "mine" if method == "auto" else method

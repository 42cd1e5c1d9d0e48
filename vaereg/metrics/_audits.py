"""What an audit gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vaereg.metrics._estimate import MIEstimate

__all__ = ["Audit", "TermAudit", "ends", "reading", "verdict"]


def ends(estimate: MIEstimate) -> tuple[float, float]:
    """Ends of the interval; the value itself where none was drawn."""
    return estimate.interval or (estimate.mean, estimate.mean)


def reading(estimate: MIEstimate) -> str:
    """The value and its interval as text."""
    low, high = estimate.interval or (math.nan, math.nan)
    return f"{estimate.mean:.3f} [{low:.3f}, {high:.3f}]"


def verdict(displayed: float, estimate: MIEstimate, resolution: float) -> str:
    """What a display is worth beside a reading; see :func:`vaereg.metrics.audit`."""
    low, high = ends(estimate)
    if low > resolution:
        # A bound below 0 displays no dependence either.
        return "refuted" if displayed <= resolution else "dependent"
    # A leak of the resolution must be told from what the codes themselves read.
    seen = any(
        size <= resolution and mean >= 0.5 * size and least > high
        for size, mean, least, _ in estimate.planted
    )
    return "independent" if high <= resolution and seen else "cannot tell"


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
        scale: What a small displayed value is to be multiplied by for nats of information: 4 for
            ``JSD``, else 1.

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
    scale: float = 1.0

    @property
    def flagged(self) -> bool:
        """Whether the term displays independence that fresh critics refute."""
        return self.verdict == "refuted"

    @property
    def understated(self) -> bool:
        """Whether the term displays a dependence, but less than half of it."""
        less = self.scale * self.displayed < 0.5 * ends(self.estimate)[0]
        return self.verdict == "dependent" and less and self.estimate.bound == "lower"

    @property
    def note(self) -> str:
        """The verdict in words."""
        size, power = self.resolution, self.estimate.power
        if self.verdict == "refuted":
            return "the term displays independence; fresh critics refute it"
        if self.verdict == "independent":
            return f"as far as smooth leaks of one column go: one of {size:.3g} nats was seen"
        if self.verdict == "dependent":
            if self.scale * self.displayed > 2.0 * ends(self.estimate)[1] + size:
                return "the term displays more than twice as much"
            return "the term displays less than half of it" if self.understated else ""
        high = ends(self.estimate)[1]
        if not self.estimate.planted:
            return f"no leak of {size:.3g} nats fits into these variables"
        if power is None or math.isinf(power):
            largest = self.estimate.planted[-1][0]
            return f"no planted leak was seen, the largest of {largest:.3g} nats"
        if power > size:
            return f"only a planted leak of {power:.3g} nats was seen"
        return (
            f"the reading, which reaches to {high:.3g} nats, cannot be told from that of a "
            f"planted leak of {size:.3g}"
        )


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
            lines.append(
                (
                    t.name,
                    f"{t.a}; {t.b}",
                    f"{t.displayed:.3f}",
                    reading(e),
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

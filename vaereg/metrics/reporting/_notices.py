"""What a reader should know before the figures: collapse, holes, bounds that contradict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vaereg.metrics.reporting._gather import RARE, Coded, Gathered
from vaereg.metrics.reporting._measure import Measured

__all__ = ["Notice", "notices"]

_HOLE = 2.0  # variance of the aggregated posterior that is so far from 1 that samples miss it
_IDLE = 0.05  # share of its entropy below which a discrete code counts as idle


@dataclass(frozen=True)
class Notice:
    """A warning.

    Attributes:
        level: ``"bad"``: something is broken or not what it seems; ``"warn"``: worth a look.
        head: What.
        text: Why, and what helps.
    """

    level: str
    head: str
    text: str


def notices(seen: Gathered, found: Measured, active: float) -> list[Notice]:
    """All that apply, the bad ones first."""
    every = [
        *_fit(seen),
        *(notice for code in seen.codes.values() for notice in _code(code, active)),
        *_information(seen, found),
        *_audit(found),
    ]
    return sorted(every, key=lambda notice: notice.level != "bad")


def _fit(seen: Gathered) -> Iterator[Notice]:
    if seen.nll is None:
        return
    if not math.isfinite(seen.nll):
        yield Notice(
            "bad", "The negative log-likelihood is not finite",
            f"It is {seen.nll}. Weights or data hold values that are not finite.",
        )  # fmt: skip
    elif seen.blank is not None and seen.nll >= seen.blank:
        yield Notice(
            "bad", "Reconstructions are no better than the mean of the data",
            f"Negative log-likelihood {seen.nll:.1f} nats, of the mean of these rows "
            f"{seen.blank:.1f}: the decoder has not learned to use its codes.",
        )  # fmt: skip


def _code(code: Coded, active: float) -> Iterator[Notice]:
    name = code.name
    if code.kl is not None:
        dead = sum(value < active for value in code.kl)
        if dead == len(code.kl):
            yield Notice(
                "bad", f"Posterior collapse: all of {name} is inactive",
                f"Each KL is below {active} nats: {name} says next to nothing of the data. A "
                "lower weight of the KL, or one that rises slowly, helps; so does a weaker "
                "decoder.",
            )  # fmt: skip
        elif 2 * dead > len(code.kl):
            yield Notice(
                "warn", f"{dead} of {len(code.kl)} coordinates of {name} are inactive",
                f"Their KL is below {active} nats. That is no fault where the data need no more; "
                "where reconstructions are poor it is a collapse in part.",
            )  # fmt: skip
    if code.q is None:
        return
    if code.q.discrete:
        rare = int(code.rare.sum())
        if rare:
            yield Notice(
                "warn", f"{rare} of {code.rare.numel()} classes of {name} are hardly used",
                f"Less than {RARE:.0%} of what their prior says. A term that holds the mean "
                "posterior to the prior mends it.",
            )  # fmt: skip
    elif code.standard:
        mean, second = code.q.first.double(), code.q.second.double()
        spread = mean.var(0) + second.exp().mean(0)
        middle = mean.mean(0).abs()
        away = (spread > _HOLE) | (spread < 1.0 / _HOLE) | (middle > 0.5)
        if code.kl is not None:
            away &= away.new_tensor([value >= active for value in code.kl])
        if bool(away.any()):
            which = ", ".join(str(d) for d, far in enumerate(away) if bool(far))
            yield Notice(
                "warn", f"The aggregated posterior of {name} is not the prior",
                f"Coordinates {which} have a mean beyond ±0.5, or a variance outside "
                f"[{1 / _HOLE:g}, {_HOLE:g}]: samples from the prior are decoded from codes that "
                "the decoder has seldom seen. DIP, MMD or more weight on the KL pull it in.",
            )  # fmt: skip


def _information(seen: Gathered, found: Measured) -> Iterator[Notice]:
    for name, parts in found.parts.items():
        rows = len(seen.x)
        if parts.mi > 0.9 * math.log(rows):
            yield Notice(
                "warn", f"I(x; {name}) is at its ceiling",
                f"{parts.mi:.2f} nats of at most log {rows} = {math.log(rows):.2f}: so few rows "
                "cannot show more, and the total correlation is read too high by it. Give more "
                "rows.",
            )  # fmt: skip
        elif parts.tc - 2.0 * parts.tc_error > max(0.5, 0.1 * parts.kl):
            yield Notice(
                "warn", f"The coordinates of {name} depend on each other",
                f"Total correlation {parts.tc:.2f} nats of a KL of {parts.kl:.2f}. Where they "
                "should be independent, a weight on the total correlation lowers it at less cost "
                "than one on the whole KL.",
            )  # fmt: skip
    for name, held in found.brackets.items():
        if not held.consistent:
            yield Notice(
                "bad", f"The bounds of I({name}; x) contradict each other",
                f"The lower one, {held.lower:.3f} ± {held.lower_error:.3f}, is above the KL rate, "
                f"{held.upper:.3f}: prior or posterior are not what the model says they are.",
            )  # fmt: skip
        if held.entropy and held.exact < _IDLE * held.entropy:
            yield Notice(
                "warn", f"{name} is all but idle",
                f"It knows {held.exact:.3f} nats of the data, of at most {held.entropy:.2f} that "
                "its entropy would allow. A reward for I(x; "
                f"{name}), as by VariationalMI, makes it speak.",
            )  # fmt: skip
        if held.decoded is not None and held.decoded < 0.25 * min(
            held.exact, held.entropy or held.exact
        ) and held.exact > 0.2:  # fmt: skip
            yield Notice(
                "warn", f"The decoder hides {name}",
                f"It holds {held.exact:.2f} nats on the data, but no more than "
                f"{held.decoded:.2f} could be read back from what is decoded from a draw of it.",
            )  # fmt: skip


def _audit(found: Measured) -> Iterator[Notice]:
    if found.audit is None:
        return
    for name, entry in found.audit.terms.items():
        if entry.flagged:
            yield Notice(
                "bad", f"The term {name} displays an independence that is not there",
                f"It shows {entry.displayed:.3f}; fresh critics read {entry.estimate.mean:.3f} "
                f"nats between {entry.a} and {entry.b}. Its critic is outrun or too weak.",
            )  # fmt: skip
        elif entry.understated:
            yield Notice(
                "warn", f"The term {name} displays less than half of the dependence",
                f"It shows {entry.displayed:.3f}; fresh critics read {entry.estimate.mean:.3f} "
                "nats.",
            )  # fmt: skip

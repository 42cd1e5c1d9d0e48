"""What a reader should know before the figures: collapse, holes, bounds that contradict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from vaereg.metrics._audits import reading
from vaereg.metrics._bracket import MIBracket
from vaereg.metrics.reporting._charts import number
from vaereg.metrics.reporting._codes import RARE, Coded
from vaereg.metrics.reporting._gather import Gathered
from vaereg.metrics.reporting._measure import Measured

__all__ = ["Notice", "notices"]

_HOLE = 2.0  # variance of the aggregated posterior that is so far from 1 that samples miss it
_OFF = 0.5  # mean that is
_IDLE = 0.05  # share of its entropy below which a discrete code counts as idle
_UNREAD = 0.25  # share of what a code holds below which little of it was read back
_LEAST = 0.2  # nats of which there is something to be read back
_UNBIASED = 0.75  # share of it up to which the total correlation is not read too high
_NEAR = 0.9  # share of its ceiling from which exact information counts as at it
_FEW = 50  # rows from which their variances tell of holes
_ROUNDED = 1e-4  # beyond [0, 1] by the precision that data were scaled in
_ERRORS = 2.0  # a notice is of what is so many standard errors beyond its limit


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
        *_fit(seen, found),
        *_broken(seen),
        *(
            notice
            for code in seen.codes.values()
            if code.finite  # of another nothing is known but that
            for notice in _code(code, active)
        ),
        *_information(seen, found),
        *_audit(found),
    ]
    return sorted(every, key=lambda notice: notice.level != "bad")


def _fit(seen: Gathered, found: Measured) -> Iterator[Notice]:
    if seen.likelihood == "bernoulli":
        low, high = float(seen.x.min()), float(seen.x.max())
        if low < -_ROUNDED or high > 1.0 + _ROUNDED:
            yield Notice(
                "bad", "The data are not in [0, 1], as a Bernoulli likelihood needs them",
                f"They go from {number(low)} to {number(high)}, and its negative log-likelihood "
                "means nothing there. Divide bytes by 255, or take another likelihood.",
            )  # fmt: skip
    if seen.nll is None:
        return
    if not math.isfinite(seen.nll):
        yield Notice(
            "bad", "The negative log-likelihood is not finite",
            f"It is {seen.nll}. Weights or data hold values that are not finite.",
        )  # fmt: skip
    elif (
        seen.blank is not None
        and seen.nll >= seen.blank
        and bool((seen.x != seen.x[:1]).any())  # of data that do not vary nothing is better
    ):
        held = [found.brackets.get(name) for name in seen.codes]
        unread = all(bracket is not None and _little(bracket) for bracket in held)
        yield Notice(
            "bad", "Reconstructions are no better than the mean of the data",
            f"Negative log-likelihood {seen.nll:.1f} nats, of the mean of the other rows "
            f"{seen.blank:.1f}"
            + (": the decoder has not learned to use its codes, of which little was read back "
               "from what is decoded." if unread else "."),
        )  # fmt: skip


def _broken(seen: Gathered) -> Iterator[Notice]:
    wrong = [name for name, code in seen.codes.items() if not code.finite]
    for name in wrong:
        yield Notice(
            "bad", f"The code {name} is not finite",
            "Its posterior or its draws hold nan or inf: so do weights or what the encoder "
            "computes of these rows. Nothing was measured of it that could be trusted.",
        )  # fmt: skip
    if seen.broken and not wrong:  # what is decoded from such a code is no fault of the decoder
        yield Notice(
            "bad", "What is decoded is not finite, or decode raises",
            f"{seen.broken[0]}. Weights, or what decode computes of the codes, are at fault.",
        )  # fmt: skip


def _code(code: Coded, active: float) -> Iterator[Notice]:
    name = code.name
    if code.kl is not None:
        dead = sum(value < active for value in code.kl)
        if dead == len(code.kl):
            yield Notice(
                "bad", f"Posterior collapse: all of {name} is inactive",
                f"Each KL is below {active} nats: {name} says next to nothing of the data"
                + " beyond what its prior is given" * code.conditional
                + ". A lower weight of the KL, or one that rises slowly, helps; so does a weaker "
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
    elif code.own is not None and code.own.mean is not None:
        away = _away(code, active)
        if away:
            yield Notice(
                "warn", f"The aggregated posterior of {name} is not the prior",
                f"Coordinates {', '.join(map(str, away))} have a mean beyond ±{_OFF:g}, or a "
                f"variance outside [{1 / _HOLE:g}, {_HOLE:g}], "
                + ("" if code.standard else "both in deviations of their prior from its mean, ")
                + "by more than two standard errors: "
                "samples from the prior are decoded from codes that the decoder has seldom seen. "
                "DIP, MMD or more weight on the KL pull it in.",
            )  # fmt: skip


def _away(code: Coded, active: float) -> list[int]:
    """Coordinates whose aggregated posterior is far from their prior, if these rows tell."""
    n = len(code.value)
    if code.q is None or code.own is None or n < _FEW:
        return []
    own = torch.as_tensor(code.own.mean), torch.as_tensor(code.own.std)
    mean, own_std = (code.q.first.double() - own[0]) / own[1], own[1]
    middle = mean.mean(0)
    squares = (mean - middle).square() + code.q.second.double().exp() / own_std.square()
    spread, error = squares.mean(0), _ERRORS * squares.std(0) / math.sqrt(n)
    far = (spread - error > _HOLE) | (spread + error < 1.0 / _HOLE)
    far |= middle.abs() - _ERRORS * mean.std(0) / math.sqrt(n) > _OFF
    if code.kl is not None:
        far &= torch.tensor([value >= active for value in code.kl])
    return [d for d, off in enumerate(far) if bool(off)]


def _information(seen: Gathered, found: Measured) -> Iterator[Notice]:
    for name, parts in found.parts.items():
        rows, error = len(seen.x), _ERRORS * parts.mi_error
        limit = _NEAR * math.log(rows)
        if parts.mi - error > limit:
            yield Notice(
                "warn", f"I(x; {name}) is at its ceiling",
                f"{parts.mi:.2f} nats of at most log {rows} = {math.log(rows):.2f}: so few rows "
                "cannot show more, and the total correlation is read too high by it. Give more "
                "rows.",
            )  # fmt: skip
        # Near it, and well below, the total correlation of independent coordinates is not 0.
        elif parts.mi + error <= _UNBIASED * math.log(rows) and (
            parts.tc - _ERRORS * parts.tc_error > max(0.5, 0.1 * parts.kl)
        ):
            yield Notice(
                "warn", f"The coordinates of {name} depend on each other",
                f"Total correlation {_read(parts.tc, parts.tc_error, 2)} nats of a KL of "
                f"{parts.kl:.2f}. Where they should be independent, a weight on the total "
                "correlation lowers it at less cost than one on the whole KL.",
            )  # fmt: skip
    for name, held in found.brackets.items():
        yield from _bracket(name, held)


def _bracket(name: str, held: MIBracket) -> Iterator[Notice]:
    # Three errors, as for MIBracket.consistent, but of both bounds: nan where one is infinite.
    if held.lower - 3.0 * math.hypot(held.lower_error, held.upper_error) > held.upper:
        yield Notice(
            "bad", f"The bounds of I({name}; x) contradict each other",
            f"The lower one, {_read(held.lower, held.lower_error)}, is above the KL rate, "
            f"{_read(held.upper, held.upper_error)}: prior or posterior are not what the model "
            "says they are.",
        )  # fmt: skip
    if held.entropy and held.exact + _ERRORS * held.exact_error < _IDLE * held.entropy:
        yield Notice(
            "warn", f"{name} is all but idle",
            f"It knows {_read(held.exact, held.exact_error)} nats of the held-out data, where its "
            f"entropy would allow {held.entropy:.2f}. A reward for I(x; {name}), as by "
            "VariationalMI, makes it speak.",
        )  # fmt: skip
    if _little(held):
        yield Notice(
            "warn", f"Little of {name} was read back from what is decoded",
            f"It holds {_read(held.exact, held.exact_error)} nats on the data. From what is "
            "decoded from a draw of it a fresh critic read "
            + (f"{_read(held.decoded, held.decoded_error)} nats"
               if held.decoded and held.decoded_error is not None else "nothing")
            + f", and {_read(held.lower, held.lower_error)} from the data. These are lower "
            "bounds: the decoder hides the code, or prints it where the critic does not see it.",
        )  # fmt: skip


def _little(held: MIBracket) -> bool:
    """Whether little of what the code holds was read back from what is decoded."""
    if held.decoded is None or held.decoded_error is None:
        return False
    holds = min(held.exact, held.entropy or held.exact)
    little = held.decoded + _ERRORS * held.decoded_error < _UNREAD * holds
    # A critic that cannot read the code from the data either tells nothing of the decoder.
    able = held.lower - _ERRORS * held.lower_error > _UNREAD * holds
    return little and able and holds - _ERRORS * held.exact_error > _LEAST


def _read(value: float, error: float, digits: int = 3) -> str:
    return f"{number(value, digits)} ± {number(error, digits)}"


def _audit(found: Measured) -> Iterator[Notice]:
    if found.audit is None:
        return
    for name, entry in found.audit.terms.items():
        if entry.flagged:
            yield Notice(
                "bad", f"The term {name} displays an independence that is not there",
                f"It shows {entry.displayed:.3f}; fresh critics read "
                f"{reading(entry.estimate)} nats between {entry.a} and {entry.b}. Its critic is "
                "outrun or too weak.",
            )  # fmt: skip
        elif entry.understated:
            yield Notice(
                "warn", f"The term {name} displays less than half of the dependence",
                f"It shows {entry.displayed:.3f}; fresh critics read "
                f"{reading(entry.estimate)} nats, which is a lower bound.",
            )  # fmt: skip

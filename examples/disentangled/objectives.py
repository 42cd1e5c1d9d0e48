"""Objectives by name and weight: ``beta:4``, ``factor:10``, ``beta:4+dip2:10``, ..."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import vaereg

__all__ = ["NAMES", "Context", "Method", "build", "order", "parse", "text_of", "wants_other"]

Entry = tuple[Any, vaereg.Regularizer]


@dataclass(frozen=True)
class Context:
    """What terms must know beside their weights.

    Attributes:
        width: Numbers of the code.
        dataset_size: Pictures of the data set.
        critic_width: Units of each hidden layer of a critic.
        critic_depth: Hidden layers of a critic.
    """

    width: int
    dataset_size: int
    critic_width: int = 1000
    critic_depth: int = 6

    def critic(self, outputs: int) -> Any:
        """A critic of the code, FactorVAE's unless told otherwise."""
        return vaereg.critics.mlp(
            self.width, outputs, width=self.critic_width, depth=self.critic_depth,
            activation="leaky_relu",
        )  # fmt: skip


Make = Callable[[float, Mapping[str, float], Context], dict[str, Entry]]


@dataclass(frozen=True)
class Method:
    """One name that an objective may hold.

    Attributes:
        text: What it is, for the help.
        default: The weight where none is given.
        make: Named terms of weight, options and context.
        kl: Weight that the KL has with it, of weight and options; None where it says nothing.
        options: Further numbers and their defaults; nan for one that is derived.
        replaces: Whether it takes the place of a KL that no other name asks for.
        other: Whether its critic wants a second batch.
    """

    text: str
    default: float
    make: Make
    kl: Callable[[float, Mapping[str, float]], float] | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    replaces: bool = False
    other: bool = False


def _nothing(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    return {}


def _capacity(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    rise = vaereg.schedules.linear(0.0, weight, steps=int(options["steps"]))
    return {"capacity": (options["gamma"], vaereg.Capacity("z", rise))}


def _factor(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    return {"tc_ratio": (weight, vaereg.DensityRatioTC("z", critic=context.critic(2)))}


def _tc(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    # MI + beta TC + dimension-wise KL = KL + (beta - 1) TC: the KL in closed form, and only what
    # is added to it from samples.
    term = vaereg.MinibatchTC(
        "z", dataset_size=context.dataset_size, memory_bank=int(options["bank"])
    )
    return {"tc": (weight - 1.0, term)}


def _dip(kind: Any, share: float) -> Make:
    def make(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
        ratio = share
        if not math.isnan(options["diagonal"]) and weight > 0.0:
            ratio = options["diagonal"] / weight
        if weight == 0.0 and options["diagonal"] > 0.0:  # the variances alone
            term = vaereg.DIP("z", kind=kind, off_diagonal=0.0, diagonal=1.0)
            return {f"dip_{kind}": (options["diagonal"], term)}
        term = vaereg.DIP("z", kind=kind, off_diagonal=1.0, diagonal=ratio)
        return {f"dip_{kind}": (weight, term)}

    return make


def _adversary(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    return {"adversary": (weight, vaereg.Adversary(None, "z", critic=context.critic(1)))}


def _mmd(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    return {"mmd": (weight, vaereg.MMD("z"))}


def _info(weight: float, options: Mapping[str, float], context: Context) -> dict[str, Entry]:
    return {"mmd": (options["alpha"] + weight - 1.0, vaereg.MMD("z"))}


NAMES: dict[str, Method] = {
    "vae": Method("the ELBO", 1.0, _nothing, kl=lambda w, o: w),
    "beta": Method("beta-VAE: weight of the KL", 4.0, _nothing, kl=lambda w, o: w),
    "capacity": Method(
        "gamma |KL - C|, C rising from 0 to the weight over so many steps, as in "
        "capacity:25@100000", 25.0, _capacity, kl=lambda w, o: 0.0,
        options={"steps": 100_000.0, "gamma": 1000.0},
    ),
    "factor": Method("FactorVAE: total correlation by a critic", 10.0, _factor, other=True),
    "tc": Method(
        "beta-TCVAE: weight of the total correlation inside the KL", 6.0, _tc,
        options={"bank": 0.0},
    ),
    "dip1": Method(
        "DIP-VAE-I: off-diagonal weight (diagonal: 10 times it)", 10.0, _dip("i", 10.0),
        options={"diagonal": math.nan},
    ),
    "dip2": Method(
        "DIP-VAE-II: off-diagonal weight (diagonal: the same)", 10.0, _dip("ii", 1.0),
        options={"diagonal": math.nan},
    ),
    "aae": Method("adversary on q(z) in place of the KL", 10.0, _adversary, replaces=True),
    "wae": Method("MMD of q(z) in place of the KL", 100.0, _mmd, replaces=True),
    "infovae": Method(
        "InfoVAE: lambda; KL of weight 1 - alpha, MMD of alpha + lambda - 1", 100.0, _info,
        kl=lambda w, o: 1.0 - o["alpha"], options={"alpha": 0.0},
    ),
}  # fmt: skip
"""What an objective may be made of."""

_WHOLE = ("steps", "bank")
Parsed = dict[str, tuple[float, dict[str, float]]]


def parse(text: str) -> Parsed:
    """The names, weights and options of ``beta:4+dip2:10,diagonal=5``.

    Raises:
        ValueError: If a name is unknown or given twice, a number is none, or two names decide on
            the weight of the KL.
    """
    found: Parsed = {}
    for part in text.split("+"):
        head, *pairs = (word.strip() for word in part.split(","))
        name, _, value = head.partition(":")
        name, (value, _, steps) = name.strip(), value.partition("@")
        if name not in NAMES:
            raise ValueError(
                f"objective {text!r}: expected names among {', '.join(NAMES)}, got {name!r}"
            )
        if name in found:
            raise ValueError(f"objective {text!r}: expected each name once, got {name!r} twice")
        method = NAMES[name]
        options = dict(method.options)
        if steps:
            pairs.append(f"steps={steps}")
        for pair in pairs:
            key, _, number = (word.strip() for word in pair.partition("="))
            if key not in options:
                raise ValueError(
                    f"objective {text!r}: expected options of {name} among {sorted(options)}, "
                    f"got {key!r}"
                )
            options[key] = _number(text, f"{name} {key}", number)
            if key in _WHOLE and options[key] != int(options[key]):
                raise ValueError(
                    f"objective {text!r}: expected {name} {key} a whole number, got {number!r}"
                )
        weight = _number(text, name, value) if value else method.default
        found[name] = (weight, options)
    deciding = [name for name in found if NAMES[name].kl is not None]
    if len(deciding) > 1:
        raise ValueError(
            f"objective {text!r}: expected one name that decides on the KL, got {deciding}"
        )
    return found


def _number(text: str, what: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise ValueError(f"objective {text!r}: expected {what} a number >= 0, got {value!r}")
    return number


def text_of(parsed: Parsed) -> str:
    """The shortest text of an objective, the same for all ways to write it."""
    parts: list[str] = []
    plain = {
        "beta" if name == "vae" and own[0] != 1.0 else name: own for name, own in parsed.items()
    }
    for name, (weight, options) in sorted(plain.items()):
        own = [
            f"{key}={_text(value)}"
            for key, value in options.items()
            if not math.isnan(value) and value != NAMES[name].options[key]
        ]
        parts.append(",".join([name if name == "vae" else f"{name}:{_text(weight)}", *own]))
    return "+".join(parts)


def order(text: str) -> list[tuple[str, float]]:
    """What objectives are sorted by: names, then weights as numbers."""
    return sorted(("beta" if n == "vae" else n, own[0]) for n, own in parse(text).items())


def _text(value: float) -> str:
    """A number that reads back as itself, without a plus: that joins names."""
    short = f"{value:g}"
    return (short if float(short) == value else repr(value)).replace("e+", "e")


def build(text: str, context: Context) -> vaereg.Objective:
    """The objective of a text; the KL is always among its terms, if only to be reported.

    Raises:
        ValueError: As :func:`parse`, or if a term refuses its numbers.
    """
    parsed = parse(text)
    kl = 0.0 if any(NAMES[name].replaces for name in parsed) else 1.0
    terms: dict[str, Entry] = {}
    for name, (weight, options) in parsed.items():
        method = NAMES[name]
        if method.kl is not None:
            kl = method.kl(weight, options)
        made = method.make(weight, options, context)
        twice = set(made) & set(terms)
        if twice:
            raise ValueError(f"objective {text!r}: expected each term once, got {sorted(twice)}")
        terms.update(made)
    return vaereg.Objective(kl=(kl, vaereg.KL("z")), **terms)


def wants_other(text: str) -> bool:
    """Whether a critic of the objective wants a second batch."""
    return any(NAMES[name].other for name in parse(text))

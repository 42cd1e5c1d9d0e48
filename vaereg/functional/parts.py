r"""A code in parts: what a model says of each, as a log-likelihood, and the entropy of all.

A model of :math:`q(v \mid g)` returns logits for a categorical part of :math:`v`, mean and
log-variance for a continuous one, or a distribution. Messages begin with the term's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal, OneHotCategorical

from vaereg.functional.entropies import (
    categorical_entropy,
    entropy_per_row,
    joint_probabilities,
    mixture_entropy,
)
from vaereg.functional.families import base_of
from vaereg.functional.variational import (
    barber_agakov,
    categorical_log_likelihood,
    gaussian_log_likelihood,
    soft_clamp,
)

__all__ = [
    "Part",
    "Prediction",
    "explained",
    "parts_entropy",
    "row_accuracy",
    "row_likelihood",
    "row_weights",
    "split_prediction",
]

Prediction: TypeAlias = "Tensor | Distribution"
_PASSES = 256  # joint states, where each costs a pass over all pairs of rows


class Part(NamedTuple):
    """A part of a code."""

    name: str  # as the user wrote it
    whole: Tensor  # the variable that it is a part of, (B, *event)
    index: Any = None  # which coordinates along dim 1, None for all
    label: bool = False  # one-hot rows without a distribution; a row of zeros is missing
    q: Distribution | None = None  # posterior of the whole variable
    p: Distribution | None = None  # its prior: without q, what it was drawn from

    def take(self, whole: Tensor) -> Tensor:
        """The part's coordinates of something that has the variable's shape."""
        return whole if self.index is None else whole[:, self.index]

    @property
    def value(self) -> Tensor:
        """``(B, *event)``; ``(B, K)`` or, for several variables, ``(B, G, K)`` if discrete."""
        return self.take(self.whole)

    @property
    def base(self) -> Any:
        """The innermost distribution of the posterior, or else the prior; or ``None``."""
        known = self.p if self.q is None else self.q
        return None if known is None else base_of(known)

    @property
    def discrete(self) -> bool:
        """Rows are one-hot (or relaxed) in the last dimension."""
        return self.label or isinstance(self.base, (Categorical, OneHotCategorical))

    @property
    def gaussian(self) -> bool:
        """Whether the posterior is a factorised Gaussian."""
        return self.q is not None and type(self.base) is Normal

    @property
    def numbers(self) -> int:
        """How many numbers a row describe it: logits, or means and log-variances."""
        return self.value.shape[1:].numel() * (1 if self.discrete else 2)


# ---- what a model says


def split_prediction(
    term: str, parts: Sequence[Part], output: object
) -> list[tuple[Part, Prediction]]:
    """What is said of each part, checked: a tensor ``(B, numbers)``, or the distribution of a
    continuous part. Where one distribution describes a joint, that is the only part.

    Args:
        term: Name of the term.
        parts: The parts, in the order in which a tensor describes them along dim 1.
        output: A tensor, a distribution, or a sequence with one of these for each part.

    Raises:
        TypeError: If the output is none of these, or a distribution does not fit a part's kind.
        ValueError: If the number of entries or of numbers a row does not fit.
    """
    names = "+".join(part.name for part in parts)
    said: object = output
    if isinstance(output, Distribution) and len(parts) > 1:
        if any(part.discrete for part in parts):
            raise TypeError(
                f"{term}: expected one entry for each part of code {names!r} from the critic, one "
                "of which is discrete, got one distribution"
            )
        parts = [Part(names, torch.cat([part.value.flatten(1) for part in parts], 1))]
    elif isinstance(output, Tensor) and len(parts) > 1:
        widths = [part.numbers for part in parts]
        if output.shape != (len(parts[0].whole), sum(widths)):
            raise ValueError(
                f"{term}: expected {' + '.join(map(str, widths))} numbers a row from the critic "
                f"for code {names!r} (a logit for each class; a mean and a log-variance for each "
                f"continuous number), got shape {tuple(output.shape)}"
            )
        said = cast("tuple[Tensor, ...]", output.split(widths, 1))
    if isinstance(said, (Tensor, Distribution)):
        said = (said,)
    if not isinstance(said, (tuple, list)):
        raise TypeError(
            f"{term}: expected a tensor, a distribution or a sequence of these from the critic, "
            f"got {type(output).__name__}"
        )
    entries = cast("Sequence[object]", said)
    if len(entries) != len(parts):
        raise ValueError(
            f"{term}: expected an entry from the critic for each part of code {names!r}, "
            f"{len(parts)}, got {len(entries)}"
        )
    return [(part, _checked(term, part, one)) for part, one in zip(parts, entries, strict=True)]


def _checked(term: str, part: Part, said: object) -> Prediction:
    value, rows = part.value, len(part.whole)
    if isinstance(said, Distribution):
        base: Any = base_of(said)
        if isinstance(base, (Categorical, OneHotCategorical)) != part.discrete:
            kind = "logits or a categorical" if part.discrete else "a continuous"
            raise TypeError(
                f"{term}: expected {kind} distribution from the critic for code {part.name!r}, "
                f"got {type(base).__name__}"
            )
        if not part.discrete:
            shape = said.batch_shape + said.event_shape
            if shape not in (value.shape, value.flatten(1).shape):
                raise ValueError(
                    f"{term}: expected a distribution of the shape of code {part.name!r}, "
                    f"{tuple(value.shape)}, from the critic, got {tuple(shape)}"
                )
            return said
        said = base.logits
    if not isinstance(said, Tensor):
        raise TypeError(
            f"{term}: expected a tensor or a distribution from the critic for code "
            f"{part.name!r}, got {type(said).__name__}"
        )
    # The event may keep its shape, with mean and log-variance as halves of dim 1.
    kept = (rows, value.shape[1] * (1 if part.discrete else 2), *value.shape[2:])
    if said.shape not in ((rows, part.numbers), kept):
        if part.discrete:
            raise ValueError(
                f"{term}: expected code {part.name!r} of the shape of the critic's logits, "
                f"{tuple(said.shape)}, got {tuple(value.shape)}"
                + ("; a tensor is a label, a continuous code is a Code" if part.label else "")
            )
        raise ValueError(
            f"{term}: expected a mean and a log-variance from the critic for each of the "
            f"{value.shape[1:].numel()} numbers a row of continuous code {part.name!r}, shape "
            f"{(rows, part.numbers)}, got {tuple(said.shape)}"
        )
    return said.to(torch.promote_types(said.dtype, torch.float32)).flatten(1)


def row_likelihood(part: Part, said: Prediction, logvar_range: tuple[float, float]) -> Tensor:
    """Log-likelihood of each row of a part, ``(B,)`` in nats, in float32 at least.

    Args:
        part: The part.
        said: What :func:`split_prediction` gives for it.
        logvar_range: Ends of the soft clamp of log-variances in a tensor.
    """
    value = part.value
    if isinstance(said, Tensor) and part.discrete:
        single = value.flatten(0, -2)  # (B G, K): a variable a row
        rows = categorical_log_likelihood(single, said.reshape(single.shape))
        return rows.view(len(value), -1).sum(1)
    if isinstance(said, Tensor):
        mean, logvar = said.chunk(2, 1)
        return gaussian_log_likelihood(value.flatten(1), mean, soft_clamp(logvar, *logvar_range))
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    rows = cast(Any, said).log_prob(wide.reshape(said.batch_shape + said.event_shape))
    density = rows.to(torch.promote_types(rows.dtype, torch.float32))
    # Coordinates that nobody declared an event are batch dimensions to torch.
    return density.flatten(1).sum(1) if density.ndim > 1 else density


def row_accuracy(part: Part, said: Prediction) -> Tensor:
    """Share of a discrete part's variables that the logits name, ``(B,)``."""
    assert isinstance(said, Tensor)
    guess, truth = said.reshape(part.value.shape).argmax(-1), part.value.argmax(-1)
    hit = (guess == truth).to(said)
    return hit.mean(1) if hit.ndim > 1 else hit


def explained(part: Part, said: Prediction, weights: Tensor) -> Tensor | None:
    """Share of a continuous part's variance that a Gaussian's mean explains, ``(D,)``; 0 where
    there is no variance, ``None`` for a distribution that is no Gaussian."""
    if isinstance(said, Tensor):
        mean = said.chunk(2, 1)[0]
    else:
        base: Any = base_of(said)
        if type(base) is not Normal:
            return None
        mean = base.loc.flatten(1)
    v, total = part.value.flatten(1).to(weights), weights.sum()
    share = weights.unsqueeze(1) / torch.where(total == 0, 1.0, total)
    error = (share * (v - mean).square()).sum(0)
    spread = (share * (v - (share * v).sum(0)).square()).sum(0)
    return torch.where(spread > 0.0, 1.0 - error / spread, 0.0)


# ---- what is known of the code


def row_weights(parts: Sequence[Part]) -> Tensor:
    """1 for rows that are present, 0 where a label is missing, ``(B,)``."""
    weights = torch.ones_like(parts[0].whole.detach().flatten(1)[:, 0])
    for part in parts:
        if part.label:
            # Of several labels in one tensor all must be there.
            total = part.value.detach().sum(-1)
            weights = weights * (total.prod(1) if total.ndim > 1 else total)
    return weights


def parts_entropy(term: str, parts: Sequence[Part], weights: Tensor) -> Tensor:
    r"""The entropy of a code, never above the truth on average.

    Parts are independent given the row. Labels, categorical and Gaussian posteriors make one
    mixture (:func:`~vaereg.functional.mixture_entropy`); draws from priors add the priors' own
    entropies: conditioning on the row can only lower them.

    Args:
        term: Name of the term.
        parts: The parts.
        weights: 1 for rows that are present and 0 for others, ``(B,)``.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: If the entropy of a part is not known.
        ValueError: If shapes do not fit or there are too many joint states.
    """
    drawn = torch.zeros_like(weights)
    states: list[Tensor] = []
    gaussians: list[Tensor] = []
    for part in parts:
        base = part.base
        if part.label:
            states.append(part.value)
        elif part.q is not None and part.discrete:
            states.append(part.take(base.probs))
        elif part.gaussian:
            columns = part.value, part.take(base.loc), 2.0 * part.take(base.scale).log()
            gaussians.append(torch.stack([each.flatten(1) for each in columns]))
        else:
            drawn = drawn + _draw_entropy(term, part).to(weights)
    total = barber_agakov(drawn, 0.0, weights)
    try:
        limit = _PASSES if gaussians else 4096
        pi = joint_probabilities(states, limit).to(weights) if states else None
    except ValueError as error:
        raise ValueError(f"{term}: {error}; entropy='none' needs none") from None
    if gaussians:
        return total + mixture_entropy(*torch.cat(gaussians, 2), probabilities=pi)
    return total if pi is None else total + categorical_entropy(pi)


def _draw_entropy(term: str, part: Part) -> Tensor:
    kind = "neither posterior nor prior"
    if part.base is not None:
        kind = f"a {type(part.base).__name__} {'prior' if part.q is None else 'posterior'}"
    if part.q is None and part.p is not None:
        try:
            return entropy_per_row(part.p, part.whole, part.index)
        except NotImplementedError:
            kind += " without an entropy in closed form"
        except ValueError as error:
            raise ValueError(f"{term}: code {part.name!r}: {error}") from None
    raise TypeError(
        f"{term}: expected code {part.name!r} with a factorised Gaussian or a categorical "
        f"posterior, or as a draw from its prior, got {kind}; with entropy='none' the value is "
        "the log-likelihood alone"
    )

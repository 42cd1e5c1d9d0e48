"""A fresh conditional model of a code, fitted on some rows and read on others."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaereg.critics import mlp, read_input
from vaereg.functional.variational import soft_clamp
from vaereg.metrics._fit import SCALES, Budget, fit_module
from vaereg.metrics._networks import squash
from vaereg.metrics._posteriors import Family

__all__ = ["Maker", "Skipped", "Target", "log_likelihood"]

Maker = Callable[[int, int], nn.Module]
_LOGVAR = (-12.0, 10.0)  # beside the code's variance over all rows
_ROUNDING = 1e-6  # a deviation of less, beside the mean, is rounding of float32 and no signal
_ROWS = 1024  # read at once


class Target(NamedTuple):
    """What is predicted of a part of the code: in each row a distribution, or a draw.

    A draw is a distribution too: a one-hot one, or one of variance 0.
    """

    discrete: bool
    first: Tensor  # probabilities (N, G, K), or means (N, D)
    second: Tensor  # variances (N, D); not used where discrete

    @classmethod
    def of(cls, q: Family) -> Target:
        """The posteriors themselves: no noise of sampling."""
        if q.discrete:
            return cls(True, q.first.exp(), q.first)
        return cls(False, q.first, q.second.double().exp())

    @classmethod
    def at(cls, value: Tensor, q: Family) -> Target:
        """Draws."""
        return cls(q.discrete, value, torch.zeros_like(value))


def _batches(rows: Tensor) -> list[Tensor]:
    return list(torch.split(rows, _ROWS))


class _Scaler:
    """The data, scaled by statistics of the train rows, a few rows at a time."""

    def __init__(self, x: Tensor, train: Tensor) -> None:
        centre = x[train[:_ROWS]].double().mean(0)  # near the mean: squares keep their digits
        total, squares = torch.zeros_like(centre), torch.zeros_like(centre)
        for rows in _batches(train):
            away = x[rows].double() - centre
            total, squares = total + away.sum(0), squares + away.square().sum(0)
        shift = total / len(train)
        std = (squares / len(train) - shift.square()).clamp_min(0.0).sqrt()
        self.x, self.mean = x, centre + shift
        self.inverse = torch.where(std > _ROUNDING * self.mean.abs(), 1.0 / std, 0.0)

    def __call__(self, rows: Tensor) -> Tensor:
        return squash(((self.x[rows] - self.mean) * self.inverse).float())


class _Part:
    """The log-likelihood of one target.

    What a network says is beside what is known without it: log-probabilities of classes, mean and
    deviation of a continuous code, over the train rows. An output of 0 adds nothing to that.
    """

    def __init__(self, target: Target, train: Tensor) -> None:
        self.target = target
        self.numbers = target.first.shape[1:].numel() * (1 if target.discrete else 2)
        first = target.first[train].double()
        if target.discrete:
            # Krichevsky-Trofimov smoothing: a class that the train rows lack stays possible.
            share = first.sum(0) + 0.5
            self.centre = self.scale = (share / share.sum(-1, keepdim=True)).log()
            return
        self.centre = first.mean(0)
        variance = (first - self.centre).square().mean(0) + target.second[train].double().mean(0)
        self.scale = variance.clamp_min(torch.finfo(torch.float32).tiny).sqrt()

    def __call__(self, said: Tensor, rows: Tensor) -> Tensor:
        """Its expectation in each row, ``(n,)``, in the dtype of what is said."""
        first = self.target.first[rows]
        if self.target.discrete:
            log_q = (self.centre.to(said) + said.view_as(first)).log_softmax(-1)
            return (first.to(said) * log_q).flatten(1).sum(1)
        first = ((first - self.centre) / self.scale).to(said)
        spread = (self.target.second[rows] / self.scale.square()).to(said)
        mean, logvar = said.chunk(2, 1)
        logvar = soft_clamp(logvar, *_LOGVAR)
        squares = ((first - mean).square() + spread) * (-logvar).exp()
        constant = math.log(2.0 * math.pi) + 2.0 * self.scale.log().to(said)
        return -0.5 * (squares + logvar + constant).sum(1)


class Skipped(nn.Module):
    """The default network: a linear map beside a perceptron, which begin at an output of 0."""

    def __init__(self, features: int, numbers: int) -> None:
        super().__init__()
        self.network = mlp(features, numbers, activation="silu")
        self.linear = nn.Linear(features, numbers, bias=False)
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        for p in (last.weight, last.bias, self.linear.weight):
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *event)`` to ``(B, numbers)``."""
        x = x.flatten(1)
        return self.network(x) + self.linear(x)


def log_likelihood(
    x: Tensor,
    targets: Sequence[Target],
    rows: tuple[Tensor, Tensor, Tensor],
    critic: Maker | nn.Module | None,
    budget: Budget,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> Tensor | None:
    r"""Fit :math:`Q(v \mid x)` on the first rows, stop on the second, and read the third.

    Returns:
        :math:`E_{v \sim q_i} \log Q(v \mid x_i)` of the third rows, ``(n,)`` in float64; or None
        where the second rows do not tell the network from one that says nothing.
    """
    train, stop, held = rows
    parts = [_Part(target, train) for target in targets]
    widths = [part.numbers for part in parts]
    read = _Scaler(x, train)
    network = _network(critic, x.shape[1:].numel(), sum(widths)).to(targets[0].first.device)

    def said(index: Tensor) -> Tensor:
        inputs = read(index).to(targets[0].first.device)
        output: object = network(read_input(network, inputs))
        if not isinstance(output, Tensor) or output.shape != (len(index), sum(widths)):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"critic: expected {' + '.join(map(str, widths))} numbers a row (a logit for each "
                "class; a mean and a log-variance for each continuous number), shape "
                f"{(len(index), sum(widths))}, got {got}"
            )
        return output

    def likelihood(output: Tensor, index: Tensor) -> Tensor:
        outputs: list[Tensor] = list(torch.split(output, widths, 1))
        pairs = zip(parts, outputs, strict=True)
        return torch.stack([part(one, index) for part, one in pairs]).sum(0)

    def gains(index: Tensor) -> Tensor:
        output = said(index).double()
        nothing = likelihood(torch.zeros_like(output), index)
        return torch.stack([likelihood(s * output, index) - nothing for s in SCALES], 1)

    def stopped() -> list[tuple[float, float]]:
        found = torch.cat([gains(some) for some in _batches(stop)])
        errors = found.std(0) / math.sqrt(len(found))
        pairs = torch.stack((found.mean(0), errors), 1)
        return [(float(mean), float(error)) for mean, error in pairs.cpu()]

    _, scale = fit_module(
        network, lambda i: -likelihood(said(train[i]), train[i]).mean(), stopped, len(train),
        budget, generator, report, by_value=True,
    )  # fmt: skip
    if not scale:
        return None
    with torch.no_grad():
        return torch.cat([
            likelihood(scale * said(some).double(), some) for some in _batches(held)
        ])  # fmt: skip


def _network(critic: Maker | nn.Module | None, features: int, numbers: int) -> nn.Module:
    if critic is None:
        made = Skipped(features, numbers)
    elif isinstance(critic, nn.Module):
        made = copy.deepcopy(critic).requires_grad_(True)
    else:
        made = critic(features, numbers)
    if not isinstance(made, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            "critic: expected a torch.nn.Module or a factory (in_features, out_features) of one, "
            f"got {type(made).__name__}"
        )
    return made.float()

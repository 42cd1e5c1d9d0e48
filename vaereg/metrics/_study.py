"""One procedure of estimation, that codes and planted leaks alike go through."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaereg.critics import check_critic
from vaereg.metrics._conditional import fit_classifier, fit_conditional
from vaereg.metrics._estimate import MIEstimate
from vaereg.metrics._fit import Budget, Fit, Parts, fit_pair
from vaereg.metrics._networks import PairCritic, classifier, conditional, deep_classifier, sharp
from vaereg.metrics._plant import plant_groups
from vaereg.metrics._read import Rows
from vaereg.metrics._rows import scaled, splits

__all__ = ["Factory", "Study", "check_planted", "with_power"]

Factory = Callable[[int, int], nn.Module]
Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Study:
    """One procedure, that data and planted leaks alike go through."""

    method: str
    critic: Factory | None
    classes: int
    ids: NDArray[np.int64]
    runs: int
    seed: int
    split: tuple[float, ...]
    ranks: bool
    bootstrap: int
    budget: Budget
    device: torch.device

    def passes(self) -> int:
        return self.runs * self.budget.epochs * len(self._makers())

    def _makers(self) -> list[tuple[Factory, float]]:
        """The critics that a run fits, and the factors of their learning rates."""
        if self.critic is not None:
            return [(self.critic, 1.0)]
        if self.classes:
            both: list[tuple[Factory, float]] = [(classifier, 1.0), (deep_classifier, 0.4)]
            return both if self.method == "best" else both[:1]
        if self.method == "club":
            return [(conditional, 1.0)]
        # A shallow network with edges to find bears, and needs, longer steps.
        pair: list[tuple[Factory, float]] = [(PairCritic, 1.0), (sharp, 2.5)]
        return pair if self.method == "best" else pair[:1]

    def weights(self) -> NDArray[np.float32]:
        """One column of ones, and how often each row is drawn in each bootstrap replicate."""
        groups = int(self.ids.max()) + 1
        draw = np.random.default_rng((self.seed, 2))
        columns = np.ones((groups, 1 + self.bootstrap), np.float32)
        columns[:, 1:] = draw.multinomial(groups, np.full(groups, 1.0 / groups), self.bootstrap).T
        return columns[self.ids]

    def read(self, draws: Sequence[Pair], bar: Any) -> list[Fit]:
        """Fit and read all runs, each on its own of ``draws``, or all on the only one."""
        where = self.device
        forked = [where] if where.type == "cuda" else []
        weights, ids = torch.from_numpy(self.weights()), torch.from_numpy(self.ids)
        fits: list[Fit] = []
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(where.type, enabled=False),
            torch.random.fork_rng(forked),
        ):
            for run, index in enumerate(splits(self.ids, self.split, self.runs, self.seed)):
                run_seed = (self.seed * 1_000_003 + run) % 2**63
                generator = torch.Generator().manual_seed(run_seed)
                # Not torch.manual_seed: it would also seed devices that are not forked.
                torch.default_generator.manual_seed(run_seed)
                if where.type == "cuda":
                    with torch.cuda.device(where):
                        torch.cuda.manual_seed(run_seed)
                x, y = draws[run % len(draws)]
                xs = scaled(x, index, self.ranks)
                ys = (
                    [torch.from_numpy(y)[r] for r in index]
                    if self.classes
                    else scaled(y, index, self.ranks)
                )
                train, stop, held = (
                    Rows(p.to(where), q.to(where), ids[r].to(where))
                    for p, q, r in zip(xs, ys, index, strict=True)
                )
                fits.append(
                    self._fit((train, stop, held), weights[index[2]].to(where), generator, bar)
                )
        return fits

    def _fit(self, parts: Parts, weights: Tensor, generator: torch.Generator, bar: Any) -> Fit:
        train = parts[0]
        widths = train.a.shape[1], self.classes or train.b.shape[1]
        modules: list[tuple[nn.Module, Budget]] = []
        for make, rate in self._makers():
            module = make(*widths)
            check_critic(module, "critic")
            budget = replace(self.budget, lr=rate * self.budget.lr)
            modules.append((module.to(self.device, torch.float32), budget))

        def report(value: float) -> None:
            if bar is not None:
                bar.set_postfix(stop=f"{value:.3f}")
                bar.update()

        if self.classes:
            return fit_classifier(modules, parts, weights, self.classes, generator, report)
        if self.method == "club":
            return fit_conditional(*modules[0], parts, weights, generator, report)
        kind = "mine" if self.method == "best" else self.method
        base = self.critic is None
        return fit_pair(kind, modules, parts, weights, generator, report, base=base)

    def interval(self, fits: Sequence[Fit], confidence: float) -> tuple[float, float] | None:
        """Percentiles of the mean over runs; a row weighs the same in every run that reads it."""
        if not self.bootstrap:
            return None
        means = torch.stack([f.held[1:] for f in fits]).mean(0).numpy()
        tail = 0.5 * (1.0 - confidence)
        low, high = np.nanquantile(means, (tail, 1.0 - tail))
        return float(low), float(high)


def check_planted(sizes: Sequence[float], bootstrap: int) -> None:
    if sizes and not bootstrap:
        raise ValueError("bootstrap: expected at least 1 to measure the power, got 0")
    if any(size <= 0.0 for size in sizes) or list(sizes) != sorted(sizes):
        raise ValueError(f"planted: expected positive sizes, ascending, got {tuple(sizes)}")


def with_power(
    found: MIEstimate,
    study: Study,
    x: NDArray[Any],
    y: NDArray[Any],
    sizes: Sequence[float],
    confidence: float,
    bar: Any,
) -> MIEstimate:
    """The estimate with its power: the first planted size that is seen.

    Each run reads a leak of its own: which columns it joins is chance, and one lucky draw must not
    decide.
    """
    readings: list[tuple[float, float, float, float]] = []
    for size in sizes:
        drawn = [
            plant_groups(x, y, study.ids, size, np.random.default_rng((study.seed, 1, run)))
            for run in range(study.runs)
        ]
        leaks = [leak for leak in drawn if leak is not None]
        if len(leaks) < len(drawn):  # so much does not fit into these labels, nor does more
            break
        if bar is not None:
            bar.total += study.passes()
        fits = study.read(leaks, bar)
        mean, ends = (
            float(np.mean([float(f.held[0]) for f in fits])),
            study.interval(fits, confidence),
        )
        assert ends is not None  # bootstrap was checked
        readings.append((size, mean, *ends))
        # A trace of the leak is not the leak: half of it must be there.
        if ends[0] > 0.0 and mean >= 0.5 * size:
            return replace(found, power=size, planted=tuple(readings))
    return replace(found, power=math.inf, planted=tuple(readings))

"""Fresh critics for post-hoc estimates: the default critics, their fit, and how they are read."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaereg.critics import mlp, pair_scores, takes_pair

__all__ = ["Budget", "PairCritic", "classifier", "fit_classifier", "fit_pair", "squash"]

_BLOCK = 1 << 20  # scores held at once while reading all pairs
_SHIFTS = 8  # product rows per joint row, for critics without all_pairs
_STOP_PAIRS, _READ_PAIRS = 1 << 19, 1 << 25
_RATES = (1.0, 0.25, 0.0625)
# Shrinkages of the fitted critic that early stopping may choose from.
_SCALES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
Clip = Callable[[Tensor], Tensor]
Parts = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Budget:
    """How long and how hard a fresh critic is fitted."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    patience: int


class _Quadratic(nn.Module):
    """A network of one variable: linear and quadratic parts from zero, and a perceptron.

    The last layers start at zero, so that the critic starts at T = 0 and what is simple is
    learned first; inputs wider than ``rank`` enter the quadratic part through a projection.
    """

    def __init__(self, features: int, outputs: int, *, width: int, rank: int) -> None:
        super().__init__()
        self.hidden = mlp(features, width, width=width, depth=1, activation="tanh")
        self.head = nn.Linear(width, outputs)
        self.linear = nn.Linear(features, outputs, bias=False)
        self.project = nn.Linear(features, rank, bias=False) if features > rank else nn.Identity()
        r = min(features, rank)
        self.quadratic = nn.Parameter(torch.zeros(outputs, r, r))
        for p in (self.head.weight, self.head.bias, self.linear.weight):
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.hidden(x).tanh()) + self.linear(x)
        p = self.project(x)
        return scores + torch.einsum("bi,kij,bj->bk", p, self.quadratic, p)


class PairCritic(nn.Module):
    r"""The default critic of a pair.

    .. math:: T(a, b) = f(a)^\top g(b) / \sqrt{k} + a^\top W b + u(a) + v(b)

    The bilinear and quadratic parts find linear dependence from few rows, the perceptrons find
    the rest; all pairs of a batch cost one matrix product.

    Args:
        a_features: Width of the first variable.
        b_features: Width of the second variable.
        embedding: Width :math:`k` of the common space.
        width: Hidden units of each perceptron.
        rank: Largest width that the bilinear and quadratic parts see without a projection.
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        *,
        embedding: int = 32,
        width: int = 64,
        rank: int = 64,
    ) -> None:
        super().__init__()
        self.a = _Quadratic(a_features, 1, width=width, rank=rank)
        self.b = _Quadratic(b_features, 1, width=width, rank=rank)
        self.f = mlp(a_features, embedding, width=width, activation="tanh")
        self.g = mlp(b_features, embedding, width=width, activation="tanh")
        self.bilinear = nn.Parameter(torch.zeros(a_features, b_features))
        last = self.g[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f, g = self.f(a), self.g(b)
        left = torch.cat((f * f.shape[1] ** -0.5, a @ self.bilinear), 1)
        return left, torch.cat((g, b), 1), self.a(a), self.b(b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B,)``."""
        left, right, u, v = self._parts(a, b)
        return (left * right).sum(1) + (u + v).squeeze(1)

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, M)``."""
        left, right, u, v = self._parts(a, b)
        return left @ right.mT + u + v.mT


def classifier(a_features: int, classes: int) -> nn.Module:
    """The default classifier: perceptron plus linear and quadratic skips, from zero logits."""
    return _Quadratic(a_features, classes, width=128, rank=64)


def squash(x: Tensor, knee: float = 4.0) -> Tensor:
    """The identity up to ``knee``, logarithmic beyond: monotone, smooth to first order.

    A strictly monotone map leaves mutual information unchanged, and one far outlier no longer
    dominates the quadratic parts.
    """
    size = x.abs().clamp(min=knee)
    return torch.where(x.abs() > knee, x.sign() * knee * (1.0 + (size / knee).log()), x)


def _scaler(scale: float) -> Clip:
    def apply(scores: Tensor) -> Tensor:
        return scores if scale == 1.0 else scale * scores

    return apply


_SCALERS = tuple(_scaler(s) for s in _SCALES)


def _all_pairs(critic: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
    return cast(Any, getattr(critic, "all_pairs", None))


def _products(critic: nn.Module, a: Tensor, b: Tensor, pairs: int) -> Iterator[tuple[Tensor, int]]:
    """Blocks of scores of product rows and their numbers, all i != j where ``pairs`` allows."""
    n = a.shape[0]
    index = torch.arange(n, device=a.device)
    score = _all_pairs(critic)
    if score is None:
        pair = takes_pair(critic)
        # A forward pass a pair, not a product: fewer of them.
        for shift in range(1, min(n - 1, max(_SHIFTS, (pairs >> 6) // n)) + 1):
            yield pair_scores(critic, a, b.roll(-shift, 0), pair=pair), n
        return
    width = min(n, max(2, pairs // n))
    # Narrow windows move with the rows, so that every column takes part.
    rows = max(1, _BLOCK // width if width == n else min(width, _BLOCK // width))
    for start in range(0, n, rows):
        i = index[start : start + rows]
        j = index if width == n else (start + index[:width]) % n
        scores = score(a[i], b if width == n else b[j])
        own = i[:, None] == j
        yield scores.masked_fill(own, -math.inf), own.numel() - int(own.sum())


def joint_scores(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Scores of the rows themselves, ``(n,)``."""
    if _all_pairs(critic) is None:
        return pair_scores(critic, a, b, pair=takes_pair(critic))
    return pair_scores(critic, a, b, pair=True)


def _bound(
    critic: nn.Module, a: Tensor, b: Tensor, pairs: int, clip: Sequence[Clip]
) -> list[tuple[float, float]]:
    """Donsker-Varadhan over all (or ``pairs``) product rows for each clip, and standard errors.

    The error is that of the mean over joint rows: the mean over all pairs varies far less.
    """
    totals = [torch.tensor(-math.inf, dtype=torch.float64, device=a.device) for _ in clip]
    count = 0
    for block, pairs_in_block in _products(critic, a, b, pairs):
        count += pairs_in_block
        for k, f in enumerate(clip):
            totals[k] = torch.logaddexp(totals[k], f(block).flatten().logsumexp(0).double())
    joint = joint_scores(critic, a, b).double()
    return [
        (float(f(joint).mean() - total + math.log(count)), _error(f(joint)))
        for f, total in zip(clip, totals, strict=True)
    ]


def _error(rows: Tensor) -> float:
    """Standard error of a mean over rows."""
    return float(rows.std()) / math.sqrt(len(rows))


def _batch_loss(critic: nn.Module, a: Tensor, b: Tensor, generator: torch.Generator) -> Tensor:
    n = a.shape[0]
    score = _all_pairs(critic)
    if score is not None:
        scores = score(a, b)
        own = torch.eye(n, dtype=torch.bool, device=a.device)
        off = scores.masked_fill(own, -math.inf).flatten().logsumexp(0) - math.log(n * (n - 1))
        return off - scores.diagonal().mean()
    pair = takes_pair(critic)
    shifts = 1 + torch.randperm(n - 1, generator=generator)[:_SHIFTS]
    others = torch.cat([b.roll(-int(s), 0) for s in shifts])
    product = pair_scores(critic, a.repeat(len(shifts), *[1] * (a.ndim - 1)), others, pair=pair)
    joint = pair_scores(critic, a, b, pair=pair)
    return product.logsumexp(0) - math.log(product.numel()) - joint.mean()


def _train(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    values: Callable[[], list[tuple[float, float]]],
    rows: int,
    budget: Budget,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> float:
    """Fit by AdamW, restore the state of the best value, return its scale (0: none above 0).

    The best of many values of few rows is too good by chance, hence each counts less two of its
    standard errors; at thousands of rows this costs nothing where there is dependence. When
    nothing better has come for a while, training goes on from the best state at a smaller
    learning rate.
    """
    batch = max(2, min(budget.batch_size, rows // 4))
    best, scale, state = 0.0, 0.0, copy.deepcopy(module.state_dict())
    left = budget.epochs
    for rate in _RATES:
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=rate * budget.lr, weight_decay=budget.weight_decay
        )
        waited = 0
        while left > 0 and waited < budget.patience:
            left -= 1
            module.train()
            order = torch.randperm(rows, generator=generator)
            for start in range(0, rows - batch + 1, batch):
                optimizer.zero_grad(set_to_none=True)
                loss(order[start : start + batch]).backward()
                optimizer.step()
            module.eval()
            with torch.no_grad():
                bounds = [v - 2.0 * error for v, error in values()]
            k = max(range(len(_SCALES)), key=bounds.__getitem__)
            waited += 1
            if bounds[k] > best:  # a nan is never better
                best, scale, waited = bounds[k], _SCALES[k], 0
                state = copy.deepcopy(module.state_dict())
            report(best)
        module.load_state_dict(state)
    return scale


def fit_pair(
    critic: nn.Module,
    parts: Parts,
    budget: Budget,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> tuple[float, float]:
    """Fit on the first part, stop on the second, read on the third; (held out, train) bounds."""
    (a, b), stop, held = parts
    scale = _train(
        critic,
        lambda i: _batch_loss(critic, a[i.to(a.device)], b[i.to(a.device)], generator),
        lambda: _bound(critic, *stop, pairs=_STOP_PAIRS, clip=_SCALERS),
        len(a),
        budget,
        generator,
        report,
    )
    if scale == 0.0:
        return 0.0, 0.0
    with torch.no_grad():
        # No product pair may score above every joint row of the second part: a fixed ceiling
        # keeps the bound valid and one outlier from ruining it.
        ceiling = float(joint_scores(critic, *stop).max())

        def clip(scores: Tensor) -> Tensor:
            return scale * scores.clamp(max=ceiling)

        m = len(held[0])
        value = _bound(critic, *held, pairs=_READ_PAIRS, clip=(clip,))[0][0]
        return value, _bound(critic, a[:m], b[:m], pairs=_READ_PAIRS, clip=(clip,))[0][0]


def fit_classifier(
    module: nn.Module,
    parts: Parts,
    classes: int,
    budget: Budget,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> tuple[float, float]:
    """As :func:`fit_pair` for a classifier: mean of log q(y | a) - log p(y)."""
    (a, y), stop, held = parts
    # Krichevsky-Trofimov smoothing: a class that the train rows lack has a finite log-frequency.
    counts = torch.bincount(y, minlength=classes).to(a.dtype) + 0.5
    prior = (counts / counts.sum()).log()

    def gains(x: Tensor, labels: Tensor, scales: Sequence[float]) -> list[Tensor]:
        logits, marginal = module(x), prior[labels]
        # (n,) for each scale.
        return [
            -F.cross_entropy(s * logits + prior, labels, reduction="none") - marginal
            for s in scales
        ]

    scale = _train(
        module,
        lambda i: -gains(a[i.to(a.device)], y[i.to(a.device)], (1.0,))[0].mean(),
        lambda: [(float(g.mean()), _error(g)) for g in gains(*stop, _SCALES)],
        len(a),
        budget,
        generator,
        report,
    )
    with torch.no_grad():
        return float(gains(*held, (scale,))[0].mean()), float(gains(a, y, (scale,))[0].mean())

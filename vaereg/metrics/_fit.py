"""Fresh critics for post-hoc estimates: how they are fitted, stopped and chosen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaereg.critics import AllPairs, Concatenated, pair_scores, takes_pair
from vaereg.metrics._networks import Canonical, Mean, Sum, joint_scores
from vaereg.metrics._read import Reader, Rows, bound_and_error, read

__all__ = ["SCALES", "Budget", "Fit", "Parts", "batch_loss", "canonical", "fit_module", "fit_pair"]

_SHIFTS = 8  # product rows per joint row, for critics without cheap pairs
_STOP_PAIRS, _READ_PAIRS, _CHOICE_PAIRS = 1 << 19, 1 << 25, 1 << 17
_RATES = (1.0, 0.25, 0.0625)
# Shrinkages of the fitted critic that early stopping may choose from.
SCALES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
# What T = 0 itself may seem to be worth by rounding.
_NOTHING = 1e-6
_RIDGES = (1e-6, 0.1, 1.0)
Parts = tuple[Rows, Rows, Rows]
Factory = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Budget:
    """How long and how hard a fresh critic is fitted."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    patience: int


@dataclass(frozen=True)
class Fit:
    """What one run gives: values on held-out rows (first the value itself, then its bootstrap
    replicates), and the value on as many rows of the critic's own."""

    held: Tensor
    train: float
    choice: str


def canonical(parts: Parts) -> Canonical | None:
    """The canonical critic that is best on the second part, or None where none is above 0."""
    train, stop, _ = parts
    best, chosen = _NOTHING, None
    for ridge in _RIDGES:
        full = Canonical(train.a, train.b, ridge)
        top = full.correlations.numel()
        counts = [k for k in range(1, top + 1) if k <= 6 or k == top or k & (k - 1) == 0]
        for count in counts:
            for shrink in (1.0, 0.9, 0.75, 0.5):
                critic = full.cut(count, shrink)
                value, error = bound_and_error(
                    "mine", critic, stop, (1.0,), _CHOICE_PAIRS, len(stop)
                )[0]
                if value - 2.0 * error > best:
                    best, chosen = value - 2.0 * error, critic
    return chosen


# ---- losses of a batch


def _batch_scores(critic: nn.Module, rows: Rows, generator: torch.Generator) -> Any:
    """Joint scores ``(n,)`` and product scores with those of one group at -inf."""
    n = len(rows)
    rest = getattr(critic, "rest", critic)
    if hasattr(critic, "all_pairs") and not _dense(rest):
        scores = cast(Any, critic).all_pairs(rows.a, rows.b)
        return scores.diagonal(), scores.masked_fill(rows.group[:, None] == rows.group, -math.inf)
    pair = hasattr(critic, "all_pairs") or takes_pair(critic)
    shifts = 1 + torch.randperm(n - 1, generator=generator)[:_SHIFTS]
    index = torch.arange(n)
    other = ((index + shifts[:, None]) % n).flatten().to(rows.a.device)
    own = index.repeat(len(shifts)).to(rows.a.device)
    product = pair_scores(critic, rows.a[own], rows.b[other], pair=pair)
    product = product.masked_fill(rows.group[own] == rows.group[other], -math.inf)
    return joint_scores(critic, rows.a, rows.b), product


def _dense(critic: nn.Module) -> bool:
    return isinstance(critic, Concatenated)


def batch_loss(kind: str, critic: nn.Module, rows: Rows, generator: torch.Generator) -> Tensor:
    if kind == "infonce":
        table = _full_table(critic, rows)
        same = rows.group[:, None] == rows.group
        same = same & ~torch.eye(len(rows), dtype=torch.bool, device=same.device)
        return (table.masked_fill(same, -math.inf).logsumexp(1) - table.diagonal()).mean()
    joint, product = _batch_scores(critic, rows, generator)
    count = torch.isfinite(product).sum().clamp_min(1).to(product.dtype)
    if kind in ("jsd", "smile"):
        # softplus(-inf) is 0, but its gradient there is not what its neighbours' is.
        fine = torch.isfinite(product)
        penalty = F.softplus(product.masked_fill(~fine, 0.0)) * fine
        return F.softplus(-joint).mean() + penalty.sum() / count
    partition = product.flatten().logsumexp(0) - count.log()
    if kind == "nwj":
        # The tangent at 20 in place of e^x beyond: a wild start must not overflow.
        return partition.clamp(max=20.0).exp() * (1.0 + (partition - 20.0).clamp_min(0.0)) - (
            joint.mean()
        )
    return partition - joint.mean()


def _full_table(critic: nn.Module, rows: Rows) -> Tensor:
    return AllPairs(critic)(rows.a, rows.b)


# ---- training


def fit_module(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    values: Callable[[], list[tuple[float, float]]],
    rows: int,
    budget: Budget,
    generator: torch.Generator,
    report: Callable[[float], None],
    by_value: bool = False,
) -> tuple[float, float]:
    """Fit by AdamW, restore the state of the best value; that value and its scale (0: none).

    The best of many values of few rows is too good by chance, hence each counts less two of its
    standard errors; at thousands of rows this costs nothing where there is dependence. When
    nothing better has come for a while, training goes on from the best state at a smaller
    learning rate.

    With ``by_value`` the errors only decide what is told from nothing, and not which is best of
    what is: they grow with the scale, and would prefer a critic that says too little.
    """
    batch = max(2, min(budget.batch_size, rows // 4))
    best, scale, state = _NOTHING, 0.0, copy.deepcopy(module.state_dict())

    def look() -> bool:
        nonlocal best, scale, state
        module.eval()
        with torch.no_grad():
            found = values()
        bounds = [v - 2.0 * error for v, error in found]
        if by_value:
            told = [b > _NOTHING for b in bounds]
            bounds = [v if t else -math.inf for (v, _), t in zip(found, told, strict=True)]
        k = max(range(len(bounds)), key=bounds.__getitem__)
        if not bounds[k] > best:  # a nan is never better
            return False
        best, scale = bounds[k], SCALES[k]
        state = copy.deepcopy(module.state_dict())
        return True

    look()
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
            waited = 0 if look() else waited + 1
            report(best)
        module.load_state_dict(state)
    module.eval()
    return best, scale


def _fit_one(
    kind: str,
    critic: nn.Module,
    parts: Parts,
    budget: Budget,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> tuple[float, float]:
    train, stop, _ = parts
    if not any(p.requires_grad for p in critic.parameters()):
        bounds = bound_and_error(kind, critic, stop, (1.0,), _STOP_PAIRS, budget.batch_size)
        value = bounds[0][0] - 2.0 * bounds[0][1]
        return (value, 1.0) if value > _NOTHING else (0.0, 0.0)
    return fit_module(
        critic,
        lambda i: batch_loss(kind, critic, train[i.to(train.a.device)], generator),
        lambda: bound_and_error(kind, critic, stop, SCALES, _STOP_PAIRS, budget.batch_size),
        len(train),
        budget,
        generator,
        report,
    )


def fit_pair(
    kind: str,
    critics: Sequence[tuple[nn.Module, Budget]],
    parts: Parts,
    weights: Tensor,
    generator: torch.Generator,
    report: Callable[[float], None],
    *,
    base: bool,
) -> Fit:
    """Fit on the first part, stop and choose on the second, read on the third.

    With ``base`` each critic is added to the canonical one. Of several critics, and of the mean
    of the first two, the one that is best on the second part is read.
    """
    train, stop, held = parts
    start = canonical(parts) if base else None
    candidates: list[tuple[float, float, str, nn.Module]] = []
    for critic, budget in critics:
        module = critic if start is None else Sum(start, critic)
        best, scale = _fit_one(kind, module, parts, budget, generator, report)
        candidates.append((best, scale, type(critic).__name__, module))
    size = critics[0][1].batch_size
    if len(candidates) > 1 and min(c[1] for c in candidates[:2]) > 0.0:
        both = Mean(candidates[0][3], candidates[1][3]).eval()
        with torch.no_grad():
            bounds = bound_and_error(kind, both, stop, SCALES, _STOP_PAIRS, size)
        k = max(range(len(bounds)), key=lambda k: bounds[k][0] - 2.0 * bounds[k][1])
        candidates.append((bounds[k][0] - 2.0 * bounds[k][1], SCALES[k], "Mean", both))
    _, scale, name, critic = max(candidates, key=lambda c: c[0])
    if scale == 0.0:
        return Fit(torch.zeros(weights.shape[1], dtype=torch.float64), 0.0, "none")
    with torch.no_grad():
        # No product pair may score above every joint row of the second part: a fixed ceiling
        # keeps the bound valid and one outlier from ruining it.
        ceiling = float(joint_scores(critic, stop.a, stop.b).max())
        change: Reader = lambda s: scale * s.clamp(max=ceiling)  # noqa: E731
        options: dict[str, Any] = {
            "change": change, "pairs": _READ_PAIRS, "batch": size,
        }  # fmt: skip
        values = read(kind, critic, held, weights, **options)
        m = min(len(held), len(train))
        own = read(kind, critic, train[:m], weights[:m, :1] * 0.0 + 1.0, **options)
    return Fit(values.cpu(), float(own[0]), name)

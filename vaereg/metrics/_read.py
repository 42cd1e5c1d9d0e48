"""How a fitted critic is read on rows that it has not seen, and how sure that reading is.

Every reader returns one value a column of ``weights``: the first column is all ones (the value
itself), each other one a bootstrap replicate, whose rows count as often as they were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vaereg.critics import Concatenated, pair_scores, takes_pair
from vaereg.metrics._networks import joint_scores

__all__ = ["Rows", "Reader", "bound_and_error", "group_error", "group_index", "read", "shifts_of"]

_BLOCK = 1 << 20  # scores held at once
_SHIFTS = 8  # product rows per joint row, for critics without all_pairs
Reader = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """Aligned rows of two variables; rows of one group make no product pairs."""

    a: Tensor
    b: Tensor
    group: Tensor

    def __len__(self) -> int:
        return self.a.shape[0]

    def __getitem__(self, index: Any) -> Rows:
        return Rows(self.a[index], self.b[index], self.group[index])


def shifts_of(n: int, pairs: int) -> int:
    """How many cyclic shifts of ``n`` rows give about ``pairs`` pairs, of a critic without
    ``all_pairs``: a forward pass a pair, not a product, so fewer of them."""
    return min(n - 1, max(_SHIFTS, (pairs >> 6) // n))


def product_scores(
    critic: nn.Module, rows: Rows, pairs: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Blocks of scores of product pairs: scores ``(I, J)``, whether each is a pair of different
    groups, and the rows that they come from; all i != j where ``pairs`` allows.

    For a critic without ``all_pairs`` a block is ``(n, 1)``.
    """
    n = len(rows)
    index = torch.arange(n, device=rows.a.device)
    score = cast(Any, getattr(critic, "all_pairs", None))
    if score is None:
        pair = takes_pair(critic)
        for shift in range(1, shifts_of(n, pairs) + 1):
            other = index.roll(-shift)
            scores = pair_scores(critic, rows.a, rows.b[other], pair=pair)
            yield scores[:, None], (rows.group != rows.group[other])[:, None], index, other
        return
    # Each pair of a concatenated critic is a pass through a network.
    dense = any(isinstance(m, Concatenated) for m in critic.modules())
    pairs, block = (pairs >> 4, _BLOCK >> 3) if dense else (pairs, _BLOCK)
    width = min(n, max(2, pairs // n))
    # Narrow windows move with the rows, so that every column takes part.
    step = max(1, block // width if width == n else min(width, block // width))
    for start in range(0, n, step):
        i = index[start : start + step]
        j = index if width == n else (start + index[:width]) % n
        scores = score(rows.a[i], rows.b if width == n else rows.b[j])
        yield scores, rows.group[i][:, None] != rows.group[j], i, j


def log_partition(
    critic: nn.Module, rows: Rows, pairs: int, change: Reader, weights: Tensor
) -> Tensor:
    """log E[e^T] over product pairs for each column of ``weights``, in float64: ``(R,)``."""
    total = torch.full(weights.shape[1:], -math.inf, dtype=torch.float64, device=weights.device)
    count = torch.zeros_like(total)
    for scores, fine, i, j in product_scores(critic, rows, pairs):
        scores = change(scores).masked_fill(~fine, -math.inf)
        top = scores.max()
        if not bool(torch.isfinite(top)):
            if bool(fine.any()):  # an infinite or nan score: no bound at all
                return torch.full_like(total, math.inf)
            continue
        mass, pair = (scores - top).exp(), fine.to(weights.dtype)
        if scores.shape[1] == 1 and len(i) == len(j) > 1:
            both = weights[i] * weights[j]
            mass, pair = (mass * both).sum(0), (pair * both).sum(0)
        else:
            mass = (weights[i] * (mass.to(weights.dtype) @ weights[j])).sum(0)
            pair = (weights[i] * (pair @ weights[j])).sum(0)
        total = torch.logaddexp(total, mass.double().log() + top.double())
        count += pair.double()
    return total - count.log()


def _row_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values.double() @ weights.double()) / weights.double().sum(0)


def read(
    kind: str,
    critic: nn.Module,
    rows: Rows,
    weights: Tensor,
    *,
    change: Reader,
    pairs: int,
    batch: int,
    clip: float = 5.0,
) -> Tensor:
    """The bound ``kind`` for each column of ``weights``, ``(R,)``; ``change`` acts on scores."""
    joint = change(joint_scores(critic, rows.a, rows.b))
    if kind == "infonce":
        return _row_mean(_info_nce_rows(critic, rows, change, batch), weights)
    value = _row_mean(joint, weights)
    # Of P product pairs none is expected to score as joint ones do where I > log P: beyond that
    # the partition is of pairs that say nothing, and the reading has no upper end.
    most = 2.0 * math.log(len(rows))
    if kind == "nwj":
        # T = 1 + S, where S is the log ratio at the optimum.
        value = value + 1.0 - log_partition(critic, rows, pairs, change, weights).exp()
        return value.clamp(max=most)
    if kind == "smile":
        change_, limit = change, clip
        return value - log_partition(
            critic, rows, pairs, lambda s: change_(s).clamp(-limit, limit), weights
        )
    return (value - log_partition(critic, rows, pairs, change, weights)).clamp(max=most)


def _info_nce_rows(critic: nn.Module, rows: Rows, change: Reader, batch: int) -> Tensor:
    """T(a_i, b_i) - log mean_j e^T(a_i, b_j) over blocks of ``batch`` rows, for each row."""
    n = len(rows)
    # The last block takes the rows that are left, and borrows from before to be of one size.
    size = min(batch, n)
    found = torch.empty(n, device=rows.a.device)
    for start in range(0, n, size):
        at = min(start, n - size)
        part = rows[at : at + size]
        scores = change(_table(critic, part))
        same = part.group[:, None] == part.group
        same.fill_diagonal_(False)
        scores = scores.masked_fill(same, -math.inf)
        count = (~same).sum(1).to(scores.dtype).log()
        found[at : at + size] = scores.diagonal() - scores.logsumexp(1) + count
    return found


def _table(critic: nn.Module, rows: Rows) -> Tensor:
    score = cast(Any, getattr(critic, "all_pairs", None))
    if score is not None:
        return score(rows.a, rows.b)
    n, pair = len(rows), takes_pair(critic)
    flat = pair_scores(
        critic, rows.a.repeat_interleave(n, 0), rows.b.repeat(n, *[1] * (rows.b.ndim - 1)),
        pair=pair,
    )  # fmt: skip
    return flat.view(n, n)


def group_index(group: Tensor) -> tuple[Tensor, int]:
    """Groups numbered from 0, and how many there are."""
    index = cast(Any, torch.unique)(group, return_inverse=True)[1]
    return index, int(index.max()) + 1


def group_error(values: Tensor, group: Tensor) -> float:
    """Standard error of the mean of ``values``; draws of one datum are one observation."""
    n = len(values)
    index, groups = group_index(group)
    if groups == n:
        return float(values.std()) / math.sqrt(n)
    centred = (values - values.mean()).double()
    sums = centred.new_zeros(groups).index_add_(0, index, centred)
    return math.sqrt(float(sums.square().sum()) * groups / max(groups - 1, 1)) / n


def bound_and_error(
    kind: str, critic: nn.Module, rows: Rows, scales: tuple[float, ...], pairs: int, batch: int
) -> list[tuple[float, float]]:
    """The bound for each shrinkage of the scores, and the standard error of its joint mean.

    The error is that of the mean over joint rows: the mean over all pairs varies far less. The
    SMILE value is no bound, so that there the Donsker-Varadhan bound decides.
    """
    joint = joint_scores(critic, rows.a, rows.b)
    error = group_error(joint, rows.group)
    mean = float(joint.double().mean())
    if kind == "infonce":
        return [
            (float(_info_nce_rows(critic, rows, _times(c), batch).double().mean()), c * error)
            for c in scales
        ]
    totals = [torch.tensor(-math.inf, dtype=torch.float64, device=joint.device) for _ in scales]
    count = 0
    for scores, fine, _, _ in product_scores(critic, rows, pairs):
        count += int(fine.sum())
        scores = scores.masked_fill(~fine, -math.inf).flatten()
        for k, scale in enumerate(scales):
            totals[k] = torch.logaddexp(totals[k], (scale * scores).logsumexp(0).double())
    partitions = [float(t) - math.log(max(count, 1)) for t in totals]
    if kind == "nwj":
        values = [c * mean + 1.0 - _exp(z) for c, z in zip(scales, partitions, strict=True)]
    else:
        values = [c * mean - z for c, z in zip(scales, partitions, strict=True)]
    return [(v, c * error) for v, c in zip(values, scales, strict=True)]


def _times(scale: float) -> Reader:
    return lambda scores: scale * scores


def _exp(x: float) -> float:
    return math.exp(x) if x < 700.0 else math.inf

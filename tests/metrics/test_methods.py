"""The methods of estimate_mi against known truths, and their parts against slow forms."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from exact_mi import CASES, chain, dense, dense_ratio, gaussian, gaussian_club, gaussian_mi

from vaereg.critics import concatenated, separable
from vaereg.metrics import InformationWarning, MIEstimate, TermAudit, estimate_mi
from vaereg.metrics._audits import verdict
from vaereg.metrics._conditional import _read_classifier
from vaereg.metrics._fit import SCALES, batch_loss, canonical
from vaereg.metrics._networks import Canonical, Mean, Sum
from vaereg.metrics._read import Rows, bound_and_error, group_error, read
from vaereg.metrics._rows import splits
from vaereg.metrics._study import Study

PAIRS = ("mine", "nwj", "jsd", "infonce", "smile")
SPLIT = (range(4), range(4, 8))


# ---- whole methods


@pytest.mark.parametrize("method", [*PAIRS, "best"])
def test_a_gaussian_pair_by_name(method: str) -> None:
    a, b = gaussian(3000, 1, 0.9, 0)
    found = estimate_mi(a, b, method=method, runs=2, epochs=25)
    assert found.mean == pytest.approx(gaussian_mi(1, 0.9), abs=4 * 0.9 / 1200**0.5 + 0.03)
    assert found.method == method and len(found.choices) == 2
    assert found.bound == ("none" if method == "smile" else "lower")
    ceiling = math.log(512 if method == "infonce" else 600)  # a batch; a fifth of the rows
    assert found.ceiling == (None if method == "smile" else pytest.approx(ceiling))


def test_club_reads_its_own_quantity() -> None:
    a, b = gaussian(20_000, 2, 0.7, 0)
    found = estimate_mi(a, b, method="club", runs=5, epochs=15)
    # Five runs read every row once: the error of that mean, and 3% that is not learned.
    truth = gaussian_club(2, 0.7)
    assert found.mean == pytest.approx(truth, abs=3 * 0.02 + 0.03 * truth)
    assert found.bound == "upper" and found.ceiling is None
    assert found.mean > 1.3 * gaussian_mi(2, 0.7)


@pytest.mark.parametrize("method", ["classifier", "best"])
def test_labels_that_only_two_columns_tell(method: str) -> None:
    case = CASES["xor codes noise=0.3 flip=0"]
    a, y = case.rows(3000, 0)
    found = estimate_mi(a, y, method=method, runs=2)
    assert found.mean == pytest.approx(case.truth, abs=0.04)
    one = estimate_mi(a[:, :1], y, method=method, runs=2)
    assert abs(one.mean) <= 0.01


def test_best_finds_the_edges_that_a_separable_critic_misses() -> None:
    case = CASES["uniform noise e=0.1"]
    a, b = case.rows(4000, 0)
    options: dict[str, Any] = {"runs": 1, "epochs": 60}
    best = estimate_mi(a, b, method="best", **options)
    mine = estimate_mi(a, b, method="mine", **options)
    assert best.choices[0] in ("Concatenated", "Mean")
    assert mine.mean + 0.05 < best.mean < case.truth + 0.1


@pytest.mark.parametrize("method", [*PAIRS, "best", "club"])
def test_independent_rows_give_exactly_nothing(method: str) -> None:
    a, b = gaussian(600, 3, 0.0, 0)
    found = estimate_mi(a, b, method=method, runs=1, epochs=20)
    assert abs(found.mean) < 0.02 and (found.mean == 0.0) == (found.choices == ("none",))


def test_infonce_is_capped_by_its_batch() -> None:
    a, b = gaussian(1200, 1, 0.9999, 0)
    with pytest.warns(InformationWarning, match="near 2.77, the log of the batch of 16"):
        found = estimate_mi(a, b, method="infonce", runs=1, epochs=10, batch_size=16)
    assert found.mean <= math.log(16) < gaussian_mi(1, 0.9999)


def test_a_reading_may_pass_the_log_of_the_rows_but_not_unsaid() -> None:
    a, b = gaussian(500, 20, 0.8, 0)
    with pytest.warns(InformationWarning, match="above 4.61, the log of the 100 rows"):
        found = estimate_mi(a, b, runs=1, epochs=2)
    assert found.ceiling is not None and found.mean > found.ceiling


def test_club_of_labels_is_warned_of() -> None:
    a, y = CASES["ring noise=0.8"].rows(300, 0, codes=True)
    with pytest.warns(InformationWarning, match="b takes few distinct values"):
        estimate_mi(a, y, method="club", runs=1, epochs=1)


def test_runs_read_disjoint_rows_and_groups_stay_together() -> None:
    ids = np.repeat(np.arange(100), 3)
    parts = [[set(ids[p]) for p in part] for part in splits(ids, (0.6, 0.2, 0.2), 5, 0)]
    for train, stop, held in parts:
        assert not train & stop and not train & held and not stop & held
    assert sorted(g for part in parts for g in part[2]) == list(range(100))


# ---- what a batch is fitted by


def rows(n: int, generator: int = 0, groups: Tensor | None = None) -> Rows:
    g = torch.Generator().manual_seed(generator)
    a, b = torch.randn(n, 2, generator=g).double(), torch.randn(n, 3, generator=g).double()
    return Rows(a, b, torch.arange(n) if groups is None else groups)


def pairwise(critic: Any, r: Rows) -> Tensor:
    """All scores, one pair at a time."""
    n = len(r)
    return torch.stack([
        torch.stack([critic(r.a[i : i + 1], r.b[j : j + 1]).squeeze() for j in range(n)])
        for i in range(n)
    ])  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_a_batchs_loss_against_loops(kind: str) -> None:
    torch.manual_seed(0)
    critic = separable(2, 3).double()
    r = rows(8, groups=torch.tensor([0, 0, 1, 2, 3, 4, 5, 5]))
    scores, groups = pairwise(critic, r), r.group.tolist()
    joint = scores.diagonal()
    product = torch.stack(
        [scores[i, j] for i in range(8) for j in range(8) if groups[i] != groups[j]]
    )
    assert len(product) == 64 - 8 - 4
    if kind == "infonce":
        each = [
            scores[i, i]
            - torch.stack(
                [scores[i, j] for j in range(8) if i == j or groups[i] != groups[j]]
            ).logsumexp(0)
            for i in range(8)
        ]
        expected = -torch.stack(each).mean()
    elif kind in ("jsd", "smile"):
        expected = (1 + (-joint).exp()).log().mean() + (1 + product.exp()).log().mean()
    else:
        partition = product.exp().mean()
        expected = (partition if kind == "nwj" else partition.log()) - joint.mean()
    found = batch_loss(kind, critic, r, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)


def test_a_wild_partition_is_replaced_by_its_tangent() -> None:
    class Constant(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value, dtype=torch.double))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.value + 0.0 * a.sum(1)

    for value in (19.0, 25.0, 900.0):
        critic = Constant(value)
        loss = batch_loss("nwj", critic, rows(8), torch.Generator())
        (slope,) = torch.autograd.grad(loss, [critic.value])
        x = min(value, 20.0)
        expected = math.exp(x) * (1.0 + max(value - 20.0, 0.0)) - value
        assert loss.item() == pytest.approx(expected, rel=1e-12)
        assert slope.item() == pytest.approx(math.exp(x) - 1.0, rel=1e-12)


# ---- what is read of held-out rows


class Scored(torch.nn.Module):
    """A critic of two arguments without all_pairs."""

    def __init__(self, critic: torch.nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.critic(a, b)


@pytest.mark.parametrize("cheap", [True, False])
@pytest.mark.parametrize("kind", PAIRS)
def test_readings_and_bootstrap_against_loops(kind: str, cheap: bool) -> None:
    """A replicate's rows counted one by one, as often as they were drawn."""
    torch.manual_seed(1)
    inner = separable(2, 3).double()
    critic = inner if cheap else Scored(inner)
    r = rows(10, groups=torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]))
    weights = torch.tensor([[1] * 10, [2, 2, 0, 1, 0, 3, 1, 1, 1, 0]]).T.double()
    found = read(
        kind, critic, r, weights, change=lambda s: 3.0 * s, pairs=1 << 20, batch=10, clip=0.5
    )
    scores, groups = 3.0 * pairwise(inner, r), r.group.tolist()
    for k in range(2):
        drawn = [i for i in range(10) for _ in range(int(weights[i, k]))]
        joint = torch.stack([scores[i, i] for i in drawn]).mean()
        if kind == "infonce":
            each = []
            for i in drawn:
                others = [scores[i, j] for j in range(10) if i == j or groups[i] != groups[j]]
                each.append(scores[i, i] - torch.stack(others).exp().mean().log())
            expected = torch.stack(each).mean()
        else:
            product = torch.stack(
                [scores[i, j] for i in drawn for j in drawn if groups[i] != groups[j]]
            )
            if kind == "smile":
                product = product.clamp(-0.5, 0.5)
            partition = product.exp().mean()
            # The scores of nwj are log ratios, to which its own 1 is added.
            expected = joint + 1.0 - partition if kind == "nwj" else joint - partition.log()
        torch.testing.assert_close(found[k], expected)


@torch.no_grad()
def test_bounds_of_shrunken_critics_are_those_of_scaled_scores() -> None:
    torch.manual_seed(2)
    critic, r = separable(2, 3).double(), rows(12)
    ones = torch.ones(12, 1).double()
    for kind in ("mine", "nwj", "infonce"):
        found = bound_and_error(kind, critic, r, SCALES, 1 << 20, 12)
        for (value, error), scale in zip(found, SCALES, strict=True):
            slow = read(
                kind, critic, r, ones, change=lambda s, c=scale: c * s, pairs=1 << 20, batch=12
            )
            assert value == pytest.approx(slow[0].item(), abs=1e-9)
            std = float(scale * critic(r.a, r.b).detach().std())
            assert error == pytest.approx(std / 12**0.5, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_classifiers_reading_against_loops(scale: float) -> None:
    """log q(y | a) less the log of its mean over the a of other groups."""
    g = torch.Generator().manual_seed(0)
    logits, y = torch.randn(9, 3, generator=g).double(), torch.randint(3, (9,), generator=g)
    groups = torch.tensor([0, 0, 1, 2, 3, 4, 4, 5, 6])
    r = Rows(logits, y, groups)
    weights = torch.tensor([[1] * 9, [2, 2, 0, 1, 1, 3, 3, 1, 0]]).T.double()
    q = (scale * logits).softmax(1)
    found = _read_classifier(q.log(), r, weights)
    for k in range(2):
        for i in range(9):
            others = [(float(weights[j, k]), j) for j in range(9) if groups[j] != groups[i]]
            marginal = sum(w * q[j, y[i]] for w, j in others) / sum(w for w, _ in others)
            torch.testing.assert_close(found[i, k], q[i, y[i]].log() - marginal.log())


@pytest.mark.parametrize("method", ["classifier", "best"])
def test_many_rare_classes_are_no_dependence(method: str) -> None:
    """Against label frequencies of other rows, smoothed, this reads 0.1 to 0.3 nats of nothing."""
    draw = np.random.default_rng(0)
    zipf = 1.0 / np.arange(1, 501)
    y = draw.choice(500, 600, p=zipf / zipf.sum())
    constant = estimate_mi(np.ones((600, 1)), y, method=method, classes=500, runs=2)
    assert constant.mean == 0.0
    for seed in range(3):
        a, labels = gaussian(400, 4, 0.0, seed)[0], draw.integers(0, 200, 400)
        found = estimate_mi(a, labels, method=method, classes=200, runs=2, epochs=15)
        assert found.interval is not None
        assert found.mean <= 0.01 and found.interval[0] <= 0.0


def test_the_error_of_a_mean_counts_data_and_not_draws() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    once = group_error(values, torch.arange(50))
    assert once == pytest.approx(float(values.std()) / 50**0.5)
    ten = group_error(values.repeat_interleave(10), torch.arange(50).repeat_interleave(10))
    assert ten == pytest.approx(once, rel=1e-5)


@pytest.mark.parametrize("kind", ["wide", "rounded"])
def test_inputs_of_any_kind(kind: str) -> None:
    a, b = (torch.from_numpy(x) for x in gaussian(300, 2, 0.8, 0))
    options: dict[str, Any] = {"runs": 1, "epochs": 3}
    if kind == "rounded":
        for method in ("mine", "best", "club"):
            estimate_mi(a.bfloat16(), b.bfloat16(), method=method, **options)
        return
    plain = estimate_mi(a, b, **options)
    torch.set_default_dtype(torch.float64)
    try:
        assert estimate_mi(a, b, **options).mean == pytest.approx(plain.mean, abs=0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert estimate_mi(a, b, **options) == plain


def test_labels_as_a_column_and_as_truth_values() -> None:
    a, y = CASES["mixture 0.8/0.2, apart"].rows(300, 0)
    options: dict[str, Any] = {"runs": 1, "epochs": 3}
    for method in ("classifier", "best"):
        plain = estimate_mi(a, y, method=method, **options)
        for same in (y[:, None], y.astype(bool), torch.tensor(y)[:, None]):
            assert estimate_mi(a, same, method=method, **options) == plain


# ---- the critics


def test_the_canonical_critic_is_the_log_ratio_of_gaussians() -> None:
    """From exact second moments, which whitened rows have, the scores are exact."""
    cov = chain(8, 0.6)
    x = np.random.default_rng(0).standard_normal((400, 8))
    x -= x.mean(0)
    x = np.linalg.solve(np.linalg.cholesky(x.T @ x / len(x)), x.T).T @ np.linalg.cholesky(cov).T
    a, b = x[:, :4] + 3.0, x[:, 4:] - 1.0
    critic = Canonical(torch.from_numpy(a), torch.from_numpy(b), 0.0)
    other_a, other_b = dense(50, cov, SPLIT, 1)
    shifted = torch.from_numpy(other_a + 3.0), torch.from_numpy(other_b - 1.0)
    exact = torch.from_numpy(dense_ratio(other_a, other_b, cov, SPLIT))
    torch.testing.assert_close(critic(*shifted), exact)
    torch.testing.assert_close(critic.all_pairs(*shifted).diagonal(), exact)
    # One correlation less is the log ratio without it.
    assert len(critic.cut(2, 0.5).correlations) == 2
    torch.testing.assert_close(critic.cut(2, 0.5).correlations, 0.5 * critic.correlations[:2])


def test_a_canonical_critic_is_taken_only_where_it_helps() -> None:
    def parts(rho: float) -> Any:
        a, b = (torch.from_numpy(x).float() for x in gaussian(900, 5, rho, 0))
        ids = torch.arange(900)
        return tuple(Rows(a[i], b[i], ids[i]) for i in ids.split(300))

    assert canonical(parts(0.0)) is None
    assert canonical(parts(0.8)) is not None


def test_sums_and_means_of_critics() -> None:
    torch.manual_seed(0)
    one, two = separable(2, 3), concatenated(2, 3, width=8)
    a, b = torch.randn(6, 2), torch.randn(6, 3)
    x, y = one.all_pairs(a, b), two.all_pairs(a, b)
    for made, expected in ((Sum(one, two), x + y), (Mean(one, two), (x + y) / 2)):
        torch.testing.assert_close(made.all_pairs(a, b), expected)
        torch.testing.assert_close(made(a, b), expected.diagonal())


def test_replicates_draw_groups_whole() -> None:
    ids = np.array([0, 0, 1, 2, 2, 2])
    study: Any = Study("mine", None, 0, ids, 1, 0, (0.6, 0.2, 0.2), False, 50, None, None)  # type: ignore[arg-type]
    weights = study.weights()
    assert weights.shape == (6, 51) and (weights[:, 0] == 1).all()
    assert (weights[0] == weights[1]).all() and (weights[3] == weights[5]).all()
    assert (weights[[0, 2, 3]].sum(0) == 3).all() and weights.std() > 0


# ---- verdicts


def estimate(mean: float, half: float, *planted: tuple[float, float, float, float]) -> MIEstimate:
    power = next((s for s, m, low, _ in planted if low > 0 and m >= 0.5 * s), math.inf)
    return MIEstimate(
        mean, 0.0, (mean,), 0.0, power, interval=(mean - half, mean + half), planted=planted
    )


SEEN, TRACE = (0.05, 0.04, 0.03, 0.05), (0.05, 0.01, 0.005, 0.02)


@pytest.mark.parametrize(
    ("displayed", "read_", "expected"),
    [
        (0.02, estimate(0.2, 0.1), "refuted"),
        (-1.0, estimate(0.2, 0.1), "refuted"),  # a bound below 0 displays no dependence either
        (0.06, estimate(0.2, 0.1), "dependent"),
        (0.02, estimate(0.1, 0.06), "cannot tell"),  # the interval holds the resolution
        (0.02, estimate(0.0, 0.0, SEEN), "independent"),
        (0.9, estimate(0.0, 0.0, SEEN), "independent"),  # whatever an overfit term displays
        (0.02, estimate(0.0, 0.0, TRACE), "cannot tell"),
        (0.02, estimate(0.0, 0.0, TRACE, (0.1, 0.09, 0.08, 0.1)), "cannot tell"),
        (0.02, estimate(0.0, 0.0), "cannot tell"),
        (0.02, estimate(0.03, 0.015, SEEN), "cannot tell"),  # the leak is not told from the codes
        (0.02, estimate(0.03, 0.03, SEEN), "cannot tell"),
    ],
)
def test_verdicts(displayed: float, read_: MIEstimate, expected: str) -> None:
    assert verdict(displayed, read_, 0.05) == expected
    entry = TermAudit("leak", "z", "y", "MINE", displayed, read_, expected, 0.05)
    assert entry.flagged == (expected == "refuted")
    assert ("smooth leaks of one column" in entry.note) == (expected == "independent")
    if expected == "cannot tell":
        assert ("only a planted leak of 0.1" in entry.note) == (len(read_.planted) == 2)
        assert ("the reading, which reaches to" in entry.note) == (read_.power == 0.05)


# ---- the bars: 10,000 rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_twenty_dimensions_bar(seed: int) -> None:
    a, b = gaussian(10_000, 20, 0.5, seed)
    assert 2.60 <= estimate_mi(a, b, method="best", runs=1, seed=seed).mean <= gaussian_mi(20, 0.5)

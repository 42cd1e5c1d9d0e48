from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from exact_mi import gaussian, gaussian_mi, ring, ring_mi, student, student_mi

from vaereg.critics import mlp, separable
from vaereg.metrics import MIEstimate, estimate_mi
from vaereg.metrics import _rows as module
from vaereg.metrics._networks import PairCritic, squash

ONE_HOT = np.eye(5)
RANK: dict[str, Any] = {"rank_transform": True}


# The truths themselves, another way.


@pytest.mark.parametrize("nu", [1.0, 2.5, 5.0])
def test_student_mi_by_quadrature(nu: float) -> None:
    rho = 0.7
    # x = sinh(t)^3 spreads a uniform grid over the heavy tails, in float64 to 1e-12 of mass.
    t = np.linspace(-math.asinh(1e4), math.asinh(1e4), 2001)
    x, dx = np.sinh(t) ** 3, 3.0 * np.sinh(t) ** 2 * np.cosh(t) * (t[1] - t[0])
    square = (x[:, None] ** 2 + x**2 - 2.0 * rho * x[:, None] * x) / (1.0 - rho**2)
    joint = -math.log(2.0 * math.pi) - 0.5 * math.log1p(-(rho**2))
    joint = joint - (0.5 * nu + 1.0) * np.log1p(square / nu)
    marginal = stats.t.logpdf(x, nu)
    weight = np.exp(joint) * dx[:, None] * dx
    assert weight.sum() == pytest.approx(1.0, abs=1e-4)
    value = float((weight * (joint - marginal[:, None] - marginal)).sum())
    assert value == pytest.approx(student_mi(nu, rho), abs=1e-3)


def test_student_mi_tends_to_the_gaussian() -> None:
    assert student_mi(1e6, 0.7) == pytest.approx(gaussian_mi(1, 0.7), abs=1e-5)


def test_ring_mi_by_sampling() -> None:
    a, y = ring(200_000, 0.4, 0)
    angle = 2 * np.pi * np.arange(5) / 5
    centres = np.stack((np.cos(angle), np.sin(angle)), 1)
    score = -((a[:, None] - centres) ** 2).sum(-1) / (2 * 0.4**2)
    ratio = score[np.arange(len(y)), y] - np.log(np.exp(score).mean(1))
    assert ratio.mean() == pytest.approx(ring_mi(0.4), abs=4 * ratio.std() / len(y) ** 0.5)


# Fast accuracy: the tolerance is four standard deviations of a held-out mean of the true log
# ratio, plus what 1800 rows leave unlearned on top.


def test_mine_on_a_gaussian_pair() -> None:
    estimate = estimate_mi(*gaussian(3000, 1, 0.9, 0), runs=2, epochs=25)
    assert estimate.mean == pytest.approx(gaussian_mi(1, 0.9), abs=4 * 0.9 / 1200**0.5 + 0.03)
    assert len(estimate.values) == 2
    assert estimate.std == pytest.approx(np.std(estimate.values, ddof=1))


def test_classifier_on_the_ring() -> None:
    a, y = ring(3000, 0.4, 0)
    estimate = estimate_mi(a, y, method="classifier", runs=2)
    assert estimate.mean == pytest.approx(ring_mi(0.4), abs=4 * 0.7 / 1200**0.5 + 0.03)


def test_labels_as_integers_one_hot_arrays_and_tensors_agree() -> None:
    a, y = ring(600, 0.4, 0)
    options: dict[str, Any] = {"method": "classifier", "runs": 1, "epochs": 5}
    first = estimate_mi(a, y, **options)
    assert estimate_mi(torch.tensor(a), torch.tensor(y), **options) == first
    assert estimate_mi(a, ONE_HOT[y], **options) == first


def test_missing_labels_are_dropped() -> None:
    a, y = ring(600, 0.4, 0)
    options: dict[str, Any] = {"method": "classifier", "runs": 1, "epochs": 5, "classes": 5}
    kept = np.arange(600) % 3 > 0
    missing = np.where(kept, y, -1)
    expected = estimate_mi(a[kept], y[kept], **options)
    assert estimate_mi(a, missing, **options) == expected
    zeros = ONE_HOT[y] * kept[:, None]
    assert estimate_mi(a, zeros, **options) == expected


def test_independent_labels_give_about_zero() -> None:
    a, _ = ring(2000, 0.4, 0)
    _, y = ring(2000, 0.4, 1)
    for method, b in (("classifier", y), ("mine", ONE_HOT[y])):
        assert abs(estimate_mi(a, b, method=method, runs=1).mean) < 0.01


@pytest.mark.parametrize("b_kind", ["wide", "binary"])
def test_wide_noise_is_not_taken_for_dependence(b_kind: str) -> None:
    a, b = gaussian(500, 64, 0.0, 0)
    if b_kind == "binary":
        b = (b[:, :1] > 0).astype(float)
    estimate = estimate_mi(a, b, runs=2)
    assert abs(estimate.mean) < 0.03 and min(estimate.values) > -0.1


def test_overfit_critic_shows_in_the_gap_not_in_the_value() -> None:
    # The display of a critic that has seen the rows it scores: overfit, 1.5 nats of nothing.
    a, b = gaussian(500, 64, 0.0, 0)
    estimate = estimate_mi(a, b, runs=2, displayed=1.5)
    assert abs(estimate.mean) < 0.03
    assert estimate.gap == pytest.approx(1.5 - estimate.mean)


def test_gap_is_training_bound_minus_held_out() -> None:
    estimate = estimate_mi(*gaussian(400, 10, 0.6, 0), runs=1)
    assert 0.0 < estimate.gap < 2.0


def test_never_far_above_the_truth_at_small_n() -> None:
    estimate = estimate_mi(*gaussian(500, 20, 0.5, 0), runs=2, epochs=30)
    assert -0.05 < estimate.mean < gaussian_mi(20, 0.5) + 0.1


# Transforms.


def test_rank_transform_is_invariant_to_monotone_maps() -> None:
    a, b = gaussian(600, 2, 0.8, 0)
    options: dict[str, Any] = {"runs": 1, "epochs": 5, "rank_transform": True}
    plain = estimate_mi(a, b, **options)
    warped = estimate_mi(np.sinh(3 * a), b**3, **options)
    # Train rows agree exactly; the others are interpolated on another scale.
    assert warped.mean == pytest.approx(plain.mean, abs=0.02)


def test_rank_transform_survives_cauchy_tails() -> None:
    estimate = estimate_mi(*student(2000, 1.0, 0.7, 0), runs=1, epochs=40, **RANK)
    assert 0.3 < estimate.mean < student_mi(1.0, 0.7) + 0.15


def test_without_ranks_heavy_tails_stay_finite() -> None:
    estimate = estimate_mi(*student(1000, 1.0, 0.7, 0), runs=1, epochs=40)
    assert -0.1 < estimate.mean < student_mi(1.0, 0.7) + 0.25


def test_scaled_uses_train_rows_only_and_handles_constants() -> None:
    x = np.random.default_rng(0).normal(5.0, 3.0, (100, 3))
    x[:, 1] = 7.0
    rows = torch.arange(100).split([60, 20, 20])
    train, _, held = module.scaled(x, rows, False)
    torch.testing.assert_close(train[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(train[:, 0].std(correction=0), torch.tensor(1.0))
    assert (train[:, 1] == 0).all() and (held[:, 1] == 0).all()
    x[-1] = 1e300
    again = module.scaled(x, rows, False)
    torch.testing.assert_close(again[0], train)
    assert all(bool(p.isfinite().all()) for p in again)


def test_squash_is_the_identity_inside_and_monotone() -> None:
    x = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    y = squash(x)
    assert (y[x.abs() <= 4] == x[x.abs() <= 4]).all() and (y.diff() > 0).all()
    assert torch.equal(y, -squash(-x))


def test_constant_a_gives_zero() -> None:
    _, y = ring(300, 0.4, 0)
    # Only the bias can move, and held-out rows differ from train rows a little.
    assert abs(estimate_mi(np.ones(300), y, method="classifier", runs=1).mean) < 0.02
    assert estimate_mi(np.ones(300), ONE_HOT[y], runs=1).mean == pytest.approx(0.0, abs=0.02)


# The critics.


def test_default_critic_starts_at_zero_and_scores_agree() -> None:
    critic = PairCritic(3, 70)
    a, b = torch.randn(5, 3), torch.randn(5, 70)
    assert (critic(a, b) == 0).all()
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(0.1 * torch.randn_like(p))
    torch.testing.assert_close(critic.all_pairs(a, b).diagonal(), critic(a, b))


class Swapped(nn.Module):
    """A critic of two arguments without all_pairs."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.net = mlp(a + b, 1, width=32)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((x, y), 1))


@pytest.mark.parametrize(
    "critic", [lambda a, b: mlp(a + b, 1, width=32), Swapped, separable], ids=["cat", "two", "sep"]
)
def test_own_critics(critic: Any) -> None:
    a, b = gaussian(1000, 1, 0.9, 0)
    estimate = estimate_mi(a, b, critic=critic, runs=1, epochs=20)
    assert estimate.mean == pytest.approx(gaussian_mi(1, 0.9), abs=4 * 0.9 / 200**0.5)


def test_own_classifier() -> None:
    a, y = ring(1000, 0.4, 0)  # blobs of one width: the best classifier is linear
    estimate = estimate_mi(a, y, method="classifier", critic=nn.Linear, runs=1, lr=0.05)
    assert estimate.mean == pytest.approx(ring_mi(0.4), abs=4 * 0.7 / 200**0.5)


# Determinism and side effects.


def test_deterministic_for_a_seed() -> None:
    a, b = gaussian(300, 2, 0.8, 0)
    first = estimate_mi(a, b, runs=2, epochs=5)
    torch.rand(3)
    assert estimate_mi(a, b, runs=2, epochs=5) == first
    assert estimate_mi(a, b, runs=2, epochs=5, seed=1) != first
    assert first.values[0] != first.values[1]


def test_caller_state_is_untouched() -> None:
    a, b = (torch.tensor(x, dtype=torch.float32) for x in gaussian(300, 2, 0.8, 0))
    a.requires_grad_()
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.no_grad():
        inside = estimate_mi(a, b, runs=1, epochs=5)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert a.grad is None
    with torch.inference_mode():
        assert estimate_mi(a, b, runs=1, epochs=5) == inside


def test_bfloat16_images_and_vectors() -> None:
    a, b = (torch.tensor(x) for x in gaussian(300, 4, 0.8, 0))
    estimate = estimate_mi(a.view(300, 1, 2, 2).bfloat16(), b[:, 0], runs=1, epochs=5)
    assert math.isfinite(estimate.mean)


def test_progress(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = gaussian(100, 1, 0.8, 0)
    estimate_mi(a, b, runs=1, epochs=2, progress=True)
    assert "estimate_mi" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install"):
        estimate_mi(a, b, runs=1, epochs=2, progress=True)


# The result.


def test_bits() -> None:
    nats = MIEstimate(math.log(2), math.log(4), (0.0, 2 * math.log(2)), math.log(2), math.log(8))
    bits = nats.in_bits()
    assert (bits.mean, bits.std, bits.gap, bits.power) == pytest.approx((1.0, 2.0, 1.0, 3.0))
    assert bits.values == pytest.approx((0.0, 2.0)) and bits.unit == "bits"
    assert bits.in_bits() is bits and nats.unit == "nats"
    assert (
        str(MIEstimate(0.83, 0.012, (0.83,) * 5, 0.0)) == "0.830 ± 0.012 nats (5 runs, held out)"
    )
    assert str(MIEstimate(0.83, 0.0, (0.83,), 0.0)).endswith("(1 run, held out)")
    assert nats.in_bits().in_bits().power == pytest.approx(3.0)


# Errors.

A, Y = ring(100, 0.4, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "knn"}, "method: expected one of best, classifier, club, .*got 'knn'"),
        ({"runs": 0}, "runs: expected at least 1, got 0"),
        ({"patience": 0}, "patience: expected at least 1"),
        ({"split": (0.6, 0.2, 0.3)}, "split: expected three positive fractions that sum to 1"),
        ({"split": (0.9, 0.1)}, "split: expected three"),
        ({"split": (0.9, 0.05, 0.05)}, "split: expected at least 8 rows in each part"),
        ({"b": A[:-1]}, "b: expected as many rows as a, 100, got 99"),
        ({"a": A[:20], "b": A[:20]}, "expected at least 50"),
        ({"a": np.where(A > 1, np.nan, A)}, "a: expected finite values"),
        ({"b": np.where(A > 1, np.inf, A)}, "b: expected finite values"),
        ({"a": np.float64(1.0)}, "a: expected rows"),
        ({"a": A[:, :0]}, "a: expected at least one column"),
        ({"b": Y}, "b: expected one-hot labels or real numbers"),
        ({"b": Y * 0, "method": "classifier"}, "at least two classes, got only 0"),
        ({"b": Y * 0 - 1, "method": "classifier"}, "expected at least 50"),
        ({"b": Y - 2, "method": "classifier"}, r"labels in 0\.\.2 \(-1 = missing\), got -2\.\.2"),
        ({"b": Y, "method": "classifier", "classes": 3}, r"labels in 0\.\.2 .*got 0\.\.4"),
        ({"b": A, "method": "classifier"}, "expected one-hot rows"),
        ({"b": A[:, 0], "method": "classifier"}, "expected integer labels"),
        ({"b": ONE_HOT[Y], "method": "classifier", "classes": 4}, "expected 4 columns"),
        ({"critic": lambda a, b: nn.BatchNorm1d(a + b)}, "without batch normalisation"),
    ],
)
def test_value_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_mi(**({"a": A, "b": A, "epochs": 1} | changes))


def test_type_errors() -> None:
    with pytest.raises(TypeError, match="critic: expected a factory"):
        estimate_mi(A, A, critic=mlp(4, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="a: expected real numbers"):
        estimate_mi(A + 1j, A)
    with pytest.raises(TypeError, match="critic: expected critic to be"):
        estimate_mi(A, A, critic=lambda a, b: 3)  # pyright: ignore


# The full bars: 10,000 rows, mean over three seeds.


def mean_error(truth: float, draw: Any, **options: Any) -> float:
    values = [estimate_mi(*draw(k), runs=1, seed=k, **options).mean for k in range(3)]
    return float(np.mean(values)) - truth


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "rho", "low", "high"),
    [(5, 0.0, -0.01, 0.01), (1, 0.9, -0.03, 0.03), (5, 0.7, -0.06, 0.06),
     (20, 0.5, 2.45 - gaussian_mi(20, 0.5), 0.05)],
)  # fmt: skip
def test_gaussian_bars(d: int, rho: float, low: float, high: float) -> None:
    error = mean_error(gaussian_mi(d, rho), lambda k: gaussian(10_000, d, rho, k))
    assert low <= error <= high


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.2, 0.4, 0.8])
def test_ring_bars(noise: float) -> None:
    def one_hot(k: int) -> Any:
        a, y = ring(10_000, noise, k)
        return a, ONE_HOT[y]

    truth = ring_mi(noise)
    labels = mean_error(truth, lambda k: ring(10_000, noise, k), method="classifier")
    assert abs(labels) <= 0.03
    assert abs(mean_error(truth, one_hot)) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    "warp", [lambda x: np.sinh(2 * x), lambda x: np.arcsinh(5 * x)], ids=["sinh", "asinh"]
)
def test_warped_bars(warp: Any) -> None:
    def draw(k: int) -> Any:
        return [warp(x) for x in gaussian(10_000, 1, 0.9, k)]

    assert abs(mean_error(gaussian_mi(1, 0.9), draw, **RANK)) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("nu", [1.0, 2.0, 3.0, 5.0])
def test_student_bars(nu: float) -> None:
    draw = lambda k: student(10_000, nu, 0.7, k)  # noqa: E731
    assert abs(mean_error(student_mi(nu, 0.7), draw, **RANK)) <= 0.03

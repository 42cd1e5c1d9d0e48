"""The exact values another way, and the bars of the classifier on them."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln, xlogy

sys.path.insert(0, str(Path(__file__).parent))
import exact_mi as exact
from exact_mi import CASES, Array, Case, gaussian_mi, uniform_noise_mi

from vaereg.metrics import estimate_mi

ALL = list(CASES.values())
LABELLED = [case for case in ALL if case.discrete]
EXPECTED = {  # one case of each kind, worked out by hand
    "gaussian d=1 rho=0.5": -0.5 * math.log(0.75),
    "exp of gaussian rho=0.9": -0.5 * math.log(0.19),
    "uniform noise e=0.75": 1 / 3,
    "xor bits flip=0.1": math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9),
    "checkerboard flip=0": math.log(2),
    "channel K=10 error=0.3": math.log(10) + 0.3 * math.log(0.3 / 9) + 0.7 * math.log(0.7),
    "erasure error=0.3": 0.7 * math.log(2),
}


def every(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def close(values: Array, target: float) -> bool:
    """Within four standard errors of the mean."""
    return abs(values.mean() - target) <= 4.0 * values.std() / len(values) ** 0.5 + 1e-9


def normal(x: Any, mean: Any = 0.0, std: float = 1.0) -> Any:
    return np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))


def density_mi(joint: Array) -> float:
    """From a joint density times its cells, rows a and columns b."""
    assert joint.sum() == pytest.approx(1.0, abs=1e-6)
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((xlogy(joint, joint) - xlogy(joint, product)).sum())


# The registry.


@every(ALL)
def test_rows_are_as_declared_and_follow_the_seed(case: Case) -> None:
    a, b = case.rows(300, 0)
    width, other = case.dimensions
    assert a.shape == (300, width) and a.dtype == np.float64 and np.isfinite(a).all()
    if case.discrete:
        assert b.shape == (300,) and b.dtype == np.int64 and set(np.unique(b)) <= {*range(other)}
        codes = case.rows(300, 0, codes=True)[1]
        assert codes.shape == (300, other) and (codes.argmax(1) == b).all()
    else:
        assert b.shape == (300, other) and b.dtype == np.float64 and np.isfinite(b).all()
        assert (case.rows(300, 0, codes=True)[1] == b).all()
    again, changed = case.rows(300, 0), case.rows(300, 1)
    assert (again[0] == a).all() and (again[1] == b).all()
    assert (changed[0] != a).any() and (changed[1] != b).any()
    assert case.truth >= 0.0 and CASES[case.name] is case


def test_values_by_hand() -> None:
    for name, value in EXPECTED.items():
        assert CASES[name].truth == pytest.approx(value, abs=1e-12), name


# Every case by sampling.


@every(ALL)
def test_mean_of_the_exact_log_ratio(case: Case) -> None:
    n = 100_000 if max(case.dimensions) < 30 else 20_000
    assert close(case.oracle(*case.rows(n, 7)), case.truth)


# With 20 columns of rho 0.8 the ratio's variance is 10^8.
@every([case for case in ALL if case.truth < 5.0])
def test_the_exact_ratio_is_normalised(case: Case) -> None:
    a, b = case.rows(100_000 if max(case.dimensions) < 30 else 20_000, 8)
    assert close(np.exp(case.oracle(a, np.roll(b, 1, 0))), 1.0)


@every([case for case in ALL if case.club is not None])
def test_club_by_sampling(case: Case) -> None:
    a, b = case.rows(100_000 if max(case.dimensions) < 30 else 20_000, 9)
    a1 = np.concatenate((a, np.ones((len(a), 1))), 1)
    fit = np.linalg.lstsq(a1, b, rcond=None)[0]
    variance = (b - a1 @ fit).var(0)
    joint, product = (
        -0.5 * ((c - a1 @ fit) ** 2 / variance).sum(1) for c in (b, np.roll(b, 1, 0))
    )
    assert case.club is not None
    # The fit of 65 columns itself adds columns^2 / rows.
    slack = 2.0 * np.prod(case.dimensions) / len(a)
    difference = joint - product
    error = 4.0 * difference.std() / len(a) ** 0.5
    assert abs(difference.mean() - case.club) <= error + slack


# Gaussians.


def test_gaussian_by_quadrature() -> None:
    x = np.linspace(-9.0, 9.0, 601)
    step = (x[1] - x[0]) ** 2
    for rho in (0.3, -0.9):
        joint = normal(x[:, None]) * normal(x, rho * x[:, None], math.sqrt(1 - rho**2)) * step
        assert density_mi(joint) == pytest.approx(gaussian_mi(1, rho), abs=1e-9)


SPLITS = [((0, 2, 4, 6), (1, 3, 5, 7)), ((0, 1, 3, 4, 6, 7), (2, 5)), ((0, 1, 2), (3,))]


@pytest.mark.parametrize("split", SPLITS)
def test_dense_gaussian_by_canonical_correlations_and_entropies(split: exact.Split) -> None:
    cov = exact.chain(8, 0.7)
    s_a, s_b, s_ab = exact._blocks(cov, split)
    root_a, root_b = np.linalg.cholesky(s_a), np.linalg.cholesky(s_b)
    between = np.linalg.solve(root_b, np.linalg.solve(root_a, s_ab).T)
    canonical = np.linalg.svd(between, compute_uv=False)
    value = exact.dense_mi(cov, split)
    assert value == pytest.approx(sum(gaussian_mi(1, r) for r in canonical), abs=1e-12)
    joint = np.block([[s_a, s_ab], [s_ab.T, s_b]])
    logs = [np.linalg.slogdet(s)[1] for s in (s_a, s_b, joint)]
    assert value == pytest.approx(0.5 * (logs[0] + logs[1] - logs[2]), abs=1e-12)


def test_dense_gaussian_of_a_markov_chain() -> None:
    # Determinants of a chain: (1 - rho^2)^(n - 1); every second one is a chain of rho^2.
    value = 0.5 * (2 * 3 * math.log1p(-(0.7**4)) - 7 * math.log1p(-(0.7**2)))
    assert CASES["dense gaussian 4+4"].truth == pytest.approx(value, abs=1e-12)
    # Neighbours screen off the rest.
    assert exact.dense_mi(exact.chain(8, 0.7), SPLITS[2]) == pytest.approx(gaussian_mi(1, 0.7))


def test_dense_gaussian_is_invariant_under_linear_maps_of_a_side() -> None:
    cov, split = exact.chain(8, 0.7), SPLITS[0]
    mix = np.eye(8)
    mix[np.ix_(split[0], split[0])] += np.triu(np.full((4, 4), 0.7), 1)
    assert exact.dense_mi(mix @ cov @ mix.T, split) == pytest.approx(exact.dense_mi(cov, split))


@pytest.mark.parametrize("name", exact.MAPS)
def test_images_are_strictly_monotone(name: str) -> None:
    image, inverse = exact.MAPS[name]
    x = np.linspace(-5.0, 5.0, 4001)
    assert (np.diff(image(x)) > 0.0).all()
    np.testing.assert_allclose(inverse(image(x)), x, atol=1e-8)
    # Hence equal ranks, which hold all that a pair of columns says of each other.
    case = CASES[f"{name} of gaussian rho=0.9"]
    for warped, plain in zip(case.rows(5000, 0), exact.gaussian(5000, 1, 0.9, 0), strict=True):
        assert (stats.rankdata(warped) == stats.rankdata(plain)).all()


# Other continuous pairs.


@pytest.mark.parametrize("e", [0.05, 0.1, 0.5, 0.75, 2.0])
def test_uniform_noise_by_quadrature(e: float) -> None:
    edges = np.linspace(-e, 1.0 + e, 200_001)
    b = 0.5 * (edges[1:] + edges[:-1])
    density = np.clip(np.minimum(1.0, b + e) - np.maximum(0.0, b - e), 0.0, None) / (2.0 * e)
    entropy = -float(xlogy(density, density).sum() * (b[1] - b[0]))
    assert uniform_noise_mi(e) == pytest.approx(entropy - math.log(2.0 * e), abs=1e-6)


def test_uniform_noise_branches_meet_with_equal_slope() -> None:
    h = 1e-6
    below, above = uniform_noise_mi(0.5), uniform_noise_mi(0.5 + h)
    assert below == pytest.approx(0.5) and above == pytest.approx(0.5 - h, abs=1e-9)


@pytest.mark.parametrize(("nu", "d"), [(1.0, 2), (2.0, 3), (3.0, 5), (4.0, 1)])
def test_student_identity_by_radial_quadrature(nu: float, d: int) -> None:
    # r = sinh(t)^3 spreads a uniform grid over the heavy tails.
    t = np.linspace(0.0, math.asinh(2e3), 3001)[1:]
    r = np.sinh(t) ** 3
    dr = 3.0 * np.sinh(t) ** 2 * np.cosh(t) * (t[1] - t[0])
    sphere = math.log(2.0) + 0.5 * d * math.log(math.pi) - float(gammaln(0.5 * d))
    shell = np.exp(sphere + (d - 1) * np.log(r)) * dr

    def log_density(square: Array, p: int) -> Array:
        law = stats.multivariate_t(shape=np.eye(p), df=nu)
        flat = np.zeros((square.size, p))
        flat[:, 0] = np.sqrt(square.ravel())
        return law.logpdf(flat).reshape(square.shape)

    joint = log_density(r[::4, None] ** 2 + r[::4] ** 2, 2 * d)
    marginal = log_density(r[::4] ** 2, d)
    weight = np.exp(joint) * (4.0 * shell[::4, None]) * (4.0 * shell[::4])
    assert weight.sum() == pytest.approx(1.0, abs=1e-4)
    value = float((weight * (joint - marginal[:, None] - marginal)).sum())
    assert value == pytest.approx(exact.student_mi(nu, 0.0, d), abs=1e-3)


def test_student_adds_one_correction_whatever_the_correlation() -> None:
    for d in (1, 3):
        difference = exact.student_mi(2.0, 0.6, d) - exact.student_mi(2.0, 0.0, d)
        assert difference == pytest.approx(gaussian_mi(d, 0.6))
        assert exact.student_mi(1e6, 0.6, d) == pytest.approx(gaussian_mi(d, 0.6), abs=1e-4)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_sign_flip_by_quadrature(rho: float) -> None:
    x = np.linspace(-9.0, 9.0, 901)
    std = math.sqrt(1 - rho**2)
    conditional = 0.5 * sum(normal(x, s * rho * x[:, None], std) for s in (-1.0, 1.0))
    joint = normal(x[:, None]) * conditional * (x[1] - x[0]) ** 2
    value = exact.sign_flip_mi(rho)
    assert value == pytest.approx(density_mi(joint), abs=1e-9)
    # The sign is at most log 2 of what the pair knew before the flip.
    assert gaussian_mi(1, rho) - math.log(2) <= value <= gaussian_mi(1, rho)


def test_sign_flip_is_uncorrelated_and_its_magnitudes_are_not() -> None:
    a, b = exact.sign_flip(100_000, 0.9, 0)
    assert close((a * b).ravel(), 0.0) and not close((np.abs(a * b) - 2 / math.pi).ravel(), 0.0)


# Labels.


def labelled_mi(densities: list[Any], weights: list[float], cell: float) -> float:
    """From p(a | y) on a grid."""
    rows = [w * np.ravel(p) * cell for p, w in zip(densities, weights, strict=True)]
    return density_mi(np.stack(rows))


@pytest.mark.parametrize("noise", [0.2, 0.4, 0.8])
def test_ring_by_quadrature(noise: float) -> None:
    x = np.linspace(-1.0 - 8.0 * noise, 1.0 + 8.0 * noise, 301)
    angles = 2.0 * np.pi * np.arange(5) / 5
    laws = [normal(x[:, None], math.cos(t), noise) * normal(x, math.sin(t), noise) for t in angles]
    value = labelled_mi(laws, [0.2] * 5, (x[1] - x[0]) ** 2)
    assert exact.ring_mi(noise) == pytest.approx(value, abs=1e-6)
    assert value < exact.ring_mi(0.9 * noise) < math.log(5)


@pytest.mark.parametrize("name", ["mixture 0.8/0.2, apart", "mixture 0.7/0.3, same mean"])
def test_mixtures_by_densities(name: str) -> None:
    weights, means, stds = {
        "mixture 0.8/0.2, apart": ([0.8, 0.2], (0.0, 2.0), (1.0, 0.5)),
        "mixture 0.7/0.3, same mean": ([0.7, 0.3], (0.0, 0.0), (1.0, 0.2)),
    }[name]
    x = np.linspace(-12.0, 12.0, 20_001)
    laws = [normal(x, m, s) for m, s in zip(means, stds, strict=True)]
    value = labelled_mi(laws, weights, x[1] - x[0])
    assert CASES[name].truth == pytest.approx(value, abs=1e-6)


def test_mixture_limits() -> None:
    assert exact.Mixture((0.8, 0.2), (0.0, 0.0), (1.0, 1.0)).mi() == pytest.approx(0.0, abs=1e-9)
    apart = exact.Mixture((0.8, 0.2), (0.0, 30.0), (1.0, 1.0)).mi()
    assert apart == pytest.approx(float(exact.binary_entropy(0.2)), abs=1e-9)
    # An invertible map of a.
    scaled = exact.Mixture((0.7, 0.3), (3.0, 3.0), (10.0, 2.0)).mi()
    assert scaled == pytest.approx(CASES["mixture 0.7/0.3, same mean"].truth, abs=1e-9)


@pytest.mark.parametrize(("noise", "flip"), [(0.3, 0.0), (0.3, 0.1), (0.5, 0.0), (1.0, 0.2)])
def test_xor_codes_by_densities(noise: float, flip: float) -> None:
    x = np.linspace(-1.0 - 8.0 * noise, 1.0 + 8.0 * noise, 401)
    low, high = normal(x, -1.0, noise), normal(x, 1.0, noise)
    same = 0.5 * (np.outer(low, low) + np.outer(high, high))
    other = 0.5 * (np.outer(low, high) + np.outer(high, low))
    laws = [(1 - flip) * same + flip * other, flip * same + (1 - flip) * other]
    step = x[1] - x[0]
    value = exact.xor_codes_mi(noise, flip)
    assert value == pytest.approx(labelled_mi(laws, [0.5, 0.5], step**2), abs=1e-9)
    # One column alone: the same density under both labels.
    columns = [law.sum(1) * step for law in laws]
    assert labelled_mi(columns, [0.5, 0.5], step) == pytest.approx(0.0, abs=1e-12)
    # Noise can only lose what the bits say.
    assert value < exact.xor_bits_mi(flip)
    assert exact.xor_codes_mi(0.05, flip) == pytest.approx(exact.xor_bits_mi(flip), abs=1e-9)


def test_one_column_of_xor_has_one_law_under_both_labels() -> None:
    a, y = CASES["xor codes, one column"].rows(50_000, 0)
    assert stats.ks_2samp(a[y == 0, 0], a[y == 1, 0]).pvalue > 0.001


def table(symbols: NDArray[Any], y: NDArray[Any], shape: tuple[int, int]) -> Array:
    counts = np.zeros(shape)
    np.add.at(counts, (symbols, y), 1.0)
    return counts / len(y)


def quadrants(a: Array) -> NDArray[Any]:
    return (2 * (a[:, 0] > 0.5) + (a[:, 1] > 0.5)).astype(int)


FLIP = np.where(np.array([0, 1, 1, 0])[:, None] == [0, 1], 0.9, 0.1) / 4
TABLES = {
    "xor bits flip=0.1": (FLIP, quadrants),
    "checkerboard flip=0.1": (FLIP, lambda a: quadrants(a + 0.5)),
    "checkerboard flip=0": (np.round(FLIP * 4) / 4, lambda a: quadrants(a + 0.5)),
    "channel K=2 error=0.1": (np.array([[0.9, 0.1], [0.1, 0.9]]) / 2, lambda a: a.argmax(1)),
    "channel K=10 error=0.3": (
        np.where(np.eye(10) > 0, 0.7, 0.3 / 9) / 10,
        lambda a: a.argmax(1),
    ),
    "erasure error=0.3": (
        np.array([[0.7, 0.0, 0.3], [0.0, 0.7, 0.3]]) / 2,
        lambda a: a.argmax(1),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_discrete_pairs_by_their_tables(name: str) -> None:
    law, symbols = TABLES[name]
    case = CASES[name]
    assert density_mi(law) == pytest.approx(case.truth, abs=1e-12)
    n = 100_000
    a, y = case.rows(n, 5)
    found = table(symbols(a), y, law.shape)
    assert (np.abs(found - law) <= 4.5 * np.sqrt(law * (1 - law) / n)).all()
    # What the plug-in value of a sample exceeds the truth by on average, and its spread.
    bias = (law.shape[0] - 1) * (law.shape[1] - 1) / (2 * n)
    assert density_mi(found) == pytest.approx(case.truth, abs=bias + 4 * 1.5 / n**0.5)


# The bars of the classifier: 10,000 rows, mean over three seeds.


@pytest.mark.slow
@every(LABELLED)
def test_classifier_bars(case: Case) -> None:
    values = [
        estimate_mi(*case.rows(10_000, seed), method="classifier", runs=1, seed=seed).mean
        for seed in range(3)
    ]
    bar = 0.01 if case.name == "xor codes, one column" else 0.02
    assert abs(float(np.mean(values)) - case.truth) <= bar

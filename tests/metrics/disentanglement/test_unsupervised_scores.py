"""Scores without factors: Gaussian total correlation, Wasserstein correlation, UDR."""

from __future__ import annotations

import math

import numpy as np
import pytest
from representations import NAMES, codes, sampled

from vaereg.metrics import gaussian_total_correlation, udr, wasserstein_correlation


def with_covariance(covariance, rows=500):
    """Rows whose sample covariance is exactly the given one."""
    x = np.random.default_rng(0).standard_normal((rows, len(covariance)))
    x = x - x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return white @ np.linalg.cholesky(np.asarray(covariance)).T


def test_closed_form_of_two_codes():
    rho, a, b = 0.6, 2.0, 0.5
    z = with_covariance([[a * a, rho * a * b], [rho * a * b, b * b]])
    assert gaussian_total_correlation(z) == pytest.approx(-0.5 * math.log(1 - rho**2))
    # D^½ Σ D^½ = [[a⁴, ρa²b²], [ρa²b², b⁴]]: tr √M = √(tr M + 2 √det M)
    root = math.sqrt(a**4 + b**4 + 2 * a * a * b * b * math.sqrt(1 - rho**2))
    expected = 2 * (a * a + b * b) - 2 * root
    assert wasserstein_correlation(z) == pytest.approx(expected)
    assert wasserstein_correlation(z, normalize=True) == pytest.approx(expected / (a * a + b * b))


@pytest.mark.parametrize("name", ["turned", "noisy", "noise", "float32", "tiny"])
def test_formulas_on_covariances(name):
    linalg = pytest.importorskip("scipy.linalg")
    z = codes(name, sampled(300)).astype(np.float64)
    covariance = np.cov(z.T)
    diagonal = np.diag(covariance)
    tc = 0.5 * (np.log(diagonal).sum() - np.linalg.slogdet(covariance)[1])
    assert gaussian_total_correlation(z) == pytest.approx(tc, abs=1e-10)
    root = linalg.sqrtm(np.diag(diagonal) @ covariance)
    expected = 2 * np.trace(covariance) - 2 * np.trace(root).real
    assert wasserstein_correlation(z) == pytest.approx(expected, abs=1e-9)


def test_dead_and_doubled_codes():
    z = codes("noise", sampled(200))
    dead = np.concatenate([z, np.full((200, 1), 0.1)], 1)
    assert gaussian_total_correlation(dead) == pytest.approx(gaussian_total_correlation(z))
    assert wasserstein_correlation(dead) == pytest.approx(wasserstein_correlation(z))
    assert gaussian_total_correlation(np.concatenate([z, z[:, :1]], 1)) == math.inf
    assert gaussian_total_correlation(np.concatenate([z, z[:, :1] - 3 * z[:, 1:2]], 1)) == math.inf
    assert gaussian_total_correlation(z[:3]) == math.inf
    twice = wasserstein_correlation(np.concatenate([z[:, :1]] * 2, 1), normalize=True)
    assert twice == pytest.approx(2 - math.sqrt(2))
    for score in (gaussian_total_correlation, wasserstein_correlation):
        assert score(np.ones((5, 3))) == 0.0
        assert score(z[:, :1]) == pytest.approx(0.0, abs=1e-12)
        with pytest.raises(ValueError, match="codes: expected at least 2 rows"):
            score(z[:1])
    assert wasserstein_correlation(np.ones((5, 3)), normalize=True) == 0.0


def test_total_correlation_is_scale_free():
    z = codes("noisy", sampled(300)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0.2, 0, 1]])
    scaled = z * [1e-6, 1.0, 1e6] - 5.0
    assert gaussian_total_correlation(scaled) == pytest.approx(gaussian_total_correlation(z))


# ---- UDR


def loop_likeness(similarity):
    """The authors' pair score, one code at a time."""
    sides = []
    for matrix in (similarity, similarity.T):
        values = []
        for column in matrix.T:
            values.append(max(column) ** 2 / sum(column) if sum(column) else 0.0)
        sides.append(np.mean(values))
    return sum(sides) / 2


def models(rows=300):
    rng = np.random.default_rng(2)
    z = rng.standard_normal((rows, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return [z, np.exp(-z[:, [2, 0, 1]]), z @ turn, z + rng.standard_normal((rows, 3))]


def test_spearman_form_is_the_definition():
    stats = pytest.importorskip("scipy.stats")
    group = models()
    found = udr(group, method="spearman")
    for i in range(4):
        for j in range(4):
            if i == j:
                assert np.isnan(found.pairwise[i, j])
                continue
            similarity = np.array([
                [abs(stats.spearmanr(a, b)[0]) for b in group[j].T] for a in group[i].T
            ])  # fmt: skip
            assert found.similarity[i][j] == pytest.approx(similarity)
            assert found.pairwise[i, j] == pytest.approx(loop_likeness(similarity))
    others = [np.median(np.delete(found.pairwise[:, i], i)) for i in range(4)]
    assert found.scores == pytest.approx(others)


def test_lasso_form_is_the_definition():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import Lasso

    group = models()
    found = udr(group)
    scaled = [(z - z.mean(0)) / z.std(0) for z in group]
    for i, j in ((0, 1), (1, 0), (2, 3)):
        weights = [Lasso(alpha=0.1).fit(scaled[i], b).coef_ for b in scaled[j].T]
        similarity = np.abs(np.array(weights)).T
        assert found.similarity[i][j] == pytest.approx(similarity, abs=1e-6)
        assert found.pairwise[i, j] == pytest.approx(loop_likeness(similarity), abs=1e-6)


def test_models_that_agree_score_one():
    z = with_covariance(np.eye(3))
    group = [z, -z[:, [1, 2, 0]], 5 * z[:, [2, 0, 1]]]
    spearman = udr(group, method="spearman")
    assert (spearman.scores > 0.8).all()  # chance correlations are in the sums
    pytest.importorskip("sklearn")
    assert udr(group, alpha=1e-6).scores == pytest.approx(1.0, abs=1e-4)
    # An L1 penalty shortens the one weight to 1 - alpha.
    assert udr(group).scores == pytest.approx(0.9, abs=1e-3)


def test_uninformative_codes_are_left_out():
    pytest.importorskip("sklearn")
    z = with_covariance(np.eye(3))
    noise = np.random.default_rng(5).standard_normal((500, 4))
    group = [np.concatenate([z, noise[:, :2]], 1), np.concatenate([z, noise[:, 2:]], 1), z]
    kl = [[1.0, 1.0, 1.0, 0.01, 0.0]] * 2 + [[2.0] * 3]
    assert udr(group, kl=kl).pairwise[2, 0] == pytest.approx(udr([z, z]).pairwise[0, 1], abs=1e-6)
    dead = udr([z, np.concatenate([z, np.ones((500, 1))], 1)])
    assert dead.scores == pytest.approx(udr([z, z]).scores)
    nothing = udr([z, np.ones((500, 2))])
    assert nothing.scores.tolist() == [0.0, 0.0]


def test_both_averages():
    z = with_covariance(np.eye(3))
    model, code = (udr([z, z[:, :2]], method="spearman", average=a) for a in ("model", "code"))
    similarity = model.similarity[0][1]
    sides = [(similarity.max(a) ** 2 / similarity.sum(a)) for a in (0, 1)]
    assert model.pairwise[0, 1] == pytest.approx(0.5 * (sides[0].mean() + sides[1].mean()))
    assert code.pairwise[0, 1] == pytest.approx((sides[0].sum() + sides[1].sum()) / 5)


def test_udr_checks_its_input():
    z = np.random.default_rng(0).random((20, 2))
    with pytest.raises(ValueError, match="two models or more"):
        udr([z])
    with pytest.raises(ValueError, match="two models or more"):
        udr([z, z[1:]])
    with pytest.raises(ValueError, match=r"codes\[1\]: expected finite values"):
        udr([z, z * np.nan])
    with pytest.raises(ValueError, match=r"kl\[1\]: expected \(2,\), got \(3,\)"):
        udr([z, z], kl=[[1, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match="kl: expected one entry for each of 2 models"):
        udr([z, z], kl=[[1, 1]])
    with pytest.raises(ValueError, match="method: expected"):
        udr([z, z], method="cca")
    with pytest.raises(ValueError, match="average: expected"):
        udr([z, z], average="median")


@pytest.mark.parametrize("name", NAMES)
def test_every_representation_has_a_number(name):
    z = codes(name, sampled(100))
    assert not math.isnan(gaussian_total_correlation(z))
    assert np.isfinite(wasserstein_correlation(z, normalize=True))
    assert np.isfinite(udr([z, z], method="spearman").scores).all()

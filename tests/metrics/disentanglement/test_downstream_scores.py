"""Downstream accuracy and sample efficiency; what all scores do with bad input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from representations import NAMES, codes, grid, sampled

from vaereg import metrics

DIRECT = ("mig", "modularity", "irs")
FITTED = ("dci", "sap", "explicitness", "downstream_accuracy")


class Nearest:
    """The label of the nearest row."""

    def fit(self, x, y):
        self.x, self.y = x, y

    def score(self, x, y):
        nearest = ((x[:, None] - self.x) ** 2).sum(2).argmin(1)
        return (self.y[nearest] == y).mean()


def test_accuracies_are_those_of_the_predictor():
    factors, others = sampled(200, (2, 3)), sampled(100, (2, 3), 9)
    z, test_z = codes("noisy", factors), codes("noisy", others)
    found = metrics.downstream_accuracy(
        z, factors, labels=(20, 200), predictor=Nearest, test=(test_z, others)
    )
    assert found.accuracy.shape == found.train.shape == (2, 2)
    for k in range(2):  # with all rows their order has no influence
        model = Nearest()
        model.fit(z, factors[:, k])
        assert found.accuracy[1, k] == model.score(test_z, others[:, k])
    assert (found.train == 1.0).all()
    assert float(found) == found.mean(200) == found.accuracy[1].mean()
    assert found.efficiency(20, 200) == found.mean(20) / found.mean(200)


@pytest.mark.parametrize("predictor", ["gbt", "logistic"])
def test_named_predictors(predictor):
    pytest.importorskip("sklearn")
    factors = sampled(300, (2, 2))
    found = metrics.downstream_accuracy(factors, factors, predictor=predictor)
    assert found.labels == (10, 100)
    assert found.mean(100) == 1.0
    noise = metrics.downstream_accuracy(codes("noise", factors), factors, predictor=predictor)
    assert noise.mean(100) < 0.7


def test_few_labels_of_one_kind():
    factors = np.zeros((300, 1), int)
    factors[:20] = 1
    found = metrics.downstream_accuracy(factors, factors, labels=(1, 200), predictor=Nearest)
    assert found.mean(1) > 0.8 and found.mean(200) == 1.0


def test_sample_efficiency():
    factors = sampled(600, (3, 4))
    z = codes("noisy", factors)
    found = metrics.sample_efficiency(z, factors, few=10, many=300, predictor=Nearest)
    both = metrics.downstream_accuracy(z, factors, labels=(10, 300), predictor=Nearest)
    assert found == both.efficiency(10, 300) < 1.0


def test_numbers_of_labels_are_checked():
    factors = sampled(30, (2, 2))
    with pytest.raises(ValueError, match=r"labels: expected numbers from 1 to 20 \(rows\)"):
        metrics.downstream_accuracy(factors, factors, labels=(10, 25), predictor=Nearest)
    found = metrics.downstream_accuracy(factors, factors, predictor=Nearest)
    with pytest.raises(ValueError, match="labels: expected one of"):
        found.mean(11)


# ---- all scores with factors


def call(name, z, factors, **keywords):
    if name in FITTED:
        pytest.importorskip("sklearn")
    return getattr(metrics, name)(z, factors, **keywords)


@pytest.mark.parametrize("name", DIRECT + FITTED)
def test_bad_input_is_named(name):
    factors = sampled(60, (2, 3))
    z = factors.astype(float)
    broken = z.copy()
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"codes: expected finite values.*row 7"):
        call(name, broken, factors)
    with pytest.raises(
        ValueError, match=r"factors: expected as many rows as codes \(60\), got 59"
    ):
        call(name, z, factors[1:])
    with pytest.raises(ValueError, match=r"codes: expected rows and columns, \(n, D\), got"):
        call(name, z[:, 0], factors)
    with pytest.raises(ValueError, match=r"factors: expected rows and columns, \(n, K\), got"):
        call(name, z, factors[:, 0])
    with pytest.raises(ValueError, match="at least one factor with more than one value"):
        call(name, z, np.full((60, 2), 3))
    with pytest.raises(TypeError, match="factors: expected integer values"):
        call(name, z, factors + 0.25)
    with pytest.raises(TypeError, match="codes: expected real numbers"):
        call(name, z.astype(str), factors)


@pytest.mark.parametrize("name", FITTED)
def test_test_rows_are_checked(name):
    factors = sampled(60, (2, 3))
    with pytest.raises(ValueError, match=r"test: expected codes \(n, 2\), got \(60, 3\)"):
        call(name, factors, factors, test=(np.zeros((60, 3)), factors))
    with pytest.raises(ValueError, match="test: expected the columns of factors, got 1"):
        call(name, factors, factors, test=(factors, factors[:, :1]))
    with pytest.raises(ValueError, match="at least 3 rows to hold some out, got 2"):
        call(name, factors[:2], [[0, 1], [1, 0]])


@pytest.mark.parametrize("name", DIRECT + FITTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_are_arrays(name, dtype):
    factors = sampled(90, (2, 3))
    z = torch.tensor(factors).to(dtype).requires_grad_()
    found = call(name, z, torch.tensor(factors))
    assert float(found) == pytest.approx(float(call(name, factors.astype(float), factors)))
    assert type(found).__name__ in str(found) or str(found).startswith("DCI")


@pytest.mark.parametrize("name", ["mig", "modularity", "irs", "sap"])
@pytest.mark.parametrize("representation", NAMES)
@pytest.mark.parametrize("columns", [[0, 1, 2], [1]])
def test_every_representation_has_a_score(name, representation, columns):
    factors = sampled(150)
    keywords = {"method": "r2"} if name == "sap" else {}
    found = call(name, codes(representation, factors), factors[:, columns], **keywords)
    assert (-0.1 if name == "irs" else 0.0) <= float(found) <= 1.0


@pytest.mark.parametrize("name", ["dci", "sap", "explicitness"])
@pytest.mark.parametrize("representation", ["all dead", "one code", "dead", "parity", "tiny"])
@pytest.mark.parametrize("columns", [[0, 1], [1]])
def test_every_representation_has_a_fitted_score(name, representation, columns):
    factors = sampled(90, (2, 3))
    found = call(name, codes(representation, factors), factors[:, columns])
    assert 0.0 <= float(found) <= 1.0


@pytest.mark.parametrize("name", DIRECT)
def test_scores_ignore_the_order_of_codes_factors_and_rows(name):
    factors = sampled(200)
    z = codes("noisy", factors)
    expected = float(call(name, z, factors))
    rows = np.random.default_rng(0).permutation(200)
    assert float(call(name, z[:, [2, 0, 1]], factors[:, [1, 2, 0]])) == pytest.approx(expected)
    assert float(call(name, z[rows], factors[rows])) == pytest.approx(expected)


@pytest.mark.parametrize("name", FITTED)
def test_held_out_rows_depend_on_the_seed_alone(name):
    factors = sampled(120, (2, 2))
    z = codes("noisy", factors)
    before = np.random.get_state()[1].copy()
    a, b = (float(call(name, z, factors, seed=3)) for _ in range(2))
    assert a == b == float(call(name, z, factors, seed=np.random.default_rng(3)))
    assert (before == np.random.get_state()[1]).all()


def test_missing_packages_are_named(monkeypatch):
    factors = grid((3, 4))
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match="needs scikit-learn: pip install scikit-learn"):
        metrics.sap(factors, factors)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="progress=True needs tqdm"):
        metrics.mig(factors, factors, logvar=np.zeros((12, 2)), progress=True)


def test_what_needs_no_scikit_learn():
    script = """
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None
import numpy as np
from vaereg.metrics import *
import vaereg.metrics as m
f = np.stack(np.meshgrid(range(3), range(4), indexing="ij"), -1).reshape(-1, 2)
assert float(m.mig(f, f)) > 0.999 and float(m.irs(f, f)) == 1.0
assert float(m.modularity(f, f)) == 1.0 and float(m.sap(f, f, method="r2")) > 0.999
assert m.factor_vae_score(m.FactorTable(f, (3, 4)), train=50, test=50).score == 1.0
assert m.gaussian_total_correlation(f) < 1e-9 and m.wasserstein_correlation(f) < 1e-9
assert m.udr([f, f], method="spearman").scores.min() > 0.99
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""DCI and SAP against their definitions, with the predictors of scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from representations import codes, grid, sampled

from vaereg.metrics import dci, sap

pytest.importorskip("sklearn")
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import Lasso
from sklearn.svm import LinearSVC

NAMES = ("perfect", "turned", "doubled", "dead", "noisy", "noise", "float32")


def entropy(weights, base):
    total = sum(weights)
    return -sum(w / total * math.log(w / total, base) for w in weights if w)


def definition(importance):
    """Disentanglement and completeness of a matrix of importances, by loops."""
    d, k = importance.shape
    total = importance.sum()
    disentanglement = completeness = 0.0
    for row in importance:
        if row.sum():
            disentanglement += row.sum() / total * (1 - entropy(row, k))
    for column in importance.T:
        if column.sum():
            completeness += column.sum() / total * (1 - entropy(column, d))
    return disentanglement, completeness


@pytest.mark.parametrize("name", NAMES)
def test_dci_is_the_definition_with_boosted_trees(name):
    factors, others = sampled(200, (2, 3), 0), sampled(100, (2, 3), 9)
    z, test_z = codes(name, factors), codes(name, others)
    found = dci(z, factors, test=(test_z, others), seed=4)
    importance, train, test = [], [], []
    for k in range(2):
        # The seed only orders codes that split a node equally well.
        seed = int(np.random.default_rng(4).integers(2**31 - 1))
        model = GradientBoostingClassifier(random_state=seed).fit(z, factors[:, k])
        importance.append(model.feature_importances_)
        train.append((model.predict(z) == factors[:, k]).mean())
        test.append((model.predict(test_z) == others[:, k]).mean())
    expected = definition(np.array(importance).T)
    assert found.disentanglement == pytest.approx(expected[0])
    assert found.completeness == pytest.approx(expected[1])
    assert found.informativeness == pytest.approx(np.mean(test))
    assert found.informativeness_train == pytest.approx(np.mean(train))
    assert float(found) == found.disentanglement


class Given:
    """A predictor of given importances."""

    def __init__(self, importances):
        self.feature_importances_ = np.asarray(importances, float)

    def fit(self, x, y):
        pass

    def score(self, x, y):
        return 0.5


def with_importances(matrix, rows=30):
    matrix = np.asarray(matrix, float)
    d, k = matrix.shape
    columns = iter(matrix.T)
    factors = sampled(rows, (2,) * k)
    z = np.random.default_rng(0).random((rows, d))
    return dci(z, factors, predictor=lambda: Given(next(columns)))


@pytest.mark.parametrize(
    ("matrix", "disentanglement", "completeness"),
    [
        ([[1, 0], [0, 1]], 1.0, 1.0),
        ([[0, 2], [3, 0]], 1.0, 1.0),
        ([[1, 1], [1, 1]], 0.0, 0.0),
        ([[1, 0], [1, 0], [0, 2]], 1.0, 1 - 0.5 * math.log(2, 3)),
        ([[1, 1], [0, 0]], 0.0, 1.0),
        ([[0, 0], [0, 0]], 0.0, 0.0),
        ([[1], [0]], 1.0, 1.0),
        ([[0.5], [0.5]], 1.0, 0.0),
        ([[1, 1]], 0.0, 1.0),
        ([[3]], 1.0, 1.0),
    ],
)
def test_dci_by_hand(matrix, disentanglement, completeness):
    found = with_importances(matrix)
    assert found.disentanglement == pytest.approx(disentanglement)
    assert found.completeness == pytest.approx(completeness)


@pytest.mark.parametrize("seed", range(5))
def test_dci_of_random_importances(seed):
    matrix = np.random.default_rng(seed).random((5, 3)) ** 4
    found = with_importances(matrix)
    expected = definition(matrix)
    assert (found.disentanglement, found.completeness) == pytest.approx(expected)
    weights = matrix.sum(1) / matrix.sum()
    assert found.per_code @ weights == pytest.approx(found.disentanglement)


def test_dci_holds_rows_out():
    factors = sampled(900, (2, 3))
    found = dci(factors, factors, predictor="forest")
    assert float(found) == pytest.approx(1.0, abs=0.05) and found.informativeness == 1.0
    noise = dci(codes("noise", factors), factors, predictor="forest")
    assert noise.informativeness_train == 1.0 and noise.informativeness < 0.6
    again = dci(codes("noise", factors), factors, predictor="forest")
    assert (again.importance == noise.importance).all()


def test_dci_rotation_and_duplication():
    factors = sampled(900, (3, 4))
    turned = dci(codes("turned", factors), factors, predictor="forest")
    doubled = dci(codes("doubled", factors), factors, predictor="forest")
    assert float(turned) < 0.6
    assert float(doubled) > 0.95 and doubled.completeness < 0.6


def test_dci_by_lasso():
    factors = sampled(900, (5, 6))
    z = codes("scaled", factors)
    found = dci(z, factors, predictor=lambda: Lasso(alpha=0.1), standardize=True)
    assert float(found) == pytest.approx(1.0) and found.completeness == pytest.approx(1.0)
    assert 0.9 < found.informativeness < 1.0  # R², below 1 by the shrinkage
    real = dci(z, factors + 0.5, predictor=lambda: Lasso(alpha=0.1), standardize=True)
    assert real.importance == pytest.approx(found.importance)


def test_dci_of_dead_codes_and_constant_factors():
    factors = np.concatenate([sampled(60, (2, 3)), np.full((60, 1), 4)], 1)
    found = dci(codes("all dead", factors), factors)
    assert (float(found), found.completeness) == (0.0, 0.0)
    assert found.factors.tolist() == [0, 1]
    rare = np.zeros((30, 1), int)
    rare[0] = 1
    assert dci(np.ones((30, 1)), rare, seed=0).informativeness >= 0.9


def test_dci_rejects_predictors():
    factors = sampled(60, (2, 3))
    with pytest.raises(ValueError, match="predictor: expected one of"):
        dci(factors, factors, predictor="mlp")

    class Silent(Given):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="expected feature_importances_ or coef_"):
        dci(factors, factors, predictor=Silent)


def test_a_forest_is_that_of_scikit_learn():
    factors = sampled(120, (2, 3))
    z = codes("noisy", factors)
    found = dci(z, factors, predictor="forest", test=(z, factors), seed=1)
    seed = int(np.random.default_rng(1).integers(2**31 - 1))
    model = RandomForestClassifier(random_state=seed).fit(z, factors[:, 0])
    assert found.importance[:, 0] == pytest.approx(model.feature_importances_)


# ---- SAP


@pytest.mark.parametrize("name", NAMES)
def test_svm_form_is_the_definition(name):
    factors, others = sampled(200, (2, 3), 0), sampled(100, (2, 3), 9)
    z, test_z = codes(name, factors), codes(name, others)
    found = sap(z, factors, test=(test_z, others))
    gaps = []
    for k in range(2):
        accuracy = []
        for d in range(z.shape[1]):
            machine = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            machine.fit(z[:, [d]], factors[:, k])
            accuracy.append((machine.predict(test_z[:, [d]]) == others[:, k]).mean())
            assert found.predictability[d, k] == pytest.approx(accuracy[-1])
        accuracy.sort()
        gaps.append(accuracy[-1] - accuracy[-2])
    assert float(found) == pytest.approx(np.mean(gaps))


@pytest.mark.parametrize("name", [*NAMES, "all dead", "one code", "tiny", "merged", "parity"])
def test_r2_form_is_the_definition(name):
    factors = sampled(200)
    z = codes(name, factors)
    found = sap(z, factors, method="r2")
    gaps = []
    for v in factors.T:
        values = [0.0] if z.shape[1] == 1 else []
        for column in z.T.astype(np.float64):
            (var_z, cov), (_, var_v) = np.cov(column, v)
            values.append(cov**2 / (var_z * var_v) if var_z > 1e-12 else 0.0)
        values.sort()
        gaps.append(values[-1] - values[-2])
    assert found.gaps == pytest.approx(np.array(gaps), abs=1e-9)


def test_r2_form_of_perfect_codes_and_its_invariance():
    factors = grid()
    assert float(sap(factors, factors, method="r2")) == pytest.approx(1.0)
    assert float(sap(codes("scaled", factors), factors, method="r2")) == pytest.approx(1.0)
    assert float(sap(codes("doubled", factors), factors, method="r2")) == pytest.approx(0.0)
    tiny = 1e-9 * factors
    assert float(sap(tiny, factors, method="r2")) == 0.0
    assert float(sap(tiny, factors, method="r2", min_variance=0.0)) == pytest.approx(1.0)
    halves = factors + 0.5 * (factors > 1)
    assert float(sap(halves, halves, method="r2")) == pytest.approx(1.0)


def test_svm_form_of_a_perfect_code_is_below_one():
    factors = sampled(1500, (2, 6))
    found = sap(factors, factors)
    assert found.gaps[0] == pytest.approx(0.5, abs=0.1)  # the other code predicts at chance
    assert found.predictability[1, 1] < 0.8


def test_svm_form_with_one_code_is_against_a_dead_one():
    factors, others = sampled(300, (2, 3)), sampled(200, (2, 3), 3)
    one = sap(factors[:, :1], factors, test=(others[:, :1], others))
    dead = np.concatenate([factors[:, :1], np.zeros((300, 1))], 1)
    test_dead = np.concatenate([others[:, :1], np.zeros((200, 1))], 1)
    assert float(one) == float(sap(dead, factors, test=(test_dead, others)))


def test_svm_form_standardised_is_scale_free():
    factors = sampled(300, (2, 3))
    z = codes("noisy", factors)
    scaled = sap(z * [1e-3, 1e3], factors, standardize=True)
    assert scaled.gaps == pytest.approx(sap(z, factors, standardize=True).gaps, abs=0.02)


def test_sap_rejects_a_method():
    with pytest.raises(ValueError, match="method: expected 'svm' or 'r2', got 'tree'"):
        sap(grid(), grid(), method="tree")
    with pytest.raises(TypeError, match="factors: expected integer values"):
        sap(grid(), grid() + 0.5)

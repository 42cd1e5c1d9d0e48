"""Modularity, explicitness and IRS against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from representations import NAMES, codes, grid, sampled

from vaereg.metrics import explicitness, irs, mig, modularity


@pytest.mark.parametrize("name", NAMES)
def test_modularity_is_the_definition(name):
    factors = sampled()
    z = codes(name, factors)
    information = mig(z, factors).mutual_information
    expected = []
    for row in information:
        best = int(row.argmax())
        if row[best] == 0.0:
            expected.append(0.0)
            continue
        template = np.zeros(3)
        template[best] = row[best]
        expected.append(1.0 - ((row - template) ** 2).sum() / (row[best] ** 2 * 2))
    found = modularity(z, factors)
    assert found.per_code == pytest.approx(np.array(expected))
    assert float(found) == pytest.approx(np.mean(expected))


def test_modularity_of_perfect_and_degenerate_codes():
    factors = grid()
    assert float(modularity(factors, factors)) == 1.0
    assert float(modularity(codes("doubled", factors), factors)) == 1.0
    dead = codes("dead", factors)
    assert float(modularity(dead, factors)) == pytest.approx(3 / 5)
    assert float(modularity(dead, factors, count_dead=False)) == 1.0
    assert float(modularity(codes("all dead", factors), factors)) == 0.0
    assert float(modularity(codes("all dead", factors), factors, count_dead=False)) == 0.0
    assert float(modularity(codes("one code", factors), factors)) == 1.0
    single = modularity(codes("dead", factors), factors[:, :1])
    assert single.per_code.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


# ---- explicitness


@pytest.mark.parametrize("name", ["perfect", "turned", "noisy", "noise", "missing", "float32"])
def test_explicitness_is_the_definition(name):
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    factors, others = sampled(300, (2, 4), 0), sampled(200, (2, 4), 9)
    z, test_z = codes(name, factors), codes(name, others)
    found = explicitness(z, factors, test=(test_z, others))
    mean, scale = z.mean(0), z.std(0)
    test, train = [], []
    for k in range(2):
        model = LogisticRegression().fit((z - mean) / scale, factors[:, k])
        for x, y, into in ((z, factors, train), (test_z, others, test)):
            p = model.predict_proba((x - mean) / scale)
            values = range(p.shape[1])
            into.append(np.mean([roc_auc_score(y[:, k] == v, p[:, v]) for v in values]))
    assert found.per_factor == pytest.approx(test, abs=1e-5)
    assert float(found) == pytest.approx(np.mean(test), abs=1e-5)
    assert found.train == pytest.approx(np.mean(train), abs=1e-5)


def test_explicitness_of_perfect_dead_and_noisy_codes():
    pytest.importorskip("sklearn")
    factors = sampled(900, (2, 6))
    assert float(explicitness(factors, factors)) > 0.99
    assert float(explicitness(codes("turned", factors), factors)) > 0.99  # linear all the same
    assert float(explicitness(codes("all dead", factors), factors)) == 0.5
    assert float(explicitness(codes("noise", factors), factors)) == pytest.approx(0.5, abs=0.06)


def test_explicitness_with_values_missing_from_the_test_rows():
    pytest.importorskip("sklearn")
    factors = sampled(300, (2, 4))
    others = factors[(factors[:, 1] != 3)]
    found = explicitness(factors, factors, test=(others, others))
    assert np.isnan(found.areas[1]).tolist() == [False, False, False, True]
    assert np.isfinite(float(found))
    one = factors[factors[:, 0] == 0]
    with pytest.raises(ValueError, match="test: expected two values of factor 0, got one"):
        explicitness(factors, factors, test=(one, one))


# ---- IRS


def loop_irs(z, factors, quantile):
    """By the definition, one code, factor and value at a time."""
    z = z.astype(np.float64)
    z = z[:, z.min(0) != z.max(0)]
    if not z.shape[1]:
        return 0.0
    weights = [max(abs(x - column.mean()) for x in column) for column in z.T]
    best = []
    for column, weight in zip(z.T, weights, strict=True):
        robust = []
        for v in factors.T:
            values = sorted(set(v.tolist()))
            moved = [
                np.quantile(np.abs(column[v == value] - column[v == value].mean()), quantile)
                for value in values
            ]
            robust.append(1.0 - np.mean(moved) / weight)
        best.append(max(robust))
    return np.average(best, weights=weights)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quantile", [0.99, 1.0])
def test_irs_is_the_definition(name, quantile):
    factors = sampled()
    z = codes(name, factors)
    assert float(irs(z, factors, quantile=quantile)) == pytest.approx(
        loop_irs(z, factors, quantile), abs=1e-9
    )


def test_irs_of_perfect_and_degenerate_codes():
    factors = grid()
    for name in ("perfect", "scaled", "permuted", "doubled", "dead", "one code"):
        assert float(irs(codes(name, factors), factors)) == pytest.approx(1.0), name
    found = irs(codes("dead", factors), factors)
    assert found.parents.tolist() == [0, 1, 2, -1, -1]
    assert found.active.tolist() == [True] * 3 + [False] * 2
    assert float(irs(codes("all dead", factors), factors)) == 0.0


def test_irs_parents_are_columns_of_the_given_factors():
    factors = grid((3, 1, 4))
    assert irs(factors[:, [2, 0]], factors).parents.tolist() == [2, 0]


def test_irs_with_merged_values():
    factors = grid((40, 3))
    assert float(irs(factors, factors)) == pytest.approx(1.0)
    merged = irs(factors, factors, factor_bins=20)
    # Two neighbours a bin: each half a step from their mean, of 19.5 at most.
    assert merged.per_code[0] == pytest.approx(1 - 0.5 / 19.5)
    assert float(irs(factors, factors, factor_bins=40)) == pytest.approx(1.0)


def test_irs_of_a_common_scale():
    factors = sampled()
    z = codes("noisy", factors)
    assert float(irs(100 * z - 5, factors)) == pytest.approx(float(irs(z, factors)))
    with pytest.raises(ValueError, match="quantile: expected a number in"):
        irs(z, factors, quantile=99)

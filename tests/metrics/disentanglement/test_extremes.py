"""Codes and factors at the ends of what numbers hold: a value that is right, or a clear error."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from vaereg.metrics import (
    dci,
    downstream_accuracy,
    explicitness,
    gaussian_total_correlation,
    irs,
    mig,
    modularity,
    sap,
    wasserstein_correlation,
)

GRID = np.tile(np.stack(np.meshgrid(range(4), range(5)), -1).reshape(-1, 2), (10, 1))
BY_FACTORS = {
    "mig": mig, "modularity": modularity, "irs": irs, "explicitness": explicitness,
    "sap r2": lambda z, y: sap(z, y, method="r2"), "sap svm": sap, "dci": dci,
}  # fmt: skip


@pytest.mark.parametrize("scale", [1e300, 1e100, -1e31, 1e-31, 1e-300])
@pytest.mark.parametrize("name", BY_FACTORS)
def test_codes_whose_squares_no_number_holds_are_refused(name, scale):
    codes = GRID.astype(float)
    codes[:, 1] *= scale
    with pytest.raises(
        ValueError, match=r"codes: expected columns of values .* in column 1; scale"
    ):
        BY_FACTORS[name](codes, GRID)


@pytest.mark.parametrize("score", [gaussian_total_correlation, wasserstein_correlation])
def test_so_they_are_without_factors(score):
    with pytest.raises(ValueError, match="scale the codes"):
        score(1e300 * GRID)


@pytest.mark.parametrize("scale", [1e29, 1e-29])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_just_inside_have_the_scores_of_codes_of_a_usual_size(scale, dtype):
    codes = (GRID * scale).astype(dtype)
    every = functools.partial(sap, method="r2", min_variance=0.0)
    for score in (mig, modularity, irs, every):
        assert float(score(codes, GRID)) == pytest.approx(float(score(GRID, GRID)), abs=1e-5)
    assert gaussian_total_correlation(codes) == pytest.approx(
        gaussian_total_correlation(GRID), abs=1e-5
    )


def test_factors_beyond_int64_are_refused():
    for factors in (1e30 * GRID, GRID.astype(np.uint64) + np.uint64(2**63)):
        with pytest.raises(ValueError, match="factors: expected values that int64 holds"):
            irs(GRID, factors)


def test_one_code_has_one_row_of_predictabilities():
    found = sap(GRID[:, :1], GRID)
    assert found.predictability.shape == (1, 2)


def test_numbers_of_labels_may_be_an_array():
    found = downstream_accuracy(GRID, GRID, labels=np.array([20, 100]), predictor="logistic")
    assert found.labels == (20, 100)

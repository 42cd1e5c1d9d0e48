"""A score is the number that it was made for, in every place where a float is."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from representations import codes, grid, sampled

from vaereg import metrics
from vaereg.metrics.disentanglement._score import Score

FACTORS = sampled(200)
FOUND = metrics.mig(codes("noisy", FACTORS), FACTORS)
VALUE = FOUND.score


def test_it_is_formatted_and_rounded():
    assert 0.1 < VALUE < 0.9
    for spec in (".2f", "8.3f", "%", ".1e", "<12"):
        assert format(FOUND, spec) == format(VALUE, spec)
    assert f"{FOUND}" == str(FOUND) == f"MIG {VALUE:.3f}"
    assert round(FOUND, 2) == round(VALUE, 2)
    assert round(FOUND) == round(VALUE) and type(round(FOUND)) is int


OTHERS = {
    "float": 0.5, "int": 2, "numpy": np.float64(0.25), "array": np.array([0.1, 2.0]),
    "tensor": torch.tensor([0.1, 2.0], dtype=torch.float64),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "lt", "le", "gt", "ge"])
def test_it_is_calculated_with_and_compared_on_both_sides(name, other):
    operation, other = getattr(operator, name), OTHERS[other]
    for found, expected in (
        (operation(FOUND, other), operation(VALUE, other)),
        (operation(other, FOUND), operation(other, VALUE)),
    ):
        assert not isinstance(found, Score)
        assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "lt", "le", "gt", "ge"])
def test_so_are_two_scores(name):
    operation, other = getattr(operator, name), metrics.irs(FACTORS, FACTORS)
    found = operation(FOUND, other)
    assert found == operation(VALUE, other.score) and not isinstance(found, Score)


def test_signs_sums_and_orders():
    assert -FOUND == -VALUE and abs(FOUND) == VALUE and type(abs(FOUND)) is float
    other = metrics.irs(FACTORS, FACTORS)
    assert sum([FOUND, other]) == VALUE + other.score
    assert max(FOUND, other) is other and sorted([other, FOUND]) == [FOUND, other]
    with pytest.raises(TypeError, match="'float' and 'str'"):
        FOUND + "1"


def test_numpy_reads_it():
    assert np.mean([FOUND, FOUND]) == VALUE
    two = np.asarray([FOUND, FOUND])
    assert two.dtype == np.float64 and two.tolist() == [VALUE, VALUE]
    assert np.asarray(FOUND, np.float32) == np.float32(VALUE) and np.sqrt(FOUND) == VALUE**0.5
    assert FOUND.__array__().shape == FOUND.__array__(np.float32).shape == ()  # as numpy 1 calls
    assert np.array(FOUND, copy=True) == VALUE
    with pytest.raises(ValueError, match="copy: expected True or None"):
        FOUND.__array__(copy=False)


def test_equality_is_that_of_the_number():
    again, other = metrics.mig(codes("noisy", FACTORS), FACTORS), metrics.irs(FACTORS, FACTORS)
    assert FOUND == again and not FOUND != again and FOUND != other
    assert len({FOUND, again, VALUE, other}) == 2 and FOUND != "a" and FOUND is not None


EQUALS = {
    "float": VALUE, "float64": np.float64(VALUE), "longdouble": np.longdouble(VALUE),
    "scalar array": np.array(VALUE), "array": np.array([VALUE, 1.0]),
    "tensor": torch.tensor(VALUE, dtype=torch.float64),
}  # fmt: skip


@pytest.mark.parametrize("other", EQUALS)
def test_from_both_sides(other):
    other = EQUALS[other]
    for equal, unequal in ((FOUND == other, FOUND != other), (other == FOUND, other != FOUND)):
        assert np.array_equal(equal, VALUE == np.asarray(other))
        assert np.array_equal(unequal, VALUE != np.asarray(other))


def test_functions_of_numpy_read_it():
    assert np.isclose(FOUND, VALUE) and np.allclose([FOUND], VALUE) and np.add(FOUND, 1) > 1
    assert np.sort([FOUND, 0.0]).tolist() == [0.0, VALUE] and np.clip(FOUND, 0, 0.1) == 0.1
    assert np.maximum(FOUND, 0) == VALUE and np.float64(2) ** FOUND == 2**VALUE
    array = again = np.ones(2)
    array += FOUND
    assert array is again and array.tolist() == [1 + VALUE] * 2


def test_every_score_does_so():
    g = grid()
    table = metrics.FactorTable(g, (3, 4, 5))
    for found in (
        metrics.modularity(g, g), metrics.irs(g, g), metrics.sap(g, g, method="r2"),
        metrics.factor_vae_score(table, train=50, test=50),
    ):  # fmt: skip
        assert isinstance(found, Score) and f"{found:.2f}" == f"{found.score:.2f}"
    rest = (metrics.DCI, metrics.BetaVAEScore, metrics.Downstream, metrics.Explicitness)
    assert all(issubclass(kind, Score) for kind in rest)

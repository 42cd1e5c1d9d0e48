"""Calls that a newcomer is likely to get wrong: each error names the argument, and says how."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from representations import codes, grid, refused, sampled

from vaereg import metrics
from vaereg.metrics import FactorTable

F = sampled(60, (2, 3))
Z = codes("noisy", F)


class Never:
    """Is always wrong."""

    def fit(self, x, y):
        pass

    def score(self, x, y):
        return 0.0

    def __len__(self):
        raise AttributeError("not fitted")


# ---- arguments of another kind


@pytest.mark.parametrize("score", [metrics.beta_vae_score, metrics.factor_vae_score])
def test_codes_in_place_of_a_table(score):
    message = (
        "table: expected a FactorTable, got ndarray; FactorTable.of(codes, factors) makes one"
    )
    refused(TypeError, message, score, Z)
    refused(TypeError, message, score, Z, F)
    refused(TypeError, message, score, table=Z, seed=1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'table'"):
        score()


@pytest.mark.parametrize(
    "sizes, got",
    [
        (F, "ndarray of shape (60, 2)"),
        (torch.tensor(F[:, :1]), "Tensor of shape (60, 1)"),
        (600, "600"),
        ((2.5, 24), "(2.5, 24)"),
        ("34", "'34'"),
    ],
    ids=["factors", "one factor", "number", "real", "text"],
)
def test_sizes_that_are_none(sizes, got):
    message = f"sizes: expected how many values each factor has, such as (3, 4), got {got}; "
    refused(TypeError, message + "FactorTable.of(codes, factors) takes", FactorTable, Z, sizes)


def test_sizes_that_are_values_are_cut():
    message = "sizes: expected at least 1 each, got (1, 1, 1, 0, 0, 0, ...); FactorTable.of("
    values = F[:, 0].copy()
    values[:6] = 1, 1, 1, 0, 0, 0
    refused(ValueError, message, FactorTable, Z, values)


def test_sizes_may_be_any_integers():
    for sizes in ([3, 4, 5], np.array([3, 4, 5]), torch.tensor([3, 4, 5]), iter((3, 4, 5))):
        assert FactorTable(grid(), sizes).sizes == (3, 4, 5)


@pytest.mark.parametrize("name", ["dci", "downstream_accuracy", "sample_efficiency"])
def test_a_predictor_in_place_of_its_class(name):
    message = "predictor: expected a class or a function that makes a predictor, got an instance "
    few = {"few": 5, "many": 20} if name == "sample_efficiency" else {}
    refused(
        TypeError, message + "of Never", getattr(metrics, name), Z, F, predictor=Never(), **few
    )


def test_a_classifier_in_place_of_its_class():
    message = "classifier: expected a class or a function that makes a predictor, got an instance"
    refused(TypeError, message, metrics.explicitness, Z, F, classifier=Never())


def test_numbers_are_integers():
    refused(TypeError, "bins: expected an integer, got 2.5", metrics.mig, Z, F, bins=2.5)
    refused(TypeError, "bins: expected an integer, got '9'", metrics.modularity, Z, F, bins="9")
    refused(TypeError, "factor_bins: expected an int", metrics.irs, Z, F, factor_bins=2.5)
    refused(ValueError, "factor_bins: expected at least 2", metrics.irs, Z, F, factor_bins=1)
    refused(TypeError, "samples: expected an integer", metrics.mig, Z, F, logvar=Z, samples=9.5)
    refused(TypeError, "test_rows: expected an int", metrics.sap, Z, F, test_rows=2.5)
    refused(ValueError, "train_rows: expected at least 1, got 0", metrics.sap, Z, F, train_rows=0)
    table = FactorTable.of(Z, F)
    refused(TypeError, "train: expected an integer", metrics.factor_vae_score, table, train=1e3)
    assert metrics.mig(Z, F, bins=np.int32(9)).score == metrics.mig(Z, F, bins=9).score


@pytest.mark.parametrize("name", ["dci", "sap", "explicitness", "downstream_accuracy"])
def test_seeds(name):
    score, message = getattr(metrics, name), "seed: expected an integer of at least 0 or a numpy "
    for error, seed in ((TypeError, "a"), (TypeError, 1.5), (ValueError, -1)):
        refused(error, f"{message}generator, got {seed!r}", score, Z, F, seed=seed)


def test_seeds_of_what_draws_from_a_table_or_posteriors():
    message, table = "seed: expected an integer", FactorTable.of(Z, F)
    refused(TypeError, message, metrics.factor_vae_score, table, seed="a")
    refused(TypeError, message, metrics.beta_vae_score, table, seed="a")
    refused(TypeError, message, metrics.mig, Z, F, logvar=Z, seed="a")


def test_penalty():
    for penalty in (-1, 0, float("nan")):
        message = f"penalty: expected a number above 0, got {penalty}"
        refused(ValueError, message, metrics.sap, Z, F, penalty=penalty)
    refused(TypeError, "penalty: expected a number above 0", metrics.sap, Z, F, penalty="a")


def test_labels():
    for labels, got in ((20, "20"), ((2.5, 10), "(2.5, 10)"), (F, "ndarray of shape (60, 2)")):
        message = f"labels: expected integers such as (10, 100), got {got}"
        refused(TypeError, message, metrics.downstream_accuracy, Z, F, labels=labels)


# ---- errors that name what was given


def test_few_and_many():
    message = "many: expected at most 40 (rows to fit on), got 10000"
    refused(ValueError, message, metrics.sample_efficiency, Z, F, few=5)
    refused(ValueError, "few: expected at most 40", metrics.sample_efficiency, Z, F, few=41)
    refused(ValueError, "few: expected at least 1", metrics.sample_efficiency, Z, F, few=0)
    message = "many: expected at most 60 (rows to fit on), got 61"
    refused(ValueError, message, metrics.sample_efficiency, Z, F, few=5, many=61, test=(Z, F))
    found = metrics.downstream_accuracy(Z, F, labels=(10, 20), predictor=Never)
    refused(ValueError, "few: expected one of (10, 20), got 5", found.efficiency, 5, 20)
    refused(ValueError, "many: expected one of (10, 20), got 10000", found.efficiency, 10)


def test_no_accuracy_has_no_efficiency():
    message = "many: expected an accuracy above 0, got 0 with 20 labels"
    found = metrics.downstream_accuracy(Z, F, labels=(10, 20), predictor=Never)
    refused(ValueError, message, found.efficiency, 10, 20)
    unique, keywords = np.arange(60)[:, None], {"few": 10, "many": 20, "predictor": Never}
    refused(ValueError, message, metrics.sample_efficiency, Z, unique, **keywords)


def test_too_few_rows_for_labels_by_default():
    message = "codes: expected at least 10 rows to fit on, where labels are not given, got 4"
    refused(ValueError, message, metrics.downstream_accuracy, Z[:5], [[0], [1], [0], [1], [0]])


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_explicitness_of_held_out_rows():
    pytest.importorskip("sklearn")
    score, two = metrics.explicitness, [[0, 1], [1, 0], [1, 1]]
    held = "factor 0 in the rows held out"
    message = f"factors: expected two values of {held}, got one; hand over test= or more rows"
    refused(ValueError, message, score, Z[:3], two, seed=0)
    message = f"factors: expected values of {held} that the rows of the fit hold too, got others"
    refused(ValueError, message, score, Z, np.arange(60)[:, None])
    message = "test: expected values of factor 0 that the rows of the fit hold too, got others"
    refused(ValueError, message, score, Z, F, test=(Z, F + 9))


@pytest.mark.parametrize("name", ["dci", "sap", "explicitness", "downstream_accuracy"])
def test_test_is_a_pair(name):
    score, message = getattr(metrics, name), "test: expected a pair of codes and factors, got "
    refused(TypeError, message + "ndarray of shape (30, 2)", score, Z, F, test=Z[30:])
    refused(TypeError, message + "ndarray of shape (2, 2)", score, Z, F, test=Z[:2])
    refused(TypeError, message + "Tensor", score, Z, F, test=torch.tensor(Z))
    refused(TypeError, message, score, Z, F, test=(Z, F, F))
    refused(ValueError, "test[0]: expected rows and columns", score, Z, F, test=(Z[:, 0], F))
    refused(ValueError, "test[1]: expected as many rows as", score, Z, F, test=(Z, F[1:]))


def test_udr():
    message = "kl[0]: expected (2,), got (60, 2); take the mean over rows"
    refused(ValueError, message, metrics.udr, [Z, Z], kl=[np.ones((60, 2))] * 2)
    message = "kl[1]: expected finite values, got nan or inf"
    refused(ValueError, message, metrics.udr, [Z, Z], kl=[[0, 1], [1, np.nan]])
    message = "codes: expected those of several models, (n, D) each, got ndarray of shape (60, 2)"
    refused(TypeError, message, metrics.udr, Z)
    for method in ("spearman", "lasso"):
        message = "codes: expected at least 2 rows, got 1"
        refused(ValueError, message, metrics.udr, [Z[:1], Z[:1]], method=method)


def test_kl_may_be_tiny_and_a_tensor():
    kl = torch.tensor([1.0, 1e-35], dtype=torch.float64, requires_grad=True)
    found = metrics.udr([Z, Z], kl=[kl, kl], method="spearman")
    assert found.informative[0].tolist() == [True, False]


def test_the_value_of_a_single_row_is_that_given():
    factors = np.array([[0], [0], [99], [7], [7], [7]])
    message = "table: expected at least 2 rows with each value of factor 0, got 1 with value "
    table = FactorTable.of(Z[:6], factors)
    assert [values.tolist() for values in table.values] == [[0, 7, 99]]
    refused(ValueError, message + "99", metrics.factor_vae_score, table)
    numbered = FactorTable(Z[:6], (3,), np.array([[0], [0], [2], [1], [1], [1]]))
    refused(ValueError, message + "2", metrics.factor_vae_score, numbered)


# ---- arrays


def test_empty_arrays():
    message = "codes: expected at least one row, got shape (0, 2)"
    refused(ValueError, message, metrics.mig, Z[:0], F[:0])
    message = "codes: expected at least one column, got shape (60, 0)"
    refused(ValueError, message, metrics.mig, Z[:, :0], F)
    message = "factors: expected at least one column, got shape (60, 0)"
    refused(ValueError, message, metrics.mig, Z, F[:, :0])
    refused(ValueError, "codes: expected at least one row, got shape (0,)", metrics.mig, [], [])
    refused(ValueError, "factors: expected at least one row, got shape (0,)", metrics.mig, Z, [])


def test_labels_of_a_table():
    labels = [[0], [0], [2], [1], [1], [2]]
    table = FactorTable(Z[:6], (3,), labels)
    assert isinstance(table.labels, np.ndarray) and table.labels.tolist() == labels
    assert 0 <= metrics.factor_vae_score(table, train=5, test=5) <= 1
    message = "labels: expected (6, 1), got (5, 1)"
    refused(ValueError, message, FactorTable, Z[:6], (3,), labels[1:])
    refused(TypeError, "labels: expected real numbers", FactorTable, Z[:6], (3,), [["a"]] * 6)
    refused(TypeError, "labels: expected integer values", FactorTable, Z[:6], (3,), [[0.5]] * 6)
    message = "labels: expected values from 0 to 1 of factor 0, got 2 in row 2; FactorTable.of("
    refused(ValueError, message, FactorTable, Z[:6], (2,), labels)


def test_one_axis():
    message = "expected rows and columns, (n, {}), got shape (60,); {}[:, None] makes one column"
    refused(ValueError, "factors: " + message.format("K", "factors"), metrics.irs, Z, F[:, 0])
    refused(ValueError, "codes: " + message.format("D", "codes"), metrics.irs, Z[:, 0], F)


HINT = "; number the values of each factor (numpy.unique with return_inverse=True)"


def test_words_are_no_numbers():
    message = f"factors: expected real numbers, got dtype <U1{HINT}"
    refused(TypeError, message, metrics.mig, Z, F.astype("U1"))
    mixed = np.array([["a", 1], [None, 2]] * 30, object)
    message = f"factors: expected real numbers, got dtype object{HINT}"
    refused(TypeError, message, metrics.mig, Z, mixed)
    message = "codes: expected real numbers, got dtype object"
    refused(TypeError, message, metrics.mig, mixed, F)


def test_objects_that_are_plain_numbers_are_read():
    expected = metrics.mig(Z, F).score
    assert metrics.mig(Z, F.astype(object)).score == expected
    assert metrics.mig(Z.astype(object), F).score == expected


def test_ragged_rows():
    refused(ValueError, "factors: expected rows of equal lengths", metrics.mig, Z, [[1, 2], [1]])


@pytest.mark.parametrize("name", ["mig", "modularity", "irs", "sap", "dci", "explicitness"])
def test_codes_and_factors_swapped(name):
    swapped, score = "; are codes and factors swapped?", getattr(metrics, name)
    message = f"factors: expected integer values, got real ones{HINT}"
    refused(TypeError, message + swapped, score, F.astype(float), Z)
    with pytest.raises(TypeError, match=re.escape(message) + "$"):
        score(Z, Z)

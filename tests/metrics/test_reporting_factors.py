"""Scores against known factors: their kinds and rows, and where a score is missing."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
import torch
from report_models import Model, certain, normal, page_of, spread_out


def test_scores_without_scikit_learn(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.split(".")[0] == "sklearn":
            raise ImportError("No module named 'sklearn'")
        return real(name, *rest, **more)

    for name in [n for n in sys.modules if n.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", absent)
    x = normal(90, 2)
    page = page_of(Model(lambda x: {"z": spread_out(x)}), x, factors=np.arange(90) % 3, fitted=90)
    found = dict(page.skipped)
    assert {"dci of z", "sap of z", "explicitness of z"} <= set(found)
    assert "sklearn" in found["dci of z"] or "scikit-learn" in found["dci of z"]
    scores = page.numbers["codes"]["z"]["scores"]
    assert scores["dci"] is None and scores["mig"] is not None and scores["irs"] is not None


def test_factors_of_one_value():
    x = normal(90, 2)
    factors = np.stack((np.arange(90) % 3, np.full(90, 4)), 1)
    model = Model(lambda x: {"z": spread_out(x)})
    page = page_of(model, x, factors=factors, factor_names=["shape", "colour"], trees=2)
    assert dict(page.skipped)["scores of colour"] == "it has one value in these rows"
    assert "<th scope='col'>colour" not in page.html and "<th scope='col'>shape" in page.html
    none = page_of(model, x, factors=factors[:, 1])
    assert "one that varies" in dict(none.skipped)["scores of z"]
    assert none.numbers["codes"]["z"]["scores"] is None and 'id="scores"' not in none.html


@pytest.mark.parametrize("kind", [torch.tensor, list, np.array])
def test_factors_of_many_kinds(kind):
    x = normal(90, 2)
    factors = kind([k % 3 for k in range(90)])
    page = page_of(Model(lambda x: {"z": spread_out(x)}), x, factors=factors, trees=2)
    assert page.numbers["codes"]["z"]["scores"]["mig"] is not None
    assert "factor 0" in page.html


def test_factors_follow_their_rows():
    x = torch.randn(200, 1) + 4.0 * (torch.arange(200) % 2)[:, None]
    model = Model(lambda x: {"z": certain(x)})
    page = page_of(model, x, factors=np.arange(200) % 2, rows=120, fitted=120, trees=2, seed=9)
    assert page.numbers["codes"]["z"]["scores"]["informativeness"] > 0.9

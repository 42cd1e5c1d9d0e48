"""Scores against known factors: their kinds and rows, and where a score is missing."""

from __future__ import annotations

import builtins
import html
import sys

import numpy as np
import pytest
import torch
from report_models import Model, certain, normal, page_of, spread_out

import vaereg


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


def floats(values):
    return torch.tensor(values).float()


def halves(values):
    return torch.tensor(values).to(torch.bfloat16)[:, None].requires_grad_()


@pytest.mark.parametrize("kind", [torch.tensor, list, np.array, floats, halves, np.float32])
def test_factors_of_many_kinds(kind):
    x = normal(90, 2)
    values = [k % 3 for k in range(90)]
    model = Model(lambda x: {"z": spread_out(x)})
    page = page_of(model, x, factors=kind(values), trees=2)
    assert page.numbers["codes"]["z"]["scores"]["mig"] is not None
    assert "factor 0" in page.html
    assert page.numbers == page_of(model, x, factors=values, trees=2).numbers


def test_factors_follow_their_rows():
    x = torch.randn(200, 1) + 4.0 * (torch.arange(200) % 2)[:, None]
    model = Model(lambda x: {"z": certain(x)})
    page = page_of(model, x, factors=np.arange(200) % 2, rows=120, fitted=120, trees=2, seed=9)
    assert page.numbers["codes"]["z"]["scores"]["informativeness"] > 0.9


def section(page):
    return page.html.split('<section id="scores">')[1].split("</section>")[0]


def test_what_scores_ask_and_read():
    x = normal(90, 2)
    factors = np.stack((np.arange(90) % 3, np.arange(90) // 3 % 2), 1)

    def encode(x):
        return {
            "z": spread_out(x), "c": vaereg.categorical(x, 0.5), "w": vaereg.deterministic(x),
        }  # fmt: skip

    text = section(page_of(Model(encode), x, factors=factors, trees=2))
    assert (
        "Scores read posterior means of z and most likely classes (as one-hot codes) of c and "
        "values of w, on all 90 rows. MIG (samples of q(z|x)) reads the posteriors of all 90 rows."
    ) in html.unescape(text)
    assert text.count('<span class="asks">') == 12 and '"asks"></span>' not in text
    assert "no complete grid" not in text  # each of six combinations 15 times


def test_rows_of_scores_and_what_is_no_grid():
    x, factors = normal(90, 2), np.stack((np.arange(90) % 3, np.arange(90) % 2), 1)
    model = Model(lambda x: {"z": spread_out(x)})
    text = section(page_of(model, x, factors=factors[:, :1], fitted=60, trees=2))
    assert "posterior means of z, on 60 of the 90 rows (FactorVAE score, beta-VAE score" in text
    assert "no complete grid" not in text
    factors[0, 1] = 1
    text = section(page_of(model, x, factors=factors, trees=2))
    assert "These rows are no complete grid" in text and "are then not interventional" in text


def test_scores_read_the_means():
    """A code whose draws know nothing, and whose means are the factor."""
    y = torch.arange(90) % 3
    model = Model(lambda x: {"z": vaereg.gaussian(x, std=100.0 + 0 * x)})
    page = page_of(model, torch.stack((y, 0 * y), 1).float(), factors=y, trees=2)
    scores = page.numbers["codes"]["z"]["scores"]
    assert scores["mig"] == pytest.approx(1.0) and scores["mig_sampled"] < 0.05

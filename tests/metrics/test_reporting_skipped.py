"""What cannot be measured is left out with its reason, and the rest stays."""

from __future__ import annotations

import math
import re

import pytest
import torch
from report_models import QUICK, Model, fixed_vae, heads, leaky, normal, page_of, spread_out
from report_reader import Reader
from torch.distributions import Independent, Laplace

import vaereg
from vaereg.metrics import report


def test_model_without_decode():
    page = report(Model(lambda x: {"z": spread_out(x)}), normal(), nll=lambda a, b: 0.0, **QUICK)
    assert page.skipped == (
        ("negative log-likelihood", "the model has no decode"),
        ("pictures", "the model has no decode"),
    )
    assert 'id="skipped"' in page.html and "<h2>Not measured</h2>" in page.html


def test_objective_that_misses_a_variable():
    page = report(leaky(), normal(100, 2), bracket=False)
    assert "'y'" in dict(page.skipped)["negative log-likelihood"]
    assert page.numbers["nll"] is None and page.numbers["codes"]["z"]["kl"] is not None
    assert '<section id="reconstructions">' in page.html


def fails(message="broken"):
    def decode(values, **observed):
        raise KeyError(message)

    return decode


@pytest.mark.parametrize("decode, why", [
    (fails(), "KeyError: 'broken'"),
    (lambda values: values["w"], "KeyError: 'w'"),
    (lambda values: None, "decoded: expected the data's shape (10, 3), got NoneType"),
    (lambda values: values["z"][:, :2], "decoded: expected the data's shape (10, 3), got (10, 2)"),
    (lambda values: values["z"] / 0.0, "decoded: expected finite values, got nan or inf"),
    (lambda values: values["z"].nothing, "AttributeError: 'Tensor' object has no attribute"),
])  # fmt: skip
def test_decoders_that_fail(decode, why):
    page = report(Model(lambda x: {"z": spread_out(x)}, decode), normal(), **QUICK)
    found = dict(page.skipped)
    assert found["reconstructions"].startswith(why)
    assert {"samples of the prior", "traversals"} <= set(found)
    assert page.numbers["codes"]["z"]["kl"] is not None
    Reader(page.html)


def test_nll_where_decode_fails():
    page = page_of(
        Model(lambda x: {"z": spread_out(x)}, fails()), normal(), nll=lambda decoded, x: 0.0
    )
    assert dict(page.skipped)["negative log-likelihood"] == "KeyError: 'broken'"
    assert page.numbers["nll"] is None


def test_decoder_of_a_vae_that_gives_nan():
    vae = fixed_vae("gaussian")
    with torch.no_grad():
        vae.decoder.bias[0] = math.nan
    page = report(vae, torch.rand(60, 5), **QUICK)
    assert heads(page)[0] == "The negative log-likelihood is not finite"
    assert "reconstructions" in dict(page.skipped) and page.numbers["nll"] is None


def test_posteriors_that_are_not_finite():
    def encode(x):
        return {"z": vaereg.gaussian((x / 0.0 * 0.0, x)), "c": vaereg.categorical(x, 0.5)}

    page = page_of(Model(encode), normal(60), bracket=True)
    found = dict(page.skipped)
    assert found["KL of z"].startswith("the posterior holds values that are not finite")
    assert "finite" in found["bracket of I(z; x)"]
    assert page.numbers["codes"]["c"]["kl"] is not None


def test_kl_that_is_infinite():
    prior = torch.tensor([1.0, 1.0, 0.0]) / 2.0
    model = Model(lambda x: {"c": vaereg.categorical(x, 0.5, prior=prior)})
    page = page_of(model, normal())
    assert dict(page.skipped)["KL of c"] == "it is not finite"
    assert page.numbers["codes"]["c"]["kl"] is None


def test_priors_and_posteriors_of_other_families():
    def encode(x):
        return {
            "z": vaereg.gaussian(x, std=1 + 0 * x, prior=Laplace(0 * x, 1 + 0 * x)),
            "w": vaereg.Code(x, Independent(Laplace(x, 1 + 0 * x), 1)),
            "d": vaereg.deterministic(x),
        }

    page = page_of(Model(encode), normal(60), bracket=True)
    found = dict(page.skipped)
    assert found["KL of z"] == "there is no prior of the posterior's family"
    for name in "wd":
        assert found[f"KL of {name}"].startswith("there is no posterior that is")
        assert f"bracket of I({name}; x)" in found
    assert "parts of the KL of z" in found


def test_too_few_rows_for_a_bracket_and_an_audit():
    y = vaereg.labels(torch.arange(30) % 2, classes=2)
    page = report(leaky(), normal(30, 2), y=y)
    found = dict(page.skipped)
    assert re.search(r"expected at least \d+ rows, got 30", found["bracket of I(z; x)"])
    assert "audit" in found

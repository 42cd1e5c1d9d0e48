"""The notices of a page: each where there is a reason, and none beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from report_models import FINE, Model, certain, fixed_vae, heads, normal, page_of, spread_out
from report_reader import Reader, tiles
from torch import nn
from torch.distributions import Independent, Normal

import vaereg
from vaereg.metrics import Audit, MIEstimate, TermAudit
from vaereg.metrics.decomposition import Decomposition
from vaereg.metrics.reporting._charts import MINUS
from vaereg.metrics.reporting._gather import gather
from vaereg.metrics.reporting._measure import Measured
from vaereg.metrics.reporting._notices import notices


def test_a_model_of_which_nothing_is_to_be_said():
    x = normal(400, 3)
    model = Model(lambda x: {"z": spread_out(x)}, lambda values: values["z"])
    page = page_of(model, x, nll=lambda decoded, x: (decoded - x).square().mean())
    assert page.notices == () and page.skipped == ()
    assert "No sign of collapse" in page.html


@pytest.mark.parametrize("dead, head", [
    (4, "Posterior collapse: all of z is inactive"),
    (3, "3 of 4 coordinates of z are inactive"),
    (2, None),
    (0, None),
])  # fmt: skip
def test_collapse(dead, head):
    alive = (torch.arange(4) >= dead).float()

    def encode(x):
        return {"z": vaereg.gaussian(0.8 * x * alive, std=1.0 - 0.4 * alive.expand_as(x))}

    page = page_of(Model(encode), normal(400, 4))
    assert heads(page) == ([] if head is None else [head])
    assert [n.level for n in page.notices] == ["bad" if dead == 4 else "warn"][: len(heads(page))]


def test_collapse_of_a_categorical_code():
    page = page_of(Model(lambda x: {"c": vaereg.categorical(0.0 * x, 0.5)}), normal(100, 4))
    assert heads(page) == ["Posterior collapse: all of c is inactive"]
    assert tiles(page)["active variables of c"] == "0 of 1"


class Bias(nn.Module):
    def __init__(self, d, value, weight):
        super().__init__()
        self.value, self.weight = nn.Parameter(torch.full((d,), value)), weight

    def forward(self, z):
        return self.value + self.weight * z


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_reconstructions_no_better_than_the_mean(likelihood):
    head = "Reconstructions are no better than the mean of the data"
    x = (normal(200, 3) > 0).float()
    encoder = nn.Identity()
    encoder.forward = lambda x: certain(2.0 * x - 1.0)
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    for weight, bad in ((0.0, True), (0.5, False)):
        middle = 0.7 if weight == 0.0 else 0.5
        decoder = Bias(3, middle, weight)
        page = page_of(vaereg.VAE(encoder, decoder, objective, likelihood=likelihood), x)
        assert (head in heads(page)) is bad
        assert (page.numbers["nll"] >= page.numbers["nll_of_the_mean"]) is bad


def test_nll_that_is_not_finite():
    model = Model(lambda x: {"z": spread_out(x)}, lambda values: values["z"])
    page = page_of(model, normal(), nll=lambda decoded, x: decoded.new_tensor(math.inf))
    assert heads(page) == ["The negative log-likelihood is not finite"]
    assert page.numbers["nll"] is None and tiles(page)["negative log-likelihood, nats"] == "∞"


def test_unused_classes_beside_what_their_prior_says():
    x = torch.eye(2).repeat(50, 1)

    def head(prior, d=4):
        logits = torch.full((100, d), -6.0)
        logits[:, :2] = 8.0 * x
        model = Model(lambda x: {"c": vaereg.categorical(logits[: len(x)], 0.5, prior=prior)})
        return [h for h in heads(page_of(model, x, batch_size=100)) if "classes" in h]

    assert head(None) == ["2 of 4 classes of c are hardly used"]
    assert head(None, d=2) == []
    # A class that the prior leaves out is not missed.
    assert head(torch.tensor([0.5, 0.5 - 1e-6, 5e-7, 5e-7])) == []


@pytest.mark.parametrize("shift, scale, std, which", [
    (0.0, 0.8, 0.6, None),
    (0.7, 0.8, 0.6, "0, 1"),  # away from 0
    (0.0, 2.0, 0.6, "0, 1"),  # too wide
    (0.0, 0.3, 0.2, "0, 1"),  # too narrow
])  # fmt: skip
def test_hole_in_the_aggregated_posterior(shift, scale, std, which):
    model = Model(lambda x: {"z": vaereg.gaussian(scale * x + shift, std=std + 0 * x)})
    found = page_of(model, normal(1000, 2)).notices
    found = [n for n in found if n.head == "The aggregated posterior of z is not the prior"]
    assert len(found) == (which is not None)
    assert all(f"Coordinates {which} have" in n.text for n in found)


def test_few_rows_show_no_hole_and_no_unused_classes():
    """A mean of 12 rows with a deviation of 0.8 is off by 0.2 by chance."""
    x = normal(12, 1)
    x = x - x.mean() + 0.6 / 0.8
    model = Model(lambda x: {"z": spread_out(x)})
    assert "The aggregated posterior of z is not the prior" not in heads(page_of(model, x))
    x = torch.eye(50)[torch.arange(100) % 17]
    model = Model(lambda x: {"c": vaereg.categorical(20.0 * x, 0.5)})
    assert not [h for h in heads(page_of(model, x)) if "classes" in h]


def test_collapse_onto_a_prior_of_each_row():
    def encode(x):
        one = torch.ones_like(x)
        return {"z": vaereg.gaussian(x, std=one, prior=Independent(Normal(x, one), 1))}

    (found,) = page_of(Model(encode), normal(50, 2)).notices
    assert "next to nothing of the data beyond what its prior is given. A lower" in found.text


@pytest.mark.parametrize("low, high, which", [
    (0.0, 255.0, "0.000 to 255.000"), (-1.0, 1.0, f"{MINUS}1.000 to 1.000"), (0.0, 1.0, None),
])  # fmt: skip
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_range_of_a_bernoulli_likelihood(likelihood, low, high, which):
    x = low + (high - low) * torch.rand(60, 5)
    x[0, 0], x[1, 0] = low, high
    found = page_of(fixed_vae(likelihood), x).notices
    found = [n for n in found if n.head.startswith("The data are not in [0, 1]")]
    wrong = which is not None and likelihood == "bernoulli"
    assert [n.level for n in found] == ["bad"] * wrong
    assert all(f"They go from {which}," in n.text for n in found)


def test_dead_coordinates_are_no_hole_and_other_priors_neither():
    wide = Independent(Normal(torch.zeros(2), torch.full((2,), 5.0)), 1)
    model = Model(lambda x: {"z": vaereg.gaussian(5.0 * x, std=1 + 0 * x, prior=wide)})
    assert heads(page_of(model, normal(300, 2))) == []
    # A mean of 0.6 in all rows costs 0.18 nats: inactive where 0.5 is asked for.
    flat = Model(lambda x: {"z": vaereg.gaussian(0 * x + 0.6, std=1 + 0 * x)})
    assert heads(page_of(flat, normal(), active=0.5))[0].startswith("Posterior collapse")
    assert len(page_of(flat, normal(), active=0.5).notices) == 1


def test_ceiling_of_the_information():
    model = Model(lambda x: {"z": vaereg.gaussian(x, std=0.01 + 0.0 * x)})
    page = page_of(model, normal(100, 3))
    assert heads(page) == ["I(x; z) is at its ceiling"]
    # So few rows show a total correlation of coordinates that have none: no notice of that.
    assert page.numbers["codes"]["z"]["parts"]["tc"] > 1.0
    assert "the total correlation is read too high" in page.notices[0].text


def test_coordinates_that_depend_on_each_other():
    x = normal(500, 1)
    model = Model(lambda x: {"z": vaereg.gaussian(x.expand(-1, 3), std=0.3 + 0 * x.expand(-1, 3))})
    assert "The coordinates of z depend on each other" in heads(page_of(model, x))


def gathered(n=400):
    model = Model(lambda x: {"z": spread_out(x)})
    return gather(model, normal(n), {}, None, 64, torch.device("cpu"), 0)


@pytest.mark.parametrize("change, level, head", [
    ({}, None, None),
    ({"lower": 1.4}, "bad", "The bounds of I(c; x) contradict each other"),
    ({"lower": 1.34}, None, None),  # within its errors
    ({"lower": 1.4, "upper_error": 0.05}, None, None),  # of both of them
    ({"lower": 1.4, "upper": math.inf, "upper_error": math.nan}, None, None),
    ({"exact": 0.05, "lower": 0.05}, "warn", "c is all but idle"),
    ({"exact": 0.1, "lower": 0.1}, None, None),
    ({"exact": 0.05, "lower": 0.05, "entropy": None}, None, None),
    ({"decoded": 0.1}, "warn", "Little of c was read back from what is decoded"),
    ({"decoded": 0.0, "decoded_error": 0.0}, "warn",
     "Little of c was read back from what is decoded"),
    ({"decoded": 0.1, "decoded_error": 0.07}, None, None),
    ({"decoded": 0.208, "decoded_error": 2.474, "exact": 9.3, "lower": 9.0, "upper": 9.9,
      "entropy": None}, None, None),
    ({"decoded": 0.0, "lower": 0.2}, None, None),  # a critic that cannot read the data either
    ({"decoded": None, "decoded_error": None}, None, None),
    ({"exact": 0.19, "lower": 0.19, "decoded": 0.0}, None, None),  # there is little to hide
    ({"exact": 0.23, "lower": 0.23, "decoded": 0.0}, None, None),
])  # fmt: skip
def test_notices_of_brackets(change, level, head):
    found = notices(gathered(), Measured(brackets={"c": replace(FINE, **change)}), 0.01)
    assert [(n.level, n.head) for n in found] == ([] if head is None else [(level, head)])


def test_what_was_read_back_is_told_as_a_lower_bound():
    held = replace(FINE, decoded=0.1, decoded_error=0.02)
    (found,) = notices(gathered(), Measured(brackets={"c": held}), 0.01)
    assert "no more than" not in found.text and "lower bounds" in found.text
    assert "a fresh critic read 0.100 ± 0.020 nats, and 0.900 ± 0.020 from the data" in found.text
    held = replace(held, decoded=0.0, decoded_error=0.0)
    (found,) = notices(gathered(), Measured(brackets={"c": held}), 0.01)
    assert "a fresh critic read nothing, and" in found.text


def test_notices_of_parts_are_beyond_their_errors():
    def heads_of(**change):
        base = Decomposition(1.0, 0.2, (0.1,), 0.01, 0.01, (0.01,), 1.3, 100)
        found = notices(gathered(), Measured(parts={"z": replace(base, **change)}), 0.01)
        return [n.head for n in found]

    assert heads_of() == []
    assert heads_of(tc=0.8) == ["The coordinates of z depend on each other"]
    assert heads_of(tc=0.8, tc_error=0.3) == []
    assert heads_of(tc=0.8, kl=20.0) == []  # little of it
    high = 0.95 * math.log(400)
    assert heads_of(mi=high) == ["I(x; z) is at its ceiling"]
    # Perhaps there: neither that it is, nor what its total correlation would say if it were not.
    assert heads_of(mi=high, mi_error=0.3, tc=0.8) == []


@pytest.mark.parametrize("verdict, displayed, head", [
    ("refuted", 0.01, "The term leak displays an independence that is not there"),
    ("dependent", 0.01, "The term leak displays less than half of the dependence"),
    ("dependent", 0.12, None),
    ("independent", 0.01, None),
    ("cannot tell", 0.01, None),
])  # fmt: skip
def test_notices_of_audits(verdict, displayed, head):
    read = MIEstimate(0.12, 0.01, (0.12,), 0.0, interval=(0.1, 0.15))
    entry = TermAudit("leak", "z", "y", "MINE", displayed, read, verdict, 0.05)
    found = notices(gathered(), Measured(audit=Audit({"leak": entry}, 0.05, 500)), 0.01)
    assert [n.head for n in found] == ([] if head is None else [head])
    assert all("fresh critics read 0.120 [0.100, 0.150] nats" in n.text for n in found)


def test_a_real_bracket_is_on_the_page():
    x = torch.eye(4).repeat(60, 1)

    def encode(x):
        return {"c": vaereg.categorical(6.0 * x, 0.5), "z": vaereg.gaussian((0 * x, 0 * x))}

    page = page_of(Model(encode, lambda v: torch.zeros(len(v["c"]), 4)), x, bracket=True)
    found = page.numbers["codes"]["c"]["bracket"]
    assert found["lower"] <= found["exact"] + 1e-6 and found["exact"] <= found["upper"] + 1e-6
    assert found["exact"] > 1.0 and found["decoded"] == 0.0
    assert "Little of c was read back from what is decoded" in heads(page)
    assert "I(c; x), nats" in page.html
    assert tiles(page)["I(x; c), nats, of held-out rows"] == f"{found['exact']:.2f}"
    Reader(page.html)

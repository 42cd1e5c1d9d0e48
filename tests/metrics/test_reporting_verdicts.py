"""What a page says of a model is true of it, also where little or nothing was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from report_models import FINE, Model, certain, fixed_vae, heads, normal, page_of, spread_out
from torch import nn
from torch.distributions import Independent, Normal

import vaereg
from vaereg.metrics.decomposition import Decomposition
from vaereg.metrics.reporting._gather import gather
from vaereg.metrics.reporting._measure import Measured
from vaereg.metrics.reporting._notices import notices

FINE_TICK = "No sign of collapse"
NO_BETTER = "Reconstructions are no better than the mean of the data"
HOLE = "The aggregated posterior of z is not the prior"
DEPEND = "The coordinates of z depend on each other"


@pytest.mark.parametrize("encode", [
    lambda x: vaereg.gaussian((x * math.nan, 0 * x)),
    lambda x: vaereg.gaussian((x, 0 * x + math.inf)),
    lambda x: vaereg.deterministic(x * math.nan),
    lambda x: vaereg.deterministic(x / 0.0),
    lambda x: vaereg.categorical(x * math.nan, 0.5),
])  # fmt: skip
def test_codes_that_are_not_finite(encode):
    page = page_of(Model(lambda x: {"z": encode(x)}, lambda values: values["z"]), normal(60))
    # What is decoded from them is not finite either, which is not the decoder's fault.
    assert heads(page) == ["The code z is not finite"] and page.notices[0].level == "bad"
    assert FINE_TICK not in page.html


def test_classes_without_weight_are_finite():
    logits = torch.tensor([0.0, 0.0, -math.inf])
    model = Model(lambda x: {"c": vaereg.Code(
        torch.eye(3)[torch.arange(len(x)) % 2],
        torch.distributions.OneHotCategorical(logits=logits.expand(len(x), 3)), None,
    )})  # fmt: skip
    assert heads(page_of(model, normal(60))) == []


def raises(values):
    raise KeyError("w")


@pytest.mark.parametrize("decode, why", [
    (raises, "KeyError: 'w'."),
    (lambda values: values["z"] * math.nan, "decoded: expected finite values, got nan or inf."),
])  # fmt: skip
def test_decoders_that_are_broken(decode, why):
    page = page_of(Model(lambda x: {"z": spread_out(x)}, decode), normal(400))
    (found,) = page.notices
    assert (found.level, found.head) == ("bad", "What is decoded is not finite, or decode raises")
    assert found.text.startswith(why) and FINE_TICK not in page.html


def test_no_tick_where_no_kl_was_read():
    def encode(x):
        return {"z": spread_out(x), "<w>": vaereg.deterministic(x)}

    page = page_of(Model(encode, lambda values: values["z"]), normal(400))
    assert page.notices == () and FINE_TICK not in page.html
    assert "The KL of &lt;w&gt; was not read" in page.html


def exact_vae(scale=1.0):
    """A decoder that gives back what its encoder was given, times ``scale``."""
    encoder, decoder = nn.Identity(), nn.Identity()
    encoder.forward, decoder.forward = certain, lambda z: scale * z
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    return vaereg.VAE(encoder, decoder, objective, likelihood="gaussian")


def test_data_that_do_not_vary_are_no_fault():
    page = page_of(exact_vae(), torch.full((60, 4), 0.5))
    assert page.numbers["nll"] == pytest.approx(page.numbers["nll_of_the_mean"])
    assert NO_BETTER not in heads(page)


def test_a_cause_is_named_only_where_it_was_measured():
    model, x = exact_vae(5.0), normal(400)
    page = page_of(model, x)
    plain = next(n.text for n in page.notices if n.head == NO_BETTER)
    assert plain.endswith(f"other rows {page.numbers['nll_of_the_mean']:.1f}.")
    seen = gather(model, x, {}, None, 64, torch.device("cpu"), 0)

    def text(**change):
        found = Measured(brackets={"z": replace(FINE, **change)})
        return next(n.text for n in notices(seen, found, 0.01) if n.head == NO_BETTER)

    assert "has not learned to use its codes" in text(decoded=0.0)
    assert "has not learned" not in text(decoded=0.8)
    assert "has not learned" not in text(decoded=None, decoded_error=None)


@pytest.mark.parametrize("rows", [2, 3, 5, 20])
def test_the_mean_of_few_rows_is_not_fitted_to_them(rows):
    """A true decoder, of data with noise beside what their code says."""
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    wrong = 0
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        z = torch.randn(rows, 10, generator=g)
        x = torch.cat((z, 0.2 * z + torch.randn(rows, 10, generator=g)), 1)
        encoder, decoder = nn.Identity(), nn.Identity()
        encoder.forward = lambda x: certain(x[:, :10])
        decoder.forward = lambda z: torch.cat((0.2 * z, 0.2 * z), 1)
        vae = vaereg.VAE(encoder, decoder, objective, likelihood="gaussian")
        seen = gather(vae, x, {}, None, 64, torch.device("cpu"), 0)
        wrong += seen.nll >= seen.blank
    assert wrong <= 4


def test_independent_coordinates_near_the_ceiling_are_not_called_dependent():
    x, noise = normal(300, 4), 0.0625
    model = Model(lambda x: {
        "z": vaereg.gaussian(math.sqrt(1 - noise) * x, std=math.sqrt(noise) + 0 * x)
    })  # fmt: skip
    page = page_of(model, x)
    parts = page.numbers["codes"]["z"]["parts"]
    assert parts["tc"] > 0.5 and 0.75 < parts["mi"] / math.log(300) < 0.9
    assert heads(page) == []


@pytest.mark.parametrize("share, told", [(0.7, True), (0.8, False)])
def test_total_correlation_is_told_of_well_below_the_ceiling(share, told):
    model = Model(lambda x: {"z": spread_out(x)})
    seen = gather(model, normal(400), {}, None, 64, torch.device("cpu"), 0)
    parts = Decomposition(share * math.log(400), 2.0, (0.1,), 0.01, 0.01, (0.01,), 7.0, 100)
    found = notices(seen, Measured(parts={"z": parts}), 0.01)
    assert [n.head for n in found] == [DEPEND] * told


def test_no_class_is_missed_without_a_prior():
    q = torch.distributions.OneHotCategorical(torch.eye(4)[:1].expand(100, 4))
    model = Model(lambda x: {"c": vaereg.Code(q.sample()[: len(x)], q, None)})
    assert heads(page_of(model, normal(100), batch_size=100)) == []


@pytest.mark.parametrize("rows, told", [(5, False), (49, False), (50, True)])
def test_holes_need_rows(rows, told):
    model = Model(lambda x: {"z": vaereg.gaussian(x + 3.0, std=1.0 + 0 * x)})
    assert (HOLE in heads(page_of(model, normal(rows, 1)))) is told


@pytest.mark.parametrize("loc, scale, told", [
    (3.0, 5.0, False), (9.0, 5.0, True), (3.0, 10.0, True), (3.0, 2.0, True),
])  # fmt: skip
def test_holes_beside_a_prior_of_another_scale(loc, scale, told):
    prior = Independent(Normal(torch.full((2,), loc), torch.full((2,), scale)), 1)
    model = Model(lambda x: {"z": vaereg.gaussian(4.9 * x + 3.0, std=1 + 0 * x, prior=prior)})
    found = page_of(model, normal(400, 2)).notices
    assert [n.head for n in found] == [HOLE] * told
    assert all("in deviations of their prior from its mean" in n.text for n in found)


@pytest.mark.parametrize("beyond, told", [(1.2e-7, False), (0.01, True)])
def test_a_rounded_maximum_is_in_the_range(beyond, told):
    for sign in (1.0, -1.0):
        x = torch.rand(60, 5)
        x[0, 0] = (1.0 if sign > 0 else 0.0) + sign * beyond
        found = heads(page_of(fixed_vae("bernoulli"), x))
        assert any(h.startswith("The data are not in [0, 1]") for h in found) is told


def test_numbers_and_arrays_of_other_types():
    model = Model(lambda x: {"z": spread_out(x.float())}, lambda values: values["z"])
    x = np.random.default_rng(0).integers(0, 9, (60, 3))
    own = page_of(model, x, seed=3)
    assert page_of(model, x, seed=np.int64(3), active=np.float32(0.01)).numbers == own.numbers
    for kind in (np.uint16, np.uint32, np.uint64):
        assert page_of(model, x.astype(kind), seed=3).numbers == own.numbers
    assert page_of(model, torch.from_numpy(x.astype(np.uint16)), seed=3).numbers == own.numbers
    wide = page_of(model, x.astype(np.longdouble), seed=3)
    assert wide.numbers["codes"] == own.numbers["codes"]
    y = np.arange(60) % 3
    tables = [page_of(model, x, factors=f, trees=2).numbers for f in (y, y.astype(object))]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("change, kind, message", [
    ({"seed": None}, TypeError, "seed: expected an integer, got None"),
    ({"seed": 2.0}, TypeError, "seed: expected an integer, got 2.0"),
    ({"seed": -1}, ValueError, "seed: expected at least 0, got -1"),
    ({"active": math.nan}, ValueError, "active: expected a finite number of at least 0, got nan"),
    ({"active": -1.0}, ValueError, "active: expected a finite number of at least 0, got -1.0"),
    ({"active": "0.1"}, TypeError, "active: expected a number, got '0.1'"),
    ({"factors": np.array([None, 1] * 10)}, TypeError, "factors: expected integers, got dtype ob"),
    ({"factors": np.array([0.5, 1] * 10, object)}, TypeError, "factors: .* got real numbers"),
])  # fmt: skip
def test_messages(change, kind, message):
    with pytest.raises(kind, match=message):
        page_of(Model(lambda x: {"z": spread_out(x)}), normal(20), **change)


@pytest.mark.parametrize("place", [0.0, 5.0, 1e17, -1e17])
def test_codes_all_at_one_place(place):
    page = page_of(Model(lambda x: {"z": vaereg.Code(
        place + 0 * x, Normal(place + 0 * x.double(), 1e-9 + 0 * x.double()), None
    )}), normal())  # fmt: skip
    assert page.html.count('<figure class="histogram">') == 3
    assert page.html.count('height="58.0"') >= 3 and 'height="nan"' not in page.html


def test_what_the_coordinates_cannot_show_is_not_measured(monkeypatch):
    from vaereg.metrics.reporting import _page

    monkeypatch.setattr(_page, "_histogram", lambda *given: 1 / 0)
    page = page_of(Model(lambda x: {"z": spread_out(x)}), normal())
    assert dict(page.skipped)["coordinates"].startswith("ZeroDivisionError")
    assert page.numbers["codes"]["z"]["kl"] is not None

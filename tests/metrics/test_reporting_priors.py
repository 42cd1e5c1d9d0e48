"""Aggregated posteriors beside the prior that the code has."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from report_models import Model, normal, page_of, spread_out
from torch.distributions import Categorical, Independent, Laplace, MixtureSameFamily, Normal

import vaereg


def of_prior(prior, x=None, std=0.5):
    """The page of a code whose posterior means are the data."""
    x = normal(300, 2) if x is None else x

    def encode(x):
        own = prior(x) if callable(prior) else prior
        return {"z": vaereg.gaussian(x, std=std + 0 * x, prior=own)}

    return page_of(Model(encode), x)


def plots(page):
    """Caption, heights of the columns and of the line between 0 and 1, of each histogram."""
    found = []
    for body, caption in re.findall(
        r'<figure class="histogram">(.*?)<figcaption>(.*?)</figcaption>', page.html
    ):
        columns = np.array([float(h) for h in re.findall(r'height="([\d.]+)"', body)]) / 58.0
        points = re.findall(r'points="(.*?)"', body)
        line = (
            [(60.0 - float(p.split(",")[1])) / 58.0 for p in points[0].split()] if points else []
        )
        found.append((caption, columns, np.array(line)))
    return found


def ends(caption):
    low, high = caption.replace("\N{MINUS SIGN}", "-").split(": ")[1].split(" to ")
    return float(low), float(high)


def expected(caption, prior):
    """The density in the middle of each bin, over what is highest in the plot."""
    edges = torch.linspace(*ends(caption), 33, dtype=torch.float64)
    return prior.log_prob(0.5 * (edges[1:] + edges[:-1])).exp().numpy()


def test_standard_normal_prior():
    page = page_of(Model(lambda x: {"z": spread_out(x)}), normal(300, 2))
    found = plots(page)
    assert sorted(caption for caption, _, _ in found) == ["z[0]", "z[1]"]
    for _, _, line in found:
        middle = np.linspace(-3.875, 3.875, 32)
        assert line / line.max() == pytest.approx(np.exp(-(middle**2) / 2 + 0.0078), abs=0.01)
    assert "from \N{MINUS SIGN}4 to 4; the line is the standard normal density." in page.html


def test_other_gaussian_prior_of_all_rows():
    loc, scale = torch.tensor([3.0, -40.0]), torch.tensor([2.0, 10.0])
    page = of_prior(Independent(Normal(loc, scale), 1))
    assert "the line is the density of the coordinate's prior" in page.html
    assert "standard normal density" not in page.html
    found = {caption.split(":")[0]: (caption, line) for caption, _, line in plots(page)}
    for d in (0, 1):
        caption, line = found[f"z[{d}]"]
        low, high = ends(caption)
        assert low <= loc[d] - 4 * scale[d] and high >= loc[d] + 4 * scale[d]
        truth = expected(caption, Normal(loc[d].double(), scale[d].double()))
        assert line / line.max() == pytest.approx(truth / truth.max(), abs=0.03)


def mixture():
    parts = Independent(Normal(torch.tensor([[-3.0, 0.0], [3.0, 0.0]]), torch.ones(2, 2)), 1)
    return MixtureSameFamily(Categorical(torch.ones(2)), parts)


@pytest.mark.parametrize("prior, truth", [
    (lambda x: Independent(Laplace(1.0 + 0 * x, 2.0 + 0 * x), 1), Laplace(1.0, 2.0)),
    (lambda x: mixture(), MixtureSameFamily(
        Categorical(torch.ones(2)), Normal(torch.tensor([-3.0, 3.0]), torch.ones(2))
    )),
])  # fmt: skip
def test_priors_of_other_families_by_their_draws(prior, truth):
    page = of_prior(prior)
    assert "the line is the density of the coordinate's prior" in page.html
    caption, _, line = next(plot for plot in plots(page) if plot[0].startswith("z[0]"))
    wanted = expected(caption, truth)
    assert line / line.sum() == pytest.approx(wanted / wanted.sum(), abs=0.02)
    assert of_prior(prior).html == page.html


class Silent(Normal):
    def sample(self, shape=()):
        raise NotImplementedError


@pytest.mark.parametrize("prior, why", [
    (lambda x: Independent(Normal(x, 1 + 0 * x), 1), "its prior differs between the rows"),
    (lambda x: Independent(Laplace(x, 1 + 0 * x), 1), "its prior differs between the rows"),
    (lambda x: Silent(0 * x, 2 + 0 * x), "its prior gives neither a density nor draws"),
])  # fmt: skip
def test_no_line_without_a_prior_that_all_rows_share(prior, why):
    page = of_prior(prior)
    assert f"no line, for {why}." in page.html
    assert all(len(line) == 0 and columns.max() == 1.0 for _, columns, line in plots(page))


def test_no_line_without_a_prior():
    model = Model(lambda x: {"z": vaereg.Code(x, Normal(x, 0.5 + 0 * x))})
    assert "no line, for it has no prior." in page_of(model, normal()).html


def test_range_holds_posteriors_and_prior():
    """A prior of another place than the draws: both are on the plot."""
    page = of_prior(Independent(Normal(torch.full((2,), 30.0), torch.ones(2)), 1))
    for _, columns, line in plots(page):
        assert columns[-1] == 0.0 and line[[0, -1]].max() < 0.05
        assert columns.argmax() < 5 and line.argmax() > 25
    constant = of_prior(None, torch.zeros(50, 1), std=1e-9)
    assert math.isfinite(float(plots(constant)[0][1].max()))


def test_draws_of_a_prior_move_no_other_number():
    """The page of a code beside one whose prior is drawn from is as without it."""

    def page(prior):
        def encode(x):
            return {"w": vaereg.gaussian(x, std=1 + 0 * x, prior=prior(x)), "z": spread_out(x)}

        model = Model(encode, lambda values: values["z"])
        return page_of(model, normal(100, 2), bracket=True).numbers["codes"]["z"]

    laplace = page(lambda x: Independent(Laplace(0 * x, 1 + 0 * x), 1))
    assert laplace == page(lambda x: Independent(Normal(0 * x, 2 + 0 * x), 1))


def test_a_prior_that_is_narrow_beside_the_bins():
    page = of_prior(Independent(Normal(torch.zeros(2), torch.full((2,), 0.02)), 1), std=3.0)
    for _, columns, line in plots(page):
        assert line.max() == 1.0 and columns.max() < 0.5


def test_range_of_small_codes():
    page = of_prior(lambda x: Independent(Normal(1e5 * x, 1.0), 1), 1e-5 * normal(), std=1e-9)
    for caption, columns, _ in plots(page):
        low, high = ends(caption)
        assert -6e-5 < low < -1e-5 and 1e-5 < high < 6e-5
        assert (columns > 0.0).sum() > 15

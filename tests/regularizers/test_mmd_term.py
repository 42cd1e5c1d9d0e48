"""MMD as a term: prior draws, default scales, what it does to an encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import vaereg
from vaereg.functional.mmd import default_scales, mmd
from vaereg.regularizers.mmd import MMD
from vaereg.testing import RegularizerContract

pytestmark = pytest.mark.usefixtures("one_thread")


def leaves(rows, event, dtype, generator):
    mean = torch.randn(rows, *event, dtype=dtype, generator=generator).requires_grad_()
    logvar = (0.3 * torch.randn(rows, *event, dtype=dtype, generator=generator)).requires_grad_()
    return mean, logvar


# ---- the contract


class TestMMD(RegularizerContract):
    reads_other = checks_width = False
    options = {}  # noqa: RUF012

    def make(self):
        return MMD("z", **self.options)

    def batch(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (3,), dtype, generator)
        return {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (2, 3, 3), dtype, generator)
        return self.make(), {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]


class TestMMDOfTwoCodes(TestMMD):
    """A part, and a whole code with a learned conditional prior."""

    options = {"kernel": "rbf"}  # noqa: RUF012

    def make(self):
        return MMD(("z[1:]", "c"), **self.options)

    def batch(self, rows, *, dtype, generator):
        batch, first = super().batch(rows, dtype=dtype, generator=generator)
        mean, logvar = leaves(rows, (2,), dtype, generator)
        centre = torch.randn(rows, 2, dtype=dtype, generator=generator).requires_grad_()
        prior = Normal(centre, torch.ones_like(centre), validate_args=False)
        c = vaereg.gaussian((mean, logvar), prior=prior)
        return {**batch, "c": c}, [*first, mean, logvar, centre]

    image_case = RegularizerContract.image_case


class TestMMDOfDeterministicCode(TestMMD):
    """As in WAE: a value without a posterior; its prior cannot be reparameterised."""

    options = {"unbiased": False, "scales": [0.5, 2.0]}  # noqa: RUF012

    def batch(self, rows, *, dtype, generator):
        value = torch.randn(rows, 3, dtype=dtype, generator=generator).requires_grad_()
        loc = torch.randn(4, 3, dtype=dtype, generator=generator)
        parts = Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)
        weights = Categorical(torch.ones(4, dtype=dtype), validate_args=False)
        prior = MixtureSameFamily(weights, parts, validate_args=False)
        return {"z": vaereg.Code(value, None, prior)}, [value]

    image_case = RegularizerContract.image_case


# ---- the value


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_agrees_with_the_functional_layer(kernel, unbiased):
    z = vaereg.gaussian(torch.randn(9, 8))
    term = MMD("z", kernel=kernel, unbiased=unbiased)
    torch.manual_seed(5)
    found = term({"z": z})
    torch.manual_seed(5)
    y = z.p.rsample()
    scales = default_scales(kernel, torch.tensor(4.0))
    expected = mmd(z.value, y, kernel=kernel, scales=scales, unbiased=unbiased, paired=True)
    torch.testing.assert_close(found, expected)


def test_default_scales_of_a_standard_normal_are_those_of_wae():
    """Of any prior: twice its variance, with that of its means over the rows."""
    z = vaereg.gaussian(torch.zeros(7, 10))
    found = MMD("z")._scales({"z": z})
    torch.testing.assert_close(
        torch.tensor(found), 10.0 * torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
    )
    rbf = MMD("z[:2]", kernel="rbf")._scales({"z": z})
    torch.testing.assert_close(torch.tensor(rbf), 2.0 * torch.tensor([0.25, 0.5, 1.0, 2.0]))
    centre = torch.tensor([[2.0], [-2.0]]).repeat(50, 1)
    prior = Normal(centre, torch.full((100, 1), 3.0))
    c = vaereg.gaussian(torch.zeros(100, 2), prior=prior)
    found = MMD(("z", "c"), kernel="rbf")._scales({"z": vaereg.gaussian(torch.zeros(100, 10)),
                                                   "c": c})  # fmt: skip
    torch.testing.assert_close(found[2], torch.tensor(5.0 + 9.0 + 4.0))


def test_conditional_prior_draws_one_a_row():
    """Codes at their own row's prior mean: no discrepancy, though the rows' priors differ."""
    centre = torch.tensor([[4.0], [-4.0]]).repeat(200, 1)
    prior = Normal(centre, torch.full((400, 1), 0.5))
    values = []
    for location in (centre, torch.zeros(400, 1)):
        z = vaereg.gaussian(location, std=torch.full((400, 1), 0.5), prior=prior)
        values.append(MMD("z", kernel="rbf", scales=[1.0])({"z": z}).item())
    assert abs(values[0]) < 0.02 < 0.5 < values[1]


@pytest.mark.parametrize("conditional", [False, True])
def test_no_discrepancy_on_average_where_the_laws_agree(conditional):
    """300 batches of 8 rows, within 4 standard errors of 0: code and draw share the label."""
    values = []
    for _ in range(300):
        centre = torch.randn(8, 1) * (2.0 if conditional else 0.0)
        prior = Normal(centre, torch.full((8, 1), 0.2 if conditional else 1.0))
        z = vaereg.Code(prior.sample(), None, prior)
        values.append(MMD("z", scales=[1.0])({"z": z}))
    stacked = torch.stack(values)
    assert abs(stacked.mean().item()) < 4.0 * stacked.std().item() / math.sqrt(300.0)


@pytest.mark.parametrize("unbiased", [True, False])
def test_lone_row_has_value_zero_and_zero_gradient(unbiased):
    mean = torch.randn(1, 3, requires_grad=True)
    z = vaereg.gaussian((mean, torch.zeros(1, 3)))
    value = MMD("z", unbiased=unbiased)({"z": z})
    value.backward()
    assert value.item() == 0.0 and not mean.grad.any()


def test_gradient_reaches_a_learned_prior():
    centre = torch.full((64, 1), 3.0, requires_grad=True)
    z = vaereg.gaussian(torch.zeros(64, 2), prior=Normal(centre, torch.ones(64, 1)))
    MMD("z")({"z": z}).backward()
    assert centre.grad.sum() > 0.0  # descent lowers the prior's mean to the code's


# ---- what it does


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_it_brings_a_code_to_the_prior(kernel):
    """A deterministic code (WAE), off by 3 in location and by 4 in scale."""
    encoder = nn.Linear(2, 2)
    with torch.no_grad():
        encoder.weight.copy_(0.25 * torch.eye(2))
        encoder.bias.fill_(3.0)
    term = MMD("z", kernel=kernel)
    prior = Normal(torch.zeros(2), torch.ones(2))
    optimizer = torch.optim.Adam(encoder.parameters(), 0.05)
    for _ in range(250):
        z = vaereg.Code(encoder(torch.randn(128, 2)), None, prior)
        optimizer.zero_grad()
        term({"z": z}).backward()
        optimizer.step()
    covariance = encoder.weight @ encoder.weight.mT
    torch.testing.assert_close(covariance.detach(), torch.eye(2), atol=0.35, rtol=0.0)
    assert encoder.bias.abs().max() < 0.3


# ---- errors


def test_refused():
    with pytest.raises(ValueError, match=r"mmd\(z\): expected kernel to be imq or rbf, got 'x'"):
        MMD("z", kernel="x")
    for scales in ([], [0.0], [1.0, -1.0], [math.nan]):
        with pytest.raises(ValueError, match=r"expected scales to be a sequence of squared"):
            MMD("z", scales=scales)
    with pytest.raises(TypeError, match=r"mmd\(z\): variable 'z': expected a Code with a prior"):
        MMD("z")({"z": torch.zeros(4, 2)})
    with pytest.raises(TypeError, match=r"mmd\(z\): variable 'z': expected a Code with a prior"):
        MMD("z")({"z": vaereg.deterministic(torch.zeros(4, 2))})
    wide = vaereg.Code(torch.zeros(4, 2), None, Normal(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ValueError, match=r"'z': expected a prior of shape \(2,\) or \(4, 2\)"):
        MMD("z")({"z": wide})


def test_prior_without_a_known_variance_needs_scales():
    class Bent(torch.distributions.Distribution):
        arg_constraints = {}  # noqa: RUF012

        def sample(self, sample_shape=()):
            return torch.randn(*sample_shape, 2).sin()

    z = vaereg.Code(torch.randn(4, 2), None, Bent(torch.Size(), torch.Size([2])))
    with pytest.raises(TypeError, match=r"expected scales, for the prior of 'z' has no known"):
        MMD("z")({"z": z})
    assert MMD("z", scales=[1.0])({"z": z}).isfinite()

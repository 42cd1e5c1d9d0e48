"""DIP as a term: which covariance, which families, what it does to an encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

import vaereg
from vaereg.functional.moments import posterior_covariance
from vaereg.regularizers.moments import DIP
from vaereg.testing import RegularizerContract

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["i", "ii"]


def leaves(rows, event, dtype, generator):
    mean = torch.randn(rows, *event, dtype=dtype, generator=generator).requires_grad_()
    logvar = (0.3 * torch.randn(rows, *event, dtype=dtype, generator=generator)).requires_grad_()
    return mean, logvar


# ---- the contract


class TestDIP(RegularizerContract):
    reads_other = checks_width = False

    def make(self):
        return DIP("z", kind="ii", off_diagonal=2.0, diagonal=0.5)

    def batch(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (3,), dtype, generator)
        return {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (2, 3, 3), dtype, generator)
        return self.make(), {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]


class TestDIPOfTwoCodes(TestDIP):
    """A part of a factorised code, and a whole code with full covariances."""

    def make(self):
        return DIP(("z[1:]", "c"), kind="ii", off_diagonal=2.0, diagonal=0.5)

    def batch(self, rows, *, dtype, generator):
        batch, first = super().batch(rows, dtype=dtype, generator=generator)
        mean, _ = leaves(rows, (2,), dtype, generator)
        root = torch.randn(rows, 2, 2, dtype=dtype, generator=generator).requires_grad_()
        tril = root.tril(-1) + torch.eye(2, dtype=dtype)
        q = MultivariateNormal(mean, scale_tril=tril, validate_args=False)
        return {**batch, "c": vaereg.gaussian(q)}, [*first, mean, root]

    image_case = RegularizerContract.image_case


# ---- the value


def gaussian(rows=5, width=3):
    mean = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    return vaereg.gaussian((mean, logvar)), mean, logvar


def slow(mean, variance, off_diagonal, diagonal):
    """The equation by Python loops."""
    rows, width = len(mean), len(mean[0])
    centre = [sum(row[d] for row in mean) / rows for d in range(width)]
    total = 0.0
    for i in range(width):
        for j in range(width):
            c = sum((r[i] - centre[i]) * (r[j] - centre[j]) for r in mean) / rows
            if i == j:
                c += 0.0 if variance is None else sum(row[i] for row in variance) / rows
                total += diagonal * (c - 1.0) ** 2
            else:
                total += off_diagonal * c**2
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_against_a_loop(kind, rows):
    z, mean, logvar = gaussian(rows)
    variance = logvar.exp().tolist() if kind == "ii" else None
    for off, on in ((2.0, 0.5), (0.0, 1.0), (3.0, 0.0)):
        found = DIP("z", kind=kind, off_diagonal=off, diagonal=on)({"z": z}).item()
        assert found == pytest.approx(slow(mean.tolist(), variance, off, on), rel=1e-10)


def test_zero_mean_is_sigma_squared_times_the_identity():
    z = vaereg.gaussian((torch.zeros(9, 4), torch.full((9, 4), math.log(0.25))))
    term = DIP("z", kind="ii", off_diagonal=7.0, diagonal=1.0)
    torch.testing.assert_close(term.covariance({"z": z}), 0.25 * torch.eye(4))
    assert term({"z": z}).item() == pytest.approx(4 * 0.75**2)
    same = vaereg.gaussian((torch.zeros(9, 4), torch.zeros(9, 4)))
    assert term({"z": same}).item() == pytest.approx(0.0, abs=1e-12)


def test_a_lone_row_has_the_value_of_the_equation():
    z, mean, logvar = gaussian(1)
    value = DIP("z", kind="i", off_diagonal=2.0, diagonal=0.5)({"z": z})
    value.backward()
    assert value.item() == 1.5 and not mean.grad.any()
    DIP("z", kind="ii", off_diagonal=2.0, diagonal=0.5)({"z": z}).backward()
    assert not mean.grad.any() and logvar.grad.any()


def test_two_codes_are_coupled_by_their_means_alone():
    z, mean, logvar = gaussian()
    tril = torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64)
    q = MultivariateNormal(torch.randn(5, 2, dtype=torch.float64), scale_tril=tril)
    batch = {"z": z, "c": vaereg.gaussian(q)}
    found = DIP(("z[:2]", "c"), kind="ii", off_diagonal=1.0, diagonal=1.0).covariance(batch)
    variance = torch.zeros(5, 4, 4, dtype=torch.float64)
    variance[:, :2, :2] = logvar.detach()[:, :2].exp().diag_embed()
    variance[:, 2:, 2:] = tril @ tril.mT
    expected = posterior_covariance(torch.cat((mean[:, :2], q.mean), 1), variance)
    torch.testing.assert_close(found, expected)


def test_families():
    """Mean and variance are the family's own."""
    loc, scale = torch.randn(6, 2), torch.rand(6, 2) + 0.5
    prior = Normal(torch.zeros(2), torch.ones(2))
    for q in (Laplace(loc, scale), Normal(loc, scale), Bernoulli(logits=loc)):
        z = vaereg.Code(torch.zeros(6, 2), Independent(q, 1), prior)
        found = DIP("z", kind="ii", off_diagonal=1.0, diagonal=1.0).covariance({"z": z})
        torch.testing.assert_close(found, posterior_covariance(q.mean, q.variance))
    # Relaxed categorical codes have means, but no factorised variance.
    c = vaereg.categorical(loc, 0.5)
    found = DIP("c", kind="i", off_diagonal=1.0, diagonal=1.0).covariance({"c": c})
    torch.testing.assert_close(found, posterior_covariance(loc.softmax(1)))
    with pytest.raises(TypeError, match=r"'c' with a factorised posterior .*OneHotCategorical"):
        DIP("c", kind="ii", off_diagonal=1.0, diagonal=1.0)({"c": c})
    parts = Independent(Normal(torch.randn(6, 3, 2), torch.ones(6, 3, 2)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(6, 3)), parts)
    z = vaereg.Code(torch.zeros(6, 2), mixture, prior)
    with pytest.raises(TypeError, match=r"(?s)'z' with a factorised .*kind 'i' reads"):
        DIP("z", kind="ii", off_diagonal=1.0, diagonal=1.0)({"z": z})
    assert DIP("z", kind="i", off_diagonal=1.0, diagonal=1.0)({"z": z}).isfinite()


def test_posterior_without_a_known_mean():
    class Flow(torch.distributions.Distribution):
        arg_constraints = {}  # noqa: RUF012

    z = vaereg.Code(torch.zeros(4, 2), Flow(torch.Size([4]), torch.Size([2])), Flow())
    with pytest.raises(TypeError, match="'z' with a posterior of known mean"):
        DIP("z", off_diagonal=1.0, diagonal=1.0)({"z": z})


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    term = DIP("z", kind=kind, off_diagonal=1.7, diagonal=0.6)

    def value(mean, logvar):
        return term({"z": vaereg.gaussian((mean, logvar), value=torch.zeros(4, 3).double())})

    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(value, inputs)


def test_diagnostics_are_the_two_sums():
    z, *_ = gaussian()
    term = DIP("z", kind="ii", off_diagonal=2.0, diagonal=3.0)
    shown = term.diagnostics({"z": z})
    total = 2.0 * shown["off_diagonal"] + 3.0 * shown["diagonal"]
    torch.testing.assert_close(total, term({"z": z}).detach())


# ---- what it does


@pytest.mark.parametrize("kind", KINDS)
def test_it_whitens_a_linear_code(kind):
    """x of correlation 0.9; after training the covariance is the identity."""
    x = torch.randn(512, 2) @ torch.tensor([[1.0, 0.9], [0.0, 0.19**0.5]])
    encoder, logvar = nn.Linear(2, 2), nn.Parameter(torch.full((2,), -1.0))
    term = DIP("z", kind=kind, off_diagonal=1.0, diagonal=1.0)
    optimizer = torch.optim.Adam([*encoder.parameters(), logvar], 0.02)
    for _ in range(400):
        z = vaereg.gaussian((encoder(x), logvar.expand(512, 2)))
        optimizer.zero_grad()
        term({"z": z}).backward()
        optimizer.step()
    covariance = term.covariance({"z": z}).detach()
    torch.testing.assert_close(covariance, torch.eye(2), atol=0.01, rtol=0.0)


# ---- errors


def test_refused():
    with pytest.raises(ValueError, match=r"dip\(z\): expected kind to be i or ii, got 'iii'"):
        DIP("z", kind="iii", off_diagonal=1.0, diagonal=1.0)
    for strength in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"dip\(z\): expected off_diagonal >= 0, got"):
            DIP("z", off_diagonal=strength, diagonal=1.0)
        with pytest.raises(ValueError, match=r"dip\(z\): expected diagonal >= 0, got"):
            DIP("z", off_diagonal=1.0, diagonal=strength)
    term = DIP("z", off_diagonal=1.0, diagonal=1.0)
    with pytest.raises(TypeError, match="'z' with a posterior q, got None"):
        term({"z": vaereg.deterministic(torch.zeros(3, 2))})


def test_validate_names_a_posterior_that_is_not_finite():
    mean = torch.zeros(3, 2)
    mean[1, 0] = math.nan
    z = vaereg.gaussian((mean, torch.zeros(3, 2)), value=torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"the covariance of 'z'"):
        DIP("z", off_diagonal=1.0, diagonal=1.0).validate({"z": z})

"""VariationalMI of channels whose information is known: symmetric, Gaussian, uniform."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import (
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Uniform,
)
from variational_codes import Formula, linear

import vaereg
from vaereg import critics
from vaereg.functional import gaussian_log_likelihood

pytestmark = pytest.mark.usefixtures("one_thread")


def fit(term, draw, steps, rate=1e-2):
    optimizer = torch.optim.Adam(term.critic_parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        term.critic_loss(draw()).backward()
        optimizer.step()
        schedule.step()


def standard(rows, d):
    """A draw from N(0, I) with that prior and no posterior."""
    return vaereg.Code(torch.randn(rows, d), None, Normal(torch.zeros(d), 1.0))


# ---- symmetric channels


@pytest.mark.parametrize("kind", ["label", "posterior", "draw"])
@pytest.mark.parametrize(
    ("classes", "right", "wrong", "exact"), [(2, 9, 1, 0.368064), (10, 36, 1, 1.362738)]
)
def test_symmetric_channel(classes, right, wrong, exact, kind):
    """Two symbols with 10% errors, ten with 20%: each cell as often as it is probable."""
    counts = torch.full((classes, classes), wrong) + (right - wrong) * torch.eye(classes).long()
    cells = [(i, j) for i in range(classes) for j in range(classes) for _ in range(counts[i, j])]
    sent, received = torch.tensor(cells).T
    v, g = (vaereg.labels(t, classes).double() for t in (sent, received))
    uniform = torch.zeros(len(v), classes).double()
    code = {
        "label": v,
        "posterior": vaereg.categorical(uniform, 0.5, value=v),
        "draw": vaereg.Code(v, None, OneHotCategorical(logits=uniform[0])),
    }[kind]
    channel = counts.double() / counts.sum(1)
    error = 1.0 - right / counts[0].sum().item()
    known = math.log(classes) + (1.0 - error) * math.log(1.0 - error)
    known += error * math.log(error / (classes - 1))
    assert known == pytest.approx(exact, abs=5e-7)
    term = vaereg.VariationalMI("v", given="g", critic=linear(channel.log()))
    assert term({"v": code, "g": g}).item() == pytest.approx(known, abs=1e-9)
    # A distribution says the same as its logits.
    said = Formula(lambda g: OneHotCategorical(logits=g @ channel.log(), validate_args=False))
    other = vaereg.VariationalMI("v", given="g", critic=said)
    assert other({"v": code, "g": g}).item() == pytest.approx(known, abs=1e-9)
    worse = vaereg.VariationalMI("v", given="g", critic=linear(0.5 * channel.log()))
    assert worse({"v": code, "g": g}).item() < known - 1e-2


# ---- the Gaussian channel


@pytest.mark.parametrize("d", [1, 3])
def test_gaussian_channel(d):
    """v ~ N(0, I) through noise of 0.5: the exact posterior attains (d / 2) log(1 + 1 / 0.25).

    The log-likelihood of a row has the variance d / 2 under the exact model.
    """
    rows, noise = 100_000, 0.25
    v = standard(rows, d)
    batch = {"v": v, "g": v.value + math.sqrt(noise) * torch.randn(rows, d)}
    exact = 0.5 * d * math.log(1.0 + 1.0 / noise)
    slope, variance = 1.0 / (1.0 + noise), noise / (1.0 + noise)
    means = linear(slope * torch.eye(d))
    spread = math.sqrt(variance) * torch.ones(d)
    for critic in (
        critics.GaussianHead(means, d, variance=variance),
        Formula(lambda g: Normal(slope * g, spread, validate_args=False)),
        Formula(lambda g: MultivariateNormal(slope * g, variance * torch.eye(d))),
        Formula(lambda g: [Independent(Normal(slope * g, spread.expand_as(g)), 1)]),
    ):
        found = vaereg.VariationalMI("v", given="g", critic=critic)(batch).item()
        assert found == pytest.approx(exact, abs=4.0 * math.sqrt(0.5 * d / rows))
    # A model that is wrong falls short by the mean KL from the exact posterior.
    wide = critics.GaussianHead(means, d, variance=2.0 * variance)
    gap = 0.5 * d * (math.log(2.0) + 0.5 - 1.0)
    found = vaereg.VariationalMI("v", given="g", critic=wide)(batch).item()
    assert found == pytest.approx(exact - gap, abs=4.0 * math.sqrt(0.5 * d / rows))


@pytest.mark.parametrize("variance", ["learned", "global"])
def test_fitted_heads_reach_the_gaussian_channel(variance):
    def draw(rows=512):
        v = standard(rows, 2)
        return {"v": v, "g": v.value @ torch.tensor([[1.0, 0.5], [-0.5, 1.0]])
                + 0.5 * torch.randn(rows, 2)}  # fmt: skip

    # The map is a rotation times sqrt(1.25).
    exact = math.log(1.0 + 1.25 / 0.25)
    network = critics.mlp(2, 4 if variance == "learned" else 2, width=32, depth=1)
    head = critics.GaussianHead(network, 2, variance=variance)
    term = vaereg.VariationalMI("v", given="g", critic=head)
    fit(term, draw, 400)
    found = term(draw(50_000)).item()
    assert exact - 0.05 < found < exact + 4.0 / math.sqrt(50_000)


# ---- a uniform code: what each head can say


NOISE = 0.3


def uniform_draw(rows):
    c = 2.0 * torch.rand(rows, 1) - 1.0
    code = vaereg.Code(c, None, Uniform(-torch.ones(1), 1.0))
    return {"c": code, "x": c + NOISE * torch.randn(rows, 1)}


def truncated(x):
    """Density of x, and mean and variance of c given x: N(x, NOISE^2) cut to [-1, 1]."""
    from scipy.stats import norm

    # In the left tail of the normal distribution, where differences keep their digits.
    sign, x = np.sign(x), np.abs(x)
    a, b = (-1.0 - x) / NOISE, (1.0 - x) / NOISE
    mass = norm.cdf(b) - norm.cdf(a)
    first = (norm.pdf(a) - norm.pdf(b)) / mass
    second = (a * norm.pdf(a) - b * norm.pdf(b)) / mass
    return 0.5 * mass, sign * (x + NOISE * first), NOISE**2 * (1.0 + second - first**2)


def uniform_truth():
    """By quadrature: I, the best Gaussian of free variance, and of one variance for all."""
    x = np.linspace(-3.2, 3.2, 200_001)
    density, _, variance = truncated(x)
    weight = density * (x[1] - x[0])
    constant = math.log(2.0 * math.pi * math.e)
    information = -(weight * np.log(density)).sum() - 0.5 * (constant + 2.0 * math.log(NOISE))
    free = math.log(2.0) - 0.5 * (constant + (weight * np.log(variance)).sum())
    same = math.log(2.0) - 0.5 * (constant + math.log((weight * variance).sum()))
    assert weight.sum() == pytest.approx(1.0, abs=1e-9)
    return information, free, same, (weight * variance).sum()


def test_uniform_code_by_quadrature():
    information, free, same, _ = uniform_truth()
    assert information == pytest.approx(0.749141, abs=1e-6)
    assert free == pytest.approx(0.678603, abs=1e-6)
    assert same == pytest.approx(0.636193, abs=1e-6)


def test_ideal_models_of_a_uniform_code():
    """Posterior mean and variance by formula: within 4 standard errors of 200,000 rows."""
    information, free, same, variance = uniform_truth()
    rows = 200_000
    batch = uniform_draw(rows)

    def ideal(x):
        _, mean, spread = truncated(x.double().numpy())
        return torch.from_numpy(np.concatenate((mean, np.log(spread)), 1))

    def constant(x):
        return torch.cat((ideal(x)[:, :1], torch.full((rows, 1), math.log(variance))), 1)

    for model, exact in ((ideal, free), (constant, same)):
        term = vaereg.VariationalMI("c", given="x", critic=Formula(model))
        c = batch["c"].value.double()
        known = gaussian_log_likelihood(c, *model(batch["x"]).chunk(2, 1))
        margin = 4.0 * known.std().item() / math.sqrt(rows)
        assert margin < 0.01
        assert term(batch).item() == pytest.approx(exact, abs=margin)
    # The exact posterior, as a distribution of the user's own, attains the information.
    term = vaereg.VariationalMI("c", given="x", critic=Formula(Truncated))
    assert term(batch).item() == pytest.approx(information, abs=0.01)


class Truncated(torch.distributions.Distribution):
    """The Gaussian around x, cut to [-1, 1]."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, x):
        super().__init__(x.shape[:1], x.shape[1:], validate_args=False)
        self.x = x

    def log_prob(self, value):
        density, _, _ = truncated(self.x.double().numpy())
        inside = Normal(self.x, NOISE).log_prob(value)
        return (inside - torch.from_numpy(2.0 * density).log()).sum(1)


@pytest.mark.parametrize(("variance", "place"), [("learned", 1), ("global", 2)])
def test_fitted_models_of_a_uniform_code(variance, place):
    exact = uniform_truth()[place]
    network = critics.mlp(1, 2 if variance == "learned" else 1, width=32, activation="tanh")
    head = critics.GaussianHead(network, 1, variance=variance)
    term = vaereg.VariationalMI("c", given="x", critic=head)
    fit(term, lambda: uniform_draw(512), 1000)
    assert term(uniform_draw(100_000)).item() == pytest.approx(exact, abs=0.015)

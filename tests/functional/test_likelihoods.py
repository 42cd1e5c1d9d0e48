"""Likelihoods against torch.distributions in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Laplace, Normal, OneHotCategorical

from vaereg.functional import bernoulli_nll, categorical_nll, gaussian_nll, laplace_nll

SHAPE = (5, 2, 3)


def draw(*shape):
    return torch.randn(*(shape or SHAPE), dtype=torch.float64)


def mean_of_rows(log_prob):
    return -sum(log_prob.flatten(1).sum(1).tolist()) / len(log_prob)


def test_bernoulli():
    logits, x = 3.0 * draw(), (draw() > 0).double()
    expected = mean_of_rows(Bernoulli(logits=logits).log_prob(x))
    assert bernoulli_nll(logits, x).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda t: bernoulli_nll(t, x), logits.requires_grad_())


def test_bernoulli_of_grey_values_is_the_cross_entropy():
    logits, x = draw(), torch.rand(SHAPE, dtype=torch.float64)
    s = logits.sigmoid()
    expected = mean_of_rows(x * s.log() + (1 - x) * (1 - s).log())
    assert bernoulli_nll(logits, x).item() == pytest.approx(expected, rel=1e-12)


def test_bernoulli_of_certain_logits_is_finite():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    value = bernoulli_nll(logits, torch.tensor([[0.0, 0.0]]))
    value.backward()
    assert value.item() == 200.0 and torch.equal(logits.grad, torch.tensor([[1.0, 0.0]]))


def test_gaussian():
    mean, x, logvar = draw(), draw(), draw()
    std = (0.5 * logvar).exp()
    cases = [
        ({}, Normal(mean, 1.0)),
        ({"std": 0.3}, Normal(mean, 0.3)),
        ({"std": std}, Normal(mean, std)),
        ({"logvar": logvar}, Normal(mean, std)),
        ({"logvar": logvar[:1]}, Normal(mean, std[:1])),
    ]
    for keywords, distribution in cases:
        expected = mean_of_rows(distribution.log_prob(x))
        assert gaussian_nll(mean, x, **keywords).item() == pytest.approx(expected, rel=1e-12)
    leaves = (mean.requires_grad_(), logvar.requires_grad_())
    assert torch.autograd.gradcheck(lambda m, v: gaussian_nll(m, x, logvar=v), leaves)


def test_laplace():
    location, x = draw(), draw()
    for scale in (1.0, 0.3, torch.rand(SHAPE, dtype=torch.float64) + 0.1):
        expected = mean_of_rows(Laplace(location, scale).log_prob(x))
        assert laplace_nll(location, x, scale=scale).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda t: laplace_nll(t, x), location.requires_grad_())


def test_categorical():
    logits = draw(5, 4, 3)
    x = torch.nn.functional.one_hot(torch.randint(4, (5, 3)), 4).double()
    expected = mean_of_rows(OneHotCategorical(logits=logits.mT).log_prob(x))
    assert categorical_nll(logits, x.mT).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda t: categorical_nll(t, x.mT), logits.requires_grad_())


@pytest.mark.parametrize("nll", [bernoulli_nll, gaussian_nll, laplace_nll])
def test_half_precision_sums_in_float32(nll):
    """10,000 pixels: bfloat16 sums would stall at 256 times a term."""
    x = torch.ones(1, 10_000, dtype=torch.bfloat16)
    value = nll(torch.zeros_like(x), x)
    assert value.dtype == torch.float32
    each = {bernoulli_nll: math.log(2.0), gaussian_nll: 0.5 + 0.5 * math.log(2 * math.pi),
            laplace_nll: 1.0 + math.log(2.0)}[nll]  # fmt: skip
    assert value.item() == pytest.approx(10_000 * each, rel=1e-4)


def test_refused():
    x = torch.zeros(4, 2)
    for nll in (bernoulli_nll, gaussian_nll, laplace_nll, categorical_nll):
        with pytest.raises(ValueError, match=rf"{nll.__name__}.*\(4, 3\), got \(4, 2\)"):
            nll(torch.zeros(4, 3), x)
        with pytest.raises(TypeError, match=r"got torch.int64"):
            nll(x, x.long())
    for spread in (0.0, -1.0):
        with pytest.raises(ValueError, match="std > 0"):
            gaussian_nll(x, x, std=spread)
        with pytest.raises(ValueError, match="scale > 0"):
            laplace_nll(x, x, scale=spread)
    with pytest.raises(ValueError, match="got both"):
        gaussian_nll(x, x, std=1.0, logvar=x)

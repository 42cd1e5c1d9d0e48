"""Closed-form KLs against float64 quadrature, enumeration and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch.distributions import (
    Bernoulli,
    Categorical,
    Exponential,
    Gamma,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Uniform,
)

from vaereg.functional import gaussian_kl, kl_per_row, kl_terms

DOUBLE = torch.float64


def real(*values):
    return torch.tensor(values, dtype=DOUBLE)


def normal_log_density(x, mean, deviation):
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))


def laplace_log_density(x, mean, scale):
    return -abs(x - mean) / scale - math.log(2.0 * scale)


def normal_density(x, mean, deviation):
    return math.exp(normal_log_density(x, mean, deviation))


def quadrature(log_density, q, p):
    """KL by adaptive quadrature; the kinks of Laplace densities are breakpoints."""

    def integrand(x):
        log_q = log_density(x, *q)
        return math.exp(log_q) * (log_q - log_density(x, *p))

    reach = 40.0 * q[1]
    kinks = sorted({q[0], p[0]})
    return integrate.quad(integrand, q[0] - reach, q[0] + reach, points=kinks, limit=500)[0]


PAIRS = [((0.0, 1.0), (0.0, 1.0)), ((1.5, 0.3), (0.0, 1.0)), ((-0.7, 2.0), (1.1, 0.8)),
         ((0.2, 0.05), (0.1, 0.06))]  # fmt: skip


@pytest.mark.parametrize(("q", "p"), PAIRS)
@pytest.mark.parametrize("family", [Normal, Laplace])
def test_location_scale_families_against_quadrature(family, q, p):
    log_density = normal_log_density if family is Normal else laplace_log_density
    expected = quadrature(log_density, q, p)
    found = kl_terms(family(*map(real, q)), family(*map(real, p)))
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    if family is Normal:
        closed = gaussian_kl(
            real(q[0]), 2.0 * real(q[1]).log(), real(p[0]), 2.0 * real(p[1]).log()
        )
        assert closed.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("other", [0.3, 0.999])
def test_bernoulli_by_enumeration(share, other):
    expected = share * math.log(share / other) + (1 - share) * math.log((1 - share) / (1 - other))
    for q in (Bernoulli(probs=real(share)), Bernoulli(logits=real(share).logit())):
        found = kl_terms(q, Bernoulli(probs=real(other)))
        assert found.item() == pytest.approx(expected, rel=1e-9)


def test_bernoulli_of_certain_logits_is_finite():
    q = Bernoulli(logits=real(300.0, -300.0, 300.0))
    found = kl_terms(q, Bernoulli(logits=real(0.0, 0.0, -300.0)))
    torch.testing.assert_close(found, real(math.log(2.0), math.log(2.0), 300.0))


@pytest.mark.parametrize("family", [Categorical, OneHotCategorical])
def test_categorical_by_enumeration(family):
    q, p = torch.rand(4, 5, dtype=DOUBLE), torch.rand(4, 5, dtype=DOUBLE)
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    slow = [
        sum(a * math.log(a / b) for a, b in zip(*rows, strict=True))
        for rows in zip(q.tolist(), p.tolist(), strict=True)
    ]
    found = kl_per_row(family(probs=q), family(probs=p))
    assert found.tolist() == pytest.approx(slow, rel=1e-9)


def test_categorical_with_excluded_classes():
    """A class that q excludes counts 0, whatever p says, in the value and in the gradient."""
    logits = torch.tensor([[0.0, 0.0, -math.inf]], dtype=DOUBLE, requires_grad=True)
    for prior in ([0.0, 0.0, 0.0], [0.0, 0.0, -math.inf]):
        p = OneHotCategorical(logits=torch.tensor([prior], dtype=DOUBLE))
        q = OneHotCategorical(logits=logits, validate_args=False)
        value = kl_per_row(q, p)
        allowed = sum(x == 0.0 for x in prior)
        assert value.item() == pytest.approx(math.log(allowed / 2.0), abs=1e-12)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert gradient[0, :2].isfinite().all()


def triangular(seed, size=3):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(4, size, size, dtype=DOUBLE, generator=generator).tril(-1)
    return raw + torch.diag_embed(torch.rand(4, size, dtype=DOUBLE, generator=generator) + 0.5)


def test_multivariate_normal_against_numpy():
    means = torch.randn(2, 4, 3, dtype=DOUBLE)
    q = MultivariateNormal(means[0], scale_tril=triangular(0))
    for p in (
        MultivariateNormal(means[1], scale_tril=triangular(1)),
        MultivariateNormal(means[1, 0], scale_tril=triangular(1)[0]),
    ):
        found = kl_per_row(q, p)
        for i in range(4):
            j = i if p.loc.ndim == 2 else ...
            a, b = q.covariance_matrix[i].numpy(), p.covariance_matrix[j].numpy()
            gap = (p.loc[j] - q.loc[i]).numpy()
            inverse = np.linalg.inv(b)
            slow = 0.5 * (
                np.trace(inverse @ a) + gap @ inverse @ gap - 3
                + np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
            )  # fmt: skip
            assert found[i].item() == pytest.approx(slow, rel=1e-9)


def test_diagonal_and_full_gaussian_agree():
    mean, scale = torch.randn(4, 3, dtype=DOUBLE), torch.rand(4, 3, dtype=DOUBLE) + 0.2
    full = MultivariateNormal(mean, scale_tril=torch.diag_embed(scale))
    unit = MultivariateNormal(torch.zeros(3, dtype=DOUBLE), torch.eye(3, dtype=DOUBLE))
    slim = Independent(Normal(mean, scale), 1)
    zero = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(kl_per_row(full, unit), kl_per_row(slim, zero))


SAME = [
    Independent(Normal(torch.randn(4, 3), torch.rand(4, 3) + 0.1), 1),
    Independent(Laplace(torch.randn(4, 3), torch.rand(4, 3) + 0.1), 1),
    Independent(Bernoulli(logits=torch.randn(4, 3)), 1),
    Categorical(logits=torch.randn(4, 3)),
    OneHotCategorical(logits=torch.randn(4, 3)),
    Independent(OneHotCategorical(logits=torch.randn(4, 2, 3)), 1),
    MultivariateNormal(torch.randn(4, 3), torch.eye(3)),
]


@pytest.mark.parametrize("q", SAME, ids=lambda q: type(q).__name__)
def test_divergence_from_itself_is_zero(q):
    found = kl_per_row(q, q)
    assert found.shape == (4,)
    torch.testing.assert_close(found, torch.zeros(4), rtol=0, atol=1e-6)


def test_conditional_prior_is_row_by_row():
    q = Independent(Normal(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    center = torch.randn(4, 3)
    p = Independent(Normal(center, torch.ones(4, 3)), 1)
    torch.testing.assert_close(kl_per_row(q, p), 0.5 * center.square().sum(1))


def test_undeclared_events_are_summed():
    """A Normal of batch shape (B, D): coordinates are summed, in closed form or not."""
    mean, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    q = Normal(mean, scale)
    for p in (Normal(torch.zeros(4, 3), 1.0), Laplace(torch.zeros(4, 3), torch.ones(4, 3))):
        expected = torch.distributions.kl_divergence(q, p).sum(1)
        torch.testing.assert_close(kl_per_row(q, p), expected)


def test_torchs_registry_is_the_fallback():
    q, p = Gamma(real(2.0, 3.0), real(1.0, 0.5)), Exponential(real(0.7, 0.7))
    torch.testing.assert_close(kl_per_row(q, p), torch.distributions.kl_divergence(q, p))
    q = Uniform(real(0.2, 0.3), real(0.5, 0.9))
    p = Uniform(real(0.0, 0.0), real(1.0, 2.0))
    # KL of nested uniforms is the log ratio of their lengths.
    expected = real(math.log(1.0 / 0.3), math.log(2.0 / 0.6))
    torch.testing.assert_close(kl_per_row(q, p), expected)


def mixture(rows):
    weights = Categorical(probs=real(0.3, 0.7).expand(rows, 2))
    centers = torch.tensor([[-2.0], [1.0]], dtype=DOUBLE).expand(rows, 2, 1)
    parts = Independent(Normal(centers, 0.5 * torch.ones_like(centers)), 1)
    return MixtureSameFamily(weights, parts)


def test_mixture_prior_falls_back_on_an_unbiased_sample():
    """The mean over 200,000 draws is the KL by quadrature; tolerance 4 standard errors."""
    rows = 200_000
    expected = integrate.quad(
        lambda x: normal_density(x, 0.5, 0.8)
        * (
            math.log(normal_density(x, 0.5, 0.8))
            - math.log(0.3 * normal_density(x, -2.0, 0.5) + 0.7 * normal_density(x, 1.0, 0.5))
        ),
        -8.0, 9.0, limit=200,
    )[0]  # fmt: skip
    mean = torch.full((rows, 1), 0.5, dtype=DOUBLE, requires_grad=True)
    q = Independent(Normal(mean, 0.8 * torch.ones_like(mean)), 1)
    found = kl_per_row(q, mixture(rows), q.rsample())
    error = found.std().item() / math.sqrt(rows)
    assert abs(found.mean().item() - expected) < 4.0 * error < 0.05
    found.mean().backward()
    assert mean.grad.isfinite().all() and mean.grad.abs().sum() > 0


def test_refused_pairs():
    q = Independent(Normal(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    with pytest.raises(ValueError, match=r"event shape \(3,\), got \(2,\)"):
        kl_per_row(q, Independent(Normal(torch.zeros(4, 2), torch.ones(4, 2)), 1))
    discrete = OneHotCategorical(logits=torch.zeros(4, 1))
    with pytest.raises(TypeError, match="closed form or a reparameterised posterior, got OneHot"):
        kl_per_row(discrete, mixture(4), torch.zeros(4, 1))
    with pytest.raises(TypeError, match="closed form"):
        kl_per_row(Independent(Normal(torch.zeros(4, 1), 1.0), 1), mixture(4))
    assert kl_terms(q, MultivariateNormal(torch.zeros(3), torch.eye(3))) is None


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_extreme_log_variances_are_finite(dtype):
    logvar = torch.linspace(-30.0, 20.0, 51, dtype=dtype).requires_grad_()
    mean = torch.zeros(51, dtype=dtype, requires_grad=True)
    for value in (
        gaussian_kl(mean, logvar),
        kl_terms(Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros_like(mean), 1.0)),
    ):
        gradients = torch.autograd.grad(value.sum(), (mean, logvar))
        assert value.isfinite().all() and all(g.isfinite().all() for g in gradients)
        wide = logvar.detach().double()
        expected = 0.5 * (torch.expm1(wide) - wide)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-10)


def test_near_agreement_keeps_its_digits():
    """At logvar = 1e-4 the KL is logvar^2 / 4 = 2.5e-9, which exp(l) - l - 1 loses in float32."""
    found = gaussian_kl(torch.zeros(1), torch.full((1,), 1e-4))
    assert found.item() == pytest.approx(2.5e-9, rel=0.02)


def test_gradcheck():
    def leaf(low=0.3):
        return (torch.rand(3, 2, dtype=DOUBLE) + low).requires_grad_()

    a, b, c, d = (leaf() for _ in range(4))
    assert torch.autograd.gradcheck(gaussian_kl, (a, b, c, d))
    pairs = {
        Normal: lambda x, y: Independent(Normal(x, y), 1),
        Laplace: lambda x, y: Independent(Laplace(x, y), 1),
        Bernoulli: lambda x, y: Independent(Bernoulli(logits=x - 2.0 * y), 1),
        OneHotCategorical: lambda x, y: OneHotCategorical(logits=x - y),
        MultivariateNormal: lambda x, y: MultivariateNormal(x, scale_tril=torch.diag_embed(y)),
    }
    for make in pairs.values():
        assert torch.autograd.gradcheck(
            lambda x, y, u, v, make=make: kl_per_row(make(x, y), make(u, v)), (a, b, c, d)
        )

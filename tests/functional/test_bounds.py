"""Bounds on mutual information against loops, quadrature and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate

from vaereg.functional import (
    donsker_varadhan,
    jensen_shannon,
    log_mean_exp,
    mine_loss,
    moving_log_average,
)

RHO = 0.8
TRUTH = -0.5 * math.log(1.0 - RHO**2)


def draw(rows=40, scale=1.0):
    return scale * torch.randn(rows, dtype=torch.float64)


def log_ratio(x, y):
    """log p(x, y) / p(x) p(y) of standard normals of correlation RHO: the optimal critic."""
    square = RHO**2 * (x * x + y * y) - 2.0 * RHO * x * y
    return TRUTH - square / (2.0 * (1.0 - RHO**2))


def expectations(function, joint):
    """E[function(log ratio)] under the joint or the product of marginals, by quadrature."""
    spread = math.sqrt(1.0 - RHO**2)

    def integrand(b, a):
        y = RHO * a + spread * b if joint else b
        weight = math.exp(-0.5 * (a * a + b * b)) / (2.0 * math.pi)
        return weight * function(log_ratio(a, y))

    return integrate.dblquad(integrand, -8.0, 8.0, -8.0, 8.0, epsabs=1e-7)[0]


def gaussian_scores(rows):
    x = torch.randn(rows, dtype=torch.float64)
    y = RHO * x + math.sqrt(1.0 - RHO**2) * torch.randn_like(x)
    return log_ratio(x, y), log_ratio(x, torch.randn_like(x))


def test_donsker_varadhan_against_a_loop():
    joint, product = draw(), draw(60, 2.0)
    slow = sum(joint.tolist()) / 40 - math.log(sum(map(math.exp, product.tolist())) / 60)
    assert donsker_varadhan(joint, product).item() == pytest.approx(slow, rel=1e-12)
    assert mine_loss(joint, product).item() == pytest.approx(-slow, rel=1e-12)
    # Scores of any shape, and of a constant: E[T] - log E[e^T] does not see it.
    shifted = donsker_varadhan(joint.reshape(5, 8) + 7.0, product.reshape(6, 10) + 7.0)
    assert shifted.item() == pytest.approx(slow, rel=1e-12)


def test_donsker_varadhan_at_the_optimal_critic():
    """1,000,000 rows: standard error sqrt(Var T + Var e^T) / 1000, measured; 4 of them."""
    joint, product = gaussian_scores(1_000_000)
    error = math.sqrt(joint.var().item() + product.exp().var().item()) / 1000.0
    assert abs(donsker_varadhan(joint, product).item() - TRUTH) < 4.0 * error < 0.03
    assert expectations(lambda t: t, joint=True) == pytest.approx(TRUTH, abs=1e-5)


def test_donsker_varadhan_is_a_lower_bound_at_other_critics():
    joint, product = gaussian_scores(200_000)
    for scale in (0.3, 0.6, 1.2):
        assert donsker_varadhan(scale * joint, scale * product).item() < TRUTH - 0.005


def test_jensen_shannon_at_the_optimal_critic():
    """Against quadrature over the plane, with 4 standard errors of 200,000 rows."""
    softplus = lambda t: max(t, 0.0) + math.log1p(math.exp(-abs(t)))  # noqa: E731
    exact = (
        math.log(2.0)
        - 0.5 * expectations(lambda t: softplus(-t), joint=True)
        - (0.5 * expectations(softplus, joint=False))
    )
    rows = 200_000
    joint, product = gaussian_scores(rows)
    parts = torch.nn.functional.softplus(-joint), torch.nn.functional.softplus(product)
    error = 0.5 * math.sqrt(sum(part.var().item() for part in parts) / rows)
    assert abs(jensen_shannon(joint, product).item() - exact) < 4.0 * error < 0.005
    # The optimum is a maximum over critics, and the divergence is at most log 2.
    for change in (lambda t: 0.7 * t, lambda t: 1.4 * t, lambda t: t + 0.3):
        assert jensen_shannon(change(joint), change(product)).item() < exact
    assert 0.0 < exact < math.log(2.0)


def test_jensen_shannon_against_a_loop():
    joint, product = draw(), draw(60)
    slow = (
        math.log(2.0)
        - 0.5 * sum(math.log1p(math.exp(-t)) for t in joint.tolist()) / 40
        - 0.5 * sum(math.log1p(math.exp(t)) for t in product.tolist()) / 60
    )
    assert jensen_shannon(joint, product).item() == pytest.approx(slow, rel=1e-12)
    assert jensen_shannon(draw() * 0 + 500.0, draw() * 0 - 500.0).item() == math.log(2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [None, -400.0, 0.0, 400.0])
def test_scores_up_to_200_are_finite(dtype, shift):
    """With the average as MINE keeps it: it includes the batch."""
    joint = torch.linspace(-200.0, 200.0, 41, dtype=dtype).requires_grad_()
    product = torch.linspace(200.0, -200.0, 33, dtype=dtype).requires_grad_()
    average = None
    if shift is not None:
        own = log_mean_exp(product.detach())
        log_m, weight = moving_log_average(own + shift, torch.ones_like(own), own, 0.99)
        average = log_m - weight.log()
    for value in (donsker_varadhan(joint, product, average), jensen_shannon(joint, product)):
        gradients = torch.autograd.grad(value, (joint, product))
        assert value.isfinite() and all(g.isfinite().all() for g in gradients)
    assert log_mean_exp(product).item() == pytest.approx(200.0 - math.log(33.0), rel=1e-6)


def test_gradcheck_of_the_plain_bounds():
    leaves = draw(6).requires_grad_(), draw(8).requires_grad_()
    for function in (donsker_varadhan, jensen_shannon, mine_loss):
        assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradcheck(log_mean_exp, leaves[:1])


def test_surrogates_gradient_is_the_explicit_formula():
    """d/dT_joint = 1 / n; d/dT_product = -e^T / (m * exp(log_denominator))."""
    joint, product = draw(6).requires_grad_(), draw(8).requires_grad_()
    for log_denominator in (-1.0, 0.3, 2.0):
        given = torch.tensor(log_denominator, dtype=torch.float64, requires_grad=True)
        value = donsker_varadhan(joint, product, given)
        assert value.item() == pytest.approx(donsker_varadhan(joint, product).item(), rel=1e-12)
        first, second = torch.autograd.grad(value, (joint, product), retain_graph=True)
        torch.testing.assert_close(first, torch.full_like(joint, 1.0 / 6.0))
        expected = -product.detach().exp() / (8.0 * math.exp(log_denominator))
        torch.testing.assert_close(second, expected)
        assert torch.autograd.grad(value, given, allow_unused=True)[0] is None
    # With the batch's own denominator it is the plain bound's gradient.
    own = log_mean_exp(product)
    plain = torch.autograd.grad(donsker_varadhan(joint, product), (joint, product))
    same = torch.autograd.grad(donsker_varadhan(joint, product, own), (joint, product))
    for a, b in zip(plain, same, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_moving_average_is_the_explicit_weighted_mean(decay):
    values = (torch.rand(25, dtype=torch.float64) * 6.0 - 3.0).tolist()
    log_m, weight = torch.tensor(-math.inf, dtype=torch.float64), torch.zeros(()).double()
    for count, value in enumerate(values, 1):
        logarithm = torch.tensor(value, dtype=torch.float64)
        log_m, weight = moving_log_average(log_m, weight, logarithm, decay)
        powers = [decay ** (count - 1 - i) for i in range(count)]
        terms = zip(powers, values[:count], strict=True)
        slow = sum(p * math.exp(v) for p, v in terms) / sum(powers)
        assert (log_m - weight.log()).item() == pytest.approx(math.log(slow), abs=1e-9)
        assert weight.item() == pytest.approx(1.0 - decay**count, abs=1e-12)


def test_moving_average_bounds_the_batchs_ratio():
    """The batch's exponentials never exceed 1 / (1 - decay) times the average."""
    log_m, weight = moving_log_average(
        torch.tensor(-900.0), torch.tensor(1.0), torch.tensor(0.0), 0.99
    )
    assert (-(log_m - weight.log())).exp().item() == pytest.approx(100.0, rel=1e-4)

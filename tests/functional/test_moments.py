"""Covariances of the aggregated posterior: loops, exact mixtures, gradients."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from vaereg.functional.moments import dip_penalty, expected_covariance, posterior_covariance

DOUBLE = torch.float64


def posteriors(rows=6, width=3):
    mean = torch.randn(rows, width, dtype=DOUBLE) * torch.tensor([1.0, 2.0, 0.5]) + 3.0
    mean[:, 1] += mean[:, 0]
    return mean, torch.rand(rows, width, dtype=DOUBLE) + 0.1


def loop(mean, variance=None):
    """The covariance of a mixture of Gaussians by sums over rows and pairs of coordinates."""
    rows, width = mean.shape
    centre = [sum(mean[:, d].tolist()) / rows for d in range(width)]
    out = torch.zeros(width, width, dtype=DOUBLE)
    for i in range(rows):
        for a in range(width):
            for b in range(width):
                out[a, b] += (mean[i, a] - centre[a]) * (mean[i, b] - centre[b]) / rows
                if variance is not None and variance.ndim == 3:
                    out[a, b] += variance[i, a, b] / rows
                elif variance is not None and a == b:
                    out[a, b] += variance[i, a] / rows
    return out


def full(rows=6, width=3):
    root = torch.randn(rows, width, width, dtype=DOUBLE)
    return root @ root.mT + 0.1 * torch.eye(width, dtype=DOUBLE)


def test_against_a_loop():
    mean, variance = posteriors()
    for spread in (None, variance, full()):
        torch.testing.assert_close(posterior_covariance(mean, spread), loop(mean, spread))


@pytest.mark.parametrize("covariances", [False, True])
def test_is_that_of_the_mixture_of_the_posteriors(covariances):
    """Draws of the batch's aggregated posterior, within 5 standard errors."""
    mean, variance = posteriors()
    spread = full() if covariances else variance
    matrix = spread if covariances else spread.diag_embed()
    mixture = MixtureSameFamily(
        Categorical(torch.ones(6, dtype=DOUBLE)), MultivariateNormal(mean, matrix)
    )
    draws = mixture.sample((100_000,))
    centred = draws - draws.mean(0)
    products = centred.unsqueeze(2) * centred.unsqueeze(1)
    error = products.std(0) / 100_000**0.5
    assert ((products.mean(0) - posterior_covariance(mean, spread)).abs() < 5.0 * error).all()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_zero_mean_gives_the_variance_exactly(rows):
    """No division by B - 1, no square of the variance."""
    zero, spread = torch.zeros(rows, 4), torch.full((rows, 4), 0.25)
    assert torch.equal(posterior_covariance(zero, spread), 0.25 * torch.eye(4))


def test_law_of_total_covariance():
    """The whole is the part between the rows and the part within; a constant changes nothing."""
    mean, variance = posteriors()
    whole = posterior_covariance(mean, variance)
    torch.testing.assert_close(whole - posterior_covariance(mean), expected_covariance(variance))
    torch.testing.assert_close(posterior_covariance(mean + 1e3, variance), whole)
    torch.testing.assert_close(
        posterior_covariance(mean, variance), posterior_covariance(mean, variance.diag_embed())
    )


def test_float32_far_from_the_origin():
    mean, variance = posteriors(64)
    near = (mean.float() + 1e3).double()  # what float32 can hold
    found = posterior_covariance((mean.float() + 1e3), variance[:64].float())
    torch.testing.assert_close(found.double(), loop(near, variance), rtol=1e-4, atol=1e-4)


def test_half_precision_and_autocast_are_computed_in_float32():
    mean, variance = posteriors()
    for dtype in (torch.bfloat16, torch.float16):
        low = mean.to(dtype)
        found = posterior_covariance(low, variance.to(dtype))
        assert found.dtype == torch.float32
        expected = loop(low.double(), variance.to(dtype).double()).float()
        torch.testing.assert_close(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = posterior_covariance(mean.float(), variance.float())
    torch.testing.assert_close(found, loop(mean, variance).float(), rtol=1e-4, atol=1e-4)


def test_penalty_against_a_loop():
    c = full(1)[0]
    off = sum(float(c[i, j]) ** 2 for i in range(3) for j in range(3) if i != j)
    on = sum((float(c[i, i]) - 1.0) ** 2 for i in range(3))
    found = dip_penalty(c, off_diagonal=2.5, diagonal=0.7).item()
    assert found == pytest.approx(2.5 * off + 0.7 * on, rel=1e-12)
    assert dip_penalty(torch.eye(5), off_diagonal=3.0, diagonal=4.0).item() == 0.0


def test_gradients():
    mean, variance = posteriors(4)

    def value(m, v):
        return dip_penalty(posterior_covariance(m, v), off_diagonal=1.3, diagonal=0.4)

    inputs = (mean.requires_grad_(), variance.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)
    assert torch.autograd.gradcheck(value, (mean, full(4).requires_grad_()))


def test_refused():
    with pytest.raises(ValueError, match=r"mean of shape \(B, D\), got \(2, 3, 4\)"):
        posterior_covariance(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"columns of mean, \(5, 3\), got \(5, 2\)"):
        posterior_covariance(torch.zeros(5, 3), torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"columns of mean, \(5, 3\), got \(3,\)"):
        posterior_covariance(torch.zeros(5, 3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"\(B, D\) or \(B, D, D\), got \(5, 3, 2\)"):
        posterior_covariance(torch.zeros(5, 3), torch.zeros(5, 3, 2))
    with pytest.raises(ValueError, match=r"covariance of shape \(D, D\), got \(2, 3\)"):
        dip_penalty(torch.zeros(2, 3), off_diagonal=1.0, diagonal=1.0)

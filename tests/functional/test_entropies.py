"""Entropies of aggregated posteriors: closed forms, loops, bounds, gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Uniform,
)

from vaereg.functional import categorical_entropy, mixture_entropy
from vaereg.functional.entropies import entropy_per_row, joint_probabilities

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(*size):
    return torch.randn(*size, dtype=torch.float64)


def posteriors(rows, d, spread=0.4):
    """Samples of narrow Gaussians, means, log-variances."""
    mean, logvar = draw(rows, d), 2.0 * math.log(spread) + 0.3 * draw(rows, d)
    return mean + (0.5 * logvar).exp() * draw(rows, d), mean, logvar


def slow(z, mean, logvar, pi):
    """The equation, by loops over rows, components and classes."""
    total, n = 0.0, float(pi.sum())
    for i, k in itertools.product(range(len(z)), range(pi.shape[1])):
        if pi[i, k] == 0:
            continue
        densities = [
            float(pi[j, k] * Normal(mean[j], (0.5 * logvar[j]).exp()).log_prob(z[i]).sum().exp())
            for j in range(len(z))
        ]
        total -= float(pi[i, k]) * math.log(sum(densities) / n)
    return total / n


# ---- values


def test_against_loops():
    found = posteriors(6, 3)
    pi = draw(6, 4).softmax(1)
    assert mixture_entropy(*found, pi).item() == pytest.approx(slow(*found, pi), rel=1e-12)
    one = torch.ones(6, 1).double()
    assert mixture_entropy(*found).item() == pytest.approx(slow(*found, one), rel=1e-12)
    torch.testing.assert_close(mixture_entropy(*found), mixture_entropy(*found, one))


def test_missing_rows_and_impossible_classes():
    found = posteriors(6, 2)
    pi = torch.eye(3).double()[[0, 2, 2, 0, 2, 0]]
    pi[3] = 0.0
    present = [0, 1, 2, 4, 5]
    value = mixture_entropy(*found, pi)
    assert value.item() == pytest.approx(slow(*found, pi), rel=1e-12)
    torch.testing.assert_close(value, mixture_entropy(*(t[present] for t in found), pi[present]))
    assert mixture_entropy(*found, torch.zeros(6, 3).double()).item() == 0.0
    assert categorical_entropy(torch.zeros(6, 3)).item() == 0.0


def test_known_classes_split_the_mixture():
    """H(z, y) = H(y) + sum_y p(y) H(z | y), exactly, where y is known of each row."""
    z, mean, logvar = posteriors(9, 2)
    y = torch.tensor([0, 1, 2, 0, 0, 1, 2, 0, 1])
    pi = torch.eye(3).double()[y]
    within = sum(
        (y == k).double().mean() * mixture_entropy(z[y == k], mean[y == k], logvar[y == k])
        for k in range(3)
    )
    torch.testing.assert_close(
        mixture_entropy(z, mean, logvar, pi), categorical_entropy(pi) + within
    )


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_independent_parts_add_up(rows):
    """Rows that say the same of z: H(z, c) = H(z) + H(c), and H(z) is closed form on average."""
    z, _, _ = posteriors(rows, 3)
    mean, logvar, pi = torch.zeros_like(z), torch.zeros_like(z), draw(rows, 4).softmax(1)
    apart = mixture_entropy(z, mean, logvar) + categorical_entropy(pi)
    torch.testing.assert_close(mixture_entropy(z, mean, logvar, pi), apart)


def test_large_batch_gives_the_aggregated_posteriors_entropy():
    """z = N(0, 1) + N(0, 0.5^2) in two dimensions, against the closed form."""
    mean = torch.randn(4000, 2)
    z = mean + 0.5 * torch.randn(4000, 2)
    exact = 2 * 0.5 * math.log(2.0 * math.pi * math.e * 1.25)
    found = mixture_entropy(z, mean, torch.full_like(mean, 2.0 * math.log(0.5)))
    # The standard deviation of log q(z) of a two-dimensional Gaussian is 1.
    assert found.item() == pytest.approx(exact, abs=4.0 / math.sqrt(4000.0))


@pytest.mark.parametrize("d", [1, 4])
def test_never_above_on_average(d):
    """The mean over 2000 batches lies between H(z|x) and H(z), and grows with the batch."""
    sigma, batches = 0.3, 2000
    conditional = 0.5 * d * math.log(2.0 * math.pi * math.e * sigma**2)
    exact = 0.5 * d * math.log(2.0 * math.pi * math.e * (1.0 + sigma**2))
    found = []
    for rows in (2, 8, 32):
        mean = torch.randn(batches, rows, d)
        z = mean + sigma * torch.randn_like(mean)
        logvar = torch.full_like(mean, 2.0 * math.log(sigma))
        values = torch.stack(
            [mixture_entropy(*each) for each in zip(z, mean, logvar, strict=True)]
        )
        margin = 4.0 * values.std().item() / math.sqrt(batches)
        found.append(values.mean().item())
        assert conditional - margin < found[-1] < exact + margin
        assert found[-1] < conditional + math.log(rows) + margin
    assert found == sorted(found) and found[-1] > found[0] + 0.5


def test_joint_is_never_above_on_average():
    """A class and a mean that depend on each other, against a sample of 200,000 rows."""
    centres = torch.tensor([[-2.0], [0.0], [2.0]])

    def batch(rows):
        mean = centres[torch.randint(3, (rows,))] + 0.3 * torch.randn(rows, 1)
        logits = -0.5 * (mean - centres.T).square() / 0.3**2  # (rows, 3)
        return mean + 0.5 * torch.randn(rows, 1), mean, logits.softmax(1)

    # q(z, c) = E_x N(z; mu, 0.25) pi_c, on a grid of z.
    grid = torch.linspace(-6.0, 6.0, 2001)
    _, mean, pi = batch(20_000)
    kernel = torch.stack([
        (Normal(mean[:, 0], 0.5).log_prob(point).exp()[:, None] * pi).mean(0) for point in grid
    ])  # fmt: skip
    exact = torch.special.entr(kernel).sum().item() * 12.0 / 2000.0
    means = []
    for rows in (4, 64):
        values = []
        for _ in range(600):
            z, mean, pi = batch(rows)
            values.append(mixture_entropy(z, mean, torch.full_like(z, math.log(0.25)), pi))
        values = torch.stack(values)
        means.append(values.mean().item())
        assert means[-1] < exact + 4.0 * values.std().item() / math.sqrt(600.0) + 0.02
    assert means[0] < means[1] and means[1] > exact - 0.1


def test_saturates_at_the_logarithm_of_the_rows():
    """Row by row: the own component alone has weight 1 / B."""
    z, mean, logvar = posteriors(16, 20, spread=1e-3)
    own = -Independent(Normal(mean, (0.5 * logvar).exp()), 1).log_prob(z).mean()
    assert mixture_entropy(z, mean, logvar).item() == pytest.approx(own.item() + math.log(16.0))


# ---- gradients


def test_gradients():
    z, mean, logvar = (t.requires_grad_() for t in posteriors(4, 2))
    logits = draw(4, 3).requires_grad_()
    inputs = (z, mean, logvar, logits)
    assert torch.autograd.gradcheck(
        lambda z, m, v, t: mixture_entropy(z, m, v, t.softmax(1)), inputs
    )
    assert torch.autograd.gradcheck(mixture_entropy, inputs[:3])
    assert torch.autograd.gradcheck(lambda t: categorical_entropy(t.softmax(1)), (logits,))
    pair = (logits, draw(4, 2, 3).requires_grad_())
    assert torch.autograd.gradcheck(
        lambda a, b: joint_probabilities([a.softmax(1), b.softmax(2)]), pair
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [5, 200])
def test_impossible_classes_have_finite_gradients(rows, dtype):
    """Also beyond the size at which the plain form gives way to the kernel."""
    logits = torch.tensor([[0.0, -1e4, -200.0]], dtype=dtype).repeat(rows, 1).requires_grad_()
    z, mean, logvar = (t.to(dtype).requires_grad_() for t in posteriors(rows, 2))
    value = mixture_entropy(z, mean, logvar, logits.softmax(1))
    value.backward()
    assert value.isfinite() and value.dtype == dtype
    torch.testing.assert_close(value, mixture_entropy(z, mean, logvar))
    for leaf in (logits, z, mean, logvar):
        assert leaf.grad.isfinite().all()


def test_kernel_and_plain_form_agree():
    z, mean, logvar = (t.float().requires_grad_() for t in posteriors(120, 3))
    logits = torch.randn(120, 2, requires_grad=True)
    gradients = []
    for backend in ("reference", "cpu"):
        value = mixture_entropy(z, mean, logvar, logits.softmax(1), backend=backend)
        gradients.append((value, *torch.autograd.grad(value, (z, mean, logvar, logits))))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


# ---- joint states and priors


def test_joint_probabilities():
    a, b = draw(5, 2).softmax(1), draw(5, 2, 3).softmax(2)
    joint = joint_probabilities([a, b])
    assert joint.shape == (5, 2 * 3 * 3)
    for k, (i, j, m) in enumerate(itertools.product(range(2), range(3), range(3))):
        torch.testing.assert_close(joint[:, k], a[:, i] * b[:, 0, j] * b[:, 1, m])
    assert joint_probabilities([a]) is a
    with pytest.raises(ValueError, match=r"at most 10 joint states.*got 2 x 3 x 3"):
        joint_probabilities([a, b], 10)


def test_entropy_per_row():
    value, half = torch.zeros(4, 3), math.log(2.0)
    gaussian = 0.5 * math.log(2.0 * math.pi * math.e)
    cases = [
        (Uniform(-1.0, 1.0), 3 * half),
        (Uniform(-torch.ones(3), 1.0), 3 * half),
        (Normal(torch.zeros(4, 3), 1.0), 3 * gaussian),
        (Independent(Normal(torch.zeros(4, 3), 1.0), 1), 3 * gaussian),
        (MultivariateNormal(torch.zeros(3), torch.eye(3)), 3 * gaussian),
        (OneHotCategorical(torch.ones(3)), math.log(3.0)),
        (Categorical(torch.ones(4, 3)), math.log(3.0)),
    ]
    for p, exact in cases:
        torch.testing.assert_close(entropy_per_row(p, value), torch.full((4,), exact))
    several = entropy_per_row(OneHotCategorical(torch.ones(3)), torch.zeros(4, 2, 3))
    torch.testing.assert_close(several, torch.full((4,), 2 * math.log(3.0)))
    scales = torch.tensor([1.0, 2.0, 4.0])
    part = entropy_per_row(Uniform(torch.zeros(3), scales), value, slice(1, None))
    torch.testing.assert_close(part, torch.full((4,), 3 * half))
    for p in (
        Normal(torch.zeros(2), 1.0),
        Normal(torch.zeros(4), 1.0),
        Uniform(torch.zeros(2, 4, 3), 1.0),
    ):
        with pytest.raises(ValueError, match=r"broadcasts to \(4, 3\)"):
            entropy_per_row(p, value)
    with pytest.raises(NotImplementedError, match="part of MultivariateNormal"):
        entropy_per_row(MultivariateNormal(torch.zeros(3), torch.eye(3)), value, [0])
    mixture = MixtureSameFamily(
        Categorical(torch.ones(2)), Independent(Normal(torch.zeros(2, 3), 1.0), 1)
    )
    with pytest.raises(NotImplementedError):
        entropy_per_row(mixture, value)


def test_refused():
    z, mean, logvar = posteriors(4, 2)
    with pytest.raises(ValueError, match=r"sample of each posterior, z of shape \(4, 2\)"):
        mixture_entropy(z[:3], mean, logvar)
    for wrong in (torch.ones(3, 2), torch.ones(4)):
        with pytest.raises(ValueError, match=r"probabilities of shape \(4, K\)"):
            mixture_entropy(z, mean, logvar, wrong)

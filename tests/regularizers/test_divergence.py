"""KL, free bits and capacity on codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

import vaereg


def code(rows=7, width=4):
    mean = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    return vaereg.gaussian((mean, logvar)), mean, logvar


def loop(mean, logvar):
    """KL of every row and dimension from a standard normal, by a Python loop."""
    return [
        [0.5 * (m * m + math.exp(v) - v - 1.0) for m, v in zip(*row, strict=True)]
        for row in zip(mean.tolist(), logvar.tolist(), strict=True)
    ]


def test_kl_against_a_loop():
    z, mean, logvar = code()
    table = loop(mean, logvar)
    term = vaereg.KL("z")
    assert term({"z": z}).item() == pytest.approx(sum(map(sum, table)) / 7, rel=1e-10)
    assert term.per_sample({"z": z}).tolist() == pytest.approx([sum(r) for r in table])
    columns = [sum(column) / 7 for column in zip(*table, strict=True)]
    assert term.per_dimension({"z": z}).tolist() == pytest.approx(columns)
    assert term.diagnostics({"z": z})["active"].item() == sum(c > 0.01 for c in columns)


def test_parts_and_joints_add():
    z, _, _ = code()
    c = vaereg.categorical(torch.randn(7, 3, dtype=torch.float64), 1.0)
    batch = {"z": z, "c": c}
    whole = vaereg.KL("z")(batch)
    torch.testing.assert_close(vaereg.KL("z[:1]")(batch) + vaereg.KL("z[1:]")(batch), whole)
    both = vaereg.KL(("z", "c"))
    torch.testing.assert_close(both(batch), whole + vaereg.KL("c")(batch))
    assert both.per_dimension(batch).shape == (5,)  # four coordinates, one categorical variable


def test_images_sum_over_the_event():
    mean = torch.randn(3, 2, 4, 4)
    z = vaereg.gaussian((mean, torch.zeros_like(mean)))
    expected = 0.5 * mean.square().flatten(1).sum(1).mean()
    torch.testing.assert_close(vaereg.KL("z")({"z": z}), expected)


def test_full_covariance_and_mixture_prior():
    loc, tril = torch.randn(5, 2), torch.tensor([[1.0, 0.0], [0.5, 0.8]])
    q = MultivariateNormal(loc, scale_tril=tril)
    p = MultivariateNormal(torch.zeros(2), torch.eye(2))
    z = vaereg.gaussian(q, prior=p)
    expected = torch.distributions.kl_divergence(q, p).mean()
    torch.testing.assert_close(vaereg.KL("z")({"z": z}), expected)
    with pytest.raises(TypeError, match="factorised posterior and prior of one known family"):
        vaereg.KL("z").per_dimension({"z": z})

    parts = Independent(Normal(torch.randn(3, 2), torch.ones(3, 2)), 1)
    prior = MixtureSameFamily(Categorical(torch.ones(3)), parts)
    z = vaereg.gaussian(torch.randn(5, 4), prior=prior)
    sampled = (z.q.log_prob(z.value) - prior.log_prob(z.value)).mean()
    torch.testing.assert_close(vaereg.KL("z")({"z": z}), sampled)
    # The sampled form needs the distributions, and a constraint's critic step keeps them.
    vaereg.Constraint(vaereg.KL("z"), at_most=1.0).critic_loss({"z": z})


def test_deterministic_code():
    with pytest.raises(TypeError, match="'z' with a posterior q, got None"):
        vaereg.KL("z")({"z": vaereg.deterministic(torch.zeros(3, 2))})


# ---- free bits


def test_free_bits_against_a_loop():
    z, mean, logvar = code()
    table = loop(mean, logvar)
    columns = [sum(column) / 7 for column in zip(*table, strict=True)]
    rows = [sum(row) for row in table]
    for nats in (0.0, 0.6, 2.5, 50.0):
        expected = {
            "dimension": sum(max(nats, c) for c in columns),
            "sample": sum(max(nats, r) for r in rows) / 7,
            "total": max(nats, sum(rows) / 7),
        }
        for per, value in expected.items():
            found = vaereg.FreeBits("z", nats, per=per)({"z": z})
            assert found.item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("per", ["dimension", "sample", "total"])
def test_free_bits_press_only_above_the_floor(per):
    """Below the floor the gradient is exactly zero, above it that of the KL."""
    mean = torch.tensor([[0.1, 3.0], [0.1, 3.0]], requires_grad=True)
    z = vaereg.gaussian((mean, torch.zeros(2, 2)))
    vaereg.FreeBits("z", 0.5, per=per)({"z": z}).backward()
    free = mean.grad.clone()
    mean.grad = None
    vaereg.KL("z")({"z": z}).backward()
    if per == "dimension":
        assert not free[:, 0].any() and torch.equal(free[:, 1], mean.grad[:, 1])
    else:
        assert torch.equal(free, mean.grad)
    mean.grad = None
    vaereg.FreeBits("z", 100.0, per=per)({"z": z}).backward()
    assert not mean.grad.any()


def test_free_bits_refuse():
    with pytest.raises(ValueError, match="nats >= 0, got -1"):
        vaereg.FreeBits("z", -1.0)
    with pytest.raises(ValueError, match="got 'row'"):
        vaereg.FreeBits("z", 1.0, per="row")


# ---- capacity


def test_capacity_against_a_loop():
    z, mean, logvar = code()
    rows = [sum(row) for row in loop(mean, logvar)]
    schedule = vaereg.schedules.linear(0.0, 10.0, steps=10)
    for step in (0, 3, 10, 20):
        capacity = min(step, 10)
        whole = vaereg.Capacity("z", schedule)({"z": z}, step=step).item()
        each = vaereg.Capacity("z", schedule, per="sample")({"z": z}, step=torch.tensor(step))
        assert whole == pytest.approx(abs(sum(rows) / 7 - capacity), rel=1e-9)
        assert each.item() == pytest.approx(sum(abs(r - capacity) for r in rows) / 7, rel=1e-6)
    with pytest.raises(ValueError, match="got 'row'"):
        vaereg.Capacity("z", 1.0, per="row")


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_capacity_pulls_the_kl_to_the_capacity(per):
    """Gradient descent ends at KL = C from below and from above."""
    for start in (0.1, 4.0):
        mean = torch.full((4, 1), start, requires_grad=True)
        term = vaereg.Capacity("z", 1.5, per=per)
        optimizer = torch.optim.SGD([mean], 0.02)
        for _ in range(1500):
            optimizer.zero_grad()
            z = vaereg.gaussian((mean, torch.zeros(4, 1)), value=mean.detach())
            term({"z": z}).backward()
            optimizer.step()
        # KL = mean^2 / 2; the last steps oscillate by one step of size 0.02 * |mean| / 4 at most.
        assert vaereg.KL("z")({"z": z}).item() == pytest.approx(1.5, abs=0.1)

"""The learned multiplier: its direction, its Lagrangian, and a problem that ends at the bound."""

from __future__ import annotations

import math

import pytest
import torch

import vaereg
from vaereg import critics


def moment(batch):
    return batch["x"].square().mean()


def test_value_is_the_lagrangian():
    term = vaereg.Constraint(moment, at_most=0.25, initial=3.0)
    x = torch.full((4, 2), 2.0, requires_grad=True)
    value = term({"x": x})
    assert value.item() == pytest.approx(3.0 * (4.0 - 0.25), rel=1e-6)
    value.backward()
    # The multiplier is held fixed: 3 * d mean(x^2).
    torch.testing.assert_close(x.grad, 3.0 * 2.0 * x.detach() / 8.0)
    assert term.critic.raw.grad is None
    assert term.critic_loss({"x": x}).item() == pytest.approx(-3.0 * 3.75, rel=1e-6)


@pytest.mark.parametrize("initial", [1e-3, 0.5, 1.0, 30.0])
def test_initial_multiplier(initial):
    term = vaereg.Constraint(moment, at_most=1.0, initial=initial)
    found = term.diagnostics({"x": torch.ones(2, 1)})
    assert found["multiplier"].item() == pytest.approx(initial, rel=1e-3)
    assert found["value"].item() == 1.0


@pytest.mark.parametrize(("size", "direction"), [(2.0, 1.0), (0.1, -1.0), (1.0, 0.0)])
def test_multiplier_ascends_when_violated_and_falls_when_satisfied(size, direction):
    term = vaereg.Constraint(moment, at_most=1.0)
    objective = vaereg.Objective(bound=(-2.0, term))  # the outer sign does not matter
    optimizer = objective.critic_optimizer(torch.optim.SGD, lr=0.1)
    before = term.critic().item()
    for _ in range(5):
        objective.critic_step({"x": torch.full((4, 1), size)}, optimizer)
    change = term.critic().item() - before
    assert math.copysign(1.0, change) == direction if direction else change == 0.0
    assert term.critic().item() > 0.0


def test_converges_to_the_bound():
    """Minimise (x - 2)^2 subject to x^2 <= 1: x = 1 with multiplier 1.

    Stationarity: 2 (x - 2) + 2 lambda x = 0 at x = 1 gives lambda = 1.
    """
    x = torch.tensor([[0.2]], requires_grad=True)
    term = vaereg.Constraint(moment, at_most=1.0, initial=0.1)
    objective = vaereg.Objective(bound=term)
    main = torch.optim.SGD([x], 0.05)
    ascent = objective.critic_optimizer(torch.optim.SGD, lr=0.05)
    for _ in range(2000):
        objective.critic_step({"x": x}, ascent)
        main.zero_grad()
        ((x - 2.0).square().mean() + objective({"x": x}).total).backward()
        main.step()
    assert x.item() == pytest.approx(1.0, abs=1e-2)
    assert term.critic().item() == pytest.approx(1.0, abs=2e-2)


def test_inactive_constraint_loses_its_multiplier():
    """Minimise (x - 2)^2 subject to x^2 <= 9: the bound does not bind."""
    x = torch.tensor([[0.2]], requires_grad=True)
    term = vaereg.Constraint(moment, at_most=9.0)
    objective = vaereg.Objective(bound=term)
    main = torch.optim.SGD([x], 0.05)
    ascent = objective.critic_optimizer(torch.optim.SGD, lr=0.05)
    for _ in range(1000):
        objective.critic_step({"x": x}, ascent)
        main.zero_grad()
        ((x - 2.0).square().mean() + objective({"x": x}).total).backward()
        main.step()
    assert x.item() == pytest.approx(2.0, abs=0.02)
    assert term.critic().item() < 0.01


def test_constrained_critic_is_fitted_too():
    mine = vaereg.MINE("z", "y", critic=critics.mlp(2, 1, width=8))
    term = vaereg.Constraint(mine, at_most=0.1)
    assert {id(p) for p in mine.critic.parameters()} < {id(p) for p in term.critic_parameters()}
    batch = {"z": torch.randn(8, 1), "y": torch.randn(8, 1)}
    term.critic_loss(batch).backward()
    assert all(p.grad is not None for p in mine.critic.parameters())
    assert mine.weight.item() > 0.0
    assert "log_partition" in term.diagnostics(batch)


def test_refused():
    with pytest.raises(ValueError, match="initial > 0, got 0"):
        vaereg.Constraint(moment, at_most=1.0, initial=0.0)

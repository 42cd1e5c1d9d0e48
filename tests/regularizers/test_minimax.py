"""The minimax game on a linear Gaussian code, where the true information is known exactly.

x is standard normal in two dimensions, y = x_1 + e with e ~ N(0, 1/4), so that
I(x; y) = log(5) / 2 = 0.80 nats. The code is z = W x + 0.3 eps; its I(z; y) is closed form in W.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics

pytestmark = pytest.mark.usefixtures("one_thread")

SIGMA, NOISE = 0.3, 0.5


def true_information(w):
    """I(z; y) in nats: -log(1 - R^2) / 2 with R^2 of the regression of y on z."""
    w = w.double()
    covariance = w @ w.T + SIGMA**2 * torch.eye(2, dtype=torch.double)
    cross = w[:, 0]
    share = cross @ torch.linalg.solve(covariance, cross) / (1.0 + NOISE**2)
    return float(-0.5 * torch.log1p(-share))


def explained(w, coordinate):
    """R^2 of the best linear reconstruction of one coordinate of x from z."""
    w = w.double()
    covariance = w @ w.T + SIGMA**2 * torch.eye(2, dtype=torch.double)
    cross = w[:, coordinate]
    return float(cross @ torch.linalg.solve(covariance, cross))


def play(critic_steps, encoder_rate, critic_rate, steps):
    """Train from the identity; returns W and the displayed values of the last 100 steps."""
    encoder = nn.Linear(2, 2, bias=False)
    decoder = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[1.0, 0.3], [-0.3, 1.0]]))
        decoder.weight.copy_(torch.linalg.inv(encoder.weight))
    objective = vaereg.Objective(
        kl=(0.02, vaereg.KL("z")),
        leak=(6.0, vaereg.MINE("z", "y", critic=critics.mlp(3, 1, width=32))),
    )
    main = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], encoder_rate)
    ascent = objective.critic_optimizer(torch.optim.Adam, lr=critic_rate)
    shown = []
    for _ in range(steps):
        x = torch.randn(256, 2)
        y = x[:, :1] + NOISE * torch.randn(256, 1)
        mean = encoder(x)
        z = vaereg.gaussian(mean, std=torch.full_like(mean, SIGMA))
        batch = {"z": z, "y": y}
        for _ in range(critic_steps):
            objective.critic_step(batch, ascent)
        report = objective(batch)
        error = (decoder(z.value) - x).square().sum(1).mean()
        main.zero_grad()
        (error + report.total).backward()
        main.step()
        shown.append(report.values["leak"])
    return encoder.weight.detach(), float(torch.stack(shown[-100:]).mean())


def test_true_information_is_that_of_the_definition():
    # Without noise in the code, I(z; y) = I(x; y) for any invertible W.
    w = 1e4 * torch.tensor([[1.0, 0.5], [0.2, -1.0]])
    assert math.isclose(true_information(w), 0.5 * math.log(5.0), abs_tol=1e-6)
    assert true_information(torch.tensor([[0.0, 1.0], [0.0, 2.0]])) == 0.0


def test_five_critic_steps_at_the_encoders_rate_remove_the_leak():
    """The true I(z; y) ends below 0.03 nats; x_2, which y does not share, stays in the code."""
    w, shown = play(critic_steps=5, encoder_rate=3e-3, critic_rate=3e-3, steps=600)
    assert true_information(w) < 0.03
    assert abs(shown) < 0.03
    assert explained(w, 1) > 0.9
    assert explained(w, 0) < 0.1


def test_an_outrun_critic_displays_nothing_while_the_leak_stays():
    """One critic step at a tenth of the encoder's rate: the display says 0, the code says y."""
    w, shown = play(critic_steps=1, encoder_rate=1e-2, critic_rate=1e-3, steps=400)
    assert shown < 0.05
    assert true_information(w) > 0.15

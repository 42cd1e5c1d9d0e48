"""Gumbel-softmax codes at the ends of their range, several at once, and without a transfer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Distribution, OneHotCategorical

import vaereg
from vaereg.functional.families import one_hot_categorical
from vaereg.testing import NoSync


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 10.0])
def test_finite_for_extreme_logits(temperature, hard, dtype):
    """Logits over [-100, 100], one variable and several, value and gradients of all terms."""
    for shape in ((200, 10), (200, 3, 4)):
        leaf = torch.rand(shape).mul(200.0).sub(100.0).to(dtype)
        leaf[0], leaf[1] = 100.0, -100.0
        leaf[2], leaf[2].view(-1)[0] = -100.0, 100.0
        leaf.requires_grad_()
        code = vaereg.categorical(leaf, temperature, hard=hard)
        assert code.value.shape == shape and code.value.dtype == dtype
        assert code.value.isfinite().all() and (code.value >= 0.0).all()
        total = code.value.double().sum(-1)
        torch.testing.assert_close(
            total, torch.ones_like(total), rtol=0.0, atol=0.03 if dtype == torch.bfloat16 else 1e-5
        )
        if hard:
            assert ((code.value == 0.0) | (code.value == 1.0)).all()
        weight = torch.randn(shape).to(dtype)
        kl = vaereg.KL("c")({"c": code})
        assert kl.isfinite() and 0.0 <= kl <= 3 * math.log(10.0)
        ((code.value * weight).sum() + kl).backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("hard", [False, True])
def test_finite_under_autocast(hard):
    features = torch.randn(64, 5)
    encoder, critic = nn.Linear(5, 6), nn.Linear(6, 6)
    with torch.no_grad():
        encoder.weight.mul_(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = encoder(features).clamp(-100.0, 100.0).view(64, 2, 3)
        assert logits.dtype == torch.bfloat16
        code = vaereg.categorical(logits, 0.05, hard=hard)
        batch = {"c": code, "g": code.value.flatten(1)}
        term = vaereg.VariationalMI("c", given="g", critic=critic, entropy="trained")
        value = vaereg.KL("c")(batch) - term(batch) + term.critic_loss(batch)
    assert value.isfinite() and code.q.base_dist.probs.dtype == torch.float32
    value.backward()
    for parameter in (*encoder.parameters(), *critic.parameters()):
        assert parameter.grad.isfinite().all()


def test_several_variables_are_drawn_independently():
    """Joint frequencies of 40,000 rows are the products; standard error below 0.0025."""
    p = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    code = vaereg.categorical(p.log().expand(40_000, 2, 2), 0.05, hard=True)
    joint = torch.einsum("bk,bl->kl", code.value[:, 0], code.value[:, 1]) / 40_000
    torch.testing.assert_close(joint, torch.outer(p[0], p[1]), rtol=0.0, atol=0.01)


def test_hard_and_soft_have_the_same_gradient():
    logits = torch.randn(50, 2, 3)
    gradients = []
    for hard in (False, True):
        torch.manual_seed(5)
        leaf = logits.clone().requires_grad_()
        code = vaereg.categorical(leaf, 0.5, hard=hard)
        (code.value * torch.arange(3.0)).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


def test_no_transfer(monkeypatch):
    """The check of values that torch's own constructor makes would be one, at each step."""
    # torch.compile switches the checks off for the whole process; here they are as at its start.
    monkeypatch.setattr(Distribution, "_validate_args", True)
    logits = torch.randn(6, 2, 3)
    with pytest.raises(AssertionError, match="no device synchronisation"), NoSync():
        OneHotCategorical(logits=logits, validate_args=False)
    with NoSync():
        code = vaereg.categorical(logits, 0.5).detach()
    assert code.q is not None and code.p is not None


def test_one_hot_rows_of_logits():
    logits = torch.randn(6, 2, 3)
    ours, torchs = one_hot_categorical(logits), OneHotCategorical(logits=logits)
    assert type(ours) is OneHotCategorical
    assert ours.batch_shape == torchs.batch_shape and ours.event_shape == torchs.event_shape
    value = torchs.sample()
    for name in ("probs", "logits", "mean", "variance"):
        torch.testing.assert_close(getattr(ours, name), getattr(torchs, name))
    torch.testing.assert_close(ours.log_prob(value), torchs.log_prob(value))
    torch.testing.assert_close(ours.entropy(), torchs.entropy())
    assert ours.expand((4, 6, 2)).sample().shape == (4, 6, 2, 3)


@pytest.mark.parametrize("mass", [1e-6, 1e-8, 1e-10, 1e-20])
def test_small_prior_probabilities_are_not_clamped(mass):
    prior = torch.tensor([mass, 1.0 - mass])
    c = vaereg.categorical(torch.zeros(3, 2), 1.0, prior=prior)
    exact = -math.log(2.0) - 0.5 * math.log(mass) - 0.5 * math.log1p(-mass)
    assert vaereg.KL("c")({"c": c}).item() == pytest.approx(exact, rel=1e-6)


def test_a_class_that_the_prior_excludes_has_an_infinite_kl_unless_the_posterior_does_too():
    prior = torch.tensor([0.0, 1.0])
    c = vaereg.categorical(torch.zeros(3, 2), 1.0, prior=prior)
    assert vaereg.KL("c")({"c": c}).item() == math.inf
    c = vaereg.categorical(torch.tensor([[-math.inf, 0.0]] * 3), 1.0, prior=prior)
    assert vaereg.KL("c")({"c": c}).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("temperature", "error", "message"),
    [
        (math.nan, ValueError, "expected temperature > 0, got nan"),
        (math.inf, ValueError, "expected temperature > 0, got inf"),
        (vaereg.schedules.constant(1.0), TypeError, "call a schedule with the step"),
        (None, TypeError, "expected temperature to be a number or a scalar tensor"),
    ],
)
def test_temperatures_that_are_none(temperature, error, message):
    with pytest.raises(error, match=message):
        vaereg.categorical(torch.zeros(3, 2), temperature)


def test_logits_that_are_none():
    with pytest.raises(TypeError, match="expected logits to be a tensor, got list"):
        vaereg.categorical([[0.0, 1.0]], 1.0)
    with pytest.raises(ValueError, match=r"shape \(B, K\) or \(B, G, K\)"):
        vaereg.categorical(torch.zeros(2, 2, 3, 4), 1.0)
    with pytest.raises(TypeError, match="expected prior probabilities as a floating-point tensor"):
        vaereg.categorical(torch.zeros(2, 2), 1.0, prior=torch.tensor([1, 0]))

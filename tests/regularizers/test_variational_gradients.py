"""What VariationalMI trains: the code, its entropy, the critic, and when nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Normal,
    Uniform,
)
from variational_codes import Formula, codes, gaussian_parts, linear

import vaereg
from vaereg import critics
from vaereg.functional import categorical_entropy, mixture_entropy

pytestmark = pytest.mark.usefixtures("one_thread")


def test_gradient_by_finite_differences():
    """Of everything that the value is made of, the entropy trained."""
    batch, (z, c, x) = codes(4)
    noise = torch.randn(4, 3).double()
    critic = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6 + 4 + 2)).double()
    term = vaereg.VariationalMI(
        ("z", "c", "y"), given="x", critic=critic, entropy="trained", logvar_range=(-0.5, 0.5)
    )

    def value(z, c, x):
        mean, logvar = z.chunk(2, 1)
        sample = mean + (0.5 * logvar).exp() * noise
        code = vaereg.categorical(c, 0.7, value=(c / 0.7).softmax(1))
        return term({
            **batch, "z": vaereg.gaussian((mean, logvar), value=sample), "c": code, "x": x
        })  # fmt: skip

    assert torch.autograd.gradcheck(value, (z, c, x))


@pytest.mark.parametrize("code", ["z", ("z", "c"), "c"])
def test_only_the_trained_entropy_has_a_gradient(code):
    batch, leaves = codes(6)
    numbers = {"z": 6, "c": 4}
    width = sum(numbers[name] for name in ([code] if isinstance(code, str) else code))
    critic = nn.Linear(5, width).double()
    gradients = {}
    for kind in ("detached", "trained", "none"):
        term = vaereg.VariationalMI(code, given="x", critic=critic, entropy=kind)
        value = term(batch)
        found = torch.autograd.grad(value, leaves[:2], allow_unused=True, retain_graph=True)
        gradients[kind] = [torch.zeros(1) if g is None else g for g in found]
    for one, two in zip(gradients["detached"], gradients["none"], strict=True):
        torch.testing.assert_close(one, two)
    pi = batch["c"].q.base_dist.probs if hasattr(batch["c"].q, "base_dist") else batch["c"].q.probs
    known = {
        "z": lambda: mixture_entropy(*gaussian_parts(batch["z"])),
        "c": lambda: categorical_entropy(pi),
        ("z", "c"): lambda: mixture_entropy(*gaussian_parts(batch["z"]), pi),
    }[code]()
    expected = torch.autograd.grad(known, leaves[:2], allow_unused=True)
    for with_it, without, own in zip(
        gradients["trained"], gradients["none"], expected, strict=True
    ):
        torch.testing.assert_close(with_it - without, torch.zeros(1) if own is None else own)


def test_by_default_the_entropy_is_in_the_gradient():
    """At the collapsed code of one class for all the reward still pulls towards more classes."""
    logits = torch.tensor([[2.0, 0.0]] * 16, requires_grad=True)
    critic = Formula(lambda x: torch.tensor([[2.0, 0.0]] * 16))
    batch = {
        "c": vaereg.categorical(logits, 1.0, value=logits.softmax(1)),
        "x": torch.zeros(16, 1),
    }
    grads = {}
    for entropy in ("trained", "detached"):
        term = vaereg.VariationalMI("c", "x", critic=critic, entropy=entropy)
        (grads[entropy],) = torch.autograd.grad(term(batch), logits, retain_graph=True)
    pi = logits[0].softmax(0).detach()
    own = pi * (-pi.log() - (pi * -pi.log()).sum()) / 16  # the gradient of the entropy
    assert torch.allclose(grads["trained"] - grads["detached"], own.expand(16, 2), atol=1e-7)
    default = vaereg.VariationalMI("c", "x", critic=critic)
    assert default.entropy == "trained"


@pytest.mark.parametrize("code", ["z[:2]", ("z", "c"), "u"])
def test_cooperative_training_is_alternating_training(code):
    """One backward through a shared critic gives the model the gradient that a frozen one gives,
    and the critic its own loss's gradient times the strength of the reward.
    """
    strength = 0.3
    width = {"z[:2]": 4, ("z", "c"): 6 + 4, "u": 4}[code]
    encoder, decoder = nn.Linear(5, 6 + 4).double(), nn.Linear(3 + 4 + 2, 5).double()
    critic = critics.GaussianHead(critics.mlp(5, width, width=8), width // 2).double()
    x, u = torch.randn(8, 5).double(), torch.rand(8, 2).double()
    gradients = []
    for shared in (True, False):
        term = vaereg.VariationalMI(code, given="x_hat", critic=critic, shared=shared)
        objective = vaereg.Objective(read=(-strength, term))
        torch.manual_seed(3)
        z, c = encoder(x).split([6, 4], 1)
        batch = {"z": vaereg.gaussian(z), "c": vaereg.categorical(c, 0.5)}
        batch["u"] = vaereg.Code(u, None, Uniform(torch.zeros(2).double(), 1.0))
        made = torch.cat([batch[name].value for name in ("z", "c", "u")], 1)
        batch["x_hat"] = decoder(made).tanh()
        modules = nn.ModuleList([encoder, decoder, critic])
        modules.zero_grad()
        nll = (batch["x_hat"] - x).square().sum(1).mean()
        (nll + objective(batch).total).backward()
        assert shared or all(p.grad is None for p in critic.parameters())
        if not shared:
            objective.critic_loss(batch).total.backward()
        gradients.append([
            strength * p.grad if not shared and part is critic else p.grad.clone()
            for part in modules for p in part.parameters()
        ])  # fmt: skip
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
        assert one.any()


def test_a_model_far_outside_comes_back():
    """The log-variance is clamped softly: finite, with a gradient that is not zero."""
    v = vaereg.Code(torch.randn(6, 1), None, Normal(torch.zeros(1), 1.0))
    for far in (-1e3, 1e3):
        critic = linear(torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, far]))
        term = vaereg.VariationalMI("v", given="g", critic=critic)
        loss = term.critic_loss({"v": v, "g": v.value + 0.1})
        loss.backward()
        assert loss.isfinite() and critic.bias.grad[1] != 0.0
        assert critic.bias.grad[1].sign() == math.copysign(1.0, far)


def test_a_shared_network_keeps_its_buffers_where_it_is_only_read():
    """At weight 0 a term is reported and contributes nothing, also not to running averages."""
    head = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    term = vaereg.VariationalMI("y", "x", critic=head, shared=True)
    batch = {"y": vaereg.labels(torch.arange(8) % 2, 2), "x": torch.randn(8, 3)}
    before = {name: b.clone() for name, b in head.named_buffers()}
    vaereg.Objective(mi=(0.0, term))(batch)
    assert all(torch.equal(b, before[name]) for name, b in head.named_buffers())
    vaereg.Objective(mi=(-1.0, term))(batch)
    assert not torch.equal(head[1].running_mean, before["1.running_mean"])

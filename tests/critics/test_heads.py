"""Gaussian heads: what they return, what they refuse, and that terms take them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg.critics import GaussianHead, frozen, input_width, mlp, read_input


def test_mean_and_log_variance():
    x = torch.randn(6, 5)
    for variance, width in (("learned", 6), ("global", 3), (0.25, 3)):
        network = mlp(5, width, width=8)
        head = GaussianHead(network, 3, variance=variance)
        found = head(x)
        assert found.shape == (6, 6)
        torch.testing.assert_close(found[:, :3], network(x)[:, :3])
        if variance == "learned":
            assert torch.equal(found, network(x))
        else:
            expected = 0.0 if variance == "global" else math.log(0.25)
            torch.testing.assert_close(found[:, 3:], torch.full((6, 3), expected))
    code = vaereg.gaussian(found)
    torch.testing.assert_close(code.q.variance, torch.full((6, 3), 0.25))


def test_parameters_and_state():
    head = GaussianHead(mlp(5, 3, width=8), 3, variance="global")
    assert "logvar" in dict(head.named_parameters())
    head(torch.randn(6, 5))[:, 3:].sum().backward()
    assert torch.equal(head.logvar.grad, torch.full((3,), 6.0))
    copy = GaussianHead(mlp(5, 3, width=8), 3, variance="global")
    with torch.no_grad():
        head.logvar.fill_(0.7)
    copy.load_state_dict(head.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(copy(x), head(x))
    assert len(list(GaussianHead(mlp(5, 3), 3, variance=1.0).parameters())) == 6
    assert "variance='global'" in repr(head)


def test_input_is_the_networks():
    assert input_width(GaussianHead(mlp(12, 3), 3, variance="global")) == 12
    image = torch.zeros(2, 3, 2, 2)
    assert read_input(GaussianHead(mlp(12, 6), 3), image).shape == (2, 12)
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten())
    head = GaussianHead(network, 4, variance="global")
    assert read_input(head, image) is image and head(image).shape == (2, 8)


def test_frozen_and_dtypes():
    head = GaussianHead(mlp(5, 3, width=8, spectral_norm=True), 3, variance="global")
    x = torch.randn(4, 5, requires_grad=True)
    frozen(head)(x).sum().backward()
    assert x.grad.any() and all(p.grad is None for p in head.parameters())
    for variance in ("global", 0.5):
        head = GaussianHead(mlp(5, 3), 3, variance=variance)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert head(x).isfinite().all()
        assert head.double()(x.double()).dtype == torch.float64


def test_terms_take_it():
    a, b = torch.randn(200, 2), torch.randn(200, 3)
    head = GaussianHead(mlp(2, 3, width=8), 3, variance="global")
    batch = {"a": a, "b": vaereg.gaussian((b, torch.zeros(200, 3)))}
    for term in (
        vaereg.CLUB("a", "b", critic=head),
        vaereg.VariationalMI("b", given="a", critic=head),
    ):
        assert term(batch).isfinite()
        head.zero_grad()
        term.critic_loss(batch).backward()
        assert head.logvar.grad.all()


def test_refused():
    with pytest.raises(ValueError, match="dim >= 1, got 0"):
        GaussianHead(mlp(5, 3), 0)
    for variance in ("fixed", 0.0, -1.0, 1e-5, 1e5, float("nan")):
        with pytest.raises(ValueError, match="variance to be learned, global or a number in"):
            GaussianHead(mlp(5, 3), 3, variance=variance)
    for variance, width in (("learned", 6), ("global", 3)):
        with pytest.raises(ValueError, match=rf"expected {width} numbers.*got shape \(2, 4\)"):
            GaussianHead(mlp(5, 4), 3, variance=variance)(torch.zeros(2, 5))

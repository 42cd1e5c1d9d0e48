"""Models of functions, and the pages made of them without what takes long."""

from __future__ import annotations

import torch
from torch import nn

import vaereg
from vaereg.metrics import MIBracket, report

QUICK = {"bracket": False, "audit": False}
TINY = 1e-9  # a deviation that moves nothing in float32
FINE = MIBracket(0.9, 0.02, 1.3, 0.01, 0.95, 0.02, 0.9, 0.01, 2.3, None, 500, "c")


class Model:
    """A model of functions: x to codes, and values by name to what is decoded."""

    def __init__(self, encode, decode=None):
        self.encode = encode
        if decode is not None:
            self.decode = decode


def certain(mean):
    """A code whose draws are its mean."""
    return vaereg.gaussian(mean, std=torch.full_like(mean, TINY))


def spread_out(x):
    """A code of which nothing is to be said: a third of each coordinate's variance is noise."""
    return vaereg.gaussian(0.8 * x, std=torch.full_like(x, 0.6))


def normal(n=200, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def page_of(model, x, **options):
    return report(model, x, **{"traversals": 0, **QUICK, **options})


def heads(page):
    return [notice.head for notice in page.notices]


class Weights(nn.Module):
    """A linear encoder of a certain code, its weights drawn once."""

    def __init__(self, features, d):
        super().__init__()
        self.net = nn.Linear(features, d)

    def forward(self, x):
        return certain(self.net(x))


def fixed_vae(likelihood, features=5, d=2):
    torch.manual_seed(3)
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    return vaereg.VAE(
        Weights(features, d), nn.Linear(d, features), objective, likelihood=likelihood
    )


class Copy(nn.Module):
    def forward(self, x):
        return vaereg.gaussian(x, std=0.3 + 0 * x)


def leaky(critic=None):
    torch.manual_seed(0)
    critic = critic or vaereg.critics.mlp(2 + 2, 1, width=8)
    objective = vaereg.Objective(kl=vaereg.KL("z"), leak=vaereg.MINE("z", "y", critic=critic))
    return vaereg.VAE(Copy(), nn.Linear(2, 2), objective, likelihood="gaussian")

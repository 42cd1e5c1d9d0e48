"""The contract for VariationalMI of every kind of code."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Independent, Laplace, Normal, Uniform

import vaereg
from vaereg import critics
from vaereg.testing import RegularizerContract

SEVERAL = (2, 3)  # two categorical variables of three classes


def leaf(generator, dtype, *shape):
    return torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_()


class Kind(RegularizerContract):
    """A Gaussian code, and an image made of it; subclasses read other codes of the same batch."""

    reads_other = compiles = False
    code = "z"
    width = 2 * 3
    options = {}  # noqa: RUF012

    def critic(self):
        return critics.mlp(5, self.width, width=8, spectral_norm=True)

    def make(self):
        return vaereg.VariationalMI(self.code, given="x", critic=self.critic(), **self.options)

    def batch(self, rows, *, dtype, generator):
        z, c, s, x = (
            leaf(generator, dtype, rows, *shape) for shape in ((6,), (3,), SEVERAL, (5,))
        )
        y = torch.where(torch.arange(rows) % 3 == 0, -1, torch.arange(rows) % 2)
        u = torch.rand(rows, 2, dtype=dtype, generator=generator) * 2.0 - 1.0
        batch = {
            "z": vaereg.gaussian(z),
            "c": vaereg.categorical(c, 0.5),
            "s": vaereg.categorical(s, 0.5, hard=True),
            "y": vaereg.labels(y, 2).to(dtype),
            "u": vaereg.Code(u, None, Uniform(-torch.ones(2, dtype=dtype), 1.0)),
            "x": x,
        }
        return batch, [z, c, s, x]


class TestGaussian(Kind):
    compiles = True

    def image_case(self, rows, *, dtype, generator):
        z, x = (leaf(generator, dtype, rows, n, 2, 3) for n in (4, 2))
        critic = nn.Conv2d(2, 4, 3, padding=1)
        term = vaereg.VariationalMI("z", given="x", critic=critic, **self.options)
        return term, {"z": vaereg.gaussian(z), "x": x}, [z, x]


class TestGaussianTrainedEntropy(TestGaussian):
    compiles = False
    options = {"entropy": "trained"}  # noqa: RUF012


class TestGaussianWithoutEntropy(TestGaussian):
    compiles = False
    options = {"entropy": "none"}  # noqa: RUF012


class TestGlobalVariance(Kind):
    compiles = True

    def critic(self):
        network = critics.mlp(5, 3, width=8, spectral_norm=True)
        return critics.GaussianHead(network, 3, variance="global")


class TestFixedVariance(Kind):
    def critic(self):
        return critics.GaussianHead(critics.mlp(5, 3, width=8), 3, variance=0.5)


class TestPart(Kind):
    code = "z[1:]"
    width = 2 * 2


class TestSeveralCategoricals(Kind):
    code = "s"
    width = 6


class TestSeveralCategoricalsTrainedEntropy(TestSeveralCategoricals):
    compiles = True
    options = {"entropy": "trained"}  # noqa: RUF012


class TestJoint(Kind):
    code = ("z", "c")
    width = 2 * 3 + 3


class TestJointTrainedEntropy(TestJoint):
    compiles = True
    options = {"entropy": "trained"}  # noqa: RUF012


class TestJointOfEverything(Kind):
    """Also with a label that is missing in the first row of three."""

    code = ("z", "s[1]", "c", "y", "u")
    width = 2 * 3 + 3 + 3 + 2 + 2 * 2
    options = {"entropy": "trained"}  # noqa: RUF012


class TestPriorDraw(Kind):
    compiles = True
    code = "u"
    width = 2 * 2


class Laplacian(nn.Module):
    """A distribution of the first part, logits of the second."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(5, 8)
        self.mean, self.logits = nn.Linear(8, 3), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        h = self.trunk(x).tanh()
        mean = self.mean(h).to(self.scale.dtype)
        q = Laplace(mean, self.scale.exp().expand_as(mean), validate_args=False)
        return Independent(q, 1, validate_args=False), self.logits(h)


class TestDistributions(Kind):
    compiles = True
    code = ("z", "c")
    checks_width = False  # of a network of unknown input width

    def critic(self):
        return Laplacian()


class GaussianModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(5, 3)

    def forward(self, x):
        mean = self.network(x)
        mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        return Normal(mean, torch.ones_like(mean), validate_args=False)


class TestDistribution(Kind):
    checks_width = False

    def critic(self):
        return GaussianModel()

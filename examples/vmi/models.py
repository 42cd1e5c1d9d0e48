r"""Networks and objectives: the joint VAE of Gaussian z and categorical c, and the Gaussian VAE.

The term that this example is about is the Barber-Agakov bound of a code's mutual information with
something made of the picture, I(v; g) >= H(v) + E log Q(v | g). For the categorical code two g are
used, and Q is the encoder's own head of c for both: a random view of the picture, and a picture
drawn from the prior. For the part (z_1, z_2) of the Gaussian code g is the reconstruction and Q a
network of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import vaereg

from .settings import Settings

WIDTH = 256


def _conv(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def reader(side: int, outputs: int) -> nn.Sequential:
    """The head of c, which is Q too: two convolutions and a hidden layer to ``outputs`` logits."""
    if side < 16:
        convolutions, features = [*_conv(1, 32, 3, 1), *_conv(32, 64, 3, 2)], 64
        width = math.ceil(side / 2)
    else:
        convolutions, features = [*_conv(1, 16, 5, 2), *_conv(16, 32, 5, 2)], 32
        width = math.ceil(math.ceil(side / 2) / 2)
    hidden = [nn.Linear(features * width**2, 128), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), *hidden, nn.Linear(128, outputs))


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, outputs),
    )  # fmt: skip


def _temperature(settings: Settings, steps: int) -> vaereg.schedules.Schedule:
    fall = math.log(settings.temperature / settings.temperature_end)
    if fall <= 0:
        return vaereg.schedules.constant(settings.temperature)
    return vaereg.schedules.exponential(settings.temperature, 0.0, rate=fall / max(steps, 1))


class JointEncoder(nn.Module):
    """q(z | x) and q(c | x), by two networks that share nothing.

    With a common trunk the reconstruction would shape what c reads, and thickness and slant are
    worth more pixels than the class.
    """

    def __init__(self, settings: Settings, side: int, steps: int) -> None:
        super().__init__()
        self.z_net = nn.Sequential(nn.Flatten(), _mlp(side**2, 2 * settings.z))
        self.c_net = reader(side, settings.k)
        self.temperature = _temperature(settings, steps)

    def forward(self, x: Tensor, step: int = 0) -> dict[str, vaereg.Code]:
        """Pictures ``(B, 1, H, H)`` in [0, 1] to the two codes."""
        c = vaereg.categorical(self.c_net(x), self.temperature(step))
        return {"z": vaereg.gaussian(self.z_net(x)), "c": c}


class GaussianEncoder(nn.Module):
    """q(z | x)."""

    def __init__(self, settings: Settings, side: int) -> None:
        super().__init__()
        self.z_net = nn.Sequential(nn.Flatten(), _mlp(side**2, 2 * settings.z))

    def forward(self, x: Tensor) -> vaereg.Code:
        """Pictures ``(B, 1, H, H)`` in [0, 1] to the code."""
        return vaereg.gaussian(self.z_net(x))


class Decoder(nn.Module):
    """The logits of p(x | codes), the codes concatenated."""

    def __init__(self, inputs: int, side: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_mlp(inputs, side**2), nn.Unflatten(1, (1, side, side)))

    def forward(self, codes: Tensor) -> Tensor:
        """Codes ``(B, D)`` to logits ``(B, 1, H, H)``."""
        return self.net(codes)


class Still(nn.Module):
    """A network read without training it: gradients pass to its input only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In a list it is no submodule, so that its parameters stay its owner's.
        self._owner = [network]

    def forward(self, x: Tensor) -> Tensor:
        """What the network says."""
        return vaereg.frozen(self._owner[0])(x)


def imbalance(batch: vaereg.Batch) -> Tensor:
    """KL(q(c) || p(c)) of the batch mean of q(c | x) against the uniform prior, in nats."""
    c = batch["c"]
    assert isinstance(c, vaereg.Code) and c.q is not None
    share = c.q.mean.mean(0)
    return (share * share.clamp(min=1e-30).log()).sum() + math.log(len(share))


def build_joint(settings: Settings, side: int, steps: int) -> vaereg.VAE:
    """The joint VAE, to be called with ``view``, ``drawn`` and ``drawn_c``."""
    encoder = JointEncoder(settings, side, steps)
    seen = vaereg.VariationalMI(
        "c", given="view", critic=encoder.c_net, shared=True, entropy="trained"
    )
    # Of a drawn picture the decoder alone is to blame: the head of c does not learn from it.
    drawn = vaereg.VariationalMI(
        "drawn_c", given="drawn", critic=Still(encoder.c_net), shared=True,
        probabilities=torch.full((settings.k,), 1.0 / settings.k),
    )  # fmt: skip
    objective = vaereg.Objective(
        kl_z=(settings.kl, vaereg.KL("z")),
        kl_c=vaereg.KL("c"),
        mi=(0.0 - settings.mi, seen),
        drawn=(0.0 - settings.mi * settings.drawn, drawn),
        balance=(settings.mi * settings.balance, imbalance),
    )
    return vaereg.VAE(encoder, Decoder(settings.z + settings.k, side), objective)


def build_gaussian(settings: Settings, side: int) -> vaereg.VAE:
    """The Gaussian VAE with the term on (z_1, z_2)."""
    critic = nn.Sequential(nn.Flatten(), _mlp(side**2, 4))
    # With its entropy out of the gradient, a Gaussian code is rewarded for small variances.
    mi = vaereg.VariationalMI("z[:2]", given="x_hat", critic=critic, entropy="trained")
    objective = vaereg.Objective(kl_z=(settings.kl, vaereg.KL("z")), mi=(0.0 - settings.mi, mi))
    return vaereg.VAE(GaussianEncoder(settings, side), Decoder(settings.z, side), objective)


def build(settings: Settings, side: int, steps: int) -> vaereg.VAE:
    """The model of these settings for pictures of ``side`` pixels and ``steps`` steps."""
    if settings.model == "joint":
        return build_joint(settings, side, steps)
    return build_gaussian(settings, side)

"""Networks and objectives of r-CVAE, CSVAE and MMVAE.

Two groups of latents: ``c``, two numbers an attribute, is to hold everything about the attributes;
``z`` all the rest. The encoder of ``c`` sees the label, that of ``z`` does not.

Source: Enhancing Attribute-Factorized Representations in Variational Autoencoder by Regularizing
Multiple Mutual Information Elements (Sedong Kim, 2019), chapters 3 and 4.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import vaereg

MODELS = ("r-cvae", "csvae", "mmvae")

# The prior of an attribute's two numbers: N(0, 0.1^2) where it is absent, N(3, 1) where present.
PRIOR_MEAN = (0.0, 3.0)
PRIOR_STD = (0.1, 1.0)
PER_ATTRIBUTE = 2


@dataclass(frozen=True)
class Preset:
    """Sizes of the networks.

    Attributes:
        width: Filters of the first convolution; each further one doubles them.
        z: Width of the code z.
        critic_width: Units of each hidden layer of a critic.
        critic_depth: Hidden layers of a critic.
    """

    width: int
    z: int
    critic_width: int
    critic_depth: int


PRESETS = {
    "small": Preset(width=8, z=32, critic_width=128, critic_depth=3),
    "medium": Preset(width=16, z=64, critic_width=256, critic_depth=3),
    "full": Preset(width=32, z=512, critic_width=512, critic_depth=7),
}


def one_hot(y: Tensor) -> Tensor:
    """Attributes ``(B, k)`` in {0, 1} as pairs, ``(B, 2 k)``: absent [1, 0], present [0, 1]."""
    return vaereg.labels(y, classes=2).flatten(1)


def joint_label(y: Tensor) -> Tensor:
    """Attributes ``(B, k)`` in {0, 1} as one label of ``2^k`` classes, one-hot ``(B, 2^k)``."""
    powers = 2 ** torch.arange(y.shape[1], device=y.device)
    return vaereg.labels((y.long() * powers).sum(1), classes=2 ** y.shape[1])


def attribute_prior(pairs: Tensor) -> Independent:
    """The prior p(c | y) for one-hot pairs ``(B, 2 k)``: batch shape (B,), event shape (2 k,)."""
    present = pairs[:, 1::2].repeat_interleave(PER_ATTRIBUTE, dim=1)
    mean = PRIOR_MEAN[0] + (PRIOR_MEAN[1] - PRIOR_MEAN[0]) * present
    std = PRIOR_STD[0] + (PRIOR_STD[1] - PRIOR_STD[0]) * present
    return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _with_maps(features: Tensor, numbers: Tensor) -> Tensor:
    """Append each number of a row as a constant feature map."""
    maps = numbers[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return torch.cat((features, maps), 1)


class Encoder(nn.Module):
    """q(z | x) and q(c | x, y): a common trunk of three blocks, then a branch for each."""

    def __init__(self, preset: Preset, attributes: int) -> None:
        super().__init__()
        w, pairs, c = preset.width, 2 * attributes, PER_ATTRIBUTE * attributes
        self.trunk = nn.Sequential(_down(3, w), _down(w, 2 * w), _down(2 * w, 4 * w))
        self.z_branch = nn.Sequential(_down(4 * w, 8 * w), _down(8 * w, 16 * w), nn.Flatten())
        self.z_head = nn.Linear(16 * w * 4, 2 * preset.z)
        self.c_first = _down(4 * w + pairs, 8 * w)
        self.c_second = _down(8 * w + pairs, 8 * w)
        self.c_head = nn.Linear((8 * w + pairs) * 4, 2 * c)
        self._start_at_prior(8 * w * 4, attributes)

    @torch.no_grad()
    def _start_at_prior(self, features: int, attributes: int) -> None:
        """Initialise the head of c so that q(c | x, y) starts as p(c | y), at a KL of 0.

        From the usual start it takes thousands of steps to reach a prior of standard deviation 0.1
        and mean 3, and until then the KL of c drowns all that this example is about.
        """
        self.c_head.weight.zero_()
        self.c_head.bias.zero_()
        log_std = [2.0 * math.log(std) for std in PRIOR_STD]
        c = PER_ATTRIBUTE * attributes
        for i in range(attributes):
            for value in (0, 1):
                # The head sees each of the 2 k label numbers on four positions.
                first = features + 4 * (2 * i + value)
                own = slice(PER_ATTRIBUTE * i, PER_ATTRIBUTE * (i + 1))
                self.c_head.weight[own, first : first + 4] = PRIOR_MEAN[value] / 4
                self.c_head.weight[c:][own, first : first + 4] = log_std[value] / 4

    def forward(self, x: Tensor, y: Tensor) -> dict[str, vaereg.Code]:
        """Images ``(B, 3, 64, 64)`` in [0, 1] and one-hot pairs ``(B, 2 k)`` to the two codes."""
        features = self.trunk(2.0 * x - 1.0)
        z = vaereg.gaussian(self.z_head(self.z_branch(features)))
        branch = self.c_second(_with_maps(self.c_first(_with_maps(features, y)), y))
        params = self.c_head(_with_maps(branch, y).flatten(1))
        return {"z": z, "c": vaereg.gaussian(params, prior=attribute_prior(y))}


class Decoder(nn.Module):
    """The mean of p(x | z, c): each transposed convolution also sees the numbers of c as maps."""

    def __init__(self, preset: Preset, attributes: int) -> None:
        super().__init__()
        w, c = preset.width, PER_ATTRIBUTE * attributes
        self.width = 16 * w
        self.first = nn.Sequential(
            nn.Linear(preset.z + c, 16 * w * 4), nn.BatchNorm1d(16 * w * 4), nn.ReLU()
        )
        widths = (16 * w, 8 * w, 4 * w, 2 * w, w)
        self.blocks = nn.ModuleList(_up(a + c, b) for a, b in itertools.pairwise(widths))
        self.last = nn.ConvTranspose2d(w + c, 3, 4, 2, 1)
        self._start_without_c(preset.z, c)

    @torch.no_grad()
    def _start_without_c(self, z: int, c: int) -> None:
        """Initialise all weights on c with 0, so that the decoder takes c up only as it helps.

        c of a present attribute has standard deviation 1. Through random weights this noise
        disturbs the first reconstructions, and the encoder was seen to answer by drawing c towards
        0, away from its prior, whatever the label.
        """
        linear = self.first[0]
        assert isinstance(linear, nn.Linear)
        linear.weight[:, z:] = 0.0
        for block in (*self.blocks, nn.Sequential(self.last)):
            assert isinstance(block, nn.Sequential)
            block[0].get_parameter("weight")[-c:] = 0.0

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """Codes ``(B, Z)`` and ``(B, 2 k)`` to images ``(B, 3, 64, 64)``."""
        features = self.first(torch.cat((z, c), 1)).unflatten(1, (self.width, 2, 2))
        for block in self.blocks:
            features = block(_with_maps(features, c))
        return self.last(_with_maps(features, c))


@dataclass(frozen=True)
class Weights:
    """Weights of the objective -ELBO - alpha I(c; y) + beta I(z; y) + gamma I(z; c)."""

    alpha: float = 0.0
    beta: float = 1.0
    gamma: float = 1.0
    kl: float = 1.0


def build_objective(
    model: str, preset: Preset, attributes: int, weights: Weights
) -> vaereg.Objective:
    """The terms of one of the three models.

    r-CVAE has the two KLs only. CSVAE adds a classifier of the label from z, whose predictive
    entropy the encoder raises. MMVAE adds three MINE terms; one with weight 0 is only displayed.

    Raises:
        ValueError: If the model is unknown.
    """
    if model not in MODELS:
        raise ValueError(f"model: expected one of {MODELS}, got {model!r}")
    kl = (weights.kl, vaereg.KL(("z", "c")))
    if model == "r-cvae":
        return vaereg.Objective(kl=kl)
    pairs, c = 2 * attributes, PER_ATTRIBUTE * attributes

    def critic(inputs: int, outputs: int = 1) -> nn.Module:
        return vaereg.critics.mlp(
            inputs,
            outputs,
            width=preset.critic_width,
            depth=preset.critic_depth,
            activation="leaky_relu",
        )

    if model == "csvae":
        leak = vaereg.AdversarialClassifier(
            "z", "joint", critic=critic(preset.z, 2**attributes), loss="entropy"
        )
        return vaereg.Objective(kl=kl, i_zy=(weights.beta, leak))
    return vaereg.Objective(
        kl=kl,
        i_cy=(0.0 - weights.alpha, vaereg.MINE("c", "y", critic=critic(c + pairs))),
        i_zy=(weights.beta, vaereg.MINE("z", "y", critic=critic(preset.z + pairs))),
        i_zc=(weights.gamma, vaereg.MINE("z", "c", critic=critic(preset.z + c))),
    )


class PixelLikelihood:
    """The Gaussian negative log-likelihood with one standard deviation for all pixels."""

    def __init__(self, std: float) -> None:
        self.std = std

    def __call__(self, mean: Tensor, x: Tensor) -> Tensor:
        return vaereg.functional.gaussian_nll(mean, x, std=self.std)


def build(
    model: str, preset: Preset, attributes: int, weights: Weights, pixel_std: float
) -> vaereg.VAE:
    """One of the three models as a :class:`vaereg.VAE`, to be called with ``y`` and ``joint``."""
    return vaereg.VAE(
        Encoder(preset, attributes),
        Decoder(preset, attributes),
        build_objective(model, preset, attributes, weights),
        likelihood=PixelLikelihood(pixel_std),
    )

"""The options of one training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MODELS = ("joint", "gaussian")

PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 100, "batch": 128},
    "mnist": {},
    "fashion": {"epochs": 30},
}
"""What differs from the defaults of :class:`Settings` for each data set."""


@dataclass(frozen=True)
class Settings:
    """What determines a training run, apart from the data.

    Attributes:
        model: ``joint`` (Gaussian z and categorical c) or ``gaussian`` (z alone).
        z: Width of the Gaussian code.
        k: Categories of c.
        mi: Weight of the mutual-information term; 0 leaves the ELBO alone.
        drawn: Weight of I(c; x') of pictures drawn from the prior, relative to ``mi``.
        balance: Weight of KL(q(c) || p(c)) of the batch mean, relative to ``mi``.
        kl: Weight of the KL of z.
        temperature: Of the Gumbel-softmax sample, at the start.
        temperature_end: The same at the end; it falls exponentially.
        rotation: Range of the views' rotation, degrees.
        scale: Range of the views' log-scale.
        shear: Range of the views' shear.
        shift: Range of the views' shift, a share of the width.
        mirror: Share of the views that are mirrored, left for right.
        contrast: Range of the log of the exponent of the views' grey values.
        lr: Highest learning rate; it rises over 100 steps and falls along a cosine to a fiftieth.
        critic_lr: Learning rate of the critic of the Gaussian model.
        critic_steps: Critic steps a step of the Gaussian model.
        epochs: Passes over the training images.
        batch: Images a step.
        seed: Seed of initialisation, batches and noise.
    """

    model: str = "joint"
    z: int = 16
    k: int = 10
    mi: float = 30.0
    drawn: float = 0.333
    balance: float = 1.0
    kl: float = 1.0
    temperature: float = 1.0
    temperature_end: float = 0.5
    rotation: float = 20.0
    scale: float = 0.2
    shear: float = 0.3
    shift: float = 0.107
    mirror: float = 0.0
    contrast: float = 0.0
    lr: float = 2e-3
    critic_lr: float = 2e-3
    critic_steps: int = 2
    epochs: int = 8
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("z", "temperature", "temperature_end", "lr", "critic_lr", "epochs")
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        ranges = ("rotation", "scale", "shear", "shift", "mirror", "contrast")
        for name in (*ranges, "mi", "drawn", "balance", "kl", "critic_steps", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in ("batch", "k"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: expected at least 2, got {getattr(self, name)}")
        if self.model not in MODELS:
            raise ValueError(f"model: expected one of {MODELS}, got {self.model!r}")
        if self.temperature_end > self.temperature:
            raise ValueError(
                f"temperature_end: expected at most temperature {self.temperature}, got "
                f"{self.temperature_end}"
            )
        if self.model == "gaussian" and self.z < 2:
            raise ValueError(f"z: expected at least 2 for the part (z_1, z_2), got {self.z}")

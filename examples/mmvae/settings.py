"""The options of one training run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .models import PRESETS


@dataclass(frozen=True)
class Settings:
    """What determines a training run, apart from the data.

    Attributes:
        model: One of ``models.MODELS``.
        preset: Sizes of the networks, a name in ``models.PRESETS``.
        alpha: Weight of the reward I(c; y).
        beta: Weight of the penalty I(z; y).
        gamma: Weight of the penalty I(z; c).
        pixel_std: Standard deviation of the pixel likelihood.
        critic_steps: Critic steps an encoder step.
        critic_lr: Learning rate of the critics, constant.
        lr: Learning rate of encoder and decoder, times 0.75 at epochs 1, 2, 4, 8, ...
        c_lr: The same for the head of c, which sums hundreds of features: at the common rate one
            step of Adam moves c by several of its prior's standard deviations (0.1 where the
            attribute is absent), and while c is that noisy z takes over what c should hold.
        warmup: Epochs over which beta and gamma rise from 0 (0: none).
        epochs: Passes over the training images.
        batch: Images a step.
        seed: Seed of initialisation, batches and noise.
    """

    model: str
    preset: str = "small"
    alpha: float = 0.0
    beta: float = 3.0
    gamma: float = 3.0
    pixel_std: float = 0.7
    critic_steps: int = 5
    critic_lr: float = 1e-3
    lr: float = 1e-3
    c_lr: float = 1e-4
    warmup: float = 0.0
    epochs: int = 10
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pixel_std", "critic_lr", "lr", "c_lr", "epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("alpha", "beta", "gamma"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: expected a finite number, got {getattr(self, name)}")
        if self.batch < 2:
            raise ValueError(f"batch: expected at least 2 images a step, got {self.batch}")
        for name in ("critic_steps", "warmup", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset: expected one of {sorted(PRESETS)}, got {self.preset!r}")

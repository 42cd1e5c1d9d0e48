"""The options of one training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .objectives import parse, text_of

__all__ = ["PLANS", "PRESETS", "Settings"]

THESIS = (
    *(f"beta:{w}" for w in (1, 3, 10, 30)),
    *(f"factor:{w}" for w in (5, 10, 25, 50, 100)),
    *(f"tc:{w}" for w in (1, 3, 6, 10)),
    *(f"dip{k}:{w}" for k in (1, 2) for w in (1, 3, 10, 30)),
)
"""The study's objectives; which of the two DIP-VAEs it took is not said, so both."""

PRESETS: dict[str, dict[str, Any]] = {
    "full": {"steps": 345_600},
    "printed": {"steps": 22_260},
    "small": {"steps": 500, "lr": 1e-3, "critic_lr": 1e-3, "critic_width": 256, "critic_depth": 3,
              "probes": 4},
}  # fmt: skip
"""What differs from the defaults: 30 passes; 30 times 742 batches, as printed; minutes."""

PLANS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "full": (THESIS, tuple(range(10))),
    "printed": (THESIS, tuple(range(10))),
    "small": (("beta:4", "factor:10", "dip2:10"), (0, 1)),
}
"""Objectives and seeds of each preset."""


@dataclass(frozen=True)
class Settings:
    """What determines a training run, apart from the data.

    Attributes:
        objective: Names and weights, see ``objectives.py``.
        z: Numbers of the code.
        steps: Steps of encoder and decoder.
        batch: Pictures a step.
        lr: Learning rate of encoder and decoder (Adam).
        critic_lr: Learning rate of critics (Adam, betas 0.5 and 0.9).
        critic_width: Units of a critic's hidden layers.
        critic_depth: A critic's hidden layers.
        critic_steps: Critic steps a step.
        likelihood: ``bernoulli``, or ``gaussian`` of unit variance.
        precision: ``float32``, or ``bfloat16``: encoder and decoder are computed in 16 bits in
            training; weights, objectives, critics and all measurements stay in 32.
        probes: How often the exact parts of the KL are measured on the way.
        seed: Seed of initialisation, batches and noise.
    """

    objective: str = "beta:4"
    z: int = 10
    steps: int = 345_600
    batch: int = 64
    lr: float = 1e-4
    critic_lr: float = 1e-4
    critic_width: int = 1000
    critic_depth: int = 6
    critic_steps: int = 1
    likelihood: str = "bernoulli"
    precision: str = "float32"
    probes: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", text_of(parse(self.objective)))
        for name in ("z", "steps", "lr", "critic_lr", "critic_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("critic_depth", "critic_steps", "probes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if self.batch < 2:
            raise ValueError(f"batch: expected at least 2 pictures a step, got {self.batch}")
        if self.likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(
                f"likelihood: expected bernoulli or gaussian, got {self.likelihood!r}"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: expected float32 or bfloat16, got {self.precision!r}")

    @property
    def name(self) -> str:
        """Objective and seed."""
        return f"{self.objective} seed={self.seed}"

    @property
    def folder(self) -> str:
        """Folder of the run, below the output folder."""
        return f"seed{self.seed}/{self.objective.replace(':', '').replace('+', '_')}"

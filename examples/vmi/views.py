"""Views of a picture: small random affine maps, the changes that leave a digit what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from .settings import Settings

__all__ = ["Views"]


@dataclass(frozen=True)
class Views:
    """The random maps; each number is drawn uniformly from [-range, range].

    Attributes:
        rotation: Degrees.
        scale: Logarithm of the scale, of either axis on its own.
        shear: Horizontal shift for a unit of height.
        shift: Share of the picture's width, of either axis on its own.
        mirror: The share of the views that are mirrored, left for right.
        contrast: Logarithm of the exponent that grey values are raised to.
    """

    rotation: float = 20.0
    scale: float = 0.2
    shear: float = 0.3
    shift: float = 0.107
    mirror: float = 0.0
    contrast: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Views:
        """The views of these settings."""
        return cls(*(getattr(settings, field.name) for field in fields(cls)))

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One random view of each of the pictures ``(B, 1, H, W)``; what is outside is 0."""

        def draw(width: float) -> Tensor:
            numbers = torch.rand(len(x), device=x.device, generator=generator)
            return (2.0 * numbers - 1.0) * width

        angle = draw(self.rotation * math.pi / 180.0)
        wide, high = draw(self.scale).exp(), draw(self.scale).exp()
        shear = draw(self.shear)
        # Coordinates run from -1 to 1, so that a share of the width counts twice.
        across, down = draw(2.0 * self.shift), draw(2.0 * self.shift)
        if self.mirror:
            side = torch.rand(len(x), device=x.device, generator=generator) < self.mirror
            wide = torch.where(side, -wide, wide)
        cos, sin = angle.cos(), angle.sin()
        top = torch.stack((cos * wide, (cos * shear - sin) * high, across), 1)
        bottom = torch.stack((sin * wide, (sin * shear + cos) * high, down), 1)
        grid = F.affine_grid(torch.stack((top, bottom), 1), list(x.shape), align_corners=False)
        view = F.grid_sample(x, grid, align_corners=False)
        if self.contrast:
            view = view.clamp(0.0, 1.0) ** draw(self.contrast).exp()[:, None, None, None]
        return view

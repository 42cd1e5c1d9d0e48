"""Pictures with known factors, their indices and their batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .render import ROW, SIDE, SIZES

__all__ = ["OnDevice", "Pictures", "factors_of", "index_of"]


def factors_of(index: Any, sizes: Sequence[int] = SIZES) -> NDArray[np.int64]:
    """Values of the factors ``(*, K)`` of flat indices ``(*)``; the last factor changes fastest.

    Raises:
        ValueError: If an index is out of range.
    """
    return np.stack(np.unravel_index(np.asarray(index), tuple(sizes)), -1).astype(np.int64)


def index_of(factors: Any, sizes: Sequence[int] = SIZES) -> NDArray[np.int64]:
    """Flat indices ``(*)`` of values of the factors ``(*, K)``.

    Raises:
        ValueError: If a value is out of range.
    """
    found = np.ravel_multi_index(tuple(np.moveaxis(np.asarray(factors), -1, 0)), tuple(sizes))
    return np.asarray(found, np.int64)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of 64 x 64 and the values of their factors.

    Attributes:
        store: ``(N, 512)``, eight binary pixels a byte, or ``(N, 64, 64[, C])`` uint8 from 0 to
            255; an array or a memory map.
        factors: Values 0, 1, ... of each factor, ``(N, K)``.
        names: Of the factors.
        source: What they are, for tables and results.
        sizes: Number of values of each factor.
    """

    store: NDArray[np.uint8]
    factors: NDArray[np.integer]
    names: tuple[str, ...]
    source: str
    sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.store)
        shapes = ((n, ROW), (n, SIDE, SIDE))
        if self.store.dtype != np.uint8 or self.store.shape[:3] not in shapes:
            raise ValueError(
                f"expected packed pictures uint8 (N, {ROW}) or pictures uint8 (N, {SIDE}, "
                f"{SIDE}[, C]), got {self.store.dtype} {self.store.shape}"
            )
        if self.factors.shape != (n, len(self.names)) or self.factors.dtype.kind not in "iu":
            raise ValueError(
                f"expected integer factors {(n, len(self.names))} for {n} pictures and the names "
                f"{self.names}, got {self.factors.dtype} {self.factors.shape}"
            )
        if n == 0 or int(self.factors.min()) < 0:
            raise ValueError("expected pictures with values of factors from 0, got none or others")
        object.__setattr__(self, "sizes", tuple(int(v) + 1 for v in self.factors.max(0)))

    def __len__(self) -> int:
        return len(self.store)

    @property
    def packed(self) -> bool:
        """Whether pixels are single bits."""
        return self.store.ndim == 2

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.store.shape[3] if self.store.ndim == 4 else 1

    @cached_property
    def complete(self) -> bool:
        """Whether there is each combination of values once, the last factor changing fastest."""
        if prod(self.sizes) != len(self):
            return False
        return bool((index_of(self.factors, self.sizes) == np.arange(len(self))).all())

    def batch(self, rows: NDArray[np.integer]) -> Tensor:
        """Pictures ``(B, C, 64, 64)`` in [0, 1], float32."""
        if self.packed:
            bits = np.unpackbits(self.store[rows], axis=1)
            return torch.from_numpy(bits).view(-1, 1, SIDE, SIDE).float()
        images = torch.from_numpy(np.ascontiguousarray(self.store[rows])).float().div_(255.0)
        return images.movedim(-1, 1).contiguous() if images.ndim == 4 else images[:, None]

    def digest(self) -> str:
        """A short digest of the factors and of 64 of the pictures, to tell data sets apart."""
        found = hashlib.sha256(np.ascontiguousarray(self.factors, np.int64).tobytes())
        for row in range(0, len(self), max(1, len(self) // 64)):
            found.update(np.ascontiguousarray(self.store[row]).tobytes())
        return found.hexdigest()[:12]

    def spread(self, most: int, *, grid: bool = True) -> NDArray[np.int64]:
        """Rows of a complete grid of at most so many pictures, factors thinned out evenly.

        The factor with the most values left is thinned first. Where the data are no complete
        grid, or none is wanted, random rows: the same ones for all models.
        """
        if len(self) <= most:
            return np.arange(len(self))
        if not (grid and self.complete):
            return np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        kept = list(self.sizes)
        while prod(kept) > most:
            kept[int(np.argmax(kept))] -= 1
        # Never the last value of a thinned factor: a full turn is the first again.
        values = [np.arange(k) * n // k for k, n in zip(kept, self.sizes, strict=True)]
        grid = np.stack(np.meshgrid(*values, indexing="ij"), -1).reshape(-1, len(values))
        return index_of(grid, self.sizes)


class OnDevice:
    """Batches of pictures made on a device where the store fits into its memory."""

    def __init__(self, data: Pictures, device: torch.device) -> None:
        self.data, self.device = data, device
        self.store: Tensor | None = None
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
            if data.store.nbytes < free // 4:
                self.store = torch.from_numpy(np.ascontiguousarray(data.store)).to(device)
        self.shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)

    def batch(self, rows: NDArray[np.integer]) -> Tensor:
        """As :meth:`Pictures.batch`, on the device."""
        if self.store is None:
            return self.data.batch(rows).to(self.device, non_blocking=True)
        part = self.store[torch.from_numpy(rows).to(self.device)]
        if self.data.packed:
            return self._bits(part)
        images = part.float().div_(255.0)
        return images.movedim(-1, 1).contiguous() if images.ndim == 4 else images[:, None]

    def _bits(self, part: Tensor) -> Tensor:
        bits = (part[..., None] >> self.shifts) & 1  # the first pixel is the highest bit
        return bits.view(-1, 1, SIDE, SIDE).float()

r"""The report: what an objective says of one minibatch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from vaereg.schedules import Number

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    r"""What an objective says of one minibatch.

    Attributes:
        total: The weighted sum of the terms, a scalar; always with a graph in grad mode.
        values: The value of each term by name, unweighted and detached.
        weights: The weight in force for each term.
        on_nonfinite: Called by :meth:`scalars` when a value is not finite.
    """

    total: Tensor
    values: dict[str, Tensor]
    weights: dict[str, Number]
    on_nonfinite: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """All values as Python numbers, by one device transfer.

        Args:
            prefix: Goes before each name, such as ``"critic/"`` for the report of
                ``critic_step``, whose names are those of the terms too.

        Returns:
            The value of each term under its name, ``weight/<name>`` for each term, and ``total``.

        Raises:
            ValueError: If a value is not finite and the batch holds the reason (for reports of
                :class:`vaereg.VAE`, which keeps the batch at hand).
        """
        entries: dict[str, Number] = {
            **self.values,
            **{f"weight/{name}": weight for name, weight in self.weights.items()},
            "total": self.total,
        }
        tensors = {n: v.detach() for n, v in entries.items() if isinstance(v, Tensor)}
        device = self.total.device
        # Float64 keeps a float32 value's digits beside a large one's; some devices lack it.
        wide = torch.float32 if device.type == "mps" else torch.float64
        stacked = torch.stack([v.to(device, wide) for v in tensors.values()])
        numbers = dict(zip(tensors, cast("list[float]", stacked.tolist()), strict=True))
        scalars = {n: numbers[n] if n in numbers else float(v) for n, v in entries.items()}
        if self.on_nonfinite is not None and not all(map(math.isfinite, scalars.values())):
            self.on_nonfinite()
        return {f"{prefix}{name}": value for name, value in scalars.items()}

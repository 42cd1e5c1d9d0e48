"""What a measurement of mutual information gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["InformationWarning", "MIEstimate"]


class InformationWarning(UserWarning):
    """An estimate that must not be taken at its face value."""


@dataclass(frozen=True)
class MIEstimate:
    """A mutual information measured on held-out rows.

    Attributes:
        mean: Mean of ``values``.
        std: Standard deviation over the runs (``ddof=1``); 0 for one run.
        values: The held-out value of each run.
        gap: The displayed value minus ``mean``. Displayed is what the caller passed as
            ``displayed``, or else the mean bound of the kept critics on their training rows.
        power: The smallest planted dependence that the procedure told from independence, ``inf``
            where it told none, or None where that was not measured. Below it the answer is
            "cannot tell", never "independent".
        unit: ``"nats"`` or ``"bits"``.
        interval: Ends of the bootstrap interval of ``mean`` over held-out rows, given the fitted
            critics, or None. It holds sampling noise only, not what the critics failed to learn.
        method: The method's name.
        bound: ``"lower"``, ``"upper"``, or ``"none"`` for an estimate that is no bound.
        ceiling: For ``infonce`` the log of the batch, which no reading passes. For the other lower
            bounds the log of the rows (or groups) that a run reads: a reading may pass it, but no
            lower bound that holds with high confidence for every distribution can (McAllester and
            Stratos, 2020). None for what is no lower bound.
        choices: The critic that each run chose; ``"none"`` where none beat :math:`T = 0`.
        planted: What the procedure read of each planted leak: its size, the reading, and the ends
            of the reading's interval.

    Example:
        >>> estimate = MIEstimate(0.5, 0.1, (0.4, 0.6), 0.02)
        >>> print(estimate)
        0.500 ± 0.100 nats (2 runs, held out)
        >>> print(estimate.in_bits())
        0.721 ± 0.144 bits (2 runs, held out)
    """

    mean: float
    std: float
    values: tuple[float, ...]
    gap: float
    power: float | None = None
    unit: str = "nats"
    interval: tuple[float, float] | None = None
    method: str = "mine"
    bound: str = "lower"
    ceiling: float | None = None
    choices: tuple[str, ...] = ()
    planted: tuple[tuple[float, float, float, float], ...] = ()

    def in_bits(self) -> MIEstimate:
        """The same estimate in bits; an estimate in bits is returned as it is."""
        if self.unit == "bits":
            return self
        bits = 1.0 / math.log(2.0)
        low_high = None if self.interval is None else (
            self.interval[0] * bits, self.interval[1] * bits
        )  # fmt: skip
        return replace(
            self,
            mean=self.mean * bits,
            std=self.std * bits,
            values=tuple(v * bits for v in self.values),
            gap=self.gap * bits,
            power=None if self.power is None else self.power * bits,
            interval=low_high,
            ceiling=None if self.ceiling is None else self.ceiling * bits,
            planted=tuple(
                (size * bits, mean * bits, low * bits, high * bits)
                for size, mean, low, high in self.planted
            ),
            unit="bits",
        )

    def __str__(self) -> str:
        runs = f"{len(self.values)} run{'s' if len(self.values) != 1 else ''}"
        above = self.ceiling is not None and self.mean > self.ceiling
        note = f", above the ceiling {self.ceiling:.2f}" if above else ""
        return f"{self.mean:.3f} ± {self.std:.3f} {self.unit} ({runs}, held out{note})"

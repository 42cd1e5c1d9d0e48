r"""An inequality constraint with a learned multiplier."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaereg.codes import Batch, Code
from vaereg.regularizer import CriticRegularizer, FunctionTerm, Regularizer, detach_batch

__all__ = ["Constraint"]


class _Multiplier(nn.Module):
    """A positive number :math:`\\lambda = \\log(1 + e^{r})`."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        # The inverse of softplus, in the form that does not overflow for large values.
        self.raw = nn.Parameter(torch.tensor(initial + math.log(-math.expm1(-initial))))

    def forward(self) -> Tensor:
        return F.softplus(self.raw)


class Constraint(CriticRegularizer):
    r"""The Lagrangian of :math:`g \le c` with a learned multiplier.

    .. math:: \lambda\, (g - c), \qquad \lambda = \log(1 + e^r) > 0

    ``forward`` holds :math:`\lambda` fixed, so the encoder descends on :math:`\lambda g`; the
    multiplier is among the critic parameters and ascends: its fitting loss is
    :math:`-\lambda (g - c)` with :math:`g` held fixed. Each critic step moves the multiplier once.
    For :math:`g \ge c` constrain ``lambda batch: -g`` by ``-c``.

    Args:
        term: The constrained quantity: a term, or a callable ``batch -> scalar tensor``.
        at_most: The bound :math:`c`, in the term's unit.
        initial: The multiplier's first value, positive.

    Raises:
        ValueError: If ``initial`` is not positive.

    References:
        | Taming VAEs (Rezende and Viola, 2018), eqs 4 and 5.
        | https://arxiv.org/abs/1810.00597

    Example:
        >>> distortion = Constraint(lambda batch: batch["x"].square().mean(), at_most=0.1)
        >>> round(distortion({"x": torch.ones(4, 2)}).item(), 4)  # 1 * (1 - 0.1)
        0.9
    """

    unit = "its term's"

    def __init__(
        self,
        term: Regularizer | Callable[[Mapping[str, Code | Tensor]], Tensor],
        at_most: float,
        *,
        initial: float = 1.0,
    ) -> None:
        if not initial > 0:
            raise ValueError(f"constraint: expected initial > 0, got {initial}")
        super().__init__(critic=_Multiplier(initial))
        self.term = term if isinstance(term, Regularizer) else FunctionTerm(term)
        self.at_most = float(at_most)
        self.counts_kl = self.term.counts_kl
        self.variables = self.term.variables
        self.name = f"constraint({self.term.name})"

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The Lagrangian term with the multiplier held fixed, a scalar."""
        value = self.term(batch, other=other, step=step)
        return self.critic().detach() * (value - self.at_most)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the Lagrangian with the quantity held fixed, plus the term's own critic loss."""
        batch = detach_batch(batch)
        other = None if other is None else detach_batch(other)
        with torch.no_grad():
            excess = self.term(batch, other=other, step=step) - self.at_most
        loss = -self.critic() * excess
        if isinstance(self.term, CriticRegularizer):
            loss = loss + self.term.critic_loss(batch, other=other, step=step)
        return loss

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``value`` of the constrained quantity and the ``multiplier``, with the term's own."""
        return {
            "value": self.term(batch, other=other, step=step),
            "multiplier": self.critic().detach(),
            **self.term.diagnostics(batch, other=other, step=step),
        }

    def validate(self, batch: Batch) -> None:
        """The constrained term's own checks."""
        self.term.validate(batch)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """The multiplier, then the term's critic."""
        yield from self.critic.parameters()
        yield from self.term.critic_parameters()

    def clipped_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the term's critic: the multiplier is no part of it."""
        return self.term.clipped_parameters()

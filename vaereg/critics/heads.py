r"""Heads of conditional models: what a network says of the variable that it predicts.

A head of a categorical variable is the network itself: its output is logits. One of a continuous
variable says mean and log-variance, the halves of dim 1; with a free variance a row that is the
network itself as well.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["GaussianHead"]


class GaussianHead(nn.Sequential):
    r"""A Gaussian of constant, or free, variance around a network's mean.

    .. math:: q(v \mid g) = \prod_d \mathcal N\big(v_d; \mu_d(g), \sigma_d^2\big)

    It returns mean and log-variance, the halves of dim 1, as ``CLUB``, ``VariationalMI`` and
    :func:`vaereg.gaussian` take them. A constant variance is the safer model of a code whose noise
    is alike everywhere, and a bound by it is below that of the best free one.

    Args:
        network: The network, ``(B, *) -> (B, D)``, or ``(B, 2 D)`` for a free variance.
        dim: :math:`D`, numbers a row of the predicted variable.
        variance: ``"learned"``: free in each row, the second half of the network's output;
            ``"global"``: one learned number for each dimension; a number: fixed.

    Raises:
        ValueError: If ``dim`` is below 1, ``variance`` is unknown, or a fixed one is outside of
            :math:`[e^{-9}, e^9]`, where terms leave a log-variance as it is.

    Example:
        >>> from vaereg.critics import mlp
        >>> head = GaussianHead(mlp(5, 3), 3, variance="global")
        >>> head(torch.zeros(4, 5)).shape
        torch.Size([4, 6])
    """

    logvar: nn.Parameter | None

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        *,
        variance: Literal["learned", "global"] | float = "learned",
    ) -> None:
        # A sequence of one module: its input width is the network's.
        super().__init__(network)
        if dim < 1:
            raise ValueError(f"GaussianHead: expected dim >= 1, got {dim}")
        known = variance in ("learned", "global") if isinstance(variance, str) else True
        fixed = not isinstance(variance, str)
        if not known or (fixed and not math.exp(-9.0) <= variance <= math.exp(9.0)):
            raise ValueError(
                "GaussianHead: expected variance to be learned, global or a number in "
                f"[exp(-9), exp(9)], got {variance!r}; rescale the code for a smaller one"
            )
        self.dim = dim
        self.variance = variance
        learned = nn.Parameter(torch.zeros(dim)) if variance == "global" else None
        self.register_parameter("logvar", learned)

    def forward(self, input: Tensor) -> Tensor:
        """Mean and log-variance: ``(B, *)`` to ``(B, 2 D)``.

        Raises:
            ValueError: If the network does not return as many numbers a row as it should.
        """
        output: Tensor = self[0](input)
        width = self.dim * (2 if self.variance == "learned" else 1)
        if output.shape[1:] != (width,):
            raise ValueError(
                f"GaussianHead: expected {width} numbers a row from the network for dim "
                f"{self.dim} and variance {self.variance!r}, got shape {tuple(output.shape)}"
            )
        if self.logvar is not None:
            return torch.cat((output, self.logvar.expand_as(output)), 1)
        if not isinstance(self.variance, str):
            logvar = torch.full_like(output, math.log(self.variance))
            return torch.cat((output, logvar), 1)
        return output

    def extra_repr(self) -> str:
        """Width and variance, for ``print(head)``."""
        return f"dim={self.dim}, variance={self.variance!r}"

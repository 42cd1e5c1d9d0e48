r"""The maximum mean discrepancy of the aggregated posterior from the prior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vaereg._names import Spec
from vaereg.codes import Batch, Code, StandardNormal
from vaereg.functional.mmd import Kernel, default_scales, mmd, prior_draws, scale_factors
from vaereg.regularizer import Regularizer, zero_like

__all__ = ["MMD"]


class MMD(Regularizer):
    r"""The squared maximum mean discrepancy of the code's sample from draws of its prior.

    .. math:: \mathrm{MMD}^2\big(q(z), p(z)\big) =
        E_q k(z, z') + E_p k(z, z') - 2 E_{q, p} k(z, z')

    with the kernels of :func:`vaereg.functional.mmd`. The penalty of WAE-MMD, which replaces the
    KL; and of InfoVAE, beside a KL of weight :math:`1 - \alpha`, with weight
    :math:`\alpha + \lambda - 1`.

    Each call draws as many rows from the code's own prior as the batch has, one for each row of a
    conditional prior :math:`p(z \mid y_i)`. Row :math:`z_i` then depends on its own draw through
    :math:`y_i`; the unbiased form leaves that pair out. The posterior is not read: a
    deterministic code with a prior, ``Code(value, None, p)``, will do. The gradient reaches the
    code and, where the prior can be reparameterised, the prior's parameters.

    A batch of one row gives 0 with zero gradient, in both forms. The unbiased value is negative
    more often than not once the two laws agree.

    Args:
        code: The code, a part, or several codes; event dimensions are flattened to ``D``.
        kernel: ``"imq"``, whose tails still pull on rows far out, or ``"rbf"``.
        scales: Squared lengths, in squared units of z; kernels are summed over them. By default
            those of :func:`vaereg.functional.mmd.default_scales` for the prior's total variance
            over the batch: for a standard normal :math:`2 D \cdot \{.1, \dots, 10\}` with ``imq``
            and :math:`D \cdot \{\tfrac14, \dots, 2\}` with ``rbf``.
        unbiased: U-statistic; else V-statistic, which is never negative and of order
            :math:`1 / B` where the two laws agree.

    Raises:
        ValueError: If the kernel is unknown or a scale is not positive.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin et al., 2018), algorithm 2.
        | https://arxiv.org/abs/1711.01558
        | InfoVAE (Zhao et al., 2019), eq 6. https://arxiv.org/abs/1706.02262
        | A Kernel Two-Sample Test (Gretton et al., 2012), eqs 4 and 5.

    Example:
        >>> import vaereg
        >>> z = vaereg.gaussian((torch.full((64, 3), 9.0), torch.zeros(64, 3)))
        >>> 0.5 < MMD("z", scales=[6.0])({"z": z}).item() < 2.0
        True
    """

    unit = "squared kernel distance"

    def __init__(
        self,
        code: Spec,
        *,
        kernel: Kernel = "imq",
        scales: Sequence[float] | None = None,
        unbiased: bool = True,
    ) -> None:
        super().__init__(code)
        if kernel not in ("imq", "rbf"):
            raise ValueError(f"{self.name}: expected kernel to be imq or rbf, got {kernel!r}")
        fine = scales is None or isinstance(scales, Sequence)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not fine or (scales is not None and not (scales and all(s > 0.0 for s in scales))):
            raise ValueError(
                f"{self.name}: expected scales to be a sequence of squared lengths > 0, got "
                f"{scales}"
            )
        self.kernel: Kernel = kernel
        self.scales = None if scales is None else tuple(map(float, scales))
        self.unbiased = unbiased

    def _draws(self, batch: Batch) -> Tensor:
        """Draws of the prior, ``(B, D)``."""
        columns: list[Tensor] = []
        for name, index, entry in self._entries(batch):
            prior, value = (entry.p, entry.value) if isinstance(entry, Code) else (None, entry)
            drawn = prior_draws(prior, value, f"{self.name}: variable {name!r}")
            columns.append((drawn if index is None else drawn[:, index]).flatten(1))
        return torch.cat(columns, 1)

    def _entries(self, batch: Batch) -> Iterator[tuple[str, Any, Code | Tensor]]:
        return ((name, index, batch[name]) for _, name, index in self.variables[0].parts)

    @torch.no_grad()
    def _scales(self, batch: Batch) -> Tensor | tuple[float, ...]:
        if self.scales is not None:
            return self.scales
        total: Tensor | float = 0.0
        for name, index, entry in self._entries(batch):
            assert isinstance(entry, Code) and entry.p is not None  # prior_draws has checked it
            prior, value = entry.p, entry.value
            if isinstance(prior, StandardNormal):
                total = total + (value if index is None else value[:, index])[0].numel()
                continue
            try:
                mean, variance = prior.mean, prior.variance
            except NotImplementedError:
                raise TypeError(
                    f"{self.name}: expected scales, for the prior of {name!r} has no known "
                    f"variance to derive them from, got None and {prior}"
                ) from None
            mean, variance = mean.expand(value.shape), variance.expand(value.shape)
            if index is not None:
                mean, variance = mean[:, index], variance[:, index]
            # The law of total variance, for a prior of each row's own.
            total = total + variance.mean(0).sum() + (mean - mean.mean(0)).square().mean(0).sum()
        if not isinstance(total, Tensor):  # known on the host: no tensor, and the faster form
            return tuple(total * f for f in scale_factors(self.kernel))
        return default_scales(self.kernel, total)

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The squared discrepancy, a scalar without unit."""
        z = self.variables[0].values(batch).flatten(1)
        y = self._draws(batch)
        if z.shape[0] < 2:
            return zero_like(z.to(torch.promote_types(z.dtype, torch.float32)))
        return mmd(
            z, y, kernel=self.kernel, scales=self._scales(batch), unbiased=self.unbiased,
            paired=True,
        )  # fmt: skip

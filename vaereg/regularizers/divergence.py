r"""Divergences of the posterior from the prior: KL, free bits, capacity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vaereg._names import Spec
from vaereg.codes import Batch, Code
from vaereg.functional.divergences import kl_per_row, kl_terms
from vaereg.regularizer import Regularizer
from vaereg.schedules import Schedule

__all__ = ["KL", "Capacity", "FreeBits"]


def _row_kl(code: Code) -> Tensor:
    assert code.q is not None and code.p is not None  # Variable.codes has checked it
    return kl_per_row(code.q, code.p, code.value)


def _factor_kl(code: Code, term: str) -> Tensor:
    assert code.q is not None and code.p is not None
    terms = kl_terms(code.q, code.p)
    if terms is None:
        raise TypeError(
            f"{term}: expected a factorised posterior and prior of one known family to split the "
            f"KL by dimension, got {code.q} and {code.p}"
        )
    return terms if terms.ndim > 1 else terms.unsqueeze(1)


class _CodeTerm(Regularizer):
    """A term of one code, or of several independent ones whose KLs add."""

    def __init__(self, code: Spec) -> None:
        super().__init__(code)

    def per_sample(self, batch: Batch) -> Tensor:
        """The KL of each row, ``(B,)`` in nats."""
        codes = self.variables[0].codes(batch)
        return torch.stack([_row_kl(code) for code in codes]).sum(0)

    def _factors(self, batch: Batch) -> Tensor:
        codes = self.variables[0].codes(batch)
        return torch.cat([_factor_kl(code, self.name).flatten(1) for code in codes], 1)

    def validate(self, batch: Batch) -> None:
        """Also checks that the KL of every row is finite.

        Raises:
            ValueError: If a value or a KL is NaN or infinite.
        """
        super().validate(batch)
        bad = ~torch.isfinite(self.per_sample(batch).detach())
        if bool(bad.any()):
            raise ValueError(
                f"{self.name}: expected a finite KL in each row, got {int(bad.sum())} rows "
                "without (is the posterior's log-variance finite and in range?)"
            )


class KL(_CodeTerm):
    r"""The Kullback-Leibler divergence of posterior from prior.

    .. math:: \frac1B \sum_i \mathrm{KL}\big(q(z \mid x_i) \,\|\, p(z)\big)

    Closed form for any pair of one known family (Normal, Laplace, Bernoulli, Categorical,
    OneHotCategorical, MultivariateNormal) and whatever torch's registry adds; for other pairs,
    such as a mixture prior, the one-sample estimate at the code's value. The prior may depend on
    observed variables, :math:`p(c \mid y)`: it is the code's ``p``.

    Args:
        code: The code; a part ``"z[:2]"``; or several codes ``("z", "c")``, whose KLs add.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), eq 3.
        | https://arxiv.org/abs/1312.6114

    Example:
        >>> import vaereg
        >>> z = vaereg.gaussian((torch.ones(4, 3), torch.zeros(4, 3)))
        >>> KL("z")({"z": z}).item()
        1.5
    """

    counts_kl = True

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The mean KL, a scalar in nats."""
        return self.per_sample(batch).mean()

    def per_dimension(self, batch: Batch) -> Tensor:
        """The KL of each dimension, averaged over the batch: ``(D,)`` in nats.

        Raises:
            TypeError: If posterior and prior do not factorise.
        """
        return self._factors(batch).mean(0)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``per_dimension``, and ``active``: the number of dimensions above 0.01 nats.

        Empty where posterior and prior do not factorise.
        """
        try:
            dimensions = self.per_dimension(batch)
        except TypeError:
            return {}
        return {"per_dimension": dimensions, "active": (dimensions > 0.01).sum()}


class FreeBits(_CodeTerm):
    r"""The KL with a floor below which it is not pressed further.

    .. math::
        \text{dimension: } \sum_d \max\Big(\lambda, \tfrac1B \sum_i \mathrm{KL}_{id}\Big), \quad
        \text{sample: } \tfrac1B \sum_i \max(\lambda, \mathrm{KL}_i), \quad
        \text{total: } \max\Big(\lambda, \tfrac1B \sum_i \mathrm{KL}_i\Big)

    The gradient is exactly zero where the floor holds. The value takes the place of ``KL`` of the
    same code.

    Args:
        code: The code, a part, or several codes.
        nats: The floor :math:`\lambda \ge 0`, for each dimension, each row, or the batch mean.
        per: What the floor holds for.

    Raises:
        ValueError: If ``nats`` is negative or ``per`` is unknown.

    References:
        | Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
          eq 15 (``per="dimension"``).
        | https://arxiv.org/abs/1606.04934

    Example:
        >>> import vaereg
        >>> z = vaereg.gaussian((torch.ones(4, 3), torch.zeros(4, 3)))
        >>> round(FreeBits("z", 0.7)({"z": z}).item(), 4)  # 3 dimensions of 0.5 nats each
        2.1
    """

    counts_kl = True

    def __init__(
        self,
        code: Spec,
        nats: float,
        per: Literal["dimension", "sample", "total"] = "dimension",
    ) -> None:
        super().__init__(code)
        if nats < 0:
            raise ValueError(f"{self.name}: expected nats >= 0, got {nats}")
        if per not in ("dimension", "sample", "total"):
            raise ValueError(
                f"{self.name}: expected per to be dimension, sample or total, got {per!r}"
            )
        self.nats = float(nats)
        self.per = per

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The floored KL, a scalar in nats."""
        if self.per == "dimension":
            return self._factors(batch).mean(0).clamp(min=self.nats).sum()
        rows = self.per_sample(batch)
        if self.per == "sample":
            return rows.clamp(min=self.nats).mean()
        return rows.mean().clamp(min=self.nats)


class Capacity(_CodeTerm):
    r"""The distance of the KL from a capacity that a schedule raises.

    .. math:: \text{batch: } \Big| \tfrac1B \sum_i \mathrm{KL}_i - C(t) \Big|, \qquad
        \text{sample: } \tfrac1B \sum_i | \mathrm{KL}_i - C(t) |

    The weight is Burgess et al.'s :math:`\gamma`; the term takes the place of ``KL``.

    Args:
        code: The code, a part, or several codes.
        schedule: :math:`C(t)`: a number, or a callable of the step (:mod:`vaereg.schedules`).
        per: Distance of the batch mean, or mean of the rows' distances.

    Raises:
        ValueError: If ``per`` is unknown.

    References:
        | Understanding disentangling in beta-VAE (Burgess et al., 2018), eq 8.
        | https://arxiv.org/abs/1804.03599

    Example:
        >>> import vaereg
        >>> z = vaereg.gaussian((torch.ones(4, 3), torch.zeros(4, 3)))
        >>> Capacity("z", vaereg.schedules.linear(0.0, 2.0, steps=10))({"z": z}, step=10).item()
        0.5
    """

    counts_kl = True

    def __init__(
        self,
        code: Spec,
        schedule: float | Schedule,
        per: Literal["batch", "sample"] = "batch",
    ) -> None:
        super().__init__(code)
        if per not in ("batch", "sample"):
            raise ValueError(f"{self.name}: expected per to be batch or sample, got {per!r}")
        self.schedule = schedule
        self.per = per

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The distance, a scalar in nats."""
        capacity = self.schedule(step) if callable(self.schedule) else self.schedule
        rows = self.per_sample(batch)
        if self.per == "batch":
            return (rows.mean() - capacity).abs()
        return (rows - capacity).abs().mean()

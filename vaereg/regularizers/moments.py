r"""Moments of the aggregated posterior pressed towards those of a standard normal."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaereg._names import Spec
from vaereg.codes import Batch
from vaereg.functional.families import base_of
from vaereg.functional.moments import dip_penalty, expected_covariance, posterior_covariance
from vaereg.regularizer import Regularizer

__all__ = ["DIP"]


class DIP(Regularizer):
    r"""The distance of the code's covariance over the data from the identity (DIP-VAE).

    .. math:: \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2, \qquad
        C = \begin{cases}
            \operatorname{Cov}_x[\mu] & \text{kind i} \\
            \operatorname{Cov}_x[\mu] + E_x[\Sigma] & \text{kind ii}
        \end{cases}

    with :math:`\mu` and :math:`\Sigma` the posterior's mean and covariance,
    :math:`\Sigma = \operatorname{diag} \sigma^2` where it factorises. Kind ii is the covariance of
    the aggregated posterior, exact for the batch. Covariances are over the batch axis, divided by
    :math:`B` (:func:`vaereg.functional.posterior_covariance`). Posteriors of several codes are
    independent given :math:`x`: only the covariance of their means couples them.

    The square of a covariance read from :math:`B` rows lies above that of the whole data's by its
    sampling variance, about :math:`C_{ii} C_{jj} / B` a pair for kind i. A batch of one row has
    the value of the equation with :math:`\operatorname{Cov}_x[\mu] = 0`: for kind i it is
    :math:`\lambda_d D`, with zero gradient.

    Args:
        code: The code, a part, or several codes; event dimensions are flattened to ``D``.
        kind: Which covariance.
        off_diagonal: :math:`\lambda_{od} \ge 0`.
        diagonal: :math:`\lambda_d \ge 0`; the paper has :math:`10 \lambda_{od}` for kind i and
            :math:`\lambda_{od}` for kind ii.

    Raises:
        ValueError: If ``kind`` is unknown, or a strength is negative or not finite.

    References:
        | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar
          et al., 2018), DIP-VAE-I and DIP-VAE-II. https://arxiv.org/abs/1711.00848

    Example:
        >>> import vaereg
        >>> mean = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # Cov = [[1, 1], [1, 1]]
        >>> z = vaereg.gaussian((mean, torch.zeros(2, 2)))  # and E[Sigma] = I
        >>> DIP("z", kind="i", off_diagonal=3.0, diagonal=1.0)({"z": z}).item()
        6.0
        >>> DIP("z", kind="ii", off_diagonal=3.0, diagonal=1.0)({"z": z}).item()
        8.0
    """

    unit = "squared covariance of z"

    def __init__(
        self,
        code: Spec,
        *,
        kind: Literal["i", "ii"] = "i",
        off_diagonal: float,
        diagonal: float,
    ) -> None:
        super().__init__(code)
        if kind not in ("i", "ii"):
            raise ValueError(f"{self.name}: expected kind to be i or ii, got {kind!r}")
        for name, strength in (("off_diagonal", off_diagonal), ("diagonal", diagonal)):
            if not 0.0 <= strength < math.inf:
                raise ValueError(f"{self.name}: expected {name} >= 0, got {strength}")
        self.kind = kind
        self.off_diagonal = float(off_diagonal)
        self.diagonal = float(diagonal)

    def covariance(self, batch: Batch) -> Tensor:
        """The covariance :math:`C` of the batch, ``(D, D)`` in squared units of z.

        Raises:
            TypeError: If a posterior has no mean, or for kind ii no covariance.
        """
        variable = self.variables[0]
        codes = list(zip(variable.texts, variable.codes(batch, prior=False), strict=True))
        means = [self._mean(name, code.q) for name, code in codes]
        covariance = posterior_covariance(torch.cat(means, 1))
        if self.kind == "i":
            return covariance
        spreads = [expected_covariance(self._variance(name, code.q)) for name, code in codes]
        return covariance + cast(Tensor, torch.block_diag(*spreads))

    def _mean(self, name: str, q: Distribution | None) -> Tensor:
        try:
            return cast(Any, q).mean.flatten(1)
        except NotImplementedError:
            raise TypeError(
                f"{self.name}: expected code {name!r} with a posterior of known mean, got {q}"
            ) from None

    def _variance(self, name: str, q: Distribution | None) -> Tensor:
        """Variances ``(B, D)`` of a factorised posterior, or its covariances ``(B, D, D)``."""
        assert q is not None  # Variable.codes has checked it
        base: Any = base_of(q)
        if isinstance(base, MultivariateNormal) and base.loc.ndim == 2:  # pyright: ignore
            # As in posterior_covariance: not in the 8 bits of autocast.
            with torch.autocast(base.loc.device.type, enabled=False):
                return base.scale_tril @ base.scale_tril.mT
        try:
            if not base.event_shape:
                return base.variance.flatten(1)
        except NotImplementedError:
            pass
        raise TypeError(
            f"{self.name}: expected code {name!r} with a factorised posterior of known variance "
            f"or a MultivariateNormal, got {q}; kind 'i' reads the means only"
        )

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The distance, a scalar in squared units of the covariance of z."""
        covariance = self.covariance(batch)
        return dip_penalty(covariance, off_diagonal=self.off_diagonal, diagonal=self.diagonal)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        r"""Unweighted: ``off_diagonal``, :math:`\sum_{i \ne j} C_{ij}^2`, and ``diagonal``,
        :math:`\sum_i (C_{ii} - 1)^2`.
        """
        covariance = self.covariance(batch).detach()
        return {
            "off_diagonal": dip_penalty(covariance, off_diagonal=1.0, diagonal=0.0),
            "diagonal": dip_penalty(covariance, off_diagonal=0.0, diagonal=1.0),
        }

    def validate(self, batch: Batch) -> None:
        """Also checks that the posterior's moments are finite.

        Raises:
            ValueError: If a value or a covariance is NaN or infinite.
        """
        super().validate(batch)
        text = self.variables[0].text
        if not bool(self.covariance(batch).isfinite().all()):
            raise ValueError(
                f"{self.name}: expected the covariance of {text!r} to be finite, got NaN or "
                "infinity (are the posterior's mean and log-variance finite and in range?)"
            )

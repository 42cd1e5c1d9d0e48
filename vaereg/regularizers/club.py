r"""The contrastive log-ratio upper bound, through a conditional model of one variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from vaereg._checks import check_finite, check_varies, check_width, same_rows
from vaereg._names import Spec
from vaereg.codes import Batch
from vaereg.critics import frozen, input_width, read_input
from vaereg.functional.variational import (
    barber_agakov,
    categorical_club,
    categorical_log_likelihood,
    gaussian_club,
    gaussian_log_likelihood,
    soft_clamp,
)
from vaereg.regularizer import CriticRegularizer, detach_batch

__all__ = ["CLUB"]


class CLUB(CriticRegularizer):
    r"""The contrastive log-ratio upper bound on mutual information.

    .. math:: \frac1B \sum_i \log q(b_i \mid a_i)
        - \frac{1}{B (B - 1)} \sum_i \sum_{j \ne i} \log q(b_j \mid a_i)

    The critic is the conditional model :math:`q(b \mid a)`, fitted by the likelihood of joint
    rows. The value bounds :math:`I(a; b)` from above only as far as that model is close to the
    conditional; where it lags behind the encoder, the value can be anything. At the exact
    conditional it is :math:`I(a; b) + \mathrm{KL}(p(a) p(b) \| p(a, b))`, which can be far
    above: a term to press information out with, not to measure it by.

    The paper's second sum includes :math:`j = i` over :math:`B^2`, which shrinks the estimate by
    :math:`(B - 1) / B`; it is left out here. The product mean is closed form in the mean and the
    variance of ``b`` over the batch, or over ``other`` where one is given.

    With the family ``gaussian`` the critic maps ``a`` to mean and log-variance of ``b``. The
    log-variance is clamped softly (:func:`vaereg.functional.soft_clamp`): a model outside of the
    range keeps a gradient that leads back, and :math:`1 / \sigma^2` stays finite. With the family
    ``categorical``, where a row of zeros in ``b`` is a missing label and takes no part, it maps
    ``a`` to logits.

    Without a pair, as in a batch of one row, the value is 0 with zero gradient; the critic is
    still fitted on that row.

    Args:
        a: The variable that the model reads; flattened where its first layer is a linear map.
        b: The variable that it predicts, the one that is read from ``other``.
        critic: The model, ``(B, *) -> (B, 2 D)``, mean and log-variance along dim 1, for ``b`` of
            ``D`` numbers a row; or ``(B, *) -> (B, C)``.
        family: ``gaussian`` or ``categorical``.
        logvar_range: Ends of the log-variance.

    Raises:
        ValueError: If the family is unknown or the range is empty.

    References:
        | CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information (Cheng et al., 2020),
          section 3. https://arxiv.org/abs/2006.12013

    Example:
        >>> import vaereg
        >>> term = CLUB("z", "w", critic=vaereg.critics.mlp(2, 2 * 3))
        >>> term({"z": torch.randn(4, 2), "w": torch.randn(4, 3)}).shape
        torch.Size([])
    """

    measures_information = True

    def __init__(
        self,
        a: Spec,
        b: Spec,
        *,
        critic: nn.Module,
        family: Literal["gaussian", "categorical"] = "gaussian",
        logvar_range: tuple[float, float] = (-10.0, 10.0),
    ) -> None:
        super().__init__(a, b, critic=critic)
        if family not in ("gaussian", "categorical"):
            raise ValueError(
                f"{self.name}: expected family to be gaussian or categorical, got {family!r}"
            )
        low, high = logvar_range
        if not -80.0 <= low < high <= 80.0:
            raise ValueError(
                f"{self.name}: expected logvar_range of low < high in [-80, 80], got "
                f"{logvar_range}"
            )
        self.family = family
        self.skips_missing = family == "categorical"
        self.logvar_range = (float(low), float(high))

    def _read(self, batch: Batch, *, freeze: bool) -> tuple[Tensor, Tensor]:
        """The variable ``b`` as ``(B, D)``, and the critic's output for it."""
        first, second = self.variables
        a, b = first.values(batch), second.values(batch)
        same_rows(self.name, **{first.text: a, second.text: b})
        width = (first.text, a.shape[1:].numel())
        check_width(self.name, [width], input_width(self.critic))
        critic: Callable[..., Tensor] = frozen(self.critic) if freeze else self.critic
        output, b = critic(read_input(self.critic, a)), b.flatten(1)
        numbers = b.shape[1] * (2 if self.family == "gaussian" else 1)
        if output.shape != (b.shape[0], numbers):
            wanted = "a mean and a log-variance" if self.family == "gaussian" else "a logit"
            raise ValueError(
                f"{self.name}: expected {wanted} from the critic for each of the {b.shape[1]} "
                f"numbers a row of {second.text!r}, shape {(b.shape[0], numbers)}, got "
                f"{tuple(output.shape)}"
            )
        return b, output.to(torch.promote_types(output.dtype, torch.float32))

    def _moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = output.chunk(2, 1)
        return mean, soft_clamp(logvar, *self.logvar_range)

    def _log_likelihood(self, b: Tensor, output: Tensor) -> Tensor:
        if self.family == "gaussian":
            return gaussian_log_likelihood(b, *self._moments(output)).mean()
        rows = categorical_log_likelihood(b, output)
        return barber_agakov(rows, 0.0, b.detach().sum(1).to(rows))

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The contrastive log-ratio, a scalar in nats; gradients reach the variables only."""
        b, output = self._read(batch, freeze=True)
        foreign = None
        if other is not None:
            second = self.variables[1]
            foreign = second.values(other).flatten(1)
            if foreign.shape[1] != b.shape[1]:
                raise ValueError(
                    f"{self.name}: expected variable {second.text!r} of the other batch of "
                    f"{b.shape[1]} numbers a row, got {foreign.shape[1]}"
                )
        if self.family == "gaussian":
            return gaussian_club(b, *self._moments(output), other=foreign)
        return categorical_club(b, output, other=foreign)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the mean log-likelihood of joint rows, a scalar in nats."""
        return -self._log_likelihood(*self._read(detach_batch(batch), freeze=False))

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``log_likelihood``: the mean of joint rows under the critic."""
        found = self._log_likelihood(*self._read(batch, freeze=True))
        return {"log_likelihood": found.detach()}

    def validate(self, batch: Batch) -> None:
        """Also checks that both variables vary and a batch has two rows.

        Raises:
            ValueError: If a variable holds NaN or infinity, or all its rows are equal.
        """
        for variable in self.variables:
            values = variable.values(batch)
            check_finite(self.name, variable.text, values)
            check_varies(self.name, variable.text, values)

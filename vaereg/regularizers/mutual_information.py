r"""Mutual information of two variables through a statistics network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaereg._names import Spec
from vaereg._pairs import Pairs, PairTerm
from vaereg.codes import Batch
from vaereg.functional.bounds import (
    donsker_varadhan,
    jensen_shannon,
    log_mean_exp,
    mine_loss,
    moving_log_average,
)
from vaereg.regularizer import zero_like

__all__ = ["JSD", "MINE"]


class MINE(PairTerm):
    r"""Mutual information by the Donsker-Varadhan bound with MINE's bias-corrected gradient.

    .. math:: I(a; b) \ge E_{p(a, b)}[T(a, b)] - \log E_{p(a) p(b)}[e^{T(a, b)}]

    The value is this expression on the minibatch. The minibatch gradient of its second term is
    biased, because the expectation stands inside of the logarithm; here its denominator is a
    debiased exponential moving average of :math:`E[e^T]` over the critic's steps, on the critic's
    path (``critic_loss``) and on the encoder's path (``forward``) alike. The average lives in log
    space in two buffers, moves only in ``critic_loss`` and in training mode, and includes the
    current batch, which bounds the gradient by :math:`1 / (1 - \text{decay})` times the naive one.
    It also steadies the constant of :math:`T`, to which the bound is blind: a change of it changes
    :math:`E[e^T]` against its average, and the gradient resists. With decay 0 it drifts.

    The term is a lower bound only while the critic is fitted: take several critic steps an encoder
    step, at a rate of the encoder's order. A critic that is outrun displays 0 while the
    information stays.

    Product rows pair ``a`` with ``b`` of ``other`` where one is given, else with other rows of
    ``b``: with all of them where the critic has ``all_pairs``, or else with ``b`` shifted
    cyclically by a random number of rows (a shorter ``other`` is then read cyclically). A batch of
    one row has no product rows: the value is then 0 with zero gradient. A label's row of zeros
    (missing) is one more value of the label: hand in labelled rows only where it should not be.

    Args:
        a: First variable.
        b: Second variable, the one that is read from ``other``.
        critic: The statistics network :math:`T`, see :mod:`vaereg.critics`.
        decay: Decay of the moving average in [0, 1); 0 gives the naive, biased gradient.
        pairs: Product rows: ``shift`` (one a row), ``all``, or ``auto`` as above. A critic without
            ``all_pairs`` is called on :math:`B^2` repeated rows for ``all``.

    Raises:
        ValueError: If ``decay`` is outside of [0, 1), or ``pairs`` is unknown.

    References:
        | Mutual Information Neural Estimation (Belghazi et al., 2018), eqs 10 and 12, section 3.2.
        | https://arxiv.org/abs/1801.04062

    Example:
        >>> import vaereg
        >>> term = MINE("z", "y", critic=vaereg.critics.mlp(2 + 3, 1))
        >>> y = vaereg.labels(torch.tensor([0, 1, 2, 1]), classes=3)
        >>> term({"z": torch.randn(4, 2), "y": y}).shape
        torch.Size([])
    """

    log_average: Tensor
    weight: Tensor

    def __init__(
        self,
        a: Spec,
        b: Spec,
        *,
        critic: nn.Module,
        decay: float = 0.99,
        pairs: Pairs = "auto",
    ) -> None:
        super().__init__(a, b, critic=critic, pairs=pairs)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"{self.name}: expected decay in [0, 1), got {decay}")
        self.decay = float(decay)
        self.register_buffer("log_average", torch.tensor(float("-inf")))
        self.register_buffer("weight", torch.tensor(0.0))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MINE:
        """Move with the module, but stay in float32 at least: 0.99 is no number in bfloat16."""
        super()._apply(fn, recurse)
        self.log_average = self.log_average.to(
            torch.promote_types(self.log_average.dtype, torch.float32)
        )
        self.weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        return self

    def _average(self, product: Tensor) -> tuple[Tensor, Tensor]:
        log_batch = log_mean_exp(product.detach())
        log_average = self.log_average.to(log_batch)
        return moving_log_average(log_average, self.weight.to(log_batch), log_batch, self.decay)

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The bound, a scalar in nats; gradients reach the variables only."""
        scores = self.scores(batch, other)
        if isinstance(scores, Tensor):
            return zero_like(scores)
        joint, product = scores
        log_average, weight = self._average(product)
        return donsker_varadhan(joint, product, log_average - weight.log())

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the bound, a scalar in nats; moves the average in training mode."""
        scores = self.fitting_scores(batch, other)
        if isinstance(scores, Tensor):
            return zero_like(scores)
        joint, product = scores
        log_average, weight = self._average(product)
        if self.training:
            with torch.no_grad():
                # One broken batch must not poison the average for good.
                sound = torch.isfinite(log_average)
                self.log_average.copy_(torch.where(sound, log_average, self.log_average))
                self.weight.copy_(torch.where(sound, weight, self.weight))
        return mine_loss(joint, product, log_average - weight.log())

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``joint`` (mean score of joint rows), ``log_partition`` and debiased ``log_average``."""
        scores = self.scores(batch, other)
        if isinstance(scores, Tensor):
            return {}
        joint, product = scores
        log_average, weight = self._average(product)
        return {
            "joint": joint.mean().detach(),
            "log_partition": log_mean_exp(product.detach()),
            "log_average": log_average - weight.log(),
        }


class JSD(PairTerm):
    r"""The Jensen-Shannon divergence of the joint from the product of the marginals.

    .. math:: \log 2 - \tfrac12 E_{p(a, b)}[\zeta(-T)] - \tfrac12 E_{p(a) p(b)}[\zeta(T)],
        \qquad \zeta(t) = \log(1 + e^t)

    It is 0 exactly where the mutual information is and at most :math:`\log 2`; its gradient is
    bounded and unbiased, which makes it the calm choice where a dependence is to be removed or
    kept rather than measured. At the optimum :math:`T = \log p(a, b) / p(a) p(b)`.

    Product rows as for :class:`MINE`; a batch of one row gives 0 with zero gradient.

    Args:
        a: First variable.
        b: Second variable, the one that is read from ``other``.
        critic: The statistics network :math:`T`.
        pairs: Product rows, as for :class:`MINE`.

    Raises:
        ValueError: If ``pairs`` is unknown.

    References:
        | f-GAN (Nowozin et al., 2016), table 2; Deep InfoMax (Hjelm et al., 2019), eq 4.
        | https://arxiv.org/abs/1606.00709

    Example:
        >>> import vaereg
        >>> term = JSD("a", "b", critic=vaereg.critics.mlp(2, 1))
        >>> term({"a": torch.randn(4, 1), "b": torch.randn(4, 1)}).item() < 0.7
        True
    """

    # KL = 4 JS to second order where the two laws are near.
    information_scale = 4.0

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The bound, a scalar in nats; gradients reach the variables only."""
        scores = self.scores(batch, other)
        return zero_like(scores) if isinstance(scores, Tensor) else jensen_shannon(*scores)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the bound, a scalar in nats."""
        scores = self.fitting_scores(batch, other)
        return zero_like(scores) if isinstance(scores, Tensor) else -jensen_shannon(*scores)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``mutual_information``: the plug-in :math:`E_{p(a, b)}[T]`, no bound, in nats."""
        scores = self.scores(batch, other)
        joint = scores if isinstance(scores, Tensor) else scores[0]
        return {"mutual_information": joint.mean().detach()}

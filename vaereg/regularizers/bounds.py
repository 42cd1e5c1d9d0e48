r"""Further bounds and estimates of mutual information through a statistics network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaereg._names import Spec
from vaereg._pairs import Pairs, PairTerm
from vaereg.codes import Batch
from vaereg.functional.bounds import (
    info_nce,
    jensen_shannon,
    log_mean_exp,
    log_tail,
    nwj,
    smile,
)
from vaereg.regularizer import zero_like

__all__ = ["NWJ", "SMILE", "InfoNCE"]


class NWJ(PairTerm):
    r"""Mutual information by the bound of Nguyen, Wainwright and Jordan (MINE-f).

    .. math:: I(a; b) \ge E_{p(a, b)}[T] - e^{-1} E_{p(a) p(b)}[e^T], \qquad
        T = \min(s, k) + \log\big(1 + \max(s - k, 0)\big)

    with the critic's score :math:`s` and the knee :math:`k`. Value and gradient on a minibatch are
    unbiased, without a moving average; the variance grows with :math:`e^T`. At the optimum
    :math:`T = 1 + \log p(a, b) / p(a) p(b)`.

    Above the knee :math:`e^T = e^k (1 + s - k)` follows its tangent, so that a wild critic meets a
    constant pull back of :math:`e^{k - 1}` in place of an overflow. It is a bound all the same:
    every function of the pair is an admissible critic, and :math:`T` still takes every value.

    Product rows as for :class:`~vaereg.MINE`; a batch of one row gives 0 with zero gradient.

    Args:
        a: First variable.
        b: Second variable, the one that is read from ``other``.
        critic: The statistics network :math:`s`.
        pairs: Product rows: ``shift`` (one a row), ``all``, or ``auto``, which is all where the
            critic has ``all_pairs``.
        knee: :math:`k`. Low, it keeps single wild batches from blinding an adaptive optimizer for
            thousands of steps; a log-ratio above :math:`k - 1` needs a larger score, and more
            steps.

    Raises:
        ValueError: If ``pairs`` is unknown or the knee is not a number from 1 to 80.

    References:
        | Estimating divergence functionals and the likelihood ratio by convex risk minimization
          (Nguyen, Wainwright and Jordan, 2010). https://arxiv.org/abs/0809.0853
        | Mutual Information Neural Estimation (Belghazi et al., 2018), MINE-f.
        | https://arxiv.org/abs/1801.04062

    Example:
        >>> import vaereg
        >>> term = NWJ("a", "b", critic=vaereg.critics.separable(1, 1))
        >>> term({"a": torch.randn(4, 1), "b": torch.randn(4, 1)}).shape
        torch.Size([])
    """

    def __init__(
        self,
        a: Spec,
        b: Spec,
        *,
        critic: nn.Module,
        pairs: Pairs = "auto",
        knee: float = 5.0,
    ) -> None:
        super().__init__(a, b, critic=critic, pairs=pairs)
        if not 1.0 <= knee <= 80.0:
            raise ValueError(f"{self.name}: expected knee in [1, 80], got {knee}")
        self.knee = float(knee)

    def _value(self, scores: tuple[Tensor, Tensor] | Tensor) -> Tensor:
        if isinstance(scores, Tensor):
            return zero_like(scores)
        joint, product = scores
        return nwj(log_tail(joint, self.knee), log_tail(product, self.knee))

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The bound, a scalar in nats; gradients reach the variables only."""
        return self._value(self.scores(batch, other))

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the bound, a scalar in nats."""
        return -self._value(self.fitting_scores(batch, other))

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``joint`` (mean of T on joint rows) and ``log_partition``, which is 1 at the optimum."""
        scores = self.scores(batch, other)
        if isinstance(scores, Tensor):
            return {}
        joint, product = (log_tail(s.detach(), self.knee) for s in scores)
        return {"joint": joint.mean(), "log_partition": log_mean_exp(product)}


class InfoNCE(PairTerm):
    r"""InfoNCE: how well the true partner of a row is told from the other rows' partners.

    .. math:: I(a; b) \ge \frac1B \sum_i \log
        \frac{e^{T(a_i, b_i)}}{\frac1K \sum_{j} e^{T(a_i, b_j)}}

    over the :math:`K` candidates of row :math:`i`: all rows of the batch, or the own partner and
    the rows of ``other``. It never exceeds :math:`\log K`, the diagnostic ``ceiling``: where there
    is more information than that, take larger batches or another term. Below, it is a calm bound
    of low variance. The critic is fixed only up to a function of ``a``.

    It needs the scores of all pairs: take a critic that has ``all_pairs``, or else it is called on
    :math:`B^2` repeated rows. A batch of one row without ``other`` has one candidate: the value is
    0 with zero gradient.

    Args:
        a: First variable.
        b: Second variable, the one that is read from ``other``.
        critic: The statistics network :math:`T`.

    References:
        | Representation Learning with Contrastive Predictive Coding (van den Oord et al., 2018),
          section 2.3. https://arxiv.org/abs/1807.03748

    Example:
        >>> import vaereg
        >>> term = InfoNCE("a", "b", critic=vaereg.critics.separable(1, 1))
        >>> batch = {"a": torch.randn(4, 1), "b": torch.randn(4, 1)}
        >>> bool(term(batch) <= math.log(4))
        True
    """

    def __init__(self, a: Spec, b: Spec, *, critic: nn.Module) -> None:
        super().__init__(a, b, critic=critic, pairs="all")

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The bound, a scalar in nats; gradients reach the variables only."""
        scores = self.scores(batch, other)
        return zero_like(scores) if isinstance(scores, Tensor) else info_nce(*scores)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the bound, a scalar in nats."""
        scores = self.fitting_scores(batch, other)
        return zero_like(scores) if isinstance(scores, Tensor) else -info_nce(*scores)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``accuracy`` and ``ceiling``.

        The accuracy is the share of rows that score their own partner highest; of k that tie, as
        rows of one label do, one in k is right.
        """
        scores = self.scores(batch, other)
        if isinstance(scores, Tensor):
            return {}
        joint, product = scores
        ties = 1.0 + (product == joint[:, None]).sum(1)
        hit = ((joint >= product.amax(1)) / ties).to(joint).mean()
        ceiling = math.log(product.shape[1] + 1)
        return {"accuracy": hit.detach(), "ceiling": torch.full_like(hit, ceiling)}


class SMILE(PairTerm):
    r"""The smoothed mutual-information estimate: Donsker-Varadhan with clipped density ratios.

    .. math:: E_{p(a, b)}[T]
        - \log E_{p(a) p(b)}\big[\operatorname{clip}(e^T, e^{-\tau}, e^{\tau})\big]

    The critic is fitted by the Jensen-Shannon bound, whose optimum is the log density ratio; value
    and encoder gradient are those of the expression above. Clipping bounds the variance. The price
    is that this is **no bound** for finite :math:`\tau`, on either side, and that product rows of
    clipped scores have no gradient.

    Product rows as for :class:`~vaereg.MINE`; a batch of one row gives 0 with zero gradient.

    Args:
        a: First variable.
        b: Second variable, the one that is read from ``other``.
        critic: The statistics network :math:`T`.
        clip: :math:`\tau > 0`.
        pairs: Product rows: ``shift`` (one a row), ``all``, or ``auto``, which is all where the
            critic has ``all_pairs``.

    Raises:
        ValueError: If ``clip`` is not positive or ``pairs`` is unknown.

    References:
        | Understanding the Limitations of Variational Mutual Information Estimators (Song and
          Ermon, 2020), section 4. https://arxiv.org/abs/1910.06222

    Example:
        >>> import vaereg
        >>> term = SMILE("a", "b", critic=vaereg.critics.separable(1, 1), clip=1.0)
        >>> term({"a": torch.randn(4, 1), "b": torch.randn(4, 1)}).shape
        torch.Size([])
    """

    def __init__(
        self,
        a: Spec,
        b: Spec,
        *,
        critic: nn.Module,
        clip: float = 5.0,
        pairs: Pairs = "auto",
    ) -> None:
        super().__init__(a, b, critic=critic, pairs=pairs)
        if not clip > 0.0:
            raise ValueError(f"{self.name}: expected clip > 0, got {clip}")
        self.clip = float(clip)

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The estimate, a scalar in nats; gradients reach the variables only."""
        scores = self.scores(batch, other)
        return zero_like(scores) if isinstance(scores, Tensor) else smile(*scores, self.clip)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the Jensen-Shannon bound, a scalar in nats."""
        scores = self.fitting_scores(batch, other)
        return zero_like(scores) if isinstance(scores, Tensor) else -jensen_shannon(*scores)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``clipped``: the share of product rows whose score is clipped; ``jensen_shannon``."""
        scores = self.scores(batch, other)
        if isinstance(scores, Tensor):
            return {}
        joint, product = (s.detach() for s in scores)
        clipped = (product.abs() > self.clip).to(product).mean()
        return {"clipped": clipped, "jensen_shannon": jensen_shannon(joint, product)}

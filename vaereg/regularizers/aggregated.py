r"""Total correlation and the decomposed KL, from minibatches of Gaussian posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributions import Normal

from vaereg._names import Spec
from vaereg.codes import Batch, Code
from vaereg.functional.aggregated import (
    BACKENDS,
    Estimator,
    aggregated_log_densities,
    pairwise_log_density,
)
from vaereg.functional.families import base_of
from vaereg.regularizer import Regularizer

__all__ = ["DecomposedKL", "MinibatchTC"]

Gather = Callable[[Tensor], tuple[Tensor, int]]


class _Posteriors(NamedTuple):
    z: Tensor  # (B, D)
    mean: Tensor  # (M, D): of the batch, or gathered
    logvar: Tensor
    offset: int  # where the rows' own posteriors begin
    own: tuple[Tensor, Tensor]  # mean and logvar of this rank's rows, (B, D)


class _Aggregated(Regularizer):
    """A term that reads the aggregated posterior of one or several Gaussian codes."""

    # Buffers, None until the first update tells the width: posteriors (2, K, D), the next place,
    # and how many there are.
    bank: Tensor | None
    place: Tensor | None
    filled: Tensor | None

    def __init__(
        self,
        code: Spec,
        *,
        dataset_size: int,
        estimator: Estimator = "mss",
        memory_bank: int = 0,
        gather: Gather | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(code)
        for name, value, least in (
            ("dataset_size", dataset_size, 1), ("memory_bank", memory_bank, 0),
        ):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, Integral):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"{self.name}: expected {name} to be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{self.name}: expected {name} >= {least}, got {value}")
        if estimator not in ("mss", "mws", "plain"):
            raise ValueError(
                f"{self.name}: expected estimator to be mss, mws or plain, got {estimator!r}"
            )
        if backend not in BACKENDS:
            raise ValueError(
                f"{self.name}: expected backend to be one of {', '.join(BACKENDS)}, got "
                f"{backend!r}"
            )
        if memory_bank >= dataset_size:
            raise ValueError(
                f"{self.name}: expected a memory_bank that leaves room for a batch among the "
                f"{dataset_size} rows of the dataset, got {memory_bank}"
            )
        self.dataset_size = int(dataset_size)
        self.estimator: Estimator = estimator
        self.memory_bank = int(memory_bank)
        self.gather = gather
        self.backend = backend
        for buffer in ("bank", "place", "filled"):
            self.register_buffer(buffer, None)

    def _gaussian(self, code: Code, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Value, mean and log-variance, ``(B, D)`` each."""
        base: Any = None if code.q is None else base_of(code.q)
        if type(base) is not Normal:
            raise TypeError(
                f"{self.name}: expected code {name!r} with a factorised Gaussian posterior (see "
                f"vaereg.gaussian), got {code.q}; DensityRatioTC needs samples only"
            )
        logvar = 2.0 * base.scale.log()
        return code.value.flatten(1), base.loc.flatten(1), logvar.flatten(1)

    def _posteriors(self, batch: Batch) -> _Posteriors:
        variable = self.variables[0]
        parts = [
            self._gaussian(code, name)
            for code, name in zip(variable.codes(batch, prior=False), variable.texts, strict=True)
        ]
        z, mean, logvar = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
        own, offset = (mean, logvar), 0
        if self.gather is not None:
            both, offset = self.gather(torch.cat((mean, logvar), 1))
            mean, logvar = both.chunk(2, 1)
        if len(mean) + self.memory_bank > self.dataset_size:
            bank = f" and the {self.memory_bank} of the memory bank" if self.memory_bank else ""
            raise ValueError(
                f"{self.name}: expected dataset_size to be the number of rows of the whole "
                f"dataset, at least the {len(mean)} of the batch{bank}, got {self.dataset_size}"
            )
        return _Posteriors(z, mean, logvar, offset, own)

    def _densities(self, found: _Posteriors) -> tuple[Tensor, Tensor]:
        """Estimates of log q(z_i), ``(B,)``, and log q(z_id), ``(B, D)``."""
        if self.estimator == "mss" and len(found.mean) == 1 and self.dataset_size > 1:
            raise ValueError(
                f"{self.name}: expected a batch of at least 2 rows for estimator 'mss', in which "
                "other rows stand for the rest of the dataset, got 1 (a last partial batch? see "
                "drop_last of torch's DataLoader)"
            )
        if self.bank is None:
            return aggregated_log_densities(
                found.z, found.mean, found.logvar, dataset_size=self.dataset_size,
                estimator=self.estimator, offset=found.offset, backend=self.backend,
            )  # fmt: skip
        if self.bank.shape[2] != found.mean.shape[1]:
            raise ValueError(
                f"{self.name}: expected codes of the memory bank's {self.bank.shape[2]} numbers a "
                f"row, got {found.mean.shape[1]}"
            )
        kept = self.bank.to(found.mean)
        mean, logvar = torch.cat((found.mean, kept[0])), torch.cat((found.logvar, kept[1]))
        others, own = self._bank_weights(len(found.mean), mean)
        return pairwise_log_density(
            found.z, mean, logvar, others, own_log_weight=own, offset=found.offset,
            backend=self.backend,
        )  # fmt: skip

    def _bank_weights(self, fresh: int, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """:func:`log_weights` where the number of components is known on the device only."""
        assert self.filled is not None
        n, count = float(self.dataset_size), fresh + self.filled.to(like.dtype)
        if self.estimator == "mss":
            share = math.log(max(n - 1.0, 1.0) / n) - (count - 1.0).log()
            own = torch.full_like(count, -math.log(n))
        else:
            share = -count.log() - (math.log(n) if self.estimator == "mws" else 0.0)
            own = None
        place = torch.arange(len(like), device=like.device)
        return torch.where(place < fresh + self.filled, share, -math.inf), own

    @torch.no_grad()
    def update(self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0) -> None:
        """Keep the batch's posteriors for the batches to come; nothing without a memory bank."""
        if not self.memory_bank or not self.training:
            return
        found = self._posteriors(batch)
        new = torch.stack((found.mean, found.logvar))[:, -self.memory_bank :].detach()
        if self.bank is None or self.bank.shape[2] != new.shape[2]:
            self._allocate(new.shape[2], new)
        assert self.bank is not None and self.place is not None and self.filled is not None
        if self.bank.device != new.device:  # a state that was loaded from another device
            for name in ("bank", "place", "filled"):
                setattr(self, name, getattr(self, name).to(new.device))
        rows = new.shape[1]
        index = (self.place + torch.arange(rows, device=new.device)) % self.memory_bank
        self.bank.index_copy_(1, index, new.to(self.bank))
        self.place.copy_((self.place + rows) % self.memory_bank)
        self.filled.copy_((self.filled + rows).clamp(max=self.memory_bank))

    def _held(self, batch: Batch) -> dict[str, Tensor]:
        if not self.memory_bank:
            return {}
        value = self.variables[0].values(batch)
        return {"filled": value.new_zeros(()) if self.filled is None else self.filled.to(value)}

    def _allocate(self, width: int, like: Tensor) -> None:
        # Its width is that of the first batch.
        self.bank = like.new_zeros(2, self.memory_bank, width)
        self.place = torch.zeros((), dtype=torch.long, device=like.device)
        self.filled = torch.zeros((), dtype=torch.long, device=like.device)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        stored = state_dict.get(f"{prefix}bank")
        if isinstance(stored, Tensor) and self.memory_bank != stored.shape[1]:
            args[-1].append(  # torch collects the errors of all modules
                f"{self.name}: expected a state with a memory bank of {self.memory_bank}, got one "
                f"of {stored.shape[1]}"
            )
        elif isinstance(stored, Tensor):
            self._allocate(stored.shape[2], stored)
        else:  # of before the first update
            self.bank = self.place = self.filled = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class MinibatchTC(_Aggregated):
    r"""The total correlation of the aggregated posterior, estimated from the batch itself.

    .. math:: \mathrm{TC} = \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big) \approx
        \frac1B \sum_i \Big[ \log \hat q(z_i) - \sum_d \log \hat q(z_{id}) \Big]

    with :math:`\hat q` the mixture of the batch's posteriors by the weights of
    :func:`vaereg.functional.log_weights`. ``mss`` is unbiased for :math:`q(z)`, not for its
    logarithm: each log-density is too low in small batches, and their difference off in either
    direction, even below 0, by an amount that ``vaereg.metrics.estimator_bias`` measures. ``mws``
    and ``plain`` have the same gradient; ``mws`` differs by the constant :math:`(D - 1) \log N`,
    and its value is no number of nats.

    A memory bank keeps the last K posteriors, detached, as further components, which lowers the
    bias of each log-density. It is filled by :meth:`update`, which ``Objective.update(batch)``
    calls, once an iteration, after the main step. Kept ones should be of other rows than the
    batch: K of at most an epoch's rows less a batch, drawn without replacement.

    Args:
        code: A Gaussian code, a part of it, or several codes, whose joint is read.
        dataset_size: :math:`N`, the number of rows of the whole training set.
        estimator: ``"mss"`` (stratified), ``"mws"`` or ``"plain"``.
        memory_bank: :math:`K`; the batch and the bank hold at most N rows.
        gather: For data parallel training: a function from this rank's ``(B, 2 D)`` to the rows of
            all ranks, with gradient, and the index at which this rank's begin.
        backend: See :func:`vaereg.functional.pairwise_log_density`.

    Raises:
        ValueError: If ``dataset_size`` or ``memory_bank`` is no integer or out of range, or the
            estimator is unknown.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), eq 2, section 3.1 and
          appendix C.
        | https://arxiv.org/abs/1802.04942

    Example:
        >>> import vaereg
        >>> term = MinibatchTC("z", dataset_size=1000)
        >>> z = vaereg.gaussian((torch.randn(8, 1), torch.zeros(8, 1)))
        >>> abs(term({"z": z}).item()) < 1e-5  # one dimension has no total correlation
        True
    """

    def __init__(
        self,
        code: Spec,
        *,
        dataset_size: int,
        estimator: Estimator = "mss",
        memory_bank: int = 0,
        gather: Gather | None = None,
        backend: str = "auto",
    ) -> None:
        # Not inherited, for the sake of the name in the errors of a call.
        super().__init__(
            code, dataset_size=dataset_size, estimator=estimator, memory_bank=memory_bank,
            gather=gather, backend=backend,
        )  # fmt: skip

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The estimate, a scalar in nats."""
        joint, marginals = self._densities(self._posteriors(batch))
        return (joint - marginals.sum(1)).mean()

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``filled``, the posteriors that the memory bank holds, where there is one."""
        return self._held(batch)


class DecomposedKL(_Aggregated):
    r"""The KL from the prior in three parts, each with a weight of its own.

    .. math::
        \underbrace{E \log \frac{q(z \mid x)}{\hat q(z)}}_{\text{mi}}
        + \underbrace{E \log \frac{\hat q(z)}{\prod_d \hat q(z_d)}}_{\text{tc}}
        + \underbrace{\sum_d E \log \frac{\hat q(z_d)}{p(z_d)}}_{\text{dimwise}}

    Their sum is the Monte-Carlo KL, whatever the estimator: it takes the place of ``KL``. With the
    weights ``mi``, ``tc`` and ``dimwise`` it is beta-TCVAE's objective.

    Args:
        code: As for :class:`MinibatchTC`; its prior may be any with a density, which is read as a
            whole: its ``dimwise`` part then holds what the prior's coordinates share.
        dataset_size: :math:`N`.
        mi: Weight of the index-code mutual information.
        tc: Weight of the total correlation.
        dimwise: Weight of the dimension-wise KL.
        estimator: As for :class:`MinibatchTC`, like all that follow.
        memory_bank: :math:`K`.
        gather: For data parallel training.
        backend: See :func:`vaereg.functional.pairwise_log_density`.

    Raises:
        ValueError: As for :class:`MinibatchTC`.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), eqs 2 and 4.
        | https://arxiv.org/abs/1802.04942

    Example:
        >>> import vaereg
        >>> z = vaereg.gaussian((torch.randn(8, 3), torch.zeros(8, 3)))
        >>> parts = DecomposedKL("z", dataset_size=1000).diagnostics({"z": z})
        >>> sorted(parts)
        ['dimwise', 'mi', 'tc']
    """

    counts_kl = True

    def __init__(
        self,
        code: Spec,
        *,
        dataset_size: int,
        mi: float = 1.0,
        tc: float = 1.0,
        dimwise: float = 1.0,
        estimator: Estimator = "mss",
        memory_bank: int = 0,
        gather: Gather | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            code, dataset_size=dataset_size, estimator=estimator, memory_bank=memory_bank,
            gather=gather, backend=backend,
        )  # fmt: skip
        for name, weight in (("mi", mi), ("tc", tc), ("dimwise", dimwise)):
            if not isinstance(weight, (int, float)) or not math.isfinite(weight):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"{self.name}: expected {name} to be a number, got {weight!r}")
        self.mi, self.tc, self.dimwise = mi, tc, dimwise

    def _parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        found = self._posteriors(batch)
        joint, marginals = self._densities(found)
        product = marginals.sum(1)
        mean, logvar = found.own
        own = (found.z - mean).square() * (-logvar).exp() + logvar + math.log(2.0 * math.pi)
        prior = torch.stack([
            _rows(cast(Any, code.p).log_prob(code.value))
            for code in self.variables[0].codes(batch)
        ]).sum(0)  # fmt: skip
        return (
            (-0.5 * own.sum(1) - joint).mean(), (joint - product).mean(), (product - prior).mean()
        )  # fmt: skip

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The weighted sum of the parts, a scalar in nats."""
        mi, tc, dimwise = self._parts(batch)
        return self.mi * mi + self.tc * tc + self.dimwise * dimwise

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """The parts ``mi``, ``tc`` and ``dimwise``, unweighted, in nats; ``filled`` as for
        :class:`MinibatchTC`.
        """
        parts = dict(zip(("mi", "tc", "dimwise"), self._parts(batch), strict=True))
        return {**parts, **self._held(batch)}


def _rows(density: Tensor) -> Tensor:
    # Coordinates that nobody declared an event are batch dimensions to torch.
    return density.flatten(1).sum(1) if density.ndim > 1 else density

r"""Data parallel training: rows of all processes with gradient, and gradients of the objective.

Only encoder and decoder are wrapped (``DistributedDataParallel``, FSDP); the objective is
replicated, with the same initial state everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vaereg.objective import Objective

__all__ = ["all_gather", "average_gradients"]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.group, ctx.rows = group, len(x)
        every = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
        dist.all_gather(every, x.contiguous(), group=group)
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Every process's loss depends on these rows.
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total[dist.get_rank(ctx.group) * ctx.rows :][: ctx.rows], None


def all_gather(x: Tensor, group: Any = None) -> tuple[Tensor, int]:
    r"""The rows of all processes, in the order of ranks, and the index at which one's own begin.

    Its gradient is the sum over all processes' losses: where gradients are averaged afterwards, as
    by ``DistributedDataParallel``, they are those of the mean of the losses. To be handed to the
    terms of the aggregated posterior as ``gather=vaereg.distributed.all_gather``. Without an
    initialised process group it returns ``x`` itself and 0.

    Args:
        x: ``(B, ...)``, of the same shape in every process.
        group: A process group; default all processes.

    Returns:
        ``(W B, ...)`` for ``W`` processes, and rank times ``B``.

    Example:
        >>> rows, begin = all_gather(torch.zeros(4, 2))
        >>> rows.shape, begin
        (torch.Size([4, 2]), 0)
    """
    if not (dist.is_available() and dist.is_initialized()):
        return x, 0
    apply: Any = _Gather.apply  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return apply(x, group), dist.get_rank(group) * len(x)


@torch.no_grad()
def average_gradients(objective: Objective, group: Any = None) -> None:
    """Average the gradients of critics, multipliers and learned priors over processes.

    To be called between ``backward`` and the optimizer's step, after the critics' backward and
    after the main one. Encoder and decoder are left to ``DistributedDataParallel``. Every process
    must have gradients on the same parameters, as it has where all run the same program; those
    that have none stay without. Without an initialised process group nothing happens.

    Args:
        objective: The objective, replicated in every process.
        group: A process group; default all processes.

    Example:
        >>> import vaereg
        >>> average_gradients(vaereg.Objective(kl=vaereg.KL("z")))
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    world = dist.get_world_size(group)
    held: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter in objective.parameters():
        if parameter.grad is not None:
            key = parameter.grad.dtype, parameter.grad.device
            held.setdefault(key, []).append(parameter.grad)
    for grads in held.values():  # one message for each dtype and device
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat, group=group)
        begin = 0
        for g in grads:
            g.copy_(flat[begin : begin + g.numel()].view_as(g) / world)
            begin += g.numel()

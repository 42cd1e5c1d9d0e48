"""Which backend serves a call, and the operator that autograd and ``torch.compile`` see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaereg.ops import _build, pairwise_cpu
from vaereg.ops.pairwise_reference import pairwise_reference

__all__ = ["BACKENDS", "pairwise"]

BACKENDS = ("auto", "reference", "cpu", "triton")
_SMALL = 1 << 14  # elements up to which the plain form is as fast as any


@torch.library.custom_op("vaereg::pairwise_forward", mutates_args=())
def _forward(
    z: Tensor, mean: Tensor, logvar: Tensor, weights: Tensor, own: Tensor | None, offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run: Any = pairwise_cpu.compiled_forward if _compiled(z) else pairwise_cpu.lean_forward
    return run(z, mean, logvar, weights, own, offset)


@_forward.register_fake
def _(
    z: Tensor, mean: Tensor, logvar: Tensor, weights: Tensor, own: Tensor | None, offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, d = z.shape
    return z.new_empty(b), z.new_empty(b, d), z.new_empty(b, 2), z.new_empty(b, d, 2)


@torch.library.custom_op("vaereg::pairwise_backward", mutates_args=())
def _backward(
    grad_joint: Tensor,
    grad_marginals: Tensor,
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    weights: Tensor,
    own: Tensor | None,
    offset: int,
    joint_state: Tensor,
    marginal_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    run: Any = pairwise_cpu.compiled_backward if _compiled(z) else pairwise_cpu.lean_backward
    return run(
        grad_joint, grad_marginals, z, mean, logvar, weights, own, offset, joint_state,
        marginal_state,
    )  # fmt: skip


@_backward.register_fake
def _(
    grad_joint: Tensor,
    grad_marginals: Tensor,
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    weights: Tensor,
    own: Tensor | None,
    offset: int,
    joint_state: Tensor,
    marginal_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(z), torch.empty_like(mean), torch.empty_like(logvar)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    z, mean, logvar, weights, own, ctx.offset = inputs
    _, _, joint_state, marginal_state = output
    ctx.save_for_backward(z, mean, logvar, weights, own, joint_state, marginal_state)
    ctx.mark_non_differentiable(joint_state, marginal_state)


def _gradients(ctx: Any, grad_joint: Tensor, grad_marginals: Tensor, *_: Any) -> Any:
    z, mean, logvar, weights, own, joint_state, marginal_state = ctx.saved_tensors
    found = _backward(
        grad_joint, grad_marginals, z, mean, logvar, weights, own, ctx.offset, joint_state,
        marginal_state,
    )  # fmt: skip
    return (*found, None, None, None)


def _nothing(ctx: Any, inputs: Any, output: Any) -> None:
    """There is nothing to keep for a derivative that does not exist."""


def _once(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(
        "pairwise_log_density: expected first derivatives only of this backend, got a second one; "
        'use backend="reference"'
    )


def _by_slices(operator: Any) -> Any:
    """``torch.func.vmap`` by one call a slice: the kernels take one problem at a time."""

    def mapped(info: Any, in_dims: Any, *args: Any) -> Any:
        results = [
            operator(*(
                a.select(d, k) if isinstance(a, Tensor) and d is not None else a
                for a, d in zip(args, in_dims, strict=True)
            ))
            for k in range(info.batch_size)
        ]  # fmt: skip
        stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)

    return mapped


_forward.register_autograd(_gradients, setup_context=_setup)
_backward.register_autograd(_once, setup_context=_nothing)
_forward.register_vmap(_by_slices(_forward))
_backward.register_vmap(_by_slices(_backward))


def _compiled(z: Tensor) -> bool:
    return z.dtype == torch.float32 and z.device.type == "cpu" and _build.library() is not None


def pairwise(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    weights: Tensor,
    own: Tensor | None,
    offset: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Joint ``(B,)`` and marginals ``(B, D)`` of checked arguments of one dtype and device."""
    elements = z.shape[0] * mean.numel()
    if backend == "auto":
        small = elements <= _SMALL or z.device.type != "cpu"
        backend = "reference" if small else "cpu"
    if backend == "reference":
        return pairwise_reference(z, mean, logvar, weights, own, offset)
    if backend == "cpu":
        joint, marginals, *_ = _forward(z, mean, logvar, weights, own, offset)
        return joint, marginals
    raise NotImplementedError(backend)

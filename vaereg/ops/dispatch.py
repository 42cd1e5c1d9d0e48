"""Which backend serves a call, and the operator that autograd and ``torch.compile`` see."""

from __future__ import annotations

import functools
import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor

from vaereg.ops import _build, pairwise_cpu
from vaereg.ops.pairwise_reference import pairwise_reference

__all__ = ["BACKENDS", "pairwise"]

BACKENDS = ("auto", "reference", "cpu", "triton")
# Elements up to which the plain form is as fast as any: beside the C++ kernel, beside chunks of
# rows, which compute all pairs once more in the backward pass, and on a GPU.
_SMALL, _SMALL_CHUNKS, _SMALL_CUDA = 1 << 14, 1 << 17, 200_000


# Defined by hand: the decorator of torch.library adds a few hundred microseconds a step, more than
# the kernels take for a small batch.
_library = torch.library.Library("vaereg", "DEF")
_PROBLEM = "Tensor z, Tensor mean, Tensor logvar, Tensor weights, Tensor? own, SymInt offset"
_library.define(f"pairwise_forward({_PROBLEM}, str backend) -> (Tensor, Tensor, Tensor, Tensor)")
_library.define(
    f"pairwise_backward(Tensor grad_joint, Tensor grad_marginals, {_PROBLEM}, "
    "Tensor joint_state, Tensor marginal_state, str backend) -> (Tensor, Tensor, Tensor)"
)


def _run_forward(z: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *problem, backend = rest
    return _kernels(backend, z)[0](z, *problem)


def _run_backward(
    grad_joint: Tensor, grad_marginals: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *problem, backend = rest
    return _kernels(backend, z)[1](grad_joint, grad_marginals, z, *problem)


def _fake_forward(z: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, d = z.shape
    return z.new_empty(b), z.new_empty(b, d), z.new_empty(b, 2), z.new_empty(b, d, 2)


def _fake_backward(
    grad_joint: Tensor, grad_marginals: Tensor, z: Tensor, mean: Tensor, logvar: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    # Of the shapes alone: the kernels' results are contiguous whatever the inputs are.
    return z.new_empty(z.shape), mean.new_empty(mean.shape), logvar.new_empty(logvar.shape)


def _by_slices(name: str) -> Any:
    """``torch.func.vmap`` by one call a slice: the kernels take one problem at a time."""

    def mapped(info: Any, in_dims: Any, *args: Any) -> Any:
        operator = getattr(torch.ops.vaereg, name)
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


for _name, _run, _fake in (
    ("pairwise_forward", _run_forward, _fake_forward),
    ("pairwise_backward", _run_backward, _fake_backward),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vaereg::{_name}", _fake, lib=_library)
    torch.library.register_vmap(f"vaereg::{_name}", _by_slices(_name), lib=_library)


class _Pairwise(torch.autograd.Function):
    """Joint, marginals, and the state that the backward pass reads."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        z: Tensor,
        mean: Tensor,
        logvar: Tensor,
        weights: Tensor,
        own: Tensor | None,
        offset: int,
        backend: str,
    ) -> Any:
        return torch.ops.vaereg.pairwise_forward(z, mean, logvar, weights, own, offset, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        z, mean, logvar, weights, own, ctx.offset, ctx.backend = inputs
        _, _, joint_state, marginal_state = output
        ctx.save_for_backward(z, mean, logvar, weights, own, joint_state, marginal_state)
        ctx.mark_non_differentiable(joint_state, marginal_state)

    @staticmethod
    def backward(ctx: Any, grad_joint: Tensor, grad_marginals: Tensor, *_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, mean, logvar, weights, own, joint_state, marginal_state = ctx.saved_tensors
        # The wrapper's only use is the error of a second derivative.
        wanted = torch.is_grad_enabled()
        run = cast(Any, _Gradients).apply if wanted else torch.ops.vaereg.pairwise_backward
        found = run(
            grad_joint, grad_marginals, z, mean, logvar, weights, own, ctx.offset, joint_state,
            marginal_state, ctx.backend,
        )  # fmt: skip
        return (*found, None, None, None, None)


class _Gradients(torch.autograd.Function):
    """The gradients, which have none of their own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
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
        backend: str,
    ) -> Any:
        return torch.ops.vaereg.pairwise_backward(
            grad_joint, grad_marginals, z, mean, logvar, weights, own, offset, joint_state,
            marginal_state, backend,
        )  # fmt: skip

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """There is nothing to keep for a derivative that does not exist."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(
            "pairwise_log_density: expected first derivatives only of this backend, got a second "
            'one; use backend="reference"'
        )


def _has_kernel() -> bool:
    return _build.library() is not None


def _compiled(z: Tensor) -> bool:
    return z.dtype == torch.float32 and z.device.type == "cpu" and _has_kernel()


def _kernels(backend: str, z: Tensor) -> tuple[Any, Any]:
    """Forward and backward pass of a backend."""
    if backend == "triton":
        triton: Any = import_module("vaereg.ops.pairwise_triton")
        return triton.triton_forward, triton.triton_backward
    if _compiled(z):
        return pairwise_cpu.compiled_forward, pairwise_cpu.compiled_backward
    return pairwise_cpu.lean_forward, pairwise_cpu.lean_backward


def _choose(backend: str, z: Tensor, elements: int) -> str:
    """The backend that serves a call.

    Raises:
        ImportError: If Triton is asked for and not installed.
        ValueError: If a backend does not serve the device or dtype.
    """
    cuda, single = z.device.type == "cuda", z.dtype == torch.float32
    if backend == "auto":
        if elements <= (_SMALL_CUDA if cuda else _SMALL):
            return "reference"
        # In this order: nothing is compiled for calls that would not use it. A trace of
        # torch.compile does not ask, for files would be read in it.
        small = not cuda and elements <= _SMALL_CHUNKS and not torch.compiler.is_compiling()
        if small and not _compiled(z):
            return "reference"
        # "cpu" without its kernel is chunks of rows, on any device.
        return "triton" if cuda and single and _has_triton() else "cpu"
    if backend == "cpu" and z.device.type != "cpu":
        raise ValueError(f"backend: expected tensors on the CPU for 'cpu', got {z.device}")
    if backend == "triton":
        if not _has_triton():
            raise ImportError('backend="triton" needs Triton: pip install triton')
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        if not single or not (cuda or interpreted):
            raise ValueError(
                "backend: expected CUDA tensors of at most 32 bits for 'triton' (or CPU ones "
                f"under TRITON_INTERPRET=1), got {z.dtype} on {z.device}"
            )
    return backend


@functools.cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def pairwise(
    z: Tensor,
    mean: Tensor,
    logvar: Tensor,
    weights: Tensor | float,
    own: Tensor | None,
    offset: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Joint ``(B,)`` and marginals ``(B, D)`` of checked arguments of one dtype and device."""
    backend = _choose(backend, z, z.shape[0] * mean.numel())
    if backend == "reference":
        return pairwise_reference(z, mean, logvar, weights, own, offset)
    if not isinstance(weights, Tensor):
        weights = z.new_full((), weights)
    apply = cast(Any, _Pairwise).apply
    joint, marginals, *_ = apply(z, mean, logvar, weights, own, offset, backend)
    return joint, marginals

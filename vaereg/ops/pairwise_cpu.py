"""The pairwise log-density on the CPU without the (B, M, D) tensor: compiled, and in chunks."""

from __future__ import annotations

import concurrent.futures
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vaereg.ops._build import library
from vaereg.ops.pairwise_reference import weight_rows

__all__ = ["compiled_backward", "compiled_forward", "lean_backward", "lean_forward"]

# Joint, marginals, and what the backward pass reads of them: running maxima and sums,
# (B, 2) and (B, D, 2), in bits for the compiled form and in nats for the other.
Result = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor]

_LOG2E = 1.0 / math.log(2.0)
_PARALLEL = 1 << 18  # elements from which a second thread pays
_CHUNK = 1 << 19  # elements of a chunk of the lean form
_pool: concurrent.futures.ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    # The threads of a pool do not live on in a forked process, which would wait for them forever.
    os.register_at_fork(after_in_child=_forget_pool)


def _split(rows: int, elements: int) -> list[tuple[int, int]]:
    """Ranges of rows, one a thread; whole blocks of the kernel as far as possible."""
    threads = torch.get_num_threads() if elements >= _PARALLEL else 1
    size = max(4, -(-rows // (4 * threads)) * 4)
    return [(i, min(i + size, rows)) for i in range(0, rows, size)]


def _each(work: Callable[[int, int, int], None], parts: list[tuple[int, int]]) -> None:
    """Run parts side by side: the kernel holds no lock of the interpreter."""
    global _pool
    if len(parts) < 2:
        for k, (begin, end) in enumerate(parts):
            work(k, begin, end)
        return
    if _pool is None:
        _pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "vaereg-pairwise")
    others = [_pool.submit(work, k, *part) for k, part in enumerate(parts) if k]
    try:
        work(0, *parts[0])
    finally:
        for future in others:
            future.result()


def _weight_arguments(
    weights: Tensor, own: Tensor | None, offset: int
) -> tuple[list[Tensor], list[Any]]:
    """The tensors to keep alive, and the kernel's arguments: table, stride, base, own, ..."""
    kept: list[Tensor] = []
    arguments: list[Any] = [None, 0, float(weights) * _LOG2E if weights.ndim == 0 else 0.0]
    if weights.ndim:
        bits = (weights.detach().float() * _LOG2E).contiguous()
        kept, arguments = [bits], [bits.data_ptr(), bits.shape[1] if bits.ndim == 2 else 0, 0.0]
    if own is None:
        return kept, [*arguments, None, 0, 0]
    mine = (own.detach().float() * _LOG2E).contiguous()
    return [*kept, mine], [*arguments, mine.data_ptr(), int(mine.ndim == 1), offset]


def _prepared(kernel: Any, mean: Tensor, logvar: Tensor) -> Tensor:
    m, d = mean.shape
    out = torch.empty(kernel.pairwise_prepared_size(m, d))
    kernel.pairwise_prepare(mean.data_ptr(), logvar.data_ptr(), m, d, out.data_ptr())
    return out


def compiled_forward(
    z: Tensor, mean: Tensor, logvar: Tensor, weights: Tensor, own: Tensor | None, offset: int
) -> Result:
    """Joint, marginals and state by the compiled kernel, for float32."""
    kernel: Any = library()
    z, mean, logvar = z.contiguous(), mean.contiguous(), logvar.contiguous()
    (b, d), m = z.shape, len(mean)
    prepared = _prepared(kernel, mean, logvar)
    kept, weight = _weight_arguments(weights, own, offset)
    joint, marginals = z.new_empty(b), z.new_empty(b, d)
    joint_state, marginal_state = z.new_empty(b, 2), z.new_empty(b, d, 2)
    out = [t.data_ptr() for t in (joint_state, marginal_state, joint, marginals)]

    def work(_: int, begin: int, end: int) -> None:
        kernel.pairwise_forward(prepared.data_ptr(), z.data_ptr(), m, d, begin, end, *weight, *out)

    _each(work, _split(b, b * m * d))
    del kept
    if weights.ndim and bool(weights.isnan().any()):
        # The kernel leaves such components out; an error must not vanish.
        rows = weights.isnan().any(-1)
        joint[rows], marginals[rows] = math.nan, math.nan
    return joint, marginals, joint_state, marginal_state


def compiled_backward(
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
) -> Gradients:
    """Gradients for ``z``, ``mean`` and ``logvar`` by the compiled kernel."""
    kernel: Any = library()
    z, mean, logvar = z.contiguous(), mean.contiguous(), logvar.contiguous()
    (b, d), m = z.shape, len(mean)
    prepared = _prepared(kernel, mean, logvar)
    kept, weight = _weight_arguments(weights, own, offset)
    read = [t.contiguous() for t in (joint_state, marginal_state, grad_joint, grad_marginals)]
    given = [t.data_ptr() for t in read]
    grad_z = torch.empty_like(z)
    parts = _split(b, b * m * d)
    padded = (prepared.numel() - 1) // (3 * d + 1)
    # A sum of its own for each thread, added up in a fixed order: no atomics.
    sums = z.new_zeros(len(parts), 2, d, padded)

    def work(k: int, begin: int, end: int) -> None:
        kernel.pairwise_backward(
            prepared.data_ptr(), z.data_ptr(), m, d, begin, end, *weight, *given,
            grad_z.data_ptr(), sums[k, 0].data_ptr(), sums[k, 1].data_ptr(),
        )  # fmt: skip

    _each(work, parts)
    del kept
    total = sums[0]
    for part in sums[1:]:
        total += part
    grad_mean, grad_logvar = (
        t[:, :m].mT.clone(memory_format=torch.contiguous_format) for t in total
    )
    return grad_z, grad_mean, grad_logvar


def _chunks(z: Tensor, mean: Tensor) -> Iterator[tuple[int, int]]:
    size = max(1, _CHUNK // max(1, mean.numel()))
    for begin in range(0, len(z), size):
        yield begin, min(begin + size, len(z))


def _state(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum and sum of ``e^(x - maximum)`` over dim 1, and those exponentials in place."""
    top = x.amax(1, keepdim=True)
    x.sub_(torch.where(top == -math.inf, 0.0, top)).exp_()
    return top.squeeze(1), x.sum(1), x


def lean_forward(
    z: Tensor, mean: Tensor, logvar: Tensor, weights: Tensor, own: Tensor | None, offset: int
) -> Result:
    """Joint, marginals and state, a few rows at a time, in any floating dtype."""
    scale = (-0.5 * logvar).exp()
    constant = -0.5 * (logvar + math.log(2.0 * math.pi))
    total = constant.sum(1)
    (b, d), m = z.shape, len(mean)
    joint_state, marginal_state = z.new_empty(b, 2), z.new_empty(b, d, 2)
    for begin, end in _chunks(z, mean):
        w = weight_rows(weights, own, offset, begin, end, m).to(z.dtype)
        x = (z[begin:end, None] - mean).mul_(scale).square_().mul_(-0.5)  # (b, M, D)
        tops, sums, _ = _state(x.sum(2).add_(total).add_(w))
        joint_state[begin:end, 0], joint_state[begin:end, 1] = tops, sums
        tops, sums, _ = _state(x.add_(constant).add_(w[..., None]))
        marginal_state[begin:end, :, 0], marginal_state[begin:end, :, 1] = tops, sums
    joint = joint_state[:, 0] + joint_state[:, 1].log()
    marginals = marginal_state[..., 0] + marginal_state[..., 1].log()
    return joint, marginals, joint_state, marginal_state


def lean_backward(
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
) -> Gradients:
    """Gradients for ``z``, ``mean`` and ``logvar``, a few rows at a time."""
    scale = (-0.5 * logvar).exp()
    constant = -0.5 * (logvar + math.log(2.0 * math.pi))
    total = constant.sum(1)
    grad_z = torch.empty_like(z)
    grad_mean, grad_logvar = torch.zeros_like(mean), torch.zeros_like(logvar)
    for begin, end in _chunks(z, mean):
        w = weight_rows(weights, own, offset, begin, end, len(mean)).to(z.dtype)
        t = (z[begin:end, None] - mean).mul_(scale)  # (b, M, D)
        x = t.square().mul_(-0.5)
        p = _share(x.sum(2).add_(total).add_(w), grad_joint[begin:end], joint_state[begin:end])
        x = _share(
            x.add_(constant).add_(w[..., None]), grad_marginals[begin:end],
            marginal_state[begin:end],
        )  # fmt: skip
        x.add_(p[..., None])  # the gradient's share of each component
        grad_logvar.sub_(x.sum(0), alpha=0.5)
        x.mul_(t)
        grad_logvar.add_(t.mul_(x).sum(0), alpha=0.5)
        x.mul_(scale)
        grad_mean.add_(x.sum(0))
        grad_z[begin:end] = x.sum(1).neg_()
    return grad_z, grad_mean, grad_logvar


def _share(x: Tensor, grad: Tensor, state: Tensor) -> Tensor:
    """``grad e^(x - maximum) / sum`` in place; 0 where every weight is 0."""
    top, total = state[..., 0], state[..., 1]
    some = total != 0.0  # also where it is nan
    x.sub_(torch.where(some, top, 0.0)[:, None]).exp_()
    return x.mul_(torch.where(some, grad / total, 0.0)[:, None])

"""The pairwise log-density on a GPU without the (B, M, D) tensor: its Triton kernels started."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
from torch import Tensor

from vaereg.ops import _triton_kernels

__all__ = ["triton_backward", "triton_forward"]

_kernels: Any = _triton_kernels
_LANES, _BLOCK = _triton_kernels.LANES, _triton_kernels.BLOCK
_REGISTERS = 16  # components, or rows, along the reduced axis of a tile
_GENERAL = 8  # the same where the weights of pairs need registers of their own
_COLUMNS = 8  # coordinates of a block that adds up splits of the forward pass
# Warps that run, and that are held, at once. One GPU's numbers for all of them: another grid
# would be another order of the sums.
_RUNNING, _HELD = 4 * 132, 12 * 132
_PARTIAL = 1 << 26  # numbers that partial results may hold, unless warps would be missing
# Triton leaves out fused multiply-adds, other than explicit ones, by default from 3.10 on.
_WARP: dict[str, Any] = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}
_WARPS: dict[str, Any] = {**_WARP, "num_warps": 4}


class _Shared:
    """Sizes, weights and padded copies, transposed, that the kernels of one pass share."""

    def __init__(
        self,
        z: Tensor,
        mean: Tensor,
        logvar: Tensor,
        weights: Tensor,
        own: Tensor | None,
        state: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    ) -> None:
        (b, d), m = z.shape, len(mean)
        nb, nm = _blocks(b, _LANES), _blocks(m, _LANES)
        self.bp, self.mp = nb * _LANES, nm * _LANES
        self.sizes = (b, m, d, nb, nm)
        table = weights.detach().contiguous()
        self.weights = (table, table if own is None else own.detach().contiguous())
        self.kind = {"KIND": weights.ndim, "OWN": 0 if own is None else own.ndim + 1}
        backward = state is not None
        self.rows = z.new_empty(d, 3 if backward else 1, self.bp)
        self.comps, self.totals = z.new_empty(d, 4, self.mp), z.new_empty(2, self.mp)
        self.shares = z.new_empty(2, self.bp) if backward else self.totals
        size = self.bp // _BLOCK if backward else 1
        self.shifted = z.new_empty(size, dtype=torch.int32)
        _kernels.prepare[((self.bp + self.mp) // _BLOCK,)](
            z.contiguous(), mean.contiguous(), logvar.contiguous(), table,
            *(state or (self.totals,) * 4), self.rows, self.comps, self.totals, self.shares,
            self.shifted, *self.sizes, KIND=weights.ndim, BACKWARD=backward, **_WARPS,
        )  # fmt: skip


def _blocks(n: int, size: int) -> int:
    return -(-n // size)


@functools.lru_cache(maxsize=256)
def _splits(tiles: int, n: int, width: int) -> tuple[int, int]:
    """Splits of ``n`` blocks, and blocks of each, for the shortest time; none is empty.

    Args:
        tiles: Programs of one split.
        n: Blocks to divide.
        width: Numbers that a program leaves behind for a lane.
    """
    most = max(tiles, min(_HELD, max(_RUNNING, _PARTIAL // (width * _LANES))))
    # A warp that runs alone waits for memory, for about half of its time.
    found = [
        (max(1.5, _blocks(tiles * splits, _RUNNING)) * per, splits, per)
        for splits, per in ((_blocks(n, per), per) for per in range(1, n + 1))
        if tiles * splits <= most
    ]
    return min(found)[1:]


def _device(z: Tensor) -> Any:
    return torch.cuda.device(z.device) if z.is_cuda else contextlib.nullcontext()


def triton_forward(
    z: Tensor, mean: Tensor, logvar: Tensor, weights: Tensor, own: Tensor | None, offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Joint, marginals and state (shifts and sums, in bits) by the kernels, for float32."""
    (b, d), m = z.shape, len(mean)
    joint, marginals = z.new_empty(b), z.new_empty(b, d)
    joint_state, marginal_state = z.new_empty(b, 2), z.new_empty(b, d, 2)
    with _device(z):
        s = _Shared(z, mean, logvar, weights, own, None)
        splits, per = _splits(s.bp // _LANES, _blocks(m, _REGISTERS), d)
        partial, joint_partial = z.new_empty(splits, d, s.bp), z.new_empty(splits, 2, s.bp)
        _kernels.forward[(s.bp // _LANES, splits)](
            s.rows, s.comps, s.totals, *s.weights, partial, joint_partial, *s.sizes, offset, per,
            **s.kind, BI=_LANES, BJ=_REGISTERS, SUB=_GENERAL, **_WARP,
        )  # fmt: skip
        _kernels.combine[(s.bp // _BLOCK, _blocks(d, _COLUMNS))](
            s.rows, s.comps, *s.weights, partial, joint_partial, joint, marginals, joint_state,
            marginal_state, *s.sizes, offset, splits, **s.kind, BD=_COLUMNS, BJ=_REGISTERS,
            **_WARP,
        )  # fmt: skip
    return joint, marginals, joint_state, marginal_state


def triton_backward(
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
    """Gradients for ``z``, ``mean`` and ``logvar`` by the _kernels."""
    (b, d), m = z.shape, len(mean)
    grad_z, grad_mean, grad_logvar = z.new_empty(b, d), z.new_empty(m, d), z.new_empty(m, d)
    state = (
        joint_state.contiguous(), marginal_state.contiguous(), grad_joint.contiguous(),
        grad_marginals.contiguous(),
    )  # fmt: skip
    with _device(z):
        s = _Shared(z, mean, logvar, weights, own, state)
        kept = (s.rows, s.comps, s.totals, s.shares, s.shifted, *s.weights)
        columns = _blocks(d, _BLOCK)
        splits, per = _splits(s.bp // _LANES, _blocks(m, _REGISTERS), d)
        partial = z.new_empty(splits, d, s.bp)
        _kernels.backward_rows[(s.bp // _LANES, splits)](
            *kept, partial, *s.sizes, offset, per, **s.kind, BI=_LANES, BJ=_REGISTERS,
            SUB=_GENERAL, **_WARP,
        )  # fmt: skip
        _kernels.gradients[(s.bp // _BLOCK, columns)](
            s.comps, partial, grad_z, grad_z, b, d, s.bp // _LANES, splits, OF_ROWS=True, **_WARPS
        )
        splits, per = _splits(s.mp // _LANES, _blocks(b, _REGISTERS), 2 * d)
        del partial  # its memory serves again
        partial = z.new_empty(splits, d, 2, s.mp)
        _kernels.backward_components[(s.mp // _LANES, splits)](
            *kept, partial, *s.sizes, offset, per, **s.kind, BI=_REGISTERS, BJ=_LANES,
            SUB=_GENERAL, **_WARP,
        )  # fmt: skip
        _kernels.gradients[(s.mp // _BLOCK, columns)](
            s.comps, partial, grad_mean, grad_logvar, m, d, s.mp // _LANES, splits,
            OF_ROWS=False, **_WARPS,
        )  # fmt: skip
    return grad_z, grad_mean, grad_logvar

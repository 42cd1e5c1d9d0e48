"""What the kernels share: constants, weights, and transposed copies of what is given."""

# Inside of a kernel, names stand for what the compiler makes of them.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["BLOCK", "LANES", "prepare"]

LANES = 128  # rows, or components, along the lanes of a tile: 4 a thread
BLOCK = 32  # rows of a block in the kernels around the loops
_LOG2E: Any = tl.constexpr(1.4426950408889634)
_LN2: Any = tl.constexpr(0.6931471805599453)
_LOG_2PI: Any = tl.constexpr(1.8378770664093453)
_INF: Any = tl.constexpr(float("inf"))
_LANES: Any = tl.constexpr(LANES)
_BLOCK: Any = tl.constexpr(BLOCK)


@triton.jit
def _base(table, KIND: tl.constexpr):
    """What all weights count from, in bits: a finite weight common to all."""
    base = 0.0
    if KIND == 0:
        base = tl.load(table) * _LOG2E
        base = tl.where(tl.abs(base) < _INF, base, 0.0)
    return base


@triton.jit
def _bits(weight, base):
    """In bits, from the base; explicit, so that the product is rounded alike in all kernels."""
    return tl.fma(weight, _LOG2E, -base)


@triton.jit
def _common(table, j, m, KIND: tl.constexpr):
    """Log-weights that components ``j`` have in every row but their own, from the base."""
    weight = tl.zeros_like(j).to(tl.float32)
    if KIND == 0:
        weight += _bits(tl.load(table), _base(table, KIND))
    elif KIND == 1:
        weight += _bits(tl.load(table + j, mask=j < m, other=0.0), 0.0)
    return weight


@triton.jit
def _weights(table, own, i, j, b, m, offset, KIND: tl.constexpr, OWN: tl.constexpr):
    """Log-weights of rows ``i`` and components ``j``, from the base."""
    i = tl.minimum(i, b - 1)
    if KIND == 2:
        at = i.to(tl.int64) * m + j
        weight = _bits(tl.load(table + at, mask=j < m, other=0.0), 0.0)
    else:
        weight = _common(table, j, m, KIND) + tl.zeros_like(i).to(tl.float32)
    if OWN > 0:
        mine = _bits(tl.load(own + i * (OWN - 1)), _base(table, KIND))
        weight = tl.where(i + offset == j, mine, weight)
    return weight


@triton.jit
def _prepare_components(mean, logvar, table, comps, totals, pid, m, d, mp, KIND: tl.constexpr):
    """``comps`` (D, 4, M): mean, -s, c, c + weight; ``totals`` (2, M): sums of c, and + weight."""
    j = pid * _BLOCK + tl.arange(0, _BLOCK)
    weight = _common(table, j, m, KIND)
    total = tl.zeros([_BLOCK], tl.float64)
    for start in range(0, d, _BLOCK):
        e = start + tl.arange(0, _BLOCK)
        given = (j < m)[:, None] & (e < d)[None, :]
        at = j[:, None].to(tl.int64) * d + e[None, :]
        mu = tl.load(mean + at, mask=given, other=0.0)
        lv = tl.load(logvar + at, mask=given, other=0.0).to(tl.float64)
        s = (tl.exp(-lv) * (-0.5 * _LOG2E)).to(tl.float32)
        c = (lv + _LOG_2PI) * (-0.5 * _LOG2E)
        total += tl.sum(tl.where(given, c, 0.0), 1)
        # Times a difference of 0, an infinite scale would give nan, and 0 times an infinite one.
        s = tl.where(s < -3e38, -3e38, s)
        c = tl.where((j < m)[:, None], c, -_INF).to(tl.float32)
        to = comps + e.to(tl.int64)[:, None] * (4 * mp) + j[None, :]
        inside = (e < d)[:, None]
        tl.store(to, tl.trans(mu), mask=inside)
        tl.store(to + mp, tl.trans(s), mask=inside)
        tl.store(to + 2 * mp, tl.trans(c), mask=inside)
        tl.store(to + 3 * mp, tl.trans(c + weight[:, None]), mask=inside)
    total = tl.where(j < m, total, -_INF).to(tl.float32)
    tl.store(totals + j, total)
    tl.store(totals + mp + j, total + weight)


@triton.jit
def _prepare_rows(
    z, joint_state, marginal_state, grad_joint, grad_marginals, rows, shares, shifted, pid, b, d,
    bp, BACKWARD: tl.constexpr,
):  # fmt: skip
    """``rows`` (D, 1 or 3, B): z, gradient per sum, shift; ``shares`` (2, B): of the joint."""
    i = pid * _BLOCK + tl.arange(0, _BLOCK)
    far = tl.zeros([_BLOCK], tl.int32)
    for start in range(0, d, _BLOCK):
        e = start + tl.arange(0, _BLOCK)
        given = (e < d)[None, :]
        # Padding repeats the last row, with gradients of 0: what is finite there is finite here.
        at = tl.minimum(i, b - 1)[:, None].to(tl.int64) * d + e[None, :]
        inside = (e < d)[:, None]
        planes: tl.constexpr = 3 if BACKWARD else 1
        to = rows + e.to(tl.int64)[:, None] * (planes * bp) + i[None, :]
        tl.store(to, tl.trans(tl.load(z + at, mask=given, other=0.0)), mask=inside)
        if BACKWARD:
            # A row of which every weight is 0 has the value -inf, and the gradient 0.
            top = tl.load(marginal_state + 2 * at, mask=given, other=0.0)
            total = tl.load(marginal_state + 2 * at + 1, mask=given, other=0.0)
            grad = tl.load(grad_marginals + at, mask=given & (i < b)[:, None], other=0.0)
            top = tl.where(top == -_INF, _INF, top)
            far = tl.maximum(far, tl.max((top != 0.0).to(tl.int32), 1))
            tl.store(to + bp, tl.trans(tl.where(total != 0.0, grad / total, 0.0)), mask=inside)
            tl.store(to + 2 * bp, tl.trans(top), mask=inside)
    if BACKWARD:
        top = tl.load(joint_state + 2 * i, mask=i < b, other=-_INF)
        total = tl.load(joint_state + 2 * i + 1, mask=i < b, other=0.0)
        grad = tl.load(grad_joint + i, mask=i < b, other=0.0)
        tl.store(shares + i, tl.where(total != 0.0, grad / total, 0.0))
        tl.store(shares + bp + i, tl.where(top == -_INF, _INF, top))
        tl.store(shifted + pid, tl.max(far, 0))


@triton.jit(do_not_specialize=["b", "m", "d", "nb", "nm"])
def prepare(
    z, mean, logvar, table, joint_state, marginal_state, grad_joint, grad_marginals, rows, comps,
    totals, shares, shifted, b, m, d, nb, nm, KIND: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Transposed and padded copies, for lanes that run along rows or components."""
    pid = tl.program_id(0)
    row_blocks = nb * (_LANES // _BLOCK)
    if pid < row_blocks:
        _prepare_rows(
            z, joint_state, marginal_state, grad_joint, grad_marginals, rows, shares, shifted, pid,
            b, d, nb * _LANES, BACKWARD,
        )  # fmt: skip
    else:
        _prepare_components(
            mean, logvar, table, comps, totals, pid - row_blocks, m, d, nm * _LANES, KIND
        )

"""The forward pass: sums over components, tile by tile, and the sums of those."""

# Inside of a kernel, names stand for what the compiler makes of them.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from vaereg.ops._triton_common import _BLOCK, _INF, _LANES, _LN2, _base, _weights

__all__ = ["combine", "forward"]

_LOW: Any = tl.constexpr(2.0**-64)
_HIGH: Any = tl.constexpr(2.0**64)


@triton.jit
def _merge(top, total, value):
    """Running maximum and sum (1, I) with the sum of ``2^value`` over the first axis added."""
    high = tl.maximum(top, tl.max(value, 0, keep_dims=True))
    shift = tl.where(high == -_INF, 0.0, high)
    total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(value - shift), 0, keep_dims=True)
    return high, total


@triton.jit
def _forward_tile(
    rows, comps, totals, table, own, sums, top, total, i, j, done, b, m, d, offset, bp, mp,
    KIND: tl.constexpr, OWN: tl.constexpr, GENERAL: tl.constexpr,
):  # fmt: skip
    """Add components ``j`` (J, 1) to the sums of rows ``i`` (1, I)."""
    # The last tile's sums may have been stored by other threads: layouts differ.
    tl.debug_barrier()
    acc = tl.zeros_like(i + j).to(tl.float32)
    if GENERAL:
        weight = _weights(table, own, i, j, b, m, offset, KIND, OWN)
    plane: tl.constexpr = 2 if GENERAL else 3
    for e in range(d):
        at = comps + e * (4 * mp) + j
        u = tl.load(rows + e * bp + i) - tl.load(at)
        s = tl.load(at + mp)
        q = u * u
        value = tl.fma(q, s, tl.load(at + plane * mp))
        acc = tl.fma(q, s, acc)
        if GENERAL:
            value += weight
        to = sums + e * bp + i
        before = tl.load(to, mask=tl.zeros_like(i) + done > 0, other=0.0)
        tl.store(to, before + tl.sum(tl.exp2(value), 0, keep_dims=True))
    value = tl.load(totals + (plane - 2) * mp + j) + acc
    if GENERAL:
        value += weight
    return _merge(top, total, value)


@triton.jit(do_not_specialize=["b", "m", "d", "nb", "nm", "offset", "per"])
def forward(
    rows, comps, totals, table, own, partial, joint_partial, b, m, d, nb, nm, offset, per,
    KIND: tl.constexpr, OWN: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """Sums over the components of a split: marginal (splits, D, B), joint (splits, 2, B)."""
    i0 = tl.program_id(0) * BI
    split = tl.program_id(1).to(tl.int64)
    i = i0 + tl.arange(0, BI)[None, :]
    bp, mp = (nb * _LANES).to(tl.int64), (nm * _LANES).to(tl.int64)
    sums = partial + split * d * bp
    top = tl.full([1, BI], -_INF, tl.float32)
    total = tl.zeros([1, BI], tl.float32)
    first = tl.program_id(1) * per
    for tile in range(first, tl.minimum(first + per, tl.cdiv(m, BJ))):
        j0 = tile * BJ
        # Components of their own that these rows have here.
        meet = (j0 < tl.minimum(i0 + BI, b) + offset) & (j0 + BJ > i0 + offset)
        if (KIND == 2) | ((OWN > 0) & meet):
            for k in range(BJ // SUB):
                j = j0 + k * SUB + tl.arange(0, SUB)[:, None]
                done = (tile - first) * BJ + k * SUB
                top, total = _forward_tile(
                    rows, comps, totals, table, own, sums, top, total, i, j, done, b, m, d,
                    offset, bp, mp, KIND, OWN, True,
                )  # fmt: skip
        else:
            j = j0 + tl.arange(0, BJ)[:, None]
            top, total = _forward_tile(
                rows, comps, totals, table, own, sums, top, total, i, j, tile - first, b, m, d,
                offset, bp, mp, KIND, OWN, False,
            )  # fmt: skip
    to = joint_partial + split * (2 * bp) + i
    tl.store(to, top)
    tl.store(to + bp, total)


@triton.jit
def _nats(shift, total, base):
    """In float64: a shift of many bits would cost the sum its digits."""
    return ((shift + tl.log2(total.to(tl.float64)) + base) * _LN2).to(tl.float32)


@triton.jit
def _combine_joint(joint_partial, joint, joint_state, base, i, b, bp, splits):
    """The splits' running maxima and sums as one."""
    top = tl.full(i.shape, -_INF, tl.float32)
    total = tl.zeros(i.shape, tl.float32)
    for split in range(splits):
        at = joint_partial + split * (2 * bp) + i
        other = tl.load(at)
        high = tl.maximum(top, other)
        shift = tl.where(high == -_INF, 0.0, high)
        total = total * tl.exp2(top - shift) + tl.load(at + bp) * tl.exp2(other - shift)
        top = high
    tl.store(joint + i, _nats(top, total, base), mask=i < b)
    tl.store(joint_state + 2 * i, top, mask=i < b)
    tl.store(joint_state + 2 * i + 1, total, mask=i < b)


@triton.jit(do_not_specialize=["b", "m", "d", "nb", "nm", "offset", "splits"])
def combine(
    rows, comps, table, own, partial, joint_partial, joint, marginals, joint_state, marginal_state,
    b, m, d, nb, nm, offset, splits, KIND: tl.constexpr, OWN: tl.constexpr, BD: tl.constexpr,
    BJ: tl.constexpr,
):  # fmt: skip
    """Add up the splits; marginals that went out of range are computed again with a maximum."""
    i = tl.program_id(0) * _BLOCK + tl.arange(0, _BLOCK)[None, :]
    start = tl.program_id(1) * BD
    e = start + tl.arange(0, BD)[:, None]
    bp, mp = (nb * _LANES).to(tl.int64), (nm * _LANES).to(tl.int64)
    base = _base(table, KIND)
    given = (e < d) & (i < b)
    total = tl.zeros([BD, _BLOCK], tl.float32)
    for split in range(splits):
        total += tl.load(partial + (split * d + e) * bp + i, mask=given, other=0.0)
    fine = given & (total > _LOW) & (total < _HIGH)
    lost = (given & (fine == 0)).to(tl.int32)
    to = i.to(tl.int64) * d + e
    tl.store(marginals + to, _nats(0.0, total, base), mask=fine)
    tl.store(marginal_state + 2 * to, tl.zeros_like(total), mask=fine)
    tl.store(marginal_state + 2 * to + 1, total, mask=fine)
    if tl.max(tl.max(lost, 0), 0) > 0:
        for one in range(start, tl.minimum(start + BD, d)):
            high = tl.full([1, _BLOCK], -_INF, tl.float32)
            again = tl.zeros([1, _BLOCK], tl.float32)
            x = tl.load(rows + one * bp + i)
            for j0 in range(0, m, BJ):
                j = j0 + tl.arange(0, BJ)[:, None]
                at = comps + one * (4 * mp) + j
                u = x - tl.load(at)
                value = tl.fma(u * u, tl.load(at + mp), tl.load(at + 2 * mp))
                value += _weights(table, own, i, j, b, m, offset, KIND, OWN)
                high, again = _merge(high, again, value)
            mask = tl.max(tl.where(e == one, lost, 0), 0, keep_dims=True) > 0
            here = i.to(tl.int64) * d + one
            tl.store(marginals + here, _nats(high, again, base), mask=mask)
            tl.store(marginal_state + 2 * here, high, mask=mask)
            tl.store(marginal_state + 2 * here + 1, again, mask=mask)
    if start == 0:
        _combine_joint(joint_partial, joint, joint_state, base, i, b, bp, splits)

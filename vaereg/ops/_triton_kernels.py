r"""Triton kernels of the pairwise log-density; ``pairwise_triton`` starts them.

With log-densities in bits,

.. math::
    L_{ijd} = c_{jd} - s_{jd} u_{ijd}^2, \quad u_{ijd} = z_{id} - \mu_{jd}, \quad
    s_{jd} = \tfrac12 \log_2(e)\, e^{-\log\sigma_{jd}^2}, \quad
    c_{jd} = -\tfrac12 \log_2(e) (\log\sigma_{jd}^2 + \log 2\pi)

The difference is taken before it is squared or scaled: expanding the square loses all digits
where a posterior is narrow.

One warp works on a tile whose first axis, the reduced one, lies in the registers of a thread: a
sum over it costs no exchange. The unit for :math:`2^x` bounds the speed: one result takes as long
as 8 other instructions. The loop of the forward pass stays below, for it takes no running maximum
of the marginals: :math:`\sum_j 2^{L_{ijd}}` in float32 neither overflows nor loses what matters
unless it ends outside of ``_LOW`` to ``_HIGH``, and there it is computed again with a maximum.

Sums over tiles meet in partial results, added up in a fixed order: no atomics.
"""

# Inside of a kernel, names stand for what the compiler makes of them.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = [
    "BLOCK", "LANES", "backward_components", "backward_rows", "combine", "forward", "gradients",
    "prepare",
]  # fmt: skip

LANES = 128  # rows, or components, along the lanes of a tile: 4 a thread
BLOCK = 32  # rows of a block in the kernels around the loops
_LOG2E: Any = tl.constexpr(1.4426950408889634)
_LN2: Any = tl.constexpr(0.6931471805599453)
_LOG_2PI: Any = tl.constexpr(1.8378770664093453)
_INF: Any = tl.constexpr(float("inf"))
_LOW: Any = tl.constexpr(2.0**-64)
_HIGH: Any = tl.constexpr(2.0**64)
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


@triton.jit
def _backward_tile(
    rows, comps, totals, shares, table, own, sums, i, j, done, b, m, d, offset, bp, mp,
    KIND: tl.constexpr, OWN: tl.constexpr, OF_ROWS: tl.constexpr, GENERAL: tl.constexpr,
):  # fmt: skip
    """Add a tile's part of the gradients of what lies along its second axis, rows or components.

    Rows: ``sum_j W u s``. Components: ``sum_i W u`` and the gradient of the log-variance. W is the
    weight of component j in row i, joint and marginal, times the gradients from above.
    """
    tl.debug_barrier()
    if GENERAL:
        weight = _weights(table, own, i, j, b, m, offset, KIND, OWN)
    plane: tl.constexpr = 2 if GENERAL else 3
    # The same operations in the same order as in the forward pass: the shares then sum to 1.
    acc = tl.zeros_like(i + j).to(tl.float32)
    for e in range(d):
        at = comps + e * (4 * mp) + j
        u = tl.load(rows + e * (3 * bp) + i) - tl.load(at)
        acc = tl.fma(u * u, tl.load(at + mp), acc)
    value = tl.load(totals + (plane - 2) * mp + j) + acc
    if GENERAL:
        value += weight
    joint = tl.load(shares + i) * tl.exp2(value - tl.load(shares + bp + i))
    for e in range(d):
        at = comps + e * (4 * mp) + j
        of = rows + e * (3 * bp) + i
        u = tl.load(of) - tl.load(at)
        s = tl.load(at + mp)
        q = u * u
        value = tl.fma(q, s, tl.load(at + plane * mp))
        if GENERAL:
            value = value + weight - tl.load(of + 2 * bp)
        share = tl.fma(tl.load(of + bp), tl.exp2(value), joint)
        if OF_ROWS:
            to = sums + e * bp + i
            add = tl.sum(share * u * s, 0, keep_dims=True)
            before = tl.load(to, mask=tl.zeros_like(i) + done > 0, other=0.0)
            tl.store(to, before + add)
        else:
            to = sums + e * (2 * mp) + j
            first = tl.sum(share * u, 0, keep_dims=True)
            second = tl.sum(share * q, 0, keep_dims=True) * (s * -_LN2)
            second -= 0.5 * tl.sum(share, 0, keep_dims=True)
            keep = tl.zeros_like(j) + done > 0
            before = tl.load(to, mask=keep, other=0.0)
            tl.store(to, before + first)
            before = tl.load(to + mp, mask=keep, other=0.0)
            tl.store(to + mp, before + second)


@triton.jit(do_not_specialize=["b", "m", "d", "nb", "nm", "offset", "per"])
def backward_rows(
    rows, comps, totals, shares, shifted, table, own, partial, b, m, d, nb, nm, offset, per,
    KIND: tl.constexpr, OWN: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """Sums over the components of a split: (splits, D, B)."""
    i0 = tl.program_id(0) * BI
    i = i0 + tl.arange(0, BI)[None, :]
    bp, mp = (nb * _LANES).to(tl.int64), (nm * _LANES).to(tl.int64)
    sums = partial + tl.program_id(1) * (d * bp)
    far = tl.max(tl.load(shifted + tl.arange(0, BI // _BLOCK) + i0 // _BLOCK), 0) > 0
    first = tl.program_id(1) * per
    for tile in range(first, tl.minimum(first + per, tl.cdiv(m, BJ))):
        j0 = tile * BJ
        meet = (j0 < tl.minimum(i0 + BI, b) + offset) & (j0 + BJ > i0 + offset)
        if (KIND == 2) | far | ((OWN > 0) & meet):
            for k in range(BJ // SUB):
                j = j0 + k * SUB + tl.arange(0, SUB)[:, None]
                _backward_tile(
                    rows, comps, totals, shares, table, own, sums, i, j,
                    (tile - first) * BJ + k, b, m, d, offset, bp, mp, KIND, OWN, True, True,
                )  # fmt: skip
        else:
            j = j0 + tl.arange(0, BJ)[:, None]
            _backward_tile(
                rows, comps, totals, shares, table, own, sums, i, j, tile - first, b, m, d,
                offset, bp, mp, KIND, OWN, True, False,
            )  # fmt: skip


@triton.jit(do_not_specialize=["b", "m", "d", "nb", "nm", "offset", "per"])
def backward_components(
    rows, comps, totals, shares, shifted, table, own, partial, b, m, d, nb, nm, offset, per,
    KIND: tl.constexpr, OWN: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr, SUB: tl.constexpr,
):  # fmt: skip
    """Sums over the rows of a split, for mean and log-variance: (splits, D, 2, M)."""
    j0 = tl.program_id(0) * BJ
    j = j0 + tl.arange(0, BJ)[None, :]
    bp, mp = (nb * _LANES).to(tl.int64), (nm * _LANES).to(tl.int64)
    sums = partial + tl.program_id(1) * (d * 2 * mp)
    first = tl.program_id(1) * per
    for tile in range(first, tl.minimum(first + per, tl.cdiv(b, BI))):
        i0 = tile * BI
        far = tl.load(shifted + i0 // _BLOCK) > 0
        meet = (j0 < tl.minimum(i0 + BI, b) + offset) & (j0 + BJ > i0 + offset)
        if (KIND == 2) | far | ((OWN > 0) & meet):
            for k in range(BI // SUB):
                i = i0 + k * SUB + tl.arange(0, SUB)[:, None]
                _backward_tile(
                    rows, comps, totals, shares, table, own, sums, i, j,
                    (tile - first) * BI + k, b, m, d, offset, bp, mp, KIND, OWN, False, True,
                )  # fmt: skip
        else:
            i = i0 + tl.arange(0, BI)[:, None]
            _backward_tile(
                rows, comps, totals, shares, table, own, sums, i, j, tile - first, b, m, d,
                offset, bp, mp, KIND, OWN, False, False,
            )  # fmt: skip


@triton.jit(do_not_specialize=["n", "d", "blocks", "splits"])
def gradients(comps, partial, first_out, second_out, n, d, blocks, splits, OF_ROWS: tl.constexpr):
    """Add up the splits: gradient of z, or of mean and log-variance."""
    k = tl.program_id(0) * _BLOCK + tl.arange(0, _BLOCK)[None, :]
    e = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)[:, None]
    given = (e < d) & (k < n)
    padded = (blocks * _LANES).to(tl.int64)
    planes: tl.constexpr = 1 if OF_ROWS else 2
    first = tl.zeros([_BLOCK, _BLOCK], tl.float32)
    second = tl.zeros([_BLOCK, _BLOCK], tl.float32)
    for split in range(splits):
        at = partial + (split * d + e) * (planes * padded) + k
        first += tl.load(at, mask=given, other=0.0)
        if not OF_ROWS:
            second += tl.load(at + padded, mask=given, other=0.0)
    to = k.to(tl.int64) * d + e
    if OF_ROWS:
        tl.store(first_out + to, first * (2.0 * _LN2), mask=given)
    else:
        s = tl.load(comps + e * (4 * padded) + padded + k, mask=given, other=0.0)
        tl.store(first_out + to, first * s * (-2.0 * _LN2), mask=given)
        tl.store(second_out + to, second, mask=given)

"""The backward pass: gradients of the rows, of the components, and their sums over tiles."""

# Inside of a kernel, names stand for what the compiler makes of them.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from vaereg.ops._triton_common import _BLOCK, _LANES, _LN2, _weights

__all__ = ["backward_components", "backward_rows", "gradients"]


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

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

# pyright: basic

from __future__ import annotations

from vaereg.ops._triton_backward import backward_components, backward_rows, gradients
from vaereg.ops._triton_common import BLOCK, LANES, prepare
from vaereg.ops._triton_forward import combine, forward

__all__ = [
    "BLOCK", "LANES", "backward_components", "backward_rows", "combine", "forward", "gradients",
    "prepare",
]  # fmt: skip

"""A kernel of nothing but exp2, to measure how many a second a GPU can do."""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK, CALLS = 256, 1024


@triton.jit
def powers(out, block: tl.constexpr, calls: tl.constexpr):  # pyright: ignore
    """``calls`` dependent calls on each of ``block`` numbers in registers."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    x = place.to(tl.float32) * 1e-9
    for _ in range(calls):
        # x -> -2^x settles near -0.64: no overflow, and nothing to fold away.
        x = -tl.exp2(x)
    tl.store(out + place, x)

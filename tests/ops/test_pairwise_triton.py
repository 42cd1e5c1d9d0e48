"""Triton kernels of the pairwise log-density against the equation in float64.

Triton decides when it is imported whether kernels are interpreted, and another test may have
imported it before. So the tests of this module run natively where there is a GPU, and otherwise
in a process of their own, started by ``test_under_the_interpreter``.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaereg.ops.pairwise_reference import pairwise_reference

pytest.importorskip("triton")
# The interpreter computes with NumPy, which warns of log2(0).
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NATIVE = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if NATIVE else "cpu"
INF = math.inf

runs_here = pytest.mark.skipif(
    not (NATIVE or INTERPRETED), reason="no GPU: run by test_under_the_interpreter"
)
if NATIVE or INTERPRETED:
    from vaereg.ops import pairwise_triton


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_under_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2],
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no kernel writes is nan, and shows."""
    new_empty = torch.Tensor.new_empty

    def poisoned(self: Tensor, *size, **options):
        out = new_empty(self, *size, **options)
        return out.fill_(math.nan if out.is_floating_point() else 1)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


@pytest.fixture(autouse=True)
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger tiles: the interpreter's time is that of the number of operations, not their size."""
    if INTERPRETED and "several_tiles" not in request.node.name:
        monkeypatch.setattr(pairwise_triton, "_REGISTERS", 32)
        monkeypatch.setattr(pairwise_triton, "_GENERAL", 16)


def inputs(b: int, m: int, d: int, low: float = -12.0, high: float = 2.0, offset: int = 0):
    """Means within 5, samples of the components that are the rows' own."""
    mean = (2.0 * torch.randn(m, d)).clamp(-5.0, 5.0)
    logvar = low + (high - low) * torch.rand(m, d)
    at = (torch.arange(b) + offset) % m
    z = mean[at] + (0.5 * logvar[at]).exp() * torch.randn(b, d)
    return z, mean, logvar


def both(z, mean, logvar, weights, own=None, offset=0):
    """Values and gradients: of the kernels, of the equation in float64, and in float32."""
    grads = torch.randn(len(z)), torch.randn_like(z)
    there = [t.to(DEVICE) for t in (z, mean, logvar, weights)]
    mine = None if own is None else own.to(DEVICE)
    *values, joint_state, marginal_state = pairwise_triton.triton_forward(*there, mine, offset)
    found = pairwise_triton.triton_backward(
        *[t.to(DEVICE) for t in grads], *there, mine, offset, joint_state, marginal_state
    )
    results = [[t.cpu() for t in (*values, *found)]]
    for dtype in (torch.float64, torch.float32):
        leaves = [t.to(dtype).requires_grad_() for t in (z, mean, logvar)]
        last = None if own is None else own.to(dtype)
        outputs = pairwise_reference(*leaves, weights.to(dtype), last, offset)
        slopes = torch.autograd.grad(outputs, leaves, [g.to(dtype) for g in grads])
        results.append([t.detach() for t in (*outputs, *slopes)])
    return results


def compare(results: list[list[Tensor]], *, extreme: bool = False) -> None:
    """Within 1e-6 and 1e-5 of the largest number; if ``extreme``, beyond what float32 loses."""
    names = ["joint", "marginals", "grad z", "grad mean", "grad logvar"]
    for k, (name, found, truth, plain) in enumerate(zip(names, *results, strict=True)):
        assert found.dtype == torch.float32 and found.shape == truth.shape, name
        gone = truth == -INF
        assert torch.equal(found == -INF, gone), name
        found, truth, plain = (t.double().masked_fill(gone, 0.0) for t in (found, truth, plain))
        assert truth.isfinite().all(), name
        bound = truth.abs().max() * 1e-5 if k > 1 else truth.abs().max().clamp_min(1.0) * 1e-6
        if extreme:
            bound += (plain - truth).abs().max()
        error = (found - truth).abs().max()
        assert error <= bound, f"{name}: {error:.1e}, expected at most {bound:.1e}"


@runs_here
@pytest.mark.parametrize(
    "shape",
    [(64, 64, 7), (61, 61, 1), (37, 83, 7), (33, 70, 64), (50, 129, 10), (1, 5, 4), (5, 1, 2)],
    ids=str,
)
def test_plain(shape):
    weight = torch.tensor(-math.log(shape[1]))
    compare(both(*inputs(*shape), weight))


@runs_here
@pytest.mark.parametrize("own, offset", [((), 0), ((7,), 43), ((7,), 63)], ids=str)
@pytest.mark.parametrize("weights", [(), (70,), (7, 70)], ids=str)
def test_weights(weights, own, offset):
    """Tiles with and without the rows' own components."""
    z, mean, logvar = inputs(7, 70, 2, offset=offset)
    compare(both(z, mean, logvar, torch.randn(weights), torch.randn(own), offset))


@runs_here
def test_several_tiles_of_rows_and_components():
    z, mean, logvar = inputs(140, 160, 2, offset=20)
    own = torch.tensor(-7.0)
    compare(both(z, mean, logvar, torch.tensor(-5.0), own, 20))


@runs_here
@pytest.mark.parametrize("own", [None, -3.0])
def test_several_tiles_of_a_split(monkeypatch, own):
    """Sums that are read again, also between tiles of two kinds."""
    monkeypatch.setattr(pairwise_triton, "_splits", lambda _, n, __: (-(-n // 3), 3))
    z, mean, logvar = inputs(70, 81, 3, offset=3)
    own = None if own is None else torch.tensor(own)
    compare(both(z, mean, logvar, torch.tensor(-4.0), own, 3))


@runs_here
@pytest.mark.parametrize("columns", [(83,), (37, 83)], ids=str)
def test_weights_of_zero(columns):
    weights = torch.randn(columns).masked_fill(torch.rand(columns) < 0.5, -INF)
    compare(both(*inputs(37, 83, 2), weights))
    weights[(0,) * (weights.ndim - 1)] = -INF  # all, or all of one row
    results = both(*inputs(37, 83, 2), weights)
    compare(results)
    assert results[0][0][0] == -INF and not results[0][2][0].any()


@runs_here
def test_only_the_own_component_counts_or_does_not():
    z, mean, logvar = inputs(20, 30, 3, offset=5)
    nothing, some = torch.tensor(-INF), torch.tensor(-1.0)
    compare(both(z, mean, logvar, nothing, some, 5))
    compare(both(z, mean, logvar, some, nothing, 5))
    compare(both(z, mean, logvar, nothing, nothing, 5))


@runs_here
@pytest.mark.parametrize("weight", [-250.0, 250.0])
def test_weights_that_overflow(weight):
    """Of pairs or components, or own ones far from the others: no more is lost than digits."""
    z, mean, logvar = inputs(9, 20, 2)
    compare(both(z, mean, logvar, weight + torch.randn(20)), extreme=True)
    compare(both(z, mean, logvar, weight + torch.randn(9, 20)), extreme=True)
    compare(both(z, mean, logvar, torch.tensor(0.0), torch.tensor(weight)), extreme=True)


@runs_here
@pytest.mark.parametrize("own", [None, -3.0])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 6)], ids=["all", "some"])
def test_far_from_every_component(rows, own):
    z, mean, logvar = inputs(37, 50, 3, low=-6.0, high=0.0)
    z[rows] = mean.amax(0) + 30.0 * (0.5 * logvar.amax(0)).exp()
    own = None if own is None else torch.tensor(own)
    compare(both(z, mean, logvar, torch.tensor(-4.0), own), extreme=True)


@runs_here
@pytest.mark.parametrize("far", [0.0, 30.0])
def test_extremes_of_the_variance(far):
    z, mean, logvar = inputs(20, 40, 4, low=-30.0, high=20.0)
    z += far * (0.5 * logvar[:20]).exp()
    compare(both(z, mean, logvar, torch.tensor(-4.0), torch.tensor(-3.0)), extreme=True)


@runs_here
@pytest.mark.parametrize("at", ["z", "mean", "logvar"])
def test_nan_is_not_lost(at):
    given = dict(zip(["z", "mean", "logvar"], inputs(20, 30, 3), strict=True))
    given[at][4, 1] = math.nan
    found, truth, _ = both(*given.values(), torch.tensor(-3.0), torch.tensor(-2.0))
    for one, other in zip(found, truth, strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        assert one.isnan().any()


@runs_here
def test_strides():
    """Inputs that are views, and the expanded gradient of a sum."""
    z, mean, logvar = (t.mT.contiguous().mT for t in inputs(9, 20, 3))
    weight, ones = torch.tensor(-3.0, device=DEVICE), torch.ones((), device=DEVICE)
    given = [t.to(DEVICE) for t in (z, mean, logvar)]
    _, _, *state = pairwise_triton.triton_forward(*given, weight, None, 0)
    grads = pairwise_triton.triton_backward(
        ones.expand(9), ones.expand(9, 3), *given, weight, None, 0, *state
    )
    exact = [t.double().requires_grad_() for t in (z, mean, logvar)]
    joint, marginals = pairwise_reference(*exact, weight.cpu().double(), None, 0)
    truth = torch.autograd.grad(joint.sum() + marginals.sum(), exact)
    for found, expected in zip(grads, truth, strict=True):
        assert found.is_contiguous()
        assert (found.cpu() - expected).abs().max() <= 1e-5 * expected.abs().max()


@runs_here
@pytest.mark.skipif(not NATIVE, reason="slow under the interpreter")
@pytest.mark.parametrize("shape", [(200, 300, 1024), (513, 1030, 33), (2048, 2048, 16)], ids=str)
def test_large(shape):
    """Twice: bit for bit the same."""
    given = [t.cuda() for t in inputs(*shape, low=-6.0)]
    weight, own = torch.tensor(-7.0).cuda(), torch.tensor(-9.0).cuda()
    first, second = (pairwise_triton.triton_forward(*given, weight, own, 0) for _ in range(2))
    exact = [t.double().requires_grad_() for t in given]
    if shape[0] < 1000:
        truth = pairwise_reference(*exact, weight.double(), own.double(), 0)
        for one, expected in zip(first, truth, strict=False):
            assert (one - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert all(map(torch.equal, first, second))
    grads = [torch.randn_like(t) for t in first[:2]]
    slopes = [
        pairwise_triton.triton_backward(*grads, *given, weight, own, 0, *first[2:])
        for _ in range(2)
    ]
    assert all(map(torch.equal, *slopes))


@runs_here
def test_splits_leave_nothing_out():
    for tiles, n, width in [
        (1, 1, 1),
        (2, 16, 10),
        (32, 256, 64),
        (128, 1024, 2048),
        (4000, 7, 3),
    ]:
        splits, per = pairwise_triton._splits(tiles, n, width)
        assert (splits - 1) * per < n <= splits * per

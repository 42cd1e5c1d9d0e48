"""The pairwise log-density: every backend against the equation in float64 on the same inputs."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

from vaereg.functional.aggregated import pairwise_log_density
from vaereg.ops import _build, dispatch, pairwise_cpu

SHAPES = [
    (64, 64, 7), (61, 61, 1), (37, 83, 7), (33, 70, 64), (50, 129, 10), (1, 5, 4), (5, 1, 3),
    (3, 600, 5), (17, 1030, 9), (4, 6, 1024),
]  # fmt: skip


def compiled_or_skip():
    if _build.library() is None:
        pytest.skip(f"no compiled kernel: {_build.build_error()}")


@pytest.fixture(params=["compiled", "lean"])
def cpu(request, monkeypatch):
    """The two forms of the backend ``cpu``; the lean one in chunks of few rows."""
    if request.param == "compiled":
        compiled_or_skip()
    else:
        monkeypatch.setattr(dispatch, "_compiled", lambda z: False)
        monkeypatch.setattr(pairwise_cpu, "_CHUNK", 3000)
    return "cpu"


def case(b, m, d, low=-12.0, high=2.0, far=1.0, seed=0):
    """Points from the components they belong to, ``far`` standard deviations out."""
    g = torch.Generator().manual_seed(seed)
    mean = 10.0 * torch.rand(m, d, generator=g) - 5.0
    logvar = low + (high - low) * torch.rand(m, d, generator=g)
    own = torch.arange(b) % m
    z = mean[own] + far * torch.randn(b, d, generator=g) * (0.5 * logvar[own]).exp()
    return z, mean, logvar


def both(inputs, backend, dtype=torch.float32, **options):
    """Values, and gradients of a random functional of them."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]
    joint, marginals = pairwise_log_density(*leaves, backend=backend, **options)
    g = torch.Generator().manual_seed(9)
    u, v = (torch.randn(t.shape, generator=g).to(dtype) for t in (joint, marginals))
    fine = torch.isfinite(joint)
    loss = (u * joint)[fine].sum() + (v * marginals)[fine].sum()
    return [joint, marginals, *torch.autograd.grad(loss, leaves)]


def assert_near(found, expected, value=1e-6, gradient=1e-5):
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert x.shape == y.shape
        x, y = x.detach().double(), y.detach().double()
        same = torch.isinf(y) & (x == y)
        assert torch.equal(torch.isinf(x), torch.isinf(y)) and torch.equal(x[same], y[same])
        scale = float(y[~same].abs().max()) if (~same).any() else 1.0
        error = float((x - y)[~same].abs().max()) if (~same).any() else 0.0
        assert error <= (value if k < 2 else gradient) * max(scale, 1e-30), (k, error, scale)


def weights_of(kind, b, m):
    g = torch.Generator().manual_seed(5)
    shape = {"scalar": (), "columns": (m,), "matrix": (b, m)}[kind]
    return torch.randn(shape, generator=g)


# ---- the equation itself


def test_reference_against_loops():
    z, mean, logvar = (t.double() for t in case(4, 6, 3))
    weights = weights_of("matrix", 4, 6).double()
    own = torch.randn(4, generator=torch.Generator().manual_seed(1)).double()
    joint, marginals = pairwise_log_density(
        z, mean, logvar, weights, own_log_weight=own, offset=2, backend="reference"
    )
    for i in range(4):
        total, by_column = 0.0, [0.0] * 3
        for j in range(6):
            w = math.exp(own[i] if j == i + 2 else weights[i, j])
            densities = [
                math.exp(-0.5 * (z[i, d] - mean[j, d]) ** 2 / math.exp(logvar[j, d]))
                / math.sqrt(2.0 * math.pi * math.exp(logvar[j, d]))
                for d in range(3)
            ]
            total += w * math.prod(densities)
            by_column = [s + w * p for s, p in zip(by_column, densities, strict=True)]
        assert joint[i] == pytest.approx(math.log(total), rel=1e-9)
        assert marginals[i].tolist() == pytest.approx([math.log(s) for s in by_column], rel=1e-9)


def test_docstrings_three_lines():
    z, mean, logvar = case(9, 12, 3)
    w = weights_of("matrix", 9, 12)
    density = Normal(mean, (0.5 * logvar).exp()).log_prob(z[:, None])
    found = pairwise_log_density(z, mean, logvar, w)
    torch.testing.assert_close(found[0], (density.sum(2) + w).logsumexp(1))
    torch.testing.assert_close(found[1], (density + w[..., None]).logsumexp(1))


@pytest.mark.parametrize("kind", ["scalar", "columns", "matrix"])
def test_gradcheck_of_the_reference(kind):
    inputs = [t.double().requires_grad_() for t in case(3, 5, 2, low=-1.0, high=1.0)]

    def run(*given):
        w = weights_of(kind, 3, 5).double()
        return pairwise_log_density(*given, w, own_log_weight=0.3, offset=1, backend="reference")

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


# ---- exactness


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("low", [-12.0, -4.0])
def test_shapes(cpu, shape, low):
    inputs = case(*shape, low=low)
    b, m, _ = shape
    options = {"log_weights": -2.0}
    if m >= b:
        options |= {"own_log_weight": -0.5, "offset": (m - b) // 2}
    assert_near(both(inputs, cpu, **options), both(inputs, "reference", torch.float64, **options))


@pytest.mark.parametrize("own", [None, -0.7, "rows"])
@pytest.mark.parametrize("kind", ["scalar", "columns", "matrix"])
def test_weights(cpu, kind, own):
    b, m = 21, 1050
    inputs = case(b, m, 6)
    own = torch.linspace(-3.0, 2.0, b) if own == "rows" else own
    options = {"log_weights": weights_of(kind, b, m)}
    if own is not None:
        options |= {"own_log_weight": own, "offset": 505}  # across the edge of a tile
    assert_near(both(inputs, cpu, **options), both(inputs, "reference", torch.float64, **options))


@pytest.mark.parametrize("far", [14.0, 30.0])
def test_points_far_from_every_component(cpu, far):
    inputs = case(64, 64, 10, far=far)
    assert_near(both(inputs, cpu), both(inputs, "reference", torch.float64))


def test_extreme_variances(cpu):
    inputs = case(40, 70, 8, low=-30.0, high=20.0, far=5.0)
    found = both(inputs, cpu)
    assert all(torch.isfinite(t).all() for t in found)
    assert_near(found, both(inputs, "reference", torch.float64))


@pytest.mark.parametrize("kind", ["columns", "matrix"])
def test_components_left_out(cpu, kind):
    b, m = 20, 40
    inputs = case(b, m, 5)
    w = weights_of(kind, b, m)
    w[..., ::3] = -math.inf
    if kind == "matrix":
        w[7] = -math.inf  # nothing left: -inf, and no gradient
    options = {"log_weights": w}
    found, expected = (
        both(inputs, cpu, **options),
        both(inputs, "reference", torch.float64, **options),
    )
    assert_near(found, expected)
    if kind == "matrix":
        assert found[0][7] == -math.inf and (found[1][7] == -math.inf).all()
        assert (found[2][7] == 0).all()
    assert (found[3][::3] == 0).all() and torch.isfinite(found[3]).all()


def test_all_weight_on_the_own_component(cpu):
    """Others -inf, own 0: the density under the own posterior; and the reverse."""
    z, mean, logvar = inputs = case(30, 30, 4)
    options = {"log_weights": -math.inf, "own_log_weight": 0.0}
    found = both(inputs, cpu, **options)
    own = Normal(mean, (0.5 * logvar).exp()).log_prob(z)
    torch.testing.assert_close(found[1], own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], own.sum(1), rtol=1e-5, atol=1e-5)
    options = {"log_weights": 0.0, "own_log_weight": -math.inf}
    assert_near(both(inputs, cpu, **options), both(inputs, "reference", torch.float64, **options))


@pytest.mark.parametrize("which", range(3))
def test_nan_is_not_swallowed(cpu, which):
    inputs = [t.clone() for t in case(8, 12, 3)]
    inputs[which][2, 1] = math.nan
    joint, marginals = pairwise_log_density(*inputs, backend=cpu)
    assert joint.isnan()[2] and marginals[2].isnan().any()


def test_only_some_inputs_need_a_gradient(cpu):
    z, mean, logvar = case(20, 30, 4)
    whole = both((z, mean, logvar), cpu)
    for needed in itertools.product((False, True), repeat=3):
        leaves = [
            t.clone().requires_grad_(n) for t, n in zip((z, mean, logvar), needed, strict=True)
        ]
        joint, _ = pairwise_log_density(*leaves, backend=cpu)
        assert joint.requires_grad == any(needed)
        torch.testing.assert_close(joint, whole[0], rtol=0, atol=0)
    leaf = z.clone().requires_grad_()
    joint, _ = pairwise_log_density(leaf, mean, logvar, backend=cpu)
    joint.sum().backward()
    reference = z.double().requires_grad_()
    joint, _ = pairwise_log_density(reference, mean.double(), logvar.double(), backend="reference")
    joint.sum().backward()
    torch.testing.assert_close(leaf.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)


def test_strides_do_not_matter(cpu):
    inputs = [torch.stack((t, t), 2)[:, :, 0] for t in case(20, 30, 4)]
    transposed = [t.mT.contiguous().mT for t in inputs]
    assert not transposed[0].is_contiguous()
    for given in (inputs, transposed):
        assert_near(both(given, cpu), both(case(20, 30, 4), cpu), 1e-6, 1e-6)


def test_threads_agree(monkeypatch):
    compiled_or_skip()
    inputs = case(203, 130, 8)
    alone = both(inputs, "cpu")
    monkeypatch.setattr(pairwise_cpu, "_PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    many = both(inputs, "cpu")
    assert_near(many[:3], alone[:3], 0.0, 0.0)
    assert_near(many, alone, 0.0, 2e-7)
    assert_near(both(inputs, "cpu"), many, 0.0, 0.0)  # the same every time


def test_other_dtypes(cpu):
    inputs = case(20, 30, 4, low=-2.0)
    wide = both(inputs, cpu, torch.float64)
    assert wide[0].dtype == torch.float64
    assert_near(wide, both(inputs, "reference", torch.float64), 1e-13, 1e-12)
    half = [t.bfloat16() for t in inputs]
    found = both(half, cpu, torch.bfloat16)
    assert found[0].dtype == torch.float32 and found[2].dtype == torch.bfloat16
    expected = both([t.float() for t in half], cpu)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)


# ---- around it


def test_compile_has_no_break(cpu):
    inputs = case(150, 150, 4, low=-2.0)

    def run(z, mean, logvar):
        joint, marginals = pairwise_log_density(
            z, mean, logvar, -1.0, own_log_weight=0.0, backend=cpu
        )
        return (joint - marginals.sum(1)).mean()

    leaves = [[t.clone().requires_grad_() for t in inputs] for _ in range(2)]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*leaves[0]), leaves[0])
    expected = torch.autograd.grad(run(*leaves[1]), leaves[1])
    assert_near(found, expected, 0.0, 0.0)


def test_operator_is_sound(cpu):
    z, mean, logvar = case(20, 30, 4)
    arguments = z, mean, logvar, torch.tensor(-1.0), torch.tensor(0.0), 3, cpu
    torch.library.opcheck(torch.ops.vaereg.pairwise_forward.default, arguments)
    *values, joint_state, marginal_state = torch.ops.vaereg.pairwise_forward(*arguments)
    grads = [torch.randn_like(t) for t in values]
    arguments = (*grads, *arguments[:-1], joint_state, marginal_state, cpu)
    torch.library.opcheck(torch.ops.vaereg.pairwise_backward.default, arguments)


def test_vmap(cpu):
    z, mean, logvar = case(12, 20, 4)
    many = torch.stack((z, z + 1.0, z - 1.0))
    run = lambda z: pairwise_log_density(z, mean, logvar, backend=cpu)[0]  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(run)(many), torch.stack([run(z) for z in many]))


def test_second_derivatives_are_refused_by_name(cpu):
    z, mean, logvar = case(5, 6, 2)
    z.requires_grad_()
    joint, _ = pairwise_log_density(z, mean, logvar, backend=cpu)
    (slope,) = torch.autograd.grad(joint.sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.sum().backward()


def test_without_a_compiler_the_lean_form_serves():
    code = (
        "import torch; from vaereg.ops import _build;"
        "from vaereg.functional.aggregated import pairwise_log_density as f;"
        "z = torch.randn(300, 8); j, m = f(z, z, 0 * z, backend='cpu');"
        "r, s = f(z, z, 0 * z, backend='reference');"
        "assert _build.library() is None and 'VAEREG_NO_COMPILER' in _build.build_error();"
        "assert (j - r).abs().max() < 1e-5 and (m - s).abs().max() < 1e-5"
    )
    environment = {**os.environ, "VAEREG_NO_COMPILER": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


@pytest.mark.parametrize(
    ("elements", "kernel", "expected"),
    [
        (10_000, True, "reference"), (10_000, False, "reference"),
        (41_000, True, "cpu"), (41_000, False, "reference"),
        (200_000, True, "cpu"), (200_000, False, "cpu"),
    ],
)  # fmt: skip
def test_auto_takes_chunks_only_where_they_pay(elements, kernel, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(dispatch, "_has_kernel", lambda: asked.append(1) or kernel)
    assert dispatch._choose("auto", torch.zeros(2, 2), elements) == expected
    # Nothing is compiled for the sake of a call that the plain form serves.
    assert elements > 10_000 or not asked


def test_auto_compiles_without_a_break():
    inputs = case(64, 64, 10, low=-2.0)  # between the two limits, where the kernel is asked for
    run = torch.compile(
        lambda *a: pairwise_log_density(*a)[0], fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(run(*inputs), pairwise_log_density(*inputs)[0], rtol=0, atol=0)


def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("VAEREG_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="false failed"):
        _build._compile()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler: expected"):
        _build._compile()
    assert not list(tmp_path.iterdir())
    _build._load.cache_clear()
    with pytest.warns(UserWarning, match=r"could not be built.*VAEREG_NO_COMPILER=1"):
        assert _build.library() is None
    _build._load.cache_clear()


def test_a_compiler_may_be_named_with_options(monkeypatch, tmp_path):
    compiled_or_skip()
    monkeypatch.setenv("VAEREG_CACHE", str(tmp_path))
    found = _build._compiler()
    assert found is not None
    monkeypatch.setenv("CXX", f"{found[0]} -g0")
    assert _build._compiler() == [found[0], "-g0"]
    assert _build._compile().is_file()


def peak_of(run):
    """MiB that one forward and backward pass at (1024, 64) adds to the peak of a process.

    In a process of its own, since a peak that was reached before hides this one; and VmHWM, since
    ru_maxrss is inherited from the process that starts it.
    """
    if not Path("/proc/self/status").is_file():
        pytest.skip("no /proc to read the peak of memory from")
    code = f"""
import re, torch
from vaereg.functional import pairwise_log_density
high = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
def once(rows):
    leaves = [torch.randn(rows, 64).requires_grad_() for _ in range(3)]
    joint, marginals = pairwise_log_density(*leaves, backend={run!r})
    (joint.sum() + marginals.sum()).backward()
once(64)
before = high()
once(1024)
print((high() - before) / 1024)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return float(found.stdout)


def test_no_tensor_of_all_pairs_and_columns():
    """256 MiB a copy in the plain form, of which it holds several; a few in all without it."""
    compiled_or_skip()
    assert peak_of("cpu") < 32
    assert peak_of("reference") > 256  # the measurement itself sees what it should


def test_triton_is_not_for_the_cpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_has_triton", lambda: True)
    with pytest.raises(ValueError, match=r"expected CUDA tensors .* got torch.float32 on cpu"):
        pairwise_log_density(*case(5, 6, 2), backend="triton")
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    with pytest.raises(ImportError, match="pip install triton"):
        pairwise_log_density(*case(5, 6, 2), backend="triton")


# ---- errors


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"z": torch.zeros(3)}, ValueError, r"z: expected shape \(rows, D\), got \(3,\)"),
        ({"z": torch.zeros(3, 2).long()}, TypeError, "z: expected a floating-point tensor"),
        ({"mean": torch.zeros(4, 3)}, ValueError, r"mean, logvar: expected \(M, 2\) each"),
        ({"logvar": torch.zeros(5, 2)}, ValueError, "mean, logvar: expected"),
        ({"z": torch.zeros(0, 2)}, ValueError, "expected at least one row"),
        ({"log_weights": torch.zeros(3)}, ValueError, r"log_weights: expected shape \(\) or"),
        ({"log_weights": torch.zeros(4, requires_grad=True)}, ValueError, "expected constants"),
        ({"own_log_weight": torch.zeros(4)}, ValueError, "own_log_weight: expected shape"),
        ({"own_log_weight": 0.0, "offset": 2}, ValueError, "offset: expected an integer, 0 <= "),
        ({"backend": "cuda"}, ValueError, "backend: expected one of auto, reference"),
    ],
)  # fmt: skip
def test_errors(changes, error, message):
    given = {"z": torch.zeros(3, 2), "mean": torch.zeros(4, 2), "logvar": torch.zeros(4, 2)}
    with pytest.raises(error, match=message):
        pairwise_log_density(**{**given, **changes})


def test_the_comparison_itself_can_fail():
    with pytest.raises(AssertionError):
        assert_near([torch.tensor([0.0, 5.0])], [torch.tensor([-math.inf, 1.0])])


def test_a_weight_that_is_nan_does_not_vanish(cpu):
    z, mean, logvar = case(9, 7, 3)
    columns = torch.zeros(7)
    columns[3] = math.nan
    joint, marginals = pairwise_log_density(z, mean, logvar, columns, backend=cpu)
    assert joint.isnan().all() and marginals.isnan().all()
    matrix = torch.zeros(9, 7)
    matrix[4, 2] = math.nan
    joint, marginals = pairwise_log_density(z, mean, logvar, matrix, backend=cpu)
    assert joint.isnan().nonzero().flatten().tolist() == [4] and marginals[4].isnan().all()
    with pytest.raises(ValueError, match="offset: expected an integer"):
        pairwise_log_density(z[:2], mean, logvar, own_log_weight=0.0, offset=1.5, backend=cpu)

"""The maximum mean discrepancy: loops, closed forms of Gaussians, identities, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaereg.functional.mmd import default_scales, mmd, prior_draws

DOUBLE = torch.float64
SCALES = [0.3, 1.0, 4.0]


def k(a, b, kernel, scales=SCALES):
    squared = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    if kernel == "rbf":
        return sum(math.exp(-squared / (2.0 * s)) for s in scales)
    return sum(s / (s + squared) for s in scales)


def loop(x, y, kernel, unbiased=True, paired=False, scales=SCALES):
    x, y = x.flatten(1).tolist(), y.flatten(1).tolist()
    n, m = len(x), len(y)

    def own(rows):
        pairs = [
            k(a, b, kernel, scales)
            for i, a in enumerate(rows)
            for j, b in enumerate(rows)
            if i != j or not unbiased
        ]
        return sum(pairs) / len(pairs)

    cross = [
        k(x[i], y[j], kernel, scales)
        for i in range(n)
        for j in range(m)
        if not (unbiased and paired and i == j)
    ]
    return own(x) + own(y) - 2.0 * sum(cross) / len(cross)


def gaussian_kernel(shift, variance, s):
    """E exp(-d^2 / 2 s) for a Gaussian difference d of this mean and variance."""
    return math.sqrt(s / (s + variance)) * math.exp(-(shift**2) / (2.0 * (s + variance)))


def closed_form(shift, deviation, scales=SCALES):
    """MMD^2 of N(shift, deviation^2) and N(0, 1) with the RBF kernel."""
    v = deviation**2
    return sum(
        gaussian_kernel(0.0, 2.0 * v, s)
        + gaussian_kernel(0.0, 2.0, s)
        - 2.0 * gaussian_kernel(shift, 1.0 + v, s)
        for s in scales
    )


# ---- values


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shapes", [((5, 3), (7, 3)), ((2, 1), (2, 1)), ((4, 2, 2), (6, 2, 2))])
def test_against_a_loop(kernel, unbiased, shapes):
    x, y = (torch.randn(shape, dtype=DOUBLE) for shape in shapes)
    found = mmd(x, y + 0.5, kernel=kernel, scales=SCALES, unbiased=unbiased)
    assert found.item() == pytest.approx(loop(x, y + 0.5, kernel, unbiased), abs=1e-12)
    scales = torch.tensor(SCALES, dtype=DOUBLE)
    other = mmd(x, y + 0.5, kernel=kernel, scales=scales, unbiased=unbiased)
    torch.testing.assert_close(other, found)
    assert mmd(y, x, scales=SCALES).item() == pytest.approx(mmd(x, y, scales=SCALES).item())


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_paired_against_a_loop(kernel):
    x = torch.randn(6, 2, dtype=DOUBLE)
    y = x + 0.1 * torch.randn(6, 2, dtype=DOUBLE)
    found = mmd(x, y, kernel=kernel, scales=SCALES, paired=True)
    assert found.item() == pytest.approx(loop(x, y, kernel, paired=True), abs=1e-12)
    # A V-statistic is the distance of the two empirical laws, paired or not.
    biased = [mmd(x, y, scales=SCALES, unbiased=False, paired=p) for p in (True, False)]
    assert torch.equal(*biased)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_difference_of_the_two_forms(kernel):
    """V - U = (k(0) - mean k_xx) / n + (k(0) - mean k_yy) / m."""
    x, y = torch.randn(5, 2, dtype=DOUBLE), torch.randn(8, 2, dtype=DOUBLE) + 1.0
    u, v = (mmd(x, y, kernel=kernel, scales=SCALES, unbiased=form) for form in (True, False))
    expected = 0.0
    for rows in (x.tolist(), y.tolist()):
        n = len(rows)
        pairs = [k(a, b, kernel) for i, a in enumerate(rows) for b in rows[i + 1 :]]
        expected += (len(SCALES) - sum(pairs) / len(pairs)) / n
    assert (v - u).item() == pytest.approx(expected, abs=1e-12)


def test_biased_form_is_a_squared_norm():
    for _ in range(20):
        x, y = torch.randn(4, 2), torch.randn(6, 2)
        assert mmd(x, y, kernel="imq", scales=SCALES, unbiased=False).item() >= 0.0
    assert abs(mmd(x, x, scales=SCALES, unbiased=False).item()) < 1e-6
    one = mmd(x[:1], y[:1], scales=[1.0], unbiased=False).item()
    assert one == pytest.approx(2.0 - 2.0 * k(x[0].tolist(), y[0].tolist(), "rbf", [1.0]))


# ---- truths


@pytest.mark.parametrize(("shift", "deviation"), [(0.0, 1.0), (0.5, 1.0), (2.0, 0.5), (0.0, 3.0)])
@pytest.mark.parametrize("paired", [False, True])
def test_unbiased_form_of_gaussians_is_unbiased(shift, deviation, paired):
    """400 batches of 24 rows: mean within 4 standard errors of the closed form, 0 under the
    null.
    """
    values = torch.stack(
        [
            mmd(
                shift + deviation * torch.randn(24, 1), torch.randn(24, 1), scales=SCALES,
                paired=paired,
            )
            for _ in range(400)
        ]
    )  # fmt: skip
    error = values.std().item() / 20.0
    truth = closed_form(shift, deviation)
    assert error < 0.02 * len(SCALES)
    assert abs(values.mean().item() - truth) < 4.0 * error


def test_biased_form_of_quantiles_is_the_closed_form():
    """Laws as 400 quantiles each: no sampling noise. Of a small shift it grows as its square."""
    x = Normal(0.0, 1.0).icdf((torch.arange(400, dtype=DOUBLE) + 0.5) / 400.0).unsqueeze(1)

    def found(shift, deviation):
        return mmd(shift + deviation * x, x, scales=SCALES, unbiased=False).item()

    for shift, deviation in ((0.05, 1.0), (0.1, 1.0), (0.4, 1.0), (2.0, 1.0), (1.0, 0.5)):
        truth = closed_form(shift, deviation)
        assert found(shift, deviation) == pytest.approx(truth, rel=0.01)
    assert abs(found(0.0, 1.0)) < 1e-12
    assert found(0.1, 1.0) / found(0.05, 1.0) == pytest.approx(4.0, rel=0.01)


def test_dependent_pairs_bias_the_unpaired_form_only():
    """x_i = y_i + noise of one law: of the three means only that of k(x_i, y_i) is off."""
    values = {True: [], False: []}
    for _ in range(300):
        common = torch.randn(8, 1)
        x, y = (math.sqrt(0.9) * common + math.sqrt(0.1) * torch.randn(8, 1) for _ in range(2))
        for paired, found in values.items():
            found.append(mmd(x, y, scales=[1.0], paired=paired))
    means = {p: torch.stack(v).mean().item() for p, v in values.items()}
    errors = {p: torch.stack(v).std().item() / math.sqrt(300.0) for p, v in values.items()}
    assert abs(means[True]) < 4.0 * errors[True]
    gap = gaussian_kernel(0.0, 0.2, 1.0) - gaussian_kernel(0.0, 2.0, 1.0)
    assert means[False] == pytest.approx(-2.0 * gap / 8.0, abs=4.0 * errors[False])
    assert means[False] < -4.0 * errors[False]


# ---- numbers


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_float32_far_from_the_origin(kernel):
    """Against float64 on the same float32 inputs; uncentred products would lose all digits."""
    x, y = torch.randn(40, 8) + 1e4, torch.randn(40, 8) + 1e4 + 0.5
    for unbiased in (True, False):
        found = mmd(x, y, kernel=kernel, scales=[8.0], unbiased=unbiased).item()
        slow = loop(x.double(), y.double(), kernel, unbiased, scales=[8.0])
        assert found == pytest.approx(slow, abs=2e-6)


def test_half_precision_and_autocast_are_computed_in_float32():
    x, y = torch.randn(16, 4), torch.randn(16, 4) + 1.0
    expected = mmd(x, y, scales=SCALES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(mmd(x, y, scales=SCALES), expected)
    low = mmd(x.bfloat16(), y.bfloat16(), scales=SCALES)
    torch.testing.assert_close(low, mmd(x.bfloat16().float(), y.bfloat16().float(), scales=SCALES))
    assert low.dtype == torch.float32


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("options", [{}, {"unbiased": False}, {"paired": True}])
def test_gradients(kernel, options):
    x = torch.randn(4, 2, dtype=DOUBLE, requires_grad=True)
    y = torch.randn(4, 2, dtype=DOUBLE, requires_grad=True)

    def value(x, y):
        return mmd(x, y, kernel=kernel, scales=[0.7, 2.0], **options)

    assert torch.autograd.gradcheck(value, (x, y))
    assert torch.autograd.gradgradcheck(value, (x, y))


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_gradient_where_rows_coincide(kernel, dtype):
    """Equal rows within a sample and across: against the derivative written out."""
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.3, -1.0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([[1.0, 2.0], [0.3, -1.0]], dtype=dtype)
    s = 1.7
    (found,) = torch.autograd.grad(mmd(x, y, kernel=kernel, scales=[s]), x)
    expected = torch.zeros(3, 2, dtype=DOUBLE)
    rows, other = x.detach().double(), y.double()

    def slope(a, b):
        d = ((a - b) ** 2).sum()
        factor = -torch.exp(-d / (2 * s)) / s if kernel == "rbf" else -2.0 * s / (s + d) ** 2
        return factor * (a - b)

    for i in range(3):
        for j in range(3):
            expected[i] += 2.0 * slope(rows[i], rows[j]) / 6.0
        for j in range(2):
            expected[i] -= 2.0 * slope(rows[i], other[j]) / 6.0
    tolerance = 1e-12 if dtype == DOUBLE else 1e-6
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=tolerance)


def test_all_rows_equal_is_a_stationary_point():
    x = torch.full((5, 3), 7.3, requires_grad=True)
    value = mmd(x, torch.full((5, 3), 7.3), scales=SCALES)
    value.backward()
    assert abs(value.item()) < 1e-6 and x.grad.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_second_derivative_where_rows_coincide(dtype):
    """k(x_1, x_2) of two equal rows bends down with 1 / s, whatever the sign of the rounding."""
    far = torch.full((2, 6), 50.0, dtype=dtype)
    for offset in torch.randn(20, 6, dtype=dtype):
        hessian = torch.autograd.functional.hessian(
            lambda x, rest=offset: mmd(torch.stack((x, rest)), far, scales=[1.0]), offset
        )
        torch.testing.assert_close(hessian, -torch.eye(6, dtype=dtype), atol=1e-3, rtol=0.0)


def test_a_row_too_few_is_zero_with_zero_gradient():
    for n, m in ((1, 4), (4, 1), (1, 1)):
        x, y = torch.randn(n, 2, requires_grad=True), torch.randn(m, 2, requires_grad=True)
        value = mmd(x, y, scales=SCALES)
        value.backward()
        assert value.item() == 0.0 and value.ndim == 0
        assert not x.grad.any() and not y.grad.any()


def test_rows_far_apart_are_finite():
    x = torch.tensor([[1e15], [-1e15], [0.0]], requires_grad=True)
    for kernel in ("rbf", "imq"):
        value = mmd(x, torch.zeros(3, 1), kernel=kernel, scales=[1e-3, 1.0])
        value.backward()
        assert value.isfinite() and x.grad.isfinite().all()


# ---- scales


def test_default_scales():
    """Those of WAE; for RBF exponents of 4, 2, 1, 1/2 at the expected squared distance."""
    total = torch.tensor(16.0)
    expected = 32.0 * torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
    torch.testing.assert_close(default_scales("imq", total), expected)
    rbf = default_scales("rbf", total)
    torch.testing.assert_close(2.0 * total / (2.0 * rbf), torch.tensor([4.0, 2.0, 1.0, 0.5]))
    draws = torch.randn(2000, 16)
    distance = (draws - draws.roll(1, 0)).square().sum(1).mean()
    assert distance.item() == pytest.approx(32.0, rel=0.05)
    for kernel in ("rbf", "imq"):
        scales = default_scales(kernel, torch.tensor(0.0))
        x = torch.tensor([[0.0], [1.0], [1.0]], requires_grad=True)
        value = mmd(x, torch.zeros(3, 1), kernel=kernel, scales=scales)
        value.backward()
        assert value.isfinite() and x.grad.isfinite().all()


# ---- prior draws


def test_prior_draws():
    value = torch.zeros(4000, 2, 3)
    loc = torch.arange(6.0).view(2, 3)
    for prior in (
        Normal(loc, torch.ones(2, 3)),
        Independent(Normal(loc, torch.ones(2, 3)), 2),
        Independent(Normal(loc[None], torch.ones(1, 2, 3)), 2),
        Independent(Normal(loc.expand(4000, 2, 3), torch.ones(4000, 2, 3)), 2),
    ):
        drawn = prior_draws(prior, value)
        assert drawn.shape == value.shape
        assert (drawn.mean(0) - loc).abs().max() < 5.0 / math.sqrt(4000.0)
        assert len(drawn.flatten().unique()) > 20_000
    per_row = torch.arange(5.0).view(5, 1)
    drawn = prior_draws(Normal(per_row, 1e-6 * torch.ones(5, 1)), torch.zeros(5, 1))
    torch.testing.assert_close(drawn, per_row, atol=1e-4, rtol=0.0)


def test_prior_draws_carry_the_gradient_where_there_is_one():
    loc = torch.zeros(3, requires_grad=True)
    prior_draws(Normal(loc, torch.ones(3)), torch.zeros(8, 3)).sum().backward()
    assert torch.equal(loc.grad, torch.full((3,), 8.0))
    parts = Independent(Normal(torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), parts)
    assert not prior_draws(mixture, torch.zeros(8, 3)).requires_grad
    low = prior_draws(Normal(loc, torch.ones(3)), torch.zeros(8, 3, dtype=torch.bfloat16))
    assert low.dtype == torch.bfloat16


# ---- errors


def test_refused():
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="expected rbf or imq, got 'linear'"):
        mmd(x, x, kernel="linear", scales=[1.0])
    with pytest.raises(ValueError, match="expected rbf or imq, got 'linear'"):
        default_scales("linear", torch.ones(()))
    for scales in ([], [1.0, 0.0], [-1.0], [math.nan]):
        with pytest.raises(ValueError, match="squared lengths > 0, got"):
            mmd(x, x, scales=scales)
    with pytest.raises(ValueError, match=r"scales: expected shape \(S,\), got \(\)"):
        mmd(x, x, scales=torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"rows of one shape, got \(4, 2\) and \(4, 3\)"):
        mmd(x, torch.zeros(4, 3), scales=[1.0])
    with pytest.raises(ValueError, match=r"paired rows of one shape, got \(4, 2\) and \(3, 2\)"):
        mmd(x, torch.zeros(3, 2), scales=[1.0], paired=True)
    with pytest.raises(ValueError, match=r"x of shape \(rows, \*event\).*got \(4,\)"):
        mmd(torch.zeros(4), x, scales=[1.0])
    with pytest.raises(ValueError, match=r"y of shape \(rows, \*event\).*got \(0, 2\)"):
        mmd(x, torch.zeros(0, 2), scales=[1.0])
    with pytest.raises(TypeError, match=r"x to be a floating-point tensor, got torch.int64"):
        mmd(torch.zeros(4, 2, dtype=torch.long), x, scales=[1.0])
    with pytest.raises(TypeError, match=r"expected a Code with a prior p .*, got none"):
        prior_draws(None, x)
    with pytest.raises(ValueError, match=r"prior of shape \(2,\) or \(4, 2\), got \(3,\)"):
        prior_draws(Normal(torch.zeros(3), torch.ones(3)), x)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_scales_may_have_a_gradient_and_be_mapped_over(kernel):
    x, y = torch.randn(2, 6, 3, dtype=DOUBLE)
    scales = torch.tensor([1.0, 2.0], dtype=DOUBLE, requires_grad=True)
    run = lambda s: mmd(x, y, scales=s, kernel=kernel)  # noqa: E731
    assert torch.autograd.gradcheck(run, scales)
    many = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=DOUBLE)
    expected = torch.stack([mmd(x, y, scales=s.tolist(), kernel=kernel) for s in many])
    torch.testing.assert_close(torch.func.vmap(run)(many), expected)
    mapped = torch.func.vmap(lambda x: mmd(x, y, scales=[1.0, 2.0], kernel=kernel))
    several = torch.stack((x, x + 1.0))
    expected = torch.stack([mmd(x, y, scales=[1.0, 2.0], kernel=kernel) for x in several])
    torch.testing.assert_close(mapped(several), expected)

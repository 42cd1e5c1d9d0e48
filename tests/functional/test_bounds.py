"""Bounds on mutual information against loops, quadrature and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate

from vaereg.functional import (
    donsker_varadhan,
    info_nce,
    jensen_shannon,
    log_mean_exp,
    log_tail,
    mine_loss,
    moving_log_average,
    nwj,
    smile,
)

RHO = 0.8
TRUTH = -0.5 * math.log(1.0 - RHO**2)


def draw(rows=40, scale=1.0):
    return scale * torch.randn(rows, dtype=torch.float64)


def log_ratio(x, y):
    """log p(x, y) / p(x) p(y) of standard normals of correlation RHO: the optimal critic."""
    square = RHO**2 * (x * x + y * y) - 2.0 * RHO * x * y
    return TRUTH - square / (2.0 * (1.0 - RHO**2))


def expectations(function, joint):
    """E[function(log ratio)] under the joint or the product of marginals, by quadrature."""
    spread = math.sqrt(1.0 - RHO**2)

    def integrand(b, a):
        y = RHO * a + spread * b if joint else b
        weight = math.exp(-0.5 * (a * a + b * b)) / (2.0 * math.pi)
        return weight * function(log_ratio(a, y))

    return integrate.dblquad(integrand, -8.0, 8.0, -8.0, 8.0, epsabs=1e-7)[0]


def gaussian_scores(rows):
    x = torch.randn(rows, dtype=torch.float64)
    y = RHO * x + math.sqrt(1.0 - RHO**2) * torch.randn_like(x)
    return log_ratio(x, y), log_ratio(x, torch.randn_like(x))


def test_donsker_varadhan_against_a_loop():
    joint, product = draw(), draw(60, 2.0)
    slow = sum(joint.tolist()) / 40 - math.log(sum(map(math.exp, product.tolist())) / 60)
    assert donsker_varadhan(joint, product).item() == pytest.approx(slow, rel=1e-12)
    assert mine_loss(joint, product).item() == pytest.approx(-slow, rel=1e-12)
    # Scores of any shape, and of a constant: E[T] - log E[e^T] does not see it.
    shifted = donsker_varadhan(joint.reshape(5, 8) + 7.0, product.reshape(6, 10) + 7.0)
    assert shifted.item() == pytest.approx(slow, rel=1e-12)


def test_donsker_varadhan_at_the_optimal_critic():
    """1,000,000 rows: standard error sqrt(Var T + Var e^T) / 1000, measured; 4 of them."""
    joint, product = gaussian_scores(1_000_000)
    error = math.sqrt(joint.var().item() + product.exp().var().item()) / 1000.0
    assert abs(donsker_varadhan(joint, product).item() - TRUTH) < 4.0 * error < 0.03
    assert expectations(lambda t: t, joint=True) == pytest.approx(TRUTH, abs=1e-5)


def test_donsker_varadhan_is_a_lower_bound_at_other_critics():
    joint, product = gaussian_scores(200_000)
    for scale in (0.3, 0.6, 1.2):
        assert donsker_varadhan(scale * joint, scale * product).item() < TRUTH - 0.005


def test_jensen_shannon_at_the_optimal_critic():
    """Against quadrature over the plane, with 4 standard errors of 200,000 rows."""
    softplus = lambda t: max(t, 0.0) + math.log1p(math.exp(-abs(t)))  # noqa: E731
    exact = (
        math.log(2.0)
        - 0.5 * expectations(lambda t: softplus(-t), joint=True)
        - (0.5 * expectations(softplus, joint=False))
    )
    rows = 200_000
    joint, product = gaussian_scores(rows)
    parts = torch.nn.functional.softplus(-joint), torch.nn.functional.softplus(product)
    error = 0.5 * math.sqrt(sum(part.var().item() for part in parts) / rows)
    assert abs(jensen_shannon(joint, product).item() - exact) < 4.0 * error < 0.005
    # The optimum is a maximum over critics, and the divergence is at most log 2.
    for change in (lambda t: 0.7 * t, lambda t: 1.4 * t, lambda t: t + 0.3):
        assert jensen_shannon(change(joint), change(product)).item() < exact
    assert 0.0 < exact < math.log(2.0)


def test_jensen_shannon_against_a_loop():
    joint, product = draw(), draw(60)
    slow = (
        math.log(2.0)
        - 0.5 * sum(math.log1p(math.exp(-t)) for t in joint.tolist()) / 40
        - 0.5 * sum(math.log1p(math.exp(t)) for t in product.tolist()) / 60
    )
    assert jensen_shannon(joint, product).item() == pytest.approx(slow, rel=1e-12)
    assert jensen_shannon(draw() * 0 + 500.0, draw() * 0 - 500.0).item() == math.log(2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [None, -400.0, 0.0, 400.0])
def test_scores_up_to_200_are_finite(dtype, shift):
    """With the average as MINE keeps it: it includes the batch."""
    joint = torch.linspace(-200.0, 200.0, 41, dtype=dtype).requires_grad_()
    product = torch.linspace(200.0, -200.0, 33, dtype=dtype).requires_grad_()
    average = None
    if shift is not None:
        own = log_mean_exp(product.detach())
        log_m, weight = moving_log_average(own + shift, torch.ones_like(own), own, 0.99)
        average = log_m - weight.log()
    for value in (donsker_varadhan(joint, product, average), jensen_shannon(joint, product)):
        gradients = torch.autograd.grad(value, (joint, product))
        assert value.isfinite() and all(g.isfinite().all() for g in gradients)
    assert log_mean_exp(product).item() == pytest.approx(200.0 - math.log(33.0), rel=1e-6)


def test_gradcheck_of_the_plain_bounds():
    leaves = draw(6).requires_grad_(), draw(8).requires_grad_()
    for function in (donsker_varadhan, jensen_shannon, mine_loss):
        assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradcheck(log_mean_exp, leaves[:1])


def test_surrogates_gradient_is_the_explicit_formula():
    """d/dT_joint = 1 / n; d/dT_product = -e^T / (m * exp(log_denominator))."""
    joint, product = draw(6).requires_grad_(), draw(8).requires_grad_()
    for log_denominator in (-1.0, 0.3, 2.0):
        given = torch.tensor(log_denominator, dtype=torch.float64, requires_grad=True)
        value = donsker_varadhan(joint, product, given)
        assert value.item() == pytest.approx(donsker_varadhan(joint, product).item(), rel=1e-12)
        first, second = torch.autograd.grad(value, (joint, product), retain_graph=True)
        torch.testing.assert_close(first, torch.full_like(joint, 1.0 / 6.0))
        expected = -product.detach().exp() / (8.0 * math.exp(log_denominator))
        torch.testing.assert_close(second, expected)
        assert torch.autograd.grad(value, given, allow_unused=True)[0] is None
    # With the batch's own denominator it is the plain bound's gradient.
    own = log_mean_exp(product)
    plain = torch.autograd.grad(donsker_varadhan(joint, product), (joint, product))
    same = torch.autograd.grad(donsker_varadhan(joint, product, own), (joint, product))
    for a, b in zip(plain, same, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_moving_average_is_the_explicit_weighted_mean(decay):
    values = (torch.rand(25, dtype=torch.float64) * 6.0 - 3.0).tolist()
    log_m, weight = torch.tensor(-math.inf, dtype=torch.float64), torch.zeros(()).double()
    for count, value in enumerate(values, 1):
        logarithm = torch.tensor(value, dtype=torch.float64)
        log_m, weight = moving_log_average(log_m, weight, logarithm, decay)
        powers = [decay ** (count - 1 - i) for i in range(count)]
        terms = zip(powers, values[:count], strict=True)
        slow = sum(p * math.exp(v) for p, v in terms) / sum(powers)
        assert (log_m - weight.log()).item() == pytest.approx(math.log(slow), abs=1e-9)
        assert weight.item() == pytest.approx(1.0 - decay**count, abs=1e-12)


def test_moving_average_bounds_the_batchs_ratio():
    """The batch's exponentials never exceed 1 / (1 - decay) times the average."""
    log_m, weight = moving_log_average(
        torch.tensor(-900.0), torch.tensor(1.0), torch.tensor(0.0), 0.99
    )
    assert (-(log_m - weight.log())).exp().item() == pytest.approx(100.0, rel=1e-4)


# ---- Nguyen, Wainwright and Jordan


def test_nwj_against_a_loop():
    joint, product = draw(), draw(60, 2.0)
    slow = sum(joint.tolist()) / 40 - sum(math.exp(t - 1.0) for t in product.tolist()) / 60
    assert nwj(joint, product).item() == pytest.approx(slow, rel=1e-12)
    assert nwj(joint.view(5, 8), product.view(6, 10)).item() == pytest.approx(slow, rel=1e-12)


def test_nwj_at_the_optimal_critic():
    """T = 1 + log ratio: E[T] - E[e^(T - 1)] = 1 + I - 1; standard error of 1,000,000 rows."""
    joint, product = (1.0 + t for t in gaussian_scores(1_000_000))
    error = math.sqrt(joint.var().item() + (product - 1.0).exp().var().item()) / 1000.0
    assert abs(nwj(joint, product).item() - TRUTH) < 4.0 * error < 0.03
    # Elsewhere it is below: exactly so after a constant shift, by e^c - 1 - c.
    for c in (-0.5, 0.5):
        shifted = nwj(joint + c, product + c).item() - nwj(joint, product).item()
        assert shifted == pytest.approx(c - (math.exp(c) - 1.0), abs=4.0 * error)


def test_nwj_is_below_donsker_varadhan_and_touches_it():
    """x / e >= log x, with equality at x = e: at the scores whose mean exponential is e."""
    for _ in range(20):
        joint, product = draw(), draw(30, 2.0)
        assert nwj(joint, product) < donsker_varadhan(joint, product)
        level = 1.0 - log_mean_exp(product)
        touching = nwj(joint + level, product + level)
        torch.testing.assert_close(touching, donsker_varadhan(joint, product))


def test_nwj_overflows_only_where_its_value_does():
    """One score of 90 among 100,000: e^90 is beyond float32, the mean of them is not."""
    product = torch.zeros(100_000)
    product[7] = 90.0
    product.requires_grad_()
    value = nwj(torch.zeros(1), product)
    value.backward()
    assert value.item() == pytest.approx(-math.exp(89.0 - math.log(100_000)), rel=1e-4)
    assert product.grad.isfinite().all()


def test_log_tail():
    """Identity below the knee; above it the exponential is the tangent at the knee."""
    s = torch.linspace(-5.0, 30.0, 701, dtype=torch.float64)
    t = log_tail(s, 2.0)
    assert torch.equal(t[s <= 2.0], s[s <= 2.0])
    tangent = math.exp(2.0) * (1.0 + s[s > 2.0] - 2.0)
    torch.testing.assert_close(t[s > 2.0].exp(), tangent)
    assert (t.diff() > 0.0).all()
    inputs = torch.tensor([-1e30, -1.0, 2.0, 2.5, 1e6, 1e30], requires_grad=True)
    log_tail(inputs, 2.0).sum().backward()
    expected = torch.tensor([1.0, 1.0, 1.0, 1.0 / 1.5, 1.0 / (1e6 - 1.0), 1e-30])
    torch.testing.assert_close(inputs.grad, expected)
    assert torch.autograd.gradcheck(lambda x: log_tail(x, 0.3), draw(20).requires_grad_())


def test_nwj_of_tailed_scores_is_finite_pulls_back_and_stays_a_bound():
    scores = torch.tensor([0.0, 50.0, 1e6], requires_grad=True)
    value = nwj(torch.zeros(1), log_tail(scores, 10.0))
    value.backward()
    assert value.isfinite()
    # Above the knee the pull is that of the knee, e^9 / 3, however wild the score.
    pull = torch.full((2,), -math.exp(9.0) / 3.0)
    torch.testing.assert_close(scores.grad[1:], pull, rtol=1e-4, atol=0.0)
    joint, product = (1.0 + t for t in gaussian_scores(1_000_000))
    for knee in (1.0, 1.5, 2.0):
        bent = nwj(log_tail(joint, knee), log_tail(product, knee)).item()
        assert bent < TRUTH - 0.001


# ---- InfoNCE


def test_info_nce_against_a_loop():
    table = draw(36, 2.0).view(6, 6)
    rows = table.tolist()
    slow = sum(
        row[i] - math.log(sum(map(math.exp, row)) / len(row)) for i, row in enumerate(rows)
    ) / len(rows)
    assert info_nce(table).item() == pytest.approx(slow, rel=1e-12)
    # The same through own scores and negatives, which are the rest of each row.
    negatives = torch.stack([torch.cat((row[:i], row[i + 1 :])) for i, row in enumerate(table)])
    again = info_nce(table.diagonal(), negatives)
    assert again.item() == pytest.approx(slow, rel=1e-12)
    joint, other = draw(6), draw(6 * 4).view(6, 4)
    pairs = zip(joint.tolist(), other.tolist(), strict=True)
    slow = sum(t - math.log((math.exp(t) + sum(map(math.exp, row))) / 5) for t, row in pairs) / 6
    assert info_nce(joint, other).item() == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1000.0])
def test_info_nce_never_exceeds_the_log_of_the_candidates(scale):
    for rows in (1, 2, 7, 50):
        table = scale * torch.randn(rows, rows)
        best = table.masked_fill(torch.eye(rows, dtype=torch.bool), 0.0) + scale * torch.eye(rows)
        for scores in (table, best):
            assert info_nce(scores).item() <= math.log(rows) + 1e-6 * scale
        assert info_nce(scale * torch.ones(rows), scores).item() <= math.log(rows + 1) + 1e-6
    # It is reached: by the critic that is sure of the true partner.
    sure = info_nce(1000.0 * torch.eye(50))
    assert sure.item() == pytest.approx(math.log(50.0), abs=1e-6)
    assert info_nce(torch.tensor([[3.0]])).item() == 0.0


def test_info_nce_of_a_discrete_pair_is_the_entropy_of_the_classes():
    """a = b in classes of sizes n_k and a sure critic: row i of class k has n_k true partners,
    so that the value is the mean of log(B / n_k), the entropy of the frequencies."""
    classes = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    table = 1000.0 * (classes[:, None] == classes[None]).double()
    entropy = -sum(n / 10 * math.log(n / 10) for n in (5, 3, 2))
    assert info_nce(table).item() == pytest.approx(entropy, abs=1e-9)
    # Against another batch of sizes m_k the own partner is one candidate more.
    other = torch.tensor([0] * 4 + [1] * 1 + [2] * 3)
    negatives = 1000.0 * (classes[:, None] == other[None]).double()
    own = torch.full((10,), 1000.0, dtype=torch.float64)
    expected = sum(n * math.log(9 / (1 + m)) for n, m in ((5, 4), (3, 1), (2, 3))) / 10
    assert info_nce(own, negatives).item() == pytest.approx(expected, abs=1e-9)


def test_info_nce_at_the_optimal_critic_is_below_the_truth_and_near():
    """Poole et al.: a bound for every batch size, and it approaches I as the batch grows."""
    found = []
    for rows in (4, 512):
        values = []
        for _ in range(400 if rows == 4 else 20):
            x = torch.randn(rows, dtype=torch.float64)
            y = RHO * x + math.sqrt(1.0 - RHO**2) * torch.randn_like(x)
            values.append(info_nce(log_ratio(x[:, None], y[None])))
        stacked = torch.stack(values)
        found.append((stacked.mean().item(), stacked.std().item() / math.sqrt(len(values))))
    assert found[0][0] < TRUTH - 0.05
    assert abs(found[1][0] - TRUTH) < 0.01 + 4.0 * found[1][1] < 0.06


def test_info_nce_refuses():
    for table in (torch.zeros(3), torch.zeros(3, 4), torch.zeros(2, 3, 3)):
        with pytest.raises(ValueError, match=r"info_nce: expected scores of all pairs"):
            info_nce(table)
    for joint, other in (
        (torch.zeros(3, 3), torch.zeros(3, 3)),
        (torch.zeros(3), torch.zeros(2, 3)),
    ):
        with pytest.raises(ValueError, match=r"true pairs of shape \(B,\) and negatives"):
            info_nce(joint, other)


# ---- SMILE


def test_smile_against_a_loop():
    joint, product = draw(), draw(60, 3.0)
    for clip in (0.5, 2.0, 50.0):
        low, high = math.exp(-clip), math.exp(clip)
        clipped = [min(max(math.exp(t), low), high) for t in product.tolist()]
        slow = sum(joint.tolist()) / 40 - math.log(sum(clipped) / 60)
        assert smile(joint, product, clip).item() == pytest.approx(slow, rel=1e-12)
    torch.testing.assert_close(smile(joint, product, 50.0), donsker_varadhan(joint, product))
    for clip in (0.0, -1.0):
        with pytest.raises(ValueError, match="smile: expected clip > 0, got"):
            smile(joint, product, clip)


@pytest.mark.parametrize("clip", [0.5, 1.0, 5.0])
def test_smile_at_the_optimal_critic(clip):
    """Against quadrature of its own expression on a grid, with 4 standard errors."""
    grid = torch.linspace(-7.0, 7.0, 1401, dtype=torch.float64)
    density = torch.exp(-0.5 * (grid[:, None].square() + grid.square())) / (2.0 * math.pi)
    ratio = log_ratio(grid[:, None], grid).clamp(-clip, clip).exp()
    moment = float((density * ratio).sum()) * 0.01**2
    exact = TRUTH - math.log(moment)
    rows = 200_000
    joint, product = gaussian_scores(rows)
    clipped = product.clamp(-clip, clip).exp()
    error = math.sqrt((joint.var() + clipped.var() / moment**2).item() / rows)
    assert abs(smile(joint, product, clip).item() - exact) < 4.0 * error < 0.015
    if clip < 5.0:
        assert abs(exact - TRUTH) > 0.02  # the clipping is seen
    # No bound: a constant, which Donsker-Varadhan does not see, lifts it above any truth.
    assert smile(joint + 10.0, product + 10.0, clip).item() > TRUTH + 3.0


def test_gradcheck_of_the_further_bounds():
    leaves = draw(6).requires_grad_(), draw(8).requires_grad_()
    for function in (nwj, smile, lambda j, p: smile(j, p, 0.5)):
        assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradcheck(info_nce, draw(25).view(5, 5).requires_grad_())
    shapes = draw(5).requires_grad_(), draw(15).view(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(info_nce, shapes)

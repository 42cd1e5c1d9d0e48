"""Conditional models: likelihoods, Barber-Agakov and CLUB against loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, OneHotCategorical

from vaereg.functional import (
    barber_agakov,
    categorical_club,
    categorical_log_likelihood,
    gaussian_club,
    gaussian_log_likelihood,
    soft_clamp,
)


def draw(*size):
    return torch.randn(*size, dtype=torch.float64)


def one_hot(classes, number=3):
    """Rows of zeros for -1."""
    classes = torch.tensor(classes)
    return (classes[:, None] == torch.arange(number)).double()


def slow_club(log_q, rows, columns, skip_own):
    """Mean of log q(b_i | a_i) less the mean over pairs of log q(b_j | a_i), by two loops."""
    own = sum(log_q(i, i, False) for i in rows) / len(rows)
    pairs = [log_q(i, j, not skip_own) for i in rows for j in columns if not (skip_own and i == j)]
    return own - sum(pairs) / len(pairs)


# ---- likelihoods


def test_gaussian_log_likelihood():
    b, mean, logvar = draw(7, 2, 3), draw(7, 2, 3), draw(7, 2, 3)
    found = gaussian_log_likelihood(b, mean, logvar)
    torch.testing.assert_close(
        found, Independent(Normal(mean, (0.5 * logvar).exp()), 2).log_prob(b)
    )
    slow = sum(
        -0.5 * (math.log(2.0 * math.pi) + v + (x - m) ** 2 / math.exp(v))
        for x, m, v in zip(*(t[4].flatten().tolist() for t in (b, mean, logvar)), strict=True)
    )
    assert found[4].item() == pytest.approx(slow, rel=1e-12)
    assert gaussian_log_likelihood(b.bfloat16(), mean.bfloat16(), logvar.bfloat16()).dtype == (
        torch.float32
    )


def test_categorical_log_likelihood():
    logits, b = draw(5, 3), one_hot([0, 2, -1, 1, 1])
    found = categorical_log_likelihood(b, logits)
    rows = [0, 1, 3, 4]
    exact = OneHotCategorical(logits=logits[rows]).log_prob(b[rows])
    torch.testing.assert_close(found[rows], exact)
    assert found[2].item() == 0.0
    relaxed = draw(5, 3).softmax(1)
    slow = sum(
        w * (x - math.log(sum(map(math.exp, logits[3].tolist()))))
        for w, x in zip(relaxed[3].tolist(), logits[3].tolist(), strict=True)
    )
    assert categorical_log_likelihood(relaxed, logits)[3].item() == pytest.approx(slow, rel=1e-12)


# ---- Barber and Agakov


def test_barber_agakov_of_a_discrete_joint():
    """Exact posterior: I by enumeration. Any other q falls short by the mean KL(p || q)."""
    joint = torch.tensor([[0.3, 0.1], [0.05, 0.25], [0.1, 0.2]], dtype=torch.float64)
    pa, pb = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    truth = float((joint * (joint / (pa * pb)).log()).sum())
    entropy = float(-(pb * pb.log()).sum())
    posterior = joint / pa
    # One row for each cell of the joint, weighed by its probability.
    value = barber_agakov(posterior.log().flatten(), entropy, joint.flatten())
    assert value.item() == pytest.approx(truth, abs=1e-12)
    q = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    gap = float((joint * (posterior / q).log()).sum())
    value = barber_agakov(q.log().flatten(), entropy, joint.flatten())
    assert value.item() == pytest.approx(truth - gap, abs=1e-12)
    assert gap > 0.05


def test_barber_agakov_means_over_the_weighted_rows():
    rows = draw(6)
    assert barber_agakov(rows, 0.5).item() == pytest.approx(rows.mean().item() + 0.5)
    weights = torch.tensor([1, 0, 1, 0, 0, 1]).double()
    expected = rows[[0, 2, 5]].mean().item() + 0.5
    assert barber_agakov(rows, 0.5, weights).item() == pytest.approx(expected)
    leaf = rows.clone().requires_grad_()
    nothing = barber_agakov(leaf, torch.tensor(0.5), torch.zeros(6))
    nothing.backward()
    assert nothing.item() == 0.0 and not leaf.grad.any()


# ---- CLUB


@pytest.mark.parametrize("other_rows", [None, 1, 5])
@pytest.mark.parametrize("shape", [(6, 3), (2, 1), (4, 2, 2)])
def test_gaussian_club_against_two_loops(shape, other_rows):
    b, mean, logvar = draw(*shape), draw(*shape), draw(*shape)
    other = None if other_rows is None else draw(other_rows, *shape[1:])

    def log_q(i, j, foreign):
        x = (other if foreign else b)[j]
        q = Normal(mean[i], (0.5 * logvar[i]).exp())
        return q.log_prob(x).sum().item()

    columns = range(shape[0] if other is None else other_rows)
    slow = slow_club(log_q, range(shape[0]), columns, other is None)
    assert gaussian_club(b, mean, logvar, other=other).item() == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize("other", [None, [0, 2, 2, 1, 0], [-1, 1, 1, 0], [2]])
@pytest.mark.parametrize("classes", [[0, 1, 2, 1], [0, -1, 2, 1, -1, 1]])
def test_categorical_club_against_two_loops(classes, other):
    b, logits = one_hot(classes), draw(len(classes), 3)
    log_p = logits.log_softmax(1).tolist()
    rows = [i for i, k in enumerate(classes) if k >= 0]
    columns = rows if other is None else [j for j, k in enumerate(other) if k >= 0]

    def log_q(i, j, foreign):
        return log_p[i][(other if foreign else classes)[j]]

    slow = slow_club(log_q, rows, columns, other is None)
    found = categorical_club(b, logits, other=None if other is None else one_hot(other))
    assert found.item() == pytest.approx(slow, rel=1e-9)


def test_categorical_club_of_relaxed_rows_is_linear_in_them():
    logits, b = draw(5, 3), draw(5, 3).softmax(1)
    log_p = logits.log_softmax(1)
    slow = slow_club(lambda i, j, _: (b[j] * log_p[i]).sum().item(), range(5), range(5), True)
    assert categorical_club(b, logits).item() == pytest.approx(slow, rel=1e-9)


def test_the_papers_sum_shrinks_the_estimate():
    """With j = i in the sum over B^2 pairs the value is (B - 1) / B times ours."""
    b, mean, logvar = draw(5, 2), draw(5, 2), draw(5, 2)
    own = gaussian_log_likelihood(b, mean, logvar).mean().item()
    table = [
        gaussian_log_likelihood(b, *(t[i].expand(5, 2) for t in (mean, logvar))) for i in range(5)
    ]
    paper = own - torch.stack(table).mean().item()
    assert paper == pytest.approx(0.8 * gaussian_club(b, mean, logvar).item(), rel=1e-9)


@pytest.mark.parametrize(("d", "rho"), [(1, 0.3), (1, 0.9), (3, 0.6), (10, 0.5)])
def test_club_at_the_exact_conditional(d, rho):
    """d independent pairs of correlation rho.

    I + KL(p(a) p(b) || p(a, b)) = d rho^2 / (1 - rho^2). 50 batches of 20,000 rows: within 4 of
    their standard errors, and those within 5%.
    """
    exact = d * rho**2 / (1.0 - rho**2)
    logvar = torch.full((20_000, d), math.log(1.0 - rho**2)).double()
    values, foreign = [], []
    for _ in range(50):
        a, e, fresh = draw(3, 20_000, d)
        b = rho * a + math.sqrt(1.0 - rho**2) * e
        values.append(gaussian_club(b, rho * a, logvar))
        foreign.append(gaussian_club(b, rho * a, logvar, other=fresh))
    for found in map(torch.stack, (values, foreign)):
        error = found.std().item() / math.sqrt(50.0)
        assert abs(found.mean().item() - exact) < 4.0 * error < 0.05 * exact


def test_club_is_exact_far_from_the_origin():
    """b around 10,000 in float32: nothing cancels, because b is centred first."""
    b = 1e4 + torch.randn(64, 2)
    mean, logvar = b + 0.5 * torch.randn(64, 2), torch.randn(64, 2)
    precise = gaussian_club(b.double(), mean.double(), logvar.double()).item()
    assert gaussian_club(b, mean, logvar).item() == pytest.approx(precise, rel=1e-4)
    other = 1e4 + torch.randn(32, 2)
    precise = gaussian_club(b.double(), mean.double(), logvar.double(), other=other.double())
    found = gaussian_club(b, mean, logvar, other=other)
    assert found.item() == pytest.approx(precise.item(), rel=1e-4)


def test_club_without_a_pair_is_zero_with_zero_gradient():
    leaves = [draw(1, 3).requires_grad_() for _ in range(3)]
    value = gaussian_club(*leaves)
    value.backward()
    assert value.item() == 0.0 and not any(leaf.grad.any() for leaf in leaves)
    cases = (([1], None), ([-1, 2, -1], None), ([-1, -1], [0, 1]), ([0, 1], [-1]))
    for classes, other in cases:
        logits = draw(len(classes), 3).requires_grad_()
        foreign = None if other is None else one_hot(other)
        value = categorical_club(one_hot(classes), logits, other=foreign)
        value.backward()
        assert value.item() == 0.0 and not logits.grad.any()


def test_gradcheck():
    b, mean, logvar, other = (draw(4, 2).requires_grad_() for _ in range(4))
    check = torch.autograd.gradcheck
    assert check(gaussian_log_likelihood, (b, mean, logvar))
    assert check(gaussian_club, (b, mean, logvar))
    assert check(lambda *t: gaussian_club(*t[:3], other=t[3]), (b, mean, logvar, other))
    assert check(categorical_log_likelihood, (b, logvar))
    soft = draw(4, 3).requires_grad_()
    # Relaxed rows sum to 1: their presence is no variable.
    assert check(
        lambda x, y: categorical_club(x.softmax(1), y), (soft, draw(4, 3).requires_grad_())
    )
    assert check(barber_agakov, (draw(5).requires_grad_(), draw(1)[0].requires_grad_()))


def test_refused():
    for function in (gaussian_log_likelihood, gaussian_club):
        with pytest.raises(
            ValueError, match=rf"{function.__name__}: expected tensors of one shape"
        ):
            function(draw(3, 2), draw(3, 1), draw(3, 2))
    with pytest.raises(ValueError, match=r"other of shape \(M, 2\), got \(3, 3\)"):
        gaussian_club(draw(3, 2), draw(3, 2), draw(3, 2), other=draw(3, 3))
    with pytest.raises(ValueError, match=r"other of shape \(M, 2\), got \(3, 3\)"):
        categorical_club(draw(3, 2), draw(3, 2), other=draw(3, 3))
    for function in (categorical_log_likelihood, categorical_club):
        with pytest.raises(ValueError, match=r"expected shape \(B, C\), got \(3, 2, 2\)"):
            function(draw(3, 2, 2), draw(3, 2, 2))


# ---- the soft clamp


@pytest.mark.parametrize(("low", "high"), [(-10.0, 10.0), (-1.0, 3.0), (0.0, 0.5)])
def test_soft_clamp(low, high):
    margin = min(1.0, (high - low) / 2.0)
    x = torch.linspace(low - 20.0, high + 20.0, 4001, dtype=torch.float64)
    y = soft_clamp(x, low, high)
    inside = (x >= low + margin) & (x <= high - margin)
    torch.testing.assert_close(y[inside], x[inside])
    assert (y > low).all() and (y < high).all() and (y.diff() > 0.0).all()
    torch.testing.assert_close(soft_clamp(low + high - x, low, high), low + high - y)
    assert torch.autograd.gradcheck(
        lambda t: soft_clamp(t, low, high), (5.0 * draw(20)).requires_grad_()
    )


def test_soft_clamp_keeps_a_gradient_far_outside():
    x = torch.tensor([-1e4, -50.0, 50.0, 1e4], requires_grad=True)
    soft_clamp(x, -10.0, 10.0).sum().backward()
    expected = torch.tensor([9992.0, 42.0, 42.0, 9992.0]).square().reciprocal()
    torch.testing.assert_close(x.grad, expected, rtol=1e-3, atol=0.0)

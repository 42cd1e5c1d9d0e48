"""MINE and JSD: the bias correction on both paths, exact values, robustness, a truth reached."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics
from vaereg.functional import donsker_varadhan, jensen_shannon, log_mean_exp

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, BATCHES = 16, 20_000


class Product(nn.Module):
    """T(x, y) = a x y with one parameter."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x, y):
        return self.a * (x * y).sum(1)


class Scaled(nn.Module):
    """Scores that are the first variable itself, so that a test can set them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y):
        return self.scale * x[:, 0] + 0.0 * y[:, 0]


def warm(term, log_average):
    """Put the debiased average at a given value, as after many steps there."""
    with torch.no_grad():
        term.log_average.fill_(log_average)
        term.weight.fill_(1.0)


# ---- the bias of the gradient, and its correction


def test_bias_correction_on_the_critic_path():
    """x, y standard normal of correlation 0.8 and T = a x y at a = 0.4.

    E[e^T] over the product is (1 - a^2)^(-1/2), so the bound's derivative in a is
    0.8 - a / (1 - a^2) = 0.3238. The minibatch's own ratio (decay 0) is off by 0.075 at 16 rows,
    the moving average by about 0.075 / 100. Measured as the difference from the gradient with the
    exact denominator on the same rows, whose expectation is known: the standard error of that
    difference over 20,000 batches is about 0.002 for the naive gradient and 0.001 for the other.
    """
    a = 0.4
    exact = 0.8 - a / (1.0 - a * a)
    x = torch.randn(BATCHES, BATCH, 1)
    y = 0.8 * x + 0.6 * torch.randn_like(x)
    foreign = torch.randn_like(x)
    weights = (a * x * foreign).exp()
    moment = (x * foreign * weights).mean((1, 2))
    control = (x * y).mean((1, 2)) - moment * (1.0 - a * a) ** 0.5

    naive = (x * y).mean((1, 2)) - moment / weights.mean((1, 2))
    plain = vaereg.MINE("x", "y", critic=Product(a), decay=0.0)
    for i in range(20):
        loss = plain.critic_loss({"x": x[i], "y": y[i]}, other={"y": foreign[i]})
        (gradient,) = torch.autograd.grad(loss, plain.critic.a)
        torch.testing.assert_close(-gradient, naive[i], rtol=1e-4, atol=1e-5)

    term = vaereg.MINE("x", "y", critic=Product(a), decay=0.99)
    found = []
    for i in range(BATCHES):
        loss = term.critic_loss({"x": x[i], "y": y[i]}, other={"y": foreign[i]})
        found.append(-torch.autograd.grad(loss, term.critic.a)[0])
    corrected = torch.stack(found)

    naive_mean = exact + float((naive - control).double().mean())
    corrected_mean = exact + float((corrected - control).double().mean())
    assert math.isclose(exact, 0.3238, abs_tol=1e-4)
    assert naive_mean - exact > 0.04
    assert abs(corrected_mean - exact) < 0.01
    # The control's own mean is the exact gradient; its standard error is about 0.004.
    assert abs(float(control.double().mean()) - exact) < 0.015


def test_bias_correction_on_the_encoder_path():
    """y = w x + e at w = 2 and T = a x y at a = 0.18, differentiated in w through ``forward``.

    With x, e standard normal, log E[e^T] over the product is -log(1 - a^2 (w^2 + 1)) / 2, so the
    bound's derivative in w is a - a^2 w / (1 - a^2 (w^2 + 1)) = 0.10267. At 16 rows the naive
    gradient is 12% too large (by simulation of 400,000 batches: 12.0% with standard error 0.2%).
    The average is moved by one critic step a batch, and holds about 2% of the batch itself, hence
    a remaining bias of about 0.3%; its standard error over 10,000 batches is about 0.25%.
    """
    a, w, steps = 0.18, 2.0, BATCHES // 2
    exact = a - a * a * w / (1.0 - a * a * (w * w + 1.0))
    x, e = torch.randn(2, BATCHES, BATCH, 1)
    x_other, e_other = torch.randn(2, BATCHES, BATCH, 1)
    scores = a * x * (w * x_other + e_other)
    moment = (a * x * x_other * scores.exp()).mean((1, 2))
    own = a * x.square().mean((1, 2))
    control = own - moment * (1.0 - a * a * (w * w + 1.0)) ** 0.5

    gradients = {}
    for decay, batches in ((0.0, 50), (0.99, steps)):
        term = vaereg.MINE("x", "y", critic=Product(a), decay=decay)
        weight = torch.tensor(w, requires_grad=True)
        found = []
        for i in range(batches):
            batch = {"x": x[i], "y": weight * x[i] + e[i]}
            other = {"y": weight * x_other[i] + e_other[i]}
            if decay:
                with torch.no_grad():
                    term.critic_loss(batch, other=other)
            found.append(torch.autograd.grad(term(batch, other=other), weight)[0])
        gradients[decay] = torch.stack(found)

    naive = own - moment / scores.exp().mean((1, 2))
    torch.testing.assert_close(gradients[0.0], naive[:50], rtol=1e-4, atol=1e-5)
    naive_bias = float((naive - control).double().mean()) / exact
    corrected_bias = float((gradients[0.99] - control[:steps]).double().mean()) / exact
    assert naive_bias > 0.08
    assert abs(corrected_bias) < 0.01


def test_value_is_donsker_varadhan_whatever_the_average():
    """The displayed value has the minibatch's own denominator, not the average."""
    term = vaereg.MINE("x", "y", critic=Product(0.5))
    batch = {"x": torch.randn(32, 1), "y": torch.randn(32, 1)}
    other = {"y": torch.randn(32, 1)}
    joint = 0.5 * (batch["x"] * batch["y"]).double().flatten()
    product = 0.5 * (batch["x"] * other["y"]).double().flatten()
    slow = sum(joint.tolist()) / 32 - math.log(sum(math.exp(t) for t in product.tolist()) / 32)
    for log_average in (-3.0, 0.0, 5.0):
        warm(term, log_average)
        assert math.isclose(term(batch, other=other).item(), slow, abs_tol=1e-5)
        assert math.isclose(-term.critic_loss(batch, other=other).item(), slow, abs_tol=1e-5)


def test_product_rows_without_other_are_a_cyclic_shift():
    """No row meets itself; every other shift occurs."""
    rows = 5
    x = torch.eye(rows)
    seen = []
    term = vaereg.MINE("x", "y", critic=Recorder(seen))
    for _ in range(200):
        term({"x": x, "y": x})
    shifts = set()
    for a, b in seen:
        shift = (b[rows:].argmax(1) - a[rows:].argmax(1)) % rows
        assert torch.equal(a[:rows], b[:rows]) and len(set(shift.tolist())) == 1
        shifts.add(int(shift[0]))
    # Each of 4 shifts is missed by 200 draws with probability 4 * 0.75^200 = 4e-25.
    assert shifts == {1, 2, 3, 4}


class Recorder(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, y):
        self.seen.append((x.detach(), y.detach()))
        return self.scale * (x * y).sum(1)


def test_other_is_read_cyclically():
    seen = []
    term = vaereg.JSD("x", "y", critic=Recorder(seen))
    term({"x": torch.eye(5), "y": torch.eye(5)}, other={"y": torch.eye(5)[:2]})
    assert seen[0][1][5:].argmax(1).tolist() == [0, 1, 0, 1, 0]


def test_gradient_flows_through_both_batches_in_forward_only():
    term = vaereg.MINE("x", "y", critic=critics.mlp(2, 1, width=8))
    leaves = [torch.randn(8, 1, requires_grad=True) for _ in range(3)]
    batch, other = {"x": leaves[0], "y": leaves[1]}, {"y": leaves[2]}
    term.critic_loss(batch, other=other).backward()
    assert all(leaf.grad is None for leaf in leaves)
    term(batch, other=other).backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)


# ---- robustness


@pytest.mark.parametrize("lag", [-400.0, 0.0, 400.0])
@pytest.mark.parametrize("spread", [200.0, 1.0])
def test_scores_of_any_size_are_finite(lag, spread):
    """Scores in [-200, 200], and an average that lags behind them by 400 nats."""
    term = vaereg.MINE("x", "y", critic=Scaled())
    x = torch.linspace(-spread, spread, 33).unsqueeze(1).requires_grad_()
    y = torch.randn(33, 1)
    warm(term, lag)
    value = term({"x": x, "y": y})
    value.backward()
    loss = term.critic_loss({"x": x, "y": y})
    loss.backward()
    found = (value, loss, x.grad, term.critic.scale.grad, term.log_average, term.weight)
    assert all(torch.isfinite(t).all() for t in found)
    # The batch is in the average: no weight of a row exceeds 1 / (1 - decay) times the naive one.
    assert x.grad.abs().sum() <= 1.0 + 100.0 * (1.0 + 1e-4)


def test_lagging_average_shrinks_or_grows_the_gradient_as_stated():
    """The second term's gradient is (batch mean) / (0.99 * average + 0.01 * batch mean)."""
    term = vaereg.MINE("x", "y", critic=Scaled())
    for log_average in (-2.0, 0.0, 1.5):
        warm(term, log_average)
        x = torch.zeros(4, 1, requires_grad=True)  # every exponential is 1
        term({"x": x, "y": torch.zeros(4, 1)}).backward()
        ratio = 1.0 / (0.99 * math.exp(log_average) + 0.01)
        expected = torch.full((4, 1), (1.0 - ratio) / 4.0)
        torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-7)


def test_average_moves_in_critic_loss_and_training_mode_only():
    term = vaereg.MINE("x", "y", critic=Product(0.3))
    batch = {"x": torch.randn(8, 1), "y": torch.randn(8, 1)}
    term(batch)
    assert term.weight.item() == 0.0
    term.eval().critic_loss(batch)
    assert term.weight.item() == 0.0
    term.train().critic_loss(batch)
    assert math.isclose(term.weight.item(), 0.01, rel_tol=1e-5)


def test_average_is_the_debiased_mean_of_all_batches():
    """Against the explicit weighted mean of every batch's mean exponential, in float64."""
    term = vaereg.MINE("x", "y", critic=Product(0.3), decay=0.9)
    seen = []
    for _ in range(30):
        batch = {"x": torch.randn(8, 1), "y": torch.randn(8, 1)}
        other = {"y": torch.randn(8, 1)}
        seen.append((0.3 * batch["x"] * other["y"]).double().exp().mean().item())
        term.critic_loss(batch, other=other)
    weights = [0.9 ** (29 - i) for i in range(30)]
    slow = sum(w * s for w, s in zip(weights, seen, strict=True)) / sum(weights)
    found = (term.log_average - term.weight.log()).double().exp().item()
    assert math.isclose(found, slow, rel_tol=1e-5)


class Constant(nn.Module):
    """T(x, y) = c."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.tensor(0.0))

    def forward(self, x, y):
        return self.c + 0.0 * x[:, 0]


@pytest.mark.parametrize(("decay", "left"), [(0.99, 1.0 / 5.95), (0.0, 1.0)])
def test_the_average_resists_a_change_of_the_free_constant(decay, left):
    """The bound does not see c. With the average m, descent at rate r keeps
    c + r * decay / (1 - decay) * log m: of a kick of 1, 1 / (1 + 0.05 * 99) is left."""
    term = vaereg.MINE("x", "y", critic=Constant(), decay=decay)
    optimizer = torch.optim.SGD(term.critic_parameters(), 0.05)
    batch = {"x": torch.zeros(4, 1), "y": torch.zeros(4, 1)}
    for step in range(3000):
        if step == 1000:
            with torch.no_grad():
                term.critic.c.fill_(1.0)
        optimizer.zero_grad()
        term.critic_loss(batch).backward()
        optimizer.step()
        assert step >= 1000 or abs(term.critic.c.item()) < 1e-3
    assert term.critic.c.item() == pytest.approx(left, abs=0.02)


def test_one_broken_batch_does_not_poison_the_average():
    term = vaereg.MINE("x", "y", critic=Product(0.3))
    good = {"x": torch.randn(8, 1), "y": torch.randn(8, 1)}
    term.critic_loss(good)
    before = term.log_average.clone()
    term.critic_loss({**good, "x": torch.full((8, 1), float("nan"))})
    assert torch.equal(term.log_average, before)


def test_lone_row_has_value_zero_and_zero_gradient():
    for kind in (vaereg.MINE, vaereg.JSD):
        term = kind("x", "y", critic=critics.mlp(2, 1, width=8))
        x = torch.randn(1, 1, requires_grad=True)
        value = term({"x": x, "y": torch.ones(1, 1)})
        value.backward()
        assert value.item() == 0.0 and not x.grad.any()
        assert term.critic_loss({"x": x, "y": torch.ones(1, 1)}).item() == 0.0


# ---- truths


def test_mine_reaches_the_truth_of_a_gaussian_pair():
    """Correlation 0.8: I = -log(1 - 0.64) / 2 = 0.5108 nats.

    Read on 100,000 fresh rows, where the bound's standard error is about
    sqrt(Var T / n + Var e^T / (n E[e^T]^2)) = 0.006; the critic may fall short by 0.03.
    """
    truth = -0.5 * math.log(1.0 - 0.64)
    term = vaereg.MINE("x", "y", critic=critics.mlp(2, 1, width=32))
    optimizer = torch.optim.Adam(term.critic_parameters(), 3e-3)
    for _ in range(1500):
        optimizer.zero_grad()
        term.critic_loss(gaussian_pair(256, 0.8)).backward()
        optimizer.step()
    with torch.no_grad():
        found = term(gaussian_pair(100_000, 0.8), other=gaussian_pair(100_000, 0.8)).item()
    assert truth - 0.05 < found < truth + 0.02


def test_jsd_reaches_the_truth_of_a_discrete_pair():
    """Two equal bits: JSD = log 2 - E[softplus] at T = log(p / (p p)), by enumeration.

    With a = b uniform bits, the mixture has density ratio 2 on the diagonal and 0 off it:
    JSD = log 2 - (log 3/2) / 2 - (log 3) / 4 = 0.2158 nats.
    """
    truth = math.log(2.0) - 0.5 * math.log(1.5) - 0.25 * math.log(3.0)
    term = vaereg.JSD("x", "y", critic=critics.mlp(4, 1, width=32))
    optimizer = torch.optim.Adam(term.critic_parameters(), 1e-2)
    for _ in range(400):
        bits = torch.randint(2, (256,))
        x = vaereg.labels(bits, 2)
        other = {"y": vaereg.labels(torch.randint(2, (256,)), 2)}
        optimizer.zero_grad()
        term.critic_loss({"x": x, "y": x}, other=other).backward()
        optimizer.step()
    # Half of the product rows are on the diagonal exactly: no sampling noise is left.
    x = vaereg.labels(torch.tensor([0, 0, 1, 1]), 2)
    y = vaereg.labels(torch.tensor([0, 1, 0, 1]), 2)
    with torch.no_grad():
        found = term({"x": x, "y": x}, other={"y": y}).item()
        ratio = term.diagnostics({"x": x, "y": x})["mutual_information"].item()
    assert truth - 0.01 < found < truth + 1e-5
    assert abs(ratio - math.log(2.0)) < 0.2  # the plug-in at the optimal critic is I = log 2


def test_diagnostics_of_mine():
    term = vaereg.MINE("x", "y", critic=Product(0.3))
    batch, other = gaussian_pair(64, 0.5), gaussian_pair(64, 0.5)
    term.critic_loss(batch, other=other)
    shown = term.diagnostics(batch, other=other)
    product = 0.3 * (batch["x"] * other["y"]).flatten()
    torch.testing.assert_close(shown["log_partition"], log_mean_exp(product))
    torch.testing.assert_close(shown["log_average"], shown["log_partition"])
    torch.testing.assert_close(shown["joint"] - shown["log_partition"], term(batch, other=other))
    assert all(not entry.requires_grad for entry in shown.values())


def gaussian_pair(rows, correlation):
    x = torch.randn(rows, 1)
    y = correlation * x + (1.0 - correlation**2) ** 0.5 * torch.randn(rows, 1)
    return {"x": x, "y": y}


def test_terms_agree_with_the_functional_layer():
    batch, other = gaussian_pair(32, 0.5), gaussian_pair(32, 0.5)
    critic = Product(0.7)
    joint = critic(batch["x"], batch["y"])
    product = critic(batch["x"], other["y"])
    mine = vaereg.MINE("x", "y", critic=critic)(batch, other=other)
    jsd = vaereg.JSD("x", "y", critic=critic)(batch, other=other)
    torch.testing.assert_close(mine, donsker_varadhan(joint, product).detach())
    torch.testing.assert_close(jsd, jensen_shannon(joint, product).detach())


# ---- errors


def test_decay_outside_of_its_range():
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match="decay in"):
            vaereg.MINE("x", "y", critic=nn.Linear(2, 1), decay=decay)


def test_batch_normalisation_in_a_critic():
    with pytest.raises(ValueError, match="batch normalisation"):
        vaereg.JSD("x", "y", critic=nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)))


def test_other_of_another_width():
    term = vaereg.MINE("x", "y", critic=nn.Linear(2, 1))
    with pytest.raises(ValueError, match="'y' of the other batch"):
        term(gaussian_pair(4, 0.0), other={"y": torch.zeros(4, 2)})


def test_bare_integer_labels():
    term = vaereg.MINE("x", "y", critic=nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"'y' to be floating point.*vaereg.labels"):
        term({"x": torch.zeros(4, 1), "y": torch.zeros(4, dtype=torch.long)})


def test_validate_finds_a_batch_of_one_class():
    term = vaereg.MINE("x", "y", critic=nn.Linear(3, 1))
    y = vaereg.labels(torch.zeros(4, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="'y' to vary"):
        term.validate({"x": torch.randn(4, 1), "y": y})


def test_the_average_stays_in_float32():
    """In bfloat16 its weight would stop at 0.8 and bias every gradient by a tenth."""
    term = vaereg.MINE("a", "b", critic=critics.mlp(2, 1)).to(torch.bfloat16)
    assert term.log_average.dtype == term.weight.dtype == torch.float32
    assert term.double().weight.dtype == torch.float64


def test_diagnostics_before_the_first_critic_step_are_finite():
    batch = {"a": torch.randn(8, 1), "b": torch.randn(8, 1)}
    found = vaereg.MINE("a", "b", critic=critics.mlp(2, 1)).diagnostics(batch)
    assert torch.equal(found["log_average"], found["log_partition"])

"""NWJ, InfoNCE and SMILE as terms: against the functional layer, truths reached, wild critics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics
from vaereg._pairs import off_diagonal
from vaereg.functional import info_nce, jensen_shannon, log_tail, nwj, smile

pytestmark = pytest.mark.usefixtures("one_thread")

RHO = 0.8
TRUTH = -0.5 * math.log(1.0 - RHO**2)


def gaussian_pair(rows, correlation=RHO):
    x = torch.randn(rows, 1)
    y = correlation * x + (1.0 - correlation**2) ** 0.5 * torch.randn(rows, 1)
    return {"x": x, "y": y}


class Oracle(nn.Module):
    """The log density ratio of the Gaussian pair, plus a constant."""

    def __init__(self, constant=0.0):
        super().__init__()
        self.constant = nn.Parameter(torch.tensor(constant))

    def forward(self, x, y):
        square = RHO**2 * (x * x + y * y) - 2.0 * RHO * x * y
        return TRUTH - square[:, 0] / (2.0 * (1.0 - RHO**2)) + self.constant

    def all_pairs(self, x, y):
        square = RHO**2 * (x * x + y.T * y.T) - 2.0 * RHO * x * y.T
        return TRUTH - square / (2.0 * (1.0 - RHO**2)) + self.constant


# ---- values


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("pairs", ["shift", "all"])
def test_terms_agree_with_the_functional_layer(pairs, foreign):
    critic = critics.separable(1, 1, embedding=4, width=8)
    batch, other = gaussian_pair(12), gaussian_pair(12) if foreign else None
    x, y = batch["x"], batch["y"]
    second = y if other is None else other["y"]
    table = critic.all_pairs(x, second).detach()
    joint = critic(x, y).detach()
    whole = table if foreign else off_diagonal(table)
    options = [whole]
    if pairs == "shift":
        options = [critic(x, second.roll(-shift, 0)).detach() for shift in range(12)]
        options = options[:1] if foreign else options[1:]
    low = 0.05  # a knee and a clip among the scores, so that they are seen
    expected = {
        vaereg.NWJ: lambda p: nwj(log_tail(joint, 1.0), log_tail(p, 1.0)),
        vaereg.SMILE: lambda p: smile(joint, p, low),
    }
    keys = {vaereg.NWJ: {"knee": 1.0}, vaereg.SMILE: {"clip": low}}
    for kind, function in expected.items():
        found = kind("x", "y", critic=critic, pairs=pairs, **keys[kind])(batch, other=other)
        assert any(torch.allclose(found, function(p), atol=1e-6) for p in options)
    found = vaereg.InfoNCE("x", "y", critic=critic)(batch, other=other)
    torch.testing.assert_close(found, info_nce(joint, whole))


def test_critic_losses():
    """NWJ and InfoNCE descend on minus their value, SMILE on the Jensen-Shannon bound."""
    batch = gaussian_pair(12)
    critic = critics.separable(1, 1, embedding=4, width=8)
    for term in (vaereg.NWJ("x", "y", critic=critic), vaereg.InfoNCE("x", "y", critic=critic)):
        torch.testing.assert_close(term.critic_loss(batch), -term(batch))
    table = critic.all_pairs(batch["x"], batch["y"])
    bound = jensen_shannon(table.diagonal(), off_diagonal(table))
    term = vaereg.SMILE("x", "y", critic=critic, clip=0.01)
    torch.testing.assert_close(term.critic_loss(batch), -bound)
    assert abs(term(batch).item() - bound.item()) > 1e-3


def test_encoder_gradient_of_smile_is_that_of_the_clipped_expression():
    critic = critics.separable(1, 1, embedding=4, width=8)
    batch = gaussian_pair(12)
    x = batch["x"].requires_grad_()
    table = critic.all_pairs(x, batch["y"])
    clip = table.abs().median().item()
    term = vaereg.SMILE("x", "y", critic=critic, clip=clip)
    (found,) = torch.autograd.grad(term(batch), x)
    clipped = off_diagonal(table).exp().clamp(math.exp(-clip), math.exp(clip))
    (expected,) = torch.autograd.grad(table.diagonal().mean() - clipped.mean().log(), x)
    torch.testing.assert_close(found, expected)
    shown = term.diagnostics(batch)
    share = (off_diagonal(table).abs() > clip).float().mean()
    torch.testing.assert_close(shown["clipped"], share)
    assert 0.2 < share < 0.8


@pytest.mark.parametrize("kind", [vaereg.NWJ, vaereg.InfoNCE, vaereg.SMILE])
def test_lone_row_has_value_zero_and_zero_gradient(kind):
    for critic in (critics.mlp(2, width=8), critics.separable(1, 1, width=8)):
        term = kind("x", "y", critic=critic)
        x = torch.randn(1, 1, requires_grad=True)
        batch = {"x": x, "y": torch.ones(1, 1)}
        value = term(batch)
        value.backward()
        assert value.item() == 0.0 and not x.grad.any()
        assert term.critic_loss(batch).item() == 0.0
        assert term.diagnostics(batch) == {}
        assert term(batch, other={"y": torch.zeros(3, 1)}).item() != 0.0


def test_diagnostics():
    batch = gaussian_pair(200)
    shown = vaereg.NWJ("x", "y", critic=Oracle(1.0)).diagnostics(batch)
    assert shown["log_partition"].item() == pytest.approx(1.0, abs=0.3)
    assert shown["joint"].item() == pytest.approx(1.0 + TRUTH, abs=0.3)
    shown = vaereg.InfoNCE("x", "y", critic=Oracle()).diagnostics(batch)
    assert shown["ceiling"].item() == pytest.approx(math.log(200.0))
    assert 1.0 / 200.0 < shown["accuracy"].item() < 0.2
    same = {"x": torch.arange(5.0).unsqueeze(1), "y": torch.arange(5.0).unsqueeze(1)}
    sure = vaereg.InfoNCE("x", "y", critic=Near()).diagnostics(same, other={"y": same["y"] + 0.5})
    assert sure["accuracy"].item() == 1.0 and sure["ceiling"].item() == pytest.approx(math.log(6))


class Near(nn.Module):
    """Scores by closeness."""

    def forward(self, x, y):
        return -(x - y).square()[:, 0]


# ---- truths


def test_terms_at_the_oracle():
    """All pairs of 40 batches: within 4 standard errors, and those within 0.1."""
    values = {"nwj": [], "smile": [], "info": []}
    terms = {
        "nwj": vaereg.NWJ("x", "y", critic=Oracle(1.0)),
        "smile": vaereg.SMILE("x", "y", critic=Oracle(), clip=40.0),
        "info": vaereg.InfoNCE("x", "y", critic=Oracle()),
    }
    for _ in range(40):
        batch = gaussian_pair(400)
        for name, term in terms.items():
            values[name].append(term(batch).detach())
    for name, found in values.items():
        stacked = torch.stack(found)
        error = stacked.std().item() / math.sqrt(40.0)
        # InfoNCE and Donsker-Varadhan of a batch are biased, by about 1 / B.
        bias = 0.0 if name == "nwj" else 0.02
        assert abs(stacked.mean().item() - TRUTH) < 4.0 * error + bias < 0.1, name


@pytest.mark.parametrize(
    ("kind", "critic"),
    [
        (vaereg.NWJ, lambda: critics.separable(1, 1, width=32)),
        (vaereg.NWJ, lambda: critics.mlp(2, 1, width=32)),
        (vaereg.SMILE, lambda: critics.mlp(2, 1, width=32)),
        (vaereg.SMILE, lambda: critics.concatenated(1, 1, width=16)),
        (vaereg.InfoNCE, lambda: critics.separable(1, 1, width=32)),
    ],
)
def test_fitted_terms_reach_the_truth_of_a_gaussian_pair(kind, critic):
    """Correlation 0.8: 0.5108 nats, read on fresh rows; the critic may fall short by 0.06."""
    term = kind("x", "y", critic=critic())
    rows = 64 if term.scores_all else 256
    optimizer = torch.optim.Adam(term.critic_parameters(), 5e-3)
    for _ in range(500):
        optimizer.zero_grad()
        term.critic_loss(gaussian_pair(rows)).backward()
        optimizer.step()
    with torch.no_grad():
        found = torch.stack([term(gaussian_pair(200)) for _ in range(40)])
    error = found.std().item() / math.sqrt(40.0)
    assert TRUTH - 0.06 - 4.0 * error < found.mean().item() < TRUTH + 0.02 + 4.0 * error


def test_info_nce_says_no_more_than_the_log_of_the_candidates():
    """A code that equals the other variable: I is infinite, the value stays below log 8."""
    term = vaereg.InfoNCE("x", "y", critic=critics.separable(1, 1, embedding=8, width=32))
    optimizer = torch.optim.Adam(term.critic_parameters(), 1e-2)
    for _ in range(300):
        x = torch.randn(8, 1)
        optimizer.zero_grad()
        term.critic_loss({"x": x, "y": x}).backward()
        optimizer.step()
        assert term({"x": x, "y": x}).item() <= math.log(8.0) + 1e-5
    assert term({"x": x, "y": x}).item() > 0.5 * math.log(8.0)


# ---- wild critics


@pytest.mark.parametrize("constant", [-300.0, 95.0, 300.0, 1e6])
def test_nwj_of_a_wild_critic_is_finite_and_pulls_back(constant):
    """Scores far beyond the range of the exponential: plain NWJ overflows above 89."""
    batch = gaussian_pair(64)
    x = batch["x"].requires_grad_()
    if constant > 0.0:
        plain = Oracle(constant)
        table = plain.all_pairs(x.detach(), batch["y"])
        assert not nwj(table.diagonal(), off_diagonal(table)).isfinite()
    term = vaereg.NWJ("x", "y", critic=Oracle(constant))
    value = term(batch)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()
    loss = term.critic_loss(batch)
    loss.backward()
    slope = term.critic.constant.grad.item()
    assert loss.isfinite() and math.isfinite(slope)
    # Descent lowers scores that are too high, and lifts those that are too low.
    assert slope > 1.0 if constant > 0.0 else slope == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.parametrize("constant", [-100.0, 300.0])
def test_nwj_of_a_wild_critic_comes_back(constant):
    term = vaereg.NWJ("x", "y", critic=Oracle(constant))
    optimizer = torch.optim.Adam(term.critic_parameters(), 1.0)
    for step in range(1200):
        if step == 1000:
            optimizer.param_groups[0]["lr"] = 0.02
        optimizer.zero_grad()
        term.critic_loss(gaussian_pair(64)).backward()
        optimizer.step()
    assert term.critic.constant.item() == pytest.approx(1.0, abs=0.25)


def test_the_knee_does_not_show_below_it():
    batch = gaussian_pair(64)
    critic = critics.separable(1, 1, width=8)
    values = [vaereg.NWJ("x", "y", critic=critic, knee=k)(batch) for k in (5.0, 10.0, 80.0)]
    assert torch.equal(values[0], values[1]) and torch.equal(values[1], values[2])


@pytest.mark.parametrize("kind", [vaereg.MINE, vaereg.JSD, vaereg.InfoNCE, vaereg.SMILE])
def test_scores_of_any_size_are_finite(kind):
    for constant in (-1e6, 1e6):
        batch = gaussian_pair(16)
        x = batch["x"].requires_grad_()
        term = kind("x", "y", critic=Oracle(constant))
        value, loss = term(batch), term.critic_loss(batch)
        (value + loss).backward()
        assert value.isfinite() and loss.isfinite()
        assert x.grad.isfinite().all() and term.critic.constant.grad.isfinite()


# ---- errors


def test_refused():
    for clip in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"smile\(x,y\): expected clip > 0, got"):
            vaereg.SMILE("x", "y", critic=nn.Linear(2, 1), clip=clip)
    for knee in (0.0, 100.0, math.nan):
        with pytest.raises(ValueError, match=r"nwj\(x,y\): expected knee in \[1, 80\], got"):
            vaereg.NWJ("x", "y", critic=nn.Linear(2, 1), knee=knee)
    for kind in (vaereg.NWJ, vaereg.InfoNCE, vaereg.SMILE):
        with pytest.raises(ValueError, match="batch normalisation"):
            kind("x", "y", critic=nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)))

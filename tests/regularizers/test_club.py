"""CLUB as a term: fitted models, the soft clamp, missing labels, what moves what."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics
from vaereg.functional import categorical_club, gaussian_club, gaussian_log_likelihood, soft_clamp

pytestmark = pytest.mark.usefixtures("one_thread")


def gaussian_pair(rows, d, rho):
    a = torch.randn(rows, d)
    return {"a": a, "b": rho * a + math.sqrt(1.0 - rho**2) * torch.randn(rows, d)}


class Conditional(nn.Module):
    """The exact conditional of a Gaussian pair."""

    def __init__(self, rho):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(rho))
        self.logvar = nn.Parameter(torch.tensor(math.log(1.0 - rho**2)))

    def forward(self, a):
        return torch.cat((self.slope * a, self.logvar.expand_as(a)), 1)


def fit(term, draw, steps, rate=3e-3):
    optimizer = torch.optim.Adam(term.critic_parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        term.critic_loss(draw()).backward()
        optimizer.step()


# ---- values


@pytest.mark.parametrize("foreign", [False, True])
def test_terms_agree_with_the_functional_layer(foreign):
    batch = {"a": torch.randn(6, 3), "b": torch.randn(6, 2, 2)}
    other = {"b": torch.randn(9, 2, 2)} if foreign else None
    reference = other["b"].flatten(1) if foreign else None
    critic = critics.mlp(3, 8, width=8)
    # Narrow enough for the clamp to be seen.
    term = vaereg.CLUB("a", "b", critic=critic, logvar_range=(-0.2, 0.2))
    mean, logvar = critic(batch["a"]).chunk(2, 1)
    logvar = soft_clamp(logvar, -0.2, 0.2)
    b = batch["b"].flatten(1)
    expected = gaussian_club(b, mean, logvar, other=reference)
    torch.testing.assert_close(term(batch, other=other), expected.detach())
    loss = -gaussian_log_likelihood(b, mean, logvar).mean()
    torch.testing.assert_close(term.critic_loss(batch, other=other), loss)
    torch.testing.assert_close(term.diagnostics(batch)["log_likelihood"], -loss.detach())

    y = vaereg.labels(torch.tensor([0, 1, -1, 1, 0, 1]), 2)
    foreign_y = vaereg.labels(torch.tensor([1, -1, 0, 1]), 2) if foreign else None
    critic = critics.mlp(3, 2, width=8)
    term = vaereg.CLUB("a", "y", critic=critic, family="categorical")
    batch, logits = {"a": batch["a"], "y": y}, critic(batch["a"])
    expected = categorical_club(y, logits, other=foreign_y).detach()
    found = term(batch, other={"y": foreign_y} if foreign else None)
    torch.testing.assert_close(found, expected)
    cross_entropy = nn.functional.cross_entropy(logits[[0, 1, 3, 4, 5]], y[[0, 1, 3, 4, 5]])
    torch.testing.assert_close(term.critic_loss(batch), cross_entropy)


@pytest.mark.parametrize(("d", "rho"), [(1, 0.8), (4, 0.5)])
def test_at_the_exact_conditional(d, rho):
    """d rho^2 / (1 - rho^2): within 4 standard errors of 40 batches, and those within 5%."""
    exact = d * rho**2 / (1.0 - rho**2)
    term = vaereg.CLUB("a", "b", critic=Conditional(rho))
    found = torch.stack([term(gaussian_pair(8000, d, rho)).detach() for _ in range(40)])
    error = found.std().item() / math.sqrt(40.0)
    assert abs(found.mean().item() - exact) < 4.0 * error < 0.05 * exact


@pytest.mark.parametrize(("d", "rho"), [(1, 0.8), (3, 0.6)])
def test_fitted_within_five_percent(d, rho):
    """A perceptron, fitted by the term's own critic loss, read on 100,000 fresh rows."""
    exact = d * rho**2 / (1.0 - rho**2)
    term = vaereg.CLUB("a", "b", critic=critics.mlp(d, 2 * d, width=16, depth=1))
    fit(term, lambda: gaussian_pair(512, d, rho), 800, 1e-2)
    fit(term, lambda: gaussian_pair(2048, d, rho), 300, 1e-3)
    with torch.no_grad():
        found = term(gaussian_pair(100_000, d, rho), other=gaussian_pair(100_000, d, rho)).item()
    assert abs(found - exact) < 0.05 * exact


def test_exact_discrete_case():
    """At the exact conditional: I + KL(p(a) p(b) || p(a, b)), by enumeration of a joint."""
    counts = torch.tensor([[30, 10, 5], [5, 25, 25]])
    joint = counts / counts.sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    exact = ((joint - product) * joint.log()).sum().item()
    information = (joint * (joint / product).log()).sum().item()
    reverse = (product * (product / joint).log()).sum().item()
    assert exact == pytest.approx(information + reverse, abs=1e-6)
    cells = [(i, j) for i in range(2) for j in range(3) for _ in range(counts[i, j])]
    a, b = (torch.tensor(entry) for entry in zip(*cells, strict=True))
    critic = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        critic.weight.copy_((joint / joint.sum(1, keepdim=True)).log().T)
    term = vaereg.CLUB("a", "b", critic=critic, family="categorical")
    batch = {"a": vaereg.labels(a, 2), "b": vaereg.labels(b, 3)}
    # Against all rows of b the product is exactly that of the marginals; without the own partner
    # it is larger by B / (B - 1).
    assert term(batch, other=batch).item() == pytest.approx(exact, abs=1e-5)
    assert term(batch).item() == pytest.approx(exact * 100.0 / 99.0, abs=1e-5)


def test_gradients_reach_both_variables_and_no_critic():
    leaves = [torch.randn(6, 2, requires_grad=True) for _ in range(3)]
    batch, other = {"a": leaves[0], "b": leaves[1]}, {"b": leaves[2]}
    term = vaereg.CLUB("a", "b", critic=critics.mlp(2, 4, width=8))
    term.critic_loss(batch, other=other).backward()
    assert all(leaf.grad is None for leaf in leaves)
    term.zero_grad()
    term(batch, other=other).backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert all(p.grad is None for p in term.critic_parameters())


def test_lone_row_has_value_zero_and_still_fits_the_critic():
    a = torch.randn(1, 2, requires_grad=True)
    term = vaereg.CLUB("a", "b", critic=critics.mlp(2, 4, width=8))
    batch = {"a": a, "b": torch.randn(1, 2)}
    value = term(batch)
    value.backward()
    assert value.item() == 0.0 and not a.grad.any()
    term.critic_loss(batch).backward()
    assert any(p.grad.abs().sum() > 0 for p in term.critic_parameters())


def test_missing_labels_take_no_part():
    a = torch.randn(5, 2, requires_grad=True)
    y = vaereg.labels(torch.tensor([0, -1, 2, -1, 1]), 3)
    term = vaereg.CLUB("a", "y", critic=critics.mlp(2, 3, width=8), family="categorical")
    value = term({"a": a, "y": y})
    torch.testing.assert_close(value, term({"a": a[[0, 2, 4]], "y": y[[0, 2, 4]]}))
    value.backward()
    assert a.grad[[0, 2, 4]].all() and not a.grad[[1, 3]].any()
    none = {"a": a, "y": torch.zeros(5, 3)}
    assert term(none).item() == 0.0 and term.critic_loss(none).item() == 0.0


# ---- the log-variance far outside of its range


class Shifted(nn.Module):
    """Mean and log-variance as two numbers, the same for all rows."""

    def __init__(self, logvar):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.0))
        self.logvar = nn.Parameter(torch.tensor(logvar))

    def forward(self, a):
        return torch.cat((self.mean + 0.0 * a, self.logvar + 0.0 * a), 1)


@pytest.mark.parametrize("start", [-1e4, -40.0, 40.0, 1e4])
def test_a_model_outside_of_the_range_is_finite_and_has_a_gradient_that_leads_back(start):
    batch = {"a": torch.randn(32, 1), "b": torch.randn(32, 1)}
    term = vaereg.CLUB("a", "b", critic=Shifted(start))
    loss = term.critic_loss(batch)
    loss.backward()
    slope = term.critic.logvar.grad.item()
    assert loss.isfinite() and term(batch).isfinite() and math.isfinite(slope)
    assert slope < 0.0 if start < 0.0 else slope > 0.0
    # A hard clamp would give none.
    clamped = term.critic.logvar.clamp(-10.0, 10.0)
    assert torch.autograd.grad(clamped, term.critic.logvar)[0].item() == 0.0


@pytest.mark.parametrize("start", [-40.0, 40.0])
def test_a_model_outside_of_the_range_comes_back(start):
    """b is standard normal and a says nothing of it: log-variance 0.

    At the lower end the squared error counts e^10 times, hence the clipped norm.
    """
    term = vaereg.CLUB("a", "b", critic=Shifted(start))
    objective = vaereg.Objective(club=term)
    optimizer = objective.critic_optimizer(torch.optim.Adam, lr=0.05)
    for _ in range(1500):
        batch = {"a": torch.zeros(64, 1), "b": torch.randn(64, 1)}
        objective.critic_step(batch, optimizer, max_norm=1.0)
    assert term.critic.logvar.item() == pytest.approx(0.0, abs=0.2)


# ---- errors


def test_refused():
    with pytest.raises(ValueError, match=r"club\(a,b\): expected family .* got 'bernoulli'"):
        vaereg.CLUB("a", "b", critic=nn.Linear(2, 2), family="bernoulli")
    for bad in ((1.0, 1.0), (3.0, -3.0), (-100.0, 10.0), (-10.0, math.nan)):
        with pytest.raises(ValueError, match=r"logvar_range of low < high in \[-80, 80\]"):
            vaereg.CLUB("a", "b", critic=nn.Linear(2, 2), logvar_range=bad)
    batch = {"a": torch.zeros(4, 2), "b": torch.zeros(4, 3)}
    term = vaereg.CLUB("a", "b", critic=nn.Linear(2, 3))
    with pytest.raises(
        ValueError, match=r"a mean and a log-variance .* 3 numbers .*'b', shape \(4, 6\)"
    ):
        term(batch)
    term = vaereg.CLUB("a", "b", critic=nn.Linear(2, 2), family="categorical")
    with pytest.raises(ValueError, match=r"a logit .* 3 numbers a row of 'b', shape \(4, 3\)"):
        term(batch)
    term = vaereg.CLUB("a", "b", critic=nn.Linear(2, 6))
    with pytest.raises(ValueError, match=r"'b' of the other batch of 3 numbers a row, got 2"):
        term(batch, other={"b": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match="'a' to vary"):
        term.validate(batch)

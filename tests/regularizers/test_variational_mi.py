"""VariationalMI: an exact discrete case, the entropy, relaxed codes, shared critics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics

COUNTS = torch.tensor([[30, 10, 5], [5, 25, 25]])  # rows: the given variable, columns: the code


def discrete():
    """One row for each count, the information, and the exact posterior's logits."""
    joint = COUNTS.double() / COUNTS.sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    cells = [(i, j) for i in range(2) for j in range(3) for _ in range(COUNTS[i, j])]
    given, code = (torch.tensor(entry) for entry in zip(*cells, strict=True))
    batch = {"g": vaereg.labels(given, 2).double(), "v": vaereg.labels(code, 3).double()}
    truth = (joint * (joint / product).log()).sum().item()
    return batch, truth, (joint / joint.sum(1, keepdim=True)).log()


def table(logits):
    critic = nn.Linear(2, 3, bias=False).double()
    with torch.no_grad():
        critic.weight.copy_(logits.T)
    return critic


def entropy(share):
    return -sum(p * math.log(p) for p in share if p > 0.0)


# ---- the value


def test_exact_posterior_gives_the_information():
    batch, truth, logits = discrete()
    term = vaereg.VariationalMI("v", given="g", critic=table(logits))
    assert term(batch).item() == pytest.approx(truth, abs=1e-12)
    share = COUNTS.sum(0).double() / COUNTS.sum()
    known = vaereg.VariationalMI("v", given="g", critic=table(logits), probabilities=share)
    assert known(batch).item() == pytest.approx(truth, abs=1e-7)
    none = vaereg.VariationalMI("v", given="g", critic=table(logits), entropy="none")
    assert none(batch).item() == pytest.approx(truth - entropy(share.tolist()), abs=1e-12)
    # A bound: any other critic gives less, by the mean KL of the posteriors.
    for other in (0.5 * logits, 1.5 * logits, logits.flip(1)):
        worse = vaereg.VariationalMI("v", given="g", critic=table(other))
        assert worse(batch).item() < truth - 1e-2


def test_critic_fitted_by_its_own_loss_reaches_the_information():
    batch, truth, _ = discrete()
    term = vaereg.VariationalMI("v", given="g", critic=table(torch.zeros(2, 3)))
    optimizer = torch.optim.Adam(term.critic_parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        term.critic_loss(batch).backward()
        optimizer.step()
    assert term(batch).item() == pytest.approx(truth, abs=1e-4)


def test_relaxed_code_against_a_loop():
    """The sample in the likelihood, the posterior's mean in the entropy."""
    torch.manual_seed(1)
    c = vaereg.categorical(torch.randn(4, 3).double(), temperature=0.7)
    x = torch.randn(4, 2).double()
    critic = nn.Linear(2, 3).double()
    log_q = critic(x).log_softmax(1).tolist()
    likelihood = sum(
        v * q for vs, qs in zip(c.value.tolist(), log_q, strict=True)
        for v, q in zip(vs, qs, strict=True)
    ) / 4  # fmt: skip
    share = c.q.base_dist.probs if hasattr(c.q, "base_dist") else c.q.probs
    slow = likelihood + entropy(share.mean(0).tolist())
    found = vaereg.VariationalMI("c", given="x", critic=critic)({"c": c, "x": x})
    assert found.item() == pytest.approx(slow, abs=1e-9)


def test_missing_labels_take_no_part():
    g = torch.randn(5, 2, requires_grad=True)
    y = vaereg.labels(torch.tensor([0, -1, 2, -1, 2]), 3)
    term = vaereg.VariationalMI("y", given="g", critic=critics.mlp(2, 3, width=8))
    value = term({"y": y, "g": g})
    torch.testing.assert_close(value, term({"y": y[[0, 2, 4]], "g": g[[0, 2, 4]]}))
    value.backward()
    assert g.grad[[0, 2, 4]].any() and not g.grad[[1, 3]].any()


def test_without_labelled_rows_the_value_is_zero_with_zero_gradient():
    g = torch.randn(4, 2, requires_grad=True)
    batch = {"y": torch.zeros(4, 3), "g": g}
    for options in ({}, {"probabilities": torch.ones(3) / 3.0}, {"entropy": "none"}):
        term = vaereg.VariationalMI("y", given="g", critic=critics.mlp(2, 3), **options)
        value = term(batch)
        value.backward()
        assert value.item() == 0.0 and not g.grad.any()
        assert term.critic_loss(batch).item() == 0.0


def test_a_lone_row_has_the_value_of_the_equation():
    critic = nn.Linear(2, 3)
    g = torch.randn(1, 2)
    term = vaereg.VariationalMI("y", given="g", critic=critic)
    log_q = critic(g).log_softmax(1)
    found = term({"y": vaereg.labels(torch.tensor([1]), 3), "g": g})
    assert found.item() == pytest.approx(log_q[0, 1].item(), abs=1e-6)


# ---- the entropy's gradient


@pytest.mark.parametrize("kind", ["detached", "trained", "none"])
def test_gradient_of_the_entropy(kind):
    """``trained`` adds the gradient of H, and nothing else does; the value is the same."""
    logits = torch.randn(5, 3).double().requires_grad_()
    sample = torch.randn(5, 3).double().softmax(1)
    x = torch.randn(5, 2).double()
    code = vaereg.categorical(logits, 0.5, value=sample)
    critic = nn.Linear(2, 3).double()
    term = vaereg.VariationalMI("c", given="x", critic=critic, entropy=kind)
    value = term({"c": code, "x": x.requires_grad_()})
    (found,) = torch.autograd.grad(value, logits, allow_unused=True)
    share = logits.softmax(1).mean(0)
    known = -(share * share.log()).sum()
    (expected,) = torch.autograd.grad(known, logits)
    if kind == "trained":
        torch.testing.assert_close(found, expected)
    else:
        assert found is None or not found.any()
    detached = vaereg.VariationalMI("c", given="x", critic=critic)({"c": code, "x": x})
    shift = known.item() if kind == "none" else 0.0
    assert value.item() + shift == pytest.approx(detached.item(), abs=1e-9)


def test_trained_entropy_of_a_class_that_never_occurs_is_finite():
    logits = torch.tensor([[0.0, -2e3], [0.0, -2e3]], requires_grad=True)
    code = vaereg.categorical(logits, 0.5, value=torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    term = vaereg.VariationalMI("c", given="x", critic=nn.Linear(2, 2), entropy="trained")
    term({"c": code, "x": torch.randn(2, 2)}).backward()
    assert logits.grad.isfinite().all()


def test_gradient_reaches_the_sample_and_the_given_variable():
    logits = torch.randn(5, 3, requires_grad=True)
    x = torch.randn(5, 2, requires_grad=True)
    term = vaereg.VariationalMI("c", given="x", critic=nn.Linear(2, 3))
    batch = {"c": vaereg.categorical(logits, 0.5), "x": x}
    term.critic_loss(batch).backward()
    assert logits.grad is None and x.grad is None
    term.zero_grad()
    term(batch).backward()
    assert logits.grad.any() and x.grad.any()
    assert all(p.grad is None for p in term.critic_parameters())


# ---- a shared critic


def test_a_shared_critic_stays_its_owners():
    head = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    term = vaereg.VariationalMI("y", given="x", critic=head, shared=True)
    assert not list(term.parameters()) and not term.state_dict()
    assert not list(term.critic_parameters()) and not list(term.prior_parameters())
    objective = vaereg.Objective(tie=(-1.0, term))
    optimizer = objective.critic_optimizer(torch.optim.Adam, lr=1.0)
    x = torch.randn(6, 2, requires_grad=True)
    batch = {"x": x, "y": vaereg.labels(torch.arange(6) % 3, 3)}
    before = [p.clone() for p in head.parameters()]
    assert objective.critic_step(batch, optimizer).values["tie"].item() == 0.0
    assert all(map(torch.equal, before, head.parameters()))
    objective(batch).total.backward()
    assert all(p.grad is not None for p in head.parameters()) and x.grad.any()
    # The same value as with a frozen one, in evaluation mode, and it is a training signal.
    head.eval()
    with pytest.raises(ValueError, match="batch normalisation"):
        vaereg.VariationalMI("y", given="x", critic=head)
    plain = nn.Sequential(head[0], head[2])
    shared = vaereg.VariationalMI("y", given="x", critic=plain, shared=True)
    owned = vaereg.VariationalMI("y", given="x", critic=plain)
    torch.testing.assert_close(shared(batch), owned(batch))
    assert set(shared.diagnostics(batch)) == {"accuracy", "entropy"}


def test_diagnostics():
    batch, _, logits = discrete()
    shown = vaereg.VariationalMI("v", given="g", critic=table(logits)).diagnostics(batch)
    assert shown["accuracy"].item() == pytest.approx(0.55)  # 30 of the first row, 25 of the other
    share = (COUNTS.sum(0) / COUNTS.sum()).tolist()
    assert shown["entropy"].item() == pytest.approx(entropy(share), abs=1e-6)


# ---- errors


def test_refused():
    batch = {"y": vaereg.labels(torch.arange(4) % 3, 3), "x": torch.zeros(4, 2)}
    term = vaereg.VariationalMI("y[:2]", given="x", critic=nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"discrete code 'y\[:2\]' of shape \(B, C\) as a whole"):
        term(batch)
    for code in (torch.zeros(4, 3, 2, 2), vaereg.Code(torch.zeros(4, 3, 2, 2))):
        term = vaereg.VariationalMI("y", given="x", critic=nn.Linear(2, 3))
        with pytest.raises(ValueError, match="code 'y'"):
            term({**batch, "y": code})
    with pytest.raises(ValueError, match="entropy to be detached, trained or none, got 'free'"):
        vaereg.VariationalMI("y", given="x", critic=nn.Linear(2, 3), entropy="free")
    with pytest.raises(
        ValueError, match="probabilities \\(C,\\) that are not negative and sum to 1"
    ):
        vaereg.VariationalMI("y", given="x", critic=nn.Linear(2, 3), probabilities=torch.ones(3))
    term = vaereg.VariationalMI("y", given="x", critic=nn.Linear(2, 4))
    with pytest.raises(ValueError, match=r"'y' of the shape of the critic's logits, \(4, 4\)"):
        term(batch)
    share = torch.ones(4) / 4.0
    term = vaereg.VariationalMI("y", given="x", critic=nn.Linear(2, 3), probabilities=share)
    with pytest.raises(ValueError, match=r"'y' of the shape of probabilities, \(4, 4\)"):
        term(batch)
    with pytest.raises(ValueError, match="one whole variable as the code beside probabilities"):
        vaereg.VariationalMI(("y", "z"), given="x", critic=nn.Linear(2, 3), probabilities=share)


def test_validate():
    term = vaereg.VariationalMI("y", given="x", critic=nn.Linear(2, 3))
    x = torch.randn(3, 2)
    term.validate({"y": vaereg.labels(torch.tensor([0, -1, 2]), 3), "x": x})
    with pytest.raises(ValueError, match=r"rows of label 'y' that sum to 1.*got 1 others"):
        term.validate({"y": torch.eye(3) * torch.tensor([[1.0], [1.0], [2.0]]), "x": x})
    with pytest.raises(ValueError, match=r"two classes of label 'y'.*got 1 among 2 labelled"):
        term.validate({"y": vaereg.labels(torch.tensor([0, -1, 0]), 3), "x": x})
    code = vaereg.categorical(torch.randn(3, 3), 0.5)
    term.validate({"y": code, "x": x})

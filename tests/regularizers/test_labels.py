"""The adversarial classifier: its three quantities against loops and an exact discrete case."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vaereg

LOSSES = ["entropy", "uniform", "cross_entropy"]


def slow(loss, logits, labels, probabilities=None):
    """The three quantities by a loop over labelled rows; labels are integers, -1 missing."""
    rows = [(row, k) for row, k in zip(logits.tolist(), labels, strict=True) if k >= 0]
    if not rows:
        return 0.0
    classes, values = len(rows[0][0]), []
    for row, k in rows:
        total = math.log(sum(map(math.exp, row)))
        log_q = [entry - total for entry in row]
        if loss == "entropy":
            values.append(sum(math.exp(entry) * entry for entry in log_q))
        elif loss == "uniform":
            values.append(-math.log(classes) - sum(log_q) / classes)
        else:
            values.append(log_q[k])
    share = probabilities or [sum(k == c for _, k in rows) / len(rows) for c in range(classes)]
    entropy = -sum(p * math.log(p) for p in share if p > 0)
    return sum(values) / len(values) + (0.0 if loss == "uniform" else entropy)


def term(loss, classes=3, **keywords):
    critic = nn.Identity()  # the code itself is the logits
    return vaereg.AdversarialClassifier("z", "y", critic=critic, loss=loss, **keywords)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", [[0, 1, 2, 1, 1], [0, -1, 2, -1, 1], [1, 1, 1, 1, 1], [-1] * 5])
def test_against_a_loop(loss, labels):
    logits = 2.0 * torch.randn(5, 3, dtype=torch.float64)
    y = vaereg.labels(torch.tensor(labels), 3)
    found = term(loss)({"z": logits, "y": y}).item()
    assert found == pytest.approx(slow(loss, logits, labels), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("loss", ["entropy", "cross_entropy"])
def test_given_probabilities_replace_the_batchs(loss):
    logits, labels, share = torch.randn(5, 3), [0, 1, 2, 1, -1], [0.2, 0.3, 0.5]
    one = term(loss, probabilities=torch.tensor(share))
    found = one({"z": logits, "y": vaereg.labels(torch.tensor(labels), 3)}).item()
    assert found == pytest.approx(slow(loss, logits, labels, share), abs=1e-5)
    with pytest.raises(ValueError, match="'y' of as many classes as probabilities, 3, got 2"):
        one({"z": logits[:, :2], "y": torch.eye(2)[[0, 1, 1, 0, 0]]})


def test_critic_loss_is_the_cross_entropy():
    logits = torch.randn(5, 3)
    labels = torch.tensor([0, 2, -1, 1, -1])
    expected = nn.functional.cross_entropy(logits, labels, ignore_index=-1)
    for loss in LOSSES:
        found = term(loss).critic_loss({"z": logits, "y": vaereg.labels(labels, 3)})
        torch.testing.assert_close(found, expected)


def test_exact_discrete_case():
    """A code of one bit that equals the label in 90% of the rows.

    At the true posterior q(y | z), both ``entropy`` and ``cross_entropy`` are
    I(z; y) = log 2 - H(0.9); ``uniform`` is -log 2 - (log 0.9 + log 0.1) / 2.
    """
    z = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 1] + [1] * 9 + [0])
    y = torch.tensor([0] * 10 + [1] * 10)
    table = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    batch = {"z": table[z], "y": vaereg.labels(y, 2)}
    truth = math.log(2.0) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert term("entropy")(batch).item() == pytest.approx(truth, abs=1e-6)
    assert term("cross_entropy")(batch).item() == pytest.approx(truth, abs=1e-6)
    expected = -math.log(2.0) - 0.5 * (math.log(0.9) + math.log(0.1))
    assert term("uniform")(batch).item() == pytest.approx(expected, abs=1e-6)
    # Barber and Agakov: any other classifier gives less.
    for scale in (0.5, 1.5):
        worse = term("cross_entropy")({**batch, "z": scale * table[z]})
        assert worse.item() < truth - 1e-3
    accuracy = term("entropy").diagnostics(batch)["accuracy"].item()
    assert accuracy == pytest.approx(0.9)


def test_undecided_classifier_reads_nothing():
    batch = {"z": torch.zeros(4, 3), "y": vaereg.labels(torch.tensor([0, 1, 2, 0]), 3)}
    assert term("uniform")(batch).item() == pytest.approx(0.0, abs=1e-6)
    share = torch.ones(3) / 3
    for loss in ("entropy", "cross_entropy"):
        assert term(loss, probabilities=share)(batch).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_labelled_rows_the_value_is_zero_with_zero_gradient(loss):
    z = torch.randn(4, 3, requires_grad=True)
    y = vaereg.labels(torch.full((4,), -1), 3)
    for one in (term(loss), term(loss, probabilities=torch.ones(3) / 3)):
        value = one({"z": z, "y": y})
        assert value.item() == 0.0
        value.backward()
        assert not z.grad.any()
        assert one.critic_loss({"z": z, "y": y}).item() == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_unlabelled_rows_receive_no_gradient(loss):
    z = torch.randn(4, 3, requires_grad=True)
    term(loss)({"z": z, "y": vaereg.labels(torch.tensor([0, -1, 2, -1]), 3)}).backward()
    assert z.grad[[0, 2]].any() and not z.grad[[1, 3]].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_the_code_only(loss):
    """A predicted label, with a graph of its own, receives none."""
    y = torch.randn(4, 3, requires_grad=True)
    z = torch.randn(4, 3, requires_grad=True)
    term(loss)({"z": z, "y": y.softmax(1)}).backward()
    assert z.grad.any() and y.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_label_out_of_range_is_nan_and_found_by_validate(loss):
    one = term(loss)
    batch = {"z": torch.randn(3, 3), "y": vaereg.labels(torch.tensor([0, 1, 3]), 3)}
    assert one(batch).isnan() and one.critic_loss(batch).isnan()
    with pytest.raises(ValueError, match=r"'y', got NaN .* in 1 of 3 rows.*label out of range"):
        one.validate(batch)


def test_validate():
    one, z = term("entropy"), torch.randn(3, 3)
    one.validate({"z": z, "y": vaereg.labels(torch.tensor([0, -1, 2]), 3)})
    with pytest.raises(ValueError, match=r"rows of label 'y' that sum to 1.*got 1 others"):
        one.validate({"z": z, "y": torch.eye(3) * torch.tensor([[1.0], [1.0], [2.0]])})
    with pytest.raises(ValueError, match=r"two classes of label 'y'.*got 1 among 2 labelled"):
        one.validate({"z": z, "y": vaereg.labels(torch.tensor([0, -1, 0]), 3)})


def test_refused():
    with pytest.raises(ValueError, match="got 'hinge'"):
        term("hinge")
    with pytest.raises(ValueError, match="probabilities that sum to 1"):
        term("entropy", probabilities=torch.ones(3))
    several = vaereg.labels(torch.zeros(4, 2, dtype=torch.long), 3)
    with pytest.raises(ValueError, match=r"'y' of shape \(B, C\), got \(4, 2, 3\)"):
        term("entropy")({"z": torch.zeros(4, 3), "y": several})
    with pytest.raises(ValueError, match=r"'y' of the shape .* \(4, 3\), got \(4, 2\)"):
        term("entropy")({"z": torch.zeros(4, 3), "y": torch.zeros(4, 2)})

"""Joint and product rows: which pairs are scored, in how many calls, and by which parameters."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics
from vaereg._pairs import PairTerm, off_diagonal
from vaereg.functional import nwj

TERMS = (vaereg.MINE, vaereg.JSD, vaereg.NWJ, vaereg.SMILE)


class Numbered(nn.Module):
    """Scores that name the pair: 100 times the number in ``a`` plus that in ``b``."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = []

    def forward(self, a, b):
        self.calls.append("forward")
        return self.scale * (100.0 * a[:, 0] + b[:, 0])


class NumberedTable(Numbered):
    def all_pairs(self, a, b):
        self.calls.append("all_pairs")
        return self.scale * (100.0 * a[:, :1] + b[:, 0])


class NumberedRow(Numbered):
    """Of one argument."""

    def forward(self, x):
        self.calls.append("forward")
        return self.scale * (100.0 * x[:, 0] + x[:, 1])


KINDS = {"table": NumberedTable, "pair": Numbered, "row": NumberedRow}


def numbers(first, rows):
    return (torch.arange(rows) + first).float().unsqueeze(1)


def scored(kind, rows, other_rows=None, **options):
    """Joint and product scores as sets of whole numbers, and the calls of the critic."""
    critic = KINDS[kind]()
    term = vaereg.JSD("a", "b", critic=critic, **options)
    other = None if other_rows is None else {"b": numbers(50, other_rows)}
    found = term.scores({"a": numbers(0, rows), "b": numbers(0, rows)}, other)
    return [sorted(int(s) for s in part.flatten()) for part in found], critic.calls


def test_off_diagonal():
    for rows in (2, 3, 7):
        table = torch.randn(rows, rows)
        mask = ~torch.eye(rows, dtype=torch.bool)
        assert torch.equal(off_diagonal(table), table[mask].view(rows, rows - 1))


@pytest.mark.parametrize("rows", [2, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_are_all_but_the_true_ones(kind, rows):
    (joint, product), calls = scored(kind, rows, pairs="all")
    assert joint == [101 * i for i in range(rows)]
    assert product == [100 * i + j for i in range(rows) for j in range(rows) if i != j]
    assert len(calls) == 1  # one pass: the true pairs are its diagonal


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("other_rows", [1, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_with_another_batch(kind, rows, other_rows):
    (joint, product), calls = scored(kind, rows, other_rows, pairs="all")
    assert joint == [101 * i for i in range(rows)]
    assert product == [100 * i + 50 + j for i in range(rows) for j in range(other_rows)]
    assert len(calls) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_shift_pairs(kind):
    (joint, product), calls = scored(kind, 5, pairs="shift")
    assert joint == [0, 101, 202, 303, 404] and calls == ["forward"]
    assert len({(s - s // 100 * 101) % 5 for s in product}) == 1 and not set(joint) & set(product)
    (_, product), _ = scored(kind, 5, 2, pairs="shift")
    assert product == [50, 151, 250, 351, 450]


def test_auto_is_all_where_the_critic_can():
    assert scored("table", 4)[1] == ["all_pairs"] and len(scored("table", 4)[0][1]) == 12
    assert scored("pair", 4)[1] == ["forward"] and len(scored("pair", 4)[0][1]) == 4
    assert scored("row", 4)[1] == ["forward"] and len(scored("row", 4)[0][1]) == 4
    for term in TERMS:
        assert term("a", "b", critic=critics.separable(1, 1)).scores_all
        assert term("a", "b", critic=critics.concatenated(1, 1)).scores_all
        assert not term("a", "b", critic=critics.mlp(2)).scores_all
        assert not term("a", "b", critic=critics.separable(1, 1), pairs="shift").scores_all
    assert vaereg.InfoNCE("a", "b", critic=critics.mlp(2)).scores_all


def test_the_mean_over_all_shifts_is_that_of_all_pairs():
    """NWJ is linear in the mean of its product rows."""
    critic = critics.separable(1, 1, embedding=4, width=8).double()
    batch = {"a": torch.randn(4, 1).double(), "b": torch.randn(4, 1).double()}
    shifted = vaereg.NWJ("a", "b", critic=critic, pairs="shift")
    seen = {round(shifted(batch).item(), 12) for _ in range(100)}
    assert len(seen) == 3
    table = critic.all_pairs(batch["a"], batch["b"])
    value = vaereg.NWJ("a", "b", critic=critic)(batch)
    torch.testing.assert_close(value, nwj(table.diagonal(), off_diagonal(table)).detach())
    assert value.item() == pytest.approx(sum(seen) / 3, abs=1e-9)


@pytest.mark.parametrize("kind", [*TERMS, vaereg.InfoNCE])
def test_gradient_flows_through_both_batches_in_forward_only(kind):
    leaves = [torch.randn(5, 1, requires_grad=True) for _ in range(3)]
    batch, other = {"a": leaves[0], "b": leaves[1]}, {"b": leaves[2]}
    term = kind("a", "b", critic=critics.separable(1, 1, width=8))
    term.critic_loss(batch, other=other).backward()
    assert all(leaf.grad is None for leaf in leaves)
    assert any(p.grad.abs().sum() > 0 for p in term.critic_parameters())
    term.zero_grad()
    term(batch, other=other).backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert all(p.grad is None for p in term.critic_parameters())


def test_a_copy_scores_with_its_own_critic():
    term = vaereg.JSD("a", "b", critic=critics.separable(1, 1, width=8))
    batch = {"a": torch.randn(4, 1), "b": torch.randn(4, 1)}
    value = term(batch)
    buffer = io.BytesIO()
    torch.save(term, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(term), torch.load(buffer, weights_only=False)):
        assert torch.equal(again(batch), value)
        with torch.no_grad():
            for p in again.critic.parameters():
                p.zero_()
        assert again(batch).item() == pytest.approx(0.0, abs=1e-6)
        assert torch.equal(term(batch), value)
    names = [name for name, _ in term.named_parameters()]
    assert names and all(name.startswith("critic.") for name in names)
    assert len(names) == len(list(term.critic.parameters())) == len(term.state_dict())
    assert term.double()({k: v.double() for k, v in batch.items()}).dtype == torch.float64


def test_spectral_norm_moves_once_a_critic_loss():
    """With another batch too: joint and product rows see the same weights."""
    critic = critics.separable(1, 1, width=8, spectral_norm=True)
    read = []
    for name, module in critic.named_modules():
        if isinstance(module, nn.utils.parametrizations._SpectralNorm):
            module.register_forward_hook(lambda *_, name=name: read.append(name))
    batch = {"a": torch.randn(4, 1), "b": torch.randn(4, 1)}
    for pairs in ("shift", "all"):
        term = vaereg.JSD("a", "b", critic=critic, pairs=pairs)
        for other in (None, {"b": torch.randn(3, 1)}):
            read.clear()
            term.critic_loss(batch, other=other)
            assert len(read) == len(set(read)) == 6


def test_refused():
    with pytest.raises(ValueError, match=r"jsd\(a,b\): expected pairs to be auto, shift or all"):
        vaereg.JSD("a", "b", critic=critics.mlp(2), pairs="every")
    batch = {"a": torch.zeros(4, 1), "b": torch.zeros(4, 2)}
    for pairs in ("shift", "all"):
        term = vaereg.JSD("a", "b", critic=critics.mlp(3), pairs=pairs)
        with pytest.raises(ValueError, match=r"'b' of the other batch of shape \(B, 2\)"):
            term(batch, other={"b": torch.zeros(4, 1)})
    for critic in (critics.separable(1, 3), critics.concatenated(1, 3)):
        with pytest.raises(ValueError, match=r"variables of 3 numbers a row.*got 'b' of 2"):
            vaereg.JSD("a", "b", critic=critic)(batch)


def test_which_terms_measure_information():
    measuring = (*TERMS, vaereg.InfoNCE, vaereg.CLUB, vaereg.VariationalMI, PairTerm)
    assert all(kind.measures_information for kind in measuring)
    assert vaereg.AdversarialClassifier.measures_information
    for kind in (vaereg.Regularizer, vaereg.KL, vaereg.FreeBits, vaereg.Capacity):
        assert not kind.measures_information


@pytest.mark.parametrize("pairs", ["all", "shift"])
def test_a_critic_that_is_put_in_anothers_place_is_the_one_that_is_read(pairs):
    a, b = torch.randn(6, 2), torch.randn(6, 3)
    old, new = vaereg.critics.mlp(5, 1), vaereg.critics.mlp(5, 1)
    term = vaereg.NWJ("a", "b", critic=old, pairs=pairs)
    term.critic = new
    fresh = vaereg.NWJ("a", "b", critic=new, pairs=pairs)
    values = []
    for one in (term, fresh):
        torch.manual_seed(0)
        values.append(one({"a": a, "b": b}))
    assert torch.equal(*values)

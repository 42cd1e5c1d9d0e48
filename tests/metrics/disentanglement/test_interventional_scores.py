"""The scores of beta-VAE and FactorVAE, and the table that they draw from."""

from __future__ import annotations

import numpy as np
import pytest
from representations import SIZES, codes, grid

from vaereg.metrics import FactorTable, beta_vae_score, factor_vae_score

SMALL = {"train": 400, "test": 200}


def table(name, sizes=SIZES):
    return FactorTable(codes(name, grid(sizes)), sizes)


# ---- table


def test_lookup_is_row_major():
    factors = grid()
    found = FactorTable(factors, SIZES).lookup(factors[::-1])
    assert (found == factors[::-1]).all()
    assert FactorTable(factors, SIZES).lookup(factors.reshape(3, 20, 3)).shape == (3, 20, 3)


def test_any_order_becomes_the_grid():
    factors = grid()
    order = np.random.default_rng(0).permutation(60)
    made = FactorTable.of(factors[order] * 10.0, factors[order] * 7 - 3)
    assert made.labels is None and made.sizes == SIZES
    assert (made.codes == factors * 10.0).all()


@pytest.mark.parametrize("complete", [True, False])
def test_draws_share_the_fixed_factor_and_nothing_else(complete):
    factors = grid()
    made = FactorTable(factors, SIZES) if complete else FactorTable(factors, SIZES, factors)
    fixed = np.arange(3).repeat(3000)
    rows = made.draw(fixed, 4, np.random.default_rng(0))
    drawn = factors[rows]  # (V, 4, K)
    for i, k in enumerate(range(3)):
        part = drawn[i * 3000 : (i + 1) * 3000]
        assert (part[:, :, k] == part[:, :1, k]).all()
        for other in range(3):
            counts = np.bincount(part[:, :, other].ravel(), minlength=SIZES[other])
            assert counts / counts.sum() == pytest.approx(1 / SIZES[other], abs=0.03)
            if other != k:
                same = (part[:, 0, other] == part[:, 1, other]).mean()
                assert same == pytest.approx(1 / SIZES[other], abs=0.04)


def test_rows_missing_from_a_table():
    factors = grid()[7:]
    made = FactorTable.of(factors, factors)
    assert made.labels is not None and "not a complete grid" in repr(made)
    rows = made.draw(np.zeros(500, int), 3, np.random.default_rng(0))
    assert (factors[rows][:, :, 0] == factors[rows][:, :1, 0]).all()
    with pytest.raises(ValueError, match="lookup: expected a table of the complete grid"):
        made.lookup([[0, 0, 0]])
    assert factor_vae_score(made, **SMALL).score == 1.0


def test_a_value_with_a_single_row_is_an_error():
    factors = np.concatenate([grid((2, 3)), [[2, 0]]])
    made = FactorTable.of(factors, factors)
    with pytest.raises(ValueError, match=r"at least 2 rows with each value of factor 0, got 1"):
        factor_vae_score(made, **SMALL)


def test_table_checks_its_input():
    with pytest.raises(ValueError, match="60 in all, got 59"):
        FactorTable(grid()[1:], SIZES)
    with pytest.raises(ValueError, match="sizes: expected at least 1 each"):
        FactorTable(grid(), (60, 0))
    with pytest.raises(ValueError, match="codes: expected finite values"):
        FactorTable(np.full((60, 1), np.nan), SIZES)
    with pytest.raises(ValueError, match="values: expected values below sizes"):
        FactorTable(grid(), SIZES).lookup([[3, 0, 0]])
    with pytest.raises(ValueError, match=r"values: expected integers \(\*, 3\)"):
        FactorTable(grid(), SIZES).lookup([[0, 0]])
    with pytest.raises(ValueError, match="labels: expected"):
        FactorTable(grid(), SIZES, grid()[:, :2])
    with pytest.raises(ValueError, match="a factor with more than one value"):
        factor_vae_score(FactorTable(np.ones((1, 2)), (1, 1)))


# ---- FactorVAE score


def loop_votes(z, sizes, count, batch, rng, threshold):
    """One vote at a time, by the definition: draw factors, fix one, look up, compare variances."""
    scale = z.std(0, ddof=1)
    active = np.flatnonzero((scale > 0) & (scale >= threshold))
    votes = np.zeros((z.shape[1], len(sizes)))
    shaped = z.reshape(*sizes, -1)
    for _ in range(count):
        k = rng.integers(len(sizes))
        values = np.stack([rng.integers(size, size=batch) for size in sizes])
        values[k] = values[k, 0]
        drawn = shaped[tuple(values)][:, active] / scale[active]
        votes[active[drawn.var(0, ddof=1).argmin()], k] += 1
    return votes


@pytest.mark.parametrize("name", ["turned", "noisy", "noise", "missing", "parity", "dead"])
def test_votes_are_distributed_as_in_the_definition(name):
    z = codes(name, grid())
    found = factor_vae_score(FactorTable(z, SIZES), batch_size=8, train=6000, test=6000)
    expected = loop_votes(z, SIZES, 3000, 8, np.random.default_rng(7), 0.05)
    assert found.votes / 6000 == pytest.approx(expected / 3000, abs=0.04)
    assert found.score == pytest.approx(expected.max(1).sum() / 3000, abs=0.04)


@pytest.mark.parametrize("name", ["perfect", "scaled", "permuted", "doubled", "dead"])
def test_perfect_codes(name):
    assert factor_vae_score(table(name), **SMALL).score == 1.0
    pytest.importorskip("sklearn")
    if name != "scaled":  # small ranges reach the regularised classifier weakly
        assert beta_vae_score(table(name), **SMALL).score > 0.99
    assert beta_vae_score(table(name), **SMALL, standardize=True).score > 0.99


def test_votes_of_a_perfect_code():
    found = factor_vae_score(table("permuted"), **SMALL)
    assert found.votes.sum() == 400 and (found.votes > 0).sum() == 3


def test_constant_factors_are_never_drawn():
    sizes = (3, 1, 4)
    found = factor_vae_score(FactorTable(grid(sizes), sizes), **SMALL)
    assert found.score == 1.0
    assert found.factors.tolist() == [0, 2] and found.votes.shape == (3, 2)


def test_collapsed_codes_are_pruned_by_threshold():
    factors = grid().astype(float)
    z = np.concatenate([factors, 0.01 * factors[:, :1]], 1)
    assert factor_vae_score(FactorTable(z, SIZES), **SMALL).active.tolist() == [True] * 3 + [False]
    kept = factor_vae_score(FactorTable(z, SIZES), **SMALL, threshold=0.0)
    assert kept.active.all()
    dead = factor_vae_score(table("all dead"), **SMALL)
    assert (dead.score, dead.train, int(dead.votes.sum())) == (0.0, 0.0, 0)
    assert factor_vae_score(table("dead"), **SMALL, threshold=0.0).active.sum() == 3


def test_factor_score_is_unchanged_by_scales():
    z = codes("noisy", grid()) * 4.0
    a = factor_vae_score(FactorTable(z, SIZES), **SMALL)
    b = factor_vae_score(FactorTable(z * [2.0, 0.5, 8.0] + 1.0, SIZES), **SMALL)
    assert (a.votes == b.votes).all() and a.score == b.score


def test_seeds_and_the_random_state():
    before = np.random.get_state()[1].copy()
    a, b, c = (factor_vae_score(table("noisy"), **SMALL, seed=seed) for seed in (0, 0, 1))
    assert (a.votes == b.votes).all() and (a.votes != c.votes).any()
    assert (before == np.random.get_state()[1]).all()


def test_in_chunks(monkeypatch):
    whole = factor_vae_score(table("noisy"), train=300, test=600)
    monkeypatch.setattr("vaereg.metrics.disentanglement._interventional._ENTRIES", 64 * 3 * 10)
    part = factor_vae_score(table("noisy"), train=300, test=600)
    assert whole.score == pytest.approx(part.score, abs=0.15)


def test_a_single_factor_leaves_nothing_to_tell_apart():
    single = FactorTable(np.arange(5.0)[:, None], (5,))
    assert factor_vae_score(single, **SMALL).score == 1.0
    pytest.importorskip("sklearn")
    assert beta_vae_score(single, **SMALL).score == 1.0


# ---- beta-VAE score


@pytest.mark.parametrize("name", ["turned", "noisy", "noise", "missing"])
def test_beta_score_is_the_definition(name):
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression

    z = codes(name, grid())
    shaped, rng = z.reshape(*SIZES, -1), np.random.default_rng(3)
    points, labels = [], []
    for _ in range(1500):
        k = rng.integers(3)
        a, b = ([rng.integers(size, size=8) for size in SIZES] for _ in range(2))
        b[k] = a[k]
        points.append(np.abs(shaped[tuple(a)] - shaped[tuple(b)]).mean(0))
        labels.append(k)
    model = LogisticRegression().fit(points[:1000], labels[:1000])
    expected = (model.predict(points[1000:]) == labels[1000:]).mean()
    found = beta_vae_score(FactorTable(z, SIZES), batch_size=8, train=1000, test=4000)
    assert found.score == pytest.approx(expected, abs=0.07)


def test_beta_score_of_degenerate_codes():
    pytest.importorskip("sklearn")
    dead = beta_vae_score(table("all dead"), **SMALL)
    assert dead.score == pytest.approx(1 / 3, abs=0.12)
    assert beta_vae_score(table("noise"), batch_size=1, **SMALL).score < 0.6
    assert beta_vae_score(table("perfect"), train=1, test=300).score < 0.5
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        beta_vae_score(table("noise"), batch_size=0)
    with pytest.raises(ValueError, match="batch_size: expected at least 2, got 1"):
        factor_vae_score(table("noise"), batch_size=1)

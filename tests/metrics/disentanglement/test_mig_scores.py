"""MIG: both forms against loops, closed forms and identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from representations import NAMES, codes, grid, sampled

from vaereg.metrics import mig
from vaereg.metrics.disentanglement._histogram import discretize, mutual_information


def counted_information(a, b):
    """Of two columns of labels, by the definition and loops."""
    total = 0.0
    for u in set(a.tolist()):
        for v in set(b.tolist()):
            both = np.mean((a == u) & (b == v))
            if both:
                total += both * math.log(both / (np.mean(a == u) * np.mean(b == v)))
    return total


def loop_mig(z, factors, bins=20):
    """Bins as numpy.histogram places them; the last one closed."""
    found = []
    for v in factors.T:
        if len(set(v.tolist())) == 1:
            continue
        values = [0.0] if z.shape[1] == 1 else []
        for column in z.T:
            edges = np.histogram(column, bins)[1]
            values.append(counted_information(np.digitize(column, edges[:-1]), v))
        values.sort()
        found.append((values[-1] - values[-2]) / counted_information(v, v))
    return np.mean(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", ["grid", "sample"])
def test_histogram_form_is_the_definition(name, rows):
    factors = grid() if rows == "grid" else sampled()
    z = codes(name, factors)
    found = mig(z, factors)
    assert float(found) == pytest.approx(loop_mig(z, factors), abs=1e-12)
    assert found.mutual_information.shape == (z.shape[1], 3)


def test_information_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    factors = sampled(2000, (3, 6, 40))
    z = codes("noisy", factors)
    found = mig(z, factors)
    cells = discretize(z, 20, "uniform")
    for d in range(3):
        for k in range(3):
            expected = metrics.mutual_info_score(factors[:, k], cells[:, d])
            assert found.mutual_information[d, k] == pytest.approx(expected, abs=1e-12)
    assert found.entropy == pytest.approx([
        metrics.mutual_info_score(v, v) for v in factors.T
    ])  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_information_in_chunks(monkeypatch, chunk):
    monkeypatch.setattr("vaereg.metrics.disentanglement._histogram._PAIRS", chunk)
    rng = np.random.default_rng(0)
    cells, labels = rng.integers(4, size=(50, 2)), rng.integers(3, size=(50, 2))
    found = mutual_information(cells, 4, labels, (3, 3))
    expected = [[counted_information(c, v) for v in labels.T] for c in cells.T]
    assert found == pytest.approx(np.array(expected), abs=1e-13)


def test_independence_is_exactly_zero():
    factors = grid((3, 7, 11))
    found = mig(factors, factors)
    off = found.mutual_information[~np.eye(3, dtype=bool)]
    assert (off == 0.0).all()
    assert found.score == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["perfect", "scaled", "permuted", "dead", "float32"])
def test_perfect_codes(name):
    factors = grid()
    z = factors.astype(np.float32) if name == "float32" else codes(name, factors)
    assert float(mig(z, factors)) == pytest.approx(1.0)


def test_twenty_bins_cannot_hold_more_values():
    factors = grid((32, 40))
    found = mig(factors, factors)
    # 12 of the bins hold two of 32 values, 8 hold one; all 20 hold two of 40.
    of_32 = (12 * 2 / 32 * math.log(16) + 8 / 32 * math.log(32)) / math.log(32)
    assert found.gaps == pytest.approx([of_32, math.log(20) / math.log(40)])
    assert float(mig(factors, factors, bins=40)) == pytest.approx(1.0)


def test_degenerate_codes():
    factors = grid()
    assert float(mig(codes("doubled", factors), factors)) == 0.0
    assert float(mig(codes("all dead", factors), factors)) == 0.0
    one = mig(codes("one code", factors), factors)
    assert one.gaps == pytest.approx([1.0, 0.0, 0.0])


def test_constant_factors_are_left_out():
    factors = grid((3, 1, 4))
    z = factors + np.array([0.0, 5.0, 0.0])
    found = mig(z, factors)
    assert found.factors.tolist() == [0, 2] and float(found) == pytest.approx(1.0)


def test_invariance_to_shifts_scales_and_names_of_values():
    factors = sampled()
    z = codes("noisy", factors)
    renamed = np.array([7, -2, 90, 4, 11])[factors]
    assert float(mig(z, renamed)) == pytest.approx(float(mig(z, factors)))
    assert float(mig(-4.0 * z + 8.0, factors, bins=10)) == pytest.approx(
        float(mig(z, factors, bins=10)), abs=0.02
    )


def test_quantile_bins_hold_as_many_rows_each():
    z = np.random.default_rng(0).standard_normal((1000, 2)) ** 3
    cells = discretize(z, 10, "quantile")
    assert all((np.bincount(c) == 100).all() for c in cells.T)
    assert (discretize(z**3, 10, "quantile") == cells).all()
    assert (discretize(np.ones((5, 1)), 10, "quantile") == 9).all()


def test_neighbouring_floats_can_be_binned():
    z = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    assert float(mig(z, [[0], [1]])) == pytest.approx(1.0)


# ---- sampling form


def gaussian_codes(factors, width, noise, scale=1.0):
    mean = scale * np.concatenate([factors, np.zeros((len(factors), width - factors.shape[1]))], 1)
    return torch.tensor(mean), torch.full(mean.shape, 2.0 * math.log(noise), dtype=torch.float64)


def test_sampling_form_of_sharp_posteriors():
    factors = grid()
    mean, logvar = gaussian_codes(factors, 4, 0.01)
    found = mig(mean, factors, logvar=logvar)
    assert float(found) == pytest.approx(1.0, abs=1e-6)
    assert np.diag(found.mutual_information) == pytest.approx(np.log([3, 4, 5]), abs=1e-6)


def test_sampling_form_of_posteriors_equal_to_the_prior():
    factors = grid()
    mean, logvar = torch.zeros(60, 3), torch.zeros(60, 3)
    assert float(mig(mean, factors, logvar=logvar)) == pytest.approx(0.0, abs=1e-6)


def test_sampling_form_is_the_definition():
    """The loop over samples and components, on the same samples."""
    factors = np.repeat(sampled(90, (2, 3)), 1, 0)
    rng = np.random.default_rng(3)
    mean, logvar = rng.standard_normal((90, 2)) + factors, rng.uniform(-3, 0, (90, 2))
    found = mig(mean, factors, logvar=logvar, seed=5)
    z = mean + np.exp(0.5 * logvar) * np.random.default_rng(5).standard_normal((90, 2))

    def entropy(rows, d):
        total = 0.0
        for i in rows:
            density = [
                math.exp(-0.5 * (z[i, d] - mean[j, d]) ** 2 / math.exp(logvar[j, d]))
                / math.sqrt(2 * math.pi * math.exp(logvar[j, d]))
                for j in rows
            ]
            total -= math.log(sum(density) / len(rows))
        return total / len(rows)

    for k, v in enumerate(factors.T):
        for d in range(2):
            groups = [np.flatnonzero(v == value) for value in sorted(set(v.tolist()))]
            given = sum(len(rows) / 90 * entropy(rows, d) for rows in groups)
            expected = max(0.0, entropy(range(90), d) - given)
            assert found.mutual_information[d, k] == pytest.approx(expected, abs=1e-9)


def test_sampling_form_by_quadrature():
    """Two values, unit Gaussians at ±1: I is known to any precision."""
    x = np.linspace(-12, 12, 20001)
    p = np.exp(-0.5 * (x - 1) ** 2) / math.sqrt(2 * math.pi)
    q = p[::-1]
    exact = np.trapezoid(p * np.log(p / (0.5 * (p + q))), x)
    factors = np.arange(4000)[:, None] % 2
    mean = torch.tensor(2.0 * factors - 1.0)
    found = mig(mean, factors, logvar=torch.zeros_like(mean), samples=4000)
    assert found.mutual_information[0, 0] == pytest.approx(exact, abs=0.03)
    assert float(found) == pytest.approx(exact / math.log(2), abs=0.04)


def test_sampling_form_subsamples_and_repeats(monkeypatch):
    factors = sampled(400, (2, 3))
    mean, logvar = gaussian_codes(factors, 2, 0.5)
    few = mig(mean, factors, logvar=logvar, samples=50)
    assert float(few) == float(mig(mean, factors, logvar=logvar, samples=50))
    assert float(few) == pytest.approx(float(mig(mean, factors, logvar=logvar)), abs=0.15)
    monkeypatch.setattr("vaereg.metrics.disentanglement._mig._COMPONENTS", 37)
    chunked = mig(mean, factors, logvar=logvar, samples=50)
    assert chunked.mutual_information == pytest.approx(few.mutual_information, abs=1e-9)


def test_sampling_form_leaves_the_random_state_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    factors = grid((2, 2))
    mig(factors, factors, logvar=np.zeros((4, 2)))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_sampling_form_checks_its_input():
    factors = grid((2, 2))
    with pytest.raises(ValueError, match=r"logvar: expected the shape of codes \(4, 2\)"):
        mig(factors, factors, logvar=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="logvar: expected finite values"):
        mig(factors, factors, logvar=np.full((4, 2), -np.inf))
    with pytest.raises(ValueError, match="samples: expected at least 1"):
        mig(factors, factors, logvar=np.zeros((4, 2)), samples=0)

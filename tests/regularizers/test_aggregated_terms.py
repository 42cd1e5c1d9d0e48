"""Total correlation and the decomposed KL, on posteriors whose decomposition is known exactly."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

import vaereg
from vaereg.regularizers.aggregated import DecomposedKL, MinibatchTC
from vaereg.testing import RegularizerContract


def draw(rows, width, dtype=torch.float32, generator=None):
    return torch.randn(rows, width, dtype=dtype, generator=generator)


class _Contract(RegularizerContract):
    reads_other = checks_width = False
    odd_rows = (2, 3)  # one row is an error for mss, and its own test

    def batch(self, rows, *, dtype, generator):
        mean = draw(rows, 3, dtype, generator).requires_grad_()
        logvar = draw(rows, 3, dtype, generator).requires_grad_()
        z = mean + (0.5 * logvar).exp() * draw(rows, 3, dtype, generator)
        return {"z": vaereg.gaussian((mean, logvar), value=z)}, [mean, logvar]

    def image_case(self, rows, *, dtype, generator):
        size = rows, 2, 3, 3
        mean = torch.randn(*size, dtype=dtype, generator=generator).requires_grad_()
        code = vaereg.gaussian((mean, torch.zeros_like(mean)))
        return self.make(), {"z": code}, [mean]


class TestMinibatchTC(_Contract):
    def make(self):
        return MinibatchTC("z", dataset_size=100)


class TestWithABank(_Contract):
    def make(self):
        return MinibatchTC("z", dataset_size=100, memory_bank=8)


class TestDecomposedKL(_Contract):
    def make(self):
        return DecomposedKL("z", dataset_size=100, tc=6.0)


def dataset(n, d, seed=0):
    """Posteriors along a curve: their codes depend on each other."""
    t = torch.linspace(0.0, 2.0 * math.pi, n + 1)[:-1].double()
    mean = torch.stack([torch.sin((k + 1) * t) for k in range(d)], 1)
    logvar = torch.full_like(mean, -3.0)
    g = torch.Generator().manual_seed(seed)
    return mean, logvar, torch.randn(n, d, generator=g).double()


def code_of(mean, logvar, noise):
    return vaereg.gaussian((mean, logvar), value=mean + (0.5 * logvar).exp() * noise)


def exact(mean, logvar, z):
    """MI, TC and dimension KL of the whole dataset at given samples."""
    density = Normal(mean, (0.5 * logvar).exp()).log_prob(z[:, None])  # (N, N, D)
    n = math.log(len(mean))
    joint = density.sum(2).logsumexp(1) - n
    product = (density.logsumexp(1) - n).sum(1)
    own = density.diagonal().mT.sum(1)
    prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    return (own - joint).mean(), (joint - product).mean(), (product - prior).mean()


@pytest.mark.parametrize("estimator", ["mss", "plain"])
def test_exact_where_the_batch_is_the_dataset(estimator):
    mean, logvar, noise = dataset(40, 3)
    code = code_of(mean, logvar, noise)
    options = {"dataset_size": 40, "estimator": estimator}
    parts = DecomposedKL("z", **options).diagnostics({"z": code})
    expected = exact(mean, logvar, code.value)
    for name, value in zip(("mi", "tc", "dimwise"), expected, strict=True):
        torch.testing.assert_close(parts[name], value)
    torch.testing.assert_close(MinibatchTC("z", **options)({"z": code}), expected[1])


@pytest.mark.parametrize("estimator", ["mss", "mws", "plain"])
@pytest.mark.parametrize("bank", [0, 5])
def test_parts_telescope_to_the_kl_at_the_samples(estimator, bank):
    mean, logvar, noise = dataset(12, 4)
    code = code_of(mean, logvar, noise)
    term = DecomposedKL("z", dataset_size=500, estimator=estimator, memory_bank=bank)
    term.update({"z": code})
    sampled = (code.q.log_prob(code.value) - code.p.log_prob(code.value)).mean()
    torch.testing.assert_close(term({"z": code}), sampled)
    weighted = DecomposedKL("z", dataset_size=500, mi=0.0, tc=3.0, dimwise=0.5)
    parts = weighted.diagnostics({"z": code})
    torch.testing.assert_close(weighted({"z": code}), 3.0 * parts["tc"] + 0.5 * parts["dimwise"])


@pytest.mark.parametrize("estimator", ["mss", "mws", "plain"])
def test_one_dimension_has_no_total_correlation(estimator):
    mean, logvar, noise = dataset(12, 1)
    term = MinibatchTC("z", dataset_size=500, estimator=estimator)
    assert abs(term({"z": code_of(mean, logvar, noise)}).item()) < 1e-12


def test_mws_is_off_by_a_constant_and_has_the_gradient_of_plain():
    mean, logvar, noise = dataset(12, 3)
    values, gradients = [], []
    for estimator in ("plain", "mws"):
        leaf = mean.clone().requires_grad_()
        term = MinibatchTC("z", dataset_size=1000, estimator=estimator)
        value = term({"z": code_of(leaf, logvar, noise)})
        value.backward()
        values.append(value.item())
        gradients.append(leaf.grad)
    assert values[1] - values[0] == pytest.approx(2.0 * math.log(1000))
    torch.testing.assert_close(*gradients)


def test_parts_and_joints_are_read_as_columns():
    mean, logvar, noise = dataset(12, 4)
    z, u = code_of(mean, logvar, noise), code_of(mean[:, :2], logvar[:, :2], noise[:, :2])
    c = code_of(mean[:, 2:], logvar[:, 2:], noise[:, 2:])
    whole = MinibatchTC("z", dataset_size=50)({"z": z})
    joint = MinibatchTC(("u", "c"), dataset_size=50)({"u": u, "c": c})
    part = MinibatchTC("z[:2]", dataset_size=50)({"z": z})
    torch.testing.assert_close(joint, whole)
    torch.testing.assert_close(part, MinibatchTC("u", dataset_size=50)({"u": u}))


def test_a_prior_whose_coordinates_depend_is_read_as_a_whole():
    mean, logvar, noise = dataset(12, 2)
    prior = MultivariateNormal(
        torch.zeros(2).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
    )
    code = code_of(mean, logvar, noise)
    code = vaereg.Code(code.value, code.q, prior.expand((12,)))
    sampled = (code.q.log_prob(code.value) - prior.log_prob(code.value)).mean()
    torch.testing.assert_close(DecomposedKL("z", dataset_size=99)({"z": code}), sampled)


# ---- the memory bank


def test_the_bank_lowers_the_bias():
    """Mean error of the total correlation over a permuted epoch, with and without kept rows."""
    mean, logvar, noise = dataset(240, 3)
    truth = exact(mean, logvar, mean + (0.5 * logvar).exp() * noise)[1]
    order = torch.randperm(240, generator=torch.Generator().manual_seed(1))
    errors = {}
    for bank in (0, 112):
        term = MinibatchTC("z", dataset_size=240, memory_bank=bank)
        found = []
        for k, rows in enumerate(order.split(8)):
            batch = {"z": code_of(mean[rows], logvar[rows], noise[rows])}
            if k >= 14:
                found.append(term(batch))
            term.update(batch)
        errors[bank] = abs(float(torch.stack(found).mean() - truth))
    assert errors[112] < 0.4 * errors[0]
    assert errors[0] > 0.1


def test_the_bank_holds_the_last_rows_and_weighs_what_is_there():
    mean, logvar, noise = dataset(20, 2)
    term = MinibatchTC("z", dataset_size=30, memory_bank=5)
    batch = lambda a, b: {"z": code_of(mean[a:b], logvar[a:b], noise[a:b])}  # noqa: E731
    empty = term(batch(0, 4))
    torch.testing.assert_close(empty, MinibatchTC("z", dataset_size=30)(batch(0, 4)))
    for start in (4, 7, 10):  # 3 rows each: the first ones give way
        term.update(batch(start, start + 3))
    kept = {tuple(row.tolist()) for row in term.bank[0]}
    assert kept == {tuple(row.tolist()) for row in mean[8:13]}
    # Two rows kept of five places: the same as a mixture of batch and those two.
    term = DecomposedKL("z", dataset_size=30, memory_bank=5)
    term.update(batch(4, 6))
    first = batch(0, 4)["z"]
    joint, _ = vaereg.functional.aggregated_log_densities(
        first.value, mean[:6], logvar[:6], dataset_size=30
    )
    own = first.q.log_prob(first.value)
    torch.testing.assert_close(term.diagnostics({"z": first})["mi"], (own - joint).mean())


def test_the_bank_moves_by_update_only_and_resumes():
    mean, logvar, noise = dataset(12, 3)
    batch = {"z": code_of(mean[:6], logvar[:6], noise[:6])}
    objective = vaereg.Objective(tc=MinibatchTC("z", dataset_size=40, memory_bank=7))
    objective(batch), objective.critic_loss(batch)
    assert objective["tc"].bank is None
    objective.eval()
    objective.update(batch)
    assert objective["tc"].bank is None
    objective.train()
    objective.update(batch)
    assert int(objective["tc"].filled) == 6 and not objective["tc"].bank.requires_grad
    again = vaereg.Objective(tc=MinibatchTC("z", dataset_size=40, memory_bank=7))
    again.load_state_dict(copy.deepcopy(objective.state_dict()))
    later = {"z": code_of(mean[6:], logvar[6:], noise[6:])}
    for _ in range(3):
        assert torch.equal(objective(later).total, again(later).total)
        objective.update(later), again.update(later)
    fresh = MinibatchTC("z", dataset_size=40, memory_bank=7)
    before = fresh.state_dict()  # of before the first update
    objective["tc"].load_state_dict(before)
    assert objective["tc"].bank is None
    objective.update(later)
    assert objective["tc"].diagnostics(later)["filled"] == 6 and fresh.diagnostics(later)
    with pytest.raises(ValueError, match="the memory bank's 3 numbers a row, got 2"):
        objective({"z": code_of(mean[:, :2], logvar[:, :2], noise[:, :2])})
    with pytest.raises(RuntimeError, match="a memory bank of 3, got one of 7"):
        vaereg.Objective(tc=MinibatchTC("z", dataset_size=40, memory_bank=3)).load_state_dict(
            objective.state_dict()
        )


def test_gathered_posteriors():
    """Two ranks of six rows, and the batch of twelve that they share."""
    mean, logvar, noise = dataset(12, 3)
    every = torch.cat((mean, logvar), 1)
    whole = MinibatchTC("z", dataset_size=50)({"z": code_of(mean, logvar, noise)})
    values = []
    for begin in (0, 6):
        term = MinibatchTC("z", dataset_size=50, gather=lambda own, b=begin: (every, b))
        part = slice(begin, begin + 6)
        values.append(term({"z": code_of(mean[part], logvar[part], noise[part])}))
    torch.testing.assert_close(torch.stack(values).mean(), whole)


# ---- mistakes


@pytest.mark.parametrize("kind", [MinibatchTC, DecomposedKL])
def test_mistakes(kind):
    mean, logvar, noise = dataset(6, 2)
    batch = {"z": code_of(mean, logvar, noise)}
    with pytest.raises(TypeError, match="dataset_size"):
        kind("z")
    for wrong, message in ((10.5, "to be an integer, got 10.5"), (0, "dataset_size >= 1, got 0")):
        with pytest.raises(ValueError, match=message):
            kind("z", dataset_size=wrong)
    with pytest.raises(ValueError, match="at least the 6 of the batch, got 5"):
        kind("z", dataset_size=5)(batch)
    with pytest.raises(ValueError, match="6 of the batch and the 10 of the memory bank, got 12"):
        kind("z", dataset_size=12, memory_bank=10)(batch)
    with pytest.raises(ValueError, match=r"at least 2 rows for estimator 'mss'.*drop_last"):
        kind("z", dataset_size=12)({"z": code_of(mean[:1], logvar[:1], noise[:1])})
    assert torch.isfinite(
        kind("z", dataset_size=12, estimator="plain")(
            {"z": code_of(mean[:1], logvar[:1], noise[:1])}
        )
    )
    with pytest.raises(ValueError, match="estimator to be mss, mws or plain, got 'mis'"):
        kind("z", dataset_size=12, estimator="mis")
    full = MultivariateNormal(mean, torch.eye(2).double().expand(6, 2, 2))
    with pytest.raises(TypeError, match=r"factorised Gaussian.*DensityRatioTC"):
        kind("z", dataset_size=12)({"z": vaereg.Code(mean, full, full)})
    normal = Independent(Normal(mean, torch.ones_like(mean)), 1)
    with pytest.raises(TypeError, match="to be a Code"):
        kind("z", dataset_size=12)({"z": mean})
    assert torch.isfinite(kind("z", dataset_size=12)({"z": vaereg.Code(mean, normal, normal)}))


def test_terms_that_read_no_prior_need_none():
    q = Independent(Normal(torch.randn(6, 3), torch.rand(6, 3) + 0.5), 1)
    joint = MultivariateNormal(torch.zeros(3), 0.5 * torch.eye(3) + 0.5)
    value = q.sample()
    for name in ("z", "z[:2]"):
        dip = vaereg.DIP(name, kind="ii", off_diagonal=1.0, diagonal=1.0)
        for term in (MinibatchTC(name, dataset_size=50), dip):
            expected = term({"z": vaereg.gaussian(q, value=value)})
            for prior in (None, joint):  # a prior whose part has no marginal by slicing
                torch.testing.assert_close(term({"z": vaereg.Code(value, q, prior)}), expected)
    with pytest.raises(TypeError, match="with a prior p, got None"):
        DecomposedKL("z", dataset_size=50)({"z": vaereg.Code(value, q, None)})
    with pytest.raises(TypeError, match=r"Code with a posterior \(see"):
        MinibatchTC("z", dataset_size=50)({"z": value})

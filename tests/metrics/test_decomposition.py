"""The decomposition of a whole dataset's KL, and the bias of minibatch estimates of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from vaereg.metrics import decomposition as module
from vaereg.metrics import estimator_bias, kl_decomposition


def posteriors(n, d, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g).to(dtype), torch.randn(n, d, generator=g).to(dtype) - 2.0


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_against_a_loop_at_the_same_samples(monkeypatch):
    """Streamed in pieces of seven posteriors, drawn twice over and a remainder."""
    monkeypatch.setattr(module, "_COMPONENTS", 7)
    mean, logvar = posteriors(30, 3, dtype=torch.float64)
    found = kl_decomposition(mean, logvar, samples=70, generator=seeded(1))
    g = seeded(1)
    rows = torch.cat([torch.randperm(30, generator=g) for _ in range(3)])[:70]
    noise = torch.randn(70, 3, generator=g, dtype=torch.float64)
    mi, tc, dimwise = [], [], []
    for i, eps in zip(rows.tolist(), noise, strict=True):
        z = mean[i] + (0.5 * logvar[i]).exp() * eps
        density = Normal(mean, (0.5 * logvar).exp()).log_prob(z)  # (N, D)
        joint = density.sum(1).logsumexp(0) - math.log(30)
        marginals = density.logsumexp(0) - math.log(30)
        mi.append(density[i].sum() - joint)
        tc.append(joint - marginals.sum())
        dimwise.append(marginals - Normal(0.0, 1.0).log_prob(z))
    assert found.mi == pytest.approx(float(torch.stack(mi).mean()))
    assert found.tc == pytest.approx(float(torch.stack(tc).mean()))
    assert found.dimwise_kl == pytest.approx(torch.stack(dimwise).mean(0).tolist())
    assert found.tc_error == pytest.approx(float(torch.stack(tc).std()) / 70**0.5)
    assert found.samples == 70


def test_parts_add_up_to_the_closed_form_within_their_errors():
    mean, logvar = posteriors(500, 4)
    found = kl_decomposition(mean, logvar, samples=20_000, generator=seeded(0))
    error = math.hypot(found.mi_error, found.tc_error, *found.dimwise_error)
    assert found.sampled_kl == pytest.approx(found.kl, abs=4 * error)
    assert error < 0.05


def test_gaussian_aggregate():
    """Means on a Gaussian whose covariance, with the posteriors' variance, is equicorrelated."""
    d, rho, share = 4, 0.55, 0.5
    r = torch.full((d, d), rho) + (1 - rho) * torch.eye(d)
    cov = (r - share * (1 - rho) * torch.eye(d)).double()
    n = 20_000
    mean = torch.randn(n, d, generator=seeded(0)).double() @ torch.linalg.cholesky(cov).mT
    logvar = torch.full((n, d), math.log(share * (1 - rho)))
    found = kl_decomposition(mean.float(), logvar, samples=4000, generator=seeded(1))
    tc = -0.5 * float(torch.logdet(r.double()))
    mi = 0.5 * (float(torch.logdet(r.double())) - d * math.log(share * (1 - rho)))
    # The finite dataset knows a little more of its rows, and sampling has its error.
    assert found.tc == pytest.approx(tc, abs=4 * found.tc_error + 0.02)
    assert found.mi == pytest.approx(mi, abs=4 * found.mi_error + 0.05)
    assert sum(found.dimwise_kl) == pytest.approx(0.0, abs=0.05)


def test_one_dimension_and_one_row():
    assert abs(kl_decomposition(*posteriors(50, 1), samples=100).tc) < 1e-5
    alone = kl_decomposition(*posteriors(1, 3), samples=100)
    assert abs(alone.mi) < 1e-5 and abs(alone.tc) < 1e-5


def test_estimates_of_the_whole_dataset_are_unbiased_and_a_bank_helps():
    mean, logvar = posteriors(64, 3)
    options = {"samples": 3000, "batches": 60}
    whole = estimator_bias(mean, logvar, batch_size=64, generator=seeded(0), **options)
    assert abs(whole.mi) < 4 * whole.mi_error and abs(whole.tc) < 4 * whole.tc_error
    small = estimator_bias(mean, logvar, batch_size=8, generator=seeded(0), **options)
    banked = estimator_bias(
        mean, logvar, batch_size=8, memory_bank=40, generator=seeded(0), **options
    )
    assert small.mi > 4 * small.mi_error
    assert abs(banked.mi) < 0.5 * small.mi and abs(banked.tc) < 0.5 * abs(small.tc)


def test_seeds_and_progress(capsys):
    mean, logvar = posteriors(40, 2)
    first = kl_decomposition(mean, logvar, samples=20, generator=seeded(3))
    assert kl_decomposition(mean, logvar, samples=20, generator=seeded(3), progress=True) == first
    assert "kl_decomposition" in capsys.readouterr().err
    assert "TC" in str(first)


def test_errors():
    mean, logvar = posteriors(10, 2)
    with pytest.raises(ValueError, match=r"mean, logvar: expected \(N, D\) each"):
        kl_decomposition(mean, logvar[:5])
    with pytest.raises(ValueError, match="samples: expected an integer of at least 2, got 1"):
        kl_decomposition(mean, logvar, samples=1)
    with pytest.raises(ValueError, match="logvar: expected finite values"):
        kl_decomposition(mean, logvar.clone().fill_(math.nan))
    with pytest.raises(ValueError, match="at least the 12 components"):
        estimator_bias(mean, logvar, batch_size=8, memory_bank=4)
    with pytest.raises(ValueError, match="batches: expected at least 2"):
        estimator_bias(mean, logvar, batch_size=8, batches=1)
    with pytest.raises(ValueError, match="memory_bank: expected at least 0"):
        estimator_bias(mean, logvar, batch_size=8, memory_bank=-1)


def test_16_bit_posteriors_are_widened():
    mean, logvar = torch.randn(500, 4), torch.full((500, 4), -10.0)
    half = mean.bfloat16(), logvar.bfloat16()
    found = [
        kl_decomposition(*pair, samples=400, generator=torch.Generator().manual_seed(0))
        for pair in (half, [t.float() for t in half])
    ]
    assert found[0] == found[1]
    assert found[0].mi <= math.log(500) + 1e-5


def test_blocks_of_the_plain_form_are_bounded():
    mean, logvar = torch.randn(3000, 4), torch.full((3000, 4), -3.0)
    parts = [
        kl_decomposition(
            mean, logvar, samples=3000, backend=b, generator=torch.Generator().manual_seed(0)
        )
        for b in ("reference", "auto")
    ]  # 1398 components a block against all at once
    assert parts[0].mi == pytest.approx(parts[1].mi, abs=1e-5)
    assert parts[0].tc == pytest.approx(parts[1].tc, abs=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: kl_decomposition(m.long(), m.long()), TypeError, "mean: expected a floating"),
        (lambda m: kl_decomposition(m.numpy(), m), TypeError, "mean: expected a tensor"),
        (
            lambda m: kl_decomposition(m, m, samples=2.5),
            ValueError,
            "samples: expected an integer",
        ),
        (lambda m: estimator_bias(m, m, batch_size=-2), ValueError, "batch_size: expected at lea"),
        (lambda m: estimator_bias(m, m, batch_size=1, memory_bank=5), ValueError, "batch_size"),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(20, 2))

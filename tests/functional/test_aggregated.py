"""Weights of the aggregated posterior, against enumerations of every batch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from vaereg.functional.aggregated import (
    aggregated_log_densities,
    log_weights,
    pairwise_log_density,
)


def posteriors(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g).double(), torch.randn(n, d, generator=g).double() - 1.0


def truth(z, mean, logvar):
    """log q(z) and log q(z_d), by the definition."""
    density = Normal(mean, (0.5 * logvar).exp()).log_prob(z[:, None])  # (B, N, D)
    n = math.log(len(mean))
    return density.sum(2).logsumexp(1) - n, density.logsumexp(1) - n


def test_weights_by_hand():
    others, own = log_weights(4, 10, "mss")
    assert math.exp(own) == pytest.approx(0.1) and math.exp(others) == pytest.approx(0.3)
    assert log_weights(4, 10, "plain") == (-math.log(4), -math.log(4))
    assert log_weights(4, 10, "mws") == (-math.log(40), -math.log(40))
    assert log_weights(10, 10, "mss") == pytest.approx(log_weights(10, 10, "plain"))
    assert log_weights(1, 1, "mss") == (-math.inf, 0.0)


def test_mss_is_unbiased_for_the_density():
    """The mean over every batch that holds a row is q at that row's sample, exactly."""
    n, b = 7, 3
    mean, logvar = posteriors(n, 2)
    z = mean[:1] + 0.3
    joint, marginals = truth(z, mean, logvar)
    found = {"mss": [], "plain": []}
    for others in itertools.combinations(range(1, n), b - 1):
        rows = [0, *others]
        for kind, values in found.items():
            j, m = aggregated_log_densities(
                z, mean[rows], logvar[rows], dataset_size=n, estimator=kind
            )
            values.append(torch.cat((j[:, None], m), 1).exp())
    exact = torch.cat((joint[:, None], marginals), 1).exp()
    torch.testing.assert_close(torch.stack(found["mss"]).mean(0), exact, rtol=1e-12, atol=0)
    assert (torch.stack(found["plain"]).mean(0) > 1.05 * exact).all()  # the own one counts 1/B


def test_mss_is_exact_for_the_whole_dataset():
    mean, logvar = posteriors(9, 3)
    z = mean + torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).double()
    found = aggregated_log_densities(z, mean, logvar, dataset_size=9)
    for x, y in zip(found, truth(z, mean, logvar), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_own_weight_is_at_the_diagonal_and_not_in_a_column():
    """The error of public code: 1/N for the first component, whichever row asks."""
    mean, logvar = posteriors(5, 2)
    _, own = log_weights(5, 1000)
    found, _ = aggregated_log_densities(mean, mean, logvar, dataset_size=1000)
    density = Normal(mean, (0.5 * logvar).exp()).log_prob(mean[:, None]).sum(2)
    weights = torch.full((5, 5), (1 - 1 / 1000) / 4, dtype=torch.double)
    column = weights.clone()
    weights.fill_diagonal_(math.exp(own))
    column[:, 0] = math.exp(own)
    torch.testing.assert_close(found, (density + weights.log()).logsumexp(1))
    assert ((density + column.log()).logsumexp(1) - found)[1:].abs().min() > 0.5


def test_mws_differs_from_plain_by_the_log_of_the_dataset():
    mean, logvar = (t.requires_grad_() for t in posteriors(6, 3))
    values, gradients = [], []
    for kind in ("plain", "mws"):
        joint, marginals = aggregated_log_densities(
            mean, mean, logvar, dataset_size=100, estimator=kind
        )
        tc = (joint - marginals.sum(1)).mean()
        values.append(tc.item())
        gradients.append(torch.autograd.grad(tc, (mean, logvar)))
    assert values[1] - values[0] == pytest.approx(2 * math.log(100))
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y)


def test_gathered_rows_find_their_own():
    mean, logvar = posteriors(8, 3)
    whole, _ = aggregated_log_densities(mean, mean, logvar, dataset_size=50)
    part, _ = aggregated_log_densities(mean[4:7], mean, logvar, dataset_size=50, offset=4)
    torch.testing.assert_close(part, whole[4:7])


def test_a_standard_deviation_in_place_of_a_log_variance_shows():
    """The documented symptom: variances of at least 1, densities that hardly fall off."""
    mean, _ = posteriors(50, 1)
    std = torch.full_like(mean, 0.01)
    right, _ = pairwise_log_density(mean + 3.0, mean, 2.0 * std.log())
    wrong, _ = pairwise_log_density(mean + 3.0, mean, std)
    assert right.min() < -100 and wrong.min() > -10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 3), r"dataset_size: expected the number of rows .* at least the 4 .*, got 3"),
        ((4, 10.0), "dataset_size: expected an integer, got 10.0"),
        ((4, True), "dataset_size: expected an integer, got True"),
        ((0, 10), "batch: expected at least 1, got 0"),
        ((1, 10), "batch: expected at least 2 components for mss"),
        ((4, 10, "mis"), "estimator: expected mss, mws or plain, got 'mis'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        log_weights(*arguments)

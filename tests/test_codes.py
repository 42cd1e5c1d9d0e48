"""Codes: every way to make one, their shapes, their samples, their detachment."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    StudentT,
)

import vaereg


def test_every_way_to_give_a_gaussian_is_the_same_distribution():
    mean, logvar = torch.randn(4, 3), torch.randn(4, 3)
    ways = [
        vaereg.gaussian(torch.cat((mean, logvar), 1)),
        vaereg.gaussian((mean, logvar)),
        vaereg.gaussian({"mean": mean, "logvar": logvar}),
        vaereg.gaussian(mean, logvar),
        vaereg.gaussian(mean, std=(0.5 * logvar).exp()),
        vaereg.gaussian(mean, var=logvar.exp()),
        vaereg.gaussian(Normal(mean, (0.5 * logvar).exp())),
        vaereg.gaussian(Independent(Normal(mean, (0.5 * logvar).exp()), 1)),
    ]
    for code in ways:
        assert code.q.batch_shape == (4,) and code.q.event_shape == (3,)
        torch.testing.assert_close(code.q.mean, mean)
        torch.testing.assert_close(code.q.variance, logvar.exp())
        assert code.p.batch_shape == (4,) and code.value.shape == (4, 3)


def test_halves_of_images_are_along_dim_1():
    params = torch.randn(4, 6, 2, 5)
    code = vaereg.gaussian(params)
    assert code.value.shape == (4, 3, 2, 5) == code.q.batch_shape + code.q.event_shape
    assert torch.equal(code.q.mean, params[:, :3])


def test_samples_have_the_posteriors_moments():
    """20,000 rows: the mean's standard error is sigma * 0.007, the deviation's sigma * 0.005."""
    mean, logvar = torch.tensor([1.0, -2.0]), torch.tensor([-4.0, 2.0])
    code = vaereg.gaussian((mean.expand(20_000, 2), logvar.expand(20_000, 2)))
    sigma = (0.5 * logvar).exp()
    assert ((code.value.mean(0) - mean) / sigma).abs().max() < 0.035
    assert (code.value.std(0) / sigma - 1.0).abs().max() < 0.025


def test_gradient_of_the_sample_is_pathwise():
    mean, logvar = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    value = vaereg.gaussian((mean, logvar)).value
    value.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(4, 3))
    torch.testing.assert_close(logvar.grad, 0.5 * value.detach())


def test_half_precision_keeps_value_and_widens_parameters():
    code = vaereg.gaussian(torch.zeros(4, 6, dtype=torch.bfloat16))
    assert code.value.dtype == torch.bfloat16 and code.q.mean.dtype == torch.float32
    extreme = vaereg.gaussian((torch.zeros(1, 2).half(), torch.tensor([[-30.0, 20.0]]).half()))
    assert extreme.q.stddev.isfinite().all() and (extreme.q.stddev > 0).all()


def test_priors():
    params = torch.randn(4, 6)
    shared = Normal(torch.ones(3), 2.0 * torch.ones(3))
    for prior in (shared, Independent(shared, 1), shared.expand((4, 3)),
                  MultivariateNormal(torch.ones(3), 4.0 * torch.eye(3))):  # fmt: skip
        code = vaereg.gaussian(params, prior=prior)
        assert code.p.batch_shape == (4,) and code.p.event_shape == (3,)
        expected = shared.log_prob(code.value).sum(1)
        torch.testing.assert_close(code.p.log_prob(code.value), expected)
    with pytest.raises(ValueError, match=r"prior of shape \(3,\) or \(4, 3\), got \(2,\)"):
        vaereg.gaussian(params, prior=Normal(torch.zeros(2), torch.ones(2)))


def test_given_value_is_used():
    value = torch.randn(4, 3)
    assert vaereg.gaussian(torch.randn(4, 6), value=value).value is value
    with pytest.raises(ValueError, match=r"value of the posterior's shape \(4, 3\)"):
        vaereg.gaussian(torch.randn(4, 6), value=torch.randn(4, 2))


@pytest.mark.parametrize(
    ("args", "keywords", "message"),
    [
        ((torch.zeros(4, 5),), {}, r"got \(4, 5\)"),
        ((torch.zeros(4),), {}, r"got \(4,\)"),
        ((torch.zeros(4, 3), torch.zeros(4, 2)), {}, r"logvar of the mean's shape \(4, 3\)"),
        ((torch.zeros(4, 3),), {"std": torch.ones(4, 3), "var": torch.ones(4, 3)}, "one of"),
        (((torch.zeros(4, 3),) * 3,), {}, "got 3 entries"),
        (({"mean": torch.zeros(4, 3)},), {}, r"got \['mean'\]"),
        ((Normal(torch.zeros(4, 3), 1.0),), {"var": torch.ones(4, 3)}, "beside a distribution"),
    ],
)
def test_refused_gaussians(args, keywords, message):
    with pytest.raises(ValueError, match=message):
        vaereg.gaussian(*args, **keywords)


def test_refused_kinds():
    with pytest.raises(TypeError, match="got int"):
        vaereg.gaussian(3)
    with pytest.raises(TypeError, match=r"mean to be a floating-point tensor, got torch.int64"):
        vaereg.gaussian(torch.zeros(4, 6, dtype=torch.long))


# ---- categorical


def test_relaxed_sample_and_exact_posterior():
    logits = torch.randn(4, 5)
    code = vaereg.categorical(logits, 0.5)
    torch.testing.assert_close(code.value.sum(1), torch.ones(4))
    torch.testing.assert_close(code.q.probs, logits.softmax(1))
    kl = (logits.softmax(1) * (logits.log_softmax(1) + math.log(5.0))).sum(1).mean()
    torch.testing.assert_close(vaereg.KL("c")({"c": code}), kl)


def test_hard_samples_follow_the_posterior():
    """Frequencies of 20,000 rows: standard error sqrt(p (1 - p) / 20,000) < 0.0036."""
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    logits = probabilities.log().expand(20_000, 3).clone().requires_grad_()
    code = vaereg.categorical(logits, 0.7, hard=True)
    assert ((code.value == 0) | ((code.value - 1.0).abs() < 1e-6)).all()
    assert (code.value.mean(0) - probabilities).abs().max() < 0.015
    (code.value * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad.abs().sum() > 0


def test_temperature_sharpens():
    logits = torch.randn(200, 5)
    sharp, soft = (vaereg.categorical(logits, t).value.max(1).values.mean() for t in (0.05, 5.0))
    assert sharp > 0.95 and soft < 0.5


def test_groups_and_priors_of_categoricals():
    logits = torch.randn(4, 3, 5)
    code = vaereg.categorical(logits, 1.0)
    assert code.q.batch_shape == (4,) and code.q.event_shape == (3, 5)
    prior = torch.rand(3, 5).softmax(-1)
    kl = vaereg.KL("c")({"c": vaereg.categorical(logits, 1.0, prior=prior)})
    q = logits.double().softmax(-1)
    expected = (q * (q.log() - prior.double().log())).sum((1, 2)).mean()
    torch.testing.assert_close(kl.double(), expected, rtol=1e-5, atol=1e-6)


def test_refused_categoricals():
    with pytest.raises(ValueError, match="temperature > 0, got 0"):
        vaereg.categorical(torch.zeros(4, 3), 0.0)
    with pytest.raises(ValueError, match=r"shape \(B, K\)"):
        vaereg.categorical(torch.zeros(4), 1.0)


# ---- labels


def test_labels():
    y = vaereg.labels(torch.tensor([2, -1, 0, 3, -2]), 3)
    assert torch.equal(y[:3], torch.tensor([[0, 0, 1.0], [0, 0, 0], [1.0, 0, 0]]))
    assert y[3:].isnan().all()
    assert vaereg.labels(torch.tensor([[0, 1], [1, -1]]), 2).shape == (2, 2, 2)
    assert torch.equal(vaereg.labels(torch.tensor([True, False]), 2), torch.eye(2).flip(0))
    with pytest.raises(TypeError, match=r"got torch.float32"):
        vaereg.labels(torch.zeros(3), 2)
    with pytest.raises(ValueError, match="classes >= 2"):
        vaereg.labels(torch.zeros(3, dtype=torch.long), 1)
    with pytest.raises(ValueError, match="shape"):
        vaereg.labels(torch.zeros(1, 2, 3, dtype=torch.long), 2)


# ---- detachment


def _leaf(*shape):
    return torch.rand(*shape).add(0.1).requires_grad_()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Independent(Normal(_leaf(4, 3), _leaf(4, 3)), 1),
        lambda: Independent(Laplace(_leaf(4, 3), _leaf(4, 3)), 1),
        lambda: Independent(Bernoulli(logits=_leaf(4, 3)), 1),
        lambda: Independent(Bernoulli(probs=_leaf(4, 3) / 2), 1),
        lambda: Categorical(logits=_leaf(4, 3)),
        lambda: OneHotCategorical(probs=_leaf(4, 3)),
        lambda: MultivariateNormal(_leaf(4, 3), torch.diag_embed(_leaf(4, 3))),
        lambda: MixtureSameFamily(
            Categorical(logits=_leaf(4, 2)), Independent(Normal(_leaf(4, 2, 3), _leaf(4, 2, 3)), 1)
        ),
    ],
)
def test_detach_rebuilds_known_families(make):
    q = make()
    code = vaereg.Code(_leaf(4, 3), q, q).detach()
    value = torch.zeros(4) if isinstance(q, Categorical) else (torch.rand(4, 3) > 0.5).float()
    if isinstance(q, OneHotCategorical):
        value = torch.eye(3)[[0, 1, 2, 0]]
    for rebuilt in (code.q, code.p):
        assert type(rebuilt) is type(q) and rebuilt.event_shape == q.event_shape
        assert not rebuilt.log_prob(value).requires_grad
        torch.testing.assert_close(rebuilt.log_prob(value), q.log_prob(value).detach())
    assert q.log_prob(value).requires_grad and not code.value.requires_grad


def test_detach_drops_unknown_families():
    unknown = Independent(StudentT(_leaf(4, 3)), 1)
    code = vaereg.Code(_leaf(4, 3), unknown, unknown).detach()
    assert code.q is None and code.p is None
    assert vaereg.deterministic(_leaf(4, 3)).detach().q is None


def test_code_of_tensors_in_place_of_distributions():
    z = torch.zeros(3, 2)
    with pytest.raises(TypeError, match=r"Code: expected q to be .* got Tensor; vaereg.gaussian"):
        vaereg.Code(z, z, z)


def test_a_deterministic_code_may_have_a_prior():
    prior = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    code = vaereg.deterministic(torch.randn(6, 2), prior=prior)
    assert code.q is None and code.p.batch_shape == (6,) and code.p.event_shape == (2,)
    assert torch.isfinite(vaereg.MMD("z")({"z": code}))
    with pytest.raises(ValueError, match="expected a prior of shape"):
        vaereg.deterministic(torch.randn(6, 3), prior=prior)


def test_mode_is_the_most_likely_value():
    logits = torch.randn(6, 2, 4, dtype=torch.double)
    c = vaereg.categorical(logits, temperature=0.05)
    assert torch.equal(c.mode, torch.nn.functional.one_hot(logits.argmax(-1), 4).double())
    mean = torch.randn(6, 3)
    assert torch.equal(vaereg.gaussian((mean, torch.zeros(6, 3))).mode, mean)
    assert torch.equal(vaereg.deterministic(mean).mode, mean)
    half = vaereg.categorical(torch.randn(6, 4).bfloat16(), temperature=1.0)
    assert half.mode.dtype == torch.bfloat16 and (half.mode.sum(-1) == 1).all()

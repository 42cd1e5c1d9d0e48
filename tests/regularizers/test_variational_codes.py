"""VariationalMI of every kind of code: known channels, bounds, gradients, joints, mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    StudentT,
    Uniform,
)

import vaereg
from vaereg import critics
from vaereg.functional import categorical_entropy, gaussian_log_likelihood, mixture_entropy

pytestmark = pytest.mark.usefixtures("one_thread")


class Formula(nn.Module):
    """A critic that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, g):
        return self.function(g)


def linear(weight, bias=None):
    critic = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        critic.weight.copy_(weight)
        if bias is not None:
            critic.bias.copy_(bias)
    return critic.to(weight.dtype)


def fit(term, draw, steps, rate=1e-2):
    optimizer = torch.optim.Adam(term.critic_parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        term.critic_loss(draw()).backward()
        optimizer.step()
        schedule.step()


def standard(rows, d):
    """A draw from N(0, I) with that prior and no posterior."""
    return vaereg.Code(torch.randn(rows, d), None, Normal(torch.zeros(d), 1.0))


# ---- symmetric channels


@pytest.mark.parametrize("kind", ["label", "posterior", "draw"])
@pytest.mark.parametrize(
    ("classes", "right", "wrong", "exact"), [(2, 9, 1, 0.368064), (10, 36, 1, 1.362738)]
)
def test_symmetric_channel(classes, right, wrong, exact, kind):
    """Two symbols with 10% errors, ten with 20%: each cell as often as it is probable."""
    counts = torch.full((classes, classes), wrong) + (right - wrong) * torch.eye(classes).long()
    cells = [(i, j) for i in range(classes) for j in range(classes) for _ in range(counts[i, j])]
    sent, received = torch.tensor(cells).T
    v, g = (vaereg.labels(t, classes).double() for t in (sent, received))
    uniform = torch.zeros(len(v), classes).double()
    code = {
        "label": v,
        "posterior": vaereg.categorical(uniform, 0.5, value=v),
        "draw": vaereg.Code(v, None, OneHotCategorical(logits=uniform[0])),
    }[kind]
    channel = counts.double() / counts.sum(1)
    error = 1.0 - right / counts[0].sum().item()
    known = math.log(classes) + (1.0 - error) * math.log(1.0 - error)
    known += error * math.log(error / (classes - 1))
    assert known == pytest.approx(exact, abs=5e-7)
    term = vaereg.VariationalMI("v", given="g", critic=linear(channel.log()))
    assert term({"v": code, "g": g}).item() == pytest.approx(known, abs=1e-9)
    # A distribution says the same as its logits.
    said = Formula(lambda g: OneHotCategorical(logits=g @ channel.log(), validate_args=False))
    other = vaereg.VariationalMI("v", given="g", critic=said)
    assert other({"v": code, "g": g}).item() == pytest.approx(known, abs=1e-9)
    worse = vaereg.VariationalMI("v", given="g", critic=linear(0.5 * channel.log()))
    assert worse({"v": code, "g": g}).item() < known - 1e-2


# ---- the Gaussian channel


@pytest.mark.parametrize("d", [1, 3])
def test_gaussian_channel(d):
    """v ~ N(0, I) through noise of 0.5: the exact posterior attains (d / 2) log(1 + 1 / 0.25).

    The log-likelihood of a row has the variance d / 2 under the exact model.
    """
    rows, noise = 100_000, 0.25
    v = standard(rows, d)
    batch = {"v": v, "g": v.value + math.sqrt(noise) * torch.randn(rows, d)}
    exact = 0.5 * d * math.log(1.0 + 1.0 / noise)
    slope, variance = 1.0 / (1.0 + noise), noise / (1.0 + noise)
    means = linear(slope * torch.eye(d))
    spread = math.sqrt(variance) * torch.ones(d)
    for critic in (
        critics.GaussianHead(means, d, variance=variance),
        Formula(lambda g: Normal(slope * g, spread, validate_args=False)),
        Formula(lambda g: MultivariateNormal(slope * g, variance * torch.eye(d))),
        Formula(lambda g: [Independent(Normal(slope * g, spread.expand_as(g)), 1)]),
    ):
        found = vaereg.VariationalMI("v", given="g", critic=critic)(batch).item()
        assert found == pytest.approx(exact, abs=4.0 * math.sqrt(0.5 * d / rows))
    # A model that is wrong falls short by the mean KL from the exact posterior.
    wide = critics.GaussianHead(means, d, variance=2.0 * variance)
    gap = 0.5 * d * (math.log(2.0) + 0.5 - 1.0)
    found = vaereg.VariationalMI("v", given="g", critic=wide)(batch).item()
    assert found == pytest.approx(exact - gap, abs=4.0 * math.sqrt(0.5 * d / rows))


@pytest.mark.parametrize("variance", ["learned", "global"])
def test_fitted_heads_reach_the_gaussian_channel(variance):
    def draw(rows=512):
        v = standard(rows, 2)
        return {"v": v, "g": v.value @ torch.tensor([[1.0, 0.5], [-0.5, 1.0]])
                + 0.5 * torch.randn(rows, 2)}  # fmt: skip

    # The map is a rotation times sqrt(1.25).
    exact = math.log(1.0 + 1.25 / 0.25)
    network = critics.mlp(2, 4 if variance == "learned" else 2, width=32, depth=1)
    head = critics.GaussianHead(network, 2, variance=variance)
    term = vaereg.VariationalMI("v", given="g", critic=head)
    fit(term, draw, 400)
    found = term(draw(50_000)).item()
    assert exact - 0.05 < found < exact + 4.0 / math.sqrt(50_000)


# ---- a uniform code: what each head can say


NOISE = 0.3


def uniform_draw(rows):
    c = 2.0 * torch.rand(rows, 1) - 1.0
    code = vaereg.Code(c, None, Uniform(-torch.ones(1), 1.0))
    return {"c": code, "x": c + NOISE * torch.randn(rows, 1)}


def truncated(x):
    """Density of x, and mean and variance of c given x: N(x, NOISE^2) cut to [-1, 1]."""
    from scipy.stats import norm

    # In the left tail of the normal distribution, where differences keep their digits.
    sign, x = np.sign(x), np.abs(x)
    a, b = (-1.0 - x) / NOISE, (1.0 - x) / NOISE
    mass = norm.cdf(b) - norm.cdf(a)
    first = (norm.pdf(a) - norm.pdf(b)) / mass
    second = (a * norm.pdf(a) - b * norm.pdf(b)) / mass
    return 0.5 * mass, sign * (x + NOISE * first), NOISE**2 * (1.0 + second - first**2)


def uniform_truth():
    """By quadrature: I, the best Gaussian of free variance, and of one variance for all."""
    x = np.linspace(-3.2, 3.2, 200_001)
    density, _, variance = truncated(x)
    weight = density * (x[1] - x[0])
    constant = math.log(2.0 * math.pi * math.e)
    information = -(weight * np.log(density)).sum() - 0.5 * (constant + 2.0 * math.log(NOISE))
    free = math.log(2.0) - 0.5 * (constant + (weight * np.log(variance)).sum())
    same = math.log(2.0) - 0.5 * (constant + math.log((weight * variance).sum()))
    assert weight.sum() == pytest.approx(1.0, abs=1e-9)
    return information, free, same, (weight * variance).sum()


def test_uniform_code_by_quadrature():
    information, free, same, _ = uniform_truth()
    assert information == pytest.approx(0.749141, abs=1e-6)
    assert free == pytest.approx(0.678603, abs=1e-6)
    assert same == pytest.approx(0.636193, abs=1e-6)


def test_ideal_models_of_a_uniform_code():
    """Posterior mean and variance by formula: within 4 standard errors of 200,000 rows."""
    information, free, same, variance = uniform_truth()
    rows = 200_000
    batch = uniform_draw(rows)

    def ideal(x):
        _, mean, spread = truncated(x.double().numpy())
        return torch.from_numpy(np.concatenate((mean, np.log(spread)), 1))

    def constant(x):
        return torch.cat((ideal(x)[:, :1], torch.full((rows, 1), math.log(variance))), 1)

    for model, exact in ((ideal, free), (constant, same)):
        term = vaereg.VariationalMI("c", given="x", critic=Formula(model))
        c = batch["c"].value.double()
        known = gaussian_log_likelihood(c, *model(batch["x"]).chunk(2, 1))
        margin = 4.0 * known.std().item() / math.sqrt(rows)
        assert margin < 0.01
        assert term(batch).item() == pytest.approx(exact, abs=margin)
    # The exact posterior, as a distribution of the user's own, attains the information.
    term = vaereg.VariationalMI("c", given="x", critic=Formula(Truncated))
    assert term(batch).item() == pytest.approx(information, abs=0.01)


class Truncated(torch.distributions.Distribution):
    """The Gaussian around x, cut to [-1, 1]."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, x):
        super().__init__(x.shape[:1], x.shape[1:], validate_args=False)
        self.x = x

    def log_prob(self, value):
        density, _, _ = truncated(self.x.double().numpy())
        inside = Normal(self.x, NOISE).log_prob(value)
        return (inside - torch.from_numpy(2.0 * density).log()).sum(1)


@pytest.mark.parametrize(("variance", "place"), [("learned", 1), ("global", 2)])
def test_fitted_models_of_a_uniform_code(variance, place):
    exact = uniform_truth()[place]
    network = critics.mlp(1, 2 if variance == "learned" else 1, width=32, activation="tanh")
    head = critics.GaussianHead(network, 1, variance=variance)
    term = vaereg.VariationalMI("c", given="x", critic=head)
    fit(term, lambda: uniform_draw(512), 1000)
    assert term(uniform_draw(100_000)).item() == pytest.approx(exact, abs=0.015)


# ---- the bound of a code with a posterior


def test_value_of_a_gaussian_code_is_a_bound_on_average():
    """z = x + 0.3 e, g = z + 0.3 e': below I(z; g) for small batches, close for large ones."""
    z_noise, g_noise = 0.09, 0.09
    variance = 1.0 + z_noise
    exact = 0.5 * math.log(1.0 + variance / g_noise)
    slope = variance / (variance + g_noise)
    critic = critics.GaussianHead(
        linear(torch.tensor([[slope]])), 1, variance=variance * g_noise / (variance + g_noise)
    )
    term = vaereg.VariationalMI("z", given="g", critic=critic)
    found = []
    for rows, batches in ((2, 3000), (16, 1500), (512, 150)):
        values = []
        for _ in range(batches):
            mean = torch.randn(rows, 1)
            z = vaereg.gaussian(mean, var=torch.full_like(mean, z_noise))
            g = z.value + math.sqrt(g_noise) * torch.randn(rows, 1)
            values.append(term({"z": z, "g": g}).detach())
        values = torch.stack(values)
        found.append(values.mean().item())
        assert found[-1] < exact + 4.0 * values.std().item() / math.sqrt(batches)
    assert found == sorted(found)
    assert found[0] < exact - 0.3 and found[-1] > exact - 0.05


def codes(rows, *, dtype=torch.float64):
    """Codes with leaves, an image made of them, a label of which every third is missing."""
    leaves = [torch.randn(rows, n, dtype=dtype).requires_grad_() for n in (6, 4, 5)]
    z, c, x = leaves
    y = torch.where(torch.arange(rows) % 3 == 2, -1, torch.arange(rows) % 2)
    batch = {
        "z": vaereg.gaussian(z),
        "c": vaereg.categorical(c, 0.7),
        "y": vaereg.labels(y, 2).to(dtype),
        "x": x,
    }
    return batch, leaves


def gaussian_parts(code, columns=slice(None)):
    base = code.q.base_dist
    return code.value[:, columns], base.loc[:, columns], 2.0 * base.scale.log()[:, columns]


def test_value_against_its_equation():
    """Part, joint of two kinds, joint with a label: torch's likelihoods, tested entropies."""
    batch, _ = codes(7)
    z, c, y, x = batch["z"], batch["c"], batch["y"], batch["x"]
    critic = nn.Linear(5, 4 + 4 + 2).double()
    said = critic(x)
    spread = (0.5 * said[:, 2:4]).exp()
    rows_z = Normal(said[:, :2], spread).log_prob(z.value[:, 1:]).sum(1)
    rows_c = (c.value * said[:, 4:8].log_softmax(1)).sum(1)
    rows_y = (y * said[:, 8:].log_softmax(1)).sum(1)
    pi = c.q.base_dist.probs if hasattr(c.q, "base_dist") else c.q.probs
    part = gaussian_parts(z, slice(1, None))

    def value(code, *columns, **options):
        head = linear(critic.weight[list(columns)], critic.bias[list(columns)])
        return vaereg.VariationalMI(code, given="x", critic=head, **options)(batch)

    torch.testing.assert_close(value("z[1:]", *range(4)), rows_z.mean() + mixture_entropy(*part))
    torch.testing.assert_close(value("z[1:]", *range(4), entropy="none"), rows_z.mean())
    joint = (rows_z + rows_c).mean() + mixture_entropy(*part, pi)
    torch.testing.assert_close(value(("z[1:]", "c"), *range(8)), joint)
    torch.testing.assert_close(value(("c", "z[1:]"), *range(4, 8), *range(4)), joint)
    present = y.sum(1) > 0
    both = (pi[present].unsqueeze(2) * y[present].unsqueeze(1)).flatten(1)
    rows = (rows_c + rows_y)[present].mean()
    torch.testing.assert_close(value(("c", "y"), *range(4, 10)), rows + categorical_entropy(both))
    three = (rows_z + rows_c + rows_y)[present].mean()
    known = mixture_entropy(*(t[present] for t in part), both)
    torch.testing.assert_close(value(("z[1:]", "c", "y"), *range(10)), three + known)


def test_joint_of_independent_codes_is_the_sum():
    """Rows that say the same: values, chained, add up; as do a draw from a prior and a code."""
    rows = 9
    x = torch.randn(rows, 5).double()
    z = vaereg.gaussian(torch.zeros(rows, 4).double())
    c = vaereg.categorical(torch.randn(3).double().expand(rows, 3), 0.5)
    u = vaereg.Code(torch.rand(rows, 2).double(), None, Uniform(torch.zeros(2).double(), 1.0))
    batch = {"z": z, "c": c, "u": u, "x": x}
    critic = nn.Linear(5, 4 + 3 + 4).double()
    parts = {"z": slice(0, 4), "c": slice(4, 7), "u": slice(7, 11)}
    apart = sum(
        vaereg.VariationalMI(
            name, given="x", critic=linear(critic.weight[at], critic.bias[at])
        )(batch)
        for name, at in parts.items()
    )  # fmt: skip
    joint = vaereg.VariationalMI(("z", "c", "u"), given="x", critic=critic)
    torch.testing.assert_close(joint(batch), apart)
    split = Formula(lambda g: critic(g).split([4, 3, 4], 1))
    torch.testing.assert_close(
        vaereg.VariationalMI(("z", "c", "u"), given="x", critic=split)(batch), apart
    )


def test_images_and_parts_are_the_flat_codes():
    z, x = torch.randn(5, 4, 2, 3), torch.randn(5, 2, 2, 3)
    code = vaereg.gaussian(z)
    flat = vaereg.gaussian(
        tuple(half.flatten(1) for half in z.chunk(2, 1)), value=code.value.flatten(1)
    )
    critic = nn.Conv2d(2, 4, 1)
    image = vaereg.VariationalMI("z", given="x", critic=critic)({"z": code, "x": x})
    flattened = Formula(lambda x: critic(x).flatten(1))
    found = vaereg.VariationalMI("z", given="x", critic=flattened)({"z": flat, "x": x})
    torch.testing.assert_close(image, found)
    part = vaereg.VariationalMI("z[0]", given="x", critic=nn.Conv2d(2, 2, 1))
    assert part({"z": code, "x": x}).isfinite()


def test_several_categorical_variables():
    """(B, G, K): likelihoods add, the entropy is of the joint, not the larger sum."""
    logits = torch.tensor([[2.0, 0.0, -2.0], [-2.0, 0.0, 2.0]]).double()
    logits = logits[[0, 0, 1, 1, 1]].unsqueeze(1).repeat(1, 2, 1)
    code, x = vaereg.categorical(logits, 0.5), torch.randn(5, 4).double()
    critic = nn.Linear(4, 6).double()
    said = critic(x).view(5, 2, 3).log_softmax(2)
    pi = logits.softmax(2)
    both = (pi[:, 0].unsqueeze(2) * pi[:, 1].unsqueeze(1)).flatten(1)
    expected = (code.value * said).sum((1, 2)).mean() + categorical_entropy(both)
    term = vaereg.VariationalMI("c", given="x", critic=critic)
    torch.testing.assert_close(term({"c": code, "x": x}), expected)
    shaped = vaereg.VariationalMI(
        "c", given="x", critic=Formula(lambda x: critic(x).view(5, 2, 3))
    )
    torch.testing.assert_close(shaped({"c": code, "x": x}), expected)
    assert categorical_entropy(both) < categorical_entropy(pi[:, 0]) * 2 - 1e-3
    one = vaereg.VariationalMI(
        "c[1]", given="x", critic=linear(critic.weight[3:], critic.bias[3:])
    )
    alone = (code.value[:, 1] * said[:, 1]).sum(1).mean() + categorical_entropy(pi[:, 1])
    torch.testing.assert_close(one({"c": code, "x": x}), alone)
    # Several labels in one tensor: a row counts where all of them are there.
    y = vaereg.labels(torch.tensor([[0, 1], [1, -1], [2, 2], [-1, -1], [0, 0]]), 3).double()
    found = vaereg.VariationalMI("y", given="x", critic=critic)({"y": y, "x": x})
    kept = [0, 2, 4]
    torch.testing.assert_close(
        found, vaereg.VariationalMI("y", given="x", critic=critic)({"y": y[kept], "x": x[kept]})
    )
    shown = term.diagnostics({"c": code, "x": x})
    hits = (said.argmax(2) == code.value.argmax(2)).double().mean()
    assert shown["accuracy"].item() == pytest.approx(hits.item())


# ---- gradients


def test_gradient_by_finite_differences():
    """Of everything that the value is made of, the entropy trained."""
    batch, (z, c, x) = codes(4)
    noise = torch.randn(4, 3).double()
    critic = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6 + 4 + 2)).double()
    term = vaereg.VariationalMI(
        ("z", "c", "y"), given="x", critic=critic, entropy="trained", logvar_range=(-0.5, 0.5)
    )

    def value(z, c, x):
        mean, logvar = z.chunk(2, 1)
        sample = mean + (0.5 * logvar).exp() * noise
        code = vaereg.categorical(c, 0.7, value=(c / 0.7).softmax(1))
        return term({
            **batch, "z": vaereg.gaussian((mean, logvar), value=sample), "c": code, "x": x
        })  # fmt: skip

    assert torch.autograd.gradcheck(value, (z, c, x))


@pytest.mark.parametrize("code", ["z", ("z", "c"), "c"])
def test_only_the_trained_entropy_has_a_gradient(code):
    batch, leaves = codes(6)
    numbers = {"z": 6, "c": 4}
    width = sum(numbers[name] for name in ([code] if isinstance(code, str) else code))
    critic = nn.Linear(5, width).double()
    gradients = {}
    for kind in ("detached", "trained", "none"):
        term = vaereg.VariationalMI(code, given="x", critic=critic, entropy=kind)
        value = term(batch)
        found = torch.autograd.grad(value, leaves[:2], allow_unused=True, retain_graph=True)
        gradients[kind] = [torch.zeros(1) if g is None else g for g in found]
    for one, two in zip(gradients["detached"], gradients["none"], strict=True):
        torch.testing.assert_close(one, two)
    pi = batch["c"].q.base_dist.probs if hasattr(batch["c"].q, "base_dist") else batch["c"].q.probs
    known = {
        "z": lambda: mixture_entropy(*gaussian_parts(batch["z"])),
        "c": lambda: categorical_entropy(pi),
        ("z", "c"): lambda: mixture_entropy(*gaussian_parts(batch["z"]), pi),
    }[code]()
    expected = torch.autograd.grad(known, leaves[:2], allow_unused=True)
    for with_it, without, own in zip(
        gradients["trained"], gradients["none"], expected, strict=True
    ):
        torch.testing.assert_close(with_it - without, torch.zeros(1) if own is None else own)


@pytest.mark.parametrize("code", ["z[:2]", ("z", "c"), "u"])
def test_cooperative_training_is_alternating_training(code):
    """One backward through a shared critic gives the model the gradient that a frozen one gives,
    and the critic its own loss's gradient times the strength of the reward.
    """
    strength = 0.3
    width = {"z[:2]": 4, ("z", "c"): 6 + 4, "u": 4}[code]
    encoder, decoder = nn.Linear(5, 6 + 4).double(), nn.Linear(3 + 4 + 2, 5).double()
    critic = critics.GaussianHead(critics.mlp(5, width, width=8), width // 2).double()
    x, u = torch.randn(8, 5).double(), torch.rand(8, 2).double()
    gradients = []
    for shared in (True, False):
        term = vaereg.VariationalMI(code, given="x_hat", critic=critic, shared=shared)
        objective = vaereg.Objective(read=(-strength, term))
        torch.manual_seed(3)
        z, c = encoder(x).split([6, 4], 1)
        batch = {"z": vaereg.gaussian(z), "c": vaereg.categorical(c, 0.5)}
        batch["u"] = vaereg.Code(u, None, Uniform(torch.zeros(2).double(), 1.0))
        made = torch.cat([batch[name].value for name in ("z", "c", "u")], 1)
        batch["x_hat"] = decoder(made).tanh()
        modules = nn.ModuleList([encoder, decoder, critic])
        modules.zero_grad()
        nll = (batch["x_hat"] - x).square().sum(1).mean()
        (nll + objective(batch).total).backward()
        assert shared or all(p.grad is None for p in critic.parameters())
        if not shared:
            objective.critic_loss(batch).total.backward()
        gradients.append([
            strength * p.grad if not shared and part is critic else p.grad.clone()
            for part in modules for p in part.parameters()
        ])  # fmt: skip
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
        assert one.any()


def test_a_model_far_outside_comes_back():
    """The log-variance is clamped softly: finite, with a gradient that is not zero."""
    v = vaereg.Code(torch.randn(6, 1), None, Normal(torch.zeros(1), 1.0))
    for far in (-1e3, 1e3):
        critic = linear(torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, far]))
        term = vaereg.VariationalMI("v", given="g", critic=critic)
        loss = term.critic_loss({"v": v, "g": v.value + 0.1})
        loss.backward()
        assert loss.isfinite() and critic.bias.grad[1] != 0.0
        assert critic.bias.grad[1].sign() == math.copysign(1.0, far)


# ---- diagnostics and validation


def test_diagnostics():
    batch, _ = codes(8)
    z, x = batch["z"], batch["x"]
    critic = nn.Linear(5, 6 + 4).double()
    shown = vaereg.VariationalMI(("z", "c"), given="x", critic=critic).diagnostics(batch)
    assert set(shown) == {"entropy", "accuracy", "log_likelihood", "explained"}
    mean = critic(x)[:, :3]
    error = (z.value - mean).square().mean(0) / z.value.var(0, unbiased=False)
    torch.testing.assert_close(shown["explained"], (1.0 - error).detach())
    term = vaereg.VariationalMI(("z", "c"), given="x", critic=critic)
    total = shown["entropy"] + shown["log_likelihood"]
    torch.testing.assert_close(total, term(batch).detach())
    assert not any(value.requires_grad for value in shown.values())
    # A code of unknown entropy, and a distribution that is no Gaussian.
    code = vaereg.deterministic(z.value.detach())
    said = Formula(lambda x: Laplace(x[:, :3], torch.ones(3).double()))
    term = vaereg.VariationalMI("z", given="x", critic=said, entropy="none")
    assert set(term.diagnostics({"z": code, "x": x})) == {"log_likelihood"}
    one = {"z": z.value[:1].detach(), "x": x[:1]}
    one["z"] = vaereg.gaussian((one["z"], torch.zeros(1, 3).double()))
    term = vaereg.VariationalMI("z", given="x", critic=nn.Linear(5, 6).double())
    assert all(value.isfinite().all() for value in term.diagnostics(one).values())


def test_validate():
    batch, _ = codes(8)
    term = vaereg.VariationalMI(("z", "y"), given="x", critic=nn.Linear(5, 8).double())
    term.validate(batch)
    flat = vaereg.gaussian((torch.zeros(8, 3), torch.full((8, 3), -1e4)))
    with pytest.raises(ValueError, match=r"code 'z' of positive, finite deviations, got 0.0 to 0"):
        term.validate({**batch, "z": flat})
    one_class = vaereg.labels(torch.zeros(8).long(), 2).double()
    with pytest.raises(ValueError, match="two classes of label 'y'"):
        term.validate({**batch, "y": one_class})
    with pytest.raises(TypeError, match="code 'z' with a factorised Gaussian"):
        term.validate({**batch, "z": vaereg.deterministic(torch.zeros(8, 3).double())})


# ---- users' mistakes


X = torch.zeros(4, 2)


def refuses(kind, message, code, entry, critic, **options):
    batch = {"x": X, **(entry if isinstance(entry, dict) else {"z": entry})}
    with pytest.raises(kind, match=message):
        vaereg.VariationalMI(code, given="x", critic=critic, **options)(batch)


def test_entropies_that_are_not_known():
    width = nn.Linear(2, 6)
    none = r"code 'z' with a factorised Gaussian or a categorical .*got {}.*entropy='none'"
    shape = (torch.zeros(4, 3), torch.ones(4, 3))
    value = torch.zeros(4, 3)
    for entry, found in (
        (vaereg.deterministic(value), "neither posterior nor prior"),
        (vaereg.Code(value, Independent(Laplace(*shape), 1)), "a Laplace posterior"),
        (
            vaereg.Code(value, MultivariateNormal(value, torch.eye(3))),
            "a MultivariateNormal posterior",
        ),
        (vaereg.Code(value, None, MultivariateNormal(value, torch.eye(3))), None),
        (vaereg.Code(value, None, NoEntropy(*shape)), "a NoEntropy prior without an entropy in"),
    ):
        if found is not None:
            refuses(TypeError, none.format(found), "z", entry, width)
        term = vaereg.VariationalMI("z", given="x", critic=width, entropy="none")
        assert term({"z": entry, "x": X}).isfinite()
    full = vaereg.Code(value, None, MultivariateNormal(value, torch.eye(3)))
    refuses(TypeError, r"code 'z\[:2\]'.*prior without an entropy", "z[:2]", full, nn.Linear(2, 4))
    wrong = vaereg.Code(value, None, Normal(torch.zeros(2), 1.0))
    refuses(ValueError, r"code 'z': .*broadcasts to \(4, 3\), got \(2,\)", "z", wrong, width)
    many = vaereg.categorical(torch.zeros(4, 13, 2), 1.0)
    refuses(ValueError, "at most 4096 joint states", "z", many, nn.Linear(2, 26))
    both = {"z": many, "w": vaereg.gaussian(torch.zeros(4, 2))}
    message = "at most 256 joint states.*entropy='none'"
    refuses(ValueError, message, ("w", "z"), both, nn.Linear(2, 28))


class NoEntropy(StudentT):
    def __init__(self, loc, scale):
        super().__init__(3.0, loc, scale)

    def entropy(self):
        raise NotImplementedError


def test_what_the_critic_returns():
    z = vaereg.gaussian(torch.zeros(4, 6))
    c = vaereg.categorical(torch.zeros(4, 3), 0.5)
    both = {"z": z, "c": c}
    message = (
        r"mean and a log-variance .* the 3 numbers a row of continuous code 'z', shape \(4, 6\)"
    )
    refuses(ValueError, message + r", got \(4, 3\)", "z", z, nn.Linear(2, 3))
    message = r"of the shape of the critic's logits, \(4, 6\), got \(4, 3\)"
    refuses(ValueError, message, "z", c, nn.Linear(2, 6))
    refuses(ValueError, message + "; a tensor is a label", "z", c.value, nn.Linear(2, 6))
    message = r"expected 6 \+ 3 numbers a row from the critic for code 'z\+c'.*shape \(4, 6\)"
    refuses(ValueError, message, ("z", "c"), both, nn.Linear(2, 6))
    gaussian = Formula(lambda x: Normal(torch.zeros(4, 3), 1.0))
    refuses(TypeError, r"an entry|one entry for each part", ("z", "c"), both, gaussian)
    refuses(TypeError, "logits or a categorical distribution .* 'z', got Normal", "z", c, gaussian)
    classes = Formula(lambda x: Categorical(logits=torch.zeros(4, 3)))
    refuses(TypeError, "a continuous distribution .* 'z', got Categorical", "z", z, classes)
    narrow = Formula(lambda x: Normal(torch.zeros(4, 2), 1.0))
    refuses(
        ValueError, r"shape of code 'z', \(4, 3\), from the critic, got \(4, 2\)", "z", z, narrow
    )
    one = Formula(lambda x: (torch.zeros(4, 6),))
    refuses(ValueError, r"each part of code 'z\+c', 2, got 1", ("z", "c"), both, one)
    refuses(TypeError, "a sequence of these from the critic, got dict", "z", z, Formula(dict))
    text = Formula(lambda x: ("text",))
    refuses(TypeError, "from the critic for code 'z', got str", "z", z, text)
    # One distribution for a joint of continuous parts.
    joint = Formula(lambda x: MultivariateNormal(torch.zeros(4, 5), torch.eye(5)))
    batch = {"z": z, "w": vaereg.gaussian(torch.zeros(4, 4)), "x": X}
    term = vaereg.VariationalMI(("z", "w"), given="x", critic=joint, entropy="none")
    value = torch.cat((z.value, batch["w"].value), 1)
    torch.testing.assert_close(term(batch), Normal(0.0, 1.0).log_prob(value).sum(1).mean())


def test_shapes_and_ranges():
    z = vaereg.gaussian(torch.zeros(4, 6))
    off = vaereg.Code(torch.zeros(4, 2), z.q, z.p)
    message = r"code 'z' of the shape of its posterior, \(4, 3\), got \(4, 2\)"
    refuses(ValueError, message, "z", off, nn.Linear(2, 4))
    c = vaereg.categorical(torch.zeros(4, 3), 0.5)
    message = r"discrete code 'z\[:2\]' of shape \(B, C\) as a whole.*got \(4, 2\)"
    refuses(ValueError, message, "z[:2]", c, nn.Linear(2, 2))
    batch = {"z": z, "c": vaereg.categorical(torch.zeros(3, 3), 0.5)}
    refuses(ValueError, "as many rows", ("z", "c"), batch, nn.Linear(2, 9))
    for ends in ((1.0, 1.0), (-90.0, 0.0), (0.0, 90.0)):
        with pytest.raises(ValueError, match=r"logvar_range of low < high in \[-80, 80\]"):
            vaereg.VariationalMI("z", given="x", critic=nn.Linear(2, 2), logvar_range=ends)


# ---- what is no distribution of the code, and what is given twice


def test_a_deterministic_codes_prior_is_not_what_it_was_drawn_from():
    """Its entropy for H(v) would show 2.3 nats of a code that depends on nothing."""
    g, z = torch.randn(1000, 1), 0.1 * torch.randn(1000, 1)
    critic = Formula(lambda g: torch.cat([0 * g, 0 * g + 2 * math.log(0.1)], 1))
    prior = Normal(torch.zeros(1), 1.0)
    code = vaereg.deterministic(z, prior=prior)
    for batch in ({"z": code, "g": g}, {"z": code.detach(), "g": g}):
        with pytest.raises(TypeError, match="a draw of a prior, got a deterministic one"):
            vaereg.VariationalMI("z", "g", critic=critic)(batch)
        term = vaereg.VariationalMI("z", "g", critic=critic, entropy="none")
        assert term(batch).isfinite()
    drawn = vaereg.Code(z / 0.1, None, prior)
    assert vaereg.VariationalMI("z", "g", critic=critic)({"z": drawn, "g": g}).isfinite()


@pytest.mark.parametrize(
    "code",
    [("c", "c"), ("z[:2]", "z[1:3]"), ("z", "z[0]"), ("z[0,3]", "z[3]"), ("z[-1]", "z[-1]")],
)
def test_parts_that_overlap_are_refused(code):
    with pytest.raises(ValueError, match="parts of the code that do not overlap, got"):
        vaereg.VariationalMI(code, "x", critic=nn.Linear(3, 2))


def test_parts_that_do_not_overlap_are_not():
    z = vaereg.gaussian((torch.zeros(4, 6), torch.zeros(4, 6)))
    term = vaereg.VariationalMI(("z[:2]", "z[4:6]"), "x", critic=nn.Linear(3, 8))
    assert term({"z": z, "x": torch.randn(4, 3)}).isfinite()


@pytest.mark.parametrize("share", [[math.nan, 1.0], [1.5, -0.5], [[0.5, 0.5]], 1.0])
def test_probabilities_that_are_none(share):
    with pytest.raises(ValueError, match="expected probabilities"):
        vaereg.VariationalMI("y", "x", critic=nn.Linear(3, 2), probabilities=torch.tensor(share))


def test_a_shared_network_keeps_its_buffers_where_it_is_only_read():
    """At weight 0 a term is reported and contributes nothing, also not to running averages."""
    head = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    term = vaereg.VariationalMI("y", "x", critic=head, shared=True)
    batch = {"y": vaereg.labels(torch.arange(8) % 2, 2), "x": torch.randn(8, 3)}
    before = {name: b.clone() for name, b in head.named_buffers()}
    vaereg.Objective(mi=(0.0, term))(batch)
    assert all(torch.equal(b, before[name]) for name, b in head.named_buffers())
    vaereg.Objective(mi=(-1.0, term))(batch)
    assert not torch.equal(head[1].running_mean, before["1.running_mean"])


def test_diagnostics_without_entropy_need_none():
    c = vaereg.categorical(torch.randn(4, 8, 10), temperature=1.0)
    term = vaereg.VariationalMI("c", "x", critic=nn.Linear(3, 80), entropy="none")
    assert "entropy" not in term.diagnostics({"c": c, "x": torch.randn(4, 3)})


def test_by_default_the_entropy_is_in_the_gradient():
    """At the collapsed code of one class for all the reward still pulls towards more classes."""
    logits = torch.tensor([[2.0, 0.0]] * 16, requires_grad=True)
    critic = Formula(lambda x: torch.tensor([[2.0, 0.0]] * 16))
    batch = {
        "c": vaereg.categorical(logits, 1.0, value=logits.softmax(1)),
        "x": torch.zeros(16, 1),
    }
    grads = {}
    for entropy in ("trained", "detached"):
        term = vaereg.VariationalMI("c", "x", critic=critic, entropy=entropy)
        (grads[entropy],) = torch.autograd.grad(term(batch), logits, retain_graph=True)
    pi = logits[0].softmax(0).detach()
    own = pi * (-pi.log() - (pi * -pi.log()).sum()) / 16  # the gradient of the entropy
    assert torch.allclose(grads["trained"] - grads["detached"], own.expand(16, 2), atol=1e-7)
    default = vaereg.VariationalMI("c", "x", critic=critic)
    assert default.entropy == "trained"
